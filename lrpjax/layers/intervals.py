"""Between which bounds a value lies, from those of the model's input, by interval arithmetic.

Each piece of the program is followed entry by entry, and only where its bounds are the least and
the largest that it can give: what combines entries that may be made of the same entry of the input
(x - mean(x), a second sum over sums that overlap) would have bounds that it never reaches, and is
refused as what has none is (a norm, a product).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from ..graph.kinds import LINEAR
from ..graph.layer import Layer
from ..graph.layers import Graph
from ..graph.recognition import moves_values
from ..program import primitives
from ..program.program import Eqn, constant, evaluate
from ..program.varying import can_follow, push_through
from .ops import weighed

Bound = float | tuple[float, ...]  # of the input: one number, or one for each channel


@dataclass(frozen=True)
class Interval:
    """The bounds of a value's entries.

    tied: the axes along which two entries may be made of the same entry of the input.
    leaves: the model's inputs that it is made of.
    """

    low: jax.Array
    high: jax.Array
    tied: frozenset[int]
    leaves: frozenset[int]


@dataclass(frozen=True)
class Bounds:
    """`bounds(low, high)`: between which bounds the entries of what a layer reads lie, for a model
    whose input lies between low and high, each a number or one for each channel.

    env: the program's constants, its inputs, and anything else.
    """

    graph: Graph
    env: dict[int, Any]
    layer: Layer

    def __call__(self, low: Bound, high: Bound) -> tuple[jax.Array, jax.Array]:
        """NotImplementedError, with what lies between, where they cannot be derived."""
        between = self._between()
        for layer in reversed(between):  # what is told is what stands in front of this one
            rises = layer.kind == "activation" and layer.detail.rises
            if not rises and layer.kind not in _FOLLOWED:
                raise self._refused(layer)
        read = {*self.layer.inputs, *(v for layer in between for v in layer.inputs)}
        known: dict[int, Interval] = {}
        for v in read.intersection(self.graph.program.inputs):
            ends = self._of_input(v, low), self._of_input(v, high)
            known[v] = Interval(*ends, frozenset(), frozenset({v}))
        for layer in between:
            known |= self._behind(layer, known)
        found = known[self.layer.inputs[0]]
        return found.low, found.high

    def _between(self) -> list[Layer]:
        """The layers that what this one reads is computed by, in order."""
        wanted, found = set(self.layer.inputs), list[Layer]()
        for layer in reversed(self.graph.layers[: self.layer.place]):
            if wanted.intersection(layer.outputs):
                found.append(layer)
                wanted.update(layer.inputs)
        return found[::-1]

    def _of_input(self, value: int, bound: Bound) -> jax.Array:
        """A bound as an array of an input's shape: of channels, along its last feature axis."""
        x = self.env[value]
        numbers = jnp.asarray(bound, x.dtype)
        if not numbers.ndim:
            return jnp.broadcast_to(numbers, x.shape)
        layout = self.graph.axes.layout[value]
        shape = x.shape if layout is None else layout.shape
        axis = None if layout is None else (None, *layout.features)[-1]
        if axis is None or shape[axis] != len(numbers):
            channels = "none" if axis is None else shape[axis]
            raise ValueError(
                f"{len(numbers)} bounds per channel do not fit the model's input {x.shape} "
                f"({channels} channels): give one number or one per channel."
            )
        along = jnp.expand_dims(numbers, [i for i in range(len(shape)) if i != axis])
        return jnp.broadcast_to(along, shape).reshape(x.shape)

    def _behind(self, layer: Layer, known: dict[int, Interval]) -> dict[int, Interval]:
        """The intervals of the values that a layer writes."""
        if layer.kind == "activation":
            (before,) = (known[v] for v in layer.inputs)
            low, high = (self._run(layer, end) for end in (before.low, before.high))
            return {layer.outputs[0]: replace(before, low=low, high=high)}
        inner = {v: known[v] for v in layer.inputs}
        for eqn in layer.eqns:
            found = self._through(eqn, inner)
            if found is None:
                raise self._refused(layer)
            inner |= found
        return {v: inner[v] for v in layer.outputs}

    def _run(self, layer: Layer, x: jax.Array) -> jax.Array:
        """An activation at other numbers."""
        inner = {layer.inputs[0]: x}
        for eqn in layer.eqns:
            outs = evaluate(eqn, [inner[v] if v in inner else self._value(v) for v in eqn.inputs])
            inner |= dict(zip(eqn.outputs, outs, strict=True))
        return inner[layer.outputs[0]]

    def _value(self, value: int) -> Any:
        return constant(self.graph.program, self.env, value)

    def _through(self, eqn: Eqn, known: dict[int, Interval]) -> dict[int, Interval] | None:
        """The intervals of an equation's outputs; None where they cannot be derived."""
        program = self.graph.program
        active = [k for k, v in enumerate(eqn.inputs) if v in program.active]
        found = [known[eqn.inputs[k]] for k in active]
        ends = [
            [getattr(known[v], end) if v in known else self._value(v) for v in eqn.inputs]
            for end in ("low", "high")
        ]
        tied = _tied(self.graph, eqn, [i.tied for i in found])
        if tied is None or (len(active) > 1 and not _apart(eqn, found)):
            return None
        row = primitives.of(eqn.name)
        if row.role in ("conv", "dot"):
            positive, negative = (lambda w: jnp.maximum(w, 0)), (lambda w: jnp.minimum(w, 0))
            by = lambda ends: sum(
                weighed(program, eqn, end, part)
                for end, part in zip(ends, (positive, negative), strict=True)
            )
            lows: Sequence[Any] = [by(ends)]
            highs: Sequence[Any] = [by(ends[::-1])]
        elif len(active) == 2 and eqn.name == "sub":
            (low, less), (high, more) = ends
            lows, highs = evaluate(eqn, [low, more]), evaluate(eqn, [high, less])
        else:  # of one value (or a sum of two): it rises with it, or falls
            both = [evaluate(eqn, end) for end in ends]
            lows = [jnp.minimum(*pair) for pair in zip(*both, strict=True)]
            highs = [jnp.maximum(*pair) for pair in zip(*both, strict=True)]
        leaves = frozenset().union(*(i.leaves for i in found))
        return {
            v: Interval(low, high, tied, leaves)
            for v, low, high in zip(eqn.outputs, lows, highs, strict=True)
        }

    def _refused(self, layer: Layer) -> NotImplementedError:
        what = layer.detail.name if layer.kind == "activation" else layer.kind
        return NotImplementedError(
            f"The z-box needs the bounds of what the layer {self.layer.name!r} reads, and those of "
            f"the input cannot be carried through what lies between: {layer.name!r} ({what}; "
            f"{layer.primitive} at {layer.source}). Pass the model without it, with what it gives "
            "as the input and the bounds of that, or take a first layer without bounds, as in "
            "lrpjax.methods.get('deep-taylor', first='wsquare')."
        )


