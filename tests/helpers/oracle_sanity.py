"""Parameter randomisation and the random-logit test in numpy, scipy and scikit-image.

Written from the equations of Adebayo et al. 2018, Sixt et al. 2020 and Hedstrom et al. 2024.
Nothing here is fast, and nothing is shared with the library.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import stats
from skimage.feature import hog as hog_features
from skimage.metrics import structural_similarity

MAX_ABS = ("gradient", "guided-bp", "deconv", "rect-grad", "smooth-grad")

# --- from a map (N, ...) to what is compared --------------------------------------------------


def reduced(maps: np.ndarray, colour: str, axis: int | None) -> np.ndarray:
    """Maps (N, ...) without their channel axis (counted with the batch), or with it last."""
    if axis is None:
        return maps
    return {
        "none": lambda: np.moveaxis(maps, axis, -1),
        "sum": lambda: maps.sum(axis),
        "max-abs": lambda: np.abs(maps).max(axis),
        "abs-sum": lambda: np.abs(maps).sum(axis),
    }[colour]()


def multiplied(maps: np.ndarray, x: np.ndarray, multiplier: str | None) -> np.ndarray:
    if multiplier == "times":
        return maps * x
    if multiplier == "divided":
        return np.divide(maps, x, out=np.zeros_like(maps), where=x != 0)
    return maps


# --- similarities of two maps, of one image ---------------------------------------------------


def flat(map_: np.ndarray) -> bool:
    return bool((map_ == map_.flat[0]).all())


def scaled(map_: np.ndarray, percentile: float) -> np.ndarray:
    """The top to 0 and the bottom to 1, cut at the percentiles; where these coincide, uncut."""
    bottom, top = np.percentile(map_, [100 - percentile, percentile])
    if bottom == top:
        bottom, top = map_.min(), map_.max()
    return np.clip((map_ - top) / (bottom - top), 0, 1)


def ssim(a: np.ndarray, b: np.ndarray, percentile: float = 99.5) -> float:
    """Sixt et al. 2020: 5 x 5 uniform windows, the sign that fits better."""
    u, v = scaled(a, percentile), scaled(b, percentile)
    one = lambda v: structural_similarity(u, v, win_size=5, data_range=2)
    return max(one(v), one(1 - v))


def ssim_standard(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004: a Gaussian window of deviation 1.5, of maps divided by their max |R|."""
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return structural_similarity(a / np.abs(a).max(), b / np.abs(b).max(), data_range=2, **options)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    return stats.spearmanr(a.ravel(), b.ravel()).statistic


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    return stats.pearsonr(a.ravel(), b.ravel()).statistic


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = (m.ravel() / np.abs(m).max() for m in (a, b))
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def hog(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of histograms of oriented gradients, of maps divided by max |R|."""
    cells = {"orientations": 9, "pixels_per_cell": (8, 8), "cells_per_block": (3, 3)}
    return pearson(*(hog_features(m / np.abs(m).max(), **cells) for m in (a, b)))


SIMILARITIES = {
    "ssim": ssim,
    "ssim-standard": ssim_standard,
    "spearman": spearman,
    "pearson": pearson,
    "cosine": cosine,
    "hog": hog,
}


def similarities(name: str, a: np.ndarray, b: np.ndarray, **options: float) -> np.ndarray:
    """(N,) of maps (N, ...), NaN where one of them has no structure."""
    pairs = [
        np.nan if flat(m) or flat(n) else SIMILARITIES[name](m, n, **options)
        for m, n in zip(np.asarray(a, np.float64), np.asarray(b, np.float64), strict=True)
    ]
    return np.array(pairs)


def entropy(map_: np.ndarray, bins: int) -> float:
    """Of the histogram of a map's entries between its least and its largest."""
    counts, _ = np.histogram(map_, bins=bins)
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def relative_rise(trained: np.ndarray, random: np.ndarray, bins: int) -> np.ndarray:
    """(N,): (H_random - H_trained) / H_trained, NaN where one of the maps is constant."""
    pairs = [
        np.nan if flat(a) or flat(b) else entropy(b, bins) / entropy(a, bins) - 1
        for a, b in zip(trained, random, strict=True)
    ]
    return np.array(pairs)


# --- a small network, its maps and its cascade ------------------------------------------------

LAYERS = ("conv1", "conv2", "fc")
SIZE, CLASSES = 24, 6


def parameters(seed: int, channels: int = 3) -> dict[str, dict[str, np.ndarray]]:
    """conv1, conv2 (3 x 3, same) and fc, as training leaves them: no leaf is constant."""
    rng = np.random.default_rng(seed)
    kernel = lambda *shape: rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]) / 2)
    bias = lambda n: rng.normal(size=n) / 4
    return {
        "conv1": {"kernel": kernel(3, 3, channels, 5), "bias": bias(5)},
        "conv2": {"kernel": kernel(3, 3, 5, 4), "bias": bias(4)},
        "fc": {"kernel": kernel(SIZE * SIZE * 4, CLASSES), "bias": bias(CLASSES)},
    }


