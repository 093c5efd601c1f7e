"""How one writes an activation in JAX: several spellings of each."""

from __future__ import annotations

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
    return s.one_of(*WAYS[s.node["name"]])(x)


SPELLINGS["act"] = act
