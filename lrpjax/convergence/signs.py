"""Proof, without writing it down, that the matrix of a chain has no negative entry.

Every value that a propagation computes from relevance r is linear in it, M r. Two arrays of its
shape are carried along, upper bounds of what is positive and of what is negative in each row:

    P_j >= sum_i max(M_ji, 0),    N_j >= sum_i max(-M_ji, 0)

A product with constants c takes P to c+ P + |c-| N, and N to c+ N + |c-| P; sums and moves take
each to itself. Where N ends as zero, M is not negative. It costs a few propagations, whatever the
size of the matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._base.compat import CALLS, FOR_ONE_RUN, ClosedJaxpr, Literal, call_body, scan_counts
from ..program import primitives
from ..rules.protocol import negative, positive


class Parts(NamedTuple):
    """Bounds of what is positive and of what is negative (both non-negative) in a linear map."""

    plus: jax.Array
    minus: jax.Array


class Undecided(Exception):
    """A primitive of which it is not known what it does to the signs."""


@partial(jax.jit, compiler_options=FOR_ONE_RUN)
def signed_sums(pull: jax.tree_util.Partial) -> Parts:
    """Bounds of the positive and of the negative entries in each column of Z, summed: (n_in,) each.

    pull: that of an operator of Z.

    Exact where no entry is a sum of terms of both signs. Raises Undecided where a rule does what
    cannot be followed.
    """
    replay: Any = pull.func
    (consts,) = pull.args
    ones = [Parts(jnp.ones(s.shape, s.dtype), jnp.zeros(s.shape, s.dtype)) for s in replay.like]
    found = [_parts(out) for out in _run(ClosedJaxpr(replay.jaxpr, consts), ones)]
    join = lambda arrays: jnp.concatenate([a.ravel() for a in arrays])
    return Parts(join(f.plus for f in found), join(f.minus for f in found))


def _run(closed: ClosedJaxpr, inputs: Sequence[Any]) -> list[Any]:
    jaxpr = closed.jaxpr
    env = dict[Any, Any](zip(jaxpr.constvars, closed.consts, strict=True))
    env |= dict(zip(jaxpr.invars, inputs, strict=True))
    read = lambda atom: jnp.asarray(atom.val) if isinstance(atom, Literal) else env[atom]
    for eqn in jaxpr.eqns:
        values = [read(atom) for atom in eqn.invars]
        name = eqn.primitive.name
        if not any(isinstance(v, Parts) for v in values):
            outs = _bind(eqn, values)
        elif name in CALLS:
            outs = _run(call_body(eqn), values)
        elif name == "scan":
            outs = _scanned(eqn, values)
        else:
            outs = _rule(name)(eqn, values)
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _bind(eqn: Any, values: Sequence[Any]) -> Sequence[Any]:
    outs = eqn.primitive.bind(*values, **eqn.params)
    return outs if eqn.primitive.multiple_results else [outs]


def _parts(value: Any) -> Parts:
    return value if isinstance(value, Parts) else Parts(positive(value), -negative(value))


def _undecided(eqn: Any, values: Sequence[Any]) -> list[Any]:
    raise Undecided(eqn.primitive.name)


def _moved(eqn: Any, values: Sequence[Any]) -> list[Any]:
    """Sums and moves of values: indices and predicates are constants."""
    moved = primitives.of(eqn.primitive.name).values(len(values))
    kept = {id(v) for i, v in enumerate(values) if i not in moved}
    if any(isinstance(v, Parts) for i, v in enumerate(values) if i not in moved):
        raise Undecided(eqn.primitive.name)
    of = lambda part: [v if id(v) in kept else getattr(_parts(v), part) for v in values]
    plus, minus = _bind(eqn, of("plus")), _bind(eqn, of("minus"))
    return [Parts(p, m) for p, m in zip(plus, minus, strict=True)]


def _multiplied(eqn: Any, values: Sequence[Any]) -> list[Any]:
    """The product with a constant, on either side."""
    if all(isinstance(v, Parts) for v in values):
        raise Undecided(eqn.primitive.name)
    (a, b) = map(_parts, values)
    times = lambda x, y: _bind(eqn, [x, y])[0]
    plus = times(a.plus, b.plus) + times(a.minus, b.minus)
    minus = times(a.plus, b.minus) + times(a.minus, b.plus)
    return [Parts(plus, minus)]


def _divided(eqn: Any, values: Sequence[Any]) -> list[Any]:
    r, by = values
    if isinstance(by, Parts):
        raise Undecided(eqn.primitive.name)
    plus, minus = r.plus / jnp.abs(by), r.minus / jnp.abs(by)
    return [Parts(jnp.where(by > 0, plus, minus), jnp.where(by > 0, minus, plus))]


def _scanned(eqn: Any, values: Sequence[Any]) -> list[Any]:
    """A scan (a large matrix is read in blocks; see `graph.blocks`)."""
    p = eqn.params
    n_consts, n_carry = scan_counts(eqn)
    consts, carry, xs = values[:n_consts], values[n_consts:][:n_carry], values[n_consts + n_carry :]

    def step(carry, here):
        outs = _run(p["jaxpr"], [*consts, *carry, *here])
        kept = [_parts(o) if isinstance(c, Parts) else o for c, o in zip(carry, outs, strict=False)]
        return kept, outs[n_carry:]

    first = jax.tree.map(lambda x: x[0], xs)
    reached = -1
    while reached != sum(isinstance(c, Parts) for c in carry):  # relevance may reach more with each
        reached = sum(isinstance(c, Parts) for c in carry)
        after, _ = jax.eval_shape(step, carry, first)
        carry = [
            _parts(c) if isinstance(o, Parts) else c for c, o in zip(carry, after, strict=True)
        ]
    carry, ys = jax.lax.scan(step, carry, xs, p["length"], p["reverse"])
    return [*carry, *ys]


_SIGNED: dict[str, Callable[[Any, Sequence[Any]], list[Any]]] = {
    "div": _divided,
    "neg": lambda eqn, v: [Parts(v[0].minus, v[0].plus)],
    "sub": lambda eqn, v: [
        Parts(
            _parts(v[0]).plus + _parts(v[1]).minus,
            _parts(v[0]).minus + _parts(v[1]).plus,
        )
    ],
}


def _rule(name: str) -> Callable[[Any, Sequence[Any]], list[Any]]:
    """What a primitive does to the parts, as the table of primitives says."""
    row = primitives.of(name)
    if name in _SIGNED:
        return _SIGNED[name]
    if row.is_product:
        return _multiplied
    return _moved if row.linear == "all" and row.sign == "keeps" else _undecided
