"""Step functions: what they compute, where they jump, and how their parameters are read off.

They have no derivative to speak of, so a model trains through them with another one: a
straight-through estimator. Only there they are activations; a step alone is a mask or a count.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

Function = Callable[[float], float]
Parameters = tuple[float, ...]


def step(x: jax.Array, at: float, low: float, high: float, there: float) -> jax.Array:
    """low below `at`, high above, and `there` at it."""
    return jnp.where(x < at, low, jnp.where(x > at, high, there))


def read_step(f: Function, largest: float) -> Parameters | None:
    low, high = f(-largest), f(largest)
    if not (low < high and np.isfinite([low, high]).all()):
        return None
    last, first = _jump(lambda x: f(x) != low, -largest, largest)
    at = first if f(first) != high else _rounder(last, first)
    return at, low, high, f(at)


def step_keeps_sign(at: float, low: float, high: float, there: float) -> bool:
    return low <= 0 <= high and (at <= 0 or low == 0) and (at >= 0 or high == 0) and there * at >= 0


def quantise(
    x: jax.Array, width: float, rise: float, at: float, value: float, low: float, high: float
) -> jax.Array:
    """Stairs, each so wide and so high, of which one begins at `at` with `value`, between bounds.

    round(x) is that with the width 1, the rise 1, and the value 1 from 0.5 on.
    """
    return jnp.clip(value + rise * jnp.floor((x - at) / width), low, high)


def read_quantise(f: Function, largest: float) -> Parameters | None:
    """From three stairs (at a bound one may be lower than others), close to 0 if they can be."""
    low, high = (
        end if end == f(x / 2) and np.isfinite(end) else np.copysign(np.inf, x)
        for x, end in ((-largest, f(-largest)), (largest, f(largest)))
    )
    found = _stairs(f, -largest if np.isfinite(low) else 0.0, largest)
    if found is None or not np.isfinite(low):
        return found and (*found, low, high)
    width, _, at, _ = found
    before = at + width * (np.round(-at / width) - 1.5)
    closer = _stairs(f, before, largest) if before > at else None
    return (*(closer or found), low, high)


def _stairs(f: Function, start: float, largest: float) -> Parameters | None:
    """The width and the rise of up to three stairs above a number, and where the first one begins
    with which value."""
    levels, jumps = [f(start)], list[float]()
    while len(jumps) < 3 and f(largest) > levels[-1]:
        last, first = _jump(lambda x: f(x) > levels[-1], start, largest)
        jumps.append(_rounder(last, first))
        levels.append(f(first))
        start = first
    if len(jumps) < 2 or not np.isfinite(levels).all():
        return None
    width, rise = jumps[1] - jumps[0], max(b - a for a, b in pairwise(levels))
    return (width, rise, jumps[0], levels[1]) if width > 0 else None


def quantise_keeps_sign(
    width: float, rise: float, at: float, value: float, low: float, high: float
) -> bool:
    before = value + rise * (np.ceil(-at / width) - 1)
    after = value + rise * np.floor(-at / width)
    return bool(np.clip(before, low, high) <= 0 <= np.clip(after, low, high))


_MOST = 1024  # jumps that are tried on each side of a place


def quantise_jumps(
    width: float, rise: float, at: float, value: float, low: float, high: float
) -> np.ndarray:
    """Where it jumps: everywhere if it has no more than some thousand stairs, and else near both
    of its ends and near 0, where stairs without end are used."""
    ends = [np.ceil((low - value) / rise), np.floor((high - value) / rise) + 1]
    near = [*(end for end in ends if np.isfinite(end)), np.round(-at / width)]
    numbers = np.concatenate([np.arange(n - _MOST, n + _MOST + 1) for n in near])
    return at + width * np.unique(np.clip(numbers, *ends))


def _jump(holds: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """The last number at which it does not hold and the first at which it does, if it does so at
    `high` and not at `low`, and changes once: by halving how many numbers lie between."""
    first, last = _place(low), _place(high)
    while last - first > 1:
        middle = (first + last) // 2
        first, last = (first, middle) if holds(_at(middle)) else (middle, last)
    return _at(first), _at(last)


def _place(x: float) -> int:
    """The number of a float among all floats, 0 for 0."""
    bits = int(np.abs(np.float64(x)).view(np.int64))
    return -bits if x < 0 else bits


def _at(place: int) -> float:
    size = float(np.int64(abs(place)).view(np.float64))
    return -size if place < 0 else size


def _rounder(a: float, b: float) -> float:
    """The one with fewer digits, in base 2."""
    zeros = lambda x: (place & -place) if (place := _place(x)) else np.inf
    return a if zeros(a) > zeros(b) else b
