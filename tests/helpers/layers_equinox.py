"""The layers of Equinox, each in the smallest form that shows what is special about it."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import nn
from jax import lax

from helpers.layer_cases import Case, filled

KEY = jax.random.key(0)
IMAGE, TOKENS, STEPS = (2, 4, 4), (3, 4), (2, 4)
CAUSAL = jnp.tril(jnp.ones((3, 3), bool))


def case(shape, make, *arguments, keyed=True, double=True, call=None, relu=True, **options):
    """A module in float64 as a layer; call: how it is called, if not by x."""
    options |= ({"key": KEY} if keyed else {}) | ({"dtype": float} if double else {})

    def build():
        made = eqx.filter_eval_shape(lambda: make(*arguments, **options))
        model = nn.inference_mode(filled(made))
        return eqx.filter_vmap(Called(model, call) if call else model)

    return Case(shape, build, relu=relu)


def plain(shape, make, *arguments, **options):
    """A module without parameters."""
    return case(shape, make, *arguments, keyed=False, double=False, **options)


class Called(eqx.Module):
    module: eqx.Module
    call: Callable = eqx.field(static=True)

    def __call__(self, x):
        return self.call(self.module, x)


def stateful(shape, make):
    """A module with a state, which its call gets and its result is without."""

    def build():
        model, state = filled(eqx.filter_eval_shape(nn.make_with_state(make)))
        return WithState(nn.inference_mode(model), state)

    return Case(shape, build)


class WithState(eqx.Module):
    module: eqx.Module
    state: nn.State

    def __call__(self, x):
        one = lambda x: self.module(x, self.state)[0]
        return jax.vmap(one, axis_name="batch")(x)


def unrolled(start):
    """A cell run over the first axis of x, from a carry of zeros."""

    def call(cell, xs):
        step = lambda carry, x: (cell(x, carry), None)
        return jax.tree.leaves(lax.scan(step, start, xs)[0])[0]

    return call


batch_norm = lambda mode: lambda: nn.BatchNorm(2, "batch", mode=mode, dtype=float)
spectral_norm = lambda: nn.SpectralNorm(nn.Linear(4, 3, key=KEY, dtype=float), "weight", key=KEY)
weight_norm = lambda key, dtype: nn.WeightNorm(nn.Linear(4, 3, key=key, dtype=dtype))
sequence = lambda key, dtype: nn.Sequential(
    [nn.Linear(4, 3, key=key, dtype=dtype), nn.Lambda(jax.nn.relu), nn.Identity()]
)
LAYERS = {
    "Conv1d": case((2, 6), nn.Conv1d, 2, 3, 3),
    "Conv2d": case(IMAGE, nn.Conv2d, 2, 3, 3, padding=1),
    "Conv3d": case((2, 3, 3, 3), nn.Conv3d, 2, 3, 2),
    "Conv2d strided": case((2, 5, 5), nn.Conv2d, 2, 3, 3, stride=2),
    "Conv2d dilated": case((2, 5, 5), nn.Conv2d, 2, 3, 2, dilation=2),
    "Conv2d grouped": case((4, 4, 4), nn.Conv2d, 4, 6, 3, groups=2),
    "Conv2d depthwise": case((3, 4, 4), nn.Conv2d, 3, 6, 3, groups=3),
    "Conv2d reflecting": case(IMAGE, nn.Conv2d, 2, 3, 3, padding=1, padding_mode="REFLECT"),
    "ConvTranspose1d": case((2, 4), nn.ConvTranspose1d, 2, 3, 3, stride=2),
    "ConvTranspose2d": case(
        (2, 3, 3), nn.ConvTranspose2d, 2, 3, 3, stride=2, padding=1, output_padding=1
    ),
    "ConvTranspose3d": case((2, 2, 2, 2), nn.ConvTranspose3d, 2, 3, 2, stride=2),
    "ConvTranspose2d grouped": case((4, 3, 3), nn.ConvTranspose2d, 4, 4, 2, groups=2),
    "Linear": case((4,), nn.Linear, 4, 3),
    "Linear of scalars": case((4,), nn.Linear, 4, "scalar"),
    "MLP": case((4,), nn.MLP, 4, 3, 3, 1),
    "Sequential": case((4,), sequence),
    "BatchNorm": stateful(IMAGE, batch_norm("ema")),
    "BatchNorm of batches": stateful(IMAGE, batch_norm("batch")),
    "LayerNorm": case((4,), nn.LayerNorm, 4, keyed=False),
    "RMSNorm": case((4,), nn.RMSNorm, 4, keyed=False),
    "GroupNorm": case((4, 3, 3), nn.GroupNorm, 2, 4, keyed=False),
    "WeightNorm": case((4,), weight_norm),
    "SpectralNorm": stateful((4,), spectral_norm),
    "Dropout": plain((4,), nn.Dropout, 0.5),
    "PReLU": plain((4,), nn.PReLU, 0.3, relu=False),
    "Embedding": case(TOKENS, nn.Embedding, 3, 4, call=lambda m, x: x + jax.vmap(m)(jnp.arange(3))),
    "RotaryPositionalEmbedding": plain(TOKENS, nn.RotaryPositionalEmbedding, 4),
    "MultiheadAttention": case(TOKENS, nn.MultiheadAttention, 2, 4, call=lambda m, x: m(x, x, x)),
    "MultiheadAttention causal": case(
        TOKENS, nn.MultiheadAttention, 2, 4, call=lambda m, x: m(x, x, x, mask=CAUSAL)
    ),
    "GRUCell": case(STEPS, nn.GRUCell, 4, 3, call=unrolled(jnp.zeros(3))),
    "LSTMCell": case(STEPS, nn.LSTMCell, 4, 3, call=unrolled((jnp.zeros(3),) * 2)),
    "Pool": plain((2, 5), nn.Pool, 0.0, lax.add, 1, 2),
    "AvgPool1d": plain((2, 5), nn.AvgPool1d, 2, 2, 1),
    "AvgPool2d": plain((2, 5, 5), nn.AvgPool2d, 2, 2, 1),
    "MaxPool2d": plain((2, 5, 5), nn.MaxPool2d, 2, 2, 1),
    "MaxPool3d": plain((2, 3, 3, 3), nn.MaxPool3d, 2, 2, 1),
    "AdaptiveAvgPool2d": plain((2, 3, 3), nn.AdaptiveAvgPool2d, 2),
    "AdaptiveMaxPool2d": plain((2, 3, 3), nn.AdaptiveMaxPool2d, 2),
}
NOT_COVERED = {
    "Pool of minima": ("reduce_window_min", plain((2, 5), nn.Pool, jnp.inf, lax.min, 1, 2)),
}
