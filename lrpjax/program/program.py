"""A flat program: a JAX function's equations with every call opened and every value numbered."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.compat import CUSTOM, bind


@dataclass(frozen=True, eq=False)
class Eqn:
    """One primitive applied to numbered values. `source` is the user's line."""

    primitive: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    params: dict[str, Any]
    source: str
    scope: str

    @property
    def name(self) -> str:
        return self.primitive.name


@dataclass(frozen=True, eq=False)
class Own:
    """The derivative that a function brings with it, in programs of its own.

    forward: from the call's inputs to its outputs and what it keeps; backward: from what is kept
    and the cotangents of the inexact outputs to those of the inputs in `moving`, by place.
    arrays: for both, the numbers of the constants that they hold, in the program of the call.
    """

    forward: Program
    backward: Program
    arrays: tuple[tuple[int, ...], tuple[int, ...]]
    moving: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Call:
    """A call, closed: `eqn` stands for all that its body does.

    Its outputs are written by nothing else, so that they can be told from its inputs.
    own: the derivative that replaces that of the body; None for a call that has none.
    foreign: whether that derivative is the model's and not one of JAX's own functions'.
    holds: whether its body holds arrays that are not among its inputs.
    inside: the values that are known in its body alone.
    """

    eqn: Eqn
    body: tuple[Step, ...]
    own: Own | None
    foreign: bool
    holds: bool
    inside: frozenset[int]

    @property
    def name(self) -> str:
        return self.eqn.name

    @property
    def inputs(self) -> tuple[int, ...]:
        return self.eqn.inputs

    @property
    def outputs(self) -> tuple[int, ...]:
        return self.eqn.outputs

    @property
    def scope(self) -> str:
        return self.eqn.scope

    @property
    def is_custom(self) -> bool:
        """Whether it is of a function that has a derivative of its own."""
        return self.name in CUSTOM


Step = Eqn | Call


@dataclass(eq=False)
class Program:
    """Equations in order, from `consts` (parameters) and `inputs` (the leaves of x) to `outputs`.

    eqns: with all calls opened. steps: with those closed that have a derivative of their own, or
    say how they are run (a loop, a checkpoint).
    avals: shape and dtype of each value, by number. literals: the values written in the code.
    fixed: of the constants those that are no parameters of the model.
    inner: values that stand in `eqns` alone: inside of what the model spells with other equations.
    """

    eqns: list[Eqn] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    avals: list[jax.ShapeDtypeStruct] = field(default_factory=list)
    literals: dict[int, Any] = field(default_factory=dict)
    consts: list[int] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    fixed: set[int] = field(default_factory=set)
    inner: set[int] = field(default_factory=set)

    @cached_property
    def producer(self) -> dict[int, Eqn]:
        """The equation that computes each value."""
        return {out: eqn for eqn in self.eqns for out in eqn.outputs}

    @cached_property
    def order(self) -> dict[int, int]:
        """The place in the program at which each computed value is written."""
        return {out: i for i, eqn in enumerate(self.eqns) for out in eqn.outputs}

    @cached_property
    def readers(self) -> dict[int, list[Eqn]]:
        """The equations that read each value, those that read it twice twice."""
        found: dict[int, list[Eqn]] = {v: [] for v in range(len(self.avals))}
        for eqn in self.eqns:
            for value in eqn.inputs:
                found[value].append(eqn)
        return found

    @cached_property
    def consumers(self) -> dict[int, int]:
        """How often each value is read; an output of the program counts as read."""
        return {v: len(read) + self.outputs.count(v) for v, read in self.readers.items()}

    @cached_property
    def active(self) -> set[int]:
        """The values that depend on the input; all others are constants."""
        active = set(self.inputs)
        for eqn in self.eqns:
            if active.intersection(eqn.inputs):
                active.update(eqn.outputs)
        return active

    @cached_property
    def own_derivatives(self) -> set[tuple[int, int]]:
        """From what to what the model has functions with a derivative of its own."""
        foreign = (call for call in custom_calls(self.steps) if call.foreign)
        return {(v, out) for call in foreign for v in call.inputs for out in call.outputs}

    @cached_property
    def is_single(self) -> bool:
        """Whether nothing is computed in less than float32."""
        rounds = any(eqn.name == "reduce_precision" for eqn in self.eqns)
        return not rounds and all(
            jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key) or single(a.dtype) == a.dtype
            for a in self.avals
        )

    def shape(self, value: int) -> tuple[int, ...]:
        return self.avals[value].shape

    def active_inputs(self, eqn: Eqn) -> list[int]:
        return [v for v in eqn.inputs if v in self.active]


def constants_behind(program: Program, values: Iterable[int]) -> set[int]:
    """The program's constants that some input-independent values are computed from."""
    queue, seen = list(values), set[int]()
    while queue:
        value = queue.pop()
        if value not in seen and (eqn := program.producer.get(value)):
            queue.extend(eqn.inputs)
        seen.add(value)
    return seen.intersection(program.consts)


