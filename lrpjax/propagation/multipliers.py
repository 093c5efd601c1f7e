"""What travels under DeepLIFT: multipliers of the difference from a baseline.

Relevance is multiplier times difference. With rules that treat positive and negative differences
apart (RevealCancel) two multipliers travel, stacked. Shrikumar et al. 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from ..graph import Graph, Layer
from ..layers import Linear, Op, bare, tupled
from ..program import run
from ..rules.protocol import negative, positive
from .baselines import rows_of
from .derivative import Relevance
from .rule_chain import RuleChain
from .travelling import AsRelevance

T = TypeVar("T")


@dataclass
class AsMultipliers(AsRelevance):
    """A multiplier for each entry. baseline: one for each input of the model.

    differences: of each value that was passed on the way up, from what it is at the baseline.
    """

    baseline: Sequence[jax.Array]
    differences: dict[int, jax.Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        program = self.graph.program
        inputs = dict(zip(program.inputs, self.baseline, strict=True))
        self.at_baseline = run(program.eqns, {**self.env, **inputs})
        self.differences |= {v: self.difference(self.env[v] - x0) for v, x0 in inputs.items()}

    def difference(self, d: jax.Array) -> jax.Array:
        """The difference d as it is kept."""
        return d

    def known(self, op: Op | Linear) -> Op | Linear:
        inputs = tuple(self.at_baseline[v] for v in op.layer.inputs)
        outputs = bare(self.at_baseline[v] for v in op.layer.outputs)
        return replace(op, reference=(inputs, outputs))

    def through(self, op: Op | Linear, made: Any) -> Callable:
        self.differences |= {v: self.env[v] - self.at_baseline[v] for v in op.layer.outputs}
        return made

    def stopped(self, layer: Layer) -> None:
        none = {v: jnp.zeros(self.env[v].shape) for v in layer.outputs}
        self.differences |= {v: self.difference(d) for v, d in none.items()}

    def read_out(self, value: int, travelling: jax.Array) -> jax.Array:
        return travelling * self.differences[value]


@dataclass
class AsPairs(AsMultipliers):
    """A multiplier of the positive and one of the negative part of each difference, (2, *shape)."""

    def difference(self, d: jax.Array) -> jax.Array:
        return jnp.stack([positive(d), negative(d)])

    def known(self, op: Op | Linear) -> Op | Linear:
        split = tuple(self.differences[v] for v in op.layer.inputs)
        return replace(super().known(op), split=split)

    def through(self, op: Op | Linear, made: Any) -> Callable:
        pull, push = made
        parts = tupled(push(*op.split))
        self.differences |= dict(zip(op.layer.outputs, parts, strict=True))
        return pull

    def start(self, relevance: Relevance) -> Relevance:
        return {v: jnp.stack([r, r]) for v, r in relevance.items()}

    def shape(self, value: int) -> tuple[int, ...]:
        return (2, *super().shape(value))

    def read_out(self, value: int, travelling: jax.Array) -> jax.Array:
        return super().read_out(value, travelling).sum(0)


def over_baselines(
    graph: Graph, method: RuleChain, env: dict[int, Any], of: Callable[[AsRelevance], T]
) -> T:
    """of(what travels); of several baselines the mean of what it gives for each."""
    if method.baseline is None:
        return of(AsRelevance(graph, method, env))
    kind = AsPairs if method.paired else AsMultipliers
    at = lambda row: of(kind(graph, method, env, row))
    rows = _rows(graph, method, env)
    if len(rows[0]) == 1:
        return at([b[0] for b in rows])
    # One baseline at a time: memory does not grow with their number.
    return jax.tree.map(lambda r: r.mean(0), jax.lax.map(at, rows))


def are_several(graph: Graph, method: RuleChain, env: dict[int, Any]) -> bool:
    """Whether there is more than one baseline to average over."""
    return method.baseline is not None and len(_rows(graph, method, env)[0]) > 1


def _rows(graph: Graph, method: RuleChain, env: dict[int, Any]) -> list[jax.Array]:
    return rows_of(method.baseline, [env[v] for v in graph.program.inputs])
