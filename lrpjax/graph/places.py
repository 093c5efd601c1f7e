"""Places in a graph: a layer by its name, the layers below one, the values between them."""

from __future__ import annotations

from collections.abc import Sequence

from .._base.checks import check_known
from ..program import Layout
from .layer import Layer
from .layers import Graph


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


def below(graph: Graph, start: str | None) -> tuple[Layer, ...]:
    """The layers that relevance injected at the output of layer `start` can reach, in order."""
    wanted = set(graph.program.outputs)
    if start is not None:
        wanted = {find_layer(graph, start).outputs[0]}
    kept = []
    for layer in reversed(graph.layers):
        if wanted.intersection(layer.outputs):
            kept.append(layer)
            wanted.update(layer.inputs)
    return tuple(kept[::-1])


def values_at(graph: Graph, start: str | None, names: Sequence[str]) -> list[int]:
    """The values that these layers write ("input" is the model's), by number.

    Raises ValueError for a layer that relevance injected at `start` does not reach.
    """
    reach = {layer.place for layer in below(graph, start)}
    for name in names:
        if name != "input" and find_layer(graph, name).place not in reach:
            raise ValueError(f"Relevance injected at {start!r} does not reach {name!r}.")
    layers = graph.by_name
    return [graph.program.inputs[0] if n == "input" else layers[n].outputs[0] for n in names]


def output_layer(graph: Graph) -> str:
    """The name of the layer that writes the model's (first) output."""
    output = graph.program.outputs[0]
    return next(layer.name for layer in graph.layers if output in layer.outputs)
