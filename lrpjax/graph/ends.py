"""What a model ends in: a softmax or a sigmoid that its outputs are probabilities of.

LRP of a probability is no explanation of a class: its relevance is shared by the contributions to a
logit, whose sign a probability does not have.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .fold import is_step
from .layer import Layer
from .layers import Graph
from .pieces import numpy_value

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
    reached = _Reached(graph.program.outputs)
    found = set[Layer]()
    for layer in reversed(graph.layers):
        for added in (False, True):
            zeros = reached.at(layer.outputs, added)
            if zeros is None or _is_zero(graph, layer):
                continue
            if _ends(maker, layer) or _ends_shifted(layer, zeros):
                if not (added and layer in gates):
                    found.add(layer)
            elif _goes_on(layer):
                before = _before(graph, layer, zeros)
                reached.add(layer.inputs, added or layer.kind == "add", before)
            elif layer.kind == "product":
                weighed = [v for k, v in enumerate(layer.inputs) if k != layer.detail.weighs]
                reached.add(weighed, added, _AS_IT_IS)
    return sorted(found, key=lambda layer: layer.place)


Zeros = tuple[float, float]  # the least and the largest
_AS_IT_IS: Zeros = (0.0, 0.0)
_NOWHERE: Zeros = (np.inf, -np.inf)
_ROUNDING = 1e-9  # of where the steps are 0


class _Reached:
    """The values that reach the output, as a summand there or not; and where the steps by constants
    that they go through make them 0, on all ways together."""

    def __init__(self, outputs: Iterable[int]) -> None:
        self.zeros = {(v, False): _AS_IT_IS for v in outputs}

    def at(self, values: Iterable[int], added: bool) -> Zeros | None:
        """None where none of the values reaches it so."""
        found = [self.zeros[v, added] for v in values if (v, added) in self.zeros]
        return (min(low for low, _ in found), max(high for _, high in found)) if found else None

    def add(self, values: Iterable[int], added: bool, zeros: Zeros) -> None:
        for v in values:
            low, high = self.zeros.get((v, added), _NOWHERE)
            self.zeros[v, added] = min(low, zeros[0]), max(high, zeros[1])


def _before(graph: Graph, layer: Layer, zeros: Zeros) -> Zeros:
    """Which numbers in front of a layer its steps turn into those: c x + d is r at (r - d) / c.
    Nowhere, where its constants are not one number everywhere."""
    numbers = np.array([0.0, 1.0])
    for eqn in layer.eqns if layer.kind in _IN_PLACE else ():
        if is_step(eqn):
            known = [
                numbers if v in graph.program.active else graph.uniform.get(v) for v in eqn.inputs
            ]
            if any(number is None for number in known):
                return _NOWHERE
            numbers = numpy_value(eqn.name, *known)
    shift, factor = numbers[0], numbers[1] - numbers[0]
    if zeros == _NOWHERE or factor == 0:
        return _NOWHERE
    low, high = sorted((r - shift) / factor for r in zeros)
    return low, high


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


def _ends_shifted(layer: Layer, zeros: Zeros) -> bool:
    """Whether the steps behind an activation of both signs make its values ones of one sign, as in
    the sigmoid (1 + tanh z) / 2: they are 0 at none of its values."""
    if layer.kind != "activation":
        return False
    low, high = (end * (1 - _ROUNDING) for end in layer.detail.range)
    return not _one_sign(low, high) and zeros != _NOWHERE and (zeros[0] <= low or zeros[1] >= high)


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


def ends_in(layer: Layer) -> str:
    """What a layer of `graph.ending` is, as the beginning of a sentence."""
    what = layer.detail.name if layer.kind == "activation" else "softmax"
    return f"The model ends in {'sigmoid' if what == 'logistic' else what}"
