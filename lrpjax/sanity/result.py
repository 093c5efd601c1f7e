"""What the checks return: a row for each measure, with a bootstrap interval of its median."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from scipy.stats import bootstrap

from .._results import Results, key_text

CONFIDENCE = 0.99
RESAMPLES = 10_000


@dataclass(frozen=True)
class Sanity(Results):
    """One row for each method, layer (of a randomisation) and similarity.

    A row has check, method, similarity, values (one for each image: the mean over draws or classes;
    None for a map without structure), dropped (how many are None), median, and low and high, the
    99 % interval of the median when images are drawn anew (None with fewer than two). Of a
    randomisation it also has order, layer and share (of the parameters that are random).
    """

    def __add__(self, other: Sanity) -> Sanity:
        return Sanity({**self.settings, **other.settings}, self.rows + other.rows)

    def plot(self) -> Any:
        """The figure of `lrpjax.plots.randomisation`, `random_logit` or `entropy_rise`."""
        from ..report import plots  # imports go downwards; this is a convenience on top

        checks = {row["check"] for row in self.rows}
        if "efficient-mprt" in checks:
            return plots.entropy_rise(self.rows)
        return (plots.random_logit if "random-logit" in checks else plots.randomisation)(self.rows)


def summary(values: np.ndarray, key: jax.Array) -> list[dict[str, Any]]:
    """Median, interval and what was dropped of each row of values (rows, images)."""
    return [_summary(row, key) for row in values]


def _summary(values: np.ndarray, key: jax.Array) -> dict[str, Any]:
    kept = values[np.isfinite(values)]
    low = high = None
    if len(kept) > 1:
        low, high = interval(kept, key)
    return {
        "median": float(np.median(kept)) if len(kept) else None,
        "low": low,
        "high": high,
        "values": [float(v) if np.isfinite(v) else None for v in values],
        "dropped": len(values) - len(kept),
    }


def interval(values: Sequence[float] | np.ndarray, key: jax.Array) -> tuple[float, float]:
    """The 99 % percentile bootstrap interval of the median, 10,000 resamples (Sixt et al. 2020)."""
    seed = np.ravel(key_text(key)).tolist()
    found = bootstrap(
        (np.asarray(values, np.float64),),
        np.median,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)
