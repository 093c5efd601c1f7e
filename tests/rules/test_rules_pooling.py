"""Max-pools, average pools and sums against the oracle, window by window."""

from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracle

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

NONE = (0, 0)
# name: shape of one input, then size, strides, padding and dilation of the window
POOLS = {
    "2x2": ((4, 6, 2), (2, 2, 1), (2, 2, 1), (NONE, NONE, NONE), (1, 1, 1)),
    "cropped": ((5, 5, 2), (2, 2, 1), (2, 2, 1), (NONE, NONE, NONE), (1, 1, 1)),
    "overlapping": ((5, 5, 2), (3, 3, 1), (1, 2, 1), (NONE, NONE, NONE), (1, 1, 1)),
    "padded": ((5, 4, 2), (3, 3, 1), (2, 2, 1), ((1, 1), (0, 1), NONE), (1, 1, 1)),
    "gaps": ((5, 5, 1), (1, 2, 1), (2, 3, 1), (NONE, NONE, NONE), (1, 1, 1)),
    "dilated": ((5, 6, 2), (2, 2, 1), (1, 1, 1), ((1, 0), NONE, NONE), (2, 3, 1)),
    "nchw": ((2, 5, 5), (1, 3, 2), (1, 2, 2), (NONE, (1, 1), (0, 1)), (1, 1, 1)),
    "over-channels": ((3, 3, 4), (1, 1, 2), (1, 1, 2), (NONE, NONE, NONE), (1, 1, 1)),
    "1d": ((7, 2), (3, 1), (2, 1), ((1, 1), NONE), (1, 1)),
    "3d": ((4, 3, 4, 1), (2, 2, 2, 1), (2, 1, 2, 1), (NONE, (0, 1), NONE, NONE), (1,) * 4),
}
# what a global maximum does, as a pool with one window per position that is kept
REDUCTIONS = {
    "all-positions": ((4, 3, 2), (0, 1), (4, 3, 1)),
    "rows": ((4, 3, 2), (0,), (4, 1, 1)),
    "channels": ((3, 3, 4), (2,), (1, 1, 4)),
}
INPUTS = {
    "mixed": lambda x: x,
    "negative": lambda x: -np.abs(x) - 1,
    "ties": lambda x: np.sign(np.round(x)),
    "mostly-zero": lambda x: np.maximum(np.round(x - 1), 0),
    "zero": np.zeros_like,
}


def reduce_window(x, init, step, size, strides, padding, dilation):
    batch = ((0, 0), *padding)
    return jax.lax.reduce_window(
        x, init, step, (1, *size), (1, *strides), batch, window_dilation=(1, *dilation)
    )


@cache
def pool(name):
    """The maximum as a function of a batch, the windows, an input and a relevance."""
    rng = np.random.default_rng(len(name))
    if name in POOLS:
        shape, *geometry = POOLS[name]
        model = lambda x: reduce_window(x, -np.inf, jax.lax.max, *geometry)
    else:
        shape, axes, size = REDUCTIONS[name]
        geometry = (size, (1, 1, 1), (NONE, NONE, NONE), None)
        model = lambda x: jnp.max(x, tuple(a + 1 for a in axes))
    x = rng.normal(size=(2, *shape))
    return model, oracle.windows(shape, *geometry), x, rng.normal(size=model(x).shape)


def each(rule, windows, x, R):
    """The oracle's pooling rule on each example."""
    pairs = zip(x, R, strict=True)
    return np.stack([rule(windows, x, r).reshape(x.shape) for x, r in pairs])


@pytest.mark.parametrize("values", INPUTS)
@pytest.mark.parametrize("name", [*POOLS, *REDUCTIONS])
def test_max_pool_gives_all_to_the_first_maximum(name, values):
    """Exactly one winner per window, ties and zeros included, and never the padding."""
    model, windows, x, R = pool(name)
    x = INPUTS[values](x)
    _, rel = lrp.vjp(model, x, "lrp-zplus")
    oracle.assert_close(rel(R), each(oracle.winner_takes_all, windows, x, R))


@pytest.mark.parametrize("values", ["mixed", "ties"])
@pytest.mark.parametrize("method", ["gradient", "guided-bp", "lrp-gamma", "lrp-flat"])
def test_max_pool_has_one_winner_under_every_method(method, values):
    model, windows, x, R = pool("padded")
    x = INPUTS[values](x)
    _, rel = lrp.vjp(model, x, method)
    oracle.assert_close(rel(R), each(oracle.winner_takes_all, windows, x, R))


def test_max_pool_of_flax_behind_a_relu():
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 2))
    model = lambda x: nn.max_pool(jax.nn.relu(x), (3, 3), (2, 2), "SAME")
    windows = oracle.windows((5, 5, 2), (3, 3, 1), (2, 2, 1), ((1, 1), (1, 1), NONE))
    R = x[:, ::2, ::2]
    _, rel = lrp.vjp(model, x, "lrp-z")
    oracle.assert_close(rel(R), each(oracle.winner_takes_all, windows, np.maximum(x, 0), R))


