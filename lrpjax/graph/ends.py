"""What a model ends in: a softmax or a sigmoid that its outputs are probabilities of.

LRP of a probability is no explanation of a class: its relevance is shared by the contributions to a
logit, whose sign a probability does not have.
"""

from __future__ import annotations

from .layer import Layer
from .layers import Graph

_THROUGH = ("structure", "factor", "scale", "sum", "add", "norm")


def ending(graph: Graph) -> list[Layer]:
    """The layers that turn logits into what the model returns: each softmax, and each activation
    that has one sign whatever that of its input (sigmoid, softplus), that reaches the output
    through moves, constant factors and shifts, sums, means and weighing alone. In order."""
    maker = {v: layer for layer in graph.layers for v in layer.outputs}
    waiting, seen = list(graph.program.outputs), set[int]()
    found = []
    while waiting:
        value = waiting.pop()
        layer = maker.get(value)
        if value in seen or layer is None:
            continue
        seen.add(value)
        if _ends(layer) or _is_log_of_sum(maker, layer):
            found.append(layer)
        elif layer.kind in _THROUGH or layer.primitive == "exp":  # exp of a log-softmax
            waiting.extend(layer.inputs)
        elif layer.kind == "product":
            waiting.extend(v for k, v in enumerate(layer.inputs) if k != layer.detail.weighs)
    return sorted(found, key=lambda layer: layer.place)


def _ends(layer: Layer) -> bool:
    if layer.kind == "activation":
        low, high = layer.detail.range
        return not layer.detail.keeps_sign and (low >= 0 or high <= 0)
    return layer.kind == "softmax"


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
