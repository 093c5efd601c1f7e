"""A method of relevance propagation: a chain of rules that explains a target."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from ..composites import for_every_kind
from ..graph import KINDS
from ..graph.reading import Reading
from ..rules import Rule, gradient, rule
from .explainer import Colour
from .rule_chain import RuleChain, Start
from .targets import ExplainedOutput, explained, read_as, relevance_from


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
class Method(RuleChain):
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
    colour, sparse: as on `Explainer`.
    needs_cuts: whether only activations that cut (ReLU, leaky ReLU, clips) make it another method
    than the gradient, so that it is refused where none does.
    patterns: what stands in the place of each layer's weights, by layer name, or None.
    """

    nests = True

    def explain(self, reading: Reading, x: Any, target: Any) -> Any:
        reading = read_as(reading, x, self)
        _, maps = _explained(reading.graph, self, reading.consts, reading.leaves, target)
        return jax.tree.unflatten(reading.x_tree, maps)

    def maps(self, of: ExplainedOutput, leaves: list[jax.Array]) -> list[jax.Array]:
        """The relevance of each input for the seed of what is explained."""
        return relevance_from(of.graph, self, of.consts, leaves, of.seed)


_explained = jax.jit(explained, static_argnums=0)


def backprop(name: str, start: Start, *, colour: Colour = "sum", **kinds: Rule | None) -> Method:
    """The model's derivative, but for the kinds with a rule of their own."""
    everything = {kind: rule(gradient) for kind in KINDS} | {"control": None}
    composite = for_every_kind(**(everything | kinds))
    return Method(name, composite, start, colour=colour, derivative=True)


# A kind of layer that is forgotten is an error when this is imported.
backprop("backpropagation", "one")
