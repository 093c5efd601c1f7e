"""HDF5 files of Keras, read by a process of its own, so that a damaged file ends that one alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from .._base.reading import Unreadable
from .._base.tensors import Tensor

PROGRAM = "from lrpjax.models.hdf5_child import serve; serve()"
LINE = 4 * 2**20  # bytes of an answer before its numbers


@contextmanager
def open_hdf5(path: Path) -> Iterator[list[tuple[str, list[Tensor]]]]:
    """The layers of a Keras file and the weights of each, in Keras' order.

    path: of HDF5, or of a .keras archive. Raises Unreadable, also when a weight is read, and
    ImportError where h5py is missing.
    """
    if find_spec("h5py") is None:
        raise ImportError(
            f'The weight file {str(path)!r} is read with h5py: pip install "lrpjax[hdf5]".'
        )
    places = os.pathsep.join(place or os.getcwd() for place in sys.path)
    with subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM, path.absolute()],
        env=os.environ | {"PYTHONPATH": places},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            number, layers = 0, []
            for name, weights in _answer(process)["layers"]:
                tensors = []
                for shape, dtype in weights:
                    read = partial(_read, process, number, tuple(shape), np.dtype(dtype))
                    tensors.append(Tensor(tuple(shape), read))
                    number += 1
                layers.append((name, tensors))
            yield layers
        finally:
            process.kill()


def _read(process: Any, number: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    with suppress(BrokenPipeError):  # it is gone: that there is no answer says why
        os.write(process.stdin.fileno(), b"%d\n" % number)
    _answer(process)
    size = prod(shape) * dtype.itemsize
    data = process.stdout.read(size)
    if len(data) != size:
        raise Unreadable(_end(process))
    return np.frombuffer(data, dtype).reshape(shape)


def _answer(process: Any) -> dict[str, Any]:
    line = process.stdout.readline(LINE)
    if not line.endswith(b"\n"):
        raise Unreadable(_end(process))
    answer = json.loads(line)
    if "refused" in answer:
        raise Unreadable(answer["refused"])
    return answer


def _end(process: Any) -> str:
    """Why the process gives no more answers."""
    process.kill()  # if it is still there
    code = process.wait()
    if code == -signal.SIGXCPU:
        return "reading it takes too long"
    return f"the HDF5 library fails on it, with code {code}"
