"""The kinds of pixels that Pillow knows, and how each becomes what a person sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms

from .._base.reading import Unreadable
from .depth import Depth
from .levels import Range, as_levels

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class View:
    """background: what shows through where an image is transparent. given: black and white of
    what has more than 8 bits, None for its type's."""

    background: Colour = (255, 255, 255)
    given: Range | None = None


def shown(image: Image.Image, depth: Depth, view: View) -> np.ndarray:
    """The pixels of a loaded image: uint8 (H, W) for grey or (H, W, 3), or float32 levels (H, W)
    where the file holds more than 8 bits. Raises ValueError for what cannot be shown rightly."""
    if image.mode not in MODES:
        raise Unreadable(f"its pixels are of a kind ({image.mode}) that is not read here")
    return MODES[image.mode](image, depth, view)


def _grey(image: Image.Image, depth: Depth, view: View) -> np.ndarray:
    if image.has_transparency_data:  # one of the levels
        return _transparent(image, depth, view)
    return np.asarray(image.convert("L"))


def _colour(image: Image.Image, depth: Depth, view: View) -> np.ndarray:
    if image.has_transparency_data:  # one colour, or some of the palette
        return _transparent(image, depth, view)
    return np.asarray(image.convert("RGB"))


def _transparent(image: Image.Image, depth: Depth, view: View) -> np.ndarray:
    whole = image.convert("LA") if image.mode == "La" else image
    whole = whole.convert("RGBA")
    canvas = Image.new("RGB", image.size, view.background)
    canvas.paste(whole.convert("RGB"), mask=whole.getchannel("A"))
    grey = image.mode in ("1", "L", "LA", "La") and len(set(view.background)) == 1
    pixels = np.asarray(canvas)
    return pixels[..., 0] if grey else pixels


def _lab(image: Image.Image, depth: Depth, view: View) -> np.ndarray:
    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    return np.asarray(converted)


def _integers(image: Image.Image, depth: Depth, view: View) -> np.ndarray:
    if "transparency" in image.info:
        raise Unreadable("one of its 16-bit levels is transparent, and Pillow does not apply that")
    values = np.asarray(image)
    if not depth.signed and values.dtype == np.int32:
        values = values.view(np.uint32)  # of which there is no mode
    return _upright(as_levels(values, depth.limits, view.given), depth)


def _floats(image: Image.Image, depth: Depth, view: View) -> np.ndarray:
    return _upright(as_levels(np.asarray(image), None, view.given), depth)


def _upright(levels: np.ndarray, depth: Depth) -> np.ndarray:
    return 255 - levels if depth.inverted else levels


MODES: dict[str, Callable[[Image.Image, Depth, View], np.ndarray]] = {
    "1": _grey,
    "L": _grey,
    "LA": _transparent,
    "La": _transparent,
    "P": _colour,
    "PA": _transparent,
    "RGB": _colour,
    "RGBX": _colour,
    "RGBA": _transparent,
    "RGBa": _transparent,
    "CMYK": _colour,
    "YCbCr": _colour,
    "HSV": _colour,
    "LAB": _lab,
    "I;16": _integers,
    "I;16L": _integers,
    "I;16B": _integers,
    "I;16N": _integers,
    "I": _integers,
    "F": _floats,
}
