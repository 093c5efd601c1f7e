"""Along which of its axes a value may vary, and where what moves values takes axes."""

from __future__ import annotations

from collections.abc import Sequence

from . import primitives
from .factors import Axis, Factor, length, reshaped
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
        return frozenset(push_through(program, [eqn], varying[eqn.inputs[0]]))
    return long


def push_through(program: Program, eqns: Sequence[Eqn], axes: Axes | set[int]) -> set[int]:
    """Where a set of axes of the first equation's input is in the last one's output. Each reads
    the one before it."""
    if not eqns:
        return set(axes)
    return {i for i, sources in enumerate(_origins(program, eqns)) if axes & sources}


def pull_through(program: Program, eqns: Sequence[Eqn], axes: Axes | set[int]) -> set[int]:
    """Where a set of axes of the last equation's output is in the first one's input."""
    if not eqns:
        return set(axes)
    origins = _origins(program, eqns)
    return set().union(*(origins[i] for i in axes))


def _origins(program: Program, eqns: Sequence[Eqn]) -> list[set[int]]:
    """For each axis of the last output, the axes of the first input that it is made of: what one
    reshape merges and another takes apart is where it was."""
    read = lambda eqn: (program.active_inputs(eqn) or eqn.inputs)[0]
    sources = _Sources()
    axes = [sources.add(n, {i}) for i, n in enumerate(program.shape(read(eqns[0])))]
    for eqn in eqns:
        rule = _ORIGINS.get(primitives.of(eqn.name).axes, _in_place)
        axes = rule(sources, eqn.params, axes, program.shape(eqn.outputs[0]))
    return [sources.of(axis) for axis in axes]


Shape = tuple[int, ...]


class _Sources:
    """By the label of a factor, the axes in front that it is made of."""

    def __init__(self) -> None:
        self.known: list[set[int]] = [set()]  # no label is the batch's

    def add(self, size: int, axes: set[int]) -> Axis:
        """An axis of a new factor."""
        self.known.append(axes if size > 1 else set())
        return (Factor(len(self.known) - 1, 1, size),)

    def of(self, axis: Axis) -> set[int]:
        return set().union(*(self.known[f.label] for f in axis if f.size > 1))


def _in_place(sources: _Sources, params: dict, axes: list[Axis], out: Shape) -> list[Axis]:
    if len(axes) != len(out):
        return [sources.add(n, set().union(*map(sources.of, axes))) for n in out]
    as_long = lambda axis, n: axis if length(axis) == n else sources.add(n, sources.of(axis))
    return [as_long(axis, n) for axis, n in zip(axes, out, strict=True)]


def _transposed(sources: _Sources, params: dict, axes: list[Axis], out: Shape) -> list[Axis]:
    return [axes[i] for i in params["permutation"]]


def _squeezed(sources: _Sources, params: dict, axes: list[Axis], out: Shape) -> list[Axis]:
    return [axis for i, axis in enumerate(axes) if i not in params["dimensions"]]


def _reduced(sources: _Sources, params: dict, axes: list[Axis], out: Shape) -> list[Axis]:
    return [axis for i, axis in enumerate(axes) if i not in params["axes"]]


def _broadcast(sources: _Sources, params: dict, axes: list[Axis], out: Shape) -> list[Axis]:
    back = {int(o): axes[i] for i, o in enumerate(params["broadcast_dimensions"])}
    here = lambda o: o in back and length(back[o]) == out[o]
    return [back[o] if here(o) else sources.add(n, set()) for o, n in enumerate(out)]


def _reshaped(sources: _Sources, params: dict, axes: list[Axis], out: Shape) -> list[Axis]:
    order = params.get("dimensions") or range(len(axes))
    axes = [axes[i] for i in order]
    if 0 in out:  # no numbers to count with
        return [sources.add(2, set().union(*map(sources.of, axes))) for _ in out]
    mixed = set[int]()  # of what is torn to pieces
    made, torn = reshaped(axes, out, lambda size: sources.add(size, mixed))
    mixed |= sources.of(torn)
    return made


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
