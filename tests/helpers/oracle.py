"""The rules of relevance propagation in plain numpy, one example at a time.

Written from the equations alone: W (out, in) is the layer's dense matrix, b (out) its offset,
x (in) the layer's input, R (out) the relevance of its output, c_ij = W_ij x_j what input j
contributes to output i. Denominators are stabilised, but for those of flat and w-square: by 1e-9 of
the example's largest, or by an absolute number; where all are 0 nothing is shared out.
Nothing here is fast, and nothing is shared with the library.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

# Both sides add a few hundred float64 terms (each sum is right to some 1e-14) and divide by
# denominators that the test data keep above 1e-4 of the terms.
TOLERANCE = 1e-10

Rule = Callable[["Affine", np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Affine:
    """z = W x + b. connected: which inputs an output is wired to, whatever the weight."""

    W: np.ndarray
    b: np.ndarray
    connected: np.ndarray


def affine(f: Callable, shape: Sequence[int], wiring: Callable | None = None) -> Affine:
    """The matrix of `f`, an affine function of a batch, for one example of that shape.

    wiring: `f` with a kernel of ones, where weights that are zero should count as connected.
    """
    offset = np.asarray(f(np.zeros((1, *shape)))).ravel()
    matrix = _jacobian(f, shape)
    wired = matrix if wiring is None else _jacobian(wiring, shape)
    return Affine(matrix, offset, wired != 0)


def _jacobian(f: Callable, shape: Sequence[int]) -> np.ndarray:
    """Column by column: the derivative along each input, one example of the batch for each."""
    along = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    _, columns = jax.jvp(f, (np.zeros_like(along),), (along,))
    return np.asarray(columns).reshape(len(along), -1).T


def _or_one(d: np.ndarray) -> np.ndarray:
    """A sum of non-negative terms that needs no stabiliser; an empty one shares out nothing."""
    return np.where(d == 0, 1, d)


def stabilise(d: np.ndarray, eps: float | None = None) -> np.ndarray:
    if eps is None:
        eps = 1e-9 * np.abs(d).max(initial=0) or np.inf
    return d + np.where(d < 0, -eps, eps)


def _share(c: np.ndarray, d: np.ndarray, R: np.ndarray) -> np.ndarray:
    """R_j = sum_i c_ij R_i / d_i"""
    return c.T @ (R / d)


def z(layer: Affine, x: np.ndarray, R: np.ndarray, eps: float | None = None) -> np.ndarray:
    c = layer.W * x
    return _share(c, stabilise(c.sum(1) + layer.b, eps), R)


epsilon = partial(z, eps=1e-6)


def zplus(layer: Affine, x: np.ndarray, R: np.ndarray) -> np.ndarray:
    up = np.maximum(layer.W * x, 0)
    return _share(up, stabilise(up.sum(1)), R)


def alpha_beta(
    layer: Affine, x: np.ndarray, R: np.ndarray, alpha: float, beta: float, bias: str = "none"
) -> np.ndarray:
    c, b = layer.W * x, layer.b
    up, down = np.maximum(c, 0), np.minimum(c, 0)
    of_up = {"none": 0, "split": np.maximum(b, 0), "signed": b}[bias]
    of_down = {"none": 0, "split": np.minimum(b, 0), "signed": b}[bias]
    A = stabilise(up.sum(1) + of_up)
    N = -stabilise(-(down.sum(1) + of_down))
    return alpha * _share(up, A, R) - beta * _share(down, N, R)


def gamma(layer: Affine, x: np.ndarray, R: np.ndarray, gamma: float = 0.25) -> np.ndarray:
    c, b = layer.W * x, layer.b
    z = c.sum(1) + b
    same = np.where(z[:, None] < 0, np.minimum(c, 0), np.maximum(c, 0))
    same_b = np.where(z < 0, np.minimum(b, 0), np.maximum(b, 0))
    return _share(c + gamma * same, stabilise(z + gamma * (same.sum(1) + same_b)), R)


def flat(layer: Affine, x: np.ndarray, R: np.ndarray) -> np.ndarray:
    return _share(layer.connected, _or_one(layer.connected.sum(1)), R)


def wsquare(layer: Affine, x: np.ndarray, R: np.ndarray) -> np.ndarray:
    return _share(layer.W**2, _or_one((layer.W**2).sum(1)), R)


def zbox(layer: Affine, x: np.ndarray, R: np.ndarray, low: float, high: float) -> np.ndarray:
    W = layer.W
    c = W * x - np.maximum(W, 0) * low - np.minimum(W, 0) * high
    return _share(c, stabilise(c.sum(1)), R)


def batched(rule: Rule, layer: Affine, x: np.ndarray, R: np.ndarray) -> np.ndarray:
    """The rule on each example of a batch, in the shape of the batch."""
    pairs = zip(np.asarray(x), np.asarray(R), strict=True)
    return np.stack([rule(layer, x.ravel(), R.ravel()).reshape(x.shape) for x, R in pairs])


def windows(
    shape: Sequence[int],
    size: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int] | None = None,
) -> list[list[int]]:
    """For each output of a pool, the inputs under its window, as flat indices in row-major order.

    Padding is left out.
    """
    axes = list(zip(shape, size, strides, padding, dilation or [1] * len(shape), strict=True))
    counts = [(n + sum(p) - (k - 1) * d - 1) // s + 1 for n, k, s, p, d in axes]
    found = []
    for corner in np.ndindex(*counts):
        start = [c * s - p[0] for c, (_, _, s, p, _) in zip(corner, axes, strict=True)]
        taps = [
            [s + t * d for s, t, (*_, d) in zip(start, tap, axes, strict=True)]
            for tap in np.ndindex(*size)
        ]
        inside = [tap for tap in taps if all(0 <= i < n for i, n in zip(tap, shape, strict=True))]
        found.append([int(np.ravel_multi_index(tap, shape)) for tap in inside])
    return found


def winner_takes_all(pool: Iterable[list[int]], x: np.ndarray, R: np.ndarray) -> np.ndarray:
    """Each window gives all of its relevance to its first maximum."""
    out = np.zeros(x.size)
    for window, r in zip(pool, R.ravel(), strict=True):
        out[window[int(np.argmax(x.ravel()[window]))]] += r
    return out


def proportional(pool: Iterable[list[int]], x: np.ndarray, R: np.ndarray) -> np.ndarray:
    """Each window shares its relevance in proportion to its values."""
    out, pool = np.zeros(x.size), list(pool)
    totals = stabilise(np.array([x.ravel()[window].sum() for window in pool]))
    for window, total, r in zip(pool, totals, R.ravel(), strict=True):
        out[window] += x.ravel()[window] * r / total
    return out


def _each(d: np.ndarray) -> np.ndarray:
    """`stabilise` for each example of a batch (N, ...); a vector is one example."""
    return stabilise(d) if d.ndim < 2 else np.stack([stabilise(one) for one in d])


def add_signed(a: np.ndarray, c: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return a * R / _each(a + c), c * R / _each(a + c)


def add_alpha_beta(
    a: np.ndarray, c: np.ndarray, R: np.ndarray, alpha: float, beta: float
) -> tuple[np.ndarray, np.ndarray]:
    A = _each(np.maximum(a, 0) + np.maximum(c, 0))
    N = -_each(-(np.minimum(a, 0) + np.minimum(c, 0)))
    part = lambda v: alpha * np.maximum(v, 0) * R / A - beta * np.minimum(v, 0) * R / N
    return part(a), part(c)


def moved(f: Callable, x: np.ndarray, R: np.ndarray) -> np.ndarray:
    """The relevance of what `f` moves: found by moving the places (from 1 up; 0 is padding)."""
    places = np.arange(1, x.size + 1).reshape(x.shape)
    to = np.asarray(f(places.astype(float))).astype(int)
    return np.bincount(to.ravel(), np.asarray(R).ravel(), x.size + 1)[1:].reshape(x.shape)


def error(actual: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest entry."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert actual.dtype == np.float64
    assert np.isfinite(expected).all() and np.abs(expected).max() > 0
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
    assert error(actual, expected) <= tolerance
