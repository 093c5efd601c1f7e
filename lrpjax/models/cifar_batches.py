"""The batch files of CIFAR-10's python archive: in a tar, packed by gzip or not, or in a folder.

https://www.cs.toronto.edu/~kriz/cifar.html says what is in a batch.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .._base.reading import Unreadable, reading
from .pickled_arrays import read_arrays

PIXELS = 3 * 32 * 32
BATCH = 64 * 2**20  # bytes at most; the archive's have 31 million
UNPACKED = 512 * 2**20  # of the whole archive, which has 186 million
MEMBERS = 1000  # files in it; the archive has eight
BLOCK = tarfile.BLOCKSIZE
NAMES = {True: re.compile(r"data_batch_\d+"), False: re.compile("test_batch")}


def batch_files(folder: Path) -> list[Path]:
    """The batch files, of training and test, in an unpacked archive."""
    return [f for f in folder.iterdir() if any(n.fullmatch(f.name) for n in NAMES.values())]


def read_folder(folder: Path, *, train: bool, what: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images (N, 32, 32, 3) and their labels (N,) from an unpacked archive."""
    batches = {}
    for file in batch_files(folder):
        if NAMES[train].fullmatch(file.name):
            with reading(file, what):
                if file.stat().st_size > BATCH:
                    raise Unreadable("it is too long")
                batches[file.name] = _batch(file.read_bytes())
    if not batches:
        raise ValueError(
            f"The folder {str(folder)!r} holds no {'training' if train else 'test'} batch of "
            "CIFAR-10: unpack the whole archive."
        )
    return _joined(batches)


def read_archive(file: Path, *, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """As `read_folder`, from the archive."""
    batches: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for path, content in _members(file, NAMES[train]):
        name = path.rpartition("/")[2]
        if name in batches:
            raise Unreadable(f"it holds {name} twice")
        batches[name] = _batch(content)
    if not batches:
        raise Unreadable("it holds no CIFAR-10 batch file")
    return _joined(batches)


def _joined(batches: dict[str, tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*(batches[name] for name in sorted(batches)), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _batch(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    batch = read_arrays(io.BytesIO(content))
    data, labels = batch.get("data"), _labels(batch.get("labels"))
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (PIXELS,):
        raise Unreadable(f"a batch in it has no uint8 data (N, {PIXELS})")
    if labels is None or labels.shape != data.shape[:1]:
        raise Unreadable("a batch in it has no list of labels, one for each image")
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def _labels(found: Any) -> np.ndarray | None:
    if isinstance(found, list) and all(type(label) is int for label in found):
        return np.array(found, np.int64)
    return found if isinstance(found, np.ndarray) else None


def _members(file: Path, name: re.Pattern) -> Iterator[tuple[str, bytes]]:
    """The files of a tar of that name, read from its beginning to its end: what is of no use is
    passed over, and nothing in it can send the reader elsewhere."""
    with file.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream: Any = gzip.GzipFile(fileobj=raw) if packed else raw
        left = UNPACKED
        for _ in range(MEMBERS):
            header = stream.read(BLOCK)
            if header == bytes(BLOCK):
                return
            member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            padded = -(-member.size // BLOCK) * BLOCK
            left -= BLOCK + padded
            if member.size < 0 or left < 0:
                raise Unreadable(f"it unpacks to more than {UNPACKED >> 20} MiB")
            if member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and name.fullmatch(
                member.name.rpartition("/")[2]
            ):
                if member.size > BATCH:
                    raise Unreadable(f"{member.name} in it is too long")
                yield member.name, _exactly(stream, padded)[: member.size]
            else:
                for start in range(0, padded, 2**20):
                    _exactly(stream, min(2**20, padded - start))
        raise Unreadable(f"it holds more than {MEMBERS:,} files")


def _exactly(stream: BinaryIO, size: int) -> bytes:
    found = stream.read(size)
    if len(found) != size:
        raise Unreadable("its end is missing")
    return found
