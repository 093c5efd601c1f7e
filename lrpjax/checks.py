"""Refusals: one clear sentence where an answer would be silent nonsense."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._compat import outside_traces
from .graph import Graph, Layer, Layout, calls_around, ending, is_inexact
from .method import Method
from .rules import Rule, flat, nothing
from .rules import rule as make_rule

NOTHING = make_rule(nothing)  # where no relevance arrives
ROUNDING = 1e-3  # by which preprocessing may miss the bounds of its range


def is_concrete(value: Any) -> bool:
    return not isinstance(value, jax.core.Tracer)


@jax.jit
def _all_finite(arrays: list[jax.Array]) -> jax.Array:
    # 0 a is NaN where a is not finite: one pass, of which `isfinite(a).all()` makes several.
    return jnp.stack([(0 * a).sum() == 0 for a in arrays])


def not_finite(values: Sequence[Any]) -> list[int]:
    """The places of the concrete floating-point arrays that hold NaN or infinity."""
    known = [
        (place, value)
        for place, value in enumerate(values)
        if is_concrete(value) and jnp.issubdtype(value.dtype, jnp.floating)
    ]
    away = {place: value for place, value in known if not _is_on_host(value)}
    bad = [p for p, value in known if p not in away and not np.isfinite(value).all()]
    if away:
        with outside_traces():  # also where the call stands inside a jit or a vmap
            fine = np.asarray(_all_finite(list(away.values())))
        bad += [place for place, ok in zip(away, fine, strict=True) if not ok]
    return sorted(bad)


def _is_on_host(value: Any) -> bool:
    """Whether numpy sees the numbers where they are: nothing to compile, nothing to fetch."""
    if not isinstance(value, jax.Array):
        return True
    return value.is_fully_addressable and {d.platform for d in value.devices()} == {"cpu"}


def check_finite(values: Sequence[Any], names: Sequence[str]) -> None:
    """Raises ValueError if a concrete floating-point array holds NaN or infinity."""
    if bad := ", ".join(names[place] for place in not_finite(values)):
        raise ValueError(f"There is NaN or infinity in {bad}: relevance of it would mean nothing.")


def check_maps(method: str, maps: Sequence[Any], outputs: Sequence[Any] = ()) -> None:
    """Raises ValueError if concrete relevance holds NaN or infinity, or what it is relevance of.

    All that is handed out passes here once; what is traced does not.
    """
    bad = not_finite([*outputs, *maps])
    if bad and bad[0] < len(outputs):
        check_finite(outputs, ["the model's output"] * len(outputs))
    if bad:
        raise ValueError(
            f"There is NaN or infinity in the relevance that {method} gives: it leaves the range "
            "of its precision on the way. Compute in float64 (jax_enable_x64), or take a method "
            "whose relevance stays bounded."
        )


def check_images(images: Any) -> None:
    """Raises ValueError for anything but a batch of at least one image."""
    if not hasattr(images, "shape") or not images.shape or len(images) == 0:
        raise ValueError("Images are needed as a batch: one array (N, ...) with N at least 1.")


def check_input(leaves: Sequence[Any]) -> None:
    """Raises TypeError or ValueError if the input is not made of finite numbers."""
    for leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.floating) | jnp.issubdtype(leaf.dtype, jnp.integer):
            raise TypeError(f"The input must be real numbers, got dtype {leaf.dtype}.")
    check_finite(leaves, ["the input"] * len(leaves))


def check_range(leaves: Sequence[Any], method: Method) -> None:
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


def find_layer(graph: Graph, name: str) -> Layer:
    """The layer of that name; ValueError with the nearest names if there is none."""
    layers = graph.by_name
    check_known("layer", name, layers)
    return layers[name]


def layout_of(graph: Graph, value: int) -> Layout:
    """What the axes of a value hold; ValueError where they could not be followed."""
    layout = graph.axes.layout[value]
    if layout is None:
        eqn = graph.program.producer[value]
        raise ValueError(
            f"Which axes of what {eqn.name!r} ({eqn.source}) makes number examples is not known: "
            "measure other layers, or write what lies below with primitives whose axes can be "
            "followed."
        )
    return layout


def check_least(least: float, **numbers: float) -> None:
    """Raises ValueError for a number, by the name of its argument, that is less, or not finite."""
    for name, number in numbers.items():
        if not number >= least:
            raise ValueError(f"{name} must be at least {least}, got {number}.")
        if number == float("inf"):
            raise ValueError(f"{name} must be a finite number, got {number}.")


def check_known(what: str, name: str, known: Collection[str]) -> None:
    """Raises ValueError, with the nearest names, for one that is not among those known."""
    if name not in known:
        near = get_close_matches(name, known, 3, 0.4) or list(known)
        raise ValueError(f"There is no {what} {name!r}; the nearest are {', '.join(near)}.")


def rules_for(graph: Graph, method: Method, layers: Sequence[Layer]) -> list[Rule]:
    """Each layer's rule; NotImplementedError for the first layer that has none."""
    for layer in layers:
        # Reverse differentiation opens a branch, but no loop of unknown length; a function with a
        # derivative of its own may have one.
        if (
            layer.kind == "control"
            and (graph.asked(method.composite, layer) is None or layer.primitive == "while")
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


def ends_in(layer: Layer) -> str:
    """What a layer of `graph.ending` is, as the beginning of a sentence."""
    what = layer.detail.name if layer.kind == "activation" else "softmax"
    return f"The model ends in {'sigmoid' if what == 'logistic' else what}"


def _no_logits(layer: Layer) -> str:
    return (
        f"{ends_in(layer)} ({layer.primitive} at {layer.source}): explain its logits, "
        "by passing the model without its last activation."
    )


def warn_of_uniform_maps(graph: Graph, method: Method, stacklevel: int) -> None:
    """Warns where the flat rule stands on first layers that read a whole example each: the map then
    has one value for all of its inputs, and shows nothing."""
    first = [layer for layer in graph.layers if layer.first]
    whole = [
        layer
        for layer in first
        if layer.kind == "dense" and len(graph.program.shape(layer.inputs[0])) == 2
    ]
    rules = [method.rule_for(graph, layer) for layer in whole]
    if first and whole == first and all(r is not None and r.function is flat for r in rules):
        warnings.warn(
            f"The map of {method.name} is uniform: its rule for the first layer is flat, and "
            f"{first[0].name!r} reads all of an example (there is no convolution in front), so "
            "that every input gets the same share. Take lrp-zplus or lrp-wsquare for such a model.",
            stacklevel=stacklevel + 1,
        )


def _no_rule(graph: Graph, method: Method, layer: Layer) -> str:
    if ends := ending(graph):
        return _no_logits(ends[-1])
    register = f"with lrpjax.rules.register({layer.primitive!r}, rule) or "
    return (
        f"{method.name} has no rule for the primitive {layer.primitive!r} at {layer.source} "
        f"(layer {layer.name!r}): give it one {register if method.baseline is None else ''}"
        "in a composite (see lrpjax.composites), or take its gradient with "
        f"lrpjax.methods.get({method.name!r}, unknown='gradient')."
    )


def check_target(target: Any, shape: tuple[int, ...]) -> None:
    """Raises ValueError unless `target` names one class for each of the (N, classes) outputs."""
    if len(shape) != 2:
        raise ValueError(
            f"A target needs outputs of shape (N, classes), this model's have shape {shape}: "
            "use lrpjax.vjp, which takes relevance of any shape."
        )
    if target is None or not is_concrete(target):
        return
    target = np.asarray(target)
    if not np.issubdtype(target.dtype, np.integer) or target.shape not in ((), shape[:1]):
        raise ValueError(
            f"The target must be an integer or {shape[0]} integers (one per image), got dtype "
            f"{target.dtype} and shape {target.shape}."
        )
    if target.size and (target.min() < 0 or target.max() >= shape[1]):
        raise ValueError(
            f"The target must lie between 0 and {shape[1] - 1}, got {target.min()} to "
            f"{target.max()}."
        )
