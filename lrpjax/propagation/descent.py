"""All of a method's way down from one layer, for one example: its chains and links, as operators.

The propagation is traced once, and what ends or begins on its way is a section of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import numpy as np

from .._base import checks
from .._base.work import BYTES
from ..graph import COMPUTING, Graph, Layer
from ..graph.places import below, find_layer, values_at
from ..graph.reading import Reading
from ..program import is_inexact
from . import refusals
from .method import Method
from .operators import MEMORY, ChainOperator
from .propagations import Span, span
from .pullback import forward, section

_TOGETHER = 2**29  # bytes of several dense matrices that are made at once


@dataclass(frozen=True)
class Descent:
    """From the output of the layer `start` down. pull: its replay, with an output for each value in
    `captured`."""

    reading: Reading
    method: Method
    start: str
    captured: tuple[int, ...]
    pull: jax.tree_util.Partial

    def to(self, stop: str) -> ChainOperator:
        """Z from `start` to the layer."""
        return self._operator(None, _ends(self.reading.graph, stop), self.start, stop)

    def links(self, stop: str) -> list[ChainOperator]:
        """The chain to `stop` as consecutive operators, from the upper to the lower.

        It is cut at the outputs of layers that all of the relevance passes: not inside of a
        residual block. Raises ValueError where relevance passes beside `stop`, or where what
        travels is no relevance (DeepLIFT's multipliers).
        """
        cuts = _cuts(self.reading.graph, self.method, self.start, stop)
        return [self._operator(u, (v,), upper, lower) for (u, upper), (v, lower) in pairwise(cuts)]

    def dense(self, stops: Sequence[str], *, memory_limit: float = MEMORY) -> list[np.ndarray]:
        """Z to each of some layers, (n_out, n_in), those of few rows by one program.

        memory_limit: in bytes, of one of them. Raises as `ChainOperator.dense` does.
        """
        graph = self.reading.graph
        whole = self._operator(None, self.captured, self.start, self.start)
        together = whole.nbytes <= min(_TOGETHER, memory_limit) and whole.shape[0] <= whole.shape[1]
        if not stops or not together:
            one = lambda stop: self.to(stop).dense(memory_limit=memory_limit)
            return [np.asarray(one(stop)) for stop in stops]
        sizes = [math.prod(shape) for shape in whole.in_shapes]
        parts = np.split(np.asarray(whole.dense()), np.cumsum(sizes)[:-1], axis=1)
        found = dict(zip(self.captured, parts, strict=True))
        joined = [[found[v] for v in _ends(graph, stop)] for stop in stops]
        return [own[0] if len(own) == 1 else np.concatenate(own, 1) for own in joined]

    def _operator(
        self, above: int | None, ends: Sequence[int], start: str, stop: str
    ) -> ChainOperator:
        place = self.captured.index
        layers = between(self.reading.graph, start, ends)
        pull = section(self.pull, None if above is None else place(above), [*map(place, ends)])
        if pull is None:  # it is no section of the whole: inside of a function with its derivative
            seed = find_layer(self.reading.graph, start).outputs[0]
            (pull,) = propagated(self.reading, self.method, span(layers, (seed,), ends))
        return operator(self.reading, self.method, pull, layers, ends, start, stop)


def descent(reading: Reading, method: Method, start: str, stops: Sequence[str]) -> Descent:
    """The way from `start` to all of `stops`. Raises as `lrpjax.chain` does."""
    graph = reading.graph
    values_at(graph, start, stops)
    ends = {v for stop in stops for v in _ends(graph, stop)}
    layers: Sequence[Layer] = below(graph, start)
    if method.baseline is None:
        layers = between(graph, start, [*ends])
        ends.update(a.outputs[0] for a in layers if a.kind in COMPUTING)
    captured = tuple(sorted(v for v in ends if is_inexact(graph.program.avals[v])))
    seed = find_layer(graph, start).outputs[0]
    (pull,) = propagated(reading, method, span(layers, (seed,), captured))
    whole = operator(reading, method, pull, layers, captured, start, start)
    require_linear(whole, reading, method, layers)
    return Descent(reading, method, start, captured, pull)


def propagated(reading: Reading, method: Method, passed: Span) -> list[jax.tree_util.Partial]:
    """The replay of a span, after a forward pass."""
    graph = reading.graph
    refusals.rules_for(graph, method, [graph.layers[n] for n in passed.layers])
    outputs, pulls = forward(graph, method, (passed,), reading.consts, reading.leaves)
    checks.check_finite(outputs, ["the model's output"] * len(outputs))
    return pulls


def operator(
    reading: Reading,
    method: Method,
    pull: jax.tree_util.Partial,
    layers: Sequence[Layer],
    ends: Sequence[int],
    start: str,
    stop: str,
) -> ChainOperator:
    """A replay through some layers, which ends at some values, as an operator."""
    program = reading.graph.program
    replay: Any = pull.func
    (like,) = replay.like
    largest = max(
        math.prod(program.shape(v))
        for layer in layers or [reading.graph.by_name[start]]
        for v in (*layer.inputs, *layer.outputs)
    )
    in_shapes = tuple(program.shape(v) for v in ends)
    at_once = max(1, BYTES // (largest * like.dtype.itemsize))
    return ChainOperator(pull, method.name, start, stop, like.shape, in_shapes, like.dtype, at_once)


def between(graph: Graph, start: str, ends: Sequence[int]) -> list[Layer]:
    """The layers on the ways from the output of `start` down to the values `ends`.

    With a baseline they do not do: a difference from it is known once all layers below are.
    """
    above, kept = set(ends), []
    for layer in below(graph, start):
        if above.intersection(layer.inputs):
            above.update(layer.outputs)
            kept.append(layer)
    return [] if graph.by_name[start].outputs[0] in ends else kept


def _ends(graph: Graph, stop: str) -> Sequence[int]:
    return graph.program.inputs if stop == "input" else graph.by_name[stop].outputs[:1]


def _cuts(graph: Graph, method: Method, start: str, stop: str) -> list[tuple[int, str]]:
    """The values that all relevance passes on its way to `stop`, with the names of their layers."""
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
    return cuts[: places.index(stop) + 1]


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


def require_linear(
    op: ChainOperator, reading: Reading, method: Method, layers: Sequence[Layer]
) -> None:
    """Raises ValueError for relevance that is not linear, with the rule that makes it so."""
    if op.is_linear:
        return
    found = zip(layers, refusals.rules_for(reading.graph, method, layers), strict=True)
    culprits = [f"{r} at layer {layer.name!r}" for layer, r in found if not r.facts.linear]
    which = f" ({culprits[0]})" if culprits else ""
    raise ValueError(
        f"{method.name} is not linear in relevance{which}, so no matrix stands for it: use "
        "lrpjax.vjp or lrpjax.convergence.csc, which take any method."
    )
