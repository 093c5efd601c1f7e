"""From a jaxpr to a flat program: every call opened, every scan unrolled, every value numbered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.compat import (
    CALLS,
    CUSTOM,
    RUNS,
    ClosedJaxpr,
    Literal,
    call_body,
    core,
    is_of_jax_itself,
    jaxpr_as_fun,
    outside_traces,
    scan_counts,
    scope,
    users_line,
)
from .calls import traced
from .program import Call, Eqn, Own, Program, Step, is_inexact


def flatten(closed: ClosedJaxpr, inputs: int, *, own: bool = True) -> tuple[Program, list[Any]]:
    """Opens every call of a jaxpr and unrolls its scans.

    The last `inputs` arguments of `closed` are the model's input. Returns the program and the
    values of its constants that are not arguments: arrays that the function closes over,
    each once. Equations on which no output depends are dropped. own: whether calls are told from
    their bodies, and the derivatives that they bring with them read.
    """
    program = Program()
    arrays: list[Any] = []
    known: dict[int, int] = {}
    # Whole numbers and truth values that are known before it runs: those of arrays are one number.
    numbers: dict[int, Any] = {}
    held = 0  # how often an array was met that is no argument

    def new(aval: Any) -> int:
        program.avals.append(jax.ShapeDtypeStruct(aval.shape, aval.dtype))
        return len(program.avals) - 1

    def constant(array) -> int:
        nonlocal held
        held += 1
        if id(array) not in known:
            value = known[id(array)] = new(jnp.asarray(array) if np.isscalar(array) else array)
            arrays.append(array)
            if np.shape(array) == () and not is_inexact(program.avals[value]):
                numbers.update({} if isinstance(array, jax.core.Tracer) else {value: array})
        return known[id(array)]

    def inline(
        closed: ClosedJaxpr,
        arguments: Sequence[int],
        steps: list[Step],
        caller: str = "unknown",
        outer: str = "",
    ) -> list[int]:
        """The outputs of a body, whose equations are added to the program and to `steps`."""
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
            name = eqn.primitive.name
            made = lambda outs, e=eqn, i=ins, s=line, p=path: Eqn(
                e.primitive, tuple(i), tuple(outs), dict(e.params), s, p
            )
            if name in CALLS or name == "scan":
                body = _unrolled(eqn) if name == "scan" else call_body(eqn)
                if not own or name not in CUSTOM | RUNS:
                    outs = inline(body, ins, steps, line, path)
                else:
                    outs = call(eqn, body, ins, steps, made)
            elif name == "cond" and ins[0] in numbers:
                branches = eqn.params["branches"]
                taken = min(max(int(numbers[ins[0]]), 0), len(branches) - 1)
                outs = inline(branches[taken], ins[1:], steps, line, path)
            elif name == "select_n" and ins[0] in numbers:  # the same case everywhere
                outs = [ins[1 + int(numbers[ins[0]])]]
            else:
                outs = [new(var.aval) for var in eqn.outvars]
                _note_number(eqn, ins, outs, numbers)
                program.eqns.append(made(outs))
                steps.append(program.eqns[-1])
            env |= dict(zip(eqn.outvars, outs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def call(eqn, body, ins: list[int], steps: list[Step], made: Callable) -> list[int]:
        before, inner, custom = held, list[Step](), eqn.primitive.name in CUSTOM
        outs = inline(body, ins, inner, made(()).source, made(()).scope)
        if custom:
            written = {v for step in inner for v in step.outputs}
            for i, v in enumerate(outs):
                if v not in written or v in outs[:i]:  # a value that is handed on is copied
                    copied = made(())
                    outs[i] = new(program.avals[v])
                    program.eqns.append(
                        Eqn(COPY, (v,), (outs[i],), {}, copied.source, copied.scope)
                    )
                    inner.append(program.eqns[-1])
        brought = derivative(eqn) if custom else None
        seen = {v for step in inner for v in _known_in(step)}
        inside = frozenset(seen.difference(ins, outs))
        foreign = custom and not is_of_jax_itself(eqn)
        steps.append(Call(made(outs), tuple(inner), brought, foreign, held > before, inside))
        return outs

    def derivative(eqn) -> Own | None:
        try:
            found = traced(eqn)
        except Exception:  # whatever a user's rule raises, it does so again where it is needed
            return None
        programs = [
            flatten(closed, len(closed.jaxpr.invars), own=False)
            for closed in (found.forward, found.backward)
        ]
        numbers = [tuple(map(constant, values)) for _, values in programs]
        (forward, _), (backward, _) = programs
        return Own(forward, backward, (numbers[0], numbers[1]), found.moving)

    arguments = [new(var.aval) for var in closed.jaxpr.invars]
    split = len(arguments) - inputs
    program.inputs = arguments[split:]
    program.outputs = inline(closed, arguments, program.steps)
    program.consts = arguments[:split] + list(known.values())
    program.eqns = live(program.eqns, program.outputs)
    program.steps = live(program.steps, program.outputs)
    return program, arrays


def _note_number(eqn: Any, ins: list[int], outs: list[int], numbers: dict[int, Any]) -> None:
    """Adds what an equation makes of known whole numbers (the index of a branch), also where it
    repeats one: a mask that hides nothing."""
    if eqn.primitive.name == "broadcast_in_dim" and ins[0] in numbers:
        numbers[outs[0]] = numbers[ins[0]]
        return
    scalar = [var.aval.shape == () and not is_inexact(var.aval) for var in eqn.outvars]
    if ins and all(v in numbers for v in ins) and all(scalar):
        with outside_traces():
            made = eqn.primitive.bind(*(numbers[v] for v in ins), **eqn.params)
        numbers.update(zip(outs, made if eqn.primitive.multiple_results else [made], strict=True))


COPY = core.primitives.copy_p


def _known_in(step: Step) -> Iterator[int]:
    """The values that a step reads or writes, also inside of it."""
    yield from (*step.inputs, *step.outputs)
    if isinstance(step, Call):
        yield from step.inside


def live(steps: Sequence[Any], outputs: Sequence[int]) -> list[Any]:
    """The steps on which the outputs depend, in order."""
    live, kept = set(outputs), []
    for step in reversed(steps):
        if live.intersection(step.outputs):
            kept.append(step)
            live.update(step.inputs)
    return kept[::-1]


def _unrolled(eqn) -> ClosedJaxpr:
    """A scan as the straight program it stands for."""
    p = eqn.params
    body, (num_consts, num_carry) = p["jaxpr"], scan_counts(eqn)

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
