"""PatternNet and PatternAttribution: a pattern A in the place of a layer's weights.

Kindermans et al. 2018; the patterns are fitted by `lrpjax.patterns.fit`. A has the layout of W.
"""

from __future__ import annotations

from collections.abc import Callable

import jax

from ..layers import Linear, Op
from .passing import gradient
from .protocol import known

Pull = Callable[[jax.Array], jax.Array]


@known(linear=True, conserves=False, stabilises=False, takes_apart=False, inside_only=False)
def pattern(op: Linear, x: jax.Array, z: jax.Array) -> Pull:
    """R_in = A^T R: PatternNet, or PatternAttribution where A already holds A * W."""
    a = _pattern(op)
    return lambda r: op.T(r, a)


@known(linear=True, conserves=False, stabilises=False, takes_apart=False, inside_only=False)
def pattern_times_weights(op: Linear, x: jax.Array, z: jax.Array) -> Pull:
    """R_in = (A * W)^T R with the present weights: PatternAttribution."""
    a = _pattern(op)
    return lambda r: op.T(r, a * op.w)


@known(linear=True, conserves=False, stabilises=False, takes_apart=False, inside_only=False)
def derivative(op: Op, x: jax.Array, y: jax.Array) -> Pull:
    """R_in = f'(x) R at an activation. A step function hands R on: its derivative is 0, and that
    which a model gives to it (as a function with its own) is not one of the layer's equations."""
    detail = op.layer.detail
    return (lambda r: r) if detail.is_step and not detail.stops_gradient else gradient(op, x, y)


def _pattern(op: Linear) -> jax.Array:
    name = op.layer.name
    if op.pattern is None:
        raise ValueError(
            f"There is no pattern for the layer {name!r}: fit patterns on this very model with "
            "lrpjax.patterns.fit(model, images)."
        )
    if op.pattern.shape != op.w.shape:
        raise ValueError(
            f"The pattern of the layer {name!r} has shape {op.pattern.shape}, its weights have "
            f"{op.w.shape}: fit patterns on this very model with lrpjax.patterns.fit."
        )
    return op.pattern.astype(op.w.dtype)
