"""Along which of its axes a value may vary, and where what moves values takes axes."""

from __future__ import annotations

from . import primitives
from .factors import kept_axes
from .program import Eqn, Program

Axes = frozenset[int]


def find_varying(program: Program) -> dict[int, Axes]:
    """For each value the axes along which it may vary: all that are longer than 1 of an input or
    of a parameter, none along which it was repeated or summed over."""
    varying: dict[int, Axes] = {}
    long = lambda v: frozenset(i for i, n in enumerate(program.shape(v)) if n > 1)
    for value in (*program.literals, *program.consts, *program.inputs):
        varying[value] = long(value)
    for eqn in program.eqns:
        for out in eqn.outputs:
            varying[out] = long(out) & _through(program, eqn, varying, long(out))
    return varying


def _through(program: Program, eqn: Eqn, varying: dict[int, Axes], long: Axes) -> Axes:
    row = primitives.of(eqn.name)
    if row.axes == "same":
        return frozenset().union(*(varying[v] for v in eqn.inputs if program.shape(v)))
    if row.axes in _ORIGINS:
        return frozenset(push_axes(program, eqn, varying[eqn.inputs[0]]))
    return long


def push_axes(program: Program, eqn: Eqn, axes: Axes | set[int]) -> set[int]:
    """Where a set of axes of an equation's input is in its output."""
    return {i for i, sources in enumerate(_origins(program, eqn)) if axes & sources}


def pull_axes(program: Program, eqn: Eqn, axes: Axes | set[int]) -> set[int]:
    """Where a set of axes of an equation's output is in its input."""
    origin = _origins(program, eqn)
    return set().union(*(origin[i] for i in axes)) if axes else set()


def _origins(program: Program, eqn: Eqn) -> list[set[int]]:
    """For each axis of an equation's output, the axes of its input that it is made of."""
    source = (program.active_inputs(eqn) or eqn.inputs)[0]
    shape, out = program.shape(source), program.shape(eqn.outputs[0])
    rule = _ORIGINS.get(primitives.of(eqn.name).axes, _in_place)
    return rule(eqn.params, shape, out)


Shape = tuple[int, ...]


def _in_place(params: dict, shape: Shape, out: Shape) -> list[set[int]]:
    if len(shape) != len(out):
        return [set(range(len(shape))) for _ in out]
    return [{i} for i in range(len(out))]


def _transposed(params: dict, shape: Shape, out: Shape) -> list[set[int]]:
    return [{i} for i in params["permutation"]]


def _squeezed(params: dict, shape: Shape, out: Shape) -> list[set[int]]:
    return [{i} for i in range(len(shape)) if i not in params["dimensions"]]


def _reduced(params: dict, shape: Shape, out: Shape) -> list[set[int]]:
    return [{i} for i in range(len(shape)) if i not in params["axes"]]


def _broadcast(params: dict, shape: Shape, out: Shape) -> list[set[int]]:
    back = {int(o): i for i, o in enumerate(params["broadcast_dimensions"])}
    here = lambda o: o in back and shape[back[o]] == out[o]
    return [{back[o]} if here(o) else set() for o in range(len(out))]


def _reshaped(params: dict, shape: Shape, out: Shape) -> list[set[int]]:
    pairs = {new: old for old, new in kept_axes(shape, out)}
    mixed = {i for i, n in enumerate(shape) if n > 1} - set(pairs.values())
    return [{pairs[i]} if i in pairs else (mixed if out[i] > 1 else set()) for i in range(len(out))]


# The rules, by the word in the column `axes` of the primitives, under which axes can be followed.
_ORIGINS = {
    "same": _in_place,
    "each": _in_place,
    "reverse": _in_place,
    "slice": _in_place,
    "window": _in_place,
    "along": _in_place,
    "transpose": _transposed,
    "squeeze": _squeezed,
    "reduce": _reduced,
    "broadcast": _broadcast,
    "reshape": _reshaped,
}


def can_follow(eqn: Eqn) -> bool:
    """Whether the axes of a move's one operand can be followed into its output."""
    row = primitives.of(eqn.name)
    return row.is_move and row.axes in _ORIGINS
