"""VGG: Simonyan and Zisserman 2015, with 11, 13, 16 or 19 layers and their ImageNet weights."""

from __future__ import annotations

from functools import partial
from os import PathLike
from typing import Any

import jax
from flax import nnx

from . import imagenet, naming
from .naming import Naming, Shape, Stored
from .pretrained import pretrained

DEPTHS = {  # the convolutions in front of each pool
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
WIDTHS = (1, 2, 4, 8, 8)  # of the convolutions, in units of the first one's
SIDE = 224
WINDOW = 7  # what the pools leave of it
INJECTED = ("fc3", "fc1:relu", "conv4_3:relu", "conv3_3:relu", "conv2_2:relu")


class VGG(imagenet.Network):
    """Preprocessed images (N, 224, 224, 3) to logits (N, outputs).

    conv1_1 ... conv5_{2,3,4} (3x3, zero padding), pool1 ... pool5 (2x2), flatten, fc1, fc2, fc3; a
    ReLU behind each layer but the last, dropout .5 before fc2 and fc3. No BatchNorm.

    width, hidden: features of the first convolution and of fc1 and fc2. preprocess: "torch",
    "caffe" or "tf" (see `imagenet.PREPROCESSING`). VGG-16 has 138,357,544 parameters.
    """

    def __init__(
        self,
        depth: int,
        *,
        outputs: int = 1000,
        width: int = 64,
        hidden: int = 4096,
        preprocess: str = "torch",
        rngs: nnx.Rngs,
    ):
        if depth not in DEPTHS:
            raise ValueError(f"VGG has {', '.join(map(str, DEPTHS))} layers, got {depth}.")
        channels = 3
        for stage, layers in enumerate(_convolutions(depth)):
            for layer in layers:
                features = width * WIDTHS[stage]
                conv = nnx.Conv(channels, features, (3, 3), rngs=rngs)
                setattr(self, layer, conv)
                channels = features
        self.fc1 = nnx.Linear(WINDOW**2 * channels, hidden, rngs=rngs)
        self.fc2 = nnx.Linear(hidden, hidden, rngs=rngs)
        self.fc3 = nnx.Linear(hidden, outputs, rngs=rngs)
        self.dropout = nnx.Dropout(0.5)
        self.depth = depth
        self.outputs = outputs
        self.preprocess = imagenet.preprocessing(preprocess)

    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        if x.shape[1:] != (SIDE, SIDE, 3):
            raise ValueError(f"VGG takes images (N, {SIDE}, {SIDE}, 3), got {x.shape}.")
        for stage, layers in enumerate(_convolutions(self.depth), 1):
            for layer in layers:
                x = nnx.relu(getattr(self, layer)(x))
            with jax.named_scope(f"pool{stage}"):
                x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        with jax.named_scope("flatten"):
            x = x.reshape(x.shape[0], -1)
        x = nnx.relu(self.fc1(x))
        x = nnx.relu(self.fc2(self.dropout(x, rngs=rngs)))
        return self.fc3(self.dropout(x, rngs=rngs))

    @property
    def injection_layers(self) -> tuple[str, ...]:
        """Where the paper injects relevance into VGG-16, as far as this network has the layers."""
        return tuple(name for name in INJECTED if hasattr(self, name.partition(":")[0]))

    @property
    def settings(self) -> dict[str, str]:
        """What a weight file must record beside the parameters."""
        return {"preprocess": self.preprocess.name}


def _convolutions(depth: int) -> list[list[str]]:
    """The names of the convolutions in front of each pool."""
    return [
        [f"conv{stage}_{i}" for i in range(1, count + 1)]
        for stage, count in enumerate(DEPTHS[depth], 1)
    ]


def _namings(depth: int) -> tuple[Naming, ...]:
    stages = _convolutions(depth)
    convs = [layer for stage in stages for layer in stage]
    layers = [*convs, "fc1", "fc2", "fc3"]
    # Torch also counts the ReLU behind each convolution and the pools.
    pools_before = [pools for pools, stage in enumerate(stages) for _ in stage]
    features = [f"features.{2 * i + pools}" for i, pools in enumerate(pools_before)]
    heads = (
        (_torchvision, ("classifier.0", "classifier.3", "classifier.6")),
        (_timm, ("pre_logits.fc1", "pre_logits.fc2", "head.fc")),
    )
    torch = [
        Naming(dict(zip(layers, [*features, *head], strict=True)), store, {"preprocess": "torch"})
        for store, head in heads
    ]
    blocks = [layer.replace("conv", "block").replace("_", "_conv") for layer in convs]
    keras = dict(zip(layers, [*blocks, "fc1", "fc2", "predictions"], strict=True))
    own = dict(zip(layers, layers, strict=True))
    return (
        *torch,
        Naming(keras, naming.keras, {"preprocess": "caffe"}),
        Naming(own, naming.own, {"preprocess": "torch"}),
    )


def _torchvision(layer: str, leaf: str, shape: Shape) -> Stored:
    """The first dense layer reads what torch flattens, channels first."""
    if (layer, leaf) != ("classifier.0", "kernel"):
        return naming.torch(layer, leaf, shape)
    window = _window(layer, shape, WINDOW)
    return Stored(window.name, shape[::-1], window.to_own)


def _timm(layer: str, leaf: str, shape: Shape) -> Stored:
    """The first two dense layers are convolutions, over a window of 7x7 and of one pixel."""
    sides = {"pre_logits.fc1": WINDOW, "pre_logits.fc2": 1}
    if layer not in sides or leaf != "kernel":
        return naming.torch(layer, leaf, shape)
    return _window(layer, shape, sides[layer])


def _window(layer: str, shape: Shape, side: int) -> Stored:
    """A dense kernel (inputs, outputs) stored as a convolution over a window, or flattened."""
    inputs, outputs = shape
    conv = naming.torch(layer, "kernel", (side, side, inputs // side**2, outputs))
    return Stored(
        conv.name, conv.shape, lambda values: conv.to_own(values.reshape(conv.shape)).reshape(shape)
    )


def build(
    depth: int,
    weights: str | PathLike,
    *,
    key: jax.Array | None = None,
    preprocess: str | None = None,
    **sizes: Any,
) -> VGG:
    """What `vgg16` and its siblings return. sizes: `width` and `hidden`, of a smaller network."""
    namings = {f"vgg{d}": _namings(d) for d in DEPTHS}
    make = partial(VGG, depth, **sizes)
    return pretrained(make, f"vgg{depth}", namings, weights, key=key, preprocess=preprocess)


def vgg16(
    weights: str | PathLike = "timm/vgg16.tv_in1k",
    *,
    key: jax.Array | None = None,
    preprocess: imagenet.Name | None = None,
) -> VGG:
    """VGG-16 in inference mode.

    weights: a repository of Hugging Face (the default is torchvision's training), the path of a
    file of torch (.pth, .pt, .bin), Keras (.h5, .hdf5, .keras) or safetensors, or "random"
    (He-normal kernels drawn with `key`). preprocess: "torch", "caffe" or "tf", where it is another
    than that of the library whose names the file has.
    Raises FileNotFoundError for a missing file, and ValueError, with a list of what is wrong, for
    one that is damaged or does not fit.
    """
    return build(16, weights, key=key, preprocess=preprocess)


def vgg11(
    weights: str | PathLike = "timm/vgg11.tv_in1k",
    *,
    key: jax.Array | None = None,
    preprocess: imagenet.Name | None = None,
) -> VGG:
    """VGG-11; see `vgg16`."""
    return build(11, weights, key=key, preprocess=preprocess)


def vgg13(
    weights: str | PathLike = "timm/vgg13.tv_in1k",
    *,
    key: jax.Array | None = None,
    preprocess: imagenet.Name | None = None,
) -> VGG:
    """VGG-13; see `vgg16`."""
    return build(13, weights, key=key, preprocess=preprocess)


def vgg19(
    weights: str | PathLike = "timm/vgg19.tv_in1k",
    *,
    key: jax.Array | None = None,
    preprocess: imagenet.Name | None = None,
) -> VGG:
    """VGG-19; see `vgg16`."""
    return build(19, weights, key=key, preprocess=preprocess)
