"""The program that reads an HDF5 file of Keras for another process (`hdf5.py` starts it).

Damaged files crash the C library that reads HDF5, or let it work for ever: here it may. Nothing of
JAX is imported, and time and memory are limited. It writes lines of JSON, and numbers behind them.
"""

from __future__ import annotations

import io
import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from .._base.npy import sound
from .._base.reading import Unreadable, reason
from .._base.zips import EXPANSION, Archive

SECONDS = 2  # of a processor, to open a file or to begin a tensor; and for each
SPEED = 32 * 2**20  # bytes of it, one more
MEMORY = 256 * 2**20  # bytes beside those of the file or tensor
TIMES, ALLOWED = 16, 64 * 2**20  # bytes that the weights may unpack to, for each of the file
FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
LAYOUTS = {h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED}


class Weight(NamedTuple):
    dataset: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self.dataset.shape

    @property
    def dtype(self) -> np.dtype:
        return self.dataset.dtype.newbyteorder("<")

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def serve() -> None:
    """Writes what is in the file that the program's argument names, then one tensor for each line
    of its input, by number."""
    output = sys.stdout.buffer
    path = Path(sys.argv[1])
    limit(path.stat().st_size)
    answer = _answer(partial(opened, path))
    if isinstance(answer, Exception):
        _tell(output, {"refused": reason(answer)})
        return
    told = [(layer, [(w.shape, w.dtype.str) for w in weights]) for layer, weights in answer]
    _tell(output, {"layers": told})
    flat = [weight for _, weights in answer for weight in weights]
    for line in sys.stdin:
        weight = flat[int(line)]
        limit(weight.bytes)
        values = _answer(partial(read, weight))
        if isinstance(values, Exception):
            _tell(output, {"refused": reason(values)})
        else:
            _tell(output, {})
            output.write(values.data)
            output.flush()


def _answer(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:  # what h5py raises depends on which part is damaged
        return error


def _tell(output: Any, message: dict[str, Any]) -> None:
    output.write(json.dumps(message).encode() + b"\n")
    output.flush()


def limit(size: int) -> None:
    """What the processor and memory may give to so many bytes more; at its end the system ends this
    process, or gives no memory."""
    used = math.ceil(time.process_time())
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    wanted = used + SECONDS + size // SPEED
    resource.setrlimit(resource.RLIMIT_CPU, (wanted if most < 0 else min(wanted, most), most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = Path("/proc/self/statm")  # of Linux; elsewhere the system does not count these
    if pages.exists():
        held = int(pages.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        wanted = held + 3 * size + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (wanted if most < 0 else min(wanted, most), most))


def opened(path: Path) -> list[tuple[str, list[Weight]]]:
    """The layers of a file and the weights of each, in Keras' order."""
    if path.suffix == ".keras":
        with path.open("rb") as stream:
            source: Any = io.BytesIO(_archived(Archive(stream)))
    else:
        source = path
    root = h5py.File(source, "r")
    length = root.id.get_filesize()
    root = _member(root, "model_weights") if "model_weights" in root else root
    layers = [
        (layer, [_weight(dataset, length) for dataset in datasets])
        for layer, datasets in _by_layer(root)
    ]
    if sum(w.bytes for _, weights in layers for w in weights) > TIMES * length + ALLOWED:
        raise Unreadable(f"its weights unpack to more than {TIMES} times the file")
    return layers


def _archived(archive: Archive) -> bytes:
    info = archive.entries.get("model.weights.h5")
    if info is None or info.compress_size != info.file_size:
        raise Unreadable("it holds no model.weights.h5, as Keras puts it there")
    return archive.read("model.weights.h5")


def _by_layer(root: Any) -> list[tuple[str, list[Any]]]:
    if "layer_names" in root.attrs:  # Keras 1 and 2, and model.save("x.h5") of Keras 3
        names = _texts(root.attrs["layer_names"])
        groups = [(name, _member(root, name)) for name in names]
        return [
            (name, [_member(group, weight) for weight in _texts(group.attrs["weight_names"])])
            for name, group in groups
        ]
    found: list[tuple[str, list[Any]]] = []

    def visit(path: str, group: Any) -> None:  # h5py follows no links but hard ones
        if path.endswith("vars") and "name" in group.attrs:
            weights = [_member(group, number) for number in sorted(group, key=int)]
            found.append((_text(group.attrs["name"]), weights))

    if "layers" in root:  # model.save_weights of Keras 3
        _member(root, "layers").visititems(visit)
    return found


def _member(group: Any, path: str) -> Any:
    """What lies there, in this file: h5py would follow links to any other."""
    for part in filter(None, path.split("/")):
        if not isinstance(group, h5py.Group) or part not in group:
            raise Unreadable(f"it names {path}, which is not in it")
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise Unreadable(f"{path} in it is a link to elsewhere")
        group = group[part]
    return group


def _weight(dataset: Any, length: int) -> Weight:
    """A dataset, once all of its numbers are in this file, packed in a known way or not at all."""
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise Unreadable("a weight in it is no array")
    name, dtype = dataset.name, dataset.dtype
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise Unreadable(f"{name} in it is of the type {dtype}")
    made = dataset.id.get_create_plist()
    if made.get_layout() not in LAYOUTS or made.get_external_count():
        raise Unreadable(f"{name} in it has its numbers elsewhere")
    filters = {made.get_filter(i)[0] for i in range(made.get_nfilters())}
    if not filters <= FILTERS:
        raise Unreadable(f"{name} in it is compressed in an unusual way")
    stored = dataset.id.get_storage_size()
    expansion = EXPANSION if h5py.h5z.FILTER_DEFLATE in filters else 1
    weight = Weight(dataset)
    if weight.bytes > stored * expansion or stored > length:
        raise Unreadable(f"{name} in it is not of the size it should be")
    if dataset.chunks and math.prod(dataset.chunks) * dtype.itemsize > weight.bytes + MEMORY // 2:
        raise Unreadable(f"{name} in it has pieces that are larger than the whole")
    return weight


def read(weight: Weight) -> np.ndarray:
    found = np.asarray(weight.dataset[()], order="C").astype(weight.dtype, copy=False)
    return sound(found.reshape(-1))


def _texts(names: Any) -> list[str]:
    if not isinstance(names, np.ndarray) or names.ndim != 1:
        raise Unreadable("it has no list of names")
    return [_text(name) for name in names]


def _text(name: Any) -> str:
    if not isinstance(name, str | bytes):
        raise Unreadable("a name in it is no text")
    return name.decode() if isinstance(name, bytes) else name
