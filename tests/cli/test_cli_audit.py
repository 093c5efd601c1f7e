"""`lrpjax audit` and `lrpjax sanity` as a user meets them."""

import json
import sys

import numpy as np
import pytest

from lrpjax._base import jobs

MODEL = """
from helpers.nets_audit import network

def net():
    return network()
"""

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def run(tmp_path, monkeypatch, command_line):
    """Runs `lrpjax ...` in an empty folder with a module audited.py; returns (exit, out, err)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "audited", raising=False)
    (tmp_path / "audited.py").write_text(MODEL)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=pixels)
    return lambda *arguments: command_line(
        *arguments, "--model", "audited:net", "--images", "images.npz"
    )


def test_sanity_prints_saves_and_draws(run, tmp_path):
    chosen = ["--method", "lrp-zplus", "--method", "gradient", "--similarity", "spearman"]
    code, out, _ = run("sanity", *chosen, "--order", "input", "--json", "r.json")
    assert code == 0 and "lrp-zplus" in out and "conv1" in out and "another class" in out
    for name in ("mprt.png", "mprt.svg", "random-logit.png", "random-logit.svg"):
        assert (tmp_path / "lrpjax-sanity" / name).stat().st_size > 1000
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["settings"]["order"] == "input" and content["settings"]["n_images"] == 3
    layers = [r["layer"] for r in content["rows"] if r["check"] == "mprt"]
    assert layers == ["conv1", "conv2", "dense"] * 2
    assert {r["similarity"] for r in content["rows"]} == {"spearman"}


def test_audit_writes_a_report_and_goes_on_where_it_stopped(run, tmp_path, monkeypatch):
    pixels = np.random.default_rng(1).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "both.npz", images=pixels)
    two = ["--two-class", "both.npz", "--two-classes", "0,1"]
    arguments = ["audit", "--method", "lrp-z", "--method", "pattern-net", *two]
    code, out, _ = run(*arguments, "--json", "a.json")
    assert code == 0 and "depends" in out and "failed" in out and "audit.html" in out
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["settings"]["model"] == "audited:net"
    assert content["settings"]["command"].startswith("lrpjax audit --method lrp-z")
    page = (tmp_path / "lrpjax-audit" / "audit.html").read_text()
    line = next(line for line in out.splitlines() if line.startswith("3 images -> float32[3, 8"))
    assert line.replace(">", "&gt;") in page and content["settings"]["input"] == line
    assert "Two classes in one image" in page and "needs patterns" in page
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "lrpjax-audit/pieces").iterdir()}
    code, again, _ = run(*arguments, "--same-map", "0.1")
    assert code == 0 and "ignores" in again
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "lrpjax-audit/pieces").iterdir()}
    assert before == after
    code, _, err = run(*arguments, "--draws", "2")
    assert code == 1 and "draws: 1, now 2" in err


def test_a_method_named_twice_is_asked_once(run, monkeypatch):
    from lrpjax import auditing

    def asked(network, x, methods, **_):
        raise ValueError(", ".join(methods))

    monkeypatch.setattr(auditing, "audit", asked)
    chosen = ["--method", "lrp-z", "--method", "gradient", "--method", "lrp-z"]
    code, _, err = run("audit", *chosen)
    assert (code, err) == (1, "lrpjax: lrp-z, gradient\n")


def test_ctrl_c_keeps_finished_pieces(run, tmp_path, monkeypatch):

    from lrpjax.auditing import tasks

    def interrupted(task, method):
        raise KeyboardInterrupt

    monkeypatch.setitem(tasks.MEASURES, "mprt", tasks.Measure(interrupted))
    monkeypatch.setattr(jobs, "THREADS", 1)
    code, out, _ = run("audit", "--method", "lrp-z")
    assert code == 130 and "Interrupted" in out
    names = [p.name for p in (tmp_path / "lrpjax-audit" / "pieces").glob("piece-*")]
    assert len(names) == 4 and all(name.endswith("random-logit.json") for name in names)


MISTAKES = {
    "unknown check": (["sanity", "--check", "mptr"], "There is no check 'mptr'"),
    "unknown order": (["sanity", "--order", "top"], "There is no order 'top'"),
    "unknown randomiser": (["sanity", "--randomiser", "gauss"], "gaussian"),
    "unknown similarity": (["sanity", "--similarity", "sim"], "ssim"),
    "unknown layer": (
        ["sanity", "--check", "mprt", "--method", "gradient", "--layers", "conv9"],
        "conv1",
    ),
    "classes without images": (["audit", "--two-classes", "0,1"], "needs both"),
    "one class": (["audit", "--two-class", "images.npz", "--two-classes", "0"], "two classes"),
    "threshold": (["audit", "--same-map", "2"], "same_map"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(run, mistake):
    arguments, expected = MISTAKES[mistake]
    code, _, err = run(*arguments)
    assert code == 1 and expected in err and "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