def images(number: int, seed: int = 3, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(number, SIZE, SIZE, channels))


def correlate(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.einsum("nijcab,abco->nijo", windows, kernel)


def transposed(r: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return correlate(r, kernel[::-1, ::-1].swapaxes(2, 3))


def hidden(p: dict, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two pre-activations and the logits."""
    first = correlate(x, p["conv1"]["kernel"]) + p["conv1"]["bias"]
    second = correlate(np.maximum(first, 0), p["conv2"]["kernel"]) + p["conv2"]["bias"]
    flattened = np.maximum(second, 0).reshape(len(x), -1)
    return first, second, flattened @ p["fc"]["kernel"] + p["fc"]["bias"]


def logits(p: dict, x: np.ndarray) -> np.ndarray:
    return hidden(p, x)[-1]


# What passes back through a ReLU, of relevance r at pre-activation z.
RELU = {
    "gradient": lambda z, r: (z > 0) * r,
    "guided-bp": lambda z, r: (z > 0) * np.maximum(r, 0),
    "deconv": lambda z, r: np.maximum(r, 0),
}


def maps(p: dict, x: np.ndarray, target: np.ndarray, method: str, start: str) -> np.ndarray:
    """R of x's shape, started from 1 ("one") or from the logit."""
    first, second, out = hidden(p, x)
    seed = np.eye(CLASSES)[target] * (out if start == "logit" else 1)
    back = RELU["gradient" if method == "input-x-gradient" else method]
    r = back(second, (seed @ p["fc"]["kernel"].T).reshape(second.shape))
    r = transposed(back(first, transposed(r, p["conv2"]["kernel"])), p["conv1"]["kernel"])
    return r * x if method == "input-x-gradient" else r


def cascade(
    trained: dict, random: dict, order: str, names: Sequence[str] = LAYERS
) -> Iterator[tuple[str, dict]]:
    """(the layer reached, the parameters there), from the output, from the input, or one by one."""
    mixed = copy.deepcopy(trained)
    for name in names[::-1] if order == "output" else names:
        if order == "single":
            mixed = copy.deepcopy(trained)
        mixed[name] = random[name]
        yield name, copy.deepcopy(mixed)


# --- summaries --------------------------------------------------------------------------------


def summary(values: np.ndarray) -> tuple[float, int]:
    """(median of what is defined, how many are not)."""
    kept = values[~np.isnan(values)]
    return float(np.median(kept)), int(np.isnan(values).sum())


def bootstrap(values: np.ndarray, resamples: int = 200_000, seed: int = 0) -> np.ndarray:
    """The 99 % interval of the median: percentiles 0.5 and 99.5 of medians of resamples."""
    rng = np.random.default_rng(seed)
    drawn = rng.choice(values, (resamples, len(values)))
    return np.percentile(np.median(drawn, axis=1), [0.5, 99.5])


def known(values: Sequence[float | None]) -> np.ndarray:
    """A row's values with NaN for None."""
    return np.array([np.nan if v is None else v for v in values], np.float64)
