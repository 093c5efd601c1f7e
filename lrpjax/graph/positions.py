"""What is known of a layer from its place: first, last, signs and features of its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..program.axes import Axes
from ..program.program import Program, constants_behind
from .kinds import KINDS
from .layer import Layer
from .signs import find_non_negative


def describe(
    program: Program, uniform: dict[int, Any], axes: Axes, layers: Sequence[Layer]
) -> list[Layer]:
    """The layers with what is known of their places."""
    activations = {a.outputs[0]: a.detail for a in layers if a.kind == "activation"}
    positive = find_non_negative(program, uniform, activations)
    own = [_has_parameters(program, layer) for layer in layers]
    (first, front), last = _first(program, layers, own), _last(program, layers, own)
    return [
        replace(
            layer,
            first=place in first,
            last=place in last,
            front=place in front,
            non_negative=positive.issuperset(layer.inputs),
            feature=axes.feature[layer.inputs[0]],
            layout=axes.layout[layer.outputs[0]],
        )
        for place, layer in enumerate(layers)
    ]


def _has_parameters(program: Program, layer: Layer) -> bool:
    if not KINDS[layer.kind].parameters or program.fixed.issuperset(program.consts):
        return KINDS[layer.kind].parameters
    constants = [v for eqn in layer.eqns for v in eqn.inputs if v not in program.active]
    return not program.fixed.issuperset(constants_behind(program, constants))


def _first(
    program: Program, layers: Sequence[Layer], own: Sequence[bool]
) -> tuple[set[int], set[int]]:
    """The layers with parameters that only read values which no such layer has made, and the
    layers without that do."""
    untouched, first, front = set(program.inputs), set[int](), set[int]()
    for place, layer in enumerate(layers):
        if not untouched.issuperset(layer.inputs):
            continue
        if own[place]:
            first.add(place)
        else:
            front.add(place)
            untouched.update(layer.outputs)
    return first, front


def _last(program: Program, layers: Sequence[Layer], own: Sequence[bool]) -> set[int]:
    """The layers with parameters above which there is none."""
    above, found = set(program.outputs), set()
    for place, layer in reversed(list(enumerate(layers))):
        if above.isdisjoint(layer.outputs):
            continue
        if own[place]:
            found.add(place)
        else:
            above.update(layer.inputs)
    return found
