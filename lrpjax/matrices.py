"""Z: the matrices that relevance is multiplied by, dense and as operators that are never stored.

For one example a method that is linear in relevance is, between two places of a model, a matrix Z
of shape (n_out, n_in): R_in = Z^T R_out. Through several layers it is the product of theirs,
Z = Z_k ... Z_2 Z_1 with layer 1 nearest to the input. Sixt et al. 2020, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax

from ._base import checks
from ._base.work import BYTES
from .graph import COMPUTING, Graph, Layer
from .graph.places import below, find_layer, output_layer, values_at
from .graph.reading import Model, Reading
from .methods.lookup import resolve_chain
from .propagation import refusals
from .propagation.method import Method
from .propagation.operators import MEMORY, ChainOperator
from .propagation.propagations import Span, span
from .propagation.pullback import forward
from .propagation.targets import read_for


def matrix(
    model: Model,
    x: Any,
    method: str | Method,
    *,
    layer: str,
    memory_limit: float = MEMORY,
) -> jax.Array:
    """The matrix Z_l (n_out, n_in) of one layer for one example: R_in = Z_l^T R_out.

    x: a batch of one, (1, ...). n_out are the entries of the layer's output and n_in those of its
    input, in the order of their arrays; the inputs of a layer that has several (an addition) follow
    one another. Between layers are activations and reshapes with matrices of their own: the
    product over all rows of `lrpjax.plan` is that of `lrpjax.chain`.
    memory_limit: in bytes. Raises as `lrpjax.vjp` does, and ValueError for a batch of several, a
    method that is not linear in relevance, or a matrix that takes more than the limit.
    """
    method = resolve_chain(method, model)
    reading = one_example(model, x, method)
    found = find_layer(reading.graph, layer)
    passed = (found,) if method.baseline is None else below(reading.graph, layer)
    own = span(passed, found.outputs[:1], found.inputs)
    (operator,) = _operators(reading, method, [(own, layer, f"the input of {layer}")])
    return operator.dense(memory_limit=memory_limit)


def chain(
    model: Model,
    x: Any,
    method: str | Method,
    *,
    start: str | None = None,
    stop: str = "input",
) -> ChainOperator:
    """Z from the output of layer `start` (None: the model's) down to that of `stop`.

    x: a batch of one. `op.rmatvec(R)` is what `lrpjax.vjp` gives for R, `op.dense()` is Z itself,
    (n_out, n_in). Raises as `matrix` does.
    """
    method = resolve_chain(method, model)
    reading = one_example(model, x, method)
    start = start or output_layer(reading.graph)
    return chains(reading, method, start, [stop])[0]


def chains(
    reading: Reading, method: Method, start: str, stops: Sequence[str]
) -> list[ChainOperator]:
    """Z from `start` down to each of `stops`, after one forward pass."""
    return _operators(
        reading, method, [_whole(reading.graph, method, start, stop) for stop in stops]
    )


def links(reading: Reading, method: Method, start: str, stop: str) -> list[ChainOperator]:
    """The chain from `start` to `stop` as consecutive operators, from the upper to the lower.

    It is cut at the outputs of layers that all of the relevance passes: not inside of a residual
    block. Raises ValueError where relevance passes beside `stop`, or where what travels is no
    relevance (DeepLIFT's multipliers).
    """
    return _operators(reading, method, _links(reading.graph, method, start, stop))


def chain_and_links(
    reading: Reading, method: Method, start: str, stop: str
) -> tuple[ChainOperator, list[ChainOperator]]:
    """Z from `start` to `stop` and its `links`, after one forward pass; no links where there are
    none, or one, which is the whole."""
    whole = _whole(reading.graph, method, start, stop)
    try:
        parts = _links(reading.graph, method, start, stop)
    except ValueError:
        parts = []
    op, *found = _operators(reading, method, [whole, *(parts if len(parts) > 1 else [])])
    return op, found


def one_example(model: Any, x: Any, method: Method) -> Reading:
    """Reads a model at a batch of one. ValueError for any other batch."""
    reading = read_for(model, x, method)
    sizes = {leaf.shape[0] if leaf.ndim else None for leaf in reading.leaves}
    if sizes != {1}:
        raise ValueError(
            "Z is the matrix of one example: give a batch of one, as in x[:1] (got shape "
            f"{', '.join(str(leaf.shape) for leaf in reading.leaves)})."
        )
    return reading


# A span of the chain, and the names of the layers where it starts and stops.
Part = tuple[Span, str, str]


def _whole(graph: Graph, method: Method, start: str, stop: str) -> Part:
    seed = find_layer(graph, start).outputs[0]
    values_at(graph, start, [stop])
    ends = graph.program.inputs if stop == "input" else graph.by_name[stop].outputs[:1]
    passed = _between(graph, start, ends) if method.baseline is None else below(graph, start)
    return span(passed, (seed,), ends), start, stop


def _links(graph: Graph, method: Method, start: str, stop: str) -> list[Part]:
    if method.baseline is not None:
        raise ValueError(
            f"{method.name} propagates multipliers, which become relevance only where they are "
            "read: it has no matrix for each layer. lrpjax.chain and singular_values take it."
        )
    values_at(graph, start, [stop])
    names = {layer.outputs[0]: layer.name for layer in graph.layers if layer.kind in COMPUTING}
    names |= dict.fromkeys(graph.program.inputs, "input")
    names |= {find_layer(graph, n).outputs[0]: n for n in (start, stop) if n != "input"}
    cuts = [(v, names[v]) for v in _passed_by_all(graph, start) if v in names]
    places = [name for _, name in cuts]
    if stop not in places:
        raise ValueError(
            f"Not all relevance from {start!r} passes the output of {stop!r}: use one of "
            f"{', '.join(places)} for stop."
        )
    kept = cuts[: places.index(stop) + 1]
    return [
        (span(_between(graph, upper, (v,)), (u,), (v,)), upper, lower)
        for (u, upper), (v, lower) in pairwise(kept)
    ]


def _between(graph: Graph, start: str, ends: Sequence[int]) -> list[Layer]:
    """The layers on the ways from the output of `start` down to the values `ends`.

    With a baseline they do not do: a difference from it is known once all layers below are.
    """
    above, kept = set(ends), []
    for layer in below(graph, start):
        if above.intersection(layer.inputs):
            above.update(layer.outputs)
            kept.append(layer)
    return [] if graph.by_name[start].outputs[0] in ends else kept


def _passed_by_all(graph: Graph, start: str) -> list[int]:
    """The values that all relevance from `start` passes, from its output down to the input."""
    seed = graph.by_name[start].outputs[0]
    waiting, passed = {seed}, [seed]
    for layer in reversed(below(graph, start)):
        waiting.difference_update(layer.outputs)
        waiting.update(layer.inputs)
        if len(waiting) == 1:
            passed.extend(waiting.difference(passed[-1:]))
    return passed


def _operators(reading: Reading, method: Method, parts: Sequence[Part]) -> list[ChainOperator]:
    """The operators of (span, start, stop), after one forward pass."""
    if not parts:
        return []
    graph, program = reading.graph, reading.graph.program
    layers = graph.layers
    refusals.rules_for(graph, method, [layers[n] for part, _, _ in parts for n in part.layers])
    spans = tuple(part for part, _, _ in parts)
    outputs, pulls = forward(graph, method, spans, reading.consts, reading.leaves)
    checks.check_finite(outputs, ["the model's output"] * len(outputs))
    operators = []
    for (part, start, stop), pull in zip(parts, pulls, strict=True):
        like = pull.func.like[0]
        largest = max(
            math.prod(program.shape(v))
            for layer in [layers[n] for n in part.layers] or [graph.by_name[start]]
            for v in (*layer.inputs, *layer.outputs)
        )
        in_shapes = tuple(program.shape(v) for v in part.captured)
        at_once = max(1, BYTES // (largest * like.dtype.itemsize))
        place = (method.name, start, stop)
        made = ChainOperator(pull, *place, like.shape, in_shapes, like.dtype, at_once)
        if not made.is_linear:
            raise ValueError(_not_linear(reading, method, [layers[n] for n in part.layers]))
        operators.append(made)
    return operators


def _not_linear(reading: Reading, method: Method, layers: Sequence[Layer]) -> str:
    """The error for a method whose relevance is not linear, with the rule that makes it so."""
    found = zip(layers, refusals.rules_for(reading.graph, method, layers), strict=True)
    culprits = [f"{r} at layer {layer.name!r}" for layer, r in found if not r.facts.linear]
    which = f" ({culprits[0]})" if culprits else ""
    return (
        f"{method.name} is not linear in relevance{which}, so no matrix stands for it: use "
        "lrpjax.vjp or lrpjax.convergence.csc, which take any method."
    )
