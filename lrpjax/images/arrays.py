"""Arrays of examples: `.npz` holds many, `.npy` one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

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
    array = _read(file)
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
    try:
        read = np.load(file, allow_pickle=False)
        if isinstance(read, np.ndarray):
            return read[None]
        with read as arrays:
            names = list(arrays)
            found = arrays[_chosen(names)]
    except Exception as error:  # of whatever kind a damaged file makes numpy raise
        raise ValueError(str(error) or type(error).__name__) from error
    if found.ndim < 2:
        raise ValueError(f"examples (N, ...) are needed, and it holds an array {found.shape}")
    return found


def _chosen(names: list[str]) -> str:
    if "images" not in names and len(names) != 1:
        listed = ", ".join(names[:10]) or "none"
        raise ValueError(f"it needs an array `images`, or a single one, and has {listed}")
    return "images" if "images" in names else names[0]
