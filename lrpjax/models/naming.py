"""Under which names, and in which layouts, files of other libraries hold a network's parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

Shape = tuple[int, ...]
TORCH = {
    "kernel": "weight",
    "bias": "bias",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
KERAS_NORM = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}


@dataclass(frozen=True)
class Stored:
    """How a file holds a parameter: under which name, in which shape, and what makes it ours."""

    name: str
    shape: Shape
    to_own: Callable[[np.ndarray], np.ndarray] = lambda values: values


@dataclass(frozen=True)
class Naming:
    """How one library's files hold one network.

    layers: from our layers to theirs, in order. store(layer, leaf, shape): how their `layer` holds
    the parameter that we call `leaf` ("kernel", "bias", "scale", "mean", "var").
    settings: the arguments that make the network as that library builds it.
    ignored: the ends of names that are no parameters.
    """

    layers: Mapping[str, str]
    store: Callable[[str, str, Shape], Stored]
    settings: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    def stored(self, layer: str, leaf: str, shape: Shape) -> Stored:
        return self.store(self.layers[layer], leaf, shape)

    def known(self, names: Iterable[str]) -> set[str]:
        """Their layers among the names of a file's tensors."""
        return layers_in(names) & set(self.layers.values())

    def fits(self, names: Iterable[str]) -> bool:
        """Whether a file with these names holds exactly these layers."""
        return layers_in(names) == set(self.layers.values())

    def outputs(self, shapes: Mapping[str, Shape]) -> int:
        """The number of outputs, from the last layer's bias in a file; 1000 if it has none."""
        last = list(self.layers)[-1]
        shape = shapes.get(self.stored(last, "bias", ()).name, ())
        return shape[0] if len(shape) == 1 else 1000


def layers_in(names: Iterable[str]) -> set[str]:
    return {name[: max(name.rfind("."), name.rfind("/"))] for name in names}


def own(layer: str, leaf: str, shape: Shape) -> Stored:
    return Stored(f"{layer}.{leaf}" if layer else leaf, shape)


def torch(layer: str, leaf: str, shape: Shape) -> Stored:
    """Kernels (outputs, inputs, height, width), those of dense layers (outputs, inputs)."""
    name = f"{layer}.{TORCH[leaf]}"
    if leaf != "kernel":
        return Stored(name, shape)
    *window, inputs, outputs = shape
    return Stored(name, (outputs, inputs, *window), _channels_last)


def keras(layer: str, leaf: str, shape: Shape) -> Stored:
    """Layouts as ours; a layer is a BatchNorm where its name says so."""
    names = KERAS_NORM if re.search(r"(^|_)bn", layer) else {}
    return Stored(f"{layer}/{names.get(leaf, leaf)}", shape)


def _channels_last(kernel: np.ndarray) -> np.ndarray:
    """(outputs, inputs, ...) to (..., inputs, outputs)."""
    return np.moveaxis(kernel, (1, 0), (-2, -1))
