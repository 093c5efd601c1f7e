"""Which conditions of Theorem 1 the matrices of a chain meet, and which units break them.

A product of non-negative matrices whose columns Z^T e_i are neither zero nor orthogonal to each
other converges to rank 1. Sixt et al. 2020, theorem 1. That the limit of the matrices exists says
nothing about a chain of finitely many. How fast: by Birkhoff's coefficient tanh(Delta / 4) where a
matrix is positive.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..chain import ChainOperator
from .parts import Undecided, signed_sums
from .rays import projective_diameter

_TESTED = 8  # units whose supports are compared with all others'
_NAMED = 5  # units named at most
_WORK = 4e10  # terms in Birkhoff's coefficient, above which it is not computed


def conditions(
    op: ChainOperator, key: jax.Array, memory_limit: float, dense: jax.Array | None = None
) -> dict[str, Any]:
    """One row for a link of the chain. dense: its matrix, where that is known already.

    start, layer; non_negative: "yes" (proved for every entry), "no" or "unproven"; negative: an
    entry below zero, in words; zero_columns: how many units send nothing, zero_units names some;
    overlap: the share of pairs of units (of some, with all others) that send to a common place;
    orthogonal: a pair that does not, in words; birkhoff: tanh(Delta / 4), 1.0 where Delta is
    infinite, or None where it was not computed or entries are negative.
    """
    in_use, reached, supports, tested = _supports(op, key)
    row: dict[str, Any] = {"start": op.start, "layer": op.stop}
    row["non_negative"], row["negative"] = _sign(op, memory_limit, dense)
    silent = np.flatnonzero(~in_use)
    row["zero_columns"] = len(silent)
    row["zero_units"] = [unit_name(op.start, i, op.out_shape) for i in silent[:_NAMED]]
    common = np.asarray(op.matmat(supports * _weights(key, (op.shape[1], 1), op.dtype)) != 0)
    row["overlap"] = float(common[in_use].mean()) if in_use.any() else None
    row["orthogonal"] = None
    apart = np.argwhere(in_use[:, None] & ~common)
    if len(apart):
        other, i = apart[0]
        a, b = (unit_name(op.start, int(u), op.out_shape) for u in (tested[i], other))
        row["orthogonal"] = f"{a} and {b}"
    holes = bool((reached[:, None] & ~supports).any())
    positive = row["non_negative"] == "yes"
    row["birkhoff"] = None
    if positive:
        row["birkhoff"] = _birkhoff(op, holes, in_use, reached, memory_limit, dense)
    return row


def unit_name(layer: str, number: int, shape: tuple[int, ...]) -> str:
    """conv3[4,2,7]: an entry of a layer's output by its place, the batch left out."""
    place = np.unravel_index(int(number), shape[1:])
    return f"{layer}[{','.join(map(str, place))}]"


def _weights(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Positive numbers without a pattern: a sum of terms weighted by them is 0 if all terms are."""
    return jax.random.uniform(key, shape, dtype, 0.5, 1.5)


def _supports(op: ChainOperator, key: jax.Array) -> tuple[np.ndarray, ...]:
    """Which units send anything, which places receive anything, where each of some units sends
    (n_in, tested), and the numbers of these units."""
    n_out, n_in = op.shape
    in_use = np.asarray(op.matvec(_weights(key, (n_in,), op.dtype)) != 0)
    reached = np.asarray(op.rmatvec(_weights(key, (n_out,), op.dtype)) != 0)
    using = np.flatnonzero(in_use)
    spread = np.linspace(0, len(using) - 1, min(_TESTED, len(using))).round().astype(int)
    tested = using[spread] if len(using) else using
    columns = np.zeros((n_out, max(1, len(tested))))
    columns[tested, np.arange(len(tested))] = 1
    return in_use, reached, np.asarray(op.rmatmat(columns) != 0), tested


def _sign(
    op: ChainOperator, memory_limit: float, dense: jax.Array | None
) -> tuple[str, str | None]:
    """Whether Z is non-negative, and an entry that is not, in words."""
    try:
        below = np.asarray(signed_sums(op).minus)
    except Undecided:
        below = np.ones(op.shape[1])
    if not below.any():
        return "yes", None
    worst = int(below.argmax())
    column = np.asarray(op.matvec(np.eye(1, op.shape[1], worst)[0]))
    if column.min() >= 0:  # the bound is not tight: look at the matrix itself, if it can be held
        if dense is None and _too_large(op, memory_limit):
            return "unproven", None
        dense = op.dense(memory_limit=memory_limit) if dense is None else dense
        worst = int(dense.min(0).argmin())
        column = np.asarray(dense[:, worst])
        if column.min() >= 0:
            return "yes", None
    sender = unit_name(op.start, int(column.argmin()), op.out_shape)
    receiver = unit_name(op.stop, worst, op.in_shapes[0])
    return "no", f"{column.min():.2g} from {sender} to {receiver}"


def _too_large(op: ChainOperator, memory_limit: float) -> bool:
    return math.prod(op.shape) * jnp.dtype(op.dtype).itemsize > memory_limit


def _birkhoff(
    op: ChainOperator,
    holes: bool,
    in_use: np.ndarray,
    reached: np.ndarray,
    memory_limit: float,
    dense: jax.Array | None,
) -> float | None:
    if holes:  # one unit sends nothing where another sends something: Delta is infinite
        return 1.0
    n_out, n_in = int(in_use.sum()), int(reached.sum())
    if n_out * n_in * min(n_out, n_in) > _WORK or not n_out:
        return None
    if dense is None and _too_large(op, memory_limit):
        return None
    dense = op.dense(memory_limit=memory_limit) if dense is None else dense
    if not (in_use.all() and reached.all()):
        dense = dense[in_use][:, reached]
    if not (dense > 0).all():
        return 1.0
    return float(jnp.tanh(projective_diameter(dense if n_out <= n_in else dense.T) / 4))
