"""The chain of a method's rules: relevance at some values becomes relevance at all below them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from ..graph import Graph, Layer
from ..graph.places import below
from ..graph.reading import as_number, environment
from ..layers import Bounds, Linear, Op, bare, bare_product, make_op, tupled, weighed
from ..program import Eqn, evaluate, is_inexact, run
from ..rules import Rule
from ..rules.protocol import negative, positive, signs
from . import refusals
from .baselines import rows_of
from .derivative import Relevance, derivative, is_gradient, stands_as_it_is
from .method import Method

Sums = dict[int, tuple[jax.Array, jax.Array]]  # W+ x and W- x, by the place of the layer


@dataclass(frozen=True)
class Stage:
    """A layer with its rule at work: `pull` takes what arrives at its outputs to its inputs."""

    layer: Layer
    rule: Rule
    op: Op | Linear
    pull: Callable


# Is told of each stage of a chain: what arrives there, and what it sends on.
Watch = Callable[["Chain", Stage, Sequence[jax.Array], Sequence[Any]], None]


class Chain:
    """The composition of the layers' rules at one input (and one baseline, where there is one).

    All that does not depend on relevance is computed here, once. `chain(relevance)` takes
    {value: relevance} and returns the relevance at every value below. What travels is relevance;
    with a baseline it is multipliers (two, stacked, if the method is paired), and what is
    returned is multiplier times difference from the baseline.
    """

    def __init__(
        self,
        graph: Graph,
        method: Method,
        env: dict[int, Any],
        layers: Sequence[Layer],
        baseline: Sequence[jax.Array] | None = None,
        sums: Sums | None = None,
        watch: Watch | None = None,
    ):
        self.graph, self.method, self.env = graph, method, env
        self.inputs = graph.program.inputs
        self.watch = watch
        self.differences: dict[int, jax.Array] = {}  # or the two parts of each, if paired
        self.stages: list[Stage] = []
        at_baseline: dict[int, Any] | None = None
        if baseline is not None:
            inputs = dict(zip(self.inputs, baseline, strict=True))
            at_baseline = run(graph.program.eqns, {**env, **inputs})
            self.differences = {v: self._difference(env[v] - x0) for v, x0 in inputs.items()}
        for layer, rule in zip(layers, refusals.rules_for(graph, method, layers), strict=True):
            op: Any = replace(make_op(graph.program, layer, env), bounds=Bounds(graph, env, layer))
            if sums and layer.place in sums:
                op = replace(op, sums=jax.tree.map(op.core.after, sums[layer.place]))
            if at_baseline is not None:
                op = self._with_reference(op, at_baseline)
            if method.patterns is not None:
                op = replace(op, pattern=method.patterns.get(layer.name))
            self.stages.append(self._stage(layer, rule, op, at_baseline))

    def _difference(self, d: jax.Array) -> jax.Array:
        return jnp.stack([positive(d), negative(d)]) if self.method.paired else d

    def _with_reference(self, op: Op | Linear, at_baseline: dict[int, Any]) -> Op | Linear:
        inputs = tuple(at_baseline[v] for v in op.layer.inputs)
        outputs = bare(at_baseline[v] for v in op.layer.outputs)
        split = tuple(self.differences[v] for v in op.layer.inputs) if self.method.paired else None
        return replace(op, reference=(inputs, outputs), split=split)

    def _stage(self, layer: Layer, rule: Rule, op: Op | Linear, at_baseline: Any) -> Stage:
        outputs = [self.env[v] for v in layer.outputs]
        if not any(map(is_inexact, outputs)):  # whole numbers carry nothing
            if at_baseline is not None:
                none = {v: jnp.zeros(self.env[v].shape) for v in layer.outputs}
                self.differences |= {v: self._difference(d) for v, d in none.items()}
            return Stage(layer, rule, op, lambda r: bare(None for _ in layer.inputs))
        pull = rule(op, *(self.env[v] for v in layer.inputs), bare(outputs))
        if self.method.paired:
            pull, push = pull
            self.differences |= dict(zip(layer.outputs, tupled(push(*op.split)), strict=True))
        elif at_baseline is not None:
            self.differences |= {v: self.env[v] - at_baseline[v] for v in layer.outputs}
        return Stage(layer, rule, op, pull)

    def start(self, relevance: Relevance) -> Relevance:
        """What travels, from what is injected."""
        if not self.method.paired:
            return dict(relevance)
        return {v: jnp.stack([r, r]) for v, r in relevance.items()}

    def arriving(self, stage: Stage, travelling: Relevance) -> tuple[jax.Array, ...]:
        """What has arrived at each output of the stage's layer; zeros where nothing has."""
        shape = lambda v: ((2,) if self.method.paired else ()) + self.env[v].shape
        return tuple(
            travelling[v] if v in travelling else jnp.zeros(shape(v), self.env[v].dtype)
            for v in stage.layer.outputs
        )

    def pulled(self, stage: Stage, arrived: Sequence[jax.Array]) -> tuple:
        """What the stage's rule takes to each input of its layer; None is nothing.

        Raises ValueError for a rule that does not fit the layer, as one of the user's may not.
        """
        layer, found = stage.layer, tupled(stage.pull(bare(arrived)))
        shape = lambda v: ((2,) if self.method.paired else ()) + self.env[v].shape
        wanted = [shape(v) for v in layer.inputs]
        given = [r if r is None else getattr(r, "shape", type(r).__name__) for r in found]
        fits = [g is None or g == w for g, w in zip(given, wanted, strict=False)]
        if len(given) != len(wanted) or not all(fits):
            raise ValueError(
                f"The rule {stage.rule} of the layer {layer.name!r} ({layer.primitive} at "
                f"{layer.source}) returns relevance of shape {_listed(given)} where the layer's "
                f"inputs have shape {_listed(wanted)}: return one array (or None) for each input, "
                "of its shape."
            )
        return found

    def send(self, travelling: Relevance, values: Sequence[int], pulled: Sequence) -> None:
        """Adds what a layer sends to its inputs, in their precision; None is nothing."""
        for v, r in zip(values, pulled, strict=True):
            if r is not None:
                r = r.astype(self.env[v].dtype)  # the layer may have changed it
                travelling[v] = travelling[v] + r if v in travelling else r

    def _ends_in_whole_numbers(self, layer: Layer) -> bool:
        """Whether the layer makes numbers of truth values or integers alone: these would take all
        of its relevance, and have no gradient to pass any on."""
        holds = lambda values: any(is_inexact(self.env[v]) for v in values)
        return holds(layer.outputs) and not holds(layer.inputs)

    def read_out(self, value: int, travelling: jax.Array) -> jax.Array:
        """The relevance of a value, from what travels there."""
        if self.method.paired:
            return (travelling * self.differences[value]).sum(0)
        if self.differences:
            return travelling * self.differences[value]
        if self.method.times_input and value in self.inputs:
            return travelling * self.env[value]
        return travelling

    def __call__(self, relevance: Relevance) -> Relevance:
        travelling = self.start(relevance)
        substituted = any(
            self.method.is_substituted(self.graph, stage.layer) for stage in self.stages
        )
        for stage in reversed(self.stages):
            if not any(v in travelling for v in stage.layer.outputs):
                continue
            lost = substituted or not is_gradient(stage.rule)
            if lost and self._ends_in_whole_numbers(stage.layer):
                raise NotImplementedError(_in_whole_numbers(self.method, stage.layer))
            arrived = self.arriving(stage, travelling)
            pulled = self.pulled(stage, arrived)
            if self.watch is not None:
                self.watch(self, stage, arrived, pulled)
            self.send(travelling, stage.layer.inputs, pulled)
        return {v: self.read_out(v, r) for v, r in travelling.items()}


