"""Levels from 0 (black) to 255 (white) of numbers of any type."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._base.reading import Unreadable

Range = tuple[float, float]


def as_levels(values: np.ndarray, limits: Range | None, given: Range | None) -> np.ndarray:
    """Numbers of any shape as float32 levels, not rounded: low is 0, high is 255.

    limits: those of the values' type, None for floats. given: black and white as the user says
    them, in place of the type's; what lies outside of these is cut off, as in a window of grey.
    Raises ValueError for floats without a given range, as one taken from each file would make them
    incomparable, for NaN and infinity, and where the range is so far from what there is that all of
    it would be one shade of grey.
    """
    if not np.isfinite(values).all():
        raise Unreadable("there is NaN or infinity in it")
    used = given or limits
    if used is None:
        raise Unreadable(
            f"it holds floats{_span(values)}, and only you know what is black and what is white: "
            "say so with --range LOW HIGH, one range for all images"
        )
    low, high = used
    levels = np.clip((values.astype(np.float64) - low) * (255 / (high - low)), 0, 255)
    if values.size and np.ptp(levels) < 1 and values.min() < values.max():
        whose = "the range of their type is" if given is None else "--range is"
        raise Unreadable(
            f"all of it would be one shade of grey: it holds numbers{_span(values)}, and {whose} "
            f"{low:g} to {high:g}: give their own with --range LOW HIGH"
        )
    return levels.astype(np.float32)


def limits_of(dtype: Any) -> Range | None:
    """The least and largest number of an integer type (False and True: 0 and 1); None of floats."""
    if np.issubdtype(dtype, np.bool_):
        return 0, 1
    if np.issubdtype(dtype, np.integer):
        return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    return None


def _span(values: np.ndarray) -> str:
    return f" from {values.min():g} to {values.max():g}" if values.size else ""
