"""Without `start=` and `layers=` the gradient is `jit(jax.vjp)` of the model, to the last bit."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from nets_derivative import reversal

import lrpjax as lrp

RNG = np.random.default_rng(8)
SHAPES = {
    "kernel": (3, 3, 3, 4), "bias": 4, "mean": 4, "gamma": 4, "fc": (64, 8), "fc2": (8, 8),
    "out": (8, 5),
}  # fmt: skip
P = {name: RNG.normal(size=shape) for name, shape in SHAPES.items()}
P["variance"] = RNG.uniform(1, 2, 4)
IMAGES = RNG.normal(size=(3, 8, 8, 3))


def convolutional(p, x):
    """BatchNorm is folded by every other method; what is smooth is rounded as XLA joins it."""
    dims = ("NHWC", "HWIO", "NHWC")
    h = lax.conv_general_dilated(x, p["kernel"], (1, 1), "SAME", dimension_numbers=dims)
    h = (h + p["bias"] - p["mean"]) / jnp.sqrt(p["variance"] + 1e-5) * p["gamma"]
    tiles = (1, 2, 2, 1)
    h = lax.reduce_window(jax.nn.gelu(h), -jnp.inf, lax.max, tiles, tiles, "VALID")
    h = jax.nn.silu(h.reshape(len(h), -1) @ p["fc"])
    h = (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-6)
    return (h + jax.nn.softmax(h @ p["fc2"]) * jnp.tanh(h)) @ p["out"]


def looped(p, x):
    h = x.reshape(len(x), -1)[:, :8]
    step = lambda c, _: (reversal(jnp.tanh(c @ p["fc2"])), None)
    run = lambda p, h: lax.scan(step, h, None, length=5)[0] @ p["out"]
    return jax.checkpoint(run)(p, h)


@partial(jax.jit, static_argnums=0)
def by_jax(net, p, x, r):
    out, pull = jax.vjp(partial(net, p), x)
    return out, pull(r)[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("net", [convolutional, looped])
def test_the_gradient_is_that_of_jax_bit_for_bit(net, dtype):
    p, x = {name: w.astype(dtype) for name, w in P.items()}, IMAGES.astype(dtype)
    model, r = jax.tree_util.Partial(net, p), RNG.normal(size=(3, 5)).astype(dtype)
    out, expected = by_jax(net, p, x, r)
    found_out, pull = lrp.vjp(model, x, "gradient")
    np.testing.assert_array_equal(found_out, out)
    np.testing.assert_array_equal(pull(r), expected)
    np.testing.assert_array_equal(lrp.vjp(lambda x: net(p, x), x, "gradient")[1](r), expected)
    for target in (None, 2, np.array([4, 0, 1])):
        at = np.argmax(out, -1) if target is None else np.broadcast_to(target, 3)
        _, expected = by_jax(net, p, x, np.eye(5, dtype=dtype)[at])
        found = lrp.attribute(model, x, "gradient", target=target)
        np.testing.assert_array_equal(found, expected)
        found = lrp.attribute(model, x, "input-x-gradient", target=target)
        np.testing.assert_array_equal(found, x * expected)
