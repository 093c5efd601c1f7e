"""Whether an input is what a model says that it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.checks import is_concrete

WIDTHS = 10  # by which floats may leave a range: levels up to 255 leave one of 0 to 1 by 254
ROUNDING = 1e-3  # by which preprocessing may miss the bounds of its range


def check_stated_range(model: Any, x: Any) -> None:
    """Raises ValueError where an input is far from the model's own `input_range`: images as they
    are in a file, say, for a model of the range from 0 to 1.

    Integers must lie in it. Floats may leave it by some widths of it, as noise does.
    """
    stated = _bounds(getattr(model, "input_range", None))
    if stated is None:
        return
    low, high = stated
    for leaf in jax.tree.leaves(x):
        if not is_concrete(leaf) or not jnp.size(leaf):
            continue
        numbers: Any = np if isinstance(leaf, np.ndarray) else jnp
        beyond = (
            WIDTHS * (high - low)
            if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
            else ROUNDING
        )
        least, most = float(numbers.min(leaf)), float(numbers.max(leaf))
        if least < low - beyond or most > high + beyond:
            prepare = "model.preprocess(x)" if hasattr(model, "preprocess") else "x scaled to it"
            raise ValueError(
                f"The model takes inputs from {low:g} to {high:g} (its `input_range`), and x, of "
                f"{jnp.result_type(leaf)}, holds {least:g} to {most:g}: pass {prepare}."
            )


def _bounds(stated: Any) -> tuple[float, float] | None:
    """The least and largest number of a range, whose bounds may be one for each channel; None where
    an attribute of that name is something else."""
    if not isinstance(stated, Sequence) or len(stated) != 2:
        return None
    try:
        return float(np.min(stated[0])), float(np.max(stated[1]))
    except (TypeError, ValueError):
        return None
