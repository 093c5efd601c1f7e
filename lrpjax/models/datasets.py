"""Labelled CIFAR-10 images from the forms in which people hold them."""

from __future__ import annotations

import io
import pickle
import tarfile
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from .cifar import CLASSES


class _ArraysOnly(pickle.Unpickler):
    """Reads the CIFAR-10 archive, which holds numpy arrays and nothing that runs code."""

    allowed: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    }

    def find_class(self, module: str, name: str):
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")
        return super().find_class(module, name)


def read_cifar10(path: str | PathLike, *, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images (N, 32, 32, 3) and integer labels (N,) from any of

    * the python archive, cifar-10-python.tar.gz or its unpacked folder (the training or the
      test batches as `train` says);
    * a folder with one sub-folder of images per class, in alphabetical order;
    * an .npz with `images` and `labels`, or with encoded images: `bytes`, `offsets`, `labels`.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no CIFAR-10 data at {str(path)!r}: check the path.")
    if path.suffix == ".npz":
        images, labels = _read_npz(path)
    elif path.is_file():
        images, labels = _read_archive(_members(path, train), path)
    elif list(path.glob("*_batch*")):
        batches = sorted(path.glob("data_batch_*") if train else path.glob("test_batch"))
        images, labels = _read_archive([batch.read_bytes() for batch in batches], path)
    else:
        images, labels = _read_folders(path)
    if len(images) == 0 or images.shape[1:] != (32, 32, 3) or len(images) != len(labels):
        raise ValueError(
            f"{str(path)!r} holds images of shape {images.shape} and {len(labels)} labels: "
            "CIFAR-10 needs images (N, 32, 32, 3) and N labels."
        )
    return images, labels.astype(np.int32)


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as arrays:
        missing = {"labels"} - set(arrays)
        if "images" not in arrays and not {"bytes", "offsets"} <= set(arrays):
            missing |= {"images"}
        if missing:
            raise ValueError(f"{str(path)!r} lacks the arrays {sorted(missing)}.")
        if "images" in arrays:
            return arrays["images"], arrays["labels"]
        data, offsets = arrays["bytes"], arrays["offsets"]
        pieces = [data[a:b].tobytes() for a, b in pairwise(offsets)]
        return np.stack([_decode(io.BytesIO(piece)) for piece in pieces]), arrays["labels"]


def _decode(source) -> np.ndarray:
    with Image.open(source) as image:
        return np.asarray(image.convert("RGB"))


def _members(path: Path, train: bool) -> list[bytes]:
    wanted = "data_batch_" if train else "test_batch"
    with tarfile.open(path) as archive:
        members = sorted((m for m in archive if wanted in m.name), key=lambda m: m.name)
        streams = [archive.extractfile(member) for member in members]
        return [stream.read() for stream in streams if stream is not None]


def _read_archive(batches: list[bytes], path: Path) -> tuple[np.ndarray, np.ndarray]:
    if not batches:
        raise ValueError(f"{str(path)!r} holds no CIFAR-10 batch file: check the archive.")
    read = [_ArraysOnly(io.BytesIO(batch), encoding="bytes").load() for batch in batches]
    images = np.concatenate([batch[b"data"] for batch in read])
    labels = np.concatenate([batch[b"labels"] for batch in read])
    return images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def _read_folders(path: Path) -> tuple[np.ndarray, np.ndarray]:
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir())
    if len(folders) != len(CLASSES):
        raise ValueError(
            f"{str(path)!r} has {len(folders)} sub-folders: CIFAR-10 needs one per class "
            f"({', '.join(CLASSES)})."
        )
    files = [(file, label) for label, folder in enumerate(folders) for file in folder.iterdir()]
    images = [_decode(file) for file, _ in files]
    return np.stack(images), np.array([label for _, label in files])
