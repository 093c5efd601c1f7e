"""Torch's .pth files, read without running the code that a pickle can hold.

A torch file is a pickle whose tensors refer to blocks of numbers ("storages") beside it: in a zip
archive, or behind the pickle in files from before torch 1.6.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

from .._base.npy import sound
from .._base.reading import Unreadable
from .._base.tensors import Tensor
from .._base.zips import Archive
from .pickled import Name, Ordered, Table, unpickled

STORAGES = {
    "torch.BFloat16Storage": jnp.bfloat16,
    "torch.BoolStorage": np.bool_,
    "torch.ByteStorage": np.uint8,
    "torch.CharStorage": np.int8,
    "torch.DoubleStorage": np.float64,
    "torch.FloatStorage": np.float32,
    "torch.HalfStorage": np.float16,
    "torch.IntStorage": np.int32,
    "torch.LongStorage": np.int64,
    "torch.ShortStorage": np.int16,
}
DTYPES = (
    "bfloat16 bool double float float16 float32 float64 half int int16 int32 int64 int8 long "
    "short uint8"
)
MAGIC = 0x1950A86A20F9469CFC6C  # the first number in a file from before torch 1.6
VERSION = 1001
KNOWN = {b"%d" % version for version in range(1, 11)}  # of the archives since
PICKLE = 64 * 2**20  # bytes at most of what tells of the tensors
# A tensor may be every eighth number of its storage; beyond that, and these bytes, reading it takes
# memory that no model asked for.
APART, ALLOWED = 8, 16 * 2**20


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    size: int  # in numbers

    @property
    def bytes(self) -> int:
        return self.size * self.dtype.itemsize


Data = Callable[[_Storage, int, int], bytes]  # reads the bytes from one place to another


class _View(NamedTuple):
    """A tensor: numbers of a storage from `offset` on, `strides` apart along each axis."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def reach(self) -> int:
        """How many numbers of the storage lie from its first to its last, both included."""
        if 0 in self.shape:
            return 0
        steps = zip(self.shape, self.strides, strict=True)
        return 1 + sum((size - 1) * stride for size, stride in steps)

    def read(self, data: Data) -> np.ndarray:
        dtype, width = self.storage.dtype, self.storage.dtype.itemsize
        found = data(self.storage, self.offset * width, (self.offset + self.reach) * width)
        if len(found) != self.reach * width:
            raise Unreadable("its end is missing")
        numbers = sound(np.frombuffer(found, dtype))
        # numpy checks by itself that the view stays within these numbers
        return np.ndarray(self.shape, dtype, numbers, 0, [width * step for step in self.strides])


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, gradient: Any, hooks: Any, more: Any = None
) -> _View:
    """Stands for torch._utils._rebuild_tensor_v2."""
    if type(gradient) is not bool:
        raise Unreadable("a tensor in it does not say whether it has a gradient")
    if not isinstance(storage, _Storage) or type(shape) is not tuple or type(strides) is not tuple:
        raise Unreadable("a tensor in it has no storage, or no sizes")
    if len(shape) != len(strides) or len(shape) > 32:
        raise Unreadable("a tensor in it has no stride for each axis, or more than 32")
    if not all(type(number) is int and number >= 0 for number in (offset, *shape, *strides)):
        raise Unreadable("a tensor in it has a shape that is no list of sizes")
    view = _View(storage, offset, shape, strides)
    if offset + view.reach > storage.size:
        raise Unreadable("a tensor in it reaches beyond its storage")
    if prod(shape) > storage.size:
        raise Unreadable("a tensor in it has more numbers than its storage")
    if (view.reach - APART * prod(shape)) * storage.dtype.itemsize > ALLOWED:
        raise Unreadable("a tensor in it has numbers that lie too far apart")
    return view


def _parameter(tensor: Any, gradient: Any, hooks: Any) -> Any:
    """Stands for torch._utils._rebuild_parameter."""
    return tensor


TABLE: Table = {
    "collections.OrderedDict": Ordered,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    **dict.fromkeys(STORAGES),
    **dict.fromkeys(f"torch.{name}" for name in DTYPES.split()),
}


