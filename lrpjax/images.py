"""Images from folders, files and .npz archives, for every command that takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError


@dataclass(frozen=True)
class Images:
    """pixels: uint8 (N, H, W, 3). names: one per image. skipped: (name, reason) of unreadable
    files."""

    pixels: np.ndarray
    names: list[str]
    skipped: list[tuple[str, str]]


def load_images(sources: Sequence[str | PathLike], *, size: tuple[int, int] | None) -> Images:
    """Reads images and resizes them to `size` (height, width), as the paper does: no cropping.

    size None: the first image's.

    sources: folders (every file in them, in order of name), image files, or .npz archives with
    uint8 `images` (N, H, W, 3). A file that is no image is skipped and listed.
    Raises FileNotFoundError for a source that does not exist, ValueError if none is readable.
    """
    pixels, names, skipped = [], [], []
    for file in (file for source in sources for file in _files(Path(source))):
        try:
            read = _read(file)
        except (UnidentifiedImageError, OSError, ValueError, KeyError) as error:
            skipped.append((str(file), f"{type(error).__name__}: {error}"))
            continue
        for i, image in enumerate(read):
            size = size or image.size[::-1]
            pixels.append(np.asarray(image.convert("RGB").resize(size[::-1])))
            names.append(file.name if len(read) == 1 else f"{file.name}[{i}]")
    if not pixels:
        tried = "; ".join(f"{name} ({reason})" for name, reason in skipped[:3]) or "no files"
        raise ValueError(f"No image could be read from {', '.join(map(str, sources))}: {tried}.")
    return Images(np.stack(pixels), names, skipped)


def bundled_images() -> tuple[np.ndarray, np.ndarray]:
    """The 20 CIFAR-10 test images that ship with lrpjax: uint8 (20, 32, 32, 3), labels (20,)."""
    file = resources.files("lrpjax.models") / "assets" / "cifar10_images.npz"
    with file.open("rb") as stream, np.load(stream) as arrays:
        return arrays["images"], arrays["labels"]


def _files(source: Path) -> list[Path]:
    if not source.exists():
        raise FileNotFoundError(f"There are no images at {str(source)!r}: check the path.")
    if source.is_dir():
        return sorted(f for f in source.rglob("*") if f.is_file() and not f.name.startswith("."))
    return [source]


def _read(file: Path) -> list[Image.Image]:
    if file.suffix != ".npz":
        with Image.open(file) as image:
            image.load()
            return [image.copy()]
    with np.load(file) as arrays:
        images = arrays["images"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"`images` must be uint8 (N, H, W, 3), got {images.dtype} {images.shape}")
    return [Image.fromarray(image) for image in images]
