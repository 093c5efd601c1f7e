"""The derivative of a model as JAX takes it, custom rules and ties included.

It is one `jax.vjp` of the program from some values to others. Functions that bring a derivative of
their own (`jax.custom_vjp`, `jax.custom_jvp`) stay closed. Such a function's rule says nothing of
the values inside of it: the relevance of one that is asked for is that of the body, opened, and
changes nothing anywhere else. Only relevance that is injected inside, or a layer there that has
another rule (a ReLU under Guided BP), opens the function for good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp

from ..graph import Graph, Layer
from ..layers import Bounds, bare, make_op, tupled
from ..program import (
    Call,
    Program,
    constant,
    custom_calls,
    is_inexact,
    opened,
    single,
)
from ..program.evaluation import as_number, as_single, carrying, evaluated
from ..rules import Rule, gradient

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
    whole = carrying(program)
    numbers: Callable = jnp.asarray if as_is else as_single
    start = {v: numbers(value) for v, value in program.literals.items()}
    start |= {v: numbers(c) for v, c in zip(program.consts, consts, strict=True)}
    start |= dict(zip(program.inputs, map(as_number, leaves), strict=True))
    ruled = {max(own.outputs): (own, rule) for own, rule in layers if not is_gradient(rule)}
    cut = set(captured).difference(*(layer.outputs for layer, _ in layers))
    forward = _Forward(graph, start, ruled, cut, whole, tuple(injected), as_is)

    known: dict[int, Any] = {}
    pulls = []
    for around, values in _by_call(program, [v for v in captured if forward.carries(v)]).items():
        taps = {v: start[v] if v in start else _zeros(program, v) for v in values}
        at = partial(forward, around)
        arriving, pull, known = jax.vjp(at, taps, has_aux=True)
        pulls.append(pull)
    likes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arriving]

    def propagate(relevance: Relevance) -> Relevance:
        cotangents = [
            jnp.broadcast_to(jnp.asarray(relevance.get(v, 0), like.dtype), like.shape)
            for v, like in zip(forward.seeds, likes, strict=True)
        ]
        found: Relevance = {}
        for pull in pulls:
            found |= pull(cotangents)[0]
        return {v: found[v] if v in found else _zeros(program, v) for v in captured}

    return known, propagate


@dataclass(frozen=True, eq=False)
class _Forward:
    """The program up to the injected values, as a function of what is added to captured ones.

    start: the values it begins with. ruled: layers with a rule in the place of their derivative, by
    the last value they write. cut: values that are held constant. whole: integers that stand for an
    integer input. as_is: as in `derivative`.
    """

    graph: Graph
    start: dict[int, Any]
    ruled: dict[int, tuple[Layer, Rule]]
    cut: set[int]
    whole: set[int]
    injected: tuple[int, ...]
    as_is: bool

    @cached_property
    def seeds(self) -> list[int]:
        """The injected values that can have a cotangent, each once."""
        return [v for v in dict.fromkeys(self.injected) if self.carries(v)]

    def carries(self, value: int) -> bool:
        return is_inexact(self.graph.program.avals[value]) or value in self.whole

    @cached_property
    def _shown(self) -> set[int]:
        """What has to be known, also inside of a function with a derivative of its own."""
        layers = [layer for layer, _ in self.ruled.values()]
        return _values_of(self.graph.program, layers).union(self.injected)

    def _is_closed(self, call: Call, around: frozenset[Call]) -> bool:
        if call in around or self._shown & call.inside or self.whole.intersection(call.inputs):
            return False
        return call.is_custom or (self.as_is and not call.holds)

    def __call__(
        self, around: frozenset[Call], arguments: dict[int, jax.Array]
    ) -> tuple[list[jax.Array], dict[int, Any]]:
        """The seeds, and the values that are known to the caller. around: calls to open.

        arguments: inputs, and zeros that are added to other values.
        """
        program = self.graph.program
        env = self.start | {v: x for v, x in arguments.items() if v in program.inputs}
        for step in opened(program.steps, lambda call: self._is_closed(call, around)):
            outs = evaluated(program, step, [env[v] for v in step.inputs], env, self.as_is)
            env.update(zip(step.outputs, outs, strict=True))
            for v in step.outputs:
                if v in self.ruled:
                    _replace(self.graph, *self.ruled[v], env)
                if v in self.cut:
                    env[v] = jax.lax.stop_gradient(env[v])
                if v in arguments:
                    env[v] = env[v] + arguments[v]
        known = {v: as_single(env[v]) for v in {*self.injected, *program.outputs}}
        return [env[v] for v in self.seeds], known


def _by_call(program: Program, values: Iterable[int]) -> dict[frozenset[Call], list[int]]:
    """Values by the functions with a derivative of their own that they lie in; never empty."""
    groups: dict[frozenset[Call], list[int]] = {}
    for v in dict.fromkeys(values):
        around = frozenset(call for call in custom_calls(program.steps) if v in call.inside)
        groups.setdefault(around, []).append(v)
    return groups or {frozenset(): []}


def _zeros(program: Program, value: int) -> jax.Array:
    return jnp.zeros(program.shape(value), _dtype(program, value))


def stands_as_it_is(graph: Graph, layers: Sequence[tuple[Layer, Rule]]) -> bool:
    """Whether the propagation through all layers is `jax.vjp` of the model, and no more: no layer
    has another rule, no input is an integer, and nothing is computed in less than float32."""
    program = graph.program
    plain = all(is_gradient(rule) for _, rule in layers)
    return plain and not carrying(program) and program.is_single


def is_gradient(rule: Rule) -> bool:
    """Whether a rule is the derivative of its layer."""
    return rule.function is gradient


def _dtype(program: Program, value: int) -> Any:
    dtype = program.avals[value].dtype
    return single(dtype) if jnp.issubdtype(dtype, jnp.inexact) else jnp.float32


def _values_of(program: Program, layers: Iterable[Layer]) -> set[int]:
    """What has to be known for layers to be computed: what they read and what they write."""
    values = set[int]()
    for layer in layers:
        own = {v for eqn in layer.eqns for v in eqn.outputs}
        values.update(*(eqn.inputs for eqn in layer.eqns), layer.inputs)
        values = values - own | set(layer.outputs)
    return values - program.literals.keys()


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
