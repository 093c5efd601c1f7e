"""Occlusion: what the explained logit loses when a window of the input is covered."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ..propagation.baselines import Baseline, baseline_of, rows_of
from ..propagation.entries import named
from .estimator import Estimator, ExplainedOutput, Maps

SIDES = 8  # of the default window in an image's side


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["base", "baseline"],
    meta_fields=["name", "at_once", "window", "stride"],
)
@dataclass(frozen=True, kw_only=True)
class Occlusion(Estimator):
    """For each pixel the mean of f(x) - f(x with a window covered) over the windows upon it.

    window, stride: in pixels, a number or one for each spatial axis (an eighth of the image's side;
    half a window). Windows cover all channels, and the last of a row ends at the border. baseline:
    what covers (see `baselines`; over a set the losses are averaged). Zeiler and Fergus 2014.
    """

    name: str = "occlusion"
    window: int | tuple[int, ...] | None = None
    stride: int | tuple[int, ...] | None = None
    baseline: Baseline = field(default_factory=baseline_of, compare=False)

    def evaluations(self, explained: ExplainedOutput, leaves: Maps) -> int:
        return math.prod(self._counts(explained, leaves)) * len(rows_of(self.baseline, leaves)[0])

    def sample(self, explained: ExplainedOutput, leaves: Maps, i: jax.Array) -> Maps:
        (x,) = leaves
        (rows,) = rows_of(self.baseline, leaves)
        cover = self._window(explained, leaves, i // len(rows))
        covered = jnp.where(cover, rows[i % len(rows)], x)
        drop = (explained.output([x]) - explained.output([covered])) / len(rows)
        return [jnp.where(cover, drop.reshape(-1, *[1] * (x.ndim - 1)), 0).astype(x.dtype)]

    def finish(self, explained: ExplainedOutput, leaves: Maps, state: Any) -> Maps:
        # How many windows lie upon a pixel is the product of the numbers along its axes.
        (x,), (total,) = leaves, state
        times = jnp.ones((1,) * x.ndim, x.dtype)
        for axis, window, stride, count in self._axes(explained, leaves):
            starts = stride * jnp.arange(count)[:, None]
            place = jnp.arange(x.shape[axis])[None]
            upon = ((place >= starts) & (place < starts + window)).sum(0).astype(x.dtype)
            times = times * upon.reshape([-1 if k == axis else 1 for k in range(x.ndim)])
        return [total / times]

    def _window(self, explained: ExplainedOutput, leaves: Maps, i: jax.Array) -> jax.Array:
        """Where the i-th window lies: True in a shape that broadcasts to the input's."""
        (x,) = leaves
        cover = jnp.ones((1,) * x.ndim, bool)
        for axis, window, stride, count in self._axes(explained, leaves)[::-1]:
            start = stride * (i % count)
            i = i // count
            place = jnp.arange(x.shape[axis])[None]
            inside = (place >= start) & (place < start + window)
            cover = cover & inside.reshape([-1 if k == axis else 1 for k in range(x.ndim)])
        return cover

    def _counts(self, explained: ExplainedOutput, leaves: Maps) -> list[int]:
        return [count for *_, count in self._axes(explained, leaves)]

    def _axes(self, explained: ExplainedOutput, leaves: Maps) -> list[tuple[int, int, int, int]]:
        """(axis, window, stride, number of windows) for each spatial axis."""
        if len(leaves) != 1:
            raise ValueError(f"occlusion covers one input, this model has {len(leaves)}.")
        (x,) = leaves
        feature = explained.graph.axes.feature[explained.graph.program.inputs[0]]
        if feature is None and x.ndim > 2:
            feature = x.ndim - 1  # nothing says which axis the channels are on: the last, as usual
        axes = [k for k in range(1, x.ndim) if k != feature or x.ndim == 2]
        sides = [x.shape[k] for k in axes]
        windows = _each("window", self.window, [max(1, n // SIDES) for n in sides])
        strides = _each("stride", self.stride, [-(-w // 2) for w in windows])
        for n, window, stride in zip(sides, windows, strides, strict=True):
            if not 1 <= window <= n:
                raise ValueError(
                    f"The window must be 1 to {n} pixels along a side of {n}, got {window}."
                )
            if not 1 <= stride <= window:
                raise ValueError(
                    f"The stride must be 1 to {window} pixels for a window of {window} (a larger "
                    f"one leaves gaps), got {stride}."
                )
        counts = [1 + -(-(n - w) // s) for n, w, s in zip(sides, windows, strides, strict=True)]
        return list(zip(axes, windows, strides, counts, strict=True))


def _each(name: str, value: Any, default: list[int]) -> list[int]:
    if value is None:
        return default
    values = list(value) if isinstance(value, tuple | list) else [value] * len(default)
    if len(values) != len(default):
        raise ValueError(
            f"The {name} needs one number or one for each of {len(default)} spatial axes, "
            f"got {value}."
        )
    return values


@named(
    "occlusion", "f(x) - f(x with a window covered)", "Zeiler and Fergus 2014", "no", "no",
    chain=False,
)  # fmt: skip
def occlusion(
    window: int | tuple[int, ...] | None = None,
    stride: int | tuple[int, ...] | None = None,
    *,
    baseline: Any = 0.0,
    baselines: Any = None,
    at_once: int | None = None,
) -> Estimator:
    """window, stride: in pixels, a number or one for each spatial axis (default: an eighth of the
    image's side, and half a window). baseline: what covers: a number, an input, or one for
    each image; baselines: a set to average over. at_once: windows
    that run at once.
    """
    x0 = baseline_of(baseline, baselines)
    return Occlusion(window=window, stride=stride, baseline=x0, at_once=at_once)
