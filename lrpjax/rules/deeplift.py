"""DeepLIFT: multipliers of differences from a reference input. Shrikumar et al. 2017.

x, y: input and output of the layer; x0, y0: the same at the reference; D = x - x0. A multiplier
says how much of the output's difference one unit of the input's difference makes. A difference is
near zero below `near_zero`, an absolute number, or else below 1e-7 max(|x|, |x0|) over the layer's
inputs of one example.

Rescale sends one multiplier m down. RevealCancel sends two, m = (m+, m-) of shape (2, *x.shape),
for the split D = D+ + D-. A paired rule is a pair of linear maps: from the multipliers of the
output to those of the input, and from the split of the input to that of the output. Where one is
the other's transpose, m+ D+ + m- D- has the same sum above and below the layer: completeness.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..layers import Linear, Op, bare, tupled
from .passing import gradient, moved, unbroadcast
from .pooling import winner_takes_all
from .protocol import known, magnitude, negative, positive

Pull = Callable[[Any], Any]
Pair = tuple[Pull, Pull]
NEAR_ZERO = 1e-7  # of a layer's largest input; the reference implementation has it absolute
# Multipliers make sums complete, and no sum of them is kept.
_MULTIPLIES: dict[str, Any] = {
    "linear": True,
    "conserves": False,
    "stabilises": False,
    "takes_apart": False,
    "inside_only": False,
}


@known(**_MULTIPLIES)
def rescale(op: Op, x: jax.Array, y: jax.Array, *, near_zero: float | None = None) -> Pull:
    """m_x = m_y (y - y0) / (x - x0), the derivative at x0 where x - x0 is near zero."""
    (x0,), y0 = op.reference
    difference = x - x0
    _, slope = jax.jvp(op.detail, (x0,), (jnp.ones_like(x0),))
    near = jnp.abs(difference) < _near(op, x, near_zero)
    ratio = jnp.where(near, slope, (y - y0) / jnp.where(near, 1, difference))
    return lambda m: m * ratio


@known(**_MULTIPLIES)
def complete_max(op: Op, x: jax.Array, y: jax.Array) -> Pull:
    """What the maximum gained goes to its winner, what the reference's lost to that one's winner.

    m_x = (T(m_y (max(y, y0) - y0)) + T0(m_y (y - max(y, y0)))) / (x - x0), T and T0 handing
    relevance to the winners of x and of x0; 0 where x = x0. No gain is larger than the winner's
    own difference, so that multipliers lie between 0 and 1.
    """
    (x0,), y0 = op.reference
    to_winner, to_reference = winner_takes_all(op, x, y), winner_takes_all(op, x0, y0)
    top, difference = jnp.maximum(y, y0), x - x0
    inverse = jnp.where(difference == 0, 0, 1 / jnp.where(difference == 0, 1, difference))
    return lambda m: inverse * (to_winner(m * (top - y0)) + to_reference(m * (y - top)))


@known(**_MULTIPLIES)
def signed_linear(op: Linear, x: jax.Array, y: jax.Array) -> Pair:
    """m+_x = m-_x = W+^T m+ + W-^T m- where D > 0, W-^T m+ + W+^T m- where D < 0, their mean at 0.

    In one formula: (W^T (m+ + m-) + sign(D) |W|^T (m+ - m-)) / 2.
    """
    (x0,), _ = op.reference
    sign = jnp.sign(x - x0)

    def pull(m):
        return _same((op.T(m[0] + m[1]) + sign * op.T(m[0] - m[1], jnp.abs)) / 2)

    return pull, _push(pull, y)


@known(**_MULTIPLIES)
def ablated_code(op: Linear, x: jax.Array, y: jax.Array) -> Pair:
    """`signed_linear` without W-: W+^T m+ where D > 0, W+^T m- where D < 0; at 0 unchanged.

    Sixt et al. 2020, official code. The split of the output keeps both signs of W.
    """
    (x0,), _ = op.reference
    difference = x - x0

    def pull(m):
        to_plus, to_minus = jax.vmap(lambda m: op.T(m, positive))(m)
        mean = op.T(m[0] + m[1]) / 2
        return _same(jnp.where(difference > 0, to_plus, jnp.where(difference < 0, to_minus, mean)))

    return pull, signed_linear(op, x, y)[1]


@known(**_MULTIPLIES)
def ablated_text(op: Linear, x: jax.Array, y: jax.Array) -> Pair:
    """m+_x = 1[D > 0] W+^T m+ and m-_x = 1[D < 0] W-^T m-: two chains that never mix.

    Sixt et al. 2020, the paper's text. The split of the output keeps both signs of W.
    """
    (x0,), _ = op.reference
    difference = x - x0

    def pull(m):
        up, down = op.T(m[0], positive), op.T(m[1], negative)
        return jnp.stack([jnp.where(difference > 0, up, 0), jnp.where(difference < 0, down, 0)])

    return pull, signed_linear(op, x, y)[1]


@known(**_MULTIPLIES)
def signed_scale(op: Linear, x: jax.Array, y: jax.Array) -> Pair:
    """m+_x = m+ w+ + m- w-, m-_x = m+ w- + m- w+, for BatchNorm kept apart: y = w x + b."""

    def pull(m):
        same = jax.vmap(lambda m: op.T(m, positive))
        other = jax.vmap(lambda m: op.T(m, negative))
        return same(m) + other(m[::-1])

    return pull, _push(pull, y)


@known(**_MULTIPLIES)
def reveal_cancel(op: Op, x: jax.Array, y: jax.Array, *, near_zero: float | None = None) -> Pair:
    """m+_x = m+ D+_y / D+ and m-_x = m- D-_y / D-, with r = x0 and y = f(x) in

    D+_y = (f(r + D+) - f(r) + f(r + D- + D+) - f(r + D-)) / 2, and D-_y with the signs swapped.
    Below half of what is near zero, that is added to the denominator.
    """
    (r,), (plus, minus) = op.reference[0], op.split[0]
    both = plus + minus
    with_plus = (op(r + plus) - op(r) + op(r + both) - op(r + minus)) / 2
    with_minus = (op(r + minus) - op(r) + op(r + both) - op(r + plus)) / 2
    near = _near(op, x, near_zero)
    away = lambda d: jnp.where(2 * jnp.abs(d) < near, d + jnp.where(d < 0, -near, near), d)
    ratio = jnp.stack([with_plus / away(plus), with_minus / away(minus)])
    return lambda m: m * ratio, lambda split: jnp.stack([with_plus, with_minus])


@known(**_MULTIPLIES)
def paired_rescale(op: Op, x: jax.Array, y: jax.Array, *, near_zero: float | None = None) -> Pair:
    """`rescale` for both multipliers."""
    pull = rescale(op, x, y, near_zero=near_zero)
    return pull, pull  # a diagonal map is its own transpose


@known(**_MULTIPLIES)
def paired_max(op: Op, x: jax.Array, y: jax.Array) -> Pair:
    """`complete_max` for both multipliers."""
    pull = jax.vmap(complete_max(op, x, y))
    return pull, _push(pull, y)


@known(**_MULTIPLIES)
def paired_winner(op: Op, x: jax.Array, y: jax.Array) -> Pair:
    """The winner in x gets both multipliers; the output's split is by sign. Not complete."""
    difference = y - op.reference[1]
    split = jnp.stack([positive(difference), negative(difference)])
    return jax.vmap(winner_takes_all(op, x, y)), lambda _: split


