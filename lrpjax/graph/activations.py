"""Activations, recognised by what they compute and not by how they are spelled.

An activation is a piece of the program that maps one value to one of the same shape,
elementwise and with numbers written in the code (or, for PReLU, with one trained parameter). Its
name is found by evaluating it on the whole real line.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..program import primitives
from ..program.program import Eqn, Program, calls_around
from .fold import is_negation
from .known import CLIP, KNOWN, PRELU, Parameters
from .matching import is_prelu, recognise
from .pieces import piece_of

_LARGEST = 32  # equations in an activation


@dataclass(frozen=True)
class Activation:
    """The activation of that name with these parameters (the slope of leaky_relu, the alpha of elu,
    the bounds of clip), from the value `root`.

    never_negative: the model's own values are >= 0 everywhere, and its function's range says so.
    """

    name: str
    parameters: Parameters
    never_negative: bool
    root: int
    eqns: tuple[Eqn, ...]

    def __call__(self, x: jax.Array) -> jax.Array:
        """The known function; PReLU has none without the model's parameters."""
        return KNOWN[self.name].function(x, *self.parameters)

    @property
    def range(self) -> tuple[float, float]:
        """Bounds of the known function."""
        return KNOWN[self.name].range(*self.parameters)

    @property
    def gate(self) -> bool:
        """Whether it lies between 0 and 1, so that it may weigh another value."""
        low, high = self.range
        return low >= 0 and high <= 1

    @property
    def cuts(self) -> bool:
        """Whether it is piecewise linear."""
        return KNOWN[self.name].cuts

    @property
    def is_step(self) -> bool:
        """Whether it is constant but for jumps."""
        return KNOWN[self.name].is_step

    @property
    def rises(self) -> bool:
        """Whether f(x) <= f(y) for all x < y."""
        return KNOWN[self.name].rises

    @property
    def keeps_sign(self) -> bool:
        """Whether f(x) x >= 0 for all x."""
        return KNOWN[self.name].keeps_sign(*self.parameters)

    @property
    def bounds(self) -> int:
        """How many bounds it cuts at: 1 for a ReLU, 2 for a ReLU6."""
        return sum(map(math.isfinite, self.range)) if self.cuts else 0

    @property
    def stops_gradient(self) -> bool:
        """Whether its derivative is not that of the function that its values are (the
        straight-through spelling)."""
        return any(map(_stops, self.eqns))


def find_activation(
    program: Program, uniform: dict[int, np.ndarray], value: int
) -> Activation | None:
    """The activation that ends in `value`: the smallest known piece of the program.

    What cuts at one bound takes in what cuts at the other (relu6 is a minimum of a maximum), and a
    clip the affine map that makes it a hard sigmoid. The negative of log_sigmoid(h) is that, and
    not softplus(-h), although log_sigmoid's own first step makes -h.
    """
    known = partial(_known, program, uniform, value)
    pieces = _pieces(program, value, uniform)
    found = next(filter(None, (known(*piece) for piece in pieces)), None)
    if found is None or _is_negative_of_another(program, uniform, found):
        return None
    if found.bounds == 1:
        inner = find_activation(program, uniform, found.root)
        if inner is not None and inner.bounds == 1:
            both = known(inner.root, inner.eqns + found.eqns, set())
            found = both if both is not None and both.bounds == 2 else found
    if found.name == CLIP:
        for root, eqns, trained in _pieces(program, found.root, uniform):
            if trained or not all(map(_is_affine, eqns)):
                break
            if larger := known(root, eqns + found.eqns, set()):
                return larger
    return found


def _is_negative_of_another(
    program: Program, uniform: dict[int, np.ndarray], found: Activation
) -> bool:
    """Whether an activation is the negative of one that begins with the sign of its root, or has
    its last sign taken back by what reads it: -(-min(-h, c)) is a minimum, and no max(h, -c)."""
    *rest, last = found.eqns
    if not is_negation(uniform, last):
        return False
    (before,) = program.active_inputs(last)
    inner = find_activation(program, uniform, before)
    if inner is None:
        return False
    readers = program.readers[last.outputs[0]]
    taken_back = readers and all(is_negation(uniform, reader) for reader in readers)
    if taken_back and (inner.cuts or inner.name == found.name):
        return True
    if not set(inner.eqns) > set(rest):
        return False
    root, signs = inner.root, 0  # two signs in a row are none
    while (eqn := program.producer.get(root)) is not None and is_negation(uniform, eqn):
        (root,) = program.active_inputs(eqn)
        signs += 1
    return signs % 2 == 0


