"""How far a map's sum is from what it is said to be."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from .._base import checks
from .._base.results import key_text
from ..graph.reading import Model
from .maps import Subject
from .result import Sanity, summary
from .states import States


def conservation(
    model: Model,
    images: Any,
    method: Any,
    *,
    key: jax.Array,
    target: Any = None,
    baseline: float = 0.0,
    chunk: int | None = None,
) -> Sanity:
    """The relative error of two statements about the sum of a map, one row for each.

    "conservation": sum R = R_0, the relevance that a chain of rules starts from (the logit, or 1).
    "completeness": sum R = f(x) - f(x0), x0 the `baseline` (a number) everywhere. A row's values
    are |sum R - b| / |b| of each image, b the right-hand side; images with b = 0 are dropped. That
    a method conserves says nothing about whether its map is right. The options are those of `mprt`.
    """
    checks.check_key(key)
    subject = Subject(model, images, method, target=target, chunk=chunk)
    (maps,) = States(subject).all([({}, None)])
    sums = maps.reshape(len(images), -1).sum(1, dtype=np.float64)
    logits = subject.logits()
    without = subject.logits(np.full_like(images[:1], baseline))[0]
    pick = np.arange(len(images)), subject.target
    wanted = {"completeness": logits[pick] - without[subject.target]}
    if (chain := subject.method.chain) is not None:
        start = logits[pick] if chain.start == "logit" else np.ones(len(images))
        wanted = {"conservation": start} | wanted
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.stack([np.abs(sums - b) / np.abs(b) for b in wanted.values()])
    rows = [
        {"check": check, "method": subject.name, "similarity": "relative error", **summed}
        for check, summed in zip(wanted, summary(errors, key), strict=True)
    ]
    settings = {"images": len(images), "baseline": baseline, "key": key_text(key)}
    return Sanity(settings, rows)
