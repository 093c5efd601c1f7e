"""Tensors by name, as files hold them, and how they differ from what a model needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .reading import Unreadable

LISTED = 20  # a file of another network would fill screens
LONGEST, MOST = 300, 100_000  # characters of a name, and tensors in a file


@dataclass(frozen=True)
class Tensor:
    """A tensor in an open file: its shape, and the function that reads its values.

    What `read` raises if the values turn out damaged depends on the format.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def check_names(names: Collection[str]) -> None:
    """Raises Unreadable for more than a file may have, or some that cannot be shown."""
    if len(names) > MOST:
        raise Unreadable(f"it holds more than {MOST:,} tensors")
    if any(len(name) > LONGEST or not name.isprintable() or ". " in name for name in names):
        raise Unreadable("the name of a tensor in it is no name, but a text")


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
