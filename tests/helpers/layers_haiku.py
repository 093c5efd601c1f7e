"""The layers of Haiku, each in the smallest form that shows what is special about it."""

import haiku as hk
import jax
import numpy as np
from jax.tree_util import Partial

from helpers.layer_cases import Case, filled

IMAGE, TOKENS, STEPS = (4, 4, 2), (3, 4), (2, 4)
CAUSAL = np.tril(np.ones((1, 1, 3, 3)))
ONES = hk.initializers.Constant(1.0)


def case(shape, make, *arguments, call=None, **options):
    """A module as a layer; call: how it is called, if not by x."""
    called = call or (lambda module, x: module(x))
    return function(shape, lambda x: called(make(*arguments, **options), x))


def function(shape, forward, first=None):
    """A function that makes modules as a layer; first: what makes their state, if not itself."""

    def build():
        init, _ = hk.transform_with_state(first or forward)
        _, apply = hk.without_apply_rng(hk.transform_with_state(forward))
        x = jax.ShapeDtypeStruct((2, *shape), float)
        params, state = filled(jax.eval_shape(init, jax.random.key(0), x))
        return Partial(lambda p, s, x: apply(p, s, x)[0], params, state)

    return Case(shape, build)


def batch_norm(is_training):
    return lambda x: hk.BatchNorm(True, True, 0.9)(x, is_training)


def unrolled(core, x):
    steps, _ = hk.dynamic_unroll(core, x.swapaxes(0, 1), core.initial_state(len(x)))
    return steps.swapaxes(0, 1)


def weight(x):
    return hk.get_parameter("w", [4, 3], x.dtype, init=ONES)


with_itself = lambda m, x: m(x, x, x)
ATTENTION = {"w_init": ONES, "call": with_itself}
LAYERS = {
    "Conv1D": case((6, 2), hk.Conv1D, 3, 3),
    "Conv2D": case(IMAGE, hk.Conv2D, 3, 3),
    "Conv3D": case((3, 3, 3, 2), hk.Conv3D, 3, 2),
    "Conv2D strided": case((5, 5, 2), hk.Conv2D, 3, 3, stride=2),
    "Conv2D dilated": case((5, 5, 2), hk.Conv2D, 3, 2, rate=2, padding="VALID"),
    "Conv2D grouped": case((4, 4, 4), hk.Conv2D, 6, 3, feature_group_count=2),
    "Conv2D channels first": case((2, 4, 4), hk.Conv2D, 3, 3, data_format="NCHW"),
    "DepthwiseConv1D": case((4, 2), hk.DepthwiseConv1D, 2, 3),
    "DepthwiseConv2D": case(IMAGE, hk.DepthwiseConv2D, 2, 3),
    "DepthwiseConv3D": case((3, 3, 3, 2), hk.DepthwiseConv3D, 2, 2),
    "SeparableDepthwiseConv2D": case(IMAGE, hk.SeparableDepthwiseConv2D, 1, (3, 3)),
    "Conv1DTranspose": case((4, 2), hk.Conv1DTranspose, 3, 3, stride=2),
    "Conv2DTranspose": case((3, 3, 2), hk.Conv2DTranspose, 3, 3, stride=2),
    "Conv3DTranspose": case((2, 2, 2, 2), hk.Conv3DTranspose, 3, 2, stride=2),
    "Linear": case((4,), hk.Linear, 3),
    "Bias": case((4,), hk.Bias),
    "MLP": case((4,), hk.nets.MLP, [3, 2]),
    "Sequential": function((4,), lambda x: hk.Sequential([hk.Linear(3), jax.nn.relu])(x)),
    "BatchApply": function(TOKENS, lambda x: hk.BatchApply(hk.Linear(3))(x)),
    "layer_stack": function((4,), lambda x: hk.layer_stack(2)(lambda x: hk.Linear(4)(x))(x)),
    "BatchNorm": function(IMAGE, batch_norm(False), first=batch_norm(True)),
    "LayerNorm": case(TOKENS, hk.LayerNorm, -1, True, True),
    "RMSNorm": case(TOKENS, hk.RMSNorm, -1),
    "GroupNorm": case((3, 3, 4), hk.GroupNorm, 2),
    "InstanceNorm": case(IMAGE, hk.InstanceNorm, True, True),
    "SpectralNorm": function((4,), lambda x: x @ hk.SpectralNorm()(weight(x), update_stats=False)),
    "dropout": function((4,), lambda x: hk.dropout(jax.random.key(0), 0.0, x)),
    "Embed": function(TOKENS, lambda x: x + hk.Embed(3, 4)(np.arange(3))),
    "Embed by one-hot": function(
        TOKENS, lambda x: x + hk.Embed(3, 4, lookup_style="ONE_HOT")(np.arange(3))
    ),
    "Flatten": case(IMAGE, hk.Flatten),
    "Reshape": case(IMAGE, hk.Reshape, (8, 4)),
    "MultiHeadAttention": case(TOKENS, hk.MultiHeadAttention, 2, 2, **ATTENTION),
    "MultiHeadAttention causal": case(
        TOKENS,
        hk.MultiHeadAttention,
        2,
        2,
        w_init=ONES,
        call=lambda m, x: m(x, x, x, mask=CAUSAL),
    ),
    "VanillaRNN": case(STEPS, hk.VanillaRNN, 3, call=unrolled),
    "GRU": case(STEPS, hk.GRU, 3, call=unrolled),
    "LSTM": case(STEPS, hk.LSTM, 3, call=unrolled),
    "Conv2DLSTM": case((2, 2, 2, 2), hk.Conv2DLSTM, (2, 2), 2, 2, call=unrolled),
    "MaxPool": case((5, 5, 2), hk.MaxPool, (2, 2, 1), (2, 2, 1), "SAME"),
    "AvgPool": case((5, 5, 2), hk.AvgPool, (2, 2, 1), (2, 2, 1), "SAME"),
}
NOT_COVERED = {}
