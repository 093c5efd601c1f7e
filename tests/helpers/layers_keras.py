"""The layers of Keras 3 on JAX, each in the smallest form that shows what is special about it."""

import jax
import jax.numpy as jnp
import keras
import numpy as np
from keras import layers

from helpers.layer_cases import Case, draw

IMAGE, TOKENS, STEPS = (4, 4, 2), (3, 4), (2, 4)
CAUSAL = np.tril(np.ones((1, 3, 3), bool))


def case(shape, name, *arguments, call=None, relu=True, single=False, keeps=True, **options):
    """`keras.layers.NAME` as a layer in inference; call: how it is called, if not by x."""
    options["dtype"] = "float32" if single else "float64"

    def build():
        layer = getattr(layers, name)(*arguments, **options)
        called = call or (lambda layer, x: layer(x))
        x = keras.KerasTensor((2, *shape), options["dtype"])
        called(layer, x)  # makes the variables
        rng = np.random.default_rng(2)
        for variable in layer.variables:
            if jnp.issubdtype(jnp.dtype(variable.dtype), jnp.floating):
                variable.assign(draw(variable.shape, variable.dtype, rng))
        return lambda x: called(layer, x)

    return Case(shape, build, relu, single, keeps)


def merged(name, **options):
    """A layer of two inputs, which get the two halves of x."""
    return case((4,), name, call=lambda m, x: m([x[:, :2], x[:, 2:]]), relu=False, **options)


def recurrent(name, *arguments, **options):
    return case(STEPS, name, *arguments, single=True, **options)


def inside(*inner, dtype="float64"):
    """A wrapped dense layer, or the cells of a recurrent one."""
    return [getattr(layers, name)(3, dtype=dtype) for name in inner]


