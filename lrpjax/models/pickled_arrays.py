"""Numpy's arrays in pickles of every version of Python and numpy, as stand-ins that hold bytes."""

from __future__ import annotations

import re
from io import BytesIO
from math import prod
from typing import Any, Literal

import numpy as np

from .._base.npy import sound
from .._base.reading import Unreadable
from .pickled import Name, Standin, Table, unpickled

NUMBERS = re.compile(r"b1|[iu][1248]|f[248]")
ORDERS = {"|", "<", ">", "="}
PLAIN = (3, None, None, None, -1, -1, 0)  # the state of such a type, without the order


class _Type(Standin):
    """Stands for a numpy.dtype of numbers, whose state says the order of its bytes alone."""

    def __init__(self, code: Any, align: Any = False, copy: Any = True):
        code = _text(code)
        if not (_is_flag(align) and _is_flag(copy)) or not NUMBERS.fullmatch(code):
            raise Unreadable(f"an array in it is of the type {code}, which is no number")
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        if not _is_tuple(state, 8) or _text(state[1]) not in ORDERS:
            raise Unreadable("an array in it has a type that is no plain one")
        pairs = zip((state[0], *state[2:]), PLAIN, strict=True)
        if not all(type(found) is type(plain) and found == plain for found, plain in pairs):
            raise Unreadable("an array in it has a type that is no plain one")
        self.dtype = self.dtype.newbyteorder(_text(state[1]))


class _Array(Standin):
    """Stands for a numpy.ndarray: `values` once it was built, read-only."""

    values: np.ndarray | None = None

    def build(self, state: Any) -> None:
        if not _is_tuple(state, 5):
            raise Unreadable("an array in it has no shape, type and numbers")
        version, shape, kind, fortran, data = state
        if type(version) is not int or version != 1 or not _is_flag(fortran):
            raise Unreadable("an array in it has no shape, type and numbers")
        self.fill(data, kind, shape, "F" if fortran else "C")

    def fill(self, data: Any, kind: Any, shape: Any, order: Literal["C", "F"]) -> None:
        if not isinstance(kind, _Type) or type(data) is not bytes or type(shape) is not tuple:
            raise Unreadable("an array in it has no shape, type and numbers")
        if not all(type(size) is int and size >= 0 for size in shape) or len(shape) > 32:
            raise Unreadable("an array in it has a shape that is no list of sizes")
        if prod(shape) * kind.dtype.itemsize != len(data):
            raise Unreadable("an array in it has more or fewer numbers than its shape")
        found = np.reshape(sound(np.frombuffer(data, kind.dtype)), shape, order)
        self.values = found.astype(kind.dtype.newbyteorder("="), copy=False)


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    """An array of no numbers, as it is before its state is told."""
    if kind != Name("numpy.ndarray") or shape != (0,) or _text(code) != "b":
        raise Unreadable("an array in it is of a class of its own")
    return _Array()


def _from_buffer(data: Any, kind: Any, shape: Any, order: Any) -> _Array:
    if order not in ("C", "F"):
        raise Unreadable("an array in it has its numbers in an unknown order")
    found = _Array()
    found.fill(data, kind, shape, order)
    return found


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How Python 3 writes bytes for Python 2."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise Unreadable("bytes in it are encoded in an unknown way")
    return text.encode("latin-1")


def _no_bytes() -> bytes:
    """How Python 3 writes no bytes at all for Python 2."""
    return b""


def _is_flag(value: Any) -> bool:
    return type(value) in (bool, int) and value in (0, 1)


def _text(said: Any) -> str:
    if type(said) is bytes:
        return said.decode("latin-1")
    return said if type(said) is str else ""


def _is_tuple(value: Any, length: int) -> bool:
    return type(value) is tuple and len(value) == length


CORES = ("numpy.core", "numpy._core")  # before numpy 2, and since
TABLE: Table = {
    "numpy.ndarray": None,
    "numpy.dtype": _Type,
    "_codecs.encode": _encode,
    "__builtin__.bytes": _no_bytes,
    **{f"{core}.multiarray._reconstruct": _reconstruct for core in CORES},
    **{f"{core}.numeric._frombuffer": _from_buffer for core in CORES},
}


def read_arrays(stream: BytesIO) -> dict[str, Any]:
    """The dictionary of a pickle, with its arrays; texts of Python 2 are bytes, but for the keys.

    Raises Unreadable for a pickle of anything else.
    """
    found = unpickled(stream, TABLE, only="a dictionary of arrays", text=bytes)
    if type(found) is not dict:
        raise Unreadable(f"it holds a {type(found).__name__}, and no arrays by name")
    return {
        _text(key): value.values if isinstance(value, _Array) else value
        for key, value in found.items()
    }
