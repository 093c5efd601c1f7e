"""What TCAV refuses: one clear sentence that names the concept, the layer or the option."""

import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp
from lrpjax.concepts import tcav
from lrpjax.concepts.testing import MIN_IMAGES

pytestmark = pytest.mark.usefixtures("quick_compile")

RNG = np.random.default_rng(0)
CLASSES = 3
X = RNG.normal(size=(15, 4))
RANDOM = [RNG.normal(size=(10, 4)) for _ in range(2)]
P = {"fc1": RNG.normal(size=(4, 5)), "fc2": RNG.normal(size=(5, CLASSES))}
MODEL = jax.tree_util.Partial(lambda p, x: jax.nn.relu(x @ p["fc1"]) @ p["fc2"], P)


def run(model=MODEL, images=X, **options):
    defaults = {"target": 1, "layer": "fc1", "concepts": {"near": X + 1}, "random": RANDOM}
    return tcav(model, images, **defaults | options)


HOLE = np.where(np.arange(40).reshape(10, 4) == 7, np.nan, 1)
FEW = MIN_IMAGES - 1
REFUSED = {
    "small concept": ({"concepts": {"zebra": X[:FEW]}}, f"{FEW} images.*'zebra'.*{MIN_IMAGES}"),
    "small random set": ({"random": [X, X[:FEW]]}, f"{FEW} images in random set 1.*{MIN_IMAGES}"),
    "one random set": ({"random": RANDOM[:1]}, "at least 2 batches.*got 1"),
    "no concepts": ({"concepts": {}}, "dictionary from names to batches.*at least one"),
    "a list of concepts": ({"concepts": [X]}, "dictionary from names to batches.*at least one"),
    "another shape": ({"concepts": {"zebra": X[:, :3]}}, r"'zebra'.*\[3\].*explained.*\[4\]"),
    "random of another shape": ({"random": [X, X[None]]}, r"random set 1.*\[15, 4\].*\[4\]"),
    "another type": ({"concepts": {"zebra": X.astype(int)}}, "'zebra' are int64.*float64"),
    "NaN": ({"concepts": {"near": X, "zebra": HOLE}}, "NaN or infinity in the concept 'zebra'"),
    "NaN at random": ({"random": [X, HOLE]}, "NaN or infinity in random set 1"),
    "NaN in the images": ({"images": HOLE}, "NaN or infinity in the images"),
    "no images": ({"images": X[:0]}, "batch of images"),
    "no array": ({"images": list(X)}, "batch of images"),
    "unknown layer": ({"layer": "fc"}, "no layer 'fc'.*nearest.*fc1"),
    "target too large": ({"target": CLASSES}, f"between 0 and {CLASSES - 1}"),
    "target too small": ({"target": -1}, f"between 0 and {CLASSES - 1}"),
    "no target": ({"target": None}, "one class.*None"),
    "many targets": ({"target": [0, 1]}, r"one class.*\[0, 1\]"),
    "half a target": ({"target": 0.5}, "must be an integer"),
    "same images twice": (
        {"concepts": {"zebra": RANDOM[1]}},
        "'fc1' no direction leads from random set 1 to the concept 'zebra'",
    ),
    "same random sets": (
        {"random": [X, X]},
        "no direction leads from random set 1 to random set 0",
    ),
    "chunk": ({"chunk": 0}, "at least 1, got 0"),
    "significance": ({"significance": 5}, "between 0 and 1, got 5"),
}


@pytest.mark.parametrize(("options", "words"), REFUSED.values(), ids=REFUSED)
def test_what_tcav_cannot_use_is_named_in_one_sentence(options, words):
    refused(words, **options)


def refused(words, **options):
    with pytest.raises(ValueError, match=words) as caught:
        run(**options)
    assert re.fullmatch(r"[^\n]*[^.]\.", str(caught.value)) and ". " not in str(caught.value)


def test_layers_without_a_direction():
    dead = lambda x: jax.nn.relu(x @ P["fc1"] - 1e3) @ P["fc2"]
    refused("'dense_1:relu' are the same", model=dead, layer="dense_1:relu")
    mixed = lambda x: jax.nn.relu(x.reshape(-1, 2)).reshape(x.shape) @ jnp.ones((4, 3))
    refused("no axis for the images", model=mixed, layer="input:relu")


def test_activations_that_overflow():
    steep = lambda x: 1 / (1 + jax.nn.relu(x @ jnp.full((4, 3), 1e300) * 1e10))
    refused(
        "infinity in the activations of the concept 'near'.*'scale_1'", model=steep, layer="scale_1"
    )


def test_methods_that_are_no_chain():
    refused("not a chain of rules", method=lrp.methods.get("occlusion"))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ImportError, match=r'pip install "lrpjax\[tcav\]"'):
        run()
