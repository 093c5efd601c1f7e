"""Tensors by name, as files hold them, and how they differ from what a model needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LISTED = 20  # a file of another network would fill screens


@dataclass(frozen=True)
class Tensor:
    """A tensor in an open file: its shape, and the function that reads its values.

    What `read` raises if the values turn out damaged depends on the format.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def misfits(
    found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]
) -> list[str]:
    """What is wrong with tensors of the shapes `found` where `wanted` are needed, by name."""
    wrong = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    wrong += [f"{name} is not in the model" for name in sorted(found.keys() - wanted.keys())]
    wrong += [
        f"{name} has shape {found[name]}, the model needs {wanted[name]}"
        for name in sorted(wanted.keys() & found.keys())
        if found[name] != wanted[name]
    ]
    return wrong


def listed(wrong: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = [f"and {len(wrong) - LISTED} more"] if len(wrong) > LISTED else []
    return "; ".join([*wrong[:LISTED], *more])
