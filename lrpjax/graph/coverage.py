"""Which primitives each kind of layer is read from."""

from __future__ import annotations

from collections.abc import Callable

from ..program.primitives import TABLE, Primitive
from . import known
from .kinds import KINDS

_READ_FROM: dict[str, Callable[[Primitive], bool]] = {
    "conv": lambda row: row.role == "conv",
    "dense": lambda row: row.role == "dot",
    "scale": lambda row: row.is_step,
    "factor": lambda row: (row.is_step and row.linear != "all") or row.name == "neg",
    "fixed": lambda row: row.role in ("conv", "dot"),
    "transform": lambda row: row.role == "complex" or row.axes == "fft",
    "sum": lambda row: row.role in ("sum", "scatter"),
    "max_pool": lambda row: row.role == "max",
    "add": lambda row: row.is_addition and row.name != "neg",
    "product": lambda row: row.is_product and row.role != "conv",
    "norm": lambda row: row.name in ("mul", "div"),
    "softmax": lambda row: row.name == "div",
    "structure": lambda row: row.is_move,
    "choice": lambda row: row.chooses,
}


def covered() -> dict[str, tuple[str, ...]]:
    """Kind of layer -> primitives (for activations the functions recognised), in order.

    scale: by constants. add, product: of two values that depend on the input. norm: of a value and
    a statistic; softmax: behind exp and its sum.
    """
    found = {
        kind: {name for name, row in TABLE.items() if _READ_FROM[kind](row)}
        for kind in KINDS
        if kind in _READ_FROM
    }
    found["activation"] = set(known.KNOWN) - {"identity"}
    return {kind: tuple(sorted(found[kind])) for kind in KINDS if kind in found}