to_itself = lambda m, x: m(x, x)
as_list = lambda m, x: m([x, x])
add_embedding = lambda m, x: x + m(np.arange(3))
CONVOLUTIONS = {
    "Conv1D": case((4, 2), "Conv1D", 3, 2),
    "Conv2D": case(IMAGE, "Conv2D", 3, 3, padding="same"),
    "Conv3D": case((3, 3, 3, 2), "Conv3D", 3, 2),
    "Conv1DTranspose": case((2, 2), "Conv1DTranspose", 3, 3, strides=2),
    "Conv2DTranspose": case((2, 2, 2), "Conv2DTranspose", 3, 3, strides=2),
    "Conv3DTranspose": case((2, 2, 2, 2), "Conv3DTranspose", 3, 3, strides=2),
    "Conv1D causal": case((4, 2), "Conv1D", 3, 2, padding="causal"),
    "Conv2D strided": case((5, 5, 2), "Conv2D", 3, 3, strides=2),
    "Conv2D dilated": case((5, 5, 2), "Conv2D", 3, 2, dilation_rate=2),
    "Conv2D grouped": case((4, 4, 4), "Conv2D", 6, 3, groups=2),
    "Conv2D channels first": case((2, 4, 4), "Conv2D", 3, 2, data_format="channels_first"),
    "DepthwiseConv1D": case((4, 2), "DepthwiseConv1D", 2, depth_multiplier=2),
    "DepthwiseConv2D": case(IMAGE, "DepthwiseConv2D", 2, depth_multiplier=2),
    "SeparableConv1D": case((4, 2), "SeparableConv1D", 3, 2),
    "SeparableConv2D": case(IMAGE, "SeparableConv2D", 3, 2),
}
POOLING = {
    "AveragePooling1D": case((5, 2), "AveragePooling1D", 2, padding="same"),
    "AveragePooling2D": case((5, 5, 2), "AveragePooling2D", 2),
    "MaxPooling2D": case((5, 5, 2), "MaxPooling2D", padding="same"),
    "MaxPooling3D": case((4, 4, 4, 2), "MaxPooling3D"),
    "GlobalAveragePooling2D": case(IMAGE, "GlobalAveragePooling2D", single=True),
    "GlobalMaxPooling2D": case(IMAGE, "GlobalMaxPooling2D"),
    "AdaptiveAveragePooling2D": case((3, 3, 2), "AdaptiveAveragePooling2D", 2),
    "AdaptiveMaxPooling2D": case((3, 3, 2), "AdaptiveMaxPooling2D", 2),
}
NORMS = {
    "BatchNormalization": case(IMAGE, "BatchNormalization", single=True),
    "LayerNormalization": case(TOKENS, "LayerNormalization", single=True),
    "GroupNormalization": case((3, 3, 4), "GroupNormalization", 2, single=True),
    "RMSNormalization": case(TOKENS, "RMSNormalization", single=True),
    "UnitNormalization": case(TOKENS, "UnitNormalization"),
    "Normalization": case((4,), "Normalization", mean=[1.0, 2, 3, 4], variance=[1.0, 2, 3, 4]),
    "SpectralNormalization": case((4,), "SpectralNormalization", *inside("Dense")),
}
OFF = {  # in inference they do nothing
    name: case(TOKENS, name, *arguments)
    for name, *arguments in (
        ("Dropout", 0.5),
        ("GaussianDropout", 0.5),
        ("GaussianNoise", 0.5),
        ("AlphaDropout", 0.5),
        ("SpatialDropout1D", 0.5),
        ("ActivityRegularization",),
        ("Identity",),
    )
}
ACTIVATIONS = {
    **{
        name: case((4,), "Activation", name, relu=False, single=name == "tanh")
        for name in "celu elu gelu glu hard_sigmoid hard_silu hard_tanh leaky_relu linear "
        "log_sigmoid mish relu relu6 selu sigmoid silu softplus softsign sparse_sigmoid tanh "
        "tanh_shrink".split()
    },
    "ReLU": case((4,), "ReLU", relu=False),
    "ReLU of at most 2": case((4,), "ReLU", 2.0, relu=False),
    "LeakyReLU": case((4,), "LeakyReLU", relu=False),
    "ELU": case((4,), "ELU", relu=False),
    "PReLU": case((4,), "PReLU", relu=False),
    "PReLU of channels": case(IMAGE, "PReLU", shared_axes=[1, 2], relu=False),
    "Softmax": case((4,), "Softmax", relu=False, keeps=False),
}
REFUSED_ACTIVATIONS = {
    "exponential": "exp",
    "hard_shrink": "abs",
    "log_softmax": "exp",
    "soft_shrink": "select_n",
    "sparse_plus": "integer_pow",
    "sparsemax": "sort",
    "squareplus": "square",
}
SHAPES = {
    "Masking": case(TOKENS, "Masking"),
    "Flatten": case(IMAGE, "Flatten"),
    "Reshape": case(IMAGE, "Reshape", (8, 4)),
    "Permute": case(IMAGE, "Permute", (3, 1, 2)),
    "RepeatVector": case((4,), "RepeatVector", 3),
    "ZeroPadding2D": case(IMAGE, "ZeroPadding2D"),
    "Cropping2D": case(IMAGE, "Cropping2D"),
    "CenterCrop": case(IMAGE, "CenterCrop", 2, 2),
    "Rescaling": case((4,), "Rescaling", 0.5, 1.0),
    "UpSampling2D": case((2, 2, 2), "UpSampling2D"),
    "Resizing nearest": case(IMAGE, "Resizing", 6, 6, interpolation="nearest"),
    "Resizing bilinear": case(IMAGE, "Resizing", 6, 6),
}
MERGING = {
    "Add": merged("Add"),
    "Subtract": merged("Subtract"),
    "Average": merged("Average"),
    "Multiply": merged("Multiply"),
    "Concatenate": merged("Concatenate"),
    "Dot": merged("Dot", axes=1),
    "Dot of unit vectors": merged("Dot", axes=1, normalize=True),
}
ATTENTION = {
    "Attention": case(TOKENS, "Attention", call=as_list),
    "Attention causal": case(
        TOKENS, "Attention", call=lambda m, x: m([x, x], use_causal_mask=True)
    ),
    "Attention of sums": case(TOKENS, "Attention", score_mode="concat", call=as_list),
    "AdditiveAttention": case(TOKENS, "AdditiveAttention", call=as_list, single=True),
    "MultiHeadAttention": case(TOKENS, "MultiHeadAttention", 2, 2, call=to_itself, single=True),
    "MultiHeadAttention masked": case(
        TOKENS,
        "MultiHeadAttention",
        2,
        2,
        call=lambda m, x: m(x, x, attention_mask=CAUSAL),
        single=True,
    ),
    "GroupQueryAttention": case(
        TOKENS, "GroupQueryAttention", 2, 2, 1, call=to_itself, single=True
    ),
}
RECURRENT = {
    "SimpleRNN": recurrent("SimpleRNN", 3),
    "GRU": recurrent("GRU", 3),
    "LSTM": recurrent("LSTM", 3),
    "Bidirectional": recurrent("Bidirectional", *inside("SimpleRNN", dtype="float32")),
    "TimeDistributed": case(TOKENS, "TimeDistributed", *inside("Dense")),
    "ConvLSTM2D": case((2, 2, 2, 2), "ConvLSTM2D", 2, 2, single=True),
}
LAYERS = {
    "Dense": case((4,), "Dense", 3),
    "EinsumDense": case(TOKENS, "EinsumDense", "btd,dhk->bthk", (None, 2, 3), bias_axes="hk"),
    "Embedding": case(TOKENS, "Embedding", 3, 4, call=add_embedding),
    "ReversibleEmbedding": case(
        (4,), "ReversibleEmbedding", 3, 4, call=lambda m, x: m(x, reverse=True)
    ),
    "Lambda": case((4,), "Lambda", lambda x: jax.nn.relu(2 * x)),
    **CONVOLUTIONS,
    **POOLING,
    **NORMS,
    **OFF,
    **ACTIVATIONS,
    **SHAPES,
    **MERGING,
    **ATTENTION,
    **RECURRENT,
}
NOT_COVERED = {
    **{
        name: (primitive, case((4,), "Activation", name, relu=False))
        for name, primitive in REFUSED_ACTIVATIONS.items()
    },
    "Maximum": ("max", merged("Maximum")),
    "Minimum": ("min", merged("Minimum")),
}
