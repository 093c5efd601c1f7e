"""The flat rule on a dense first layer makes every map uniform, and the warning says so."""

import warnings

import jax
import numpy as np
import pytest

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

RNG = np.random.default_rng(2)
DENSE = {"a": RNG.normal(size=(16, 5)), "b": RNG.normal(size=(5, 3))}
CONV = {"c": RNG.normal(size=(3, 3, 1, 2)), "a": RNG.normal(size=(32, 3))}
X = RNG.uniform(size=(2, 4, 4, 1))


def dense(p, x):
    return jax.nn.relu(x.reshape(len(x), -1) @ p["a"]) @ p["b"]


def convolved(p, x):
    numbers = ("NHWC", "HWIO", "NHWC")
    h = jax.lax.conv_general_dilated(x, p["c"], (1, 1), "SAME", dimension_numbers=numbers)
    return jax.nn.relu(h).reshape(len(x), -1) @ p["a"]


MODEL = jax.tree_util.Partial(dense, DENSE)


@pytest.mark.parametrize("name", ["epsilon-plus-flat", "lrp-flat"])
def test_flat_on_a_dense_first_layer_says_that_the_map_is_uniform(name):
    with pytest.warns(UserWarning, match=rf"map of {name} is uniform.*first layer 'a'"):
        found = np.asarray(lrp.attribute(MODEL, X, name, target=1)).reshape(2, -1)
    np.testing.assert_allclose(found, np.broadcast_to(found[:, :1], found.shape), rtol=1e-12)
    with pytest.warns(UserWarning, match=r"is uniform"):
        out, pull = lrp.vjp(MODEL, X, name)
        pull(out)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (jax.tree_util.Partial(convolved, CONV), "epsilon-plus-flat"),
        (MODEL, "lrp-zplus"),
        (MODEL, "lrp-wsquare"),
    ],
)
def test_other_rules_and_convolutions_are_not_uniform_and_nothing_is_said(model, name):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".* is uniform")
        found = np.asarray(lrp.attribute(model, X, name, target=1)).reshape(2, -1)
    assert found.std(1).max() > 1e-3


def gated(p, x):
    """The input behind a gate of its own sum: a dense first layer, and no uniform map."""
    gate = jax.nn.sigmoid(x.reshape(len(x), -1) @ p["a"])
    return (x.reshape(len(x), -1)[:, :5] * gate) @ p["b"]


def test_a_dense_first_layer_whose_map_is_not_uniform_says_nothing():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".* is uniform")
        found = np.asarray(lrp.attribute(jax.tree_util.Partial(gated, DENSE), X, "lrp-flat"))
    assert found.reshape(2, -1).std(1).max() > 1e-3


def test_measures_of_uniform_maps_and_averages_of_them_say_so_too():
    noisy = lrp.methods.get("smooth-grad", base="lrp-flat", key=jax.random.key(0), samples=2)
    with pytest.warns(UserWarning, match=r"map of .*smooth-grad.* is uniform"):
        lrp.attribute(MODEL, X, noisy, target=1)
    with pytest.warns(UserWarning, match=r"map of lrp-flat is uniform"):
        lrp.sanity.random_logit(MODEL, X, "lrp-flat", key=jax.random.key(0), similarity="pearson")
