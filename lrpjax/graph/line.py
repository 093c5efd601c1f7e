"""The real line as a precision has it, and the numbers on it at which a piece must be tried."""

from __future__ import annotations

from functools import cache

import jax.numpy as jnp
import numpy as np

from .pieces import COMPARING, Piece, run

_USUAL = np.array(
    [
        *np.linspace(-7.9, 8.3, 38),
        *np.outer([-1, 1], [1e-3, 0.01, 0.05, 0.1, 0.2]).ravel(),  # where thresholds may hide
        *(-20.0, -1.0, 0.0, 20.0),
    ]
)
_MOST_BENDS = 100  # a piece with more is no activation


@cache
def few(dtype: str) -> np.ndarray:
    """Numbers at which most functions differ."""
    largest = float(jnp.finfo(dtype).max)
    return np.concatenate([_USUAL[np.abs(_USUAL) < largest], [-largest, largest]])


@cache
def line(dtype: str) -> np.ndarray:
    """The real line as the dtype has it: 0, every power of 2, what lies on both sides of it, and
    the usual numbers, in order."""
    info = jnp.finfo(dtype)
    powers = 2.0 ** np.arange(info.minexp - info.nmant, info.maxexp)
    return np.unique(np.concatenate([few(dtype), *_sides(powers), *_sides(-powers)]))


def points(piece: Piece, *parameters: float) -> np.ndarray | None:
    """The line, every number written in the piece, every number at which a value in it changes its
    sign or two that it compares change their order, and what lies on both sides of each.

    None if there are too many.
    """
    largest = float(jnp.finfo(piece.dtype).max)
    written = np.array([c for c in piece.numbers if abs(c) <= largest])
    x = np.unique(np.concatenate([line(piece.dtype), *_sides(written)]))
    while True:
        bends = _bends(piece, x, *parameters)
        if bends is None:
            return None
        more = np.setdiff1d(np.concatenate(_sides(bends)), x)
        if len(more) == 0:
            return x
        if len(x) + len(more) > len(line(piece.dtype)) + 10 * _MOST_BENDS:
            return None
        x = np.union1d(x, more)


def _sides(x: np.ndarray) -> tuple[np.ndarray, ...]:
    with np.errstate(all="ignore"):  # what lies beside the largest number is infinity
        return np.nextafter(x, -np.inf), x, np.nextafter(x, np.inf)


def _bends(piece: Piece, x: np.ndarray, *parameters: float) -> np.ndarray | None:
    """Where something changes its sign between neighbours of x, found by bisection."""
    signs = _signs(piece, x, *parameters)
    row, left = np.nonzero(signs[:, 1:] != signs[:, :-1])
    low, high = x[left], x[left + 1]
    apart = (low + (high - low) / 2 > low) & (low + (high - low) / 2 < high)
    row, low, high = row[apart], low[apart], high[apart]
    if len(row) > _MOST_BENDS:
        return None
    below = signs[row, left[apart]]
    while len(row):
        middle = low + (high - low) / 2
        if not ((middle > low) & (middle < high)).any():
            break
        same = _signs(piece, middle, *parameters)[row, np.arange(len(row))] == below
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return high


def _signs(piece: Piece, x: np.ndarray, *parameters: float) -> np.ndarray:
    """Whether each value in the piece, and each difference of two it compares, is below 0."""
    rows = []
    with np.errstate(all="ignore"):
        for step, (ins, out) in zip(piece.steps, run(piece, x, *parameters), strict=True):
            if step.name in COMPARING:
                rows.append(np.less(ins[0], ins[1]))
            elif step.name == "clamp":
                rows += [np.less(ins[1], ins[0]), np.less(ins[1], ins[2])]
            if np.asarray(out).dtype != bool:
                rows.append(np.less(out, 0))
    return np.stack([np.broadcast_to(row, x.shape) for row in rows])
