"""Jaxprs as values: which equations a result needs, and when two are the same program."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np

from .compat import ClosedJaxpr, Jaxpr, Literal, Var


def variables(atoms: Iterable[Any]) -> list[Var]:
    return [atom for atom in atoms if not isinstance(atom, Literal)]


def needed(
    eqns: Sequence[Any], writes: Iterable[Var], known: AbstractSet[Var]
) -> tuple[list[Any], list[Var]]:
    """The equations that compute some variables, in order, and the known ones that they read."""
    live, chosen, reads = set(writes), list[Any](), dict[Var, None]()
    for eqn in reversed(eqns):
        if not live.isdisjoint(eqn.outvars):
            chosen.append(eqn)
            for v in variables(eqn.invars):
                if v in known:
                    reads[v] = None
                else:
                    live.add(v)
    return chosen[::-1], list(reads)


def identity(jaxpr: Jaxpr) -> Hashable:
    """What is equal for two jaxprs that do the same to the same constants and inputs, whatever
    their variables are called and wherever they were written.

    A parameter of an equation is what its own equality says: functions are the same only if they
    are one.
    """
    numbers: dict[Var, int] = {}
    number = lambda v: numbers.setdefault(v, len(numbers))
    one = lambda atom: _literal(atom) if isinstance(atom, Literal) else number(atom)
    like = lambda vs: tuple((number(v), v.aval) for v in vs)
    ends = like(jaxpr.constvars), like(jaxpr.invars)
    eqns = tuple(
        (e.primitive, e.ctx, tuple(map(one, e.invars)), like(e.outvars), _value(e.params))
        for e in jaxpr.eqns
    )
    return ends, eqns, tuple(map(one, jaxpr.outvars))


def _literal(atom: Literal) -> Hashable:
    return atom.aval, np.asarray(atom.val).tobytes()


class _Same:
    """A thing that equals itself alone."""

    def __init__(self, thing: Any):
        self.thing = thing

    def __hash__(self) -> int:
        return id(self.thing)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.thing is other.thing


def _value(thing: Any) -> Hashable:
    if isinstance(thing, ClosedJaxpr):
        return identity(thing.jaxpr), tuple(map(_value, thing.consts))
    if isinstance(thing, Jaxpr):
        return identity(thing)
    if isinstance(thing, dict):
        return tuple((name, _value(thing[name])) for name in sorted(thing))
    if type(thing) in (tuple, list):
        return type(thing), tuple(map(_value, thing))
    if isinstance(thing, np.ndarray):
        return thing.dtype.str, thing.shape, thing.tobytes()
    try:
        hash(thing)
    except TypeError:
        return _Same(thing)
    return type(thing), thing
