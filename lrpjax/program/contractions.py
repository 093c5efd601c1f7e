"""A product with weights that is summed over is a matrix product, however the model spells it.

`(x[:, :, None] * w).sum(1)` is `x @ w`: what the equations say becomes one, so that it is read,
and treated, as any other layer with parameters. The steps of the program stay: its derivative is
that of the model as it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import lax

from . import primitives
from .flatten import flatten, live
from .program import Eqn, Program, constants_behind, is_inexact, is_real
from .varying import Axes, find_varying


@dataclass(frozen=True)
class _Sum:
    """x times or over constants, summed: what a `reduce_sum` ends.

    x: what they multiply. constants: each with whether it divides. order: the axes of the product
    as the sum has them. summed: those that are summed over.
    """

    x: int
    constants: tuple[tuple[int, bool], ...]
    order: tuple[int, ...]
    summed: frozenset[int]


def contracted(program: Program, is_mask: Callable[[int], bool]) -> Program:
    """The program, each sum over products with parameters one equation, as far as these vary along
    what is summed over.

    is_mask: whether a constant, by number, is no weight though nothing says so.
    """
    varying = find_varying(program)
    avals, literals = list(program.avals), dict(program.literals)
    eqns: list[Eqn] = []
    inner: set[int] = set()
    for eqn in program.eqns:
        found = _find(program, varying, is_mask, eqn)
        made = _product(program, varying, eqn, found, avals, literals) if found else [eqn]
        eqns += made
        inner.update(v for e in made[:-1] for v in e.outputs)
    if not inner and len(eqns) == len(program.eqns) and eqns == program.eqns:
        return program
    eqns = live(eqns, program.outputs)
    return replace(program, eqns=eqns, avals=avals, literals=literals, inner=inner)


def _find(
    program: Program, varying: dict[int, Axes], is_mask: Callable[[int], bool], eqn: Eqn
) -> _Sum | None:
    """What a sum sums, down to the last factor with parameters; None if there is none."""
    if eqn.name != "reduce_sum" or not program.active.intersection(eqn.inputs):
        return None
    if not is_real(program.avals[eqn.outputs[0]]) or _divides(program, eqn):
        return None
    (value,) = eqn.inputs
    order = tuple(range(len(program.shape(value))))
    summed = {int(i) for i in eqn.params["axes"]}
    constants: list[tuple[int, bool]] = []
    found = None
    while program.consumers[value] == 1 and (maker := program.producer.get(value)) is not None:
        active = program.active_inputs(maker)
        if len(active) != 1 or not is_real(program.avals[active[0]]):
            break
        (before,) = active
        if maker.name == "transpose":
            permutation = [int(i) for i in maker.params["permutation"]]
            order = tuple(permutation[i] for i in order)
            summed = {permutation[i] for i in summed}
            if constants:  # they have the axes of what they multiply
                break
        elif maker.name == "mul" or (maker.name == "div" and maker.inputs[0] == before):
            other = maker.inputs[1] if maker.inputs[0] == before else maker.inputs[0]
            constants.append((other, maker.name == "div"))
            long = {i for i in summed if _is_long(program, before, i)}
            if varying[other] & long and _is_weight(program, is_mask, other):
                found = _Sum(before, tuple(constants), order, frozenset(summed))
        elif maker.name != "convert_element_type":
            break
        value = before
    return found


def _divides(program: Program, eqn: Eqn) -> bool:
    """Whether other values are divided by what an equation gives: it is a statistic of a norm, as
    in attention that is divided by its sum again, and no layer."""
    reached = set(eqn.outputs)
    for reader in program.eqns[program.order[eqn.outputs[0]] + 1 :]:
        if reached.isdisjoint(reader.inputs):
            continue
        active = program.active_inputs(reader)
        if reader.name == "div" and reader.inputs[1] in reached and len(active) == 2:
            return True
        row = primitives.of(reader.name)
        if len(active) == 1 and (row.is_move or row.is_step or row.name in ("max", "sqrt")):
            reached.update(reader.outputs)
    return False


def _is_long(program: Program, value: int, axis: int) -> bool:
    return program.shape(value)[axis] > 1


def _is_weight(program: Program, is_mask: Callable[[int], bool], value: int) -> bool:
    """Whether a constant is computed from parameters."""
    behind = constants_behind(program, [value]) - program.fixed
    return any(is_inexact(program.avals[v]) and not is_mask(v) for v in behind)


def _product(
    program: Program,
    varying: dict[int, Axes],
    eqn: Eqn,
    found: _Sum,
    avals: list[jax.ShapeDtypeStruct],
    literals: dict,
) -> list[Eqn]:
    """The equations of the matrix product, of which the last writes what the sum does."""
    x, axes = _before_expansion(program, found.x)
    shape = program.shape(found.x)
    out = program.avals[eqn.outputs[0]]
    repeats = [varying[v] for v, _ in found.constants]

    def function(x, *constants):
        w = _weights(constants, [divides for _, divides in found.constants], repeats, len(shape))
        return _contracted(x, axes, _as_long_as(w, shape, found.summed), found, out)

    given = [x, *(v for v, _ in found.constants)]
    like = [jax.ShapeDtypeStruct(program.shape(v), program.avals[v].dtype) for v in given]
    body, _ = flatten(jax.make_jaxpr(function)(*like), len(given), own=False)
    numbers = dict(zip(body.inputs, given, strict=True))
    numbers[body.outputs[0]] = eqn.outputs[0]
    for v, aval in enumerate(body.avals):
        if v not in numbers:
            numbers[v] = len(avals)
            avals.append(aval)
            if v in body.literals:
                literals[numbers[v]] = body.literals[v]
    named = lambda values: tuple(numbers[v] for v in values)
    return [
        Eqn(e.primitive, named(e.inputs), named(e.outputs), e.params, eqn.source, eqn.scope)
        for e in body.eqns
    ]


def _as_long_as(w: jax.Array, shape: Sequence[int], summed: frozenset[int]) -> jax.Array:
    """The weights, along the axes that are summed as long as x.

    What x is repeated along is a sum of the weights; what they are, they are repeated along.
    """
    alone = [i for i in summed if shape[i] == 1 and w.shape[i] > 1]
    w = jnp.sum(w, alone, keepdims=True) if alone else w
    return jnp.broadcast_to(w, [shape[i] if i in summed else n for i, n in enumerate(w.shape)])


def _contracted(
    x: jax.Array, axes: list[int], w: jax.Array, found: _Sum, out: jax.ShapeDtypeStruct
) -> jax.Array:
    """The product of x, which has some of the axes of w, and w, laid out as the sum writes it."""
    kept = [i for i in found.order if i not in found.summed]
    long = [i for i, n in enumerate(w.shape) if n > 1]
    w = lax.reshape(w, [w.shape[i] for i in long])
    both = [i for i in long if i in axes and x.shape[axes.index(i)] > 1]
    at = lambda some: ([axes.index(i) for i in some], [long.index(i) for i in some])
    contract = at([i for i in both if i in found.summed])
    batch = at([i for i in both if i in kept])
    z = lax.dot_general(x, w, (contract, batch), preferred_element_type=out.dtype)
    of_x = [i for k, i in enumerate(axes) if k not in (*contract[0], *batch[0])]
    of_w = [i for k, i in enumerate(long) if k not in (*contract[1], *batch[1])]
    has = [*(i for i in both if i in kept), *of_x, *of_w]
    # Of an axis that both have, x may hold the 1 that it is repeated along.
    last = {i: k for k, i in enumerate(has) if z.shape[k] > 1 or has.count(i) == 1}
    places = [last[i] for i in kept if i in last]
    order = [*places, *(k for k in range(z.ndim) if k not in places)]
    z = z if order == list(range(z.ndim)) else lax.transpose(z, order)
    return z if z.shape == out.shape else lax.reshape(z, out.shape)


def _before_expansion(program: Program, value: int) -> tuple[int, list[int]]:
    """The value that one was made of by axes of 1 put between its own, and where these are."""
    axes = list(range(len(program.shape(value))))
    eqn = program.producer.get(value)
    while eqn is not None and eqn.name == "broadcast_in_dim":
        (before,) = eqn.inputs[:1]
        onto = [int(i) for i in eqn.params["broadcast_dimensions"]]
        same = all(program.shape(before)[k] == eqn.params["shape"][i] for k, i in enumerate(onto))
        rest = [n for i, n in enumerate(eqn.params["shape"]) if i not in onto]
        if not same or any(n != 1 for n in rest):
            break
        value, axes = before, [axes[i] for i in onto]
        eqn = program.producer.get(value)
    return value, axes


def _weights(
    constants: Sequence[jax.Array], divide: Sequence[bool], varying: Sequence[Axes], rank: int
) -> jax.Array:
    """The constants as one, of that rank, of size 1 along what they are repeated along."""
    total = None
    for c, divides, axes in zip(constants, divide, varying, strict=True):
        if c.ndim:
            for i in range(c.ndim):
                c = lax.slice_in_dim(c, 0, 1, axis=i) if i not in axes and c.shape[i] > 1 else c
        c = 1 / c if divides else c
        total = c if total is None else total * c
    assert total is not None
    return total if total.ndim else lax.reshape(total, (1,) * rank)
