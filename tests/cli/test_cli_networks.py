"""`lrpjax csc` and `plan` on the ImageNet networks: weights, injection layers, deep tables."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from lrpjax import models

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def run(tmp_path, monkeypatch, command_line):
    """Runs `lrpjax ...` in a folder with two photographs and a ResNet-18 of an eighth the width."""
    from lrpjax.models import resnet

    narrow = lambda weights="trained", key=None: resnet.build(18, weights, key=key, width=8)
    monkeypatch.setattr(models, "resnet18", narrow)
    monkeypatch.setattr(models.ResNet, "image_size", (64, 64))
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    (tmp_path / "photos").mkdir()
    for i, pixels in enumerate(noise):
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    return command_line


RESNET = ["--model", "resnet18", "--images", "photos", "--weights"]


@pytest.mark.slow
def test_csc_of_a_resnet_from_the_papers_layers(run, tmp_path):
    import jax

    model = models.resnet18("random", key=jax.random.key(0))
    models.save_weights(model, tmp_path / "narrow.safetensors", dtype="float32")
    chosen = ["--method", "lrp-zplus", "--method", "gradient", "--vectors", "2"]
    code, out, _ = run("csc", *RESNET, "narrow.safetensors", *chosen)
    assert code == 0
    content = json.loads((tmp_path / "lrpjax-csc" / "results.json").read_text())
    assert content["settings"]["weights"] == "narrow.safetensors"
    starts = dict.fromkeys(row["start"] for row in content["rows"])
    blocks = [f"block{name}:relu" for name in ("5_1", "4_2", "3_2", "2_2")]
    assert list(starts) == ["dense", *blocks]
    at_output = [row["layer"] for row in content["rows"] if row["start"] == "dense"]
    assert {"dense", "avgpool", "block3_2", "conv3_2a", "conv3_skip", "maxpool", "input"} <= {
        *at_output
    }
    for line in ("layer       (independent vectors)", "conv3_skip  ", "input       "):
        assert line in out  # deeper than there are methods: one row a layer
    assert (tmp_path / "lrpjax-csc" / "csc_log.png").exists()


MISTAKES = {
    "no photographs": (["csc", "--model", "vgg16"], "vgg16 needs photographs.*--images"),
    "no weights": (["csc", *RESNET, "gone.pth"], r"no weight file 'gone.pth'"),
    "weights of a factory": (
        ["plan", "lrp-z", "--model", "a:b", "--images", "photos", "--weights", "w.h5"],
        "a:b makes the model with its weights: leave out --weights",
    ),
    "no such network": (["csc", "--model", "resnet20"], "resnet18, resnet34, resnet50"),
}


@pytest.mark.parametrize(("arguments", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence(run, arguments, words):
    code, _, err = run(*arguments)
    assert code == 1 and len(err.strip().splitlines()) == 1
    assert re.search(words, err)
