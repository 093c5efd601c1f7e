"""Arrays in numpy's own files, .npy and .npz, read without pickle and without evaluating anything.

The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from os import PathLike
from typing import NamedTuple

import numpy as np

from .reading import Unreadable
from .zips import Archive

MAGIC = b"\x93NUMPY"
LENGTHS = {(1, 0): 2, (2, 0): 4, (3, 0): 4}  # bytes of a header's length, by version
LONGEST = 2**16  # of a header, in bytes
MOST = 1000  # arrays in a file
NUMBERS = r"b1|[iu][1248]|f[248]|c8|c16"
SIZE = r"\s*\d{1,19}L?\s*"  # Python 2 wrote 3L
HEADER = re.compile(
    rf"\{{\s*'descr'\s*:\s*'([<>|=]?(?:{NUMBERS}|[SU][1-9]\d{{0,4}}))'\s*,"
    r"\s*'fortran_order'\s*:\s*(True|False)\s*,"
    rf"\s*'shape'\s*:\s*\(((?:{SIZE},)*(?:{SIZE})?)\s*\)\s*,?\s*\}}\s*",
    re.ASCII,
)


class _Header(NamedTuple):
    dtype: np.dtype
    fortran: bool
    shape: tuple[int, ...]
    start: int  # of the numbers, in bytes

    @property
    def bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Array:
    """An array in an open file: what it is, and the function that reads it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


@contextmanager
def open_npz(path: str | PathLike) -> Iterator[dict[str, Array]]:
    """The arrays of an .npz by name; while it is open they can be read, one at a time.

    Nothing is unpacked that is not asked for, and of that no more than the shape says. Raises
    Unreadable and what zipfile raises: it belongs into `reading`.
    """
    with open(path, "rb") as stream:
        archive = Archive(stream)
        arrays = {}
        if len(archive.entries) > MOST:
            raise Unreadable(f"it holds more than {MOST:,} arrays")
        for entry, info in archive.entries.items():
            header, name = _header(archive.beginning(entry, LONGEST)), entry.removesuffix(".npy")
            if header.start + header.bytes != info.file_size:
                raise Unreadable(f"the array {name} is not of the size it should be")
            whole = partial(_of_entry, archive, entry)
            arrays[name] = Array(header.shape, header.dtype, whole)
        yield arrays


def _of_entry(archive: Archive, name: str) -> np.ndarray:
    return read_npy(archive.read(name))


def read_npy(data: bytes) -> np.ndarray:
    """The array that an .npy file holds, read-only, in the machine's order of bytes.

    Numbers, booleans and texts of fixed length; Unreadable for all else.
    """
    header = _header(data)
    if header.start + header.bytes != len(data):
        raise Unreadable("its numbers are more or fewer than its shape says")
    found = np.frombuffer(data, header.dtype, offset=header.start)
    found = sound(found).reshape(header.shape, order="F" if header.fortran else "C")
    return found.astype(header.dtype.newbyteorder("="), copy=False)


def sound(values: np.ndarray) -> np.ndarray:
    """Bytes from outside as values of their type: a boolean is 0 or 1, a text has characters."""
    if values.dtype.kind == "b":
        return values.view(np.uint8) != 0
    if values.dtype.kind == "U":
        codes = values.view(values.dtype.str[0] + "u4")
        if codes.size and codes.max() > 0x10FFFF:
            raise Unreadable("a text in it is damaged")
    return values


def _header(data: bytes) -> _Header:
    version = (*data[6:8],)
    if data[:6] != MAGIC or version not in LENGTHS:
        raise Unreadable("it does not begin as numpy's files do")
    width = LENGTHS[version]
    start = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    if start > min(len(data), LONGEST):
        raise Unreadable("its header is too long")
    told = HEADER.fullmatch(data[8 + width : start].decode("latin-1"))
    if told is None:
        raise Unreadable("its header tells of no array of numbers")
    sizes = [int(size.strip().rstrip("L")) for size in told[3].split(",") if size.strip()]
    if len(sizes) > 32:
        raise Unreadable("its array has more than 32 axes")
    return _Header(np.dtype(told[1]), told[2] == "True", tuple(sizes), start)
