"""The command line as a user meets it: results, figures, and one sentence for each mistake."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from lrpjax._base import jobs

MODEL = """
import jax, jax.numpy as jnp

class Net:
    image_size = (6, 6)

    def __call__(self, x):
        w = jnp.sin(jnp.arange(108 * 4.0)).reshape(108, 4)
        return jax.nn.relu(x.reshape(len(x), -1) @ w) @ jnp.cos(jnp.arange(12.0)).reshape(4, 3)

def net():
    return Net()

def softmax():
    return lambda x: jax.nn.softmax(net()(x))
"""

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def run(tmp_path, monkeypatch, command_line):
    """Runs `lrpjax ...` in an empty folder with a module tiny.py; returns (exit, out, err)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tiny", raising=False)
    (tmp_path / "tiny.py").write_text(MODEL)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=pixels)
    tiny = ["--model", "tiny:net", "--images", "images.npz"]

    return lambda *arguments, model=True: command_line(*arguments, *(tiny if model else []))


def test_csc_prints_saves_and_draws(run, tmp_path):
    chosen = ["--method", "lrp-zplus", "--method", "gradient", "--start", "dense_2"]
    code, out, _ = run("csc", *chosen, "--vectors", "3", "--json", "r.json")
    assert code == 0 and "dense_1" in out and "lrp-zplus" in out
    for name in ("csc_linear.png", "csc_linear.svg", "csc_log.png", "csc_log.svg"):
        assert (tmp_path / "lrpjax-csc" / name).stat().st_size > 1000
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["settings"]["vectors"] == 3 and content["settings"]["model"] == "tiny:net"
    keys = {"method", "start", "layer", "median", "one_minus_median", "quantiles", "dropped"}
    assert all(keys <= row.keys() for row in content["rows"])
    assert {row["method"] for row in content["rows"]} == {"lrp-zplus", "gradient"}
    code, again, _ = run("csc", "--plot", "lrpjax-csc/results.json", "--out", "two", model=False)
    assert code == 0 and (tmp_path / "two" / "csc_log.png").exists()
    assert out.split("Figures")[0].split("median |cosine|")[1] in again


def test_csc_of_several_methods_from_several_layers(run, tmp_path):
    names = ["gradient", "lrp-zplus", "lrp-z"]
    chosen = [part for name in (*names, names[0]) for part in ("--method", name)]
    starts = ["--start", "dense_2", "--start", "dense_1"]
    code, out, err = run("csc", *chosen, *starts, "--vectors", "2", "--json", "r.json")
    assert code == 0, err
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["settings"]["methods"] == names
    for start in ("dense_2", "dense_1"):
        own = [row["method"] for row in content["rows"] if row["start"] == start]
        assert list(dict.fromkeys(own)) == names and len(own) == len(names) * own.count("lrp-z")
        table = out.split(f"injected at {start}")[1]
        assert all(name in table.split("dropped")[0] for name in names)


def test_missing_folders_are_made(run, tmp_path):
    chosen = ["--method", "gradient", "--vectors", "2", "--out", "a/b"]
    code, _, err = run("csc", *chosen, "--json", "c/d/r.json")
    assert code == 0, err
    assert (tmp_path / "a/b/csc_log.svg").exists()
    assert (tmp_path / "c/d/r.json").read_text() == (tmp_path / "a/b/results.json").read_text()


def test_every_method_runs_without_options(run, tmp_path):
    code, out, _ = run("csc", "--vectors", "2")
    assert code == 0 and "rect-grad" in out and "lrp-alpha5-beta4" in out
    assert "epsilon-gamma-box" not in out  # this model does not state its input range


def test_one_method_that_cannot_run_leaves_the_others(run, tmp_path):
    (tmp_path / "odd.py").write_text(
        "import jax.numpy as jnp\ndef make():\n    w = jnp.eye(108)[:, :4] + 1\n"
        "    return lambda x: jnp.exp(x.reshape(len(x), -1) @ w)\n"
    )
    chosen = ["--method", "lrp-z", "--method", "gradient", "--model", "odd:make"]
    code, out, _ = run("csc", *chosen, "--images", "images.npz", model=False)
    assert code == 0 and "lrp-z left out" in out and "'exp'" in out
    rows = json.loads((tmp_path / "lrpjax-csc" / "results.json").read_text())["rows"]
    assert {row["method"] for row in rows} == {"gradient"}


def test_ctrl_c_keeps_what_is_finished(run, tmp_path, monkeypatch):
    from lrpjax import convergence

    real = convergence.csc

    def interrupted(model, x, method, **options):
        if method.name == "gradient":
            return real(model, x, method, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(convergence, "csc", interrupted)
    monkeypatch.setattr(jobs, "THREADS", 1)
    code, out, _ = run("csc", "--method", "gradient", "--method", "lrp-z")
    assert code == 130 and "1 of 2 finished and saved" in out
    rows = json.loads((tmp_path / "lrpjax-csc" / "results.json").read_text())["rows"]
    assert {row["method"] for row in rows} == {"gradient"}


def test_unreadable_images_are_named_skipped_and_counted(run, tmp_path):
    (tmp_path / "broken.png").write_text("no image")
    code, out, _ = run("csc", "--method", "gradient", "--images", "broken.png")
    assert code == 0
    assert "; 1 skipped: broken.png (" in out and "1 unreadable files skipped, 2 images read" in out


def test_plan_and_methods(run, tmp_path):
    code, out, _ = run("plan", "lrp-epsilon", "--check", "--json", "p.json")
    assert code == 0 and "tiny.py" in out and "largest relative difference" in out
    assert json.loads((tmp_path / "p.json").read_text())["rows"][0]["relevance_in"]
    code, out, _ = run("methods", "--json", "m.json", model=False)
    assert code == 0 and "Bach et al. 2015" in out
    assert len(json.loads((tmp_path / "m.json").read_text())["rows"]) > 15


MISTAKES = {
    "unknown method": (["csc", "--method", "lrp-zpuls"], "lrp-zplus"),
    "unknown layer": (["csc", "--method", "gradient", "--start", "dense_9"], "nearest are dense_"),
    "unknown model": (["csc", "--model", "vgg"], "cifar10"),
    "missing module": (["csc", "--model", "nowhere:net"], "nowhere"),
    "missing factory": (["csc", "--model", "tiny:nothing"], "nothing"),
    "missing images": (["csc", "--images", "gone"], "gone"),
    "not a results file": (["csc", "--plot", "tiny.py"], "tiny.py"),
    "missing results file": (["csc", "--plot", "gone.json"], "gone.json"),
    "folder not writable": (["csc", "--out", "tiny.py/x"], "cannot be written"),
    "file not writable": (
        ["methods", "--json", "tiny.py/r.json"],
        "file 'tiny.py/r.json' cannot be written (Not a directory)",
    ),
    "softmax": (["csc", "--method", "lrp-z", "--model", "tiny:softmax"], "ends in softmax"),
    "missing data": (["train", "--data", "gone"], "gone"),
}


@pytest.mark.parametrize(("arguments", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence(run, arguments, expected):
    without = arguments[0] in ("train", "methods") or "--plot" in arguments
    with_images = [] if without else ["--images", "images.npz"]
    model = [] if "--model" in arguments or not with_images else ["--model", "tiny:net"]
    code, _, err = run(*arguments, *with_images, *model, model=False)
    assert code == 1 and expected in err and "Traceback" not in err
    assert len(err.strip().splitlines()) == 1


def test_help_names_every_command(run):
    code, out, _ = run("--help", model=False)
    assert code == 0 and all(
        name in out for name in ("csc", "attribute", "plan", "methods", "train")
    )
