"""How alike two heat maps are: one number for each image.

A map without structure (constant, or not finite) is like nothing: NaN, which callers drop and
count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import rankdata
from skimage.feature import hog as hog_features
from skimage.metrics import structural_similarity

from .._base import checks

Measure = Callable[..., np.ndarray]
COLOURS = ("auto", "sum", "max-abs", "abs-sum", "none")
MULTIPLIERS = (None, "times", "divided")
_PERCENTILE = 99.5
_WINDOW = 5  # pixels, of the paper's SSIM
_GAUSSIAN = 11  # pixels, of the standard one
_BLOCK = 24  # pixels, of cells whose histograms of gradients are normalised together


def reduced(maps: np.ndarray, colour: str, axis: int | None) -> np.ndarray:
    """Maps (N, ...) without their channel axis, by "sum", "max-abs" or "abs-sum" (of |R|).

    "none" keeps the channels, as the last axis. axis None: there are none.
    """
    if axis is None:
        return maps
    if colour == "none":
        return np.moveaxis(maps, axis, -1)
    if colour == "sum":
        return maps.sum(axis)
    return np.abs(maps).sum(axis) if colour == "abs-sum" else np.abs(maps).max(axis)


def multiplied(maps: np.ndarray, images: np.ndarray, multiplier: str | None) -> np.ndarray:
    """The maps "times" the input or "divided" by it (0 where it is 0): Kokhlikyan et al. 2021."""
    if multiplier not in MULTIPLIERS:
        raise ValueError(f'The multiplier is None, "times" or "divided", got {multiplier!r}.')
    if multiplier is None:
        return maps
    if multiplier == "times":
        return maps * images
    return np.divide(maps, images, out=np.zeros_like(maps), where=images != 0)


def colour_of(colour: str, method: Any) -> str:
    """The colour reduction of a method; "auto" is the method's own."""
    chosen = method.colour if colour == "auto" else colour
    checks.check_known("colour reduction", chosen, COLOURS)
    return chosen


def measures(names: str | Sequence[str], method: Any) -> dict[str, Measure]:
    """The similarities of these names; sparse maps are scaled by their extremes."""
    chosen: list[Any] = list(names) if isinstance(names, list | tuple | set) else [names]
    for name in chosen:
        checks.check_known("similarity", name, SIMILARITIES)
    found = {name: SIMILARITIES[name] for name in chosen}
    if "ssim" in found and method.sparse:
        found["ssim"] = partial(ssim, percentile=100)
    return found


def _each(similarity: Callable[[np.ndarray, np.ndarray], float]) -> Measure:
    """The similarity of single maps, for batches; NaN where one has no structure."""

    def batch(a: np.ndarray, b: np.ndarray, **options: Any) -> np.ndarray:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if a.shape != b.shape:
            raise ValueError(f"Maps to compare have one shape, got {a.shape} and {b.shape}.")
        pairs = zip(a, b, strict=True)
        return np.array(
            [
                similarity(x, y, **options) if structured(x) and structured(y) else np.nan
                for x, y in pairs
            ]
        )

    return batch


def structured(a: np.ndarray) -> bool:
    """Whether a map is finite and not constant."""
    return bool(np.isfinite(a).all() and a.min() < a.max())


def _ssim(a: np.ndarray, b: np.ndarray, percentile: float = _PERCENTILE) -> float:
    """The SSIM of Sixt et al. 2020: 5 x 5 windows, and the sign that fits better.

    Each map is scaled from its 99.5th percentile (0) to its 0.5th (1).
    """
    u, v = _scaled(a, percentile), _scaled(b, percentile)
    window = partial(_windows, size=_WINDOW)
    return max(window(u, v), window(u, 1 - v))


def _scaled(a: np.ndarray, percentile: float) -> np.ndarray:
    low, high = np.percentile(a, [100 - percentile, percentile])
    if low == high:  # all but a few pixels are equal
        low, high = a.min(), a.max()
    return np.clip((a - high) / (low - high), 0, 1)


def _ssim_standard(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM of the maps over their largest |R|, in 11 x 11 Gaussian windows. Wang et al. 2004."""
    u, v = a / np.abs(a).max(), b / np.abs(b).max()
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return _windows(u, v, size=_GAUSSIAN, **gaussian)


def _windows(a: np.ndarray, b: np.ndarray, size: int, **options: Any) -> float:
    if a.ndim not in (2, 3) or min(a.shape[:2]) < size:
        raise ValueError(
            f"SSIM compares pictures of at least {size} x {size} pixels, these maps have shape "
            f'{a.shape}: take similarity="spearman".'
        )
    channel = -1 if a.ndim == 3 else None
    return structural_similarity(a, b, win_size=size, data_range=2, channel_axis=channel, **options)


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    return _cosine(a - a.mean(), b - b.mean())


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    return _pearson(rankdata(a), rankdata(b))


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.ravel() / np.abs(a).max(), b.ravel() / np.abs(b).max()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _hog(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of histograms of oriented gradients, at skimage's settings (8 x 8 pixels
    a cell, 3 x 3 cells a block). Adebayo et al. 2018."""
    if a.ndim not in (2, 3) or min(a.shape[:2]) < _BLOCK:
        raise ValueError(
            f"HOG compares pictures of at least {_BLOCK} x {_BLOCK} pixels, these maps have shape "
            f'{a.shape}: take similarity="spearman".'
        )
    axis = -1 if a.ndim == 3 else None
    u, v = (hog_features(x / np.abs(x).max(), channel_axis=axis) for x in (a, b))
    return _pearson(u, v) if structured(u) and structured(v) else np.nan


# From maps (N, ...) without channels, or with them last, to (N,); 1 is the same map.
ssim = _each(_ssim)
SIMILARITIES: dict[str, Measure] = {
    "ssim": ssim,
    "ssim-standard": _each(_ssim_standard),
    "spearman": _each(_spearman),
    "pearson": _each(_pearson),
    "cosine": _each(_cosine),
    "hog": _each(_hog),
}
