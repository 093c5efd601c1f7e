"""A chain of rules, as a value: which rule where, what to start from, what to read out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import jax

from .._base import given
from ..composites import Composite, require_composite, require_rule
from ..graph import Graph, Layer
from ..rules import Rule, gradient, rule
from ..rules.deeplift import paired_gradient
from .explainer import Colour, Explainer

Start = Literal["logit", "one"]


@dataclass(frozen=True)
class RuleChain(Explainer):
    """Which rule where, what to start from and what to read out: the fields of `Method`."""

    name: str
    composite: Composite
    start: Start = "logit"
    times_input: bool = False
    fold: bool = True
    unknown: Literal["error", "gradient"] = "error"
    input_range: tuple[Any, Any] | None = None
    paired: bool = False
    colour: Colour = "sum"
    sparse: bool = False
    needs_cuts: bool = False
    derivative: bool = False
    baseline: Any = field(default=None, compare=False)
    patterns: dict[str, jax.Array] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        require_composite(self.composite, self.name)
        if not isinstance(self.fold, bool):
            raise TypeError(f"fold is True or False, got {given.what(self.fold)}.")
        for option, allowed in (("start", ("logit", "one")), ("unknown", ("error", "gradient"))):
            if getattr(self, option) not in allowed:
                raise ValueError(
                    f"{option} is {' or '.join(map(repr, allowed))}, got {getattr(self, option)!r}."
                )

    @property
    def chain(self) -> RuleChain:
        return self

    @property
    def rules(self) -> RuleChain:
        return self

    def started(self, start: Start) -> Self:
        return replace(self, start=start)

    def asked(self, graph: Graph, layer: Layer) -> Rule | None:
        """What the composite says of a layer. TypeError if that is neither a rule nor None."""
        found = graph.asked(self.composite, layer)
        return require_rule(found, f"The composite of {self.name} gives the layer {layer.name!r}")

    def rule_for(self, graph: Graph, layer: Layer) -> Rule | None:
        found = self.asked(graph, layer)
        if found is None and layer.kind == "unknown" and self.baseline is None:
            found = layer.detail  # a registered rule, which knows nothing of references
        if found is None and self.unknown == "gradient":
            return rule(paired_gradient if self.paired else gradient)
        return found

    def is_substituted(self, graph: Graph, layer: Layer) -> bool:
        """Whether the gradient stands in for a rule of the layer, as `unknown` says."""
        if self.unknown != "gradient" or self.asked(graph, layer) is not None:
            return False
        return layer.kind != "unknown" or layer.detail is None or self.baseline is not None
