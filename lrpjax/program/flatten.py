"""From a jaxpr to a flat program: every call opened, every scan unrolled, every value numbered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    made = _Flattening(own)
    program = made.program
    arguments = [made.new(var.aval) for var in closed.jaxpr.invars]
    split = len(arguments) - inputs
    program.inputs = arguments[split:]
    program.outputs = made.inline(closed, arguments, program.steps)
    program.consts = arguments[:split] + list(made.known.values())
    program.eqns = live(program.eqns, program.outputs)
    program.steps = live(program.steps, program.outputs)
    return program, made.arrays


@dataclass(frozen=True)
class _Place:
    """Where equations stand: the user's line, and the path of scopes and functions around."""

    line: str = "unknown"
    path: str = ""

    def of(self, eqn: Any) -> _Place:
        # The body of a cached call (jax.nn.relu) does not know who called it.
        path = "/".join(filter(None, (self.path, scope(eqn))))
        return _Place(users_line(eqn) or self.line, path)

    def eqn(self, eqn: Any, inputs: Sequence[int], outputs: Sequence[int]) -> Eqn:
        """An equation of a jaxpr as one of the program, which stands here."""
        params = dict(eqn.params)
        return Eqn(eqn.primitive, tuple(inputs), tuple(outputs), params, self.line, self.path)


class _Flattening:
    """A program in the making. own: as in `flatten`.

    known: the values of the arrays that are no arguments, by identity. held: how often one was met.
    numbers: whole numbers and truth values that are known before it runs: those of arrays that are
    one number.
    """

    def __init__(self, own: bool):
        self.own, self.program = own, Program()
        self.arrays: list[Any] = []
        self.known: dict[int, int] = {}
        self.numbers: dict[int, Any] = {}
        self.held = 0

    def new(self, aval: Any) -> int:
        self.program.avals.append(jax.ShapeDtypeStruct(aval.shape, aval.dtype))
        return len(self.program.avals) - 1

    def constant(self, array: Any) -> int:
        self.held += 1
        if id(array) not in self.known:
            value = self.new(jnp.asarray(array) if np.isscalar(array) else array)
            self.known[id(array)] = value
            self.arrays.append(array)
            whole = np.shape(array) == () and not is_inexact(self.program.avals[value])
            if whole and not isinstance(array, jax.core.Tracer):
                self.numbers[value] = array
        return self.known[id(array)]

    def literal(self, atom: Literal) -> int:
        if np.ndim(atom.val):
            return self.constant(atom.val)
        value, program = self.new(atom.aval), self.program
        program.literals[value] = np.asarray(atom.val, program.avals[value].dtype)
        if not is_inexact(program.avals[value]):
            self.numbers[value] = program.literals[value]
        return value

    def add(self, eqn: Eqn, steps: list[Step]) -> None:
        self.program.eqns.append(eqn)
        steps.append(eqn)

    def inline(
        self,
        closed: ClosedJaxpr,
        arguments: Sequence[int],
        steps: list[Step],
        around: _Place = _Place(),
    ) -> list[int]:
        """The outputs of a body, whose equations are added to the program and to `steps`."""
        jaxpr = closed.jaxpr
        env = dict(zip(jaxpr.constvars, map(self.constant, closed.consts), strict=True))
        env |= dict(zip(jaxpr.invars, arguments, strict=True))
        read = lambda atom: self.literal(atom) if isinstance(atom, Literal) else env[atom]
        for eqn in jaxpr.eqns:
            inputs, place = [read(atom) for atom in eqn.invars], around.of(eqn)
            outs = self.opened(eqn, inputs, steps, place)
            if outs is None:
                outs = [self.new(var.aval) for var in eqn.outvars]
                _note_number(eqn, inputs, outs, self.numbers)
                self.add(place.eqn(eqn, inputs, outs), steps)
            env |= dict(zip(eqn.outvars, outs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def opened(
        self, eqn: Any, inputs: list[int], steps: list[Step], place: _Place
    ) -> list[int] | None:
        """What an equation gives that stands for others; None for one that stands for itself."""
        name = eqn.primitive.name
        if name in CALLS or name == "scan":
            body = _unrolled(eqn) if name == "scan" else call_body(eqn)
            if self.own and name in CUSTOM | RUNS:
                return self.call(eqn, body, inputs, steps, place)
            return self.inline(body, inputs, steps, place)
        if name in ("cond", "select_n") and inputs[0] in self.numbers:  # the same case everywhere
            case = int(self.numbers[inputs[0]])
            if name == "select_n":
                return [inputs[1 + case]]
            branches = eqn.params["branches"]
            taken = branches[min(max(case, 0), len(branches) - 1)]
            return self.inline(taken, inputs[1:], steps, place)
        return None

    def call(
        self, eqn: Any, body: ClosedJaxpr, inputs: list[int], steps: list[Step], place: _Place
    ) -> list[int]:
        """The outputs of a call that is told from its body."""
        before, inner, custom = self.held, list[Step](), eqn.primitive.name in CUSTOM
        outs = self.inline(body, inputs, inner, place)
        if custom:
            self._copy_what_is_handed_on(outs, inner, place)
        brought = self._derivative(eqn) if custom else None
        seen = {v for step in inner for v in _known_in(step)}
        inside = frozenset(seen.difference(inputs, outs))
        foreign = custom and not is_of_jax_itself(eqn)
        made = place.eqn(eqn, inputs, outs)
        steps.append(Call(made, tuple(inner), brought, foreign, self.held > before, inside))
        return outs

    def _copy_what_is_handed_on(self, outs: list[int], inner: list[Step], place: _Place) -> None:
        """Makes each output of a body a value of its own."""
        written = {v for step in inner for v in step.outputs}
        for i, v in enumerate(outs):
            if v not in written or v in outs[:i]:
                outs[i] = self.new(self.program.avals[v])
                self.add(Eqn(COPY, (v,), (outs[i],), {}, place.line, place.path), inner)

    def _derivative(self, eqn: Any) -> Own | None:
        """The derivative that a call brings with it."""
        try:
            found = traced(eqn)
        except Exception:  # whatever a user's rule raises, it does so again where it is needed
            return None
        (forward, kept), (backward, used) = (
            flatten(closed, len(closed.jaxpr.invars), own=False)
            for closed in (found.forward, found.backward)
        )
        arrays = tuple(map(self.constant, kept)), tuple(map(self.constant, used))
        return Own(forward, backward, arrays, found.moving)


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