@dataclass(frozen=True)
class Piece:
    """A part of a chain: the layers that relevance passes (by place, so that equal readings have
    equal pieces), the values at which it is injected, and those at which it is read."""

    layers: tuple[int, ...]
    injected: tuple[int, ...]
    captured: tuple[int, ...]


def piece(layers: Sequence[Layer], injected: Sequence[int], captured: Sequence[int]) -> Piece:
    return Piece(tuple(layer.place for layer in layers), tuple(injected), tuple(captured))


def propagations(
    graph: Graph,
    method: Method,
    consts: Sequence[Any],
    leaves: Sequence[Any],
    pieces: Sequence[Piece],
    *,
    as_is: bool = False,
    watch: Watch | None = None,
) -> tuple[dict[int, Any], list[Callable[[Relevance], Relevance]]]:
    """The values at which relevance is injected and the model's outputs, and for each piece the
    map from relevance at its injected values to relevance at those where it is read (and others).

    as_is: as in `derivative`; other methods have but one way. watch: as in `chain`.
    """
    parts = [[graph.layers[place] for place in part.layers] for part in pieces]
    if not method.derivative:
        passed = {place for part in pieces for place in part.layers}
        env, sums = values_for(
            graph, method, consts, leaves, [a for a in graph.layers if a.place in passed]
        )
        return env, [chain(graph, method, env, part, sums, watch) for part in parts]
    known: dict[int, Any] = {}
    maps = []
    for part, own in zip(pieces, parts, strict=True):
        ruled = list(zip(own, refusals.rules_for(graph, method, own), strict=True))
        ends = (part.injected, part.captured)
        values, pull = derivative(graph, ruled, consts, leaves, *ends, as_is=as_is)
        known |= values
        maps.append(_times_input(graph, leaves, pull) if method.times_input else pull)
    return known, maps


