"""Torch's .pth files, read without running the code that a pickle can hold.

A torch file is a pickle whose tensors refer to blocks of numbers ("storages") beside it: in a zip
archive, or behind the pickle in files from before torch 1.6.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .._base.reading import Unreadable
from .._base.tensors import Tensor

STORAGES = {
    "BFloat16Storage": jnp.bfloat16,
    "BoolStorage": np.bool_,
    "ByteStorage": np.uint8,
    "CharStorage": np.int8,
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "IntStorage": np.int32,
    "LongStorage": np.int64,
    "ShortStorage": np.int16,
}
DTYPES = set(
    "bfloat16 bool double float float16 float32 float64 half int int16 int32 int64 int8 long "
    "short uint8".split()
)
# What a pickle of tensors by name is made of; none of it calls more than `find_class` allows.
OPCODES = set(
    "PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE "
    "SHORT_BINUNICODE SHORT_BINSTRING EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND "
    "APPENDS EMPTY_DICT SETITEM SETITEMS GLOBAL STACK_GLOBAL REDUCE BUILD BINPERSID BINPUT "
    "LONG_BINPUT MEMOIZE BINGET LONG_BINGET".split()
)
MAGIC = 0x1950A86A20F9469CFC6C  # the first number in a file from before torch 1.6
VERSION = 1001


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    size: int  # in numbers

    @property
    def bytes(self) -> int:
        return self.size * self.dtype.itemsize


class _View(NamedTuple):
    """A tensor: numbers of a storage from `offset` on, `strides` apart along each axis."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, data: bytes) -> np.ndarray:
        numbers = np.frombuffer(data, self.storage.dtype)[self.offset :]
        steps = [stride * numbers.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(numbers, self.shape, steps, writeable=False)


class _Name(NamedTuple):
    """Stands for something of torch in a pickle, which can neither call it nor change it."""

    name: str


class _RebuildTensor(NamedTuple):
    """Stands for torch._utils._rebuild_tensor_v2. A tuple, so that a pickle cannot change it."""

    def __call__(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _View:
        whole = (offset, *shape, *strides)
        if not isinstance(storage, _Storage) or len(shape) != len(strides):
            raise Unreadable("a tensor in it has no storage, or no stride for each axis")
        if not all(isinstance(number, int) and number >= 0 for number in whole):
            raise Unreadable("a tensor in it has a shape that is no list of sizes")
        steps = zip(shape, strides, strict=True)
        last = offset + sum((size - 1) * stride for size, stride in steps)
        if 0 not in shape and last >= storage.size:
            raise Unreadable("a tensor in it reaches beyond its storage")
        return _View(storage, offset, tuple(shape), tuple(strides))


class _RebuildParameter(NamedTuple):
    """Stands for torch._utils._rebuild_parameter."""

    def __call__(self, tensor: _View, *_: Any) -> _View:
        return tensor


class _TensorsOnly(pickle.Unpickler):
    """Reads dictionaries of tensors and plain values; whatever else is asked for is refused."""

    def __init__(self, stream: IO[bytes]):
        super().__init__(stream, encoding="utf-8")  # names that Python 2 has written
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _RebuildTensor()
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _RebuildParameter()
        if module == "torch" and (name in STORAGES or name in DTYPES):
            return _Name(name)
        raise Unreadable(f"it asks for {module}.{name}, and only a state dict of tensors is read")

    def persistent_load(self, reference: Any) -> _Storage:
        match reference:
            case ("storage", _Name(name), str(key), _, int(size), *views) if name in STORAGES:
                found = _Storage(key, np.dtype(STORAGES[name]), size)
            case _:
                raise Unreadable("a tensor in it has a storage of an unknown kind")
        if views not in ([], [None]):  # views of storages, which torch 0.4 stopped to write
            raise Unreadable(f"the storage {key} is a part of another")
        if size < 0 or self.storages.setdefault(key, found) != found:
            raise Unreadable(f"the storage {key} is described in two ways")
        return found


def _load(stream: IO[bytes]) -> tuple[Any, dict[str, _Storage]]:
    """What the next pickle of a stream holds, and the storages that its tensors refer to."""
    start = stream.tell()
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name not in OPCODES:
            raise Unreadable(f"its pickle uses {opcode.name} {argument or ''}".rstrip())
        if "BINPUT" in opcode.name and (argument or 0) > stream.tell():
            raise Unreadable("its pickle reserves memory for more than it holds")
    stream.seek(start)
    reader = _TensorsOnly(stream)
    return reader.load(), reader.storages


@contextmanager
def open_torch(path: Path) -> Iterator[dict[str, Tensor]]:
    """The tensors of a state dict, also inside {"state_dict": ...} or {"model": ...}, without the
    prefix "module." of parallel training.

    Raises Unreadable for a damaged file, and for one that holds more than tensors by name.
    """
    with path.open("rb") as stream:
        in_zip = stream.read(4) == b"PK\x03\x04"
        stream.seek(0)
        try:
            found, data = _open_zip(stream) if in_zip else _open_legacy(stream)
        except Unreadable:
            raise
        except Exception as error:  # what a damaged pickle raises depends on its bytes
            raise Unreadable(f"{type(error).__name__}: {error}") from error
        kept = lru_cache(1)(data)  # neighbouring tensors may share a storage
        yield {
            name: Tensor(view.shape, partial(_read, view, kept))
            for name, view in _state_dict(found).items()
        }


def _read(view: _View, data: Callable[[_Storage], bytes]) -> np.ndarray:
    try:
        return view.of(data(view.storage))
    except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
        raise Unreadable(str(error)) from error


def _open_zip(stream: IO[bytes]) -> tuple[Any, Callable[[_Storage], bytes]]:
    """What the pickle holds, and the function that reads a storage."""
    archive = zipfile.ZipFile(stream)
    entries = {info.filename: info for info in archive.infolist()}
    pickled = next((name for name in entries if name.endswith("/data.pkl")), None)
    if pickled is None:
        raise Unreadable("it holds no data.pkl")
    root = pickled.removesuffix("data.pkl")
    if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
        raise Unreadable("torch does not compress, and this file is compressed")
    if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
        raise Unreadable("its numbers are big-endian")
    found, storages = _load(io.BytesIO(archive.read(pickled)))
    for storage in storages.values():
        entry = entries.get(f"{root}data/{storage.key}")
        if entry is None or entry.file_size != storage.bytes:
            raise Unreadable(
                f"the storage {storage.key} is missing or not of the size it should be"
            )
    return found, lambda storage: archive.read(f"{root}data/{storage.key}")


def _open_legacy(stream: IO[bytes]) -> tuple[Any, Callable[[_Storage], bytes]]:
    """As `_open_zip`. The file is five pickles, then each storage behind its size (8 bytes)."""
    if _load(stream)[0] != MAGIC or _load(stream)[0] != VERSION:
        raise Unreadable("it does not begin as torch's files do")
    if not _load(stream)[0]["little_endian"]:
        raise Unreadable("its numbers are big-endian")
    found, storages = _load(stream)
    keys, _ = _load(stream)
    starts = {}
    for key in keys:
        size = int.from_bytes(stream.read(8), "little")
        if size != storages[key].size:
            raise Unreadable(f"the storage {key} is not of the size it should be")
        starts[key] = stream.tell()
        stream.seek(storages[key].bytes, io.SEEK_CUR)
    if starts.keys() != storages.keys() or stream.tell() > stream.seek(0, io.SEEK_END):
        raise Unreadable("its end is missing")

    def data(storage: _Storage) -> bytes:
        stream.seek(starts[storage.key])
        return stream.read(storage.bytes)

    return found, data


def _state_dict(found: Any) -> dict[str, _View]:
    for wrapper in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(dict.get(found, wrapper), dict):
            found = dict.get(found, wrapper)
    if not isinstance(found, dict):
        raise Unreadable(f"it holds a {type(found).__name__}, not tensors by name")
    items = list(dict.items(found))  # a pickle may have put other methods on its dictionary
    for name, value in items:
        if not (isinstance(name, str) and isinstance(value, _View)):
            raise Unreadable(f"it holds no tensor under {name!r}")
    parallel = all(name.startswith("module.") for name, _ in items)
    return {name.removeprefix("module.") if parallel else name: view for name, view in items}
