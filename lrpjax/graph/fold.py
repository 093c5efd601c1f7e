"""Folding: a convolution or matrix product and the constants around it become one linear layer.

A run of add, sub, mul, div and neg by constants (bias, inference BatchNorm in any spelling,
input scaling) belongs to the product next to it if every factor is per feature, so that it can
be folded into the kernel. What moves values without changing them (reshape, transpose, ...)
may stand in between. What an activation ends in (the division by 6 of hard_sigmoid) is the
activation's and no step. It is decided by data flow alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from ..program import primitives
from ..program.program import Eqn, Program, is_real
from ..program.varying import Axes, pull_through, push_through


@dataclass(frozen=True)
class Affine:
    """root -> pre -> core -> post. The core is a product, a sum, or None for a run of its own.

    pre and post hold steps by constants and, between them, structural equations.
    """

    core: Eqn | None
    pre: tuple[Eqn, ...]
    post: tuple[Eqn, ...]
    root: int

    @property
    def eqns(self) -> tuple[Eqn, ...]:
        return (*self.pre, *([self.core] if self.core else []), *self.post)


@dataclass(frozen=True)
class Context:
    """What folding needs to know of a program besides its equations.

    varying: the axes along which each value varies. activation: the one that ends in a value.
    uniform: the constants that are one number everywhere.
    """

    program: Program
    varying: dict[int, Axes]
    activation: Callable[[int], Any]
    uniform: dict[int, Any]

    def changes_nothing(self, eqn: Eqn) -> bool:
        """Whether a step adds 0, or multiplies or divides by 1."""
        if not is_step(eqn) or len(eqn.inputs) != 2:
            return False
        neutral = 0 if primitives.of(eqn.name).is_addition else 1
        first, second = (self.uniform.get(v) for v in eqn.inputs)
        return bool(second == neutral or (first == neutral and eqn.name != "sub"))


def find_affine(context: Context, value: int, *, fold: bool) -> Affine | None:
    """The linear layer whose output is `value`, or None if what computes it is not affine."""
    program = context.program
    last = program.producer.get(value)
    if last is None or not (
        _is_step(program, last) or _is_core(program, last) or _ends_in_core(program, last)
    ):
        return None
    chain, core = _walk_back(context, value)
    if core is None:
        return _standing_alone(program, chain)
    fitting = len(chain) if fold or _is_sum(core) else _bias_only(context, chain)
    fitting = min(fitting, _negates_a_term(context, chain))
    allowed = _output_features(program, core)
    for k, eqn in enumerate(chain[:fitting]):
        if _is_factor(eqn) and not _pulled(context, chain[:k], eqn) <= allowed:
            fitting = k
            break
    if fitting < len(chain) and any(_is_step(program, eqn) for eqn in chain[fitting:]):
        return _standing_alone(program, chain[fitting:])
    (active,) = program.active_inputs(core)
    pre = _before(context, core, active) if fold and not _is_sum(core) else []
    root = program.active_inputs(pre[0])[0] if pre else active
    return Affine(core, tuple(pre), tuple(chain), root)


def _negates_a_term(context: Context, chain: list[Eqn]) -> int:
    """Where the negations stand that end the run and make a difference of an addition: a + (-b)
    is a - b, and what b is made of is no other for it. Elsewhere they are a layer's own sign."""
    program, first = context.program, len(chain)
    for k in reversed(range(len(chain))):
        if is_negation(context.uniform, chain[k]):
            first = k
        elif is_step(chain[k]):
            break
    if first == len(chain):
        return first
    value = chain[-1].outputs[0]
    while len(readers := program.readers[value]) == program.consumers[value] == 1:
        (eqn,) = readers
        if primitives.of(eqn.name).is_addition and len(program.active_inputs(eqn)) == 2:
            return first
        if not (_is_bijective(program, eqn) or _is_factor(eqn)):
            break
        (value,) = eqn.outputs
    return len(chain)


def is_negation(uniform: dict[int, Any], eqn: Eqn) -> bool:
    """Whether it multiplies by -1; uniform: the constants that are one number everywhere."""
    if eqn.name == "neg":
        return True
    factors = [uniform.get(v) for v in eqn.inputs]
    return _is_factor(eqn) and any(f is not None and f == -1 for f in factors)


def _is_step(program: Program, eqn: Eqn) -> bool:
    active = program.active_inputs(eqn)
    return (
        is_step(eqn)
        and len(active) == 1
        and primitives.of(eqn.name).is_linear_in(eqn.inputs.index(active[0]))
        and all(is_real(program.avals[v]) for v in (*active, *eqn.outputs))
        and program.shape(active[0]) == program.shape(eqn.outputs[0])
    )


def is_step(eqn: Eqn) -> bool:
    return primitives.of(eqn.name).is_step


def _is_factor(eqn: Eqn) -> bool:
    return is_step(eqn) and not primitives.of(eqn.name).is_addition


def _is_sum(eqn: Eqn) -> bool:
    return primitives.of(eqn.name).role in ("sum", "scatter")


def shifts(eqns: Iterable[Eqn]) -> bool:
    """Whether a step among the equations adds a constant."""
    return any(
        primitives.of(eqn.name).is_addition and len(eqn.inputs) == 2 and is_step(eqn)
        for eqn in eqns
    )


