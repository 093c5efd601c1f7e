"""The random-logit test: is the map of another class another map? Sixt et al. 2020, section 5."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base import checks
from .._base.compat import FOR_ONE_RUN
from .._base.progress import track
from .._base.results import key_text
from ..graph.reading import Model
from .maps import Subject
from .result import Sanity, summary
from .similarity import colour_of, measures
from .states import States


def random_logit(
    model: Model,
    images: Any,
    method: Any,
    *,
    key: jax.Array,
    target: Any = None,
    classes: int = 1,
    similarity: str | Sequence[str] = "ssim",
    colour: str = "auto",
    multiplier: str | None = None,
    chunk: int | None = None,
) -> Sanity:
    """The similarity of the map of the explained class and of other, random classes.

    target: a class, N classes, or None for the prediction. classes: how many others, drawn for each
    image by its own key, none twice. The other options are those of `mprt`.
    Raises ValueError as `mprt` does, and where the model has no more than `classes` classes.
    """
    checks.check_key(key)
    checks.check_count(1, classes=classes)
    subject = Subject(model, images, method, target=target, chunk=chunk)
    compared = measures(similarity, subject.method)
    colour = colour_of(colour, subject.method)
    if not 1 <= classes < subject.classes:
        raise ValueError(
            f"The model has {subject.classes} classes, so from 1 to {subject.classes - 1} others "
            f"can be drawn, got classes={classes}."
        )
    others = other_classes(key, subject.target, subject.classes, classes)

    states = States(subject, colour, multiplier)
    work = list(product(states.chunks, range(-1, classes)))
    asked: Any = ((chunk, {}, None if k < 0 else others[chunk, k]) for chunk, k in work)
    scores = np.zeros((classes, len(compared), len(images)))
    for (chunk, k), maps in zip(track(work, subject.name), states.each(asked), strict=True):
        if k < 0:
            own = maps
        else:
            scores[k, :, chunk] = [measure(own, maps) for measure in compared.values()]
    head = {"check": "random-logit", "method": subject.name}
    rows = [
        {**head, "similarity": name, **summed}
        for name, summed in zip(compared, summary(np.mean(scores, 0), key), strict=True)
    ]
    settings = {"images": len(images), "classes": classes, "colour": colour}
    return Sanity({**settings, "multiplier": multiplier, "key": key_text(key)}, rows)


def other_classes(key: jax.Array, target: np.ndarray, classes: int, count: int) -> np.ndarray:
    """For each image `count` classes other than its target, none twice: (N, count)."""

    below = np.asarray(_drawn(key, len(target), classes - 1, count))
    return below + (below >= np.asarray(target)[:, None])  # the target is left out


@partial(jax.jit, static_argnums=(1, 2, 3), compiler_options=FOR_ONE_RUN)
def _drawn(key: jax.Array, images: int, most: int, count: int) -> jax.Array:
    of_image = lambda i: jax.random.permutation(jax.random.fold_in(key, i), most)[:count]
    return jax.vmap(of_image)(jnp.arange(images))
