"""The maps behind the grid of the paper: how a map changes while a network becomes random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from .._base import checks
from .._base.results import key_text
from ..graph.reading import Model
from .maps import Subject
from .parameters import Order, parameters, randomised, stops
from .pictures import Pictured, pictures_of
from .similarity import colour_of
from .states import States

TRAINED = "trained"


@dataclass(frozen=True, eq=False, repr=False)
class Cascade(Pictured):
    """Maps of each method (stops, N, H, W), colours reduced, while a network is randomised.

    stops: "trained", then the layers in the order of randomisation. A row for each method and stop
    has method, layer (the stop) and largest, the largest |R| of its maps (None for NaN and
    infinity): 0 where random parameters leave no relevance.
    """

    stops: list[str]

    required = "method layer largest".split()

    def _apart(self, other: Cascade) -> str | None:
        return "stops" if self.stops != other.stops else super()._apart(other)


def cascade(
    model: Model,
    images: Any,
    method: Any,
    *,
    key: jax.Array,
    target: Any = None,
    order: Order = "output",
    layers: Sequence[str] | None = None,
    randomiser: str = "gaussian",
    init: Callable[[jax.Array], Callable] | None = None,
    colour: str = "auto",
    chunk: int | None = None,
) -> Cascade:
    """The maps that `mprt` compares, of its first draw. Those of several methods are joined by `+`.

    The options are those of `mprt`. Sixt et al. 2020, figure 1.
    """
    checks.check_key(key)
    subject = Subject(model, images, method, target=target, chunk=chunk)
    colour = colour_of(colour, subject.method)
    found = parameters(subject.reading)
    steps = stops(subject.reading, order, layers)
    like, first = subject.images[: subject.chunk], jax.random.fold_in(key, 0)
    random = randomised(subject.reading, found, first, randomiser=randomiser, init=init, like=like)
    states = States(subject, colour)
    asked = [({}, None), *((random(step.randomised), None) for step in steps)]
    drawn = randomiser if init is None else "the model's initialiser"
    settings = {"order": order, "randomiser": drawn, "key": key_text(key)}
    maps = np.stack(states.all(asked))
    return cascade_of(subject, maps, [step.layer for step in steps], settings)


def cascade_of(
    subject: Subject, maps: np.ndarray, layers: Sequence[str], settings: dict[str, Any]
) -> Cascade:
    """The cascade of a subject's first images, as many as there are maps (1 + layers, N, H, W)."""
    names = [TRAINED, *layers]
    rows = [
        {"method": subject.name, "layer": name, "largest": _largest(own)}
        for name, own in zip(names, maps, strict=True)
    ]
    shown = pictures_of(subject.images[: maps.shape[1]], subject.channel)
    settings = {"images": maps.shape[1], **settings}
    return Cascade(settings, rows, {subject.name: maps}, shown, names)


def _largest(maps: np.ndarray) -> float | None:
    largest = float(np.abs(maps).max())
    return largest if np.isfinite(largest) else None