def _load(stream: io.BytesIO) -> tuple[Any, dict[str, _Storage]]:
    """What the next pickle of a stream holds, and the storages that its tensors refer to."""
    storages: dict[str, _Storage] = {}

    def refer(reference: Any) -> _Storage:
        match reference:
            case ("storage", Name(name), str(key), _, int(size), *views) if name in STORAGES:
                found = _Storage(key, np.dtype(STORAGES[name]), size)
            case _:
                raise Unreadable("a tensor in it has a storage of an unknown kind")
        if views not in ([], [None]):  # views of storages, which torch 0.4 stopped to write
            raise Unreadable(f"the storage {key} is a part of another")
        if size < 0 or storages.setdefault(key, found) != found:
            raise Unreadable(f"the storage {key} is described in two ways")
        return found

    text = lambda said: said.decode("utf-8")  # names that Python 2 has written
    found = unpickled(stream, TABLE, only="a state dict of tensors", text=text, refer=refer)
    return found, storages


@contextmanager
def open_torch(path: Path) -> Iterator[dict[str, Tensor]]:
    """The tensors of a state dict, also inside {"state_dict": ...} or {"model": ...}, without the
    prefix "module." of parallel training.

    Raises Unreadable for a file that holds more than tensors by name, and for a damaged one this or
    what zipfile raises: it belongs into `reading`.
    """
    with path.open("rb") as stream:
        in_zip = stream.read(4) == b"PK\x03\x04"
        stream.seek(0)
        found, data = _open_zip(stream) if in_zip else _open_legacy(stream)
        yield {
            name: Tensor(view.shape, partial(view.read, data))
            for name, view in _state_dict(found).items()
        }


def _open_zip(stream: BinaryIO) -> tuple[Any, Data]:
    """What the pickle holds, and the function that reads a storage."""
    archive = Archive(stream)
    pickled = [name for name in archive.entries if name.endswith("/data.pkl")]
    if len(pickled) != 1:
        raise Unreadable(f"it holds {len(pickled) or 'no'} data.pkl")
    root = pickled[0].removesuffix("data.pkl")
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.entries.values()):
        raise Unreadable("torch does not compress, and this file is compressed")
    if archive.entries[pickled[0]].file_size > PICKLE:
        raise Unreadable("its data.pkl is too long")
    if f"{root}version" in archive.entries and archive.read(f"{root}version").strip() not in KNOWN:
        raise Unreadable("it is of a version of the format that is not known")
    if f"{root}byteorder" in archive.entries and archive.read(f"{root}byteorder") != b"little":
        raise Unreadable("its numbers are big-endian")
    found, storages = _load(io.BytesIO(archive.read(pickled[0])))
    for storage in storages.values():
        entry = archive.entries.get(f"{root}data/{storage.key}")
        if entry is None or entry.file_size != storage.bytes:
            raise Unreadable(
                f"the storage {storage.key} is missing or not of the size it should be"
            )

    def data(storage: _Storage, start: int, stop: int) -> bytes:
        return archive.part(f"{root}data/{storage.key}", start, stop)

    return found, data


def _open_legacy(stream: BinaryIO) -> tuple[Any, Data]:
    """As `_open_zip`. The file is five pickles, then each storage behind its size (8 bytes)."""
    front = io.BytesIO(stream.read(PICKLE))
    if _load(front)[0] != MAGIC or _load(front)[0] != VERSION:
        raise Unreadable("it does not begin as torch's files do")
    machine = _load(front)[0]
    if type(machine) is not dict or machine.get("little_endian") is not True:
        raise Unreadable("its numbers are big-endian")
    found, storages = _load(front)
    keys, _ = _load(front)
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise Unreadable("it does not name the storages behind it")
    if sorted(storages) != sorted(keys):
        raise Unreadable("it does not hold the storages of its tensors, each once")
    stream.seek(front.tell())
    starts = {}
    for key in keys:
        size = int.from_bytes(stream.read(8), "little")
        if size != storages[key].size:
            raise Unreadable(f"the storage {key} is not of the size it should be")
        starts[key] = stream.tell()
        stream.seek(storages[key].bytes, io.SEEK_CUR)
    if stream.tell() > stream.seek(0, io.SEEK_END):
        raise Unreadable("its end is missing")

    def data(storage: _Storage, start: int, stop: int) -> bytes:
        stream.seek(starts[storage.key] + start)
        return stream.read(stop - start)

    return found, data


def _state_dict(found: Any) -> dict[str, _View]:
    for wrapper in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict):
        raise Unreadable(f"it holds a {type(found).__name__}, not tensors by name")
    for name, value in found.items():
        if not (isinstance(name, str) and isinstance(value, _View)):
            raise Unreadable(f"it holds no tensor under {name!r}")
    prefix = "module." if all(name.startswith("module.") for name in found) else ""
    return {name.removeprefix(prefix): view for name, view in found.items()}
