"""The derivative of a model as JAX takes it, custom rules and ties included.

It is one `jax.vjp` of the program from some values to others. Functions that bring a derivative of
their own (`jax.custom_vjp`, `jax.custom_jvp`) stay closed. Such a function's rule says nothing of
the values inside of it: the relevance of one that is asked for is that of the body, opened, and
changes nothing anywhere else. Only relevance that is injected inside, or a layer there that has
another rule (a ReLU under Guided BP), opens the function for good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from ..graph import Graph, Layer
from ..graph.reading import as_number, as_single
from ..layers import Bounds, bare, make_op, tupled
from ..program import (
    Call,
    Eqn,
    Program,
    Step,
    as_written,
    constant,
    custom_calls,
    evaluate,
    is_inexact,
    opened,
    run,
    single,
)
from ..rules import Rule, gradient
from ..rules.pooling import tiles, winners

Relevance = dict[int, jax.Array]  # by the number of the value it belongs to


def derivative(
    graph: Graph,
    layers: Sequence[tuple[Layer, Rule]],
    consts: Sequence[Any],
    leaves: Sequence[Any],
    injected: Sequence[int],
    captured: Sequence[int],
    *,
    as_is: bool = False,
) -> tuple[dict[int, Any], Callable[[Relevance], Relevance]]:
    """The injected values and the model's outputs, and the map from cotangents of the injected
    values to those of the captured.

    layers: what lies between, with their rules: one that is not the gradient replaces the
    derivative of its layer. What is captured below them all is held constant otherwise.
    as_is: with the model's own loops, checkpoints and precision of products, for which it has to
    `stands_as_it_is`; else loops are unrolled and values computed as by `graph.evaluate`.
    """
    program = graph.program
    ruled = {max(own.outputs): (own, rule) for own, rule in layers if not is_gradient(rule)}
    whole = _carrying(program)
    numbers: Callable = jnp.asarray if as_is else as_single
    start = {v: numbers(value) for v, value in program.literals.items()}
    start |= {v: numbers(c) for v, c in zip(program.consts, consts, strict=True)}
    start |= dict(zip(program.inputs, map(as_number, leaves), strict=True))

    made = {v for layer, _ in layers for v in layer.outputs}
    cut = set(captured) - made
    shown = _values_of(program, [layer for layer, _ in ruled.values()]).union(injected)
    carries = lambda v: is_inexact(program.avals[v]) or v in whole
    seeds = [v for v in dict.fromkeys(injected) if carries(v)]
    groups: dict[frozenset[Call], list[int]] = {}
    for v in dict.fromkeys(captured):
        around = frozenset(call for call in custom_calls(program.steps) if v in call.inside)
        if carries(v):
            groups.setdefault(around, []).append(v)

    def forward(around: frozenset[Call], arguments: dict[int, jax.Array]):
        """The seeds, and the values that are known to the caller."""
        env = start | {v: x for v, x in arguments.items() if v in program.inputs}

        def is_closed(call: Call) -> bool:
            if call in around or shown & call.inside or whole.intersection(call.inputs):
                return False
            return call.is_custom or (as_is and not call.holds)

        for step in opened(program.steps, is_closed):
            outs = _evaluated(program, step, [env[v] for v in step.inputs], env, as_is)
            env.update(zip(step.outputs, outs, strict=True))
            for v in step.outputs:
                if v in ruled:
                    _replace(graph, *ruled[v], env)
                if v in cut:
                    env[v] = jax.lax.stop_gradient(env[v])
                if v in arguments:
                    env[v] = env[v] + arguments[v]
        known = {v: as_single(env[v]) for v in {*injected, *program.outputs}}
        return [env[v] for v in seeds], known

    known: dict[int, Any] = {}
    pulls = []
    for around, values in (groups or {frozenset[Call](): []}).items():
        taps = {
            v: start[v] if v in start else jnp.zeros(program.shape(v), _dtype(program, v))
            for v in values
        }
        arriving, pull, known = jax.vjp(
            lambda arguments, around=around: forward(around, arguments), taps, has_aux=True
        )
        pulls.append(pull)
    likes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arriving]

    def propagate(relevance: Relevance) -> Relevance:
        cotangents = [
            jnp.broadcast_to(jnp.asarray(relevance.get(v, 0), like.dtype), like.shape)
            for v, like in zip(seeds, likes, strict=True)
        ]
        found: Relevance = {}
        for pull in pulls:
            found |= pull(cotangents)[0]
        nothing = lambda v: jnp.zeros(program.shape(v), _dtype(program, v))
        return {v: found[v] if v in found else nothing(v) for v in captured}

    return known, propagate


def resumed(program: Program, env: dict[int, Any], changed: dict[int, Any]) -> dict[int, Any]:
    """Every value of the program with some in the place of others: what depends on them, or is not
    in `env`, is run again, with the model's derivative and the names of its scopes."""
    whole = _carrying(program)

    def is_closed(call: Call) -> bool:
        return call.is_custom and not (
            call.inside.intersection(changed) or whole.intersection(call.inputs)
        )

    def by(step: Step, values: list[Any]) -> Sequence[Any]:
        with jax.named_scope(step.scope):
            return _evaluated(program, step, values, env, False)

    reached, again = set(changed), []
    for step in opened(program.steps, is_closed):
        if changed.keys() >= set(step.outputs):
            continue
        if reached.intersection(step.inputs):
            reached.update(step.outputs)
            again.append(step)
        elif not env.keys() >= set(step.outputs):
            again.append(step)
    return run(again, env | changed, by)


