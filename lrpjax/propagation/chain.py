"""A chain of rules: relevance at some values becomes relevance at all below them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from ..graph import Layer
from ..layers import Bounds, Linear, Op, bare, make_op, tupled
from ..program import is_inexact
from ..rules import Rule
from . import refusals
from .derivative import Relevance, is_gradient
from .rule_chain import RuleChain
from .travelling import AsRelevance

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
    """The composition of the layers' rules at one input.

    All that does not depend on relevance is computed here, once. `chain(relevance)` takes
    {value: relevance} and returns the relevance at every value below.
    sums: as of `propagations.values_for`. watch: is told of each step.
    """

    def __init__(
        self,
        travels: AsRelevance,
        layers: Sequence[Layer],
        sums: Sums | None = None,
        watch: Watch | None = None,
    ):
        self.travels, self.watch = travels, watch
        self.graph, self.method, self.env = travels.graph, travels.method, travels.env
        rules = refusals.rules_for(self.graph, self.method, layers)
        self.stages = [
            self._stage(layer, rule, sums or {}) for layer, rule in zip(layers, rules, strict=True)
        ]

    def _stage(self, layer: Layer, rule: Rule, sums: Sums) -> Stage:
        env, method = self.env, self.method
        op: Any = make_op(self.graph.program, layer, env)
        op = replace(op, bounds=Bounds(self.graph, env, layer))
        if layer.place in sums:
            op = replace(op, sums=jax.tree.map(op.core.after, sums[layer.place]))
        if method.patterns is not None:
            op = replace(op, pattern=method.patterns.get(layer.name))
        op = self.travels.known(op)
        outputs = [env[v] for v in layer.outputs]
        if not any(map(is_inexact, outputs)):  # whole numbers carry nothing
            self.travels.stopped(layer)
            return Stage(layer, rule, op, lambda r: bare(None for _ in layer.inputs))
        made = rule(op, *(env[v] for v in layer.inputs), bare(outputs))
        return Stage(layer, rule, op, self.travels.through(op, made))

    def __call__(self, relevance: Relevance) -> Relevance:
        travelling = self.travels.start(relevance)
        for stage in reversed(self.stages):
            if any(v in travelling for v in stage.layer.outputs):
                self._require_numbers(stage)
                arrived = self._arrived(stage, travelling)
                sent = self._sent(stage, arrived)
                if self.watch is not None:
                    self.watch(self, stage, arrived, sent)
                self._add(travelling, stage.layer.inputs, sent)
        return {v: self.travels.read_out(v, r) for v, r in travelling.items()}

    def _arrived(self, stage: Stage, travelling: Relevance) -> tuple[jax.Array, ...]:
        """What has arrived at each output of the stage's layer; zeros where nothing has."""
        zeros = lambda v: jnp.zeros(self.travels.shape(v), self.env[v].dtype)
        return tuple(travelling[v] if v in travelling else zeros(v) for v in stage.layer.outputs)

    def _sent(self, stage: Stage, arrived: Sequence[jax.Array]) -> tuple:
        """What the stage's rule takes to each input of its layer; None is nothing.

        Raises ValueError for a rule that does not fit the layer, as one of the user's may not.
        """
        layer, found = stage.layer, tupled(stage.pull(bare(arrived)))
        wanted = [self.travels.shape(v) for v in layer.inputs]
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

    def _add(self, travelling: Relevance, values: Sequence[int], sent: Sequence) -> None:
        """Adds what a layer sends to its inputs, in their precision; None is nothing."""
        for v, r in zip(values, sent, strict=True):
            if r is not None:
                r = r.astype(self.env[v].dtype)  # the layer may have changed it
                travelling[v] = travelling[v] + r if v in travelling else r

    def _require_numbers(self, stage: Stage) -> None:
        """Raises NotImplementedError where the layer makes numbers of truth values or integers
        alone: these would take all of its relevance, and have no gradient to pass any on."""
        holds = lambda values: any(is_inexact(self.env[v]) for v in values)
        if not holds(stage.layer.outputs) or holds(stage.layer.inputs):
            return
        layers = (other.layer for other in self.stages)
        substituted = any(self.method.is_substituted(self.graph, layer) for layer in layers)
        if substituted or not is_gradient(stage.rule):
            raise NotImplementedError(_in_whole_numbers(self.method, stage.layer))


def _in_whole_numbers(method: RuleChain, layer: Layer) -> str:
    return (
        f"Under {method.name} relevance reaches truth values or integers, "
        f"which cannot take any: {layer.primitive} at {layer.source} (layer {layer.name!r}) makes "
        "numbers of them: compute these outside of the model, as constants, or give "
        f"{layer.name!r} a rule in a composite (see lrpjax.composites)."
    )


def _listed(shapes: Sequence[Any]) -> str:
    return " and ".join(map(str, shapes))
