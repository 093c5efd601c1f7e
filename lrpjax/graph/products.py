"""Of a product of two values: which of them only weighs the other, if one does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .program import Program

if TYPE_CHECKING:
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


class Makers:
    """What made each value, seen through what leaves a weight a weight: moves, constant factors and
    shifts, sums and means of weights, products of weights with one another."""

    def __init__(self, program: Program, layers: Sequence[Layer]):
        self._program = program
        self._maker = {v: layer for layer in layers for v in layer.outputs}

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
        """Whether it is truth values as numbers: what is shown and what is hidden."""
        maker = self._maker.get(value)
        if maker is None or maker.kind not in ("structure", "scale", "factor"):
            return False
        truth = lambda v: self._program.avals[v].dtype == np.dtype(bool)
        inner = [v for eqn in maker.eqns for v in eqn.inputs if v in self._program.active]
        return any(map(truth, inner)) or all(map(self.is_mask, maker.inputs))

    def is_attention(self, value: int) -> bool:
        return self._passed(value, self._is_softmax, sums=True, norms=True)

    def is_gate(self, value: int) -> bool:
        return self._passed(value, self._is_gate, sums=True)

    def is_activated(self, value: int) -> bool:
        return self._passed(value, lambda layer: layer.kind == "activation")

    @staticmethod
    def _is_softmax(layer: Layer) -> bool:
        return layer.kind == "softmax"

    @staticmethod
    def _is_gate(layer: Layer) -> bool:
        return layer.kind == "activation" and layer.detail.gate

    def _passed(
        self, value: int, test: Callable[[Layer], bool], *, sums: bool = False, norms: bool = False
    ) -> bool:
        layer = self._maker.get(value)
        if layer is None:
            return False
        if test(layer):
            return True
        again = lambda v: self._passed(v, test, sums=sums, norms=norms)
        summed = ("sum", "add") if sums else ()
        if layer.kind in ("structure", "scale", "factor", *summed):
            return all(map(again, layer.inputs))
        if norms and layer.kind == "norm":
            return again(layer.inputs[0])
        if sums and layer.kind == "product" and layer.primitive == "mul":
            weight = lambda v: self.is_mask(v) or self.is_attention(v) or self.is_gate(v)
            return any(map(again, layer.inputs)) and all(map(weight, layer.inputs))
        return False
