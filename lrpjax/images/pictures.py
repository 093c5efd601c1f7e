"""One file of a picture: opened within bounds, turned upright, as levels."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from .._base.reading import reason
from .depth import depth_of
from .modes import View, shown

# Those that hold pixels. Of the others that Pillow knows some start a program (EPS), some are drawn
# by the system (WMF), and TGA has no mark by which it could be told from anything else.
FORMATS = "PNG JPEG GIF WEBP TIFF BMP DIB PPM JPEG2000 AVIF QOI PCX SGI".split()


def read_picture(file: Path, view: View, *, max_pixels: int) -> tuple[np.ndarray, bool]:
    """The levels of a file as `modes.shown` gives them, turned as its EXIF says, and whether it is
    the first frame of several.

    Raises ValueError, with the reason and without the file's name, for a file that is no picture,
    is damaged, has more than `max_pixels`, or cannot be shown rightly.
    """
    with _bounded(max_pixels):
        try:
            # A stream: a named file is mapped into memory, which scrambles a TIFF that is turned.
            with file.open("rb") as stream, Image.open(stream, formats=_formats()) as image:
                depth, several = depth_of(image), bool(getattr(image, "is_animated", False))
                image.load()
                return shown(ImageOps.exif_transpose(image), depth, view), several
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise ValueError(
                f"it has more than {max_pixels} pixels: if you trust it, give --max-pixels"
            ) from error
        except UnidentifiedImageError as error:
            raise ValueError(_unknown(file)) from error
        except Exception as error:  # of whatever kind a damaged file makes Pillow raise
            raise ValueError(reason(error)) from error


def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]  # Pillow may be built without some


@contextmanager
def _bounded(max_pixels: int) -> Iterator[None]:
    """Pillow's own guard, which every format asks, with another number and no second chance."""
    kept, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
    log = logging.getLogger("PIL")
    level = log.level
    log.setLevel(logging.CRITICAL)  # the reason is said once, by us
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what else Pillow has to say of a damaged file
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = kept
        log.setLevel(level)


def _unknown(file: Path) -> str:
    """Why Pillow does not open a file."""
    with file.open("rb") as stream:
        if stream.read(4) in (b"II*\0", b"MM\0*") and (said := _tiff(stream)):
            return f"it is a TIFF of {said}, which Pillow does not open: give it as .npy or .npz"
    return f"it is no picture ({', '.join(FORMATS[:6])}, ...) that can be read"


def _tiff(stream) -> str:
    """3 samples of 32 bits (float)."""
    kinds = {1: "unsigned", 2: "signed", 3: "float", 4: "untyped", 5: "complex", 6: "complex"}
    try:
        stream.seek(0)
        directory = TiffImagePlugin.ImageFileDirectory_v2(stream.read(8))
        stream.seek(directory.next)
        directory.load(stream)
        samples, bits, kind = directory.get(277, 1), directory[258][0], directory.get(339, (1,))[0]
        return f"{samples} sample{'s' * (samples > 1)} of {bits} bits ({kinds.get(kind, kind)})"
    except Exception:
        return ""
