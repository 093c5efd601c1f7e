"""The loop over images: in chunks of one size, so that all of them run one program, under a bar."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .progress import track

BYTES = 128 * 2**20  # of the largest layer's values, held at once


@dataclass(frozen=True)
class Chunk:
    """Some of `total` images: `own` of them from the number `first` on.

    size: how many run; where they are more than its own, the last image stands in for the others.
    """

    first: int
    size: int
    total: int

    @property
    def own(self) -> int:
        return min(self.size, self.total - self.first)

    @property
    def index(self) -> np.ndarray:
        """The numbers of the images that run, (size,)."""
        return np.minimum(np.arange(self.first, self.first + self.size), self.total - 1)

    @property
    def slice(self) -> slice:
        """Its own images."""
        return slice(self.first, self.first + self.own)


def chunks(total: int, size: int, label: str = "") -> Iterator[Chunk]:
    """The chunks of `total` images; with a label under a bar, where it takes long."""
    made = [Chunk(first, size, total) for first in range(0, total, size)]
    yield from track(made, label) if label else made


def fitting(numbers: int) -> int:
    """How many times so many numbers (of single precision) may be held at once: at least one."""
    return max(1, BYTES // (4 * numbers))
