"""Folding: a convolution or matrix product and the constants around it become one linear layer.

A run of add, sub, mul, div and neg by constants (bias, inference BatchNorm in any spelling,
input scaling) belongs to the product next to it if every factor is per feature, so that it can
be folded into the kernel. What moves values without changing them (reshape, transpose, ...)
may stand in between. What an activation ends in (the division by 6 of hard_sigmoid) is the
activation's and no step. It is decided by data flow alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from .activations import ELEMENTWISE
from .factors import kept_axes
from .program import Eqn, Program, is_inexact

SUMS = {"reduce_sum", "reduce_window_sum", "cumsum"}
STEPS = {"add", "sub", "mul", "div", "neg"}
_BIJECTIVE = set(
    "reshape transpose squeeze expand_dims broadcast_in_dim convert_element_type copy rev "
    "reduce_precision optimization_barrier sharding_constraint name".split()
)


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


def find_affine(
    program: Program, value: int, *, fold: bool, activation: Callable[[int], Any]
) -> Affine | None:
    """The linear layer whose output is `value`, or None if what computes it is not affine.

    activation: the activation that ends in a value, if any.
    """
    last = program.producer.get(value)
    if last is None or not (_is_step(program, last) or _is_core(program, last)):
        return None
    chain, core = _walk_back(program, value, activation)
    if core is None:
        return _standing_alone(program, chain)
    fitting = len(chain) if fold or core.name in SUMS else _bias_only(chain)
    allowed = _output_features(program, core)
    for k, eqn in enumerate(chain[:fitting]):
        if eqn.name in ("mul", "div") and not _pulled(program, chain[:k], eqn) <= allowed:
            fitting = k
            break
    if fitting < len(chain) and any(_is_step(program, eqn) for eqn in chain[fitting:]):
        return _standing_alone(program, chain[fitting:])
    (active,) = program.active_inputs(core)
    pre = _before(program, core, active, activation) if fold and core.name not in SUMS else []
    root = program.active_inputs(pre[0])[0] if pre else active
    return Affine(core, tuple(pre), tuple(chain), root)


def _is_step(program: Program, eqn: Eqn) -> bool:
    active = program.active_inputs(eqn)
    return (
        eqn.name in STEPS
        and len(active) == 1
        and is_inexact(program.avals[eqn.outputs[0]])
        and not (eqn.name == "div" and eqn.inputs[1] in program.active)
        and program.shape(active[0]) == program.shape(eqn.outputs[0])
    )


def changes_scale(program: Program, eqn: Eqn) -> bool:
    """Whether a step changes more than the offset: a factor, or a sign."""
    return eqn.name in ("mul", "div", "neg") or (
        eqn.name == "sub" and eqn.inputs[1] in program.active
    )


def _is_core(program: Program, eqn: Eqn) -> bool:
    active = program.active_inputs(eqn)
    if len(active) != 1 or not is_inexact(program.avals[eqn.outputs[0]]):
        return False
    if eqn.name == "conv_general_dilated":
        return eqn.inputs[0] in program.active and eqn.params["batch_group_count"] == 1
    return eqn.name == "dot_general" or eqn.name in SUMS


def rounds(program: Program, eqn: Eqn) -> bool:
    """Whether an equation turns numbers with a fraction into whole ones."""
    if eqn.name != "convert_element_type":
        return False
    before, after = program.avals[eqn.inputs[0]].dtype, program.avals[eqn.outputs[0]].dtype
    return jnp.issubdtype(before, jnp.floating) and not jnp.issubdtype(after, jnp.floating)


def _is_bijective(program: Program, eqn: Eqn) -> bool:
    active = program.active_inputs(eqn)
    return (
        eqn.name in _BIJECTIVE
        and not rounds(program, eqn)
        and len(active) == 1
        and math.prod(program.shape(active[0])) == math.prod(program.shape(eqn.outputs[0]))
    )


def _walk_back(
    program: Program, value: int, activation: Callable[[int], Any]
) -> tuple[list[Eqn], Eqn | None]:
    """The run of steps that ends in `value`, in order, and the core it starts from, if any.

    An intermediate value that something else reads too ends the run: it must stay visible.
    """
    chain: list[Eqn] = []
    while (eqn := program.producer.get(value)) is not None:
        if _is_core(program, eqn):
            return chain[::-1], eqn
        movable = _is_step(program, eqn) or _is_bijective(program, eqn)
        if not movable or activation(value):
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


def _bias_only(chain: list[Eqn]) -> int:
    """How much of the run a product keeps unfolded: its bias, which is one addition."""
    moved = next((i for i, eqn in enumerate(chain) if eqn.name in STEPS), 0)
    return moved + 1 if chain and chain[moved].name == "add" else 0


def _before(program: Program, core: Eqn, value: int, activation: Callable[[int], Any]) -> list[Eqn]:
    """The run before a core that can be folded into it."""
    if program.consumers[value] > 1:
        return []
    chain, other = _walk_back(program, value, activation)
    if other is not None:  # the run belongs to the product it comes from
        return []
    allowed = _input_features(program, core)
    start = 0
    for k, eqn in enumerate(chain):
        if eqn.name in ("mul", "div"):
            axes = _constant_axes(program, eqn)
            for step in chain[k + 1 :]:
                if not _is_step(program, step):
                    axes = push_axes(program, step, axes)
            if not axes <= allowed:
                start = k + 1
    while start < len(chain) and not _is_step(program, chain[start]):
        start += 1
    return chain[start:]


def _output_features(program: Program, core: Eqn) -> set[int]:
    rank = len(program.shape(core.outputs[0]))
    if core.name in SUMS:
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


def _constant_axes(program: Program, eqn: Eqn) -> set[int]:
    """The axes along which the constant operand of a step may vary."""
    constant = next(v for v in eqn.inputs if v not in program.active)
    return varying_axes(program, constant)


def _pulled(program: Program, before: list[Eqn], eqn: Eqn) -> set[int]:
    """The axes along which a step's constant varies, as axes of the core's output."""
    axes = _constant_axes(program, eqn)
    for step in reversed(before):
        if not _is_step(program, step):
            axes = pull_axes(program, step, axes)
    return axes


def varying_axes(program: Program, constant: int) -> set[int]:
    """The axes along which a constant may vary: all of a parameter's, none that were broadcast."""
    shape = program.shape(constant)
    long = {i for i, size in enumerate(shape) if size > 1}
    eqn = program.producer.get(constant)
    if eqn is None:
        return long
    if eqn.name in ("reshape", "transpose", "squeeze", "broadcast_in_dim", "rev"):
        return push_axes(program, eqn, varying_axes(program, eqn.inputs[0])) & long
    if eqn.name in ELEMENTWISE:
        operands = [varying_axes(program, v) for v in eqn.inputs if program.shape(v)]
        return set().union(*operands) & long
    return long