PROPORTIONAL = lrp.methods.Method(
    "t", lrp.composites.by_kind(max_pool=lrp.rules.rule(lrp.rules.proportional))
)


@pytest.mark.parametrize("name", ["2x2", "overlapping", "padded", "dilated", "nchw", "rows"])
def test_max_pool_shared_in_proportion(name):
    """On values of one sign and of both; windows of zeros keep their relevance back."""
    model, windows, x, R = pool(name)
    for values in (np.abs(x), x, INPUTS["mostly-zero"](x)):
        _, rel = lrp.vjp(model, values, PROPORTIONAL)
        oracle.assert_close(rel(R), each(oracle.proportional, windows, values, R))


def window_sum(name):
    _, *geometry = POOLS[name]
    return lambda x: reduce_window(x, 0.0, jax.lax.add, *geometry)


def flax_mean(padding, count):
    return lambda x: nn.avg_pool(x, (3, 2), (2, 1), padding, count_include_pad=count)


# name: shape of one input, and the sum or mean
AVERAGES = {
    "overlapping-sum": ((5, 5, 2), window_sum("overlapping")),
    "dilated-sum": ((5, 6, 2), window_sum("dilated")),
    "flax-padding-counted": ((5, 4, 2), flax_mean("SAME", True)),
    "flax-padding-not-counted": ((5, 4, 2), flax_mean(((1, 0), (0, 1)), False)),
    "global-mean": ((4, 3, 2), lambda x: x.mean((1, 2))),
    "sum-over-channels-kept": ((3, 2, 5), lambda x: x.sum(-1, keepdims=True)),
    "mean-of-all": ((3, 2, 5), lambda x: x.mean((1, 2, 3))),
    "mean-and-affine": ((4, 3, 2), lambda x: (x.mean((1, 2)) - 0.5) * np.array([2.0, -3.0]) + 1),
}
METHODS = ["lrp-z", "lrp-alpha2-beta1", "lrp-flat"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", AVERAGES)
def test_average_follows_the_z_rule(name, method):
    """Under every LRP method: all weights of a mean are alike."""
    shape, model = AVERAGES[name]
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, *shape))
    R = rng.normal(size=model(x).shape)
    _, rel = lrp.vjp(model, x, method)
    oracle.assert_close(rel(R), oracle.batched(oracle.z, oracle.affine(model, shape), x, R))


@pytest.mark.parametrize("method", ["lrp-epsilon", "lrp-gamma", "lrp-zplus", "lrp-wsquare"])
def test_average_behind_a_relu(method):
    shape, model = AVERAGES["flax-padding-not-counted"]
    x = np.random.default_rng(4).normal(size=(2, *shape))
    out, rel = lrp.vjp(lambda x: model(jax.nn.relu(x)), x, method)
    R = np.cos(np.arange(out.size)).reshape(out.shape)
    matrix = oracle.affine(model, shape)
    oracle.assert_close(rel(R), oracle.batched(oracle.z, matrix, np.maximum(x, 0), R))


def last_maximum(windows, x, R):
    return oracle.winner_takes_all([window[::-1] for window in windows], x, R)


def every_maximum(windows, x, R):
    return sum(oracle.winner_takes_all([w[k:] + w[:k] for w in windows], x, R) for k in range(4))


# name: the library's method and an oracle that is wrong in one respect
WRONG = {
    "the last maximum": ("lrp-zplus", last_maximum),
    "every maximum": ("lrp-zplus", every_maximum),
    "shared in proportion": ("lrp-zplus", oracle.proportional),
    "one winner": (PROPORTIONAL, oracle.winner_takes_all),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_oracle_is_noticed(wrong):
    """The comparisons above can fail."""
    method, rule = WRONG[wrong]
    model, windows, x, R = pool("2x2")
    x = INPUTS["ties"](x)
    _, rel = lrp.vjp(model, x, method)
    assert oracle.error(rel(R), each(rule, windows, x, R)) > 1e-3


@pytest.mark.parametrize(
    "wrong", [oracle.flat, partial(oracle.alpha_beta, alpha=2, beta=1)], ids=["flat", "alpha-beta"]
)
def test_an_average_that_follows_another_rule_is_noticed(wrong):
    shape, model = AVERAGES["overlapping-sum"]
    x = np.random.default_rng(5).normal(size=(2, *shape))
    out, rel = lrp.vjp(model, x, "lrp-alpha2-beta1")
    expected = oracle.batched(wrong, oracle.affine(model, shape), x, np.ones(out.shape))
    assert oracle.error(rel(np.ones(out.shape)), expected) > 1e-3
