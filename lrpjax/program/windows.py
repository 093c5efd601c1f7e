"""The first maxima of windows of any shape, stride, padding and dilation, and of whole axes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import jax
import jax.numpy as jnp
from jax import lax

from .program import Eqn

Pull = Callable[[jax.Array], jax.Array]


def winners(eqn: Eqn, x: jax.Array) -> Pull:
    """For the equation of a maximum at x: the map that gives what belongs to each maximum (its
    shape that of the outputs) to the entry that is the first to be it, and 0 to others."""
    if eqn.name == "reduce_max":
        return _winner_of_axes(eqn.params["axes"], x)
    if tiles(x.shape, eqn.params):
        return _winner_of_tiles(x, eqn.params["window_dimensions"])
    return _winner_of_windows(x, eqn.params)


def tiles(shape: tuple[int, ...], p: dict) -> bool:
    """Whether the windows cover the input without overlap, padding or remainder."""
    window = p["window_dimensions"]
    plain = set(p["base_dilation"]) | set(p["window_dilation"]) == {1}
    unpadded = all(pad == (0, 0) for pad in p["padding"])
    fits = all(n % k == 0 for n, k in zip(shape, window, strict=True))
    return plain and unpadded and fits and tuple(p["window_strides"]) == tuple(window)


def _winner_of_tiles(x: jax.Array, window: tuple[int, ...]) -> Pull:
    places = list(product(*(range(k) for k in window)))
    view = lambda place: x[tuple(slice(o, None, k) for o, k in zip(place, window, strict=True))]
    winner = _first_maximum_of([view(place) for place in places])
    # (N, H, W, C) with 2x2 tiles as (N, 1, H/2, 2, W/2, 2, C, 1): every other axis is in a tile.
    inside = [2 * i + 1 for i in range(x.ndim)]
    number = jnp.arange(len(places)).reshape([n for k in window for n in (1, k)])
    split = [m for n, k in zip(x.shape, window, strict=True) for m in (n // k, k)]

    def pull(r):
        wins = jnp.expand_dims(winner, inside) == number.astype(winner.dtype)
        spread = jnp.where(wins, jnp.expand_dims(r, inside), 0)
        return jnp.broadcast_to(spread, split).reshape(x.shape)

    return pull


def _first_maximum_of(views: list[jax.Array]) -> jax.Array:
    """Which of the views holds the maximum, the first of equals: elementwise, so that it fuses."""
    best, winner = views[0], jnp.zeros(views[0].shape, jnp.int32)
    for k, here in enumerate(views[1:], 1):
        winner = jnp.where(here > best, k, winner)
        best = jnp.maximum(here, best)
    return winner


def _winner_of_axes(axes: tuple[int, ...], x: jax.Array) -> Pull:
    mask = _first_maximum(x, list(axes))
    return lambda r: jnp.where(mask, jnp.expand_dims(r, axes), 0)


def _first_maximum(x: jax.Array, axes: list[int]) -> jax.Array:
    """True at the first of the largest entries along `axes`, one per remaining position."""
    last = range(x.ndim - len(axes), x.ndim)
    moved = jnp.moveaxis(x, axes, last)
    flat = moved.reshape(*moved.shape[: x.ndim - len(axes)], -1)
    first = jnp.argmax(flat, -1, keepdims=True)
    numbers = jnp.arange(flat.shape[-1], dtype=first.dtype)
    winner = first == numbers.reshape(*[1] * (flat.ndim - 1), -1)
    return jnp.moveaxis(winner.reshape(moved.shape), last, axes)


def _winner_of_windows(x: jax.Array, p: dict) -> Pull:
    """General windows: one strided view of the padded input per place in the window."""
    window, strides = p["window_dimensions"], p["window_strides"]
    dilation, base = p["window_dilation"], p["base_dilation"]
    low = lax.full((), -jnp.inf, x.dtype)
    padding = [(a, b, d - 1) for (a, b), d in zip(p["padding"], base, strict=True)]
    padded = lax.pad(x, low, padding)
    spans = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
    counts = [(n - s) // t + 1 for n, s, t in zip(padded.shape, spans, strides, strict=True)]
    places = [
        [o * d for o, d in zip(offsets, dilation, strict=True)]
        for offsets in product(*(range(k) for k in window))
    ]

    def view(start):
        stop = [s + (c - 1) * t + 1 for s, c, t in zip(start, counts, strides, strict=True)]
        return lax.slice(padded, start, stop, strides)

    winner = _first_maximum_of([view(start) for start in places])

    def pull(r):
        total = jnp.zeros(padded.shape, r.dtype)
        for k, start in enumerate(places):
            back = [
                (s, n - s - (c - 1) * t - 1, t - 1)
                for s, n, c, t in zip(start, padded.shape, counts, strides, strict=True)
            ]
            total += lax.pad(jnp.where(winner == k, r, 0), jnp.zeros((), r.dtype), back)
        unpad = [(-a, -b, 0) for a, b in p["padding"]]
        cropped = lax.pad(total, jnp.zeros((), r.dtype), unpad)
        return cropped[tuple(slice(None, None, d) for d in base)]

    return pull
