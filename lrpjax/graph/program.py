"""A flat program: a JAX function's equations with every call opened and every value numbered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._compat import (
    CALLS,
    ClosedJaxpr,
    Literal,
    call_body,
    jaxpr_as_fun,
    outside_traces,
    scope,
    users_line,
)


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


@dataclass
class Program:
    """Equations in order, from `consts` (parameters) and `inputs` (the leaves of x) to `outputs`.

    avals: shape and dtype of each value, by number. literals: the values written in the code.
    fixed: of the constants those that are no parameters of the model.
    """

    eqns: list[Eqn] = field(default_factory=list)
    avals: list[jax.ShapeDtypeStruct] = field(default_factory=list)
    literals: dict[int, Any] = field(default_factory=dict)
    consts: list[int] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    fixed: set[int] = field(default_factory=set)

    @cached_property
    def producer(self) -> dict[int, Eqn]:
        """The equation that computes each value."""
        return {out: eqn for eqn in self.eqns for out in eqn.outputs}

    @cached_property
    def order(self) -> dict[int, int]:
        """The place in the program at which each computed value is written."""
        return {out: i for i, eqn in enumerate(self.eqns) for out in eqn.outputs}

    @cached_property
    def consumers(self) -> dict[int, int]:
        """How often each value is read; an output of the program counts as read."""
        count = dict.fromkeys(range(len(self.avals)), 0)
        for value in [v for eqn in self.eqns for v in eqn.inputs] + self.outputs:
            count[value] += 1
        return count

    @cached_property
    def active(self) -> set[int]:
        """The values that depend on the input; all others are constants."""
        active = set(self.inputs)
        for eqn in self.eqns:
            if active.intersection(eqn.inputs):
                active.update(eqn.outputs)
        return active

    def shape(self, value: int) -> tuple[int, ...]:
        return self.avals[value].shape

    def active_inputs(self, eqn: Eqn) -> list[int]:
        return [v for v in eqn.inputs if v in self.active]


def flatten(closed: ClosedJaxpr, inputs: int) -> tuple[Program, list[Any]]:
    """Opens every call of a jaxpr and unrolls its scans.

    The last `inputs` arguments of `closed` are the model's input. Returns the program and the
    values of its constants that are not arguments: arrays that the function closes over,
    each once. Equations on which no output depends are dropped.
    """
    program = Program()
    arrays: list[Any] = []
    known: dict[int, int] = {}
    numbers: dict[int, Any] = {}  # whole numbers and truth values that are known before it runs

    def new(aval: Any) -> int:
        program.avals.append(jax.ShapeDtypeStruct(aval.shape, aval.dtype))
        return len(program.avals) - 1

    def constant(array) -> int:
        if id(array) not in known:
            value = known[id(array)] = new(jnp.asarray(array) if np.isscalar(array) else array)
            arrays.append(array)
            if np.shape(array) == () and not is_inexact(program.avals[value]):
                numbers.update({} if isinstance(array, jax.core.Tracer) else {value: array})
        return known[id(array)]

    def inline(
        closed: ClosedJaxpr, arguments: Sequence[int], caller: str = "unknown", outer: str = ""
    ) -> list[int]:
        jaxpr = closed.jaxpr
        env = dict(zip(jaxpr.constvars, map(constant, closed.consts), strict=True))
        env |= dict(zip(jaxpr.invars, arguments, strict=True))

        def read(atom) -> int:
            if not isinstance(atom, Literal):
                return env[atom]
            if np.ndim(atom.val):
                return constant(atom.val)
            value = new(atom.aval)
            program.literals[value] = np.asarray(atom.val, program.avals[value].dtype)
            if not is_inexact(program.avals[value]):
                numbers[value] = program.literals[value]
            return value

        for eqn in jaxpr.eqns:
            ins = [read(atom) for atom in eqn.invars]
            # The body of a cached call (jax.nn.relu) does not know who called it.
            line = users_line(eqn) or caller
            path = "/".join(filter(None, (outer, scope(eqn))))
            if eqn.primitive.name in CALLS:
                outs = inline(call_body(eqn), ins, line, path)
            elif eqn.primitive.name == "scan":
                outs = inline(_unrolled(eqn), ins, line, path)
            elif eqn.primitive.name == "cond" and ins[0] in numbers:
                branches = eqn.params["branches"]
                taken = min(max(int(numbers[ins[0]]), 0), len(branches) - 1)
                outs = inline(branches[taken], ins[1:], line, path)
            else:
                outs = [new(var.aval) for var in eqn.outvars]
                _note_number(eqn, ins, outs, numbers)
                program.eqns.append(
                    Eqn(
                        eqn.primitive,
                        tuple(ins),
                        tuple(outs),
                        dict(eqn.params),
                        line,
                        path,
                    )
                )
            env |= dict(zip(eqn.outvars, outs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    arguments = [new(var.aval) for var in closed.jaxpr.invars]
    split = len(arguments) - inputs
    program.inputs = arguments[split:]
    program.outputs = inline(closed, arguments)
    program.consts = arguments[:split] + list(known.values())
    live = set(program.outputs)
    kept = []
    for eqn in reversed(program.eqns):
        if live.intersection(eqn.outputs):
            kept.append(eqn)
            live.update(eqn.inputs)
    program.eqns = kept[::-1]
    return program, arrays


def _note_number(eqn: Any, ins: list[int], outs: list[int], numbers: dict[int, Any]) -> None:
    """Adds what an equation makes of known whole numbers: the index of a branch."""
    scalar = [var.aval.shape == () and not is_inexact(var.aval) for var in eqn.outvars]
    if ins and all(v in numbers for v in ins) and all(scalar):
        with outside_traces():
            made = eqn.primitive.bind(*(numbers[v] for v in ins), **eqn.params)
        numbers.update(zip(outs, made if eqn.primitive.multiple_results else [made], strict=True))


def _unrolled(eqn) -> ClosedJaxpr:
    """A scan as the straight program it stands for."""
    p = eqn.params
    body, num_consts, num_carry = p["jaxpr"], p["num_consts"], p["num_carry"]

    def run(*arguments):
        consts, rest = arguments[:num_consts], arguments[num_consts:]
        carry, xs = list(rest[:num_carry]), rest[num_carry:]
        steps = range(p["length"])
        ys = []
        for i in reversed(steps) if p["reverse"] else steps:
            outs = jaxpr_as_fun(body)(*consts, *carry, *(x[i] for x in xs))
            carry = outs[:num_carry]
            ys.append(outs[num_carry:])
        if p["reverse"]:
            ys.reverse()
        return [*carry, *(jnp.stack(y) for y in zip(*ys, strict=True))]

    return jax.make_jaxpr(run)(
        *(jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars)
    )


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


def run(eqns: Sequence[Eqn], env: dict[int, Any], by: Callable = evaluate) -> dict[int, Any]:
    """Evaluates the equations in order, from and into a copy of `env`. by: how each is."""
    env = dict(env)
    for eqn in eqns:
        outs = by(eqn, [env[v] for v in eqn.inputs])
        env.update(zip(eqn.outputs, outs, strict=True))
    return env
