"""The layers of flax.nnx, each in the smallest form that shows what is special about it."""

import numpy as np
from flax import nnx

from helpers.layer_cases import Case, filled

IMAGE, TOKENS = (4, 4, 2), (3, 4)
LOWER = np.tril(np.ones((3, 3)))[:, :, None, None] * np.ones((2, 3))
CAUSAL = nnx.make_causal_mask(np.ones((2, 3)))


def case(shape, make, *arguments, call=None, relu=True, **options):
    """A module (made with rngs and in float64) as a layer; call: how it is called, if not by x."""

    def build():
        module = lambda: make(*arguments, rngs=nnx.Rngs(0), param_dtype=float, **options)
        graph, state = nnx.split(nnx.eval_shape(module))
        model = nnx.merge(graph, filled(state))
        model.eval()
        return Called(model, call) if call else model

    return Case(shape, build, relu)


class Called(nnx.Module):
    def __init__(self, module, call):
        self.module, self.call = module, call

    def __call__(self, x):
        return self.call(self.module, x)


def spectral_norm(rngs, param_dtype):
    return nnx.SpectralNorm(nnx.Linear(4, 3, rngs=rngs, param_dtype=param_dtype), rngs=rngs)


def weight_norm():
    dense = nnx.Linear(4, 3, rngs=nnx.Rngs(0), param_dtype=float)
    return nnx.WeightNorm(dense, rngs=nnx.Rngs(0), param_dtype=float)


def rnn(cell):
    return lambda rngs, param_dtype: nnx.RNN(
        cell(4, 3, rngs=rngs, dtype=param_dtype, param_dtype=param_dtype)
    )


def dropout(rngs, param_dtype):
    return nnx.Dropout(0.5, rngs=rngs)


def prelu(rngs, param_dtype):
    return nnx.PReLU(param_dtype=param_dtype)


def sequence(rngs, param_dtype):
    options = {"rngs": rngs, "param_dtype": param_dtype}
    return nnx.Sequential(nnx.Linear(4, 3, **options), nnx.relu, nnx.Linear(3, 2, **options))