# The kinds whose equations are sums, moves, maxima and products with constants.
_FOLLOWED = {*LINEAR, "structure", "sum", "max_pool", "add"}


def _apart(eqn: Eqn, found: Sequence[Interval]) -> bool:
    """Whether an equation may join values: it moves them, or they are made of different inputs."""
    count = sum(len(i.leaves) for i in found)
    return primitives.of(eqn.name).is_move or len({v for i in found for v in i.leaves}) == count


def _tied(graph: Graph, eqn: Eqn, tied: Sequence[frozenset[int]]) -> frozenset[int] | None:
    """The axes of an equation's outputs along which entries may be made of the same entry of the
    input; None where it combines such entries, or where it is not known what it does."""
    program, row = graph.program, primitives.of(eqn.name)
    value = next(v for v in eqn.inputs if v in program.active)
    before, out = program.shape(value), program.shape(eqn.outputs[0])
    everywhere = frozenset(i for i, n in enumerate(out) if n > 1)
    if row.is_move:
        if not moves_values(program, eqn):
            return None
        if eqn.name == "pad" and len(tied) == 1:
            return tied[0]
        if len(tied) > 1 or not can_follow(eqn):
            return everywhere
        repeated = set()
        if math.prod(out) > math.prod(before):
            repeated = set(everywhere) - push_through(program, [eqn], set(range(len(before))))
        return frozenset(push_through(program, [eqn], tied[0]) | repeated)
    if row.is_step:
        return tied[0].union(*tied[1:]) if len(set(map(len, (before, out)))) == 1 else None
    if row.role in ("sum", "max"):
        return _tied_by_reduction(graph, eqn, tied[0])
    if row.role == "conv":
        return _tied_by_convolution(graph, eqn, tied[0])
    return _tied_by_product(graph, eqn, tied[0]) if row.role == "dot" else None


def _tied_by_reduction(graph: Graph, eqn: Eqn, tied: frozenset[int]) -> frozenset[int] | None:
    p, program = eqn.params, graph.program
    if "axes" in p:
        gone = {int(i) for i in p["axes"]}
        return None if gone & tied else frozenset(push_through(program, [eqn], tied))
    if "axis" in p:  # a running sum
        return None if p["axis"] in tied else tied | {int(p["axis"])}
    windows = [i for i, n in enumerate(p["window_dimensions"]) if n > 1]
    return None if tied.intersection(windows) else tied.union(windows)


def _tied_by_convolution(graph: Graph, eqn: Eqn, tied: frozenset[int]) -> frozenset[int] | None:
    p, program = eqn.params, graph.program
    numbers = p["dimension_numbers"]
    if eqn.inputs[0] not in program.active:
        return None
    taps = [program.shape(eqn.inputs[1])[i] for i in numbers.rhs_spec[2:]]
    sides = zip(numbers.lhs_spec[2:], numbers.out_spec[2:], taps, strict=True)
    pairs = [(numbers.lhs_spec[0], numbers.out_spec[0], 1), *sides]
    if numbers.lhs_spec[1] in tied or any(i in tied for i, _, n in pairs if n > 1):
        return None
    return frozenset({numbers.out_spec[1], *(o for i, o, n in pairs if n > 1 or i in tied)})


def _tied_by_product(graph: Graph, eqn: Eqn, tied: frozenset[int]) -> frozenset[int] | None:
    program = graph.program
    (contract, batch) = eqn.params["dimension_numbers"]
    side = 0 if eqn.inputs[0] in program.active else 1
    if tied.intersection(contract[side]):
        return None
    free = [
        [i for i in range(len(program.shape(v))) if i not in (*contract[k], *batch[k])]
        for k, v in enumerate(eqn.inputs)
    ]
    places = [
        {i: len(batch[0]) + n for n, i in enumerate(free[0])},
        {i: len(batch[0]) + len(free[0]) + n for n, i in enumerate(free[1])},
    ]
    own = dict(zip(batch[side], range(len(batch[side])), strict=True)) | places[side]
    return frozenset({*(own[i] for i in tied), *places[1 - side].values()})
