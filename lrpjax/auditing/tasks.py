"""The checks of an audit, each a function from a task and a method to what it measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from .. import sanity
from ..convergence import certificate, csc, singular_values
from ..graph.reading import Source
from ..propagation.baselines import of_images
from ..sanity.maps import Subject
from ..sanity.randomisation import compared_maps

SIMILARITIES = ("ssim", "spearman")
GRID = 2  # images whose maps are kept for the grid under randomisation


@dataclass(frozen=True)
class Task:
    """What is audited, and how: shared by all checks and methods.

    target: the explained class of each image. start: where CSC injects and the spectrum begins
    (None: the model's output). layers: where maps are taken under randomisation (None: all).
    """

    source: Source
    images: Any
    target: np.ndarray
    key: jax.Array
    start: str | None = None
    layers: tuple[str, ...] | None = None
    vectors: int = 5
    draws: int = 1
    classes: int = 1
    spectrum_images: int = 2


@dataclass(frozen=True)
class Finding:
    """What one check says of one method. grid: its maps under randomisation."""

    rows: list[dict[str, Any]]
    grid: sanity.Cascade | None = None


def convergence(task: Task, method: Any) -> Finding:
    found = csc(
        task.source, task.images, method, key=task.key, start=task.start, vectors=task.vectors
    )
    return Finding([{"check": "csc", **row} for row in found.rows])


def spectrum(task: Task, method: Any) -> Finding:
    few = task.images[: task.spectrum_images]
    own = of_images(method, task.images, np.arange(len(few)))
    found = singular_values(task.source, few, own, key=task.key, start=task.start, k=2)
    rows = [{"check": "spectrum", **row} for row in found.rows]
    for row in rows:
        row.pop("products")
    return Finding(rows)


def certified(task: Task, method: Any) -> Finding:
    one = task.images[:1]
    own = of_images(method, task.images, np.arange(1))
    found = certificate(task.source, one, own, key=task.key, start=task.start)
    sentence = {"scope": "sentence", "method": method.name, "sentence": found.sentence}
    return Finding([{"check": "certificate", **row} for row in (*found.rows, sentence)])


def randomisation(task: Task, method: Any) -> Finding:
    found, grid = compared_maps(
        Subject(task.source, task.images, method, target=task.target),
        key=task.key,
        layers=task.layers,
        draws=task.draws,
        similarity=SIMILARITIES,
        pictures=GRID,
    )
    return Finding(found.rows, grid)


def other_class(task: Task, method: Any) -> Finding:
    found = sanity.random_logit(
        task.source,
        task.images,
        method,
        key=task.key,
        target=task.target,
        classes=task.classes,
        similarity=SIMILARITIES,
    )
    return Finding(found.rows)


def sums(task: Task, method: Any) -> Finding:
    found = sanity.conservation(task.source, task.images, method, key=task.key, target=task.target)
    return Finding(found.rows)


@dataclass(frozen=True)
class Measure:
    """run: the check. chains: whether it is of chains of rules only. linear: and of linear ones."""

    run: Callable[[Task, Any], Finding]
    chains: bool = False
    linear: bool = False

    def applies(self, method: Any) -> bool:
        return method.chain is not None or not self.chains


MEASURES: dict[str, Measure] = {
    "random-logit": Measure(other_class),
    "mprt": Measure(randomisation),
    "csc": Measure(convergence, chains=True),
    "certificate": Measure(certified, chains=True, linear=True),
    "spectrum": Measure(spectrum, chains=True, linear=True),
    "sums": Measure(sums),
}
