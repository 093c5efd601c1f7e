"""The options of commands that take images: what arrives at a model, and the line that says it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.picture_files import png, tiff
from PIL import Image

from lrpjax import cli
from lrpjax.images import load_images
from lrpjax.images.loading import MAX_PIXELS

MODEL = """
import jax, jax.numpy as jnp

SEEN = []

class Net:
    classes = ("cat", "dog", "bird")

    def __call__(self, x):
        weights = jnp.cos(jnp.arange(3.0 * x[0].size)).reshape(x[0].size, 3)
        return jax.nn.relu(x.reshape(len(x), -1) @ weights) @ jnp.sin(jnp.arange(9.0)).reshape(3, 3)

class Small(Net):
    image_size = (6, 5)

class Grey(Net):
    image_size = (6, 5, 1)

class Spectral(Net):
    image_size = (6, 5, 12)

class Prepared(Net):
    def preprocess(self, levels):
        SEEN.append(levels)
        return jnp.asarray(levels, jnp.float32) - 100

class Reshaped(Net):
    def preprocess(self, levels):
        return jnp.asarray(levels, jnp.float32).reshape(-1, 6, 5, 3) / 255
"""
RNG = np.random.default_rng(0)
WIDE = RNG.integers(0, 256, (12, 20, 3), np.uint8)
PIXELS = RNG.integers(0, 256, (3, 6, 5, 3), np.uint8)

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def run(tmp_path, monkeypatch, command_line):
    """Runs `lrpjax ...` in an empty folder with nets.py and some images; (exit, out, err)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    monkeypatch.setattr(cli.attribute, "DPI", 40)
    (tmp_path / "nets.py").write_text(MODEL)
    np.savez("images.npz", images=PIXELS)
    for folder, pixels in (("dog", PIXELS[0]), ("cat", PIXELS[1]), ("bird", PIXELS[2])):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        (tmp_path / "photos" / folder / "a.png").write_bytes(png(pixels, colour=2, depth=8))

    def call(name, *arguments, model="Net"):
        return command_line(name, *arguments, "--model", f"nets:{model}")

    return call


def plan(run, *arguments, model="Net"):
    """The settings of a plan."""
    code, out, err = run("plan", "gradient", *arguments, "--json", "p.json", model=model)
    assert code == 0, err
    settings = json.loads(Path("p.json").read_text())["settings"]
    assert settings["input"] in out
    return settings


def explained(run, *arguments, model="Net"):
    """What attribute saved."""
    chosen = ["--method", "gradient", "--json", "r.json"]
    code, _, err = run("attribute", *chosen, *arguments, model=model)
    assert code == 0, err
    with np.load("lrpjax-attribute/maps.npz") as arrays:
        return dict(arrays)


def test_one_line_says_what_arrives(run, tmp_path):
    (tmp_path / "photos/broken.png").write_text("no image")
    (tmp_path / "photos/deep.png").write_bytes(png(PIXELS[0] * np.uint16(257), colour=2, depth=16))
    frames = [Image.fromarray(pixels) for pixels in PIXELS]
    frames[0].save(tmp_path / "photos/moving.webp", save_all=True, append_images=frames[1:],
                   lossless=True)  # fmt: skip
    settings = plan(run, "--images", "photos")
    low, high = (f"{bound / 255:.3g}" for bound in (PIXELS.min(), PIXELS.max()))
    start, first, skipped = settings["input"].split("; ")
    assert start == f"4 images -> float32[4, 6, 5, 3] in {low}..{high}, from photos"
    assert first == "the first frame of moving.webp"
    assert re.fullmatch(
        r"2 skipped: photos/broken.png \(it is no picture .*\), photos/deep.png "
        r"\(it has 16 bits for each channel, and Pillow opens them as 8.*\)",
        skipped,
    )
    assert settings["n_images"] == 4 and settings["skipped_files"] == 2


def test_the_bundled_images_have_the_line_too(run):
    settings = plan(run)
    assert settings["input"] == (
        "20 images -> float32[20, 32, 32, 3] in 0..1, from bundled CIFAR-10 test images"
    )
    settings = plan(run, model="Grey")
    assert "float32[20, 6, 5, 1]" in settings["input"]


