"""What a method cannot do on a model: one clear sentence where an answer would be nonsense."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._base.checks import is_concrete
from ..graph import Graph, Layer, ending
from ..graph.ends import ends_in
from ..graph.stated_range import ROUNDING
from ..program import calls_around, is_inexact
from ..program.evaluation import carrying
from ..rules import Rule, flat, nothing
from ..rules import rule as make_rule
from .rule_chain import RuleChain

NOTHING = make_rule(nothing)  # where no relevance arrives
UNIFORM = 1e-5  # of a map's largest entry, by which stabilisers and rounding move the others


def check_range(leaves: Sequence[Any], method: RuleChain) -> None:
    """Raises ValueError if a concrete input leaves the range that the method's rules suppose."""
    if method.input_range is None:
        return
    low, high = np.broadcast_arrays(*map(np.asarray, method.input_range))
    for leaf in leaves:
        if not is_concrete(leaf):
            continue
        least, most = _extremes(leaf, low.size if low.ndim else None)
        if (least < low - ROUNDING).any() or (most > high + ROUNDING).any():
            raise ValueError(
                f"{method.name} supposes an input between {_text(low)} and {_text(high)}, this one "
                f"holds {_text(least)} to {_text(most)}: give the low and high that the model's "
                "preprocessing allows."
            )


def _extremes(leaf: Any, channels: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest entry, of each channel where the leaf has that many of them."""
    axis = next((a for a in (leaf.ndim - 1, 1) if channels and leaf.shape[a] == channels), None)
    others = tuple(a for a in range(leaf.ndim) if a != axis)
    return np.asarray(jnp.min(leaf, others)), np.asarray(jnp.max(leaf, others))


def _text(bound: np.ndarray) -> str:
    """2.5, or (2.2, 2.4, 2.6) for one of each channel."""
    return f"({', '.join(f'{b:g}' for b in bound)})" if bound.ndim else f"{bound:g}"


def rules_for(graph: Graph, method: RuleChain, layers: Sequence[Layer]) -> list[Rule]:
    """Each layer's rule; NotImplementedError for the first layer that has none."""
    for layer in layers:
        # Reverse differentiation opens a branch, but no loop of unknown length; a function with a
        # derivative of its own may have one.
        if (
            layer.kind == "control"
            and (method.asked(graph, layer) is None or layer.primitive == "while")
            and not (method.derivative and calls_around(graph.program, layer.eqns))
        ):
            raise NotImplementedError(
                f"Data-dependent control flow ({layer.primitive}) at {layer.source} lies between "
                "the input and the output, and its path is not known before it runs: write it "
                "without (jnp.where, or a loop of fixed length)."
            )
    activations = [layer.detail for layer in graph.layers if layer.kind == "activation"]
    if method.needs_cuts and activations and not any(a.cuts for a in activations):
        smooth = ", ".join(sorted({a.name for a in activations}))
        raise NotImplementedError(
            f"{method.name} differs from the gradient only where an activation cuts (ReLU, leaky "
            f'ReLU, clips), and those of this model are smooth ({smooth}): take "gradient".'
        )
    found = []
    ends = {layer.place: layer for layer in ending(graph)}
    for layer in layers:
        rule = method.rule_for(graph, layer)
        if layer.place in ends and (rule is None or rule.facts.inside_only):
            raise NotImplementedError(_no_logits(layer))
        if rule is None and carries_relevance(graph, layer):
            raise NotImplementedError(_no_rule(graph, method, layer))
        found.append(rule or NOTHING)
    return found


def carries_relevance(graph: Graph, layer: Layer) -> bool:
    """Whether a layer's outputs may: whole numbers and truth values carry none."""
    return any(is_inexact(graph.program.avals[v]) for v in layer.outputs)


def _no_logits(layer: Layer) -> str:
    return (
        f"{ends_in(layer)} ({layer.primitive} at {layer.source}): explain its logits, "
        "by passing the model without its last activation."
    )


def flat_first(graph: Graph, method: RuleChain) -> str:
    """The name of a first layer that has the flat rule; "" if there is none."""
    first = ((layer.name, method.rule_for(graph, layer)) for layer in graph.layers if layer.first)
    return next((name for name, rule in first if rule is not None and rule.function is flat), "")


def warn_of_uniform_maps(name: str, layer: str, maps: Sequence[Any], stacklevel: int) -> None:
    """Warns where concrete maps have one value for all of an example's inputs, and show nothing.

    layer: a first layer with the flat rule, as `flat_first` finds it; nothing else makes them so.
    """
    if layer and all(map(is_concrete, maps)) and _is_uniform(maps):
        warnings.warn(
            f"The map of {name} is uniform: its rule for the first layer {layer!r} is flat, and "
            "no convolution tells an example's inputs apart, so that every input gets the same "
            "share. Take lrp-zplus or lrp-wsquare for such a model.",
            stacklevel=stacklevel + 1,
        )


def _is_uniform(maps: Sequence[Any]) -> bool:
    """Whether it is one number in each example, and not 0 in all of them."""
    if () in map(np.shape, maps) or len({len(m) for m in maps}) != 1:
        return False  # these are no batches
    rows = np.concatenate([np.asarray(m).reshape(len(m), -1) for m in maps], 1)
    if rows.shape[1] < 2:
        return False
    size = np.abs(rows).max(1, initial=0)
    return bool(size.any() and (np.ptp(rows, 1) <= UNIFORM * size).all())


def _no_rule(graph: Graph, method: RuleChain, layer: Layer) -> str:
    if ends := ending(graph):
        return _no_logits(ends[-1])
    if carrying(graph.program).intersection(layer.inputs):
        return (
            f"{method.name} has no rule for the integers that {layer.primitive} at {layer.source} "
            "computes with: make the input a float before, as in x.astype('float32')."
        )
    register = f"with lrpjax.rules.register({layer.primitive!r}, rule) or "
    return (
        f"{method.name} has no rule for the primitive {layer.primitive!r} at {layer.source} "
        f"(layer {layer.name!r}): give it one {register if method.baseline is None else ''}"
        "in a composite (see lrpjax.composites), or take its gradient with "
        f"lrpjax.methods.get({method.name!r}, unknown='gradient')."
    )
