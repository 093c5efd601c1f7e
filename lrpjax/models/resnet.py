"""ResNet: He et al. 2016, with 18, 34, 50 or 101 layers and their ImageNet weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any

import jax
from flax import nnx

from . import imagenet, naming
from .naming import Naming
from .pretrained import pretrained

DEPTHS = {  # the blocks of stages 2 to 5; their convolutions
    18: ((2, 2, 2, 2), "ab"),
    34: ((3, 4, 6, 3), "ab"),
    50: ((3, 4, 6, 3), "abc"),
    101: ((3, 4, 23, 3), "abc"),
}
INJECTED = (
    "dense", "block5_1:relu", "block4_2:relu", "block3_4:relu", "block3_2:relu", "block2_2:relu",
)  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """What the libraries build differently, and their weights depend on.

    strided: which convolution of a block of three halves the sides. bias: whether convolutions have
    biases. epsilon: what BatchNorm adds to the variance.
    """

    strided: str
    bias: bool
    epsilon: float


VARIANTS = {
    "torch": Variant(strided="b", bias=False, epsilon=1e-5),
    "keras": Variant(strided="a", bias=True, epsilon=1.001e-5),
    # keras-applications before Keras 2.3, whose layers are called res2a_branch2a.
    "keras-1.0": Variant(strided="a", bias=True, epsilon=1e-3),
}


class ResNet(imagenet.Network):
    """Preprocessed images (N, H, W, 3) to logits (N, outputs).

    conv1 (7x7, stride 2), bn1, maxpool (3x3, stride 2), stages 2 to 5 of blocks, avgpool over the
    image, dense. Block j of stage i: convolutions conv{i}_{j}a, b (and c, from 50 layers on), each
    with a BatchNorm bn{i}_{j}a, ...; its input is added (block{i}_{j}), in the first of a stage
    through the projection conv{i}_skip, bn{i}_skip where the shape changes; ReLU.

    width: features of conv1. variant: "torch", "keras" or "keras-1.0" (see `Variant`).
    preprocess: "torch", "caffe" or "tf" (see `imagenet.PREPROCESSING`).
    """

    def __init__(
        self,
        depth: int,
        *,
        outputs: int = 1000,
        width: int = 64,
        variant: str = "torch",
        preprocess: str = "torch",
        rngs: nnx.Rngs,
    ):
        for option, value, known in (("depth", depth, DEPTHS), ("variant", variant, VARIANTS)):
            if value not in known:
                choices = ", ".join(map(str, known))
                raise ValueError(f"The {option} of a ResNet is one of {choices}, got {value!r}.")
        self.depth, self.variant, self.outputs = depth, variant, outputs
        self.preprocess = imagenet.preprocessing(preprocess)
        self._add("1", 3, width, size=7, stride=2, rngs=rngs)
        letters, channels = DEPTHS[depth][1], width
        strided = VARIANTS[variant].strided if letters == "abc" else "a"
        for stage, block in _blocks(depth):
            inner = width * 2 ** (stage - 2)
            features = 4 * inner if letters == "abc" else inner
            stride = 2 if block == 1 and stage > 2 else 1
            if block == 1 and _projects(depth, stage):
                self._add(f"{stage}_skip", channels, features, size=1, stride=stride, rngs=rngs)
            for letter in letters:
                self._add(
                    f"{stage}_{block}{letter}",
                    channels if letter == "a" else inner,
                    features if letter == letters[-1] else inner,
                    size=3 if letter == "b" or letters == "ab" else 1,
                    stride=stride if letter == strided else 1,
                    rngs=rngs,
                )
            channels = features
        self.dense = nnx.Linear(channels, outputs, rngs=rngs)

    def _add(
        self, name: str, inputs: int, outputs: int, *, size: int, stride: int, rngs: nnx.Rngs
    ) -> None:
        variant, padding = VARIANTS[self.variant], (size // 2, size // 2)
        conv = nnx.Conv(
            inputs,
            outputs,
            (size, size),
            strides=stride,
            padding=(padding, padding),
            use_bias=variant.bias,
            rngs=rngs,
        )
        setattr(self, f"conv{name}", conv)
        setattr(self, f"bn{name}", nnx.BatchNorm(outputs, epsilon=variant.epsilon, rngs=rngs))

    def _normed(self, name: str, x: jax.Array) -> jax.Array:
        return getattr(self, f"bn{name}")(getattr(self, f"conv{name}")(x))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self._normed("1", x))
        with jax.named_scope("maxpool"):
            x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        letters = DEPTHS[self.depth][1]
        for stage, block in _blocks(self.depth):
            y = self._normed(f"{stage}_{block}a", x)
            for letter in letters[1:]:
                y = self._normed(f"{stage}_{block}{letter}", nnx.relu(y))
            if block == 1 and _projects(self.depth, stage):
                x = self._normed(f"{stage}_skip", x)
            with jax.named_scope(f"block{stage}_{block}"):
                x = x + y
            x = nnx.relu(x)
        with jax.named_scope("avgpool"):
            x = x.mean((1, 2))
        return self.dense(x)

    @property
    def injection_layers(self) -> tuple[str, ...]:
        """Where the paper injects relevance into ResNet-50, as far as this network has the
        layers."""
        blocks = {f"block{stage}_{block}:relu" for stage, block in _blocks(self.depth)}
        return tuple(name for name in INJECTED if name in {"dense", *blocks})

    @property
    def settings(self) -> dict[str, str]:
        """What a weight file must record beside the parameters."""
        return {"variant": self.variant, "preprocess": self.preprocess.name}


def _blocks(depth: int) -> Iterator[tuple[int, int]]:
    """The blocks as (stage, block), from (2, 1) on."""
    for stage, count in enumerate(DEPTHS[depth][0], 2):
        for block in range(1, count + 1):
            yield stage, block


def _projects(depth: int, stage: int) -> bool:
    """Whether the shape changes in the first block of a stage."""
    return stage > 2 or DEPTHS[depth][1] == "abc"


Unit = Callable[[int, int, int], str]  # (stage, block, k) to a layer's name


def _layers(depth: int, conv1: str, bn1: str, conv: Unit, norm: Unit, dense: str) -> dict[str, str]:
    """From our layers to a library's. k is 1, 2, 3 for the convolutions of a block, 0 for the
    projection."""
    layers = {"conv1": conv1, "bn1": bn1}
    for stage, block in _blocks(depth):
        names = {k: f"{stage}_{block}{x}" for k, x in enumerate(DEPTHS[depth][1], 1)}
        if block == 1 and _projects(depth, stage):
            names[0] = f"{stage}_skip"
        for k, name in names.items():
            layers[f"conv{name}"] = conv(stage, block, k)
            layers[f"bn{name}"] = norm(stage, block, k)
    return layers | {"dense": dense}


def _namings(depth: int) -> tuple[Naming, ...]:
    torch = _layers(
        depth,
        "conv1",
        "bn1",
        lambda s, b, k: f"layer{s - 1}.{b - 1}.{f'conv{k}' if k else 'downsample.0'}",
        lambda s, b, k: f"layer{s - 1}.{b - 1}.{f'bn{k}' if k else 'downsample.1'}",
        "fc",
    )
    keras = _layers(
        depth,
        "conv1_conv",
        "conv1_bn",
        lambda s, b, k: f"conv{s}_block{b}_{k}_conv",
        lambda s, b, k: f"conv{s}_block{b}_{k}_bn",
        "predictions",
    )
    branch = lambda s, b, k: f"{s}{chr(ord('a') + b - 1)}_branch{('1', '2a', '2b', '2c')[k]}"
    keras_1 = _layers(
        depth,
        "conv1",
        "bn_conv1",
        lambda *unit: f"res{branch(*unit)}",
        lambda *unit: f"bn{branch(*unit)}",
        "fc1000",
    )
    in_torch = {"variant": "torch", "preprocess": "torch"}
    in_keras = {"variant": "keras", "preprocess": "caffe"}
    return (
        Naming(torch, naming.torch, in_torch, ignored=("num_batches_tracked",)),
        Naming(keras, naming.keras, in_keras),
        Naming(keras | {"dense": "probs"}, naming.keras, in_keras),  # keras-applications 1.0
        Naming(keras_1, naming.keras, in_keras | {"variant": "keras-1.0"}),
        Naming({layer: layer for layer in torch}, naming.own, in_torch),
    )


def build(
    depth: int,
    weights: str | PathLike,
    *,
    key: jax.Array | None = None,
    preprocess: str | None = None,
    **sizes: Any,
) -> ResNet:
    """What `resnet50` and its siblings return. sizes: `width`, of a smaller network."""
    namings = {f"resnet{d}": _namings(d) for d in DEPTHS}
    make = partial(ResNet, depth, **sizes)
    return pretrained(make, f"resnet{depth}", namings, weights, key=key, preprocess=preprocess)


def resnet50(
    weights: str | PathLike = "timm/resnet50.tv_in1k",
    *,
    key: jax.Array | None = None,
    preprocess: imagenet.Name | None = None,
) -> ResNet:
    """ResNet-50 in inference mode.

    weights: a repository of Hugging Face (the default is torchvision's training), the path of a
    file of torch (.pth, .pt, .bin), Keras (.h5, .hdf5, .keras) or safetensors, or "random"
    (He-normal kernels drawn with `key`). preprocess: "torch", "caffe" or "tf", where it is another
    than that of the library whose names the file has. A file with Keras' names makes Keras'
    variant of the network.
    Raises FileNotFoundError for a missing file, and ValueError, with a list of what is wrong, for
    one that is damaged or does not fit.
    """
    return build(50, weights, key=key, preprocess=preprocess)


def resnet18(
    weights: str | PathLike = "timm/resnet18.tv_in1k",
    *,
    key: jax.Array | None = None,
    preprocess: imagenet.Name | None = None,
) -> ResNet:
    """ResNet-18; see `resnet50`."""
    return build(18, weights, key=key, preprocess=preprocess)


def resnet34(
    weights: str | PathLike = "timm/resnet34.tv_in1k",
    *,
    key: jax.Array | None = None,
    preprocess: imagenet.Name | None = None,
) -> ResNet:
    """ResNet-34; see `resnet50`."""
    return build(34, weights, key=key, preprocess=preprocess)


def resnet101(
    weights: str | PathLike = "timm/resnet101.tv_in1k",
    *,
    key: jax.Array | None = None,
    preprocess: imagenet.Name | None = None,
) -> ResNet:
    """ResNet-101; see `resnet50`."""
    return build(101, weights, key=key, preprocess=preprocess)
