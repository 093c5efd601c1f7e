"""Simulated convergence: how fast products of random matrices forget their start.

Gaussian matrices with the shapes of VGG-16's backward pass stand for the relevance matrices of a
network, so that the convergence of a family of rules shows without weights or images. Sixt et al.
2020, appendix B, and the simulation notebook published with it.

The law of the rate: one factor of independent entries with mean m and variance s^2 that sums over
n dimensions shrinks 1 - cos of aligned vectors to about (s^2 / m^2) / n of what it was. With
Gaussian W that is (pi (alpha^2 + beta^2) - 1) / n for alpha W+ + beta W-, and (pi/2 - 1) / n for
|W|. It holds where the factor before summed over as many dimensions, so that the spread of the
aligned vectors' own entries cancels, and for many output dimensions. A law above 1 (alpha 10,
n = 512) says that nothing converges.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import numpy as np
from threadpoolctl import threadpool_limits

from .._base import checks
from .._base.progress import track
from .._base.results import Results, key_text
from .random_chains import ALPHAS, CASES, CONTROLS, DIMENSIONS, FAMILY, SQUARE, Measured, measure

PERCENTILES = (0, 25, 50, 75, 100)
ALIGNED = 1e-3  # mean 1 - |cos| before a factor, below which no pair is far apart
MANY = 32  # output dimensions: the law is a mean over them, and the image has 3
RESOLVED = 1e-26  # float64 rounds unit vectors by some 1e-16, which enters 1 - |cos| squared

# s^2 / m^2 of the entries, for the cases that have a law. The sums of a column of |W| are so equal
# that dividing by them leaves its law.
SPREAD = {
    "stochastic": np.pi / 2 - 1,
    "positive": np.pi / 2 - 1,
    "non-negative": np.pi - 1,
    "alpha1-beta0": np.pi - 1,
    **{name: np.pi * (a**2 + (a - 1) ** 2) - 1 for name, a in zip(FAMILY, ALPHAS, strict=True)},
}


class Simulation(Results):
    """What was measured: one row for each case and step; step 0 is the start.

    A row has case, step, dimension (of the vectors), summed (the dimension that the factor before
    them sums over), one_minus_mean (1 minus the mean |cos| over the lower triangle of all pairs
    with the diagonal, as in the notebook; the median over repetitions), quantiles {percentile: the
    same over repetitions}, nan_share (of the triangle: without an angle, as a vector was zero),
    rate (what the factor left of the mean 1 - |cos| of distinct vectors; the median over
    repetitions, None where rounding would show), and law, its prediction: None where it does not
    apply (see the module). A value that no repetition has is None; what is below 1e-28 is rounding.
    """

    required = "case step dimension summed one_minus_mean quantiles rate law".split()


def simulate(
    *,
    key: jax.Array,
    repetitions: int = 20,
    vectors: int = 32,
    finished: Callable[[Simulation], None] | None = None,
) -> Simulation:
    """Follows Gaussian relevance vectors through chains of random factors W.

    vanilla: W. relu: W, and what is negative after each factor is clipped. stochastic: |W| with
    columns that sum to one. positive: |W|. non-negative: max(0, W), which alpha1-beta0 is too.
    alphaA-betaB: A W+ + B W-, rows not normalised. All of them see the same draws. Two controls
    must not converge: square, Gaussian of 128 x 128, and permutation, of the same size, whose
    columns are non-negative but orthogonal, which the theorem excludes.

    The chains run in numpy on the host: double precision is not to be had on every device. The
    key alone decides the numbers, and a repetition is the same however many there are.
    finished: called with what there is after each repetition.
    """
    checks.check_count(1, repetitions=repetitions)
    checks.check_count(2, vectors=vectors)  # cosines are of pairs
    seed = np.ravel(key_text(key)).tolist()
    done: list[dict[str, Measured]] = []

    def result() -> Simulation:
        settings = {"repetitions": len(done), "vectors": vectors, "key": seed}
        return Simulation(settings, _summary(done, vectors))

    # A thread for each repetition: its products are too small to gain from more, and sums in one
    # order give the same numbers on every number of processors.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            found = pool.map(partial(measure, seed, vectors=vectors), range(repetitions))
            for one in track(found, "repetitions", repetitions):
                done.append(one)
                if finished is not None:
                    finished(result())
        finally:
            pool.shutdown(cancel_futures=True)
    return result()


def _summary(done: Sequence[dict[str, Measured]], vectors: int) -> list[dict[str, Any]]:
    rows = []
    for case in (*CASES, *CONTROLS):
        distance = np.stack([one[case].distance for one in done])  # (repetitions, steps)
        alive = np.stack([one[case].alive for one in done])
        with_diagonal = distance * (alive - 1) / (alive + 1)  # n(n - 1)/2 pairs of n(n + 1)/2
        nan_share = 1 - (alive * (alive + 1)).mean(0) / (vectors * (vectors + 1))
        dimensions = SQUARE if case in CONTROLS else DIMENSIONS
        for step, dimension in enumerate(dimensions):
            quantiles = _quantiles(with_diagonal[:, step])
            row = {
                "case": case,
                "step": step,
                "dimension": dimension,
                "summed": dimensions[step - 1] if step > 0 else None,
                "one_minus_mean": quantiles["50"],
                "quantiles": quantiles,
                "nan_share": float(nan_share[step]),
                "rate": _rate(distance, step),
                "law": _law(case, dimensions, distance, step),
            }
            rows.append(row)
    return rows


def _rate(distance: np.ndarray, step: int) -> float | None:
    if step == 0 or not (distance[:, step] > RESOLVED).all():  # nor for nan
        return None
    return float(np.median(distance[:, step] / distance[:, step - 1]))


def _law(case: str, dimensions: Sequence[int], distance: np.ndarray, step: int) -> float | None:
    if case not in SPREAD or step < 2 or dimensions[step] < MANY:
        return None
    summed, summed_before = dimensions[step - 1], dimensions[step - 2]
    aligned = np.median(distance[:, step - 1]) < ALIGNED
    return SPREAD[case] / summed if aligned and summed == summed_before else None


def _quantiles(values: np.ndarray) -> dict[str, float | None]:
    kept = values[~np.isnan(values)]
    if len(kept) == 0:
        return {str(p): None for p in PERCENTILES}
    return {str(p): float(np.percentile(kept, p)) for p in PERCENTILES}
