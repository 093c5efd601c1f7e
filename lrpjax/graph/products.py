"""Of a product of two values: which of them only weighs the other, if one does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax.numpy as jnp
import numpy as np

from ..program import primitives
from ..program.program import Eqn, Program
from .layer import Layer


@dataclass(frozen=True)
class Product:
    """weighs: the number of the factor that only weighs the other, or None where the two share.

    why: what makes it a weight: a "mask", "attention", a "gate", an "activation"; else "half".
    """

    weighs: int | None
    why: str


def with_weighing(program: Program, layers: Sequence[Layer]) -> list[Layer]:
    """Says of each product which of its two values only weighs the other.

    It is what was made of truth values, else what a softmax made, else what a sigmoid made, else
    what any activation made: the first of these that is true of one and not of both. A norm's
    output is no weight, but attention stays attention over its own sum.
    """
    made = Makers(program, layers)
    return [
        replace(layer, detail=made.weighing(layer)) if layer.kind == "product" else layer
        for layer in layers
    ]


_IN_PLACE = ("structure", "choice", "scale", "factor")
_BLENDS = ("sum", "add", "max_pool", "fixed")


class Makers:
    """What made each value, seen through what leaves a weight a weight: moves, constant factors and
    shifts, sums, means, maxima and fixed maps of weights, their division by their sum, products of
    weights with one another."""

    def __init__(self, program: Program, layers: Sequence[Layer]):
        self._program = program
        self._maker = {v: layer for layer in layers for v in layer.outputs}
        self._passes: dict[tuple[int, str], bool] = {}

    def weighing(self, product: Layer) -> Product:
        tests = {
            "mask": self.is_mask,
            "attention": self.is_attention,
            "gate": self.is_gate,
            "activation": self.is_activated,
        }
        for why, weighs in tests.items():
            found = [weighs(v) for v in product.inputs]
            if found.count(True) == 1:
                return Product(found.index(True), why)
        return Product(None, "half")

    def is_mask(self, value: int) -> bool:
        """Whether it is truth values as numbers: what is shown and what is hidden. Whole numbers
        beside an input that is none (tokens' masks beside their embeddings) are such too; where
        all of the input is whole, as an image of bytes, it is the signal."""
        maker = self._maker.get(value)
        if maker is None or maker.kind not in _IN_PLACE:
            return False
        dtype = lambda v: self._program.avals[v].dtype
        signal = any(jnp.issubdtype(dtype(v), jnp.inexact) for v in self._program.inputs)
        given = lambda v: signal and self._is_given_whole(v)
        truth = lambda v: dtype(v) == np.dtype(bool) or given(v)
        inner = [v for eqn in maker.eqns for v in eqn.inputs if v in self._program.active]
        return any(map(truth, inner)) or all(map(self.is_mask, maker.inputs))

    def _is_given_whole(self, value: int) -> bool:
        """Whether it is an input of whole numbers, moved at most: none that the model rounds."""
        program = self._program
        if not np.issubdtype(program.avals[value].dtype, np.integer):
            return False
        made = program.producer.get(value)
        if made is None:
            return value in program.inputs
        moved = primitives.of(made.name).is_move
        return moved and all(map(self._is_given_whole, program.active_inputs(made)))

    def is_attention(self, value: int) -> bool:
        return self._passed(value, "softmax")

    def is_gate(self, value: int) -> bool:
        return self._passed(value, "gate")

    def is_activated(self, value: int) -> bool:
        return self._passed(value, "activation")

    def _passed(self, value: int, what: str) -> bool:
        """Whether the value is what such a layer made. Deep networks are asked again and again."""
        known = self._passes.get((value, what))
        if known is None:
            known = self._passes[value, what] = self._asked(value, what)
        return known

    def _asked(self, value: int, what: str) -> bool:
        layer = self._maker.get(value)
        if layer is None:
            return False
        if _MADE_BY[what](layer):
            return True
        again = partial(self._passed, what=what)
        blends = what != "activation"
        clips = layer.kind == "activation" and layer.detail.cuts
        if layer.kind in (*_IN_PLACE, *(_BLENDS if blends else ())) or (clips and blends):
            return all(map(again, layer.inputs))
        if layer.kind == "norm":
            return (what == "softmax" or _by_its_sum(self._program, layer)) and again(
                layer.inputs[0]
            )
        if layer.kind != "product":
            return False
        if blends:
            weight = lambda v: self.is_mask(v) or self.is_attention(v) or self.is_gate(v)
            return any(map(again, layer.inputs)) and all(map(weight, layer.inputs))
        # The square of an activation, or one behind a gate.
        weighs = self.weighing(layer).weighs
        one, other = layer.inputs if len(layer.inputs) == 2 else layer.inputs * 2
        return (one == other or weighs is not None) and again(one if weighs == 1 else other)


_MADE_BY: dict[str, Callable[[Layer], bool]] = {
    "softmax": lambda layer: layer.kind == "softmax",
    "gate": lambda layer: layer.kind == "activation" and layer.detail.gate,
    "activation": lambda layer: layer.kind == "activation",
}


def _by_its_sum(program: Program, norm: Layer) -> bool:
    """Whether a norm divides by a sum (or a mean, a maximum) of values, and of no squares."""
    *statistic, _ = norm.eqns
    return all(
        primitives.of(eqn.name).degree == "same" or _is_linear(program, eqn) for eqn in statistic
    )


def _is_linear(program: Program, eqn: Eqn) -> bool:
    places = [k for k, v in enumerate(eqn.inputs) if v in program.active]
    return len(places) == 1 and primitives.of(eqn.name).is_linear_in(places[0])
