"""Guided BP, Deconv and RectGrad: where they start, what cuts, and where they are refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp
from lrpjax.methods import get

pytestmark = pytest.mark.usefixtures("quick_compile")

EXACT = 1e-12  # a handful of float64 terms
RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 6)) * 3
W, V = RNG.normal(size=(6, 8)), RNG.normal(size=(8, 4))
METHODS = ("guided-bp", "deconv", "rect-grad")

# name: the activation and its derivative, in numpy; kinks are at none of the values here
CUTS = {
    "relu": (jax.nn.relu, lambda x: x > 0),
    "relu6": (jax.nn.relu6, lambda x: (x > 0) & (x < 6)),
    "leaky_relu": (jax.nn.leaky_relu, lambda x: np.where(x > 0, 1, 0.01)),
    "hard_tanh": (jax.nn.hard_tanh, lambda x: np.abs(x) < 1),
    "hard_sigmoid": (jax.nn.hard_sigmoid, lambda x: (np.abs(x) < 3) / 6),
    "prelu": (lambda x: jnp.where(x > 0, x, SLOPE * x), lambda x: np.where(x > 0, 1, 0.3)),
}
SLOPE = jnp.asarray(0.3)
SMOOTH = {"gelu_tanh": jax.nn.gelu, "tanh": jnp.tanh, "silu": jax.nn.silu, "elu": jax.nn.elu}


def network(f):
    if f is CUTS["prelu"][0]:
        parameters = {"fc": W, "a": SLOPE, "out": V}
        prelu = lambda p, x: jnp.where(x > 0, x, p["a"] * x)
        return jax.tree_util.Partial(lambda p, x: prelu(p, x @ p["fc"]) @ p["out"], parameters)
    return lambda x: f(x @ W) @ V


def of_rect(h, y, slope, r, percentile=98):
    score = y * r
    tau = np.percentile(score, percentile, axis=1, keepdims=True, method="nearest")
    return slope * np.where(score > tau, r, 0)


def expected(method, f, slope, seed):
    h = X @ W
    y, r = np.asarray(f(h)), seed @ V.T
    through = {
        "guided-bp": lambda: slope(h) * np.maximum(r, 0),
        "deconv": lambda: np.maximum(r, 0),
        "rect-grad": lambda: of_rect(h, y, slope(h), r),
    }[method]()
    return through @ W.T


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CUTS)
def test_whatever_cuts_is_rectified_and_the_map_starts_from_one(name, method):
    f, slope = CUTS[name]
    model = network(f)
    rows = [row["kind"] for row in lrp.plan(model, X, method).rows]
    assert name in rows
    target = np.array([1, 0, 2])
    seed = np.eye(4)[target]
    logits = np.asarray(model(X))
    assert (logits[np.arange(3), target] < 0).any()  # where it matters what it starts from
    found = lrp.attribute(model, X, method, target=target)
    np.testing.assert_allclose(found, expected(method, f, slope, seed), atol=EXACT)
    by_logit = lrp.attribute(model, X, get(method, start="logit"), target=target)
    np.testing.assert_allclose(by_logit, expected(method, f, slope, seed * logits), atol=1e-11)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", SMOOTH)
def test_where_all_activations_are_smooth_they_are_refused(name, method):
    model = network(SMOOTH[name])
    with pytest.raises(NotImplementedError, match=rf"{method} differs.*cuts.*smooth \({name}\)"):
        lrp.attribute(model, X, method, target=0)
    with pytest.raises(NotImplementedError, match="smooth"):
        lrp.vjp(model, X, method)
    assert np.abs(lrp.attribute(model, X, "gradient", target=0)).max() > 0


@pytest.mark.parametrize("method", METHODS)
def test_one_activation_that_cuts_is_enough(method):
    model = lambda x: jnp.tanh(jax.nn.relu(x @ W)) @ V
    found = lrp.attribute(model, X, method, target=0)
    h = X @ W
    r = np.eye(4)[[0, 0, 0]] @ V.T * (1 - np.tanh(np.maximum(h, 0)) ** 2)
    through = {
        "guided-bp": lambda: (h > 0) * np.maximum(r, 0),
        "deconv": lambda: np.maximum(r, 0),
        "rect-grad": lambda: of_rect(h, np.maximum(h, 0), h > 0, r),
    }[method]()
    np.testing.assert_allclose(found, through @ W.T, atol=EXACT)
    # Below all that cuts they are the gradient of what is there.
    _, pull = lrp.vjp(model, X, method, start=_first_dense(model))
    np.testing.assert_allclose(pull(np.ones((3, 8))), np.ones((3, 8)) @ W.T, atol=EXACT)


def _first_dense(model):
    return next(
        row["layer"] for row in lrp.plan(model, X, "gradient").rows if row["kind"] == "dense"
    )


def test_the_table_says_from_where_they_start():
    for name in METHODS:
        assert get(name).start == "one"
        said = 'start="logit": protocol of Sixt et al. 2020'
        assert said in lrp.methods.TABLE[name].formula and said in lrp.methods.table()


@pytest.mark.parametrize("percentile", [0, 60, 98])
def test_the_percentile_of_rectgrad_is_over_each_image_wherever_the_batch_is(percentile):
    """Time before batch: the images must not be mixed."""
    method = lrp.methods.rect_grad(percentile=percentile)
    x = RNG.normal(size=(3, 5, 6)) * np.array([1, 10, 100]).reshape(3, 1, 1)
    batch_first = lambda x: jax.nn.relu(x @ W).sum(1) @ V
    time_first = lambda x: jax.nn.relu(x.swapaxes(0, 1) @ W).sum(0) @ V
    alone = np.concatenate([lrp.attribute(batch_first, one[None], method, target=1) for one in x])
    for model in (batch_first, time_first, jax.vmap(lambda x: batch_first(x[None])[0])):
        np.testing.assert_allclose(lrp.attribute(model, x, method, target=1), alone, atol=1e-11)
