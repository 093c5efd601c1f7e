"""The shape of pictures: their channels, and resized whole or cut from the centre."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

Size = tuple[int, int]
FILTER = Image.Resampling.BICUBIC  # wider where it shrinks, so that nothing is skipped
MARGIN = 256 / 224  # short side before the cut, for each pixel of what is cut out
_LUMA = (0.299, 0.587, 0.114)  # grey of red, green and blue, ITU-R BT.601


def is_picture(example: np.ndarray) -> bool:
    """Whether an array is (H, W), (H, W, 1) or (H, W, 3)."""
    return example.ndim == 2 or (example.ndim == 3 and example.shape[-1] in (1, 3))


def fit(picture: np.ndarray, size: Size | None, *, crop: bool) -> np.ndarray:
    """A picture, uint8 or float32 levels, in this size (height, width); None: as it is.

    crop: the sides keep their proportion (the shorter one gets size x 256/224) and the centre is
    cut out, as networks of ImageNet are tested; otherwise the whole picture is resized, whatever
    its proportion, as in Sixt et al. 2020.
    """
    if size is None or not crop:
        return _resized(picture, size or picture.shape[:2])
    height, width = size
    grown = _covering(picture.shape[:2], (height * MARGIN, width * MARGIN))
    # The places and roundings are those of torchvision's Resize and CenterCrop.
    top, left = round((grown[0] - height) / 2), round((grown[1] - width) / 2)
    return _resized(picture, grown)[top : top + height, left : left + width]


def with_channels(picture: np.ndarray, channels: int) -> np.ndarray:
    """A picture (H, W), (H, W, 1) or (H, W, 3) as (H, W, channels), 1 or 3."""
    if picture.ndim == 2:
        picture = picture[..., None]
    if picture.shape[-1] == channels:
        return picture
    if channels == 3:
        return np.repeat(picture, 3, -1)
    if picture.dtype == np.uint8:
        return np.asarray(Image.fromarray(picture).convert("L"))[..., None]
    return (picture @ np.array(_LUMA, np.float32))[..., None]


def require_same(shapes: Sequence[tuple[int, ...]], names: Sequence[str]) -> None:
    """Raises ValueError, with shapes and names, for examples that differ in their shape."""
    first = dict(zip(reversed(shapes), reversed(names), strict=True))
    if len(first) > 1:
        said = [f"{name} {'x'.join(map(str, shape))}" for shape, name in first.items()][::-1]
        rest = f" and {len(said) - 4} more" if len(said) > 4 else ""
        raise ValueError(
            f"The images differ in size ({', '.join(said[:4])}{rest}): give one for all with "
            "--size H or --size HxW."
        )


def _covering(found: Sequence[int], least: tuple[float, float]) -> Size:
    """The size of the same proportion whose one side is `least`, and the other at least that."""
    (height, width), (least_height, least_width) = found, map(int, least)
    if least_height * width >= least_width * height:
        return least_height, int(least_height * width / height)
    return int(least_width * height / width), least_width


def _resized(picture: np.ndarray, size: Size) -> np.ndarray:
    if picture.shape[:2] == size:
        return picture
    planes = picture.reshape(*picture.shape[:2], -1)
    resized = [
        np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(size[::-1], FILTER))
        for plane in np.moveaxis(planes, -1, 0)
    ]
    whole = np.stack(resized, -1).reshape(*size, *picture.shape[2:])
    return whole if whole.dtype == np.uint8 else np.clip(whole, 0, 255)  # beyond edges it swings