def push_axes(program: Program, eqn: Eqn, axes: set[int]) -> set[int]:
    """Where a set of axes of a structural equation's input is in its output."""
    origin = _origins(program, eqn)
    return {i for i, sources in enumerate(origin) if axes & sources}


def pull_axes(program: Program, eqn: Eqn, axes: set[int]) -> set[int]:
    """Where a set of axes of a structural equation's output is in its input."""
    origin = _origins(program, eqn)
    return set().union(*(origin[i] for i in axes)) if axes else set()


def _origins(program: Program, eqn: Eqn) -> list[set[int]]:
    """For each axis of a structural equation's output, the axes of its input it is made of."""
    source = program.active_inputs(eqn)[0] if program.active_inputs(eqn) else eqn.inputs[0]
    shape, out = program.shape(source), program.shape(eqn.outputs[0])
    if eqn.name == "transpose":
        return [{i} for i in eqn.params["permutation"]]
    if eqn.name == "squeeze":
        return [{i} for i in range(len(shape)) if i not in eqn.params["dimensions"]]
    if eqn.name == "broadcast_in_dim":
        back = {int(o): i for i, o in enumerate(eqn.params["broadcast_dimensions"])}
        return [
            {back[o]} if o in back and shape[back[o]] == out[o] else set() for o in range(len(out))
        ]
    if eqn.name == "reshape":
        pairs = {new: old for old, new in kept_axes(shape, out)}
        mixed = {i for i, n in enumerate(shape) if n > 1} - set(pairs.values())
        return [
            {pairs[i]} if i in pairs else (mixed if out[i] > 1 else set()) for i in range(len(out))
        ]
    return [{i} for i in range(len(out))]
