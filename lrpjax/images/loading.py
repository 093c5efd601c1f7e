"""Images from folders, files and arrays, for every command that takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import ImageColor

from .._base.text import printable
from .arrays import SUFFIXES, read_arrays
from .finding import Found, find
from .levels import Range
from .modes import View
from .pictures import read_picture
from .sizes import Size, fit, is_picture, require_same, with_channels

MAX_PIXELS = 100_000_000


@dataclass(frozen=True)
class Images:
    """pixels: (N, H, W, C), or (N, ...) of arrays that are no pictures: levels from 0 (black) to
    255, as uint8, or as float32 where a file holds more than 8 bits.
    names: one per image. skipped: (name, reason) of files that are not among them. levels: False
    where pixels are floats that a model takes as they are. first_frames: names of those that have
    more frames."""

    pixels: np.ndarray
    names: list[str]
    skipped: list[tuple[str, str]]
    levels: bool
    first_frames: list[str]


def load_images(
    sources: Sequence[str | PathLike],
    *,
    size: Size | None,
    channels: int | None = None,
    crop: bool = False,
    background: str = "white",
    values: Range | None = None,
    raw_floats: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Images:
    """Reads images as a person sees them, in this order: turned as EXIF says, what is transparent
    on the background, resized (bicubic, antialiased), the centre cut out.

    sources: folders (every file in them, in the order of the bytes of their relative paths; links
    are not followed), picture files, .npz archives with `images` (N, ...) or a single array, and
    .npy files with one example each. Of an animation the first frame is taken; colour profiles are
    not applied.
    size: (height, width) of all; None: they must have one. crop: cut it from the centre, without
    changing proportions (see `sizes.fit`); otherwise a picture is resized whole, as in Sixt et al.
    2020. Arrays count as pictures where they hold levels and an example is (H, W), (H, W, 1) or
    (H, W, 3); others are not resized.
    channels: 1 (grey), 3, or what arrays must have; None: 3 for files, and for arrays their own.
    background: a name or #rrggbb. values: black and white of floats, and of integers of more than 8
    bits, for which the range of their type is taken otherwise. raw_floats: arrays of floats without
    `values` are what a model takes, and left as they are. max_pixels: of one picture.

    A file that cannot be read, or not shown rightly, is skipped and listed. Raises
    FileNotFoundError for a source that does not exist, ValueError for options that are none, if
    nothing is readable, and where sizes differ and none is given.
    """
    if crop and size is None:
        raise ValueError("What is cut out needs a size: give one with --size H or --size HxW.")
    view = View(_colour(background), _checked(values))
    pixels: list[np.ndarray] = []
    names: list[str] = []
    skipped: list[tuple[str, str]] = []
    first_frames: list[str] = []
    kinds: dict[bool, str] = {}
    for file in (file for source in sources for file in find(Path(source))):
        try:
            read, levels, several = _read(file, view, channels, raw_floats, max_pixels)
            fitted = [_fitted(each, size, channels, crop, levels) for each in read]
        except (ValueError, OSError) as error:
            skipped.append((printable(str(file.path)), printable(str(error))))
            continue
        pixels += fitted
        names += [file.name] if len(read) == 1 else [f"{file.name}[{i}]" for i in range(len(read))]
        first_frames += [file.name] * several
        kinds[levels] = file.name
    if not pixels:
        tried = "; ".join(f"{name}: {reason}" for name, reason in skipped[:3]) or "no files"
        raise ValueError(f"No image could be read from {', '.join(map(str, sources))} ({tried}).")
    if len(kinds) > 1:
        raise ValueError(
            f"{kinds[False]} holds floats as a model takes them and {kinds[True]} levels of grey: "
            "say what is black and white in the floats, with --range LOW HIGH."
        )
    require_same([each.shape for each in pixels], names)
    levels = True in kinds
    return Images(np.stack(pixels), names, skipped, levels, first_frames)


def _read(
    file: Found, view: View, channels: int | None, raw_floats: bool, max_pixels: int
) -> tuple[np.ndarray, bool, bool]:
    """The examples of a file, whether they are levels, and whether it has more frames."""
    if file.refused:
        raise ValueError(file.refused)
    if file.path.suffix.lower() in SUFFIXES:
        return *read_arrays(file.path, view.given, raw_floats=raw_floats), False
    if channels not in (None, 1, 3):
        raise ValueError(f"the model takes {channels} channels: give them as .npy or .npz")
    pixels, several = read_picture(file.path, view, max_pixels=max_pixels)
    return with_channels(pixels, channels or 3)[None], True, several


def _fitted(
    example: np.ndarray, size: Size | None, channels: int | None, crop: bool, levels: bool
) -> np.ndarray:
    """An example in the shape that is asked for; ValueError where it cannot have it."""
    if not levels or not is_picture(example) or channels not in (None, 1, 3):
        _require_shape(example.shape, size, channels)
        return example
    picture = example if channels is None else with_channels(example, channels)
    return fit(picture, size, crop=crop)


def _require_shape(shape: tuple[int, ...], size: Size | None, channels: int | None) -> None:
    """ValueError for an array that would have to be resized, in whatever place its channels are."""
    wrong = size is not None and len(shape) > 1 and size not in (shape[:2], shape[-2:])
    if wrong or (channels is not None and len(shape) == 3 and channels not in shape):
        asked = "x".join(map(str, [*(size or ()), *([channels] if channels else [])]))
        raise ValueError(
            f"its shape is {shape} and the model's images are {asked}: only levels (H, W), "
            "(H, W, 1) and (H, W, 3) are resized"
        )


def _colour(name: str) -> tuple[int, int, int]:
    try:
        return ImageColor.getrgb(name)[:3]
    except ValueError as error:
        raise ValueError(
            f"There is no colour {name!r} for the background: give a name or #rrggbb."
        ) from error


def _checked(values: Range | None) -> Range | None:
    if values is not None and not -np.inf < values[0] < values[1] < np.inf:
        raise ValueError(
            f"A range goes from black to white, two numbers of which the second is larger, got "
            f"{values[0]:g} and {values[1]:g}."
        )
    return values
