"""Weights and images for the networks in `nets_resnet` and `nets_squeezenet`, as plain arrays.

Weights are a dictionary with torch's names and layouts ("layer1.0.conv1.weight", OIHW): of a
trained network where its file is found, or drawn at random for a small stand-in.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).parents[3] / "shared" / "assets"
FOLDER = Path(os.environ.get("LRPJAX_ASSETS", SHARED))
FIELDS = {  # of BatchNorm, in flax's names
    "weight": "scale",
    "bias": "bias",
    "running_mean": "mean",
    "running_var": "var",
}

Weights = dict[str, np.ndarray]


@dataclass(frozen=True)
class Port:
    """A network in one library.

    model: a function of a batch. first: whether its images are channels first.
    named: from torch's name of a layer to the name that lrpjax should give it.
    """

    model: Callable
    first: bool
    named: Callable[[str], str]


def asset(name: str) -> Path:
    """A file or folder of the assets; skips the test that asks where it is absent."""
    if not (FOLDER / name).exists():
        pytest.skip(f"{FOLDER / name} is absent: set LRPJAX_ASSETS to the folder of the assets")
    return FOLDER / name


def trained(name: str) -> Weights:
    with np.load(asset(f"weights/{name}.npz")) as arrays:
        return {key.replace("/", "."): value for key, value in arrays.items()}


def cifar10(chosen: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Of the first 100 test images those, as the ResNets take them (N, 32, 32, 3); labels."""
    with np.load(asset("cifar10_test_lossless_first100.npz")) as arrays:
        pixels, labels = (arrays[name][list(chosen)] for name in ("images", "labels"))
    return (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225], labels.astype(int)


def imagenet(chosen: Sequence[int], side: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the 100 photographs those, by name, as SqueezeNet takes them: their middle
    (N, side, side, 3) in Caffe's BGR; labels."""
    files = sorted(asset("imagenet_sample_100").glob("*.jpg"))
    edge = (256 - side) // 2
    middle = (edge, edge, edge + side, edge + side)
    open_ = lambda file: Image.open(file).convert("RGB").resize((256, 256)).crop(middle)
    pixels = np.stack([np.asarray(open_(files[i])) for i in chosen])[..., ::-1]
    return pixels - [104.0, 117.0, 123.0], np.array([int(files[i].name[:4]) for i in chosen])


def _kernel(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """(outputs, inputs, ...) of unit gain behind a ReLU."""
    return rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]) / 2)


def small_resnet() -> Weights:
    """6 and 10 channels, a block of each."""
    rng = np.random.default_rng(1)
    weights: Weights = {}

    def conv_and_norm(block: str, number: int, features: int, inputs: int) -> None:
        weights[f"{block}conv{number}.weight"] = _kernel(rng, features, inputs, 3, 3)
        norm = {
            "weight": rng.uniform(0.5, 1.5, features),
            "bias": rng.normal(size=features) / 4,
            "running_mean": rng.normal(size=features) / 4,
            "running_var": rng.uniform(0.5, 2, features),
        }
        weights.update({f"{block}bn{number}.{field}": value for field, value in norm.items()})

    conv_and_norm("", 1, 6, 3)
    for block, features, inputs in (("layer1.0", 6, 6), ("layer2.0", 10, 6)):
        conv_and_norm(f"{block}.", 1, features, inputs)
        conv_and_norm(f"{block}.", 2, features, features)
    weights["linear.weight"] = _kernel(rng, 5, 10)
    weights["linear.bias"] = rng.normal(size=5) / 4
    return weights


def small_squeezenet() -> Weights:
    """A single fire module, fire4, which has a max-pool behind it."""
    rng = np.random.default_rng(2)
    weights: Weights = {}

    def conv(name: str, *shape: int) -> None:
        weights[f"{name}.weight"] = _kernel(rng, *shape)
        weights[f"{name}.bias"] = rng.normal(size=shape[0]) / 4

    conv("conv1", 6, 3, 7, 7)
    conv("fire4.squeeze", 3, 6, 1, 1)
    conv("fire4.expand1x1", 4, 3, 1, 1)
    conv("fire4.expand3x3", 5, 3, 3, 3)
    conv("conv10", 5, 9, 1, 1)
    return weights


def layers_of(weights: Weights) -> list[str]:
    """The names of the convolutions and dense layers in the order in which they run."""
    return [k.removesuffix(".weight") for k, v in weights.items() if v.ndim > 1]


def in_flax(weights: Weights, dtype: str) -> dict[str, dict[str, np.ndarray]]:
    """By layer, in flax's names and layouts (HWIO; inputs before outputs)."""
    layers: dict[str, dict[str, np.ndarray]] = {}
    for key, value in weights.items():
        name, _, field = key.rpartition(".")
        if value.ndim > 1:
            field = "kernel"
            value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
        layers.setdefault(name, {})[FIELDS.get(field, field)] = value.astype(dtype)
    return layers


def by_hand(forward: Callable, weights: Weights, dtype: str) -> Port:
    """`forward(weights, x)` with torch's own arrays, channels first."""
    arrays = {name: jnp.asarray(value, dtype) for name, value in weights.items()}
    return Port(jax.tree_util.Partial(forward, arrays), True, lambda name: name)


def part(model: object, name: str) -> object:
    """The layer of that name: "layer1.0.conv1" is model.layer1[0].conv1."""

    def step(inside: object, key: str) -> object:
        if key.isdigit():
            return inside[int(key)]
        return inside[key] if isinstance(inside, dict) else getattr(inside, key)

    return reduce(step, name.split("."), model)
