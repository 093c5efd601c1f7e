"""Keras' weight files: HDF5 in the layouts of Keras 1 to 3, and the .keras archive."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .._base.reading import Unreadable
from .._base.tensors import Tensor

# Keras orders a layer's weights and calls them differently from version to version ("W_1:0",
# "running_std"): a layer is known by its number of weights, as Keras itself takes them.
ROLES = {
    1: ("kernel",),
    2: ("kernel", "bias"),
    4: ("gamma", "beta", "moving_mean", "moving_variance"),
}


@contextmanager
def open_keras(path: Path) -> Iterator[dict[str, Tensor]]:
    """The tensors of a Keras file, named "layer/kernel", "layer/beta" and so on.

    Raises Unreadable for a damaged file or another layout, ImportError where h5py is missing.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f'The weight file {str(path)!r} is read with h5py: pip install "lrpjax[hdf5]".'
        ) from error
    with ExitStack() as stack:
        try:
            file = stack.enter_context(h5py.File(_hdf5(path), "r"))
            tensors = _tensors(file)
        except Exception as error:  # what h5py raises depends on which part is damaged
            raise Unreadable(f"{type(error).__name__}: {error}") from error
        if not tensors:
            raise Unreadable("it names no layers with weights")
        yield tensors


def _hdf5(path: Path) -> Any:
    if path.suffix != ".keras":
        return path
    with zipfile.ZipFile(path) as archive:
        return io.BytesIO(archive.read("model.weights.h5"))


def _tensors(file: Any) -> dict[str, Tensor]:
    tensors = {}
    for layer, weights in _by_layer(file.get("model_weights", file)):
        roles = ROLES.get(len(weights), tuple(map(str, range(len(weights)))))
        for role, weight in zip(roles, weights, strict=True):
            tensors[f"{layer}/{role}"] = Tensor(weight.shape, partial(_read, weight))
    return tensors


def _read(weight: Any) -> np.ndarray:
    try:
        return weight[()]
    except OSError as error:
        raise Unreadable(str(error)) from error


def _by_layer(root: Any) -> list[tuple[str, list[Any]]]:
    """The layers and the weights of each, in Keras' order."""
    if "layer_names" in root.attrs:  # Keras 1 and 2, and model.save("x.h5") of Keras 3
        names = map(_text, root.attrs["layer_names"])
        groups = [(name, root[name]) for name in names]
        return [(name, [g[_text(w)] for w in g.attrs["weight_names"]]) for name, g in groups]
    found: list[tuple[str, list[Any]]] = []

    def visit(path: str, group: Any) -> None:
        if path.endswith("vars") and "name" in group.attrs:
            weights = [group[number] for number in sorted(group, key=int)]
            found.append((_text(group.attrs["name"]), weights))

    if "layers" in root:  # model.save_weights of Keras 3
        root["layers"].visititems(visit)
    return found


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
