"""Weight files of every format, as tensors by name that are read one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path

import numpy as np
from safetensors import safe_open

from .._base.reading import reading
from .._base.tensors import Tensor, check_names
from .keras_file import open_keras
from .torch_file import open_torch

WHAT = "weight file"


@dataclass(frozen=True)
class Checkpoint:
    """An open weight file. tensors: by the names that the file gives them. metadata: what a
    safetensors file says beside them."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)


@contextmanager
def open_checkpoint(path: str | PathLike) -> Iterator[Checkpoint]:
    """Opens a weight file; while it is open, its tensors can be read.

    The suffix says the format: .pth, .pt and .bin are torch's, .h5, .hdf5 and .keras are Keras',
    all others safetensors. Raises FileNotFoundError for a missing file, and ValueError for a
    damaged or refused one, when it is opened or when the damaged part is read.
    """
    with ExitStack() as stack:
        metadata: dict[str, str] = {}
        with reading(path, WHAT) as file:
            if file.suffix in (".pth", ".pt", ".bin"):
                tensors = stack.enter_context(open_torch(file))
            elif file.suffix in (".h5", ".hdf5", ".keras"):
                tensors = stack.enter_context(open_keras(file))
            else:
                opened = stack.enter_context(safe_open(file, "numpy"))
                tensors = {name: _of_slice(opened, name) for name in opened.keys()}  # noqa: SIM118
                metadata = opened.metadata() or {}
            check_names(tensors)
        told = {name: Tensor(t.shape, partial(_read, file, t)) for name, t in tensors.items()}
        yield Checkpoint(file, told, metadata)


def _of_slice(opened: safe_open, name: str) -> Tensor:
    return Tensor(tuple(opened.get_slice(name).get_shape()), partial(opened.get_tensor, name))


def _read(path: Path, tensor: Tensor) -> np.ndarray:
    with reading(path, WHAT):
        return tensor.read()
