"""The two-class experiment: does a method mark other pixels for each of two classes it shows?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import jax
import numpy as np

from .._base import checks
from .._base.results import key_text
from ..graph.reading import Model
from .maps import Subject
from .pictures import Pictured, pictures_of
from .similarity import colour_of
from .states import States

_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True, eq=False, repr=False)
class TwoClasses(Pictured):
    """Maps of each method (N, 3, H, W): of class a, of class b and of a random one.

    classes: the three. A row for each method and image has method, image and distance, the mean L1
    distance of the maps of a and b, each scaled to [-1, 1] and taken absolutely.
    """

    classes: tuple[int, int, int]

    required = "method image distance".split()

    @property
    def distances(self) -> dict[str, list[float]]:
        """For each method the distances of its images."""
        of = lambda method: [row["distance"] for row in self.rows if row["method"] == method]
        return {method: of(method) for method in self.maps}

    def _apart(self, other: TwoClasses) -> str | None:
        return "classes" if self.classes != other.classes else super()._apart(other)

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self:
        a, b, random = content["classes"]
        return super().from_content({**content, "classes": (a, b, random)})


def two_classes(
    model: Model,
    images: Any,
    method: Any,
    *,
    classes: tuple[int, int],
    key: jax.Array,
    colour: str = "auto",
    chunk: int | None = None,
) -> TwoClasses:
    """Maps of two classes that an image shows, and of a random third (the key's).

    images: a batch of pictures of both. A method that sees the class marks other pixels for each.
    Those of several methods are joined by `+`. Sixt et al. 2020, figure 3.
    """
    checks.check_key(key)
    subject = Subject(model, images, method, target=classes[0], chunk=chunk)
    for given in classes:
        checks.check_target(given, (1, subject.classes))
    if classes[0] == classes[1]:
        raise ValueError(f"The two classes must differ, got {classes[0]} twice.")
    others = [c for c in range(subject.classes) if c not in classes]
    if not others:
        raise ValueError("The two-class experiment needs a third class, this model has only two.")
    third = int(jax.random.choice(key, np.array(others)))
    shown = (*classes, third)
    states = States(subject, colour_of(colour, subject.method))
    asked: Any = [({}, None), *(({}, np.full(len(images), c)) for c in shown[1:])]
    maps = np.stack(states.all(asked), 1)
    rows = [
        {"method": subject.name, "image": i, "distance": _distance(a, b)}
        for i, (a, b, _) in enumerate(maps)
    ]
    settings = {"images": len(images), "key": key_text(key)}
    pictures = pictures_of(images, subject.channel)
    return TwoClasses(settings, rows, {subject.name: maps}, pictures, shown)


def _distance(a: np.ndarray, b: np.ndarray) -> float | None:
    """None where a map is not finite."""
    distance = float(np.abs(np.abs(_scaled(a)) - np.abs(_scaled(b))).mean())
    return distance if np.isfinite(distance) else None


def _scaled(a: np.ndarray) -> np.ndarray:
    """A map over max(|P0.5|, |P99.5|), clipped to [-1, 1]."""
    scale = np.abs(np.percentile(a, _PERCENTILES)).max() or np.abs(a).max() or 1.0
    return np.clip(a / scale, -1, 1)