def test_the_size_is_the_models_or_given(run, tmp_path):
    (tmp_path / "wide.png").write_bytes(png(WIDE, colour=2, depth=8))
    (tmp_path / "tall.png").write_bytes(png(WIDE.swapaxes(0, 1), colour=2, depth=8))
    both = ["--images", "wide.png", "--images", "tall.png"]
    code, _, err = run("plan", "gradient", *both)
    assert code == 1 and "wide.png 12x20x3, tall.png 20x12x3" in err and "--size" in err
    settings = plan(run, *both, "--size", "8x7")
    assert "[2, 8, 7, 3]" in settings["input"] and settings["size"] == [8, 7]
    assert "[2, 7, 7, 3]" in plan(run, *both, "--size", "7")["input"]
    assert "[2, 6, 5, 3]" in plan(run, *both, model="Small")["input"]
    assert "[2, 6, 5, 1]" in plan(run, *both, model="Grey")["input"]
    assert plan(run, *both, "--size", "6x5", model="Small")["size"] == [6, 5]
    code, _, err = run("plan", "gradient", *both, "--size", "6", model="Small")
    assert code == 1 and "takes images of 6x5 (its `image_size`): leave out --size" in err


def test_crop_range_background_and_bound_reach_the_images(run, tmp_path):
    alpha = np.full((12, 20, 1), 128, np.uint8)
    (tmp_path / "a.png").write_bytes(png(np.concatenate([WIDE, alpha], -1), colour=6, depth=8))
    (tmp_path / "b.tif").write_bytes(tiff(WIDE[..., 0].astype(np.float32)))
    options = ["--crop", "--size", "7", "--range", "-10", "300", "--background", "red"]
    both = ["--images", "a.png", "--images", "b.tif"]
    settings = plan(run, *both, *options, model="Prepared")
    import nets  # in the folder of the fixture

    found = load_images(
        ["a.png", "b.tif"], size=(7, 7), crop=True, values=(-10, 300), background="red"
    )
    assert np.array_equal(nets.SEEN[-1], found.pixels) and found.pixels.shape == (2, 7, 7, 3)
    assert settings["range"] == [-10, 300] and settings["background"] == "red"
    assert settings["crop"] is True and "max_pixels" not in settings
    code, _, err = run("plan", "gradient", "--images", "photos", "--max-pixels", "29")
    assert code == 1 and "more than 29 pixels" in err


