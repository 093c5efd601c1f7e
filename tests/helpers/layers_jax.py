"""What JAX itself offers: jax.nn, jax.image.resize and what moves values; and what is refused.

flax hands on the activations of jax.nn; Haiku and Equinox have no others.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import SingleDeviceSharding
from jax.tree_util import Partial

from helpers.layer_cases import Case

HEADS = (3, 2, 4)
MASK = np.tril(np.ones((1, 1, 3, 3), bool))
LENGTHS = np.array([2, 3], np.int32)
EVEN, GROUPS = np.array([True, False, True, False]), np.array([0, 0, 1, 1])
DEVICE = jax.devices()[0]
half = lambda x: (x[:, :2], x[:, 2:])


def rotary(x):
    """Pairs of entries as complex numbers, turned by a quarter and mirrored."""
    turned = jnp.conj(lax.complex(*half(x)) * 1j)
    return jnp.concatenate([turned.real, turned.imag], 1)


def read_twice(h):
    return h + jax.nn.relu(h)


def straight_through(step):
    """Computes the step, and is trained as if it were not there (Bengio et al. 2013)."""
    return function(lambda x: x + lax.stop_gradient(step(x) - x))


def blurred(x):
    kernel = np.ones((2, 2, 2, 2), x.dtype) / 8
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def function(layer, shape=(4,), *, relu=False, keeps=True):
    return Case(shape, lambda: layer, relu, keeps=keeps)


def attention(**options):
    return function(lambda x: jax.nn.dot_product_attention(x, x, x, **options), HEADS)


def resized(method):
    return function(lambda x: jax.image.resize(x, (2, 5, 5, 2), method), (3, 3, 2))


SAME = (
    "elu hard_sigmoid hard_tanh leaky_relu log_sigmoid mish relu relu6 selu silu soft_sign "
    "softplus tanh"
)
OTHER = {"celu": "elu", "gelu": "gelu_tanh", "hard_silu": "hard_swish", "sigmoid": "logistic"}
READ_AS = {name: name for name in SAME.split()} | OTHER  # under which name it is recognised
ACTIVATIONS = {
    name: function(getattr(jax.nn, name)) for name in (*READ_AS, "glu", "identity", "standardize")
}
LAYERS = {
    **ACTIVATIONS,
    "gelu, exact": function(lambda x: jax.nn.gelu(x, approximate=False)),
    "celu of 2": function(lambda x: jax.nn.celu(x, 2.0)),
    "tanh as a cap": function(lambda x: 5 * jnp.tanh(x / 5)),
    "softmax": function(jax.nn.softmax, keeps=False),
    "maxout": function(lambda x: x.reshape(2, 2, 2).max(-1)),
    "gate, hard_sigmoid": function(lambda x: half(x)[0] * jax.nn.hard_sigmoid(half(x)[1])),
    "gate, selu": function(lambda x: half(x)[0] * jax.nn.selu(half(x)[1])),
    "gate, silu": function(lambda x: half(x)[0] * jax.nn.silu(half(x)[1])),
    "attention": attention(),
    "attention, causal": attention(is_causal=True),
    "attention, masked and biased": attention(mask=MASK, bias=np.ones((1, 1, 3, 3))),
    "attention, lengths": attention(query_seq_lengths=LENGTHS, key_value_seq_lengths=LENGTHS),
    "attention, grouped": function(
        lambda x: jax.nn.dot_product_attention(x, x[:, :, :1], x[:, :, :1]), HEADS
    ),
    "resize, nearest": resized("nearest"),
    "resize, linear": resized("linear"),
    "resize, cubic": resized("cubic"),
    "cumsum": function(lambda x: jnp.cumsum(x, 1)),
    "roll": function(lambda x: jnp.roll(x, 1, 1)),
    "flip": function(lambda x: x[:, ::-1]),
    "tile": function(lambda x: jnp.tile(x, (1, 2))),
    "repeat": function(lambda x: jnp.repeat(x, 2, 1)),
    "take": function(lambda x: x[:, np.array([0, 2])]),
    "where": function(lambda x: jnp.where(EVEN, x, 0)),
    "pad": function(lambda x: jnp.pad(x, ((0, 0), (1, 2)))),
    "split and stack": function(lambda x: jnp.stack(jnp.split(x, 2, 1), 1)),
    "unstack": function(lambda x: sum(jnp.unstack(x, axis=1))[:, None]),
    "dynamic_slice": function(lambda x: lax.dynamic_slice(x, (0, 1), (2, 2))),
    "dynamic_update_slice": function(lambda x: lax.dynamic_update_slice(x, half(x)[1], (0, 1))),
    "optimization_barrier": function(lambda x: lax.optimization_barrier(x)),
    "reduce_precision": function(lambda x: lax.reduce_precision(x, 11, 52)),
    "checkpoint_name": function(lambda x: jax.ad_checkpoint.checkpoint_name(x, "h")),
    "copy": function(jnp.copy),
    # Of a value without a share: relevance passes where the gradient does not.
    "stop_gradient": function(lambda x: x + 0 * lax.stop_gradient(x)),
    "device_put": function(lambda x: jax.device_put(x, DEVICE)),
    "sharding": function(lambda x: lax.with_sharding_constraint(x, SingleDeviceSharding(DEVICE))),
    "clamp": function(lambda x: lax.clamp(-1.0, x, 5.0)),
    "clip": function(lambda x: jnp.clip(x, -1, 5)),
    "sparse_sigmoid": function(jax.nn.sparse_sigmoid),
    "scatter": function(lambda x: x.at[:, 0].set(1.0)),
    "segment_sum": function(lambda x: jax.ops.segment_sum(x.T, GROUPS, 2).T),
    "subtracted in place": function(lambda x: jnp.ones_like(x).at[:, GROUPS].subtract(x)),
    "straight through sign": straight_through(jnp.sign),
    "straight through a step": straight_through(lambda x: jnp.where(x > 0, 1.0, 0.0)),
    "straight through round": straight_through(jnp.round),
    "a choice": function(lambda x: jnp.where(x.sum(1, keepdims=True) > 0, x, x[:, ::-1])),
    "steps before two readers": function(lambda x: read_twice(-(jax.nn.relu(x) * 3) / 2 + 1)),
    "a blur": function(Partial(lambda s, x: blurred(x) * s, np.ones(2)), (4, 4, 2)),
    "fft": function(lambda x: jnp.fft.irfft(jnp.fft.rfft(x) * 1j, x.shape[1])),
    "real and imaginary": function(rotary),
    "a derivative": function(lambda x: jax.vjp(lambda h: (h, h), x)[1]((x, 2 * x))[0]),
}
REFUSED = {  # by the primitive that the error names
    "abs": jnp.abs,
    "square": jnp.square,
    "integer_pow": lambda x: x**3,
    "exp": jnp.exp,
    "expm1": jnp.expm1,
    "sqrt": lambda x: jnp.sqrt(jax.nn.relu(x) + 1),
    "rsqrt": lambda x: lax.rsqrt(jax.nn.relu(x) + 1),
    "log1p": lambda x: jnp.log1p(jax.nn.relu(x)),
    "sin": jnp.sin,
    "erf": lax.erf,
    "round": jnp.round,
    "max": lambda x: jnp.maximum(*half(x)),
    "min": lambda x: jnp.minimum(*half(x)),
    "div": lambda x: half(x)[0] / half(x)[1],
    "reduce_min": lambda x: x.min(1),
    "reduce_prod": lambda x: x.prod(1),
    "cumprod": lambda x: jnp.cumprod(x, 1),
    "cummax": lambda x: lax.cummax(x, 1),
    "sort": jnp.sort,
    "top_k": lambda x: lax.top_k(x, 2)[0],
}
NOT_COVERED = {
    **{primitive: (primitive, function(layer)) for primitive, layer in REFUSED.items()},
    "log_softmax": ("exp", function(jax.nn.log_softmax)),
    "logsumexp": ("exp", function(lambda x: jax.nn.logsumexp(x, 1))),
    "variance": ("square", function(lambda x: x.var(1))),
    "median": ("sort", function(lambda x: jnp.median(x, 1))),
    "euclidean norm": ("sqrt", function(lambda x: jnp.linalg.norm(x, axis=1))),
    "relu squared": ("integer_pow", function(lambda x: jax.nn.relu(x) ** 2)),
    "sparse_plus": ("integer_pow", function(jax.nn.sparse_plus)),
    "squareplus": ("square", function(jax.nn.squareplus)),
}
