"""Keras' weight files: HDF5 in the layouts of Keras 1 to 3, and the .keras archive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .._base.reading import Unreadable
from .._base.tensors import Tensor
from .hdf5 import open_hdf5

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
    with open_hdf5(path) as layers:
        tensors = {}
        for layer, weights in layers:
            roles = ROLES.get(len(weights), tuple(map(str, range(len(weights)))))
            for role, weight in zip(roles, weights, strict=True):
                tensors[f"{layer}/{role}"] = weight
        if not tensors:
            raise Unreadable("it names no layers with weights")
        yield tensors