def test_the_bound_of_pixels_that_help_names_is_that_of_the_images(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = run("plan", "--help")
    assert MAX_PIXELS == 100_000_000 and "100 million" in " ".join(out.split())


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_floats_of_a_model_without_preprocessing_are_its_input(run, dtype):
    spectra = RNG.normal(size=(3, 6, 5, 12)).astype(dtype)
    np.savez("spectra.npz", spectra)
    arrays = explained(run, "--images", "spectra.npz", "--overlay", model="Spectral")
    weights = np.cos(np.arange(3.0 * 360)).reshape(360, 3)
    hidden = np.maximum(spectra.reshape(3, -1) @ weights, 0)
    logits = hidden @ np.sin(np.arange(9.0)).reshape(3, 3)
    np.testing.assert_allclose(arrays["logits"], logits, rtol=1e-4, atol=1e-4)
    assert arrays["gradient"].shape == (3, 6, 5, 12)
    code, _, err = run("plan", "gradient", "--images", "spectra.npz", model="Prepared")
    assert code == 1 and "--range LOW HIGH" in err
    settings = plan(run, "--images", "spectra.npz", "--range", "-5", "5", model="Prepared")
    low, high = ((spectra + 5) / 10 * 255 - 100).min(), ((spectra + 5) / 10 * 255 - 100).max()
    assert f"in {low:.3g}..{high:.3g}, from" in settings["input"]


def test_flat_arrays_are_drawn_as_the_model_takes_them(run):
    np.savez("flat.npz", PIXELS.reshape(3, -1))
    flat = explained(run, "--images", "flat.npz", "--overlay", model="Reshaped")
    whole = explained(run, "--images", "images.npz")
    assert np.array_equal(flat["gradient"], whole["gradient"])


def test_a_model_of_other_channels_needs_images_of_its_own(run):
    code, _, err = run("plan", "gradient", model="Spectral")
    assert code == 1 and "takes 12 channels, and the bundled images have 3" in err


def test_a_folder_of_arrays_for_a_grey_model(run, tmp_path):
    (tmp_path / "arrays").mkdir()
    for i, pixels in enumerate(PIXELS):
        np.save(tmp_path / "arrays" / f"{i}.npy", pixels[..., 0])
    arrays = explained(run, "--images", "arrays", model="Grey")
    assert arrays["gradient"].shape == (3, 6, 5, 1)
    assert arrays["names"].tolist() == ["0.npy", "1.npy", "2.npy"]


def test_labels_by_folder_and_by_table_are_what_is_explained(run, tmp_path):
    folders = explained(run, "--images", "photos", "--labels", "folders")
    assert folders["names"].tolist() == ["bird/a.png", "cat/a.png", "dog/a.png"]
    assert folders["targets"].tolist() == [2, 0, 1]
    settings = json.loads((tmp_path / "r.json").read_text())["settings"]
    assert settings["labels"] == "folders"
    (tmp_path / "l.csv").write_text("image,label\ndog/a.png,0\ncat/a.png,dog\nbird/a.png,1\n")
    table = explained(run, "--images", "photos", "--labels", "l.csv")
    assert table["targets"].tolist() == [1, 1, 0]
    for name in ("gradient", "logits"):
        assert (name == "logits") == np.array_equal(table[name], folders[name])


@pytest.mark.parametrize("command", ["audit", "sanity"])
def test_labels_reach_what_is_measured(run, monkeypatch, command):
    from lrpjax import auditing, sanity

    def asked(*_, target, **__):
        raise ValueError(f"target {target.tolist()}")

    for room, name in ((auditing, "audit"), (sanity, "mprt"), (sanity, "random_logit")):
        monkeypatch.setattr(room, name, asked)
    chosen = ["--method", "gradient", "--images", "photos", "--labels", "folders"]
    code, _, err = run(command, *chosen)
    assert code == 1 and err == "lrpjax: target [2, 0, 1]\n"


MISTAKES = {
    "crop without images": (["--crop"], "--crop is for images of your own"),
    "labels without images": (["--labels", "folders"], "--labels is for images of your own"),
    "pixels without images": (["--max-pixels", "9"], "--max-pixels is for images of your own"),
    "crop without size": (["--images", "photos", "--crop"], "needs a size"),
    "no colour": (["--images", "photos", "--background", "x"], "There is no colour 'x'"),
    "no range": (["--images", "photos", "--range", "2", "1"], "from black to white"),
    "unknown class": (["--images", "photos", "--labels", "l.csv"], "There is no class 'cow'"),
    "missing label": (["--images", "photos", "--labels", "m.csv"], "no label for bird/a.png"),
    "no table": (["--images", "photos", "--labels", "gone.csv"], "no file of labels at 'gone.csv'"),
    "no folder": (["--images", "images.npz", "--labels", "folders"], "lies in no subfolder"),
    "twice": (
        ["--images", "photos", "--labels", "folders", "--target", "cat"],
        "Both --target and --labels",
    ),
    "missing folder": (["--images", "gone"], "There are no images at 'gone': check the path."),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(run, tmp_path, mistake):
    arguments, expected = MISTAKES[mistake]
    rows = "image,label\ndog/a.png,cow\ncat/a.png,0\n"
    (tmp_path / "l.csv").write_text(rows + "bird/a.png,1\n")
    (tmp_path / "m.csv").write_text(rows)
    code, _, err = run("attribute", *arguments)
    assert code == 1 and expected in err and "Traceback" not in err
    assert len(err.strip().splitlines()) == 1


def test_a_size_that_is_none_is_a_typing_error(run):
    for size in ("0", "3x", "x3", "-1", "a", "3x4x5"):
        code, _, err = run("plan", "gradient", "--images", "photos", f"--size={size}")
        assert code == 2 and "no size such as 224" in " ".join(err.split())
