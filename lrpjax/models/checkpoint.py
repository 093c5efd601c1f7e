"""Weight files of every format, as tensors by name that are read one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path

from safetensors import SafetensorError, safe_open

from .._base.reading import Unreadable
from .._base.tensors import Tensor
from .keras_file import open_keras
from .torch_file import open_torch


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
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no weight file {str(path)!r}: check the path.")
    try:
        if path.suffix in (".pth", ".pt", ".bin"):
            with open_torch(path) as tensors:
                yield Checkpoint(path, tensors)
        elif path.suffix in (".h5", ".hdf5", ".keras"):
            with open_keras(path) as tensors:
                yield Checkpoint(path, tensors)
        else:
            with _open_safetensors(path) as (tensors, metadata):
                yield Checkpoint(path, tensors, metadata)
    except Unreadable as error:
        raise ValueError(
            f"The weight file {str(path)!r} is damaged or not what its suffix says ({error}): "
            "fetch or write it again."
        ) from error


@contextmanager
def _open_safetensors(path: Path) -> Iterator[tuple[dict[str, Tensor], dict[str, str]]]:
    try:
        file = safe_open(path, "numpy")
    except SafetensorError as error:
        raise Unreadable(f"not in safetensors format: {error}") from error
    with file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        tensors = {
            name: Tensor(shape, partial(file.get_tensor, name)) for name, shape in shapes.items()
        }
        yield tensors, file.metadata() or {}
