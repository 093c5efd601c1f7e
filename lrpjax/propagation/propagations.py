"""Propagations of relevance through parts of a model, of any method that is a chain of rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..graph import Graph, Layer
from ..graph.places import below
from ..graph.reading import environment
from ..layers import bare_product, weighed
from ..program import Eqn, evaluate
from ..program.evaluation import as_number
from ..rules.protocol import signs
from . import refusals
from .chain import Chain, Sums, Watch
from .derivative import Relevance, derivative, stands_as_it_is
from .multipliers import are_several, over_baselines
from .rule_chain import RuleChain


@dataclass(frozen=True)
class Span:
    """A part of a chain: the layers that relevance passes (by place, so that equal readings have
    equal spans), the values at which it is injected, and those at which it is read."""

    layers: tuple[int, ...]
    injected: tuple[int, ...]
    captured: tuple[int, ...]


def span(layers: Sequence[Layer], injected: Sequence[int], captured: Sequence[int]) -> Span:
    return Span(tuple(layer.place for layer in layers), tuple(injected), tuple(captured))


def propagations(
    graph: Graph,
    method: RuleChain,
    consts: Sequence[Any],
    leaves: Sequence[Any],
    spans: Sequence[Span],
    *,
    as_is: bool = False,
    watch: Watch | None = None,
) -> tuple[dict[int, Any], list[Callable[[Relevance], Relevance]]]:
    """The values at which relevance is injected and the model's outputs, and for each span the
    map from relevance at its injected values to relevance at those where it is read (and others).

    as_is: as in `derivative`; other methods have but one way. watch: as in `chain`.
    """
    parts = [[graph.layers[place] for place in part.layers] for part in spans]
    if not method.derivative:
        passed = {place for part in spans for place in part.layers}
        env, sums = values_for(
            graph, method, consts, leaves, [a for a in graph.layers if a.place in passed]
        )
        return env, [chain(graph, method, env, part, sums, watch) for part in parts]
    known: dict[int, Any] = {}
    maps = []
    for part, own in zip(spans, parts, strict=True):
        ruled = list(zip(own, refusals.rules_for(graph, method, own), strict=True))
        ends = (part.injected, part.captured)
        values, pull = derivative(graph, ruled, consts, leaves, *ends, as_is=as_is)
        known |= values
        maps.append(_times_input(graph, leaves, pull) if method.times_input else pull)
    return known, maps


def is_vjp(graph: Graph, method: RuleChain) -> bool:
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
    method: RuleChain,
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
    method: RuleChain,
    env: dict[int, Any],
    layers: Sequence[Layer],
    sums: Sums,
    watch: Watch | None = None,
) -> Callable[[Relevance], Relevance]:
    """The method's chain over these layers; over several baselines, the mean of their chains.

    env, sums: as of `values_for`. watch: of the chain of a method without a baseline.
    """
    told = watch if method.baseline is None else None
    made = lambda travels: Chain(travels, layers, sums, told)
    if not are_several(graph, method, env):
        return over_baselines(graph, method, env, made)
    return lambda relevance: over_baselines(graph, method, env, lambda t: made(t)(relevance))