def constant(program: Program, env: Mapping[int, Any], value: int) -> Any:
    """A constant of the program, computed from those in `env` where it is not among them."""
    if value in env:
        return env[value]
    eqn = program.producer[value]
    outs = evaluate(eqn, [constant(program, env, v) for v in eqn.inputs])
    return outs[eqn.outputs.index(value)]


def text(program: Program) -> str:
    """A program in full, as text: what two traces of the same model have in common."""
    literals = [(v, value.dtype.str, value.tobytes()) for v, value in program.literals.items()]
    with np.printoptions(threshold=sys.maxsize):
        eqns = [(e.name, e.inputs, e.outputs, str(e.params)) for e in program.eqns]
    avals = [(a.shape, str(a.dtype)) for a in program.avals]
    ends = (program.consts, program.inputs, program.outputs)
    return repr((literals, eqns, avals, ends, _calls_text(program.steps)))


def _calls_text(steps: Sequence[Step]) -> list[Any]:
    """What tells calls apart that have equal bodies: where they stand, and their derivatives."""
    found = []
    for step in steps:
        if isinstance(step, Call):
            own = step.own
            rule: Any = own and (text(own.forward), text(own.backward), own.arrays)
            if own is None and step.is_custom:  # its derivative cannot be traced: equal to none
                rule = id(step)
            found.append((step.name, step.inputs, step.outputs, rule, _calls_text(step.body)))
    return found


def is_inexact(array: Any) -> bool:
    """Whether an array, or what has its dtype, holds no whole numbers or truth values: what has a
    derivative, and may carry relevance."""
    return jnp.issubdtype(array.dtype, jnp.inexact)


def is_real(array: Any) -> bool:
    """Whether an array, or what has its dtype, holds real numbers with a fraction."""
    return jnp.issubdtype(array.dtype, jnp.floating)


def single(dtype) -> Any:
    """float32 for half precision and less (float8), the dtype itself otherwise."""
    dtype = jnp.dtype(dtype)
    less = jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4
    return jnp.dtype(jnp.float32) if less else dtype


_SINGLE = jnp.finfo(jnp.float32)


def evaluate(eqn: Eqn, values: Sequence[Any]) -> Sequence[Any]:
    """The equation's outputs, in float32 where the model computes in half precision or less.

    Matrix products run at the highest precision: the passes of TF32 and bfloat16 would drown
    the small angles this library measures.
    """
    if eqn.name == "name":  # a mark for checkpoints, which has no transpose
        return values
    params = {
        key: single(value) if isinstance(value, np.dtype) else value
        for key, value in eqn.params.items()
    }
    if "precision" in params and eqn.name in ("conv_general_dilated", "dot_general"):
        params["precision"] = (jax.lax.Precision.HIGHEST,) * 2
    if eqn.name == "reduce_precision":  # a cast to half precision and back, in one
        params["exponent_bits"] = max(params["exponent_bits"], _SINGLE.nexp)
        params["mantissa_bits"] = max(params["mantissa_bits"], _SINGLE.nmant)
    outs = eqn.primitive.bind(*values, **params)
    return outs if eqn.primitive.multiple_results else [outs]


def unstopped(eqn: Eqn, values: Sequence[Any]) -> Sequence[Any]:
    """As `evaluate`, with a gradient where the model stops it."""
    return values if eqn.name == "stop_gradient" else evaluate(eqn, values)


def run(steps: Sequence[Step], env: dict[int, Any], by: Callable = evaluate) -> dict[int, Any]:
    """Evaluates the steps in order, from and into a copy of `env`. by: how each is."""
    env = dict(env)
    for step in steps:
        outs = by(step, [env[v] for v in step.inputs])
        env.update(zip(step.outputs, outs, strict=True))
    return env


def opened(steps: Sequence[Step], is_closed: Callable[[Call], bool]) -> list[Step]:
    """The steps with those calls opened that are not to be closed."""
    found: list[Step] = []
    for step in steps:
        if isinstance(step, Call) and not is_closed(step):
            found += opened(step.body, is_closed)
        else:
            found.append(step)
    return found


def custom_calls(steps: Sequence[Step]) -> Iterator[Call]:
    """All calls of functions with a derivative of their own, also those inside of others."""
    for step in steps:
        if isinstance(step, Call):
            if step.is_custom:
                yield step
            yield from custom_calls(step.body)


def calls_around(program: Program, eqns: Sequence[Eqn]) -> list[Call]:
    """The calls of functions with a derivative of their own in whose bodies equations stand."""
    written = {v for eqn in eqns for v in eqn.outputs}
    around = lambda call: written.intersection(call.inside.union(call.outputs))
    return [call for call in custom_calls(program.steps) if around(call)]


def as_written(step: Step, values: Sequence[Any]) -> Sequence[Any]:
    """A step's outputs, in the model's own precision and with its own derivative."""
    eqn = step.eqn if isinstance(step, Call) else step
    outs = bind(eqn.primitive, values, eqn.params)
    return outs if eqn.primitive.multiple_results else [outs]
