"""Which conditions of Theorem 1 the matrices of a chain meet, and which units break them.

A product of non-negative matrices whose columns Z^T e_i are neither zero nor orthogonal to each
other converges to rank 1. Sixt et al. 2020, theorem 1. That the limit of the matrices exists says
nothing about a chain of finitely many. How fast: by Birkhoff's coefficient tanh(Delta / 4) where a
matrix is positive.
"""

from __future__ import annotations

from typing import Any, NamedTuple

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
    probe = Probe(*map(np.asarray, _probe(op, key)))
    row: dict[str, Any] = {"start": op.start, "layer": op.stop}
    row["non_negative"], row["negative"] = _sign(op, memory_limit, dense)
    silent = np.flatnonzero(~probe.in_use)
    row["zero_columns"] = len(silent)
    row["zero_units"] = [unit_name(op.start, i, op.out_shape) for i in silent[:_NAMED]]
    row["overlap"] = row["orthogonal"] = row["birkhoff"] = None
    others = probe.in_use[:, None] & (np.arange(len(probe.in_use))[:, None] != probe.tested)
    if others.any():
        row["overlap"] = float(probe.common[others].mean())
    apart = np.argwhere(others & ~probe.common)
    if len(apart):
        pair = (probe.tested[apart[0, 1]], apart[0, 0])
        row["orthogonal"] = " and ".join(unit_name(op.start, u, op.out_shape) for u in pair)
    if row["non_negative"] == "yes":
        row["birkhoff"] = _birkhoff(op, probe, memory_limit, dense)
    return row


def unit_name(layer: str, number: int, shape: tuple[int, ...]) -> str:
    """conv3[4,2,7]: an entry of a layer's output by its place, the batch left out."""
    place = np.unravel_index(int(number), shape[1:])
    return f"{layer}[{','.join(map(str, place))}]"


class Probe(NamedTuple):
    """in_use (n_out,): which units send anything. reached (n_in,): which places receive anything.
    tested (t,): the numbers of some units; supports (n_in, t): where each of them sends, common
    (n_out, t): which units send to one of these places."""

    in_use: Any
    reached: Any
    tested: Any
    supports: Any
    common: Any


@jax.jit
def _probe(op: ChainOperator, key: jax.Array) -> Probe:
    """A sum of terms with random positive weights is zero only if all of them are."""
    n_out, n_in = op.shape
    weigh = lambda shape: jax.random.uniform(key, shape, op.dtype, 0.5, 1.5)
    in_use = op.matvec(weigh((n_in,))) != 0
    count = jnp.cumsum(in_use)
    tested = jnp.searchsorted(count, jnp.linspace(1, count[-1], min(_TESTED, n_out)).round())
    units = jax.nn.one_hot(tested, n_out, axis=0, dtype=op.dtype)
    down = op.rmatmat(jnp.concatenate([weigh((n_out, 1)), units], 1)) != 0
    reached, supports = down[:, 0], down[:, 1:]
    return Probe(in_use, reached, tested, supports, op.matmat(supports * weigh((n_in, 1))) != 0)


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
        if dense is None and op.nbytes > memory_limit:
            return "unproven", None
        dense = op.dense(memory_limit=memory_limit) if dense is None else dense
        worst = int(dense.min(0).argmin())
        column = np.asarray(dense[:, worst])
        if column.min() >= 0:
            return "yes", None
    sender = unit_name(op.start, int(column.argmin()), op.out_shape)
    receiver = unit_name(op.stop, worst, op.in_shapes[0])
    return "no", f"{column.min():.2g} from {sender} to {receiver}"


def _birkhoff(
    op: ChainOperator, probe: Probe, memory_limit: float, dense: jax.Array | None
) -> float | None:
    in_use, reached = probe.in_use, probe.reached
    if not in_use.any():
        return None
    if (reached[:, None] & ~probe.supports).any():
        return 1.0  # one unit sends nothing where another sends something: Delta is infinite
    n_out, n_in = int(in_use.sum()), int(reached.sum())
    if n_out * n_in * min(n_out, n_in) > _WORK or (dense is None and op.nbytes > memory_limit):
        return None
    dense = op.dense(memory_limit=memory_limit) if dense is None else dense
    if not (in_use.all() and reached.all()):
        dense = dense[in_use][:, reached]
    if not (dense > 0).all():
        return 1.0
    return float(jnp.tanh(projective_diameter(dense if n_out <= n_in else dense.T) / 4))
