"""The same function in several layouts: its features, and the places they are at, are the same."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.nn import relu

from lrpjax.graph.reading import read

KERNEL = np.ones((3, 3, 1, 4))
HEAD = np.ones((256, 10))
FIRST, LAST = ("NCHW", "HWIO", "NCHW"), ("NHWC", "HWIO", "NHWC")


def net(x, numbers):
    x = relu(lax.conv_general_dilated(x, KERNEL, (1, 1), "SAME", dimension_numbers=numbers))
    return x.reshape(len(x), -1) @ HEAD


LAYOUTS = {  # one channel of 8 by 8 places, as each model takes it
    "NHWC": (lambda x: net(x, LAST), (8, 8, 1)),
    "NCHW": (lambda x: net(x, FIRST), (1, 8, 8)),
    "without channels": (lambda x: net(x.reshape(-1, 1, 8, 8), FIRST), (8, 8)),
    "without channels, NHWC": (lambda x: net(x[..., None], LAST), (8, 8)),
    "flat": (lambda x: net(x.reshape(-1, 1, 8, 8), FIRST), (64,)),
    "vmapped": (jax.vmap(lambda x: net(x[None], FIRST)[0]), (1, 8, 8)),
    "vmapped, NHWC": (jax.vmap(lambda x: net(x[None], LAST)[0]), (8, 8, 1)),
    "vmapped, without channels": (jax.vmap(lambda x: net(x[None, None], FIRST)[0]), (8, 8)),
    "vmapped, flat": (jax.vmap(lambda x: net(x.reshape(1, 8, 8, 1), LAST)[0]), (64,)),
}


def held(layout):
    """(examples, features, places) by their numbers."""
    sizes = lambda axes: int(np.prod([layout.shape[i] for i in axes]))
    return sizes(layout.batch), sizes(layout.features), sizes(layout.places)


@pytest.mark.parametrize("examples", [1, 3])
@pytest.mark.parametrize(("model", "shape"), LAYOUTS.values(), ids=LAYOUTS)
def test_features_and_places_are_the_same_in_every_layout(model, shape, examples):
    graph = read(model, np.ones((examples, *shape))).graph
    layouts = graph.axes.layout
    assert held(layouts[graph.program.inputs[0]]) == (examples, 1, 64)
    (conv,) = [layer for layer in graph.layers if layer.kind == "conv"]
    (dense,) = [layer for layer in graph.layers if layer.kind == "dense"]
    assert held(layouts[conv.outputs[0]]) == (examples, 4, 64)
    assert held(layouts[dense.inputs[0]]) == (examples, 256, 1)
    assert held(layouts[dense.outputs[0]]) == (examples, 10, 1)
    for value in (graph.program.inputs[0], *conv.outputs, *dense.inputs, *dense.outputs):
        assert graph.axes.batch[value] == 0


@pytest.mark.parametrize("examples", [1, 3])
def test_a_vmapped_library_has_its_features_on_the_first_axis_of_an_example(examples):
    model = eqx.nn.Conv2d(1, 4, 3, key=jax.random.key(0))
    graph = read(jax.vmap(model), np.ones((examples, 1, 8, 8))).graph
    value = graph.program.outputs[0]
    assert (graph.axes.batch[value], graph.axes.feature[value]) == (0, 1)
    assert graph.axes.places[value] == (2, 3)
    assert graph.axes.feature[graph.program.inputs[0]] == 1


def test_features_are_followed_where_axes_merge_and_come_apart_again():
    def model(x):
        y = relu(x.reshape(-1, 3) @ np.ones((3, 5)))
        return jnp.swapaxes(y.reshape(2, 6, 6, 5), 1, 3)

    graph = read(model, np.ones((2, 6, 6, 3))).graph
    assert graph.axes.feature[graph.program.outputs[0]] == 1
    assert graph.axes.feature[graph.program.inputs[0]] == 3
