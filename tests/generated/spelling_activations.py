"""How one writes an activation in JAX: several spellings of each."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax, nn

from .spelling import SPELLINGS, Array, Speller


@jax.custom_jvp
def own_relu(x: Array) -> Array:
    return jnp.maximum(x, 0)


own_relu.defjvp(lambda x, t: (own_relu(*x), jnp.where(x[0] > 0, t[0], 0.0)))

_ROOT, _CUBE = 0.7978845608028654, 0.044715
WAYS = {
    "relu": (
        nn.relu,
        nn.relu,
        lambda x: jnp.maximum(x, 0),
        lambda x: jnp.where(x > 0, x, 0),
        lambda x: jnp.clip(x, 0),
        lambda x: lax.max(x, jnp.zeros_like(x)),
        own_relu,
    ),
    "relu6": (nn.relu6, lambda x: jnp.clip(x, 0, 6), lambda x: jnp.minimum(nn.relu(x), 6)),
    "clip": (lambda x: jnp.clip(x, 0, 20), lambda x: jnp.minimum(jnp.maximum(x, 0), 20)),
    "clip_wide": (lambda x: jnp.clip(x, -50, 50), lambda x: lax.clamp(-50.0, x, 50.0)),
    "minimum": (lambda x: jnp.minimum(x, 20), lambda x: jnp.where(x > 20, 20, x)),
    "leaky_relu": (
        lambda x: nn.leaky_relu(x, 0.1),
        lambda x: jnp.where(x >= 0, x, 0.1 * x),
        lambda x: jnp.maximum(x, 0.1 * x),
    ),
    "elu": (nn.elu, lambda x: jnp.where(x > 0, x, jnp.expm1(jnp.minimum(x, 0)))),
    "selu": (nn.selu,),
    "sigmoid": (
        nn.sigmoid,
        lax.logistic,
        lambda x: 1 / (1 + jnp.exp(-x)),
        lambda x: 0.5 * (jnp.tanh(0.5 * x) + 1),
        lambda x: jnp.exp(-jnp.logaddexp(0.0, -x)),
    ),
    "hard_sigmoid": (nn.hard_sigmoid, lambda x: jnp.clip(x + 3, 0, 6) / 6),
    "tanh": (jnp.tanh, lax.tanh, lambda x: 2 * nn.sigmoid(2 * x) - 1),
    "hard_tanh": (nn.hard_tanh, lambda x: jnp.clip(x, -1, 1)),
    "softplus": (nn.softplus, lambda x: jnp.logaddexp(x, 0), lambda x: jnp.log1p(jnp.exp(x))),
    "log_sigmoid": (nn.log_sigmoid, lambda x: -nn.softplus(-x)),
    "soft_sign": (nn.soft_sign, lambda x: x / (1 + jnp.abs(x))),
    "silu": (nn.silu, lambda x: x * nn.sigmoid(x), lambda x: x / (1 + jnp.exp(-x))),
    "hard_swish": (nn.hard_swish, lambda x: x * nn.relu6(x + 3) / 6),
    "gelu": (
        lambda x: nn.gelu(x, approximate=False),
        lambda x: x * 0.5 * (1 + lax.erf(x / jnp.sqrt(2.0))),
        lambda x: x * jax.scipy.stats.norm.cdf(x),
    ),
    "gelu_tanh": (
        nn.gelu,
        lambda x: 0.5 * x * (1 + jnp.tanh(_ROOT * (x + _CUBE * x * x * x))),
    ),
    "mish": (nn.mish, lambda x: x * jnp.tanh(nn.softplus(x))),
}


def act(s: Speller, p: dict, x: Array) -> Array:
    """Where it is, or with the batch as the last axis, as recurrent code has it."""
    own = s.one_of(*WAYS[s.node["name"]])
    f = _stopped(own) if s.straight else own
    batch_last = lambda x: jnp.moveaxis(f(jnp.moveaxis(x, 0, -1)), -1, 0)
    return s.one_of(f, f, f, batch_last)(x)


SPELLINGS["act"] = act


def _by_rule(name: str) -> Callable[[Array], Array]:
    """A function with a derivative of its own, as `jax.custom_vjp`."""

    def backward(x, r):
        if name == "reversal":
            return -0.5 * r
        if name == "clipped":
            return jnp.clip(r, -0.1, 0.1)
        if name == "binarised":
            return jnp.where(jnp.abs(x) < 1, r, 0)
        return r if name == "rounded" else 0.3 * jnp.cos(x) * r

    made = jax.custom_vjp(_FORWARD[name])
    made.defvjp(lambda x: (_FORWARD[name](x), x), lambda x, r: (backward(x, r),))
    return made


_FORWARD = {
    "reversal": lambda x: x,
    "clipped": lambda x: x,
    "binarised": lambda x: jnp.where(x > 0, 1.0, -1.0).astype(x.dtype),
    "rounded": lambda x: jnp.round(x),
    "other_slope": lambda x: jnp.tanh(x),
}


@jax.custom_jvp
def _other_slope(x: Array) -> Array:
    return jnp.tanh(x)


_other_slope.defjvp(lambda x, t: (_other_slope(*x), 0.3 * jnp.cos(x[0]) * t[0]))


def _stopped(forward: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """The spelling of a straight-through estimator, without a function of its own."""
    return lambda x: x + lax.stop_gradient(forward(x) - x)


OWN_WAYS = {name: (_by_rule(name), jax.vmap(_by_rule(name))) for name in _FORWARD} | {
    "rounded": (_by_rule("rounded"), _stopped(jnp.round)),
    "other_slope": (_by_rule("other_slope"), _other_slope, jax.vmap(_other_slope)),
}


def own(s: Speller, p: dict, x: Array) -> Array:
    return s.one_of(*OWN_WAYS[s.node["name"]])(x)


def unknown(s: Speller, p: dict, x: Array, *others: Array) -> Array:
    axis = s.axis(-1, x.ndim - 1)
    return {
        "sine": jnp.sin,
        "exponential": jnp.exp,
        "threshold": lambda x: (x > 0).astype(x.dtype),
        "sorted": lambda x: jnp.sort(x, axis),
        "log_sum": lambda x: lax.cumlogsumexp(x, axis),
        "over": s.one_of(jnp.divide, lax.div),
    }[s.node["name"]](x, *others)


SPELLINGS["own"] = own
SPELLINGS["unknown"] = unknown
