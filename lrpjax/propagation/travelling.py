"""What travels down a chain of rules: relevance, as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from ..graph import Graph, Layer
from ..layers import Linear, Op
from .derivative import Relevance
from .rule_chain import RuleChain


@dataclass
class AsRelevance:
    """Relevance itself travels. The base of what travels otherwise (see `multipliers`).

    env: every value of the program.
    """

    graph: Graph
    method: RuleChain
    env: dict[int, Any]

    def known(self, op: Op | Linear) -> Op | Linear:
        """The layer at work, with all that its rule asks for."""
        return op

    def through(self, op: Op | Linear, made: Any) -> Callable:
        """From what the rule returned, the map of what travels."""
        return made

    def stopped(self, layer: Layer) -> None:
        """Notes that nothing travels through a layer, which makes whole numbers."""

    def start(self, relevance: Relevance) -> Relevance:
        """What travels, from the relevance that is injected."""
        return dict(relevance)

    def shape(self, value: int) -> tuple[int, ...]:
        """The shape of what travels at a value."""
        return self.env[value].shape

    def read_out(self, value: int, travelling: jax.Array) -> jax.Array:
        """The relevance of a value, from what travels there."""
        if self.method.times_input and value in self.graph.program.inputs:
            return travelling * self.env[value]
        return travelling
