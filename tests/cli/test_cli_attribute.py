"""`lrpjax attribute` as a user meets it: arrays, pictures, and one sentence for each mistake."""

from __future__ import annotations

import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import lrpjax
from lrpjax import attribution, cli
from lrpjax._base import jobs
from lrpjax.images import bundled_images

MODEL = """
import jax, jax.numpy as jnp

class Net:
    classes = ("cat", "dog", "bird")
    image_size = (6, 5)

    def __call__(self, x):
        numbers = jnp.arange(12, dtype=jnp.float32)
        h = jax.nn.relu(x @ jnp.sin(numbers).reshape(3, 4))
        return h.mean((1, 2)) @ jnp.cos(numbers).reshape(4, 3)

class AnySize(Net):
    image_size = None

class Nameless(Net):
    classes = ()

class ChannelsFirst(Net):
    def preprocess(self, images):
        return jnp.asarray(images, jnp.float32).transpose(0, 3, 1, 2) / 255

    def __call__(self, x):
        return super().__call__(x.transpose(0, 2, 3, 1))

class Double(Net):
    def preprocess(self, images):
        return jnp.asarray(images, float) / 255

class Softmax(Net):
    def __call__(self, x):
        return jax.nn.softmax(super().__call__(x))

class Exponential(Net):
    def __call__(self, x):
        return jnp.exp(super().__call__(x))

class Random(Net):
    def __call__(self, x):
        return super().__call__(x) + jax.random.normal(jax.random.key(0), (len(x), 3))

class TwoOutputs(Net):
    def __call__(self, x):
        return super().__call__(x), x

class Map(Net):
    def __call__(self, x):
        return x

class Flat(Net):
    def preprocess(self, images):
        return jnp.asarray(images, jnp.float32).reshape(len(images), -1)

class TooFewNames(Net):
    classes = ["cat"]
"""
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3), dtype=np.uint8)
TOL = 1e-5  # float32 of values near 1
METHODS = ("gradient", "lrp-epsilon")

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def run(tmp_path, monkeypatch, command_line):
    """Runs `lrpjax attribute ...` in an empty folder with images.npz; returns (exit, out, err)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    monkeypatch.setattr(cli.attribute, "DPI", 40)
    (tmp_path / "nets.py").write_text(MODEL)
    np.savez(tmp_path / "images.npz", images=PIXELS)

    def call(*arguments, model="Net", images=("images.npz",), methods=METHODS):
        chosen = [part for name in methods for part in ("--method", name)]
        line = ["attribute", *images, "--model", f"nets:{model}", *chosen, *arguments]
        return command_line(*line)

    return call


def net():
    import nets  # in the folder of the fixture `run`

    return nets.Net()


def arrays(folder="lrpjax-attribute"):
    with np.load(f"{folder}/maps.npz") as file:
        return dict(file)


def logits_of(pixels):
    """The network in plain numpy."""
    first, second = np.sin(np.arange(12.0)).reshape(3, 4), np.cos(np.arange(12.0)).reshape(4, 3)
    return np.maximum(pixels / 255 @ first, 0).mean((1, 2)) @ second


def expected_map(name, target=None):
    """What the library gives for PIXELS; by default for the largest logit."""
    target = logits_of(PIXELS).argmax(-1) if target is None else target
    x = jnp.asarray(PIXELS, jnp.float32) / 255
    return np.asarray(lrpjax.attribute(net(), x, name, target=target), np.float32)


def test_arrays_are_those_of_the_library(run):
    code, _, _ = run()
    assert code == 0
    found = arrays()
    assert set(found) == {*METHODS, "names", "targets", "logits"}
    for name in METHODS:
        assert np.array_equal(found[name], expected_map(name))
        assert found[name].dtype == np.float32 and found[name].shape == PIXELS.shape
    assert found["names"].tolist() == ["images.npz[0]", "images.npz[1]", "images.npz[2]"]
    assert np.array_equal(found["targets"], logits_of(PIXELS).argmax(-1))
    assert np.abs(found["logits"] - logits_of(PIXELS)).max() < TOL


def test_batches_give_the_same_arrays(run, monkeypatch):
    monkeypatch.setattr(cli.attribute, "BATCH", 2)
    code, _, _ = run()
    assert code == 0
    assert all(np.abs(arrays()[name] - expected_map(name)).max() < TOL for name in METHODS)


def test_a_row_and_a_picture_for_each_map(run, tmp_path):
    code, out, _ = run("--json", "r.json")
    assert code == 0
    content, found = json.loads((tmp_path / "r.json").read_text()), arrays()
    assert content["settings"]["methods"] == list(METHODS)
    assert content["settings"]["n_images"] == 3 and content["settings"]["target"] is None
    assert len(content["rows"]) == 6
    for i, row in enumerate(content["rows"]):
        reduced = found[row["method"]][i % 3].sum(-1)
        assert row["image"] == f"images.npz[{i % 3}]" and row["method"] == METHODS[i // 3]
        assert abs(row["sum"] - reduced.sum()) < TOL
        assert abs(row["scale"] - np.abs(np.percentile(reduced, (0.5, 99.5))).max()) < TOL
        assert row["target_name"] == ("cat", "dog", "bird")[row["target"]] == row["predicted"]
        assert abs(row["logit"] - logits_of(PIXELS).max(-1)[i % 3]) < TOL
        assert f"{row['sum']:.4g}" in out and f"{row['logit']:.4g}" in out
        with Image.open(row["file"]) as picture:
            assert min(picture.size) > 100
    assert len({row["file"] for row in content["rows"]}) == 6
    with Image.open("lrpjax-attribute/sheet.png") as picture:
        assert picture.size[0] > picture.size[1]  # three columns, three rows and the captions


@pytest.mark.parametrize(
    ("target", "number"), [("dog", 1), ("1", 1), ("bird", 2), ("0", 0)], ids=str
)
def test_target_by_name_and_by_number(run, target, number):
    code, out, _ = run("--target", target, methods=["gradient"])
    assert code == 0
    assert arrays()["targets"].tolist() == [number] * 3
    assert np.array_equal(arrays()["gradient"], expected_map("gradient", number))
    rows = [line for line in out.split("\n") if line.startswith("images.npz[")]
    for line, logit in zip(rows, logits_of(PIXELS)[:, number], strict=True):
        _, name, shown, _ = line.split()
        assert name == ("cat", "dog", "bird")[number] and abs(float(shown) - logit) < 1e-3


def test_shared_scale_is_one_for_each_method(run, tmp_path):
    code, _, _ = run("--shared-scale", "--json", "r.json")
    assert code == 0
    rows, found = json.loads((tmp_path / "r.json").read_text())["rows"], arrays()
    for name in METHODS:
        scales = {row["scale"] for row in rows if row["method"] == name}
        expected = np.abs(np.percentile(found[name].sum(-1), (0.5, 99.5))).max()
        assert len(scales) == 1 and abs(scales.pop() - expected) < TOL


def test_overlay_changes_pictures_but_not_arrays(run):
    run("--out", "plain")
    code, _, _ = run("--overlay", "--out", "over")
    assert code == 0
    assert all(np.array_equal(arrays("plain")[name], arrays("over")[name]) for name in METHODS)
    for file in ("sheet.png", "gradient/000-images.png"):
        with Image.open(f"plain/{file}") as plain, Image.open(f"over/{file}") as over:
            assert plain.size == over.size and plain.tobytes() != over.tobytes()


def test_without_images_the_bundled_ones(run, monkeypatch):
    monkeypatch.setattr(cli.attribute, "BUNDLED", 2)
    code, out, _ = run(images=(), methods=(), model="AnySize")
    assert code == 0 and "cifar10-0-cat" in out
    found = arrays()
    assert set(found) == {*cli.attribute.METHODS, "names", "targets", "logits"}
    assert found["gradient"].shape == (2, 32, 32, 3)
    assert np.abs(found["logits"] - logits_of(bundled_images()[0][:2])).max() < TOL


def test_images_are_an_option_as_of_other_commands(run, tmp_path):
    np.savez(tmp_path / "first.npz", images=PIXELS[2:])
    option = ("--images", "first.npz", "--images", "images.npz")
    for images in (option, ("first.npz", "images.npz"), (*option[:2], "images.npz")):
        code, _, err = run("--json", "r.json", images=images, methods=["gradient"])
        assert code == 0, err
        expected = expected_map("gradient")
        assert np.abs(arrays()["gradient"] - expected[[2, 0, 1, 2]]).max() < TOL
        settings = json.loads((tmp_path / "r.json").read_text())["settings"]
        assert settings["images"] == ["first.npz", "images.npz"] and settings["n_images"] == 4


def test_channels_first_are_moved_last(run):
    code, _, _ = run(model="ChannelsFirst")
    assert code == 0
    assert all(np.abs(arrays()[name] - expected_map(name)).max() < TOL for name in METHODS)


def test_the_seed_is_that_of_smooth_grad(run):
    for seed, out in (("0", "a"), ("0", "b"), ("1", "c")):
        code, _, err = run("--seed", seed, "--out", out, model="Double", methods=["smooth-grad"])
        assert code == 0, err
    a, b, c = (arrays(out)["smooth-grad"] for out in "abc")
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_unreadable_images_are_named_skipped_and_counted(run, tmp_path):
    (tmp_path / "broken.png").write_text("no image")
    code, out, _ = run(images=("images.npz", "broken.png"), methods=["gradient"])
    assert code == 0
    assert "; 1 skipped: broken.png (" in out and "1 unreadable files skipped, 3 images read" in out


def test_a_sheet_has_so_many_rows(run, monkeypatch):
    monkeypatch.setattr(cli.attribute, "SHEET_ROWS", 1)
    code, out, _ = run(methods=["gradient"])
    assert code == 0 and "first 1 of 3 images" in out
    assert len(arrays()["gradient"]) == 3


def test_one_method_that_cannot_run_leaves_the_others(run, tmp_path):
    code, out, _ = run("--json", "r.json", model="Exponential", methods=["lrp-z", "gradient"])
    assert code == 0 and "lrp-z left out" in out and "'exp'" in out
    assert "gradient" in arrays() and "lrp-z" not in arrays()
    content = json.loads((tmp_path / "r.json").read_text())
    assert {row["method"] for row in content["rows"]} == {"gradient"}


def test_no_method_that_can_run(run):
    code, out, err = run(model="Exponential", methods=["lrp-z", "lrp-zplus"])
    assert code == 1 and "lrp-z left out" in out and "the reasons are above" in err
    code, out, err = run(model="Random")
    assert code == 1 and "left out" not in out and "draws random numbers" in err


def replaced(monkeypatch, name, act):
    """Makes `lrpjax.attribute` act otherwise for one method."""
    real = lrpjax.attribute

    def attribute(model, x, method, *, target):
        return act(x) if method.name == name else real(model, x, method, target=target)

    monkeypatch.setattr(attribution, "attribute", attribute)


def test_a_map_with_nan_is_left_out(run, monkeypatch):
    replaced(monkeypatch, "gradient", lambda x: x * jnp.nan)
    code, out, _ = run()
    assert code == 0 and "gradient left out: There is NaN or infinity in the maps" in out
    assert "lrp-epsilon" in arrays() and "gradient" not in arrays()


def test_a_map_of_zeros_is_drawn(run, monkeypatch, tmp_path):
    replaced(monkeypatch, "gradient", jnp.zeros_like)
    for options in ((), ("--shared-scale",)):
        code, _, _ = run("--json", "r.json", *options, methods=["gradient"])
        rows = json.loads((tmp_path / "r.json").read_text())["rows"]
        assert code == 0 and {row["scale"] for row in rows} == {0}


def test_ctrl_c_keeps_what_is_finished(run, monkeypatch):
    def interrupt(x):
        raise KeyboardInterrupt

    replaced(monkeypatch, "lrp-epsilon", interrupt)
    monkeypatch.setattr(jobs, "THREADS", 1)
    code, out, _ = run()
    assert code == 130 and "1 of 2 finished and saved" in out
    assert "gradient" in arrays() and "lrp-epsilon" not in arrays()


@pytest.mark.filterwarnings("always::UserWarning")
def test_a_warning_is_one_line(run):
    code, _, err = run(model="Softmax", methods=["gradient"])
    assert code == 0 and "lrpjax: The model ends in softmax" in err
    assert len(err.strip().splitlines()) == 1


MISTAKES = {
    "unknown method": ({"methods": ["lrp-epsilom"]}, "lrp-epsilon"),
    "unknown class": ({"target": "dgo"}, "There is no class 'dgo'; the nearest are dog"),
    "nothing near": ({"target": "zzz"}, "the nearest are cat, dog, bird"),
    "class too large": ({"target": "3"}, "no class 3: this model's are numbered from 0 to 2"),
    "class too small": ({"target": "-1"}, "no class -1: this model's are numbered from 0 to 2"),
    "name without names": ({"target": "dog", "model": "Nameless"}, "give a number from 0 to 2"),
    "folder not writable": ({"out": "nets.py/x"}, "cannot be written"),
    "missing images": ({"images": ("gone",)}, "gone"),
    "missing images of the option": ({"images": ("--images", "gone")}, "no images at 'gone'"),
    "no readable image": ({"images": ("nets.py",)}, "No image could be read from nets.py"),
    "two outputs": ({"model": "TwoOutputs"}, "returns a tuple"),
    "no classes": ({"model": "Map"}, "(N, classes)"),
    "flat input": ({"model": "Flat"}, "`preprocess` makes (3, 90)"),
    "too few names": ({"model": "TooFewNames"}, "has 3 outputs, but names 1"),
    "missing model": ({"model": "Nothing"}, "'Nothing'"),
}


@pytest.mark.parametrize(("mistake", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence(run, mistake, expected):
    options = [part for name in ("target", "out") if name in mistake
               for part in (f"--{name}", mistake[name])]  # fmt: skip
    rest = {name: value for name, value in mistake.items() if name not in ("target", "out")}
    code, _, err = run(*options, **rest)
    assert code == 1 and expected in err and "Traceback" not in err
    assert len(err.strip().splitlines()) == 1


def test_help_explains_the_options(run):
    code, out, _ = run("--help")
    assert code == 0
    assert all(name in out for name in ("--target", "--shared-scale", "--overlay", "maps.npz"))
