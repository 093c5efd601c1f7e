"""The maps behind two figures of the paper: the randomisation grid and the two-class experiment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from .._base import checks
from ..graph.reading import Model
from .maps import Subject
from .parameters import Order, parameters, randomised, stops
from .similarity import colour_of
from .states import States

_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class Cascade:
    """stops: "trained", then the layers in the order of randomisation. maps (stops, N, H, W): the
    heat maps of each, colours reduced."""

    method: str
    stops: list[str]
    maps: np.ndarray


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
    """The maps that `mprt` compares, of its first draw, for `lrpjax.plots.cascade`.

    The options are those of `mprt`. Sixt et al. 2020, figure 1.
    """
    subject = Subject(model, images, method, target=target, chunk=chunk)
    colour = colour_of(colour, subject.method)
    found = parameters(subject.reading)
    steps = stops(subject.reading, order, layers)
    like, first = subject.images[: subject.chunk], jax.random.fold_in(key, 0)
    random = randomised(subject.reading, found, first, randomiser=randomiser, init=init, like=like)
    states = States(subject, colour)
    maps = states.all([({}, None), *((random(step.randomised), None) for step in steps)])
    return Cascade(subject.name, ["trained", *(step.layer for step in steps)], np.stack(maps))


@dataclass(frozen=True)
class TwoClasses:
    """Maps (N, 3, H, W) of class a, of class b and of a random one, and for each image the mean
    L1 distance of the first two, each scaled to [-1, 1] and taken absolutely."""

    method: str
    classes: tuple[int, int, int]
    maps: np.ndarray
    distances: np.ndarray


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
    The maps are for `lrpjax.plots.two_classes`. Sixt et al. 2020, figure 3.
    """
    subject = Subject(model, images, method, target=classes[0], chunk=chunk)
    for given in classes:
        checks.check_target(given, (1, subject.classes))
    if classes[0] == classes[1]:
        raise ValueError(f"The two classes must differ, got {classes[0]} twice.")
    others = [c for c in range(subject.classes) if c not in classes]
    if not others:
        raise ValueError("The two-class experiment needs a third class, this model has only two.")
    third = int(jax.random.choice(key, np.array(others)))
    colour = colour_of(colour, subject.method)
    shown = (*classes, third)
    states = States(subject, colour)
    asked: Any = [({}, None), *(({}, np.full(len(images), c)) for c in shown[1:])]
    maps = np.stack(states.all(asked), 1)
    apart = [np.abs(np.abs(_scaled(a)) - np.abs(_scaled(b))).mean() for a, b, _ in maps]
    return TwoClasses(subject.name, shown, maps, np.array(apart))


def _scaled(a: np.ndarray) -> np.ndarray:
    """A map over max(|P0.5|, |P99.5|), clipped to [-1, 1]."""
    scale = np.abs(np.percentile(a, _PERCENTILES)).max() or np.abs(a).max() or 1.0
    return np.clip(a / scale, -1, 1)