def is_vjp(graph: Graph, method: Method) -> bool:
    """Whether the method propagates from the output to the input as `jax.vjp` of the model does."""
    layers = below(graph, None)
    if not method.derivative:
        return False
    rules = refusals.rules_for(graph, method, layers)
    return stands_as_it_is(graph, list(zip(layers, rules, strict=True)))


def _times_input(graph: Graph, leaves: Sequence[Any], pull: Callable) -> Callable:
    inputs = dict(zip(graph.program.inputs, map(as_number, leaves), strict=True))
    return lambda r: {v: m * inputs[v] if v in inputs else m for v, m in pull(r).items()}


def values_for(
    graph: Graph,
    method: Method,
    consts: Sequence[Any],
    leaves: Sequence[Any],
    layers: Sequence[Layer],
) -> tuple[dict[int, Any], Sums]:
    """`environment` for a chain over these layers, and what its rules need not compute again.

    Where a rule sums the contributions of each sign, W x is W+ x + W- x, which is as exact (its
    terms are the same) and saves a product; the two sums are returned.
    """
    program = graph.program
    apart = {
        eqn.outputs[0]: layer.place
        for layer in layers
        if layer.non_negative and (rule := method.rule_for(graph, layer)) and rule.facts.takes_apart
        if (eqn := bare_product(program, layer))
    }
    sums: Sums = {}

    def by_sign(eqn: Eqn, inputs: Sequence[Any]) -> Sequence[Any]:
        place = apart.get(eqn.outputs[0])
        if place is None:
            return evaluate(eqn, inputs)
        a, n = sums[place] = weighed(program, eqn, inputs, signs)
        return [a + n]

    return environment(graph, consts, leaves, by_sign), sums


def chain(
    graph: Graph,
    method: Method,
    env: dict[int, Any],
    layers: Sequence[Layer],
    sums: Sums,
    watch: Watch | None = None,
) -> Callable[[Relevance], Relevance]:
    """The method's chain over these layers; over several baselines, the mean of their chains.

    env, sums: as of `values_for`. watch: of the chain of a method without a baseline.
    """
    if method.baseline is None:
        return Chain(graph, method, env, layers, sums=sums, watch=watch)
    baselines = rows_of(method.baseline, [env[v] for v in graph.program.inputs])
    at = lambda baseline: Chain(graph, method, env, layers, baseline)
    if len(baselines[0]) == 1:
        return at([b[0] for b in baselines])

    def mean(relevance: Relevance) -> Relevance:
        # One baseline at a time: memory does not grow with their number.
        found = jax.lax.map(lambda baseline: at(baseline)(relevance), baselines)
        return jax.tree.map(lambda r: r.mean(0), found)

    return mean


def _in_whole_numbers(method: Method, layer: Layer) -> str:
    return (
        f"Under {method.name} relevance reaches truth values or integers, "
        f"which cannot take any: {layer.primitive} at {layer.source} (layer {layer.name!r}) makes "
        "numbers of them: compute these outside of the model, as constants, or give "
        f"{layer.name!r} a rule in a composite (see lrpjax.composites)."
    )


def _listed(shapes: Sequence[Any]) -> str:
    return " and ".join(map(str, shapes))
