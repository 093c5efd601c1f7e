"""What the checks return: a row for each measure, with a bootstrap interval of its median."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from scipy.stats import bootstrap

from .._base.results import Results, key_text

CONFIDENCE = 0.99
RESAMPLES = 10_000
BATCH = 500  # resamples held at once


class Sanity(Results):
    """One row for each method, layer (of a randomisation) and similarity.

    A row has check, method, similarity, values (one for each image: the mean over draws or classes;
    None for a map without structure), dropped (how many are None), median, and low and high, the
    99 % interval of the median when images are drawn anew (None with fewer than two). Of a
    randomisation it also has order, layer, shared (the layers below that compute with parameters of
    this one: they are randomised here, once) and share (of the parameters that are random).
    """

    required = "check method similarity values dropped median low high".split()
    shown = "check method order layer similarity median low high dropped share".split()


def summary(values: np.ndarray, key: jax.Array) -> list[dict[str, Any]]:
    """Median, interval and what was dropped of each row of values (rows, images)."""
    finite = np.isfinite(values)
    ends = np.full((len(values), 2), np.nan)
    for kept in np.unique(finite, axis=0):
        if kept.sum() > 1:
            alike = (finite == kept).all(1)
            ends[alike] = intervals(values[alike][:, kept], key)
    of = lambda number: float(number) if np.isfinite(number) else None
    return [
        {
            "median": float(np.median(row[kept])) if kept.any() else None,
            "low": of(low),
            "high": of(high),
            "values": [of(v) for v in row],
            "dropped": int((~kept).sum()),
        }
        for row, kept, (low, high) in zip(values, finite, ends, strict=True)
    ]


def intervals(values: np.ndarray, key: jax.Array) -> np.ndarray:
    """The 99 % percentile bootstrap interval (rows, 2) of the median of each row (rows, n), of
    10,000 resamples (Sixt et al. 2020), the same for all rows."""
    seed = np.ravel(key_text(key)).tolist()
    found = bootstrap(
        (np.asarray(values, np.float64),),
        _median,
        axis=1,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        batch=BATCH,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return np.stack([found.low, found.high], 1)


def _median(values: np.ndarray, axis: int) -> np.ndarray:
    """numpy's own takes three times as long where there are many short rows."""
    n = values.shape[axis]
    return np.sort(values, axis).take([(n - 1) // 2, n // 2], axis).mean(axis)