def stands_as_it_is(graph: Graph, layers: Sequence[tuple[Layer, Rule]]) -> bool:
    """Whether the propagation through all layers is `jax.vjp` of the model, and no more: no layer
    has another rule, no input is an integer, and nothing is computed in less than float32."""
    program = graph.program
    plain = all(is_gradient(rule) for _, rule in layers)
    return plain and not _carrying(program) and program.is_single


def is_gradient(rule: Rule) -> bool:
    """Whether a rule is the derivative of its layer."""
    return rule.function is gradient


def _dtype(program: Program, value: int) -> Any:
    dtype = program.avals[value].dtype
    return single(dtype) if jnp.issubdtype(dtype, jnp.inexact) else jnp.float32


def _carrying(program: Program) -> set[int]:
    """The integers that stand for an integer input: their relevance is that of the floats they
    become, and they are computed as such."""
    whole = {v for v in program.inputs if not is_inexact(program.avals[v])}
    for eqn in program.eqns if whole else ():
        if whole.intersection(eqn.inputs):
            whole.update(v for v in eqn.outputs if not is_inexact(program.avals[v]))
    return whole


def _values_of(program: Program, layers: Iterable[Layer]) -> set[int]:
    """What has to be known for layers to be computed: what they read and what they write."""
    values = set[int]()
    for layer in layers:
        own = {v for eqn in layer.eqns for v in eqn.outputs}
        values.update(*(eqn.inputs for eqn in layer.eqns), layer.inputs)
        values = values - own | set(layer.outputs)
    return values - program.literals.keys()


def _evaluated(
    program: Program, step: Step, values: list[Any], env: dict[int, Any], as_is: bool
) -> Sequence[Any]:
    if isinstance(step, Call):
        if step.own is None or (not step.holds and program.is_single):
            return as_written(step, values)
        return _with_own(step, values, env, as_written if as_is else evaluate)
    by = as_written if as_is else evaluate
    if step.name != "reduce_window_max" or not is_inexact(values[0]):
        return by(step, values)
    # Where windows overlap, another order of their sums would be seen in the last bit.
    exact = not as_is or tiles(values[0].shape, step.params)
    return [_window_max(step, values[0])] if exact else by(step, values)


def _window_max(eqn: Eqn, x: jax.Array) -> jax.Array:
    """The maxima of windows, with their derivative as a mask: all to a window's first maximum, as
    JAX has it, but found in the forward pass. XLA's own takes long to compile and to run."""
    function = jax.custom_vjp(lambda x: evaluate(eqn, [x])[0])
    pooled = lambda x: (evaluate(eqn, [x])[0], x)
    function.defvjp(pooled, lambda x, r: (winners(eqn, x)(r),))
    return function(x)


def _with_own(call: Call, values: list[Any], env: dict[int, Any], by: Callable) -> Sequence[Any]:
    """A call by the two programs of its own derivative, whose arrays are the program's."""
    own, count = call.own, len(call.outputs)
    assert own is not None

    def through(program: Program, arrays: tuple[int, ...], values: Sequence[Any]) -> list[Any]:
        number = as_single if by is evaluate else jnp.asarray
        inner = {v: number(value) for v, value in program.literals.items()}
        inner |= {v: env[n] for v, n in zip(program.consts, arrays, strict=True)}
        inner |= dict(zip(program.inputs, values, strict=True))
        inner = run(program.eqns, inner, by)
        return [inner[v] for v in program.outputs]

    def forward(*values):
        outs = through(own.forward, own.arrays[0], values)
        return outs[:count], outs[count:]

    def backward(kept, cotangents):
        inexact = [r for r in cotangents if r.dtype != jax.dtypes.float0]
        found = through(own.backward, own.arrays[1], [*kept, *inexact])
        sent: list[Any] = [None] * len(values)
        for i, r in zip(own.moving, found, strict=True):
            sent[i] = r.astype(values[i].dtype)
        return tuple(sent)

    function = jax.custom_vjp(lambda *values: forward(*values)[0])
    function.defvjp(forward, backward)
    return function(*values)


def _replace(graph: Graph, layer: Layer, rule: Rule, env: dict[int, Any]) -> None:
    """Puts a rule in the place of the derivative of a layer whose outputs have been written."""
    program = graph.program
    constants = {v: x for v, x in env.items() if v not in program.active}
    read = {v for eqn in layer.eqns for v in eqn.inputs} - program.active
    constants |= {v: constant(program, constants, v) for v in read}
    like = {v: jax.lax.stop_gradient(env[v]) for v in program.inputs}
    op: Any = make_op(program, layer, constants)
    op = replace(op, bounds=Bounds(graph, constants | like, layer))

    def pull(kept, relevance):
        inputs, outputs = kept
        found = tupled(rule(op, *inputs, bare(outputs))(bare(relevance)))
        sent = [
            jnp.zeros_like(x) if r is None else r.astype(x.dtype)  # a cast may be the layer's
            for r, x in zip(found, inputs, strict=True)
        ]
        return sent, [jnp.zeros_like(y) for y in outputs]

    function = jax.custom_vjp(lambda inputs, outputs: outputs)
    function.defvjp(lambda inputs, outputs: (outputs, (inputs, outputs)), pull)
    inputs, outputs = [env[v] for v in layer.inputs], [env[v] for v in layer.outputs]
    env.update(zip(layer.outputs, function(inputs, outputs), strict=True))
