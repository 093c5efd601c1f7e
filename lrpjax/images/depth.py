"""What an opened file says of its numbers, and Pillow's mode does not."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import ImageFile

from .._base.reading import Unreadable
from .levels import Range

_BITS, _PHOTOMETRIC, _FORMAT = 258, 262, 339  # tags of TIFF
_UNSIGNED, _SIGNED = 1, 2


@dataclass(frozen=True)
class Depth:
    """limits: the least and largest integer that the file's type can hold, where Pillow hands out
    integers of more than 8 bits. signed: whether they can be negative. inverted: whether 0 is
    white, and Pillow leaves that to us."""

    limits: Range = (0.0, 65535.0)
    signed: bool = True
    inverted: bool = False


def depth_of(image: ImageFile.ImageFile) -> Depth:
    """Of an image that is opened and not yet loaded.

    Raises ValueError for those of which Pillow would drop bits, or mistake them.
    """
    if not image.mode.startswith(("I", "F")):
        _refuse_lost_bits(image)
        return Depth()
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        if image.mode == "I" and image.format not in ("PNG", "PPM"):  # both hold 16 bits
            raise Unreadable(f"Pillow does not say what integers there are in a {image.format}")
        return Depth()
    bits, signed = int(tags.get(_BITS, (16,))[0]), tags.get(_FORMAT, (_UNSIGNED,))[0] == _SIGNED
    limits = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    return Depth(limits, signed, inverted=tags.get(_PHOTOMETRIC) == 0)


def _refuse_lost_bits(image: ImageFile.ImageFile) -> None:
    tags = getattr(image, "tag_v2", {})
    bits = max(tags.get(_BITS, (8,)))
    for _, _, _, arguments in image.tile:
        parts = arguments if isinstance(arguments, tuple) else (arguments,)
        if any(";16" in str(part) for part in parts):
            bits = 16
        if image.format == "PPM" and len(parts) == 2:  # the second is the number of white
            bits = max(8, int(parts[1]).bit_length())
    if image.format == "JPEG2000":
        bits = _bits_of_jpeg2000(image)
    if bits > 8:
        raise Unreadable(
            f"it has {bits} bits for each channel, and Pillow opens them as 8: convert it to 8 "
            "bits, or give it as .npy or .npz"
        )
    if _SIGNED in tags.get(_FORMAT, ()):
        raise Unreadable("it holds signed 8-bit integers, and Pillow opens them as unsigned")


def _bits_of_jpeg2000(image: ImageFile.ImageFile) -> int:
    """Of the first component: in the segment SIZ, which begins each codestream (ITU-T T.800)."""
    assert image.fp is not None  # it is opened and not yet loaded
    place = image.fp.tell()
    image.fp.seek(0)
    start = image.fp.read(2**16)
    image.fp.seek(place)
    _, found, segment = start.partition(b"\xff\x4f\xff\x51")
    return (segment[38] & 0x7F) + 1 if found and len(segment) > 38 else 8
