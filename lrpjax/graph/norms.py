"""Normalisation by a statistic, recognised by data flow: LayerNorm, RMSNorm, GroupNorm, L2, local
response normalisation, attention that is divided by its sum, in any spelling.

A statistic depends on the input through reductions alone: a value that is read un-reduced on any
path is none. It divides (or multiplies, falling as its values grow) what has more entries than it
is of numbers, or what was reduced from the same values itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..program import primitives
from ..program.program import Eqn, Program
from ..program.varying import Axes, can_follow


@dataclass(frozen=True)
class Norm:
    """y = x g(roots): the value x times or over a statistic, which is computed from `roots`.

    axes: of y, along which the statistic is one number though x varies there.
    """

    x: int
    roots: tuple[int, ...]
    eqns: tuple[Eqn, ...]
    axes: tuple[int, ...]


@dataclass(frozen=True)
class _Statistic:
    """The values that a statistic is computed from, and how, in order.

    size: how many numbers its reductions leave. degree: of the statistic in the scale of the
    values, None if it has none.
    """

    roots: tuple[int, ...]
    eqns: tuple[Eqn, ...]
    size: int
    degree: float | None


def find_norm(
    program: Program, uniform: Mapping[int, Any], varying: dict[int, Axes], value: int
) -> Norm | None:
    """The normalisation that ends in `value`, or None. uniform: the constants that are one number.

    varying: the axes along which each value varies.
    """
    last = program.producer.get(value)
    if last is None or last.name not in ("mul", "div") or len(program.active_inputs(last)) < 2:
        return None
    left, right = last.inputs
    for x, number in ((left, right), (right, left))[: 2 if last.name == "mul" else 1]:
        found = _statistic(program, uniform, number, last)
        if found is None or not _normalises(last, found):
            continue
        fewer = found.size < math.prod(program.shape(value))
        if not fewer and not _reduced_alike(program, uniform, x, last, found):
            continue
        roots = tuple(v for v in found.roots if v != x)
        axes = tuple(sorted(varying[x] - varying[number]))
        return Norm(x, roots, (*found.eqns, last), axes)
    return None


def _normalises(last: Eqn, statistic: _Statistic) -> bool:
    """Whether the result falls as the values grow that the statistic is computed from."""
    degree = statistic.degree
    if last.name == "mul":
        return degree is not None and degree < 0
    return degree is None or degree > 0


def _reduced_alike(
    program: Program, uniform: Mapping[int, Any], x: int, last: Eqn, statistic: _Statistic
) -> bool:
    """Whether x is itself reduced from values whose scale the statistic has (a cosine of two, the
    mean in Keras' LayerNorm), or the statistic is a sum over windows of x (local response)."""
    own = _statistic(program, uniform, x, last)
    shared = own is not None and not set(own.roots).isdisjoint(statistic.roots)
    if shared and statistic.degree is not None:
        return True
    reductions = {eqn.name for eqn in statistic.eqns if primitives.of(eqn.name).reduces}
    return statistic.roots == (x,) and reductions == {"reduce_window_sum"}


def _statistic(
    program: Program, uniform: Mapping[int, Any], value: int, reader: Eqn
) -> _Statistic | None:
    """A value that depends on the input only through reductions; None for any other.

    Behind a reduction its terms (squares, differences from a mean, products of two) belong to the
    statistic as long as nothing else reads them.
    """
    reads = Counter({value: reader.inputs.count(value)})
    bare, reduced = {value}, set[int]()  # values read un-reduced on some path, or behind a sum
    waiting, roots, eqns, size = {value}, list[int](), list[Eqn](), 0
    while waiting:
        v = max(waiting, key=lambda v: program.order.get(v, -1))
        waiting.discard(v)
        eqn = program.producer.get(v)
        opened = eqn is not None and _may_open(program, eqn)
        if v in reduced and (not opened or reads[v] < program.consumers[v]):
            if v in bare:
                return None
            roots.append(v)
            continue
        if eqn is None or not opened:
            return None
        eqns.append(eqn)
        reduces = _reduces(program, eqn)
        if reduces and v in bare:
            size = max(size, math.prod(program.shape(v)))
        for before in program.active_inputs(eqn):
            reads[before] += 1
            waiting.add(before)
            if v in reduced or reduces:
                reduced.add(before)
            if v in bare and not reduces:
                bare.add(before)
    if not roots:
        return None
    degree = _degree(program, uniform, roots, eqns[::-1])
    return _Statistic(tuple(roots[::-1]), tuple(eqns[::-1]), size, degree)


def _may_open(program: Program, eqn: Eqn) -> bool:
    row = primitives.of(eqn.name)
    of_two = row.role == "dot" and len(program.active_inputs(eqn)) == 2  # as a cosine sums them
    return row.is_entrywise or can_follow(eqn) or row.reduces or of_two


def _reduces(program: Program, eqn: Eqn) -> bool:
    """Whether an equation makes one number of several, for each of what it makes."""
    row = primitives.of(eqn.name)
    if row.role == "dot" and len(program.active_inputs(eqn)) == 2:
        contracted = eqn.params["dimension_numbers"][0][0]
        return any(program.shape(eqn.inputs[0])[i] > 1 for i in contracted)
    if not row.reduces:
        return False
    if "window_dimensions" in eqn.params:
        return max(eqn.params["window_dimensions"]) > 1
    axes = eqn.params.get("axes", ())
    return any(program.shape(eqn.inputs[0])[i] > 1 for i in axes)


def _degree(
    program: Program, uniform: Mapping[int, Any], roots: list[int], eqns: list[Eqn]
) -> float | None:
    """Of the last equation's value in the scale of the roots. Constants beside (against a division
    by 0) have none."""
    degrees: dict[int, float | None] = dict.fromkeys(roots, 1.0)
    for eqn in eqns:
        degree = _degree_of(eqn, degrees, uniform)
        degrees.update(dict.fromkeys(eqn.outputs, degree))
    return degrees[eqns[-1].outputs[0]]


def _degree_of(
    eqn: Eqn, degrees: dict[int, float | None], uniform: Mapping[int, Any]
) -> float | None:
    row = primitives.of(eqn.name)
    values = sorted(row.values(len(eqn.inputs)))
    known = [degrees[eqn.inputs[k]] for k in values if eqn.inputs[k] in degrees]
    own = [degree for degree in known if degree is not None]
    if row.degree == "none" or not known:
        return 0.0
    if row.degree == "-" or len(own) < len(known):
        return None
    if row.degree == "same":
        return own[0] if len(set(own)) == 1 else None
    if row.degree in ("sum", "difference"):
        left, right = (degrees.get(v) or 0.0 for v in eqn.inputs)
        return left + right if row.degree == "sum" else left - right
    if row.degree == "power":
        exponent = eqn.params.get("y", uniform.get(eqn.inputs[-1]))
        return None if exponent is None else own[0] * float(exponent)
    return own[0] * float(row.degree)
