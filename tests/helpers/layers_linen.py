"""The layers of flax.linen, each in the smallest form that shows what is special about it."""

import flax.linen as nn
import jax
import numpy as np
from jax.tree_util import Partial

from helpers.layer_cases import Case, filled

IMAGE, TOKENS, STEPS = (4, 4, 2), (3, 4), (2, 4)
CAUSAL = nn.make_causal_mask(np.ones((2, 3)))
DOUBLE = {"param_dtype": float}


def case(shape, make, *arguments, call=None, relu=True, **options):
    """A module in float64 as a layer; call: the arguments of its call besides x."""
    return module(shape, make(*arguments, **DOUBLE, **options), call, relu)


def module(shape, made, call=None, relu=True, single=False):
    def build():
        x = jax.ShapeDtypeStruct((2, *shape), np.float32 if single else float)
        init = lambda x: made.init(jax.random.key(0), x, **(call or {}))
        return Partial(made.apply, filled(jax.eval_shape(init, x)), **(call or {}))

    return Case(shape, build, relu, single)


def rnn(cell, *arguments):
    return nn.RNN(cell(*arguments, **DOUBLE))


class AddEmbedding(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + nn.Embed(3, 4, **DOUBLE)(np.arange(3))


LAYERS = {
    "Conv 1D": case((6, 2), nn.Conv, 3, (3,)),
    "Conv 2D": case(IMAGE, nn.Conv, 3, (3, 3)),
    "Conv 3D": case((3, 3, 3, 2), nn.Conv, 3, (2, 2, 2)),
    "Conv strided, dilated, grouped": case(
        (7, 7, 4), nn.Conv, 6, (2, 2), strides=2, kernel_dilation=2, feature_group_count=2
    ),
    "Conv depthwise": case((4, 4, 3), nn.Conv, 6, (3, 3), feature_group_count=3),
    "ConvLocal": case(IMAGE, nn.ConvLocal, 3, (2, 2)),
    "ConvTranspose 1D": case((4, 2), nn.ConvTranspose, 3, (3,), strides=(2,)),
    "ConvTranspose 2D": case((3, 3, 2), nn.ConvTranspose, 3, (3, 3), strides=(2, 2)),
    "ConvTranspose 3D": case((2, 2, 2, 2), nn.ConvTranspose, 3, (2, 2, 2), strides=(2, 2, 2)),
    "Dense": case((4,), nn.Dense, 3),
    "Dense, remat": module((4,), nn.remat(nn.Dense)(3, **DOUBLE)),
    "DenseGeneral": case((3, 2, 4), nn.DenseGeneral, (2, 3), axis=(-2, -1)),
    "DenseGeneral of a batch": case((2, 4), nn.DenseGeneral, 3, batch_dims=(0,)),
    "Einsum": case(TOKENS, nn.Einsum, (4, 2, 3), "btd,dhk->bthk"),
    "Sequential": module((4,), nn.Sequential([nn.Dense(3, **DOUBLE), nn.relu])),
    "BatchNorm": module(IMAGE, nn.BatchNorm(use_running_average=True), single=True),
    "LayerNorm": case(TOKENS, nn.LayerNorm),
    "LayerNorm of two axes": case(
        TOKENS, nn.LayerNorm, reduction_axes=(1, 2), feature_axes=(1, 2), use_fast_variance=False
    ),
    "RMSNorm": case(TOKENS, nn.RMSNorm),
    "GroupNorm": case((3, 3, 4), nn.GroupNorm, 2),
    "InstanceNorm": case(IMAGE, nn.InstanceNorm),
    "WeightNorm": module((4,), nn.WeightNorm(nn.Dense(3, **DOUBLE), **DOUBLE)),
    "SpectralNorm": module((4,), nn.SpectralNorm(nn.Dense(3, **DOUBLE)), {"update_stats": False}),
    "Dropout": module((4,), nn.Dropout(0.5, deterministic=True)),
    "PReLU": case((4,), nn.PReLU, relu=False),
    "Embed": module(TOKENS, AddEmbedding()),
    "MultiHeadDotProductAttention": case(TOKENS, nn.MultiHeadDotProductAttention, 2),
    "MultiHeadAttention causal": case(TOKENS, nn.MultiHeadAttention, 2, call={"mask": CAUSAL}),
    "SimpleCell": module(STEPS, rnn(nn.SimpleCell, 3)),
    "GRUCell": module(STEPS, rnn(nn.GRUCell, 3)),
    "MGUCell": module(STEPS, rnn(nn.MGUCell, 3)),
    "LSTMCell": module(STEPS, rnn(nn.LSTMCell, 3)),
    "OptimizedLSTMCell": module(STEPS, rnn(nn.OptimizedLSTMCell, 3)),
    "ConvLSTMCell": module((2, 3, 2), rnn(nn.ConvLSTMCell, 2, (2,))),
    "Bidirectional": module(STEPS, nn.Bidirectional(rnn(nn.SimpleCell, 3), rnn(nn.SimpleCell, 3))),
    "max_pool": Case((5, 5, 2), lambda: lambda x: nn.max_pool(x, (2, 2), (2, 2), "SAME")),
    "avg_pool": Case((5, 5, 2), lambda: lambda x: nn.avg_pool(x, (2, 2), (1, 1), "SAME", False)),
}
NOT_COVERED = {}
