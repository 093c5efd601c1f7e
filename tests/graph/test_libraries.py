"""One network, written in five libraries and by hand, has one relevance map."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.nets_libraries import IMAGES, LAYERS, LIBRARIES, WRAPPED

import lrpjax as lrp
from lrpjax.graph.reading import read

pytestmark = pytest.mark.usefixtures("quick_compile")

# Of the largest entry of a map. The libraries order the arithmetic of BatchNorm differently.
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
METHODS = {
    "float64": ("lrp-z", "lrp-alpha2-beta1", "guided-bp", "rect-grad"),
    "float32": ("gradient", "lrp-alpha2-beta1"),
}


def relevance(library, method, dtype):
    """The model's output, R at the input and at every layer, channels last, for class 3."""
    model, first = LIBRARIES[library](dtype)
    x = jnp.asarray(IMAGES.transpose(0, 3, 1, 2) if first else IMAGES, dtype)
    out, pull = lrp.vjp(model, x, method, layers=LAYERS)
    r, at = pull(jax.nn.one_hot(np.array([3, 3]), 5, dtype=out.dtype))
    last = lambda a: np.moveaxis(a, 1, -1) if first and a.ndim == 4 else np.asarray(a)
    return [np.asarray(out), last(r), *(last(at[name]) for name in LAYERS)]


@cache
def reference(method, dtype):
    return relevance("lax NHWC", method, dtype)


CASES = [
    (library, method, dtype)
    for dtype, methods in METHODS.items()
    for method in methods
    for library in LIBRARIES
    # Keras computes BatchNorm in single precision whatever it is given.
    if library != "lax NHWC" and (library, dtype) != ("keras", "float64")
]


@pytest.mark.parametrize(("library", "method", "dtype"), CASES)
def test_every_library_gives_the_same_relevance(library, method, dtype):
    expected = reference(method, dtype)
    for name, found, wanted in zip(
        ("output", "input", *LAYERS), relevance(library, method, dtype), expected, strict=True
    ):
        assert found.dtype == dtype
        atol = TOLERANCE[dtype] * np.abs(wanted).max()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize(("library", "wrap"), WRAPPED.values(), ids=WRAPPED)
def test_every_library_is_read_as_the_same_named_layers(library, wrap):
    model, first = LIBRARIES[library]("float32")
    x = jnp.asarray(IMAGES.transpose(0, 3, 1, 2) if first else IMAGES, jnp.float32)
    layers = read(wrap(model), x).graph.layers
    kinds = [layer.kind for layer in layers if layer.kind != "structure"]
    assert kinds == "conv activation max_pool conv activation sum dense activation dense".split()
    names = [layer.name for layer in layers if layer.kind in ("conv", "dense", "activation")]
    assert names == "conv1 conv1:relu conv2 conv2:relu fc1 fc1:relu fc2".split()
    assert len({layer.name for layer in layers}) == len(layers)
    assert [layer.name for layer in layers if layer.first] == ["conv1"]
    signs = [layer.non_negative for layer in layers if layer.kind in ("conv", "dense")]
    assert signs == [False, True, True, True]
