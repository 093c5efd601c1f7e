"""What transformers are made of: softmax, normalisation by a statistic, products of two values.

Softmax and normalisation are recognised by data flow, in any spelling: exp(x) over its own sum,
and a value times or over a number that was reduced from values (LayerNorm, RMSNorm, GroupNorm,
L2 and local response normalisation).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from .activations import ELEMENTWISE
from .fold import SUMS, push_axes
from .program import Eqn, Program

_IN_PLACE = set(
    "convert_element_type copy copy_p reduce_precision optimization_barrier select_n name".split()
)
_MOVES = _IN_PLACE | set(
    "reshape transpose squeeze expand_dims broadcast_in_dim stop_gradient slice".split()
)
_REDUCTIONS = {*SUMS, "reduce_max", "reduce_min", "reduce_window_max"}
NORMALISING = {"mul", "div"}
PRODUCTS = {"mul", "dot_general"}
_ROOTS = {"sqrt", "rsqrt", "pow"}  # what tells a deviation in a product from a gate


@dataclass(frozen=True)
class Softmax:
    """y = exp(x) / sum exp(x) over `axes`, from the value `root`."""

    root: int
    axes: tuple[int, ...]
    eqns: tuple[Eqn, ...]


@dataclass(frozen=True)
class Norm:
    """y = x g(roots): the value x times or over a statistic, which is computed from `roots`."""

    x: int
    roots: tuple[int, ...]
    eqns: tuple[Eqn, ...]


def find_softmax(program: Program, value: int) -> Softmax | None:
    """The softmax that ends in `value`, or None."""
    last = program.producer.get(value)
    if last is None or last.name != "div" or len(program.active_inputs(last)) < 2:
        return None
    powers, total = last.inputs
    summed, steps = _back_to(program, total, {"reduce_sum"}, _MOVES)
    exponential, between = _back_to(program, powers, {"exp"}, _IN_PLACE)
    if summed is None or exponential is None or not _stands_where_it_was(program, summed, steps):
        return None
    summed_axes = set(summed.params["axes"])
    terms, before = _back_to(program, summed.inputs[0], {"exp"}, _IN_PLACE)
    if terms is None or terms.inputs != exponential.inputs:  # one exp, or the same written twice
        return None
    root = exponential.inputs[0]
    eqns = [exponential, *between, terms, *before, summed, *steps, last]
    shift = program.producer.get(root)
    if shift is not None and shift.name == "sub" and len(program.active_inputs(shift)) == 2:
        # exp(x - max x), against overflow. The softmax does not depend on what is subtracted, so
        # the maximum is no input of the layer.
        largest, moved = _back_to(program, shift.inputs[1], {"reduce_max"}, _MOVES | {"max"})
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
    places = []
    for axis in range(len(program.shape(reduction.outputs[0]))):
        place = {axis}
        for eqn in reversed(steps):
            place = push_axes(program, eqn, place)
        places.append(place)
    return places


def _back_to(
    program: Program, value: int, wanted: set[str], passing: set[str]
) -> tuple[Eqn | None, list[Eqn]]:
    """The equation of a wanted primitive that makes the value, and the equations after it."""
    steps: list[Eqn] = []
    while (eqn := program.producer.get(value)) is not None:
        if eqn.name in wanted:
            return eqn, steps
        active = program.active_inputs(eqn)
        if eqn.name not in passing or len(active) != 1:
            break
        steps.append(eqn)
        value = active[0]
    return None, []


def find_norm(program: Program, value: int) -> Norm | None:
    """The normalisation that ends in `value`, or None."""
    last = program.producer.get(value)
    if last is None or last.name not in NORMALISING or len(program.active_inputs(last)) < 2:
        return None
    left, right = last.inputs
    size = math.prod(program.shape(value))
    for x, number in ((left, right), (right, left))[: 2 if last.name == "mul" else 1]:
        # A mean times a deviation of the same shape (Keras' LayerNorm) is normalised too.
        cone = _statistic(program, number, last, size + (last.name == "mul"))
        if cone is None and last.name == "div":
            cone = _of_own_windows(program, x, number, last)
        if cone is None:
            continue
        roots, eqns = cone
        if last.name == "div" or any(eqn.name in _ROOTS for eqn in eqns):
            return Norm(x, tuple(v for v in roots if v != x), (*eqns, last))
    return None


def _of_own_windows(
    program: Program, x: int, number: int, reader: Eqn
) -> tuple[list[int], list[Eqn]] | None:
    """The cone of a number that comes, entry by entry, from sums over windows of x itself, as in
    local response normalisation: as many numbers as x has, but none of another value."""
    cone = _statistic(program, number, reader, math.prod(program.shape(x)) + 1)
    if cone is None:
        return None
    roots, eqns = cone
    reductions = {eqn.name for eqn in eqns} & _REDUCTIONS
    return cone if roots == [x] and reductions == {"reduce_window_sum"} else None


def _statistic(
    program: Program, value: int, reader: Eqn, size: int
) -> tuple[list[int], list[Eqn]] | None:
    """(roots, equations) of a value that depends on the input only through reductions to fewer
    than `size` numbers; None for any other value.

    Behind a reduction its terms (squares, differences from a mean) belong to the statistic as long
    as nothing else reads them.
    """
    reads = Counter({value: reader.inputs.count(value)})
    reduced: set[int] = set()  # values behind a reduction
    waiting, roots, eqns = {value}, list[int](), list[Eqn]()
    while waiting:
        v = max(waiting, key=lambda v: program.order.get(v, -1))
        waiting.discard(v)
        eqn = program.producer.get(v)
        opened = eqn is not None and eqn.name in ELEMENTWISE | _MOVES | _REDUCTIONS
        if v in reduced and (not opened or reads[v] < program.consumers[v]):
            roots.append(v)
            continue
        if eqn is None or not opened:
            return None
        reduces = eqn.name in _REDUCTIONS
        if reduces and v not in reduced and math.prod(program.shape(v)) >= size:
            return None
        eqns.append(eqn)
        for before in program.active_inputs(eqn):
            reads[before] += 1
            waiting.add(before)
            if reduces or v in reduced:
                reduced.add(before)
    return (roots[::-1], eqns[::-1]) if roots else None


def is_product(program: Program, eqn: Eqn) -> bool:
    """Whether an equation multiplies two input-dependent values, entry by entry or as matrices."""
    return eqn.name in PRODUCTS and len(program.active_inputs(eqn)) == 2
