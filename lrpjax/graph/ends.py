"""What a model ends in: a softmax or a sigmoid that its outputs are probabilities of.

LRP of a probability is no explanation of a class: its relevance is shared by the contributions to a
logit, whose sign a probability does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .fold import is_step
from .layer import Layer
from .layers import Graph
from .pieces import numpy_value
from .program import Eqn

_THROUGH = ("structure", "choice", "factor", "scale", "sum", "max_pool", "fixed", "add", "norm")
_IN_PLACE = ("structure", "factor", "scale")


def ending(graph: Graph) -> list[Layer]:
    """The layers that turn logits into what the model returns: each softmax, and each activation
    that has one sign whatever that of its input (sigmoid, softplus), that reaches the output
    through moves, constant factors and shifts, clips, sums, means, maxima and weighing alone. In
    order. A gate that reaches it beside the value that it weighs is none: (1 - z) u + z times the
    first state is a value between the two."""
    maker = {v: layer for layer in graph.layers for v in layer.outputs}
    gates = _gates(graph, maker)
    waiting = [_Way(v, False, ()) for v in graph.program.outputs]
    seen, found = set[_Way](), set[Layer]()
    while waiting:
        way = waiting.pop()
        layer = maker.get(way.value)
        if way in seen or layer is None or _is_zero(graph, layer):
            continue
        seen.add(way)
        if _ends(maker, layer) or _ends_shifted(graph, layer, way.steps):
            if not (way.added and layer in gates):
                found.add(layer)
        elif _goes_on(layer):
            added, steps = way.added or layer.kind == "add", (*_steps(layer), *way.steps)
            waiting.extend(_Way(v, added, steps) for v in layer.inputs)
        elif layer.kind == "product":
            others = (v for k, v in enumerate(layer.inputs) if k != layer.detail.weighs)
            waiting.extend(_Way(v, way.added, ()) for v in others)
    return sorted(found, key=lambda layer: layer.place)


@dataclass(frozen=True)
class _Way:
    """A value that reaches the output; whether it is a summand there, and the steps by constants
    that it goes through."""

    value: int
    added: bool
    steps: tuple[Eqn, ...]


def _steps(layer: Layer) -> tuple[Eqn, ...]:
    return tuple(eqn for eqn in layer.eqns if layer.kind in _IN_PLACE and is_step(eqn))


def _goes_on(layer: Layer) -> bool:
    clips = layer.kind == "activation" and layer.detail.cuts
    return clips or layer.kind in _THROUGH or layer.primitive == "exp"  # exp of a log-softmax


def _gates(graph: Graph, maker: dict[int, Layer]) -> set[Layer]:
    """The layers that make what weighs another value somewhere."""
    products = [layer for layer in graph.layers if layer.kind == "product"]
    waiting = [a.inputs[a.detail.weighs] for a in products if a.detail.weighs is not None]
    found, seen = set[Layer](), set[int]()
    while waiting:
        value = waiting.pop()
        layer = maker.get(value)
        if value in seen or layer is None:
            continue
        seen.add(value)
        found.add(layer)
        if layer.kind in _IN_PLACE or layer.primitive == "exp":
            waiting.extend(layer.inputs)
    return found


def _is_zero(graph: Graph, layer: Layer) -> bool:
    """Whether a layer multiplies by 0, as a gate does a first state."""
    factors = layer.eqns if layer.kind == "factor" else ()
    zero = lambda v: v in graph.uniform and graph.uniform[v] == 0
    return any(eqn.name == "mul" and any(map(zero, eqn.inputs)) for eqn in factors)


def _ends(maker: dict[int, Layer], layer: Layer) -> bool:
    if layer.kind != "activation":
        return layer.kind == "softmax" or _is_log_of_sum(maker, layer)
    if not _one_sign(*layer.detail.range) or layer.detail.keeps_sign:
        return False
    below = maker.get(layer.inputs[0])  # what a clip is of is the end, not the clip
    return not (layer.detail.cuts and below is not None and _ends(maker, below))


def _one_sign(low: float, high: float) -> bool:
    return low >= 0 or high <= 0


def _ends_shifted(graph: Graph, layer: Layer, steps: Sequence[Eqn]) -> bool:
    """Whether the steps behind an activation of both signs make its values ones of one sign, as in
    the sigmoid (1 + tanh z) / 2."""
    if layer.kind != "activation" or not steps or _one_sign(*layer.detail.range):
        return False
    bounds = np.array(layer.detail.range)
    for eqn in steps:
        operands = [
            bounds if v in graph.program.active else graph.uniform.get(v) for v in eqn.inputs
        ]
        if any(operand is None for operand in operands):
            return False
        bounds = numpy_value(eqn.name, *operands)
    return _one_sign(*np.sort(bounds))


def _is_log_of_sum(maker: dict[int, Layer], layer: Layer) -> bool:
    """Whether it is the logarithm of a sum of exponentials: what log-softmax subtracts."""
    if layer.primitive != "log":
        return False
    waiting, primitives = list(layer.inputs), set[str]()
    while waiting:
        before = maker.get(waiting.pop())
        if before is None:
            continue
        primitives.add(before.primitive)
        if before.primitive != "exp":
            waiting.extend(before.inputs)
    return {"exp", "reduce_sum"} <= primitives
