"""Softmax, recognised by data flow: exp(x) over its own sum, in any spelling."""

from __future__ import annotations

from dataclasses import dataclass

from ..program import primitives
from ..program.program import Eqn, Program
from ..program.varying import can_follow, push_through


@dataclass(frozen=True)
class Softmax:
    """y = exp(x) / sum exp(x) over `axes`, from the value `root`."""

    root: int
    axes: tuple[int, ...]
    eqns: tuple[Eqn, ...]


def find_softmax(program: Program, value: int) -> Softmax | None:
    """The softmax that ends in `value`, or None."""
    last = program.producer.get(value)
    if last is None or last.name != "div" or len(program.active_inputs(last)) < 2:
        return None
    powers, total = last.inputs
    summed, steps = _back_to(program, total, "reduce_sum", in_place=False)
    exponential, between = _back_to(program, powers, "exp", in_place=True)
    if summed is None or exponential is None or not _stands_where_it_was(program, summed, steps):
        return None
    summed_axes = set(summed.params["axes"])
    terms, before = _back_to(program, summed.inputs[0], "exp", in_place=True)
    if terms is None or terms.inputs != exponential.inputs:  # one exp, or the same written twice
        return None
    root = exponential.inputs[0]
    eqns = [exponential, *between, terms, *before, summed, *steps, last]
    shift = program.producer.get(root)
    if shift is not None and shift.name == "sub" and len(program.active_inputs(shift)) == 2:
        # exp(x - max x), against overflow. The softmax does not depend on what is subtracted, so
        # the maximum is no input of the layer.
        largest, moved = _back_to(program, shift.inputs[1], "reduce_max", in_place=False)
        if largest is not None and not summed_axes & set().union(*_places(program, largest, moved)):
            root, eqns = shift.inputs[0], [shift, *eqns]
    in_order = sorted(set(eqns), key=lambda eqn: program.order[eqn.outputs[0]])
    return Softmax(root, tuple(sorted(summed_axes)), tuple(in_order))


def _stands_where_it_was(program: Program, summed: Eqn, steps: list[Eqn]) -> bool:
    """Whether the axes a sum has left stand, behind the steps, where they stood in its terms."""
    shape = program.shape(summed.inputs[0])
    left = [i for i in range(len(shape)) if i not in summed.params["axes"]]
    places = _places(program, summed, steps)
    return all(place == {axis} for axis, place in zip(left, places, strict=True) if shape[axis] > 1)


def _places(program: Program, reduction: Eqn, steps: list[Eqn]) -> list[set[int]]:
    """Where each axis that a reduction has left is behind the steps."""
    left = range(len(program.shape(reduction.outputs[0])))
    return [push_through(program, steps[::-1], {axis}) for axis in left]


def _back_to(
    program: Program, value: int, wanted: str, *, in_place: bool
) -> tuple[Eqn | None, list[Eqn]]:
    """The equation of a primitive that makes the value, and the moves (and, where not in place,
    the maxima with a constant) after it."""
    steps: list[Eqn] = []
    while (eqn := program.producer.get(value)) is not None:
        if eqn.name == wanted:
            return eqn, steps
        active = program.active_inputs(eqn)
        row = primitives.of(eqn.name)
        stays = row.is_move and (row.is_entrywise or row.axes == "each")
        passes = stays if in_place else stays or can_follow(eqn) or eqn.name == "max"
        if not passes or len(active) != 1:
            break
        steps.append(eqn)
        value = active[0]
    return None, []
