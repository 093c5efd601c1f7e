"""Arrays of examples: `.npz` holds many, `.npy` one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .._base.npy import open_npz, read_npy
from .._base.reading import Unreadable, reason
from .levels import Range, as_levels, limits_of

SUFFIXES = (".npz", ".npy")


def read_arrays(file: Path, given: Range | None, *, raw_floats: bool) -> tuple[np.ndarray, bool]:
    """The examples (N, ...) of a file, and whether they are levels from 0 to 255: uint8 as they
    are, float32 of other types.

    An .npz has `images`, or one array; an .npy is one example. given: black and white of floats,
    and of integers of more than 8 bits in place of their type's range. raw_floats: floats without a
    given range are what a model takes, and left as they are.
    Raises ValueError, with the reason and without the file's name.
    """
    try:
        array = _read(file)
    except Exception as error:  # of whatever kind a damaged file brings about
        raise ValueError(reason(error)) from error
    if array.dtype == np.uint8:
        return array, True
    limits = limits_of(array.dtype)
    if limits is None and not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"it holds {array.dtype} where floats or integers are needed")
    if limits is None and given is None and raw_floats:
        if not np.isfinite(array).all():
            raise ValueError("there is NaN or infinity in it")
        return array, False
    return as_levels(array, limits, given), True


def _read(file: Path) -> np.ndarray:
    if file.suffix.lower() == ".npy":
        return read_npy(file.read_bytes())[None]
    with open_npz(file) as arrays:
        if "images" not in arrays and len(arrays) != 1:
            listed = ", ".join(list(arrays)[:10]) or "none"
            raise Unreadable(f"it needs an array `images`, or a single one, and has {listed}")
        found = arrays.get("images") or next(iter(arrays.values()))
        if len(found.shape) < 2:
            raise Unreadable(f"examples (N, ...) are needed, and it holds an array {found.shape}")
        return found.read()