def changes_scale(program: Program, eqn: Eqn) -> bool:
    """Whether a step changes more than the offset: a factor, or a sign."""
    negates = len(eqn.inputs) == 1 or (eqn.name == "sub" and eqn.inputs[1] in program.active)
    return is_step(eqn) and (_is_factor(eqn) or negates)


def _is_core(program: Program, eqn: Eqn) -> bool:
    active = program.active_inputs(eqn)
    role = primitives.of(eqn.name).role
    if len(active) != 1 or not is_real(program.avals[eqn.outputs[0]]):
        return False
    if role == "conv":
        return eqn.inputs[0] in program.active and eqn.params["batch_group_count"] == 1
    if role == "scatter":  # of values into constants: beside a value it is a sum of two
        return active[0] == eqn.inputs[2] and is_real(program.avals[active[0]])
    return role in ("dot", "sum") and is_real(program.avals[active[0]])


def rounds(program: Program, eqn: Eqn) -> bool:
    """Whether an equation turns numbers with a fraction into whole ones."""
    if eqn.name != "convert_element_type":
        return False
    before, after = program.avals[eqn.inputs[0]].dtype, program.avals[eqn.outputs[0]].dtype
    return jnp.issubdtype(before, jnp.floating) and not jnp.issubdtype(after, jnp.floating)


def _is_bijective(program: Program, eqn: Eqn) -> bool:
    active = program.active_inputs(eqn)
    return (
        primitives.of(eqn.name).is_one_to_one
        and not rounds(program, eqn)
        and len(active) == 1
        and math.prod(program.shape(active[0])) == math.prod(program.shape(eqn.outputs[0]))
    )


def _ends_in_core(program: Program, eqn: Eqn) -> bool:
    """Whether it is the last of several equations that stand for a product (`contractions`)."""
    return not program.inner.isdisjoint(program.active_inputs(eqn)) and _is_bijective(program, eqn)


def _walk_back(context: Context, value: int) -> tuple[list[Eqn], Eqn | None]:
    """The run of steps that ends in `value`, in order, and the core it starts from, if any.

    An intermediate value that something else reads too ends the run: it must stay visible.
    """
    program = context.program
    chain: list[Eqn] = []
    while (eqn := program.producer.get(value)) is not None:
        if _is_core(program, eqn):
            return chain[::-1], eqn
        movable = _is_step(program, eqn) or _is_bijective(program, eqn)
        if not movable or context.activation(value):
            break
        (before,) = program.active_inputs(eqn)
        chain.append(eqn)
        value = before
        if program.consumers[value] > 1:
            break
    return chain[::-1], None


def _standing_alone(program: Program, chain: list[Eqn]) -> Affine:
    """The steps at the end of the chain, up to the last structural equation."""
    steps = []
    for eqn in reversed(chain):
        if not _is_step(program, eqn):
            break
        steps.append(eqn)
    steps.reverse()
    return Affine(None, (), tuple(steps), program.active_inputs(steps[0])[0])


def _bias_only(context: Context, chain: list[Eqn]) -> int:
    """How much of the run a product keeps unfolded: its bias, which is one addition."""
    changes = lambda eqn: is_step(eqn) and not context.changes_nothing(eqn)
    moved = next((i for i, eqn in enumerate(chain) if changes(eqn)), len(chain))
    return moved + 1 if moved < len(chain) and chain[moved].name == "add" else 0


def _before(context: Context, core: Eqn, value: int) -> list[Eqn]:
    """The run before a core that can be folded into it."""
    program = context.program
    if program.consumers[value] > 1:
        return []
    chain, other = _walk_back(context, value)
    if other is not None:  # the run belongs to the product it comes from
        return []
    allowed = _input_features(program, core)
    start = 0
    for k, eqn in enumerate(chain):
        if _is_factor(eqn):
            moves = [step for step in chain[k + 1 :] if not _is_step(program, step)]
            if not push_through(program, moves, _constant_axes(context, eqn)) <= allowed:
                start = k + 1
    while start < len(chain) and not _is_step(program, chain[start]):
        start += 1
    return chain[start:]


def _output_features(program: Program, core: Eqn) -> set[int]:
    rank = len(program.shape(core.outputs[0]))
    if _is_sum(core):
        return set(range(rank))
    if core.name == "conv_general_dilated":
        return {core.params["dimension_numbers"].out_spec[1]}
    side = 0 if core.inputs[0] in program.active else 1
    (contract, batch) = core.params["dimension_numbers"]
    kept = len(program.shape(core.inputs[side])) - len(contract[side]) - len(batch[side])
    free = range(len(batch[0]), len(batch[0]) + kept) if side == 0 else range(rank - kept, rank)
    return set(range(rank)) - set(free)


def _input_features(program: Program, core: Eqn) -> set[int]:
    if core.name == "conv_general_dilated":
        return {core.params["dimension_numbers"].lhs_spec[1]}
    side = 0 if core.inputs[0] in program.active else 1
    (contract, batch) = core.params["dimension_numbers"]
    return {*contract[side], *batch[side]}


def _constant_axes(context: Context, eqn: Eqn) -> Axes:
    """The axes along which the constant operand of a factor varies."""
    return context.varying[next(v for v in eqn.inputs if v not in context.program.active)]


def _pulled(context: Context, before: list[Eqn], eqn: Eqn) -> set[int]:
    """The axes along which a factor's constant varies, as axes of the core's output."""
    moves = [step for step in before if not _is_step(context.program, step)]
    return pull_through(context.program, moves, _constant_axes(context, eqn))
