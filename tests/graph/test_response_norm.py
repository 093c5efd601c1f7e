"""Local response normalisation: x over sums of windows of its own; and what only looks like it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracle
from jax import lax

import lrpjax as lrp
from lrpjax.graph.reading import read

pytestmark = pytest.mark.usefixtures("quick_compile")

rng = np.random.default_rng(0)
X, R = rng.normal(size=(2, 3, 6))
A, B = rng.normal(size=(2, 6, 6))
RULES = {
    "lrp-epsilon": oracle.epsilon,
    "lrp-z": oracle.z,
    "lrp-alpha1-beta0": oracle.zplus,
    "lrp-alpha2-beta1": partial(oracle.alpha_beta, alpha=2, beta=1),
}


def window_sums(x, size=3):
    """Over neighbours along the last axis, zeros beyond its ends."""
    return lax.reduce_window(x, 0.0, lax.add, (1, size), (1, 1), "SAME")


def sums_by_hand(x):
    return np.stack([x[:, max(i - 1, 0) : i + 2].sum(1) for i in range(x.shape[1])], 1)


def kinds(model):
    return [layer.kind for layer in read(model, X).graph.layers]


NORMS = {  # the spelling in JAX and in numpy, given the sums of three neighbours
    "over a power": (
        lambda x: x / (1 + 0.5 * window_sums(x**2)) ** 0.75,
        lambda x: x / (1 + 0.5 * sums_by_hand(x**2)) ** 0.75,
    ),
    "times a power": (
        lambda x: x * (2 + window_sums(x * x)) ** -0.75,
        lambda x: x * (2 + sums_by_hand(x * x)) ** -0.75,
    ),
    "over a root": (
        lambda x: x / jnp.sqrt(1 + window_sums(x * x) / 3),
        lambda x: x / np.sqrt(1 + sums_by_hand(x * x) / 3),
    ),
    "over the sum": (
        lambda x: x / (1 + window_sums(jnp.abs(x))),
        lambda x: x / (1 + sums_by_hand(np.abs(x))),
    ),
}


@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize(("norm", "in_numpy"), NORMS.values(), ids=NORMS)
def test_it_passes_relevance_between_two_dense_layers(norm, in_numpy, method):
    model = lambda x: norm(x @ A) @ B
    assert kinds(model) == ["dense", "norm", "dense"]
    rule = RULES[method]
    first, second = (oracle.Affine(W.T, np.zeros(6), W.T != 0) for W in (A, B))
    normed = in_numpy(X @ A)
    of_normed = [rule(second, y, r) for y, r in zip(normed, R, strict=True)]
    expected = [rule(first, x, r) for x, r in zip(X, of_normed, strict=True)]
    oracle.assert_close(lrp.vjp(model, X, method)[1](R), np.array(expected))


@pytest.mark.parametrize("norm", [norm for norm, _ in NORMS.values()], ids=NORMS)
def test_its_gradient_is_that_of_jax(norm):
    (expected,) = jax.vjp(norm, X)[1](R)
    oracle.assert_close(lrp.vjp(norm, X, "gradient")[1](R), np.asarray(expected))


gate = jax.nn.sigmoid
LOOK_ALIKES = {  # and the primitive that LRP refuses
    "over another value": (lambda x: x / (x @ A), "div"),
    "over another value's windows": (lambda x: x / (1 + window_sums((x @ A) ** 2)), "integer_pow"),
    "windows over windows": (lambda x: window_sums(x * gate(x @ A)) / window_sums(gate(x)), "div"),
    "over windows of both": (lambda x: x / window_sums(x * (x @ A)), "div"),
    "over running sums": (lambda x: x / jnp.cumsum(x, 1), "div"),
}


@pytest.mark.parametrize(("model", "primitive"), LOOK_ALIKES.values(), ids=LOOK_ALIKES)
def test_a_division_that_is_no_normalisation_is_refused(model, primitive):
    assert "norm" not in kinds(model)
    with pytest.raises(NotImplementedError, match=f"'{primitive}'"):
        lrp.vjp(model, X, "lrp-z")


def test_a_gate_of_windows_stays_a_gate():
    assert kinds(lambda x: x * gate(window_sums(x))) == ["sum", "activation", "product"]