POOLING = {
    "max_pool": lambda x: nnx.max_pool(x, (2, 2), (2, 2), "SAME"),
    "max_pool, overlapping": lambda x: nnx.max_pool(x, (3, 3), (2, 2)),
    "avg_pool": lambda x: nnx.avg_pool(x, (2, 2), (2, 2), "SAME"),
    "avg_pool, padding not counted": lambda x: nnx.avg_pool(
        x, (2, 2), (1, 1), "SAME", count_include_pad=False
    ),
    "global average": lambda x: x.mean((1, 2)),
    "global maximum": lambda x: x.max((1, 2)),
}
ATTENTION = {"num_heads": 2, "in_features": 4, "decode": False}
LAYERS = {
    "Conv 1D": case((6, 2), nnx.Conv, 2, 3, (3,)),
    "Conv 2D": case(IMAGE, nnx.Conv, 2, 3, (3, 3)),
    "Conv 3D": case((3, 3, 3, 2), nnx.Conv, 2, 3, (2, 2, 2)),
    "Conv strided": case((5, 5, 2), nnx.Conv, 2, 3, (3, 3), strides=2),
    "Conv dilated": case((5, 5, 2), nnx.Conv, 2, 3, (3, 3), kernel_dilation=2, padding="VALID"),
    "Conv input dilated": case(
        (3, 3, 2), nnx.Conv, 2, 3, (2, 2), input_dilation=2, padding=((1, 1), (1, 1))
    ),
    "Conv grouped": case((4, 4, 4), nnx.Conv, 4, 6, (3, 3), feature_group_count=2),
    "Conv depthwise": case((4, 4, 3), nnx.Conv, 3, 6, (3, 3), feature_group_count=3),
    "Conv circular": case(IMAGE, nnx.Conv, 2, 3, (3, 3), padding="CIRCULAR"),
    "Conv reflecting": case(IMAGE, nnx.Conv, 2, 3, (3, 3), padding="REFLECT"),
    "Conv causal": case((5, 2), nnx.Conv, 2, 3, (3,), padding="CAUSAL"),
    "Conv masked": case(IMAGE, nnx.Conv, 2, 3, (3, 3), mask=LOWER),
    "ConvTranspose 1D": case((4, 2), nnx.ConvTranspose, 2, 3, (3,), strides=2),
    "ConvTranspose 2D": case((3, 3, 2), nnx.ConvTranspose, 2, 3, (3, 3), strides=(2, 2)),
    "ConvTranspose 3D": case((2, 2, 2, 2), nnx.ConvTranspose, 2, 3, (2, 2, 2), strides=(2, 2, 2)),
    "ConvTranspose of a kernel": case(
        (3, 3, 2), nnx.ConvTranspose, 2, 3, (3, 3), strides=(2, 2), transpose_kernel=True
    ),
    "ConvTranspose circular": case(
        (3, 3, 2), nnx.ConvTranspose, 2, 3, (3, 3), strides=(2, 2), padding="CIRCULAR"
    ),
    "Linear": case((4,), nnx.Linear, 4, 3),
    "LinearGeneral": case((3, 2, 4), nnx.LinearGeneral, (2, 4), (3, 5), axis=(-2, -1)),
    "LinearGeneral of a batch": case((4,), nnx.LinearGeneral, 4, 5, batch_axis={0: 2}),
    "Einsum": case(TOKENS, nnx.Einsum, "btd,dhk->bthk", (4, 2, 3), (2, 3)),
    "LoRA": case((4,), nnx.LoRA, 4, 2, 3),
    "LoRALinear": case((4,), nnx.LoRALinear, 4, 3, lora_rank=2),
    "Sequential": case((4,), sequence),
    "BatchNorm": case(IMAGE, nnx.BatchNorm, 2),
    "LayerNorm": case(TOKENS, nnx.LayerNorm, 4),
    "LayerNorm, slow variance": case(TOKENS, nnx.LayerNorm, 4, use_fast_variance=False),
    "RMSNorm": case(TOKENS, nnx.RMSNorm, 4),
    "GroupNorm": case((3, 3, 4), nnx.GroupNorm, 4, 2),
    "InstanceNorm": case(IMAGE, nnx.InstanceNorm, 2),
    "WeightNorm": Case((4,), weight_norm),
    "SpectralNorm": case((4,), spectral_norm, call=lambda m, x: m(x, update_stats=False)),
    "Dropout": case((4,), dropout),
    "PReLU": case((4,), prelu, relu=False),
    "Embed": case(TOKENS, nnx.Embed, 3, 4, call=lambda m, x: x + m(np.arange(3))),
    "Embed.attend": case(TOKENS, nnx.Embed, 5, 4, call=lambda m, x: m.attend(x)),
    "MultiHeadAttention": case(TOKENS, nnx.MultiHeadAttention, **ATTENTION),
    "MultiHeadAttention causal": case(
        TOKENS, nnx.MultiHeadAttention, **ATTENTION, call=lambda m, x: m(x, mask=CAUSAL)
    ),
    "MultiHeadAttention normalised": case(
        TOKENS, nnx.MultiHeadAttention, **ATTENTION, normalize_qk=True
    ),
    "SimpleCell": case((2, 4), rnn(nnx.SimpleCell)),
    "GRUCell": case((2, 4), rnn(nnx.GRUCell)),
    "LSTMCell": case((2, 4), rnn(nnx.LSTMCell)),
    **{name: Case((5, 5, 2), lambda pool=pool: pool) for name, pool in POOLING.items()},
}
NOT_COVERED = {
    "min_pool": ("reduce_window_min", Case(IMAGE, lambda: lambda x: nnx.min_pool(x, (2, 2)))),
}
