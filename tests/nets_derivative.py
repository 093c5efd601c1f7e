"""Networks whose derivative is not that of what they compute, and where ties decide."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

RNG = np.random.default_rng(16)
P = {name: RNG.normal(size=(6, 6)) / 2 for name in ("fc1", "fc2", "fc3")}
P["out"] = RNG.normal(size=(6, 3))
X = RNG.normal(size=(4, 6))
R = RNG.normal(size=(4, 3))


def with_derivative(function, backward):
    """The function with backward(x, r) for its derivative."""
    made = jax.custom_vjp(function)
    made.defvjp(lambda x: (function(x), x), lambda x, r: (backward(x, r),))
    return made


binarised = with_derivative(
    lambda x: jnp.where(x >= 0, 1.0, -1.0).astype(x.dtype),
    lambda x, r: jnp.where(jnp.abs(x) < 1, r, 0),
)
rounded = with_derivative(lambda x: jnp.round(x), lambda x, r: r)
reversal = with_derivative(lambda x: x, lambda x, r: -0.5 * r)
clipped = with_derivative(lambda x: x, lambda x, r: jnp.clip(r, -0.1, 0.1))


@jax.custom_jvp
def other_slope(x):
    return jnp.tanh(x)


other_slope.defjvp(lambda x, t: (other_slope(*x), 0.3 * jnp.cos(x[0]) * t[0]))


@jax.custom_vjp
def straight_through(x, quantised):
    return quantised


straight_through.defvjp(lambda x, q: (q, None), lambda _, r: (r, None))


def nearest(p, h):
    """Each entry is replaced by the nearest of three numbers, as a codebook does."""
    codes = jnp.asarray([-0.5, 0.0, 0.5], h.dtype)
    return straight_through(h, codes[jnp.argmin(jnp.abs(h[..., None] - codes), -1)])


def tied(h):
    """round(h), with the derivative of h: zeros and ties that something depends on."""
    return lax.stop_gradient(jnp.round(h)) + (h - lax.stop_gradient(h))


def looped(function):
    """function(h @ fc2) two times, in a loop."""

    def run(p, h):
        return lax.scan(lambda c, _: (function(c @ p["fc2"]), None), h, None, length=2)[0]

    return run


MIDDLES = {
    "binarised": lambda p, h: binarised(h),
    "rounded": lambda p, h: rounded(h + 0.25),
    "a codebook": nearest,
    "straight through stop_gradient": lambda p, h: h + lax.stop_gradient(jnp.round(h) - h),
    "a stopped branch": lambda p, h: h * lax.stop_gradient(jnp.tanh(h)),
    "reversal": lambda p, h: reversal(h),
    "reversal beside a plain branch": lambda p, h: reversal(h) @ p["fc2"] + h,
    "reversal, vmapped": lambda p, h: jax.vmap(reversal)(h),
    "reversal in a scan": looped(lambda h: reversal(jnp.tanh(h))),
    "reversal in a checkpoint": lambda p, h: jax.checkpoint(
        lambda p, h: reversal(jnp.sin(h)) @ p["fc2"]
    )(p, h),
    "reversal around reversal, in jit": lambda p, h: jax.jit(
        with_derivative(lambda h: reversal(jnp.sin(reversal(h))), lambda h, r: 2 * h * r)
    )(h),
    "a clipped gradient": lambda p, h: clipped(h),
    "another slope": lambda p, h: other_slope(h),
    "another slope, vmapped in a scan": looped(jax.vmap(other_slope)),
    "relu at 0": lambda p, h: jax.nn.relu(tied(h)),
    "maximum(x, 0) at 0": lambda p, h: jnp.maximum(tied(h), 0),
    "ties of reduce_max": lambda p, h: h * jnp.max(tied(h), -1, keepdims=True),
    "ties of maximum": lambda p, h: jnp.maximum(tied(h), tied(h @ p["fc2"])),
    "ties of max-pooling": lambda p, h: lax.reduce_window(
        jnp.maximum(h, -0.2), -jnp.inf, lax.max, (1, 3), (1, 1), "SAME"
    ),
}


def head(middle):
    """x @ fc1, the part that is tested, then fc3."""
    return lambda p, x: middle(p, x @ p["fc1"]) @ p["fc3"]


def network(middle, relu=jax.nn.relu):
    return lambda p, x: relu(head(middle)(p, x)) @ p["out"]


def behind_fc1(net):
    """The network as a function of what fc1 gives."""
    return lambda p, h: net({**p, "fc1": jnp.eye(6, dtype=h.dtype)}, h)
