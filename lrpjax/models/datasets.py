"""Labelled CIFAR-10 images from the forms in which people hold them."""

from __future__ import annotations

import io
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .._base.npy import Array, open_npz
from .._base.reading import Unreadable, reading
from .cifar import CLASSES
from .cifar_batches import batch_files, read_archive, read_folder

WHAT = "CIFAR-10 data"
IMAGE = (32, 32, 3)
MOST = 100_000  # images; CIFAR-10 has 60,000
ENCODED = 4096  # bytes of an image as a file, on average
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # EPS is a program
MODES = ("1", "L", "P", "LA", "RGB", "RGBA")  # of pictures whose pixels have eight bits or fewer


def read_cifar10(path: str | PathLike, *, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images (N, 32, 32, 3) and integer labels (N,) from any of

    * the python archive, cifar-10-python.tar.gz or its unpacked folder (the training or the
      test batches as `train` says);
    * a folder with one sub-folder of images per class, in alphabetical order;
    * an .npz with `images` and `labels`, or with encoded images: `bytes`, `offsets`, `labels`.

    Raises FileNotFoundError where nothing is there, and ValueError for damaged files and for images
    and labels that are none of CIFAR-10.
    """
    path = Path(path)
    if not path.is_dir():
        with reading(path, WHAT):
            images, labels = (
                _read_npz(path) if path.suffix == ".npz" else read_archive(path, train=train)
            )
    elif batch_files(path):
        images, labels = read_folder(path, train=train, what=WHAT)
    else:
        images, labels = _read_classes(path)
    _check(images, labels, path)
    return images, labels.astype(np.int32)


def _check(images: np.ndarray, labels: np.ndarray, path: Path) -> None:
    shaped = images.shape[1:] == IMAGE and labels.shape == images.shape[:1]
    if len(images) == 0 or not shaped or images.dtype != np.uint8 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{str(path)!r} holds images {images.dtype}{list(images.shape)} and labels "
            f"{labels.dtype}{list(labels.shape)}: CIFAR-10 needs uint8 images (N, 32, 32, 3) and N "
            "integers."
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= len(CLASSES)))
    if wrong.size:
        raise ValueError(
            f"The label of image {wrong[0]} in {str(path)!r} is {labels[wrong[0]]}: CIFAR-10's are "
            f"0 to {len(CLASSES) - 1}."
        )


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with open_npz(path) as arrays:
        form = ("images",) if "images" in arrays else ("bytes", "offsets")
        for name in (*form, "labels"):
            if name not in arrays:
                raise Unreadable(f"it lacks the array {'images' if name in form else name}")
        _bounded(arrays["labels"], (), 1)
        if "images" in arrays:
            _bounded(arrays["images"], IMAGE, 1)
            return arrays["images"].read(), arrays["labels"].read()
        _bounded(arrays["bytes"], (), ENCODED)
        _bounded(arrays["offsets"], (), 1)
        pieces = _pieces(arrays["bytes"].read(), arrays["offsets"].read())
        return np.stack([_decode(io.BytesIO(piece)) for piece in pieces]), arrays["labels"].read()


def _bounded(array: Array, shape: tuple[int, ...], each: int) -> None:
    """Raises Unreadable, before it is unpacked, for an array that is not (N, *shape), or longer
    than it would be with so many numbers for each image."""
    if array.shape[1:] != shape or array.shape == () or array.dtype.kind not in "iu":
        raise Unreadable(f"an array in it is {array.dtype}{list(array.shape)}")
    if array.shape[0] > each * MOST:
        raise Unreadable(f"it holds more than {MOST:,} images")


def _pieces(data: np.ndarray, offsets: np.ndarray) -> list[bytes]:
    ends = [0, *offsets.tolist(), len(data)]
    if data.dtype != np.uint8 or any(a > b for a, b in pairwise(ends)) or len(offsets) < 2:
        raise Unreadable("its offsets are no places in its bytes, in order")
    return [data[a:b].tobytes() for a, b in pairwise(ends[1:-1])]


def _decode(source: Any) -> np.ndarray:
    with Image.open(source, formats=FORMATS) as image:
        if image.size != IMAGE[:2] or image.mode not in MODES:
            raise Unreadable(f"it has {image.size} pixels of mode {image.mode}, not (32, 32)")
        return np.asarray(image.convert("RGB"))


def _read_classes(path: Path) -> tuple[np.ndarray, np.ndarray]:
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir())
    if len(folders) != len(CLASSES):
        raise ValueError(
            f"{str(path)!r} has {len(folders)} sub-folders: CIFAR-10 needs one per class "
            f"({', '.join(CLASSES)})."
        )
    images, labels = [], []
    for label, folder in enumerate(folders):
        for file in sorted(f for f in folder.iterdir() if not f.name.startswith(".")):
            with reading(file, "picture"):
                images.append(_decode(file))
            labels.append(label)
    return np.stack(images) if images else np.empty((0, *IMAGE), np.uint8), np.array(labels, int)