def _known(
    program: Program,
    uniform: dict[int, np.ndarray],
    value: int,
    root: int,
    eqns: tuple[Eqn, ...],
    trained: set[int],
) -> Activation | None:
    """The equations from root to value as an activation, if they are one that is known."""
    straight = _is_straight_through(program, root, value, eqns)
    if all(map(_is_affine, eqns)) or not (straight or all(_in_fractions(program, e) for e in eqns)):
        return None
    piece = piece_of(eqns, (root, *trained), uniform, _dtype(program, root, value))
    if piece is None:
        return None
    if trained:
        return Activation(PRELU, (), False, root, eqns) if is_prelu(piece) else None
    found = recognise(piece, straight)
    return found and Activation(*found, root, eqns)


def _is_straight_through(program: Program, root: int, value: int, eqns: Sequence[Eqn]) -> bool:
    """Whether the model says another derivative of the function from root to value than its own,
    by stopping its gradient or as a function with a derivative of its own."""
    return (root, value) in program.own_derivatives or any(map(_stops, eqns))


def _stops(eqn: Eqn) -> bool:
    return eqn.name == "stop_gradient"


def is_function_of_one(program: Program, uniform: dict[int, np.ndarray], value: int) -> bool:
    """Whether each entry of a value is some function of the one entry of another: an activation,
    known or not."""
    return next(_pieces(program, value, uniform), None) is not None


def _pieces(
    program: Program, value: int, uniform: dict[int, np.ndarray]
) -> Iterator[tuple[int, tuple[Eqn, ...], set[int]]]:
    """What ends in `value` and is a function of one other of its shape, from small to large: that
    other, the equations in order, and the trained parameter in them, if there is one."""
    frontier, eqns, trained = {value}, list[Eqn](), set[int]()
    if not jnp.issubdtype(program.avals[value].dtype, jnp.floating):
        return
    while len(eqns) < _LARGEST:
        eqn = program.producer.get(max(frontier, key=lambda v: program.order.get(v, -1)))
        if eqn is None:
            return
        constants = [v for v in eqn.inputs if v not in program.active and v not in uniform]
        trained.update(constants)
        numbers = all(jnp.issubdtype(program.avals[v].dtype, jnp.floating) for v in constants)
        row = primitives.of(eqn.name)
        if not row.is_entrywise or len(trained) > 1 or not numbers:
            return
        if not _in_fractions(program, eqn) and not _counts(program, eqn):
            return
        if not eqns and _stops(eqn):  # it moves what is another layer's
            return
        if eqn.name == "copy" and any(call.foreign for call in calls_around(program, [eqn])):
            return  # what a function hands on that brings a derivative, which no rule may replace
        eqns.append(eqn)
        frontier = (frontier - set(eqn.outputs)) | set(program.active_inputs(eqn))
        if len(frontier) > 1:
            continue
        (root,) = frontier
        kind = program.avals[root].dtype.kind
        if program.shape(root) != program.shape(value) or kind == "c":
            return
        if kind == "b":  # a truth value is no layer's, but a step may have made it
            continue
        yield root, tuple(eqns[::-1]), set(trained)


def _in_fractions(program: Program, eqn: Eqn) -> bool:
    """Whether what an equation makes are real numbers with a fraction, or truth values."""
    dtypes = [program.avals[v].dtype for v in eqn.outputs]
    return all(jnp.issubdtype(dtype, jnp.floating) or dtype.kind == "b" for dtype in dtypes)


def _counts(program: Program, eqn: Eqn) -> bool:
    """Whether an equation chooses from whole numbers, or makes them of truth values."""
    taken = [program.avals[v].dtype.kind for v in eqn.inputs]
    return eqn.name in ("select_n", "convert_element_type") and "f" not in taken


def _is_affine(eqn: Eqn) -> bool:
    """Whether it is a step of an affine run or moves values, if one operand is no constant."""
    row = primitives.of(eqn.name)
    return row.is_step or row.is_move


def _dtype(program: Program, root: int, value: int) -> Any:
    """Whose numbers go into the piece: of whole numbers, those that it makes of them."""
    dtypes = (program.avals[v].dtype for v in (root, value))
    return next(dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating))
