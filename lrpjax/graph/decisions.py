"""What a reading decided where a model may be read in more than one way, in words."""

from __future__ import annotations

from collections.abc import Callable

from .layer import Layer
from .layers import Graph


def decision(graph: Graph, layer: Layer) -> str:
    """Which factor of a product only weighs and why, what a norm is of, what is no parameter of the
    model; empty for a layer that leaves nothing to decide."""
    words = _WORDS.get(layer.kind)
    return words(graph, layer) if words else ""


def _product(graph: Graph, layer: Layer) -> str:
    if layer.detail.weighs is None:
        return "half each"
    return f"{graph.name_of(layer.inputs[layer.detail.weighs])} weighs ({layer.detail.why})"


def _norm(graph: Graph, layer: Layer) -> str:
    axes = ", ".join(map(str, layer.detail.axes))
    along = f" along {axes}" if axes else ""
    statistics = dict.fromkeys(graph.name_of(v) for v in layer.inputs)
    return f"of {graph.name_of(layer.inputs[0])}{along}, by {' and '.join(statistics)}"


_WORDS: dict[str, Callable[[Graph, Layer], str]] = {
    "product": _product,
    "norm": _norm,
    "fixed": lambda graph, layer: "no parameters",
}
