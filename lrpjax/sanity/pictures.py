"""What results with maps share: the images as pictures, and maps of several methods of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from .._base.reading import Unreadable
from .._base.results import Results


@dataclass(frozen=True, eq=False, repr=False)
class Pictured(Results):
    """Base class: maps of some images by several methods. Results of the same images are joined.

    maps: for each method's name. pictures: (N, H, W, 3) in [0, 1], or None where the images are no
    pictures, and there is no figure.
    """

    maps: dict[str, np.ndarray]
    pictures: np.ndarray | None

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self:
        found = super().from_content(content)
        maps = found.maps.values() if isinstance(found.maps, dict) else [None]
        shown = () if found.pictures is None else (found.pictures,)
        if not all(isinstance(array, np.ndarray) for array in (*maps, *shown)):
            raise Unreadable("its maps are no arrays by method, or its pictures none")
        return found

    def only(self, methods: Collection[str]) -> Self:
        """The maps and rows of these methods alone, in this order."""
        kept = [name for name in methods if name in self.maps]
        rows = [row for name in kept for row in self.rows if row["method"] == name]
        return replace(self, rows=rows, maps={name: self.maps[name] for name in kept})

    def _apart(self, other: Self) -> str | None:
        """What two results have not in common, though it must be one for all methods."""
        shapes = {own.shape for own in (*self.maps.values(), *other.maps.values())}
        same = len(shapes) <= 1 and np.array_equal(_some(self.pictures), _some(other.pictures))
        return None if same else "images"

    def _joined(self, other: Self) -> dict[str, Any]:
        if what := self._apart(other):
            raise ValueError(
                f"{type(self).__name__} results of other {what} cannot be joined: take the same "
                f"{what} for all methods."
            )
        if twice := [name for name in self.maps if name in other.maps]:
            raise ValueError(f"There are maps of {twice[0]!r} in both results: leave one out.")
        return {**super()._joined(other), "maps": self.maps | other.maps}


def _some(pictures: np.ndarray | None) -> np.ndarray:
    return np.zeros(0) if pictures is None else pictures


def pictures_of(images: Any, channel: int | None) -> np.ndarray | None:
    """Images as a model takes them, as pictures (N, H, W, 3) in [0, 1]; None if they are none.

    channel: the axis of their colours. What lies outside of [0, 1] is stretched to it, image by
    image: some preprocessing's range.
    """
    if images.ndim != 4 or channel is None:
        return None
    shown = np.moveaxis(np.asarray(images, np.float64), channel, -1)
    if shown.shape[-1] not in (1, 3):
        return None
    axes = (1, 2, 3)
    low, high = shown.min(axes, keepdims=True), shown.max(axes, keepdims=True)
    if low.min() < 0 or high.max() > 1:
        shown = (shown - low) / np.where(high > low, high - low, 1)
    return np.broadcast_to(shown.astype(np.float32), (*shown.shape[:3], 3))