@known(**_MULTIPLIES)
def paired_gradient(op: Op, *values: jax.Array) -> Pair:
    """J^T for both multipliers: sums, averages, other linear maps."""
    pull = jax.vmap(gradient(op, *values))
    return pull, _push(pull, values[-1])


@known(**_MULTIPLIES)
def paired_moved(op: Op, *values: jax.Array) -> Pair:
    """`moved` for both multipliers."""
    pull = jax.vmap(moved(op, *values))
    return pull, _push(pull, values[-1])


@known(**_MULTIPLIES)
def signed_add(op: Op, a: jax.Array, c: jax.Array, y: jax.Array) -> Pair:
    """`signed_linear` of the layer [I I] over both branches ([I -I] for a - c)."""
    references, _ = op.reference
    signs = [jnp.sign(v - v0) for v, v0 in zip((a, c), references, strict=True)]

    def pull(m):
        mean, half = (m[0] + m[1]) / 2, (m[0] - m[1]) / 2
        return tuple(
            _same(unbroadcast(weight * mean + sign * half, v))
            for weight, sign, v in zip(op.detail, signs, (a, c), strict=True)
        )

    return pull, _push(pull, y)


def _near(op: Op, x: jax.Array, near_zero: float | None) -> jax.Array:
    """Below what a difference of an activation's inputs counts as none."""
    if near_zero is not None:
        return jnp.asarray(near_zero, x.dtype)
    (x0,), _ = op.reference
    largest = jnp.maximum(magnitude(op, x), magnitude(op, x0))
    return jnp.maximum(NEAR_ZERO * largest, jnp.finfo(x.dtype).tiny)


def _same(m: jax.Array) -> jax.Array:
    return jnp.stack([m, m])


def _push(pull: Pull, y: Any) -> Pull:
    """The transposed map, from splits of the inputs to splits of the outputs."""
    like = bare(jax.ShapeDtypeStruct((2, *v.shape), v.dtype) for v in tupled(y))
    return lambda *splits: jax.linear_transpose(pull, like)(bare(splits))[0]
