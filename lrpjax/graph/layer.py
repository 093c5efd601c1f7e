"""A layer: one link of the chain that a program is read as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..program.axes import Layout
from ..program.program import Eqn
from .kinds import KINDS


@dataclass(frozen=True, eq=False)
class Layer:
    """One link of the chain.

    kind: a row of `graph.kinds`, which says what it is, what LRP does there and what `detail` is.
    inputs, outputs: the numbers of the input-dependent values that it reads and writes.
    place: its number in the chain, from the input.
    first, last: no other layer with parameters lies between the input and this one, or above it.
    front: it has no parameters, and none lies between the input and this one.
    non_negative: its inputs cannot be negative.
    feature: the axis of its (first) input's features, or None.
    layout: what the axes of its (first) output hold, None if that is not known.
    """

    kind: str
    eqns: tuple[Eqn, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    detail: Any = None
    name: str = ""
    place: int = -1
    first: bool = False
    last: bool = False
    front: bool = False
    non_negative: bool = False
    feature: int | None = None
    layout: Layout | None = None

    def __post_init__(self) -> None:
        wanted = KINDS[self.kind].detail
        if self.kind != "product" and wanted not in ("object", type(self.detail).__name__):
            raise TypeError(f"A {self.kind} has {wanted} for detail, got {self.detail!r}.")

    @property
    def primitive(self) -> str:
        return self.eqns[-1].name

    @property
    def source(self) -> str:
        return self.eqns[-1].source
