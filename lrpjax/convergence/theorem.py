"""Which conditions of Theorem 1 the matrices of a chain meet, and which units break them.

A product of non-negative matrices whose columns Z^T e_i are neither zero nor orthogonal to each
other converges to rank 1. Sixt et al. 2020, theorem 1. That the limit of the matrices exists says
nothing about a chain of finitely many. How fast: by Birkhoff's coefficient tanh(Delta / 4) where a
matrix is positive.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from ..propagation.operators import ChainOperator
from .rays import projective_diameter
from .signs import Undecided, signed_sums

_TESTED = 8  # units whose supports are compared with all others'
_NAMED = 5  # units named at most
_WORK = 4e10  # terms in Birkhoff's coefficient, above which it is not computed


def conditions(
    op: ChainOperator,
    key: jax.Array,
    memory_limit: float,
    *,
    dense: np.ndarray | None = None,
    proved: bool = False,
) -> dict[str, Any]:
    """One row for a link of the chain. dense: its matrix, where that is known already. proved:
    whether it is known to be non-negative, as the product of links that are.

    start, layer; non_negative: "yes" (proved for every entry), "no" or "unproven"; negative: an
    entry below zero, in words; zero_columns: how many units send nothing, zero_units names some;
    overlap: the share of pairs of units (of some, with all others) that send to a common place;
    orthogonal: a pair that does not, in words; birkhoff: tanh(Delta / 4), 1.0 where Delta is
    infinite, or None where it was not computed or entries are negative.
    """
    probe = _probe(op, key, dense)
    row: dict[str, Any] = {"start": op.start, "layer": op.stop}
    row["non_negative"], row["negative"] = (
        ("yes", None) if proved else _sign(op, memory_limit, dense)
    )
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


def _probe(op: ChainOperator, key: jax.Array, dense: np.ndarray | None) -> Probe:
    """A sum of terms with random positive weights is zero only if all of them are."""
    n_out, n_in = op.shape
    draw = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    weights = 0.5 + draw.random((max(op.shape), min(_TESTED, n_out)), op.dtype)
    up, down = (op.matmat, op.rmatmat) if dense is None else (dense.__matmul__, dense.T.__matmul__)
    sending = lambda places: np.asarray(up(places)) != 0
    receiving = lambda units: np.asarray(down(units)) != 0
    in_use = sending(weights[:n_in]).any(1)  # as many columns as below: one program
    ranks = np.linspace(0, max(in_use.sum() - 1, 0), weights.shape[1]).round()
    tested = np.searchsorted(np.cumsum(in_use), ranks + 1)
    units = np.arange(n_out)[:, None] == tested
    found = receiving(np.concatenate([weights[:n_out, :1], units], 1, dtype=op.dtype))
    reached, supports = found[:, 0], found[:, 1:]
    return Probe(in_use, reached, tested, supports, sending(supports * weights[:n_in]))


def _sign(
    op: ChainOperator, memory_limit: float, dense: np.ndarray | None
) -> tuple[str, str | None]:
    """Whether Z is non-negative, and an entry that is not, in words."""
    if dense is None:
        try:
            below = np.asarray(signed_sums(op.pull).minus)
        except Undecided:
            below = np.ones(op.shape[1])
        if not below.any():
            return "yes", None
        worst = int(below.argmax())
        one = np.zeros((op.shape[1], min(_TESTED, op.shape[0])), op.dtype)
        one[worst, 0] = 1  # the other columns are those of the probe: one program
        column = np.asarray(op.matmat(one))[:, 0]
        if column.min() < 0:
            return "no", _negative(op, worst, column)
        if op.nbytes > memory_limit:  # the bound is not tight, and the matrix cannot be held
            return "unproven", None
        dense = np.asarray(op.dense(memory_limit=memory_limit))
    worst = int(dense.min(0).argmin())
    column = dense[:, worst]
    return ("yes", None) if column.min() >= 0 else ("no", _negative(op, worst, column))


def _negative(op: ChainOperator, receiver: int, column: np.ndarray) -> str:
    sent = unit_name(op.start, int(column.argmin()), op.out_shape)
    received = unit_name(op.stop, receiver, op.in_shapes[0])
    return f"{column.min():.2g} from {sent} to {received}"


def _birkhoff(
    op: ChainOperator, probe: Probe, memory_limit: float, dense: np.ndarray | None
) -> float | None:
    in_use, reached = probe.in_use, probe.reached
    if not in_use.any():
        return None
    if (reached[:, None] & ~probe.supports).any():
        return 1.0  # one unit sends nothing where another sends something: Delta is infinite
    n_out, n_in = int(in_use.sum()), int(reached.sum())
    if n_out * n_in * min(n_out, n_in) > _WORK or (dense is None and op.nbytes > memory_limit):
        return None
    dense = np.asarray(op.dense(memory_limit=memory_limit)) if dense is None else dense
    if not (in_use.all() and reached.all()):
        dense = dense[in_use][:, reached]
    if not (dense > 0).all():
        return 1.0
    diameter = projective_diameter(dense if n_out <= n_in else dense.T)
    return float(np.tanh(np.asarray(diameter) / 4))
