"""A method of relevance propagation, as a value: which rule where, what to start from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import jax

from ..composites import Composite, for_every_kind
from ..graph import KINDS, Graph, Layer
from ..rules import Rule, gradient, rule
from ..rules.deeplift import paired_gradient

Start = Literal["logit", "one"]
Colour = Literal["sum", "max-abs"]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["baseline", "patterns"],
    meta_fields=[
        "name",
        "composite",
        "start",
        "times_input",
        "fold",
        "unknown",
        "input_range",
        "paired",
        "colour",
        "sparse",
        "needs_cuts",
        "derivative",
    ],
)
@dataclass(frozen=True)
class Method:
    """A way of propagating relevance: a pytree, whose arrays are its baseline and its patterns.

    Methods are compared and hashed without these arrays.

    composite: from a layer's description to its rule.
    start: relevance of the explained unit: its "logit", or "one".
    times_input: whether the read-out multiplies by the input.
    fold: whether BatchNorm and the like are folded into the product next to them.
    unknown: "error", or "gradient" for layers that no rule covers.
    input_range: (low, high) that the rules suppose the input to lie in, or None. Each is a number
    or a tuple with one for each channel.
    baseline: what inputs are compared with (`baselines.Baseline`), or None. With one (DeepLIFT)
    what travels are multipliers, and what is read out is multiplier times difference from it.
    derivative: whether layers whose rule is `rules.gradient` are differentiated as JAX does the
    model, in one piece: with its custom derivatives, stopped gradients and ties.
    paired: whether two multipliers travel, for positive and negative differences.
    colour: how a map is reduced to one value for each pixel before maps are compared: what the
    paper takes (appendix). sparse: whether all but a few entries of a map are zero.
    needs_cuts: whether only activations that cut (ReLU, leaky ReLU, clips) make it another method
    than the gradient, so that it is refused where none does.
    patterns: what stands in the place of each layer's weights, by layer name, or None.
    """

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
        for option, allowed in (("start", ("logit", "one")), ("unknown", ("error", "gradient"))):
            if getattr(self, option) not in allowed:
                raise ValueError(
                    f"{option} is {' or '.join(map(repr, allowed))}, got {getattr(self, option)!r}."
                )

    def rule_for(self, graph: Graph, layer: Layer) -> Rule | None:
        found = graph.asked(self.composite, layer)
        if found is None and layer.kind == "unknown" and self.baseline is None:
            found = layer.detail  # a registered rule, which knows nothing of references
        if found is None and self.unknown == "gradient":
            return rule(paired_gradient if self.paired else gradient)
        return found

    def is_substituted(self, graph: Graph, layer: Layer) -> bool:
        """Whether the gradient stands in for a rule of the layer, as `unknown` says."""
        if self.unknown != "gradient" or graph.asked(self.composite, layer) is not None:
            return False
        return layer.kind != "unknown" or layer.detail is None or self.baseline is not None

    def __str__(self) -> str:
        return self.name


def backprop(name: str, start: Start, *, colour: Colour = "sum", **kinds: Rule | None) -> Method:
    """The model's derivative, but for the kinds with a rule of their own."""
    everything = {kind: rule(gradient) for kind in KINDS} | {"control": None}
    composite = for_every_kind(**(everything | kinds))
    return Method(name, composite, start, colour=colour, derivative=True)


# A kind of layer that is forgotten is an error when this is imported.
backprop("backpropagation", "one")
