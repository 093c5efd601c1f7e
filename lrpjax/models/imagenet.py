"""ImageNet: the names of its 1000 classes, and how images become the networks' input."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

Triple = tuple[float, float, float]
Name = Literal["torch", "caffe", "tf"]


@cache
def class_names() -> tuple[str, ...]:
    """The classes of ILSVRC 2012 in the order of the outputs: 0 is tench, 999 toilet tissue."""
    file = resources.files(__package__) / "assets" / "imagenet_classes.txt"
    return tuple(file.read_text(encoding="utf-8").splitlines())


@dataclass(frozen=True)
class Preprocessing:
    """uint8 RGB images (N, H, W, 3) to the float32 input of the same shape that a network takes.

    mean, std: of each channel of that input, in grey levels from 0 to 255. bgr: whether its
    channels are blue, green, red.
    """

    name: str
    mean: Triple
    std: Triple
    bgr: bool = False

    def __call__(self, images: jax.Array) -> jax.Array:
        x = jnp.asarray(images, jnp.float32)
        x = x[..., ::-1] if self.bgr else x
        return (x - jnp.array(self.mean, jnp.float32)) / jnp.array(self.std, jnp.float32)

    @property
    def input_range(self) -> tuple[Triple, Triple]:
        """The smallest and the largest value of each channel of the input."""
        return self._of(0), self._of(255)

    def _of(self, level: float) -> Triple:
        red, green, blue = ((level - m) / s for m, s in zip(self.mean, self.std, strict=True))
        return red, green, blue


PREPROCESSING: dict[str, Preprocessing] = {
    "torch": Preprocessing(
        "torch",
        mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
        std=(0.229 * 255, 0.224 * 255, 0.225 * 255),
    ),
    "caffe": Preprocessing("caffe", mean=(103.939, 116.779, 123.68), std=(1, 1, 1), bgr=True),
    "tf": Preprocessing("tf", mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5)),
}


class Network(nnx.Module):
    """A network of ImageNet: what it says of its inputs and outputs."""

    image_size = (224, 224)
    outputs: int
    preprocess: Preprocessing

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of ImageNet's classes; none for a network with other outputs."""
        return class_names() if self.outputs == len(class_names()) else ()

    @property
    def input_range(self) -> tuple[Triple, Triple]:
        """The smallest and the largest value of each channel behind the preprocessing."""
        return self.preprocess.input_range


def preprocessing(name: str) -> Preprocessing:
    """The preprocessing of that name; ValueError with the choices for another."""
    if name not in PREPROCESSING:
        raise ValueError(f"preprocess is {' or '.join(map(repr, PREPROCESSING))}, got {name!r}.")
    return PREPROCESSING[name]
