"""Testing with concept activation vectors: does a concept shown in images raise a class's logit?

At one layer, a linear classifier separates the activations of a concept's images from those of
random ones; the normal of its boundary is the concept's direction. The score of a class is the
share of its images whose logit grows in that direction. Kim et al. 2018, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import ttest_ind_from_stats
from threadpoolctl import threadpool_limits

from .._base import checks
from .._base.progress import track
from .._base.results import Results
from .._base.work import Chunk, chunks
from ..attribution import vjp
from ..graph import Graph
from ..graph.places import layout_of
from ..graph.reading import Model, environment, source_of
from ..methods.lookup import resolve_chain
from ..propagation.baselines import of_images
from ..propagation.layer_statistics import layer_value
from ..propagation.method import Method
from ..propagation.targets import read_for_target
from .vectors import FOLDS, cav, cav_accuracy, learn, varies

MIN_IMAGES = 2 * FOLDS  # so that every fold holds out two images of each class


class TCAV(Results):
    """One row for each concept.

    A row has concept, layer, target, scores (one for each random set: the share of images with
    S > 0), score (their mean), score_std, random_score and random_std (of the null: every random
    set against every other), accuracy (of the classifiers on images they were not fitted to,
    0.5 being chance), p_value (corrected), significant (p_value < significance), and
    false_positives (the share of the random sets which, taken as concepts, pass the same test
    against the other sets; None for two random sets).
    """

    required = (
        "concept layer target score score_std random_score accuracy p_value significant "
        "false_positives"
    ).split()
    shown = required


def tcav(
    model: Model,
    images: Any,
    *,
    target: int,
    layer: str,
    concepts: Mapping[str, Any],
    random: Sequence[Any],
    method: str | Method = "gradient",
    significance: float = 0.05,
    chunk: int = 32,
) -> TCAV:
    """Scores each concept by how often the target's logit grows in the concept's direction.

    S(x) = grad_h logit_target(x) . CAV and score = |{x: S(x) > 0}| / N, h the output of `layer`.

    model: a callable from (N, ...) to (N, classes). images: a batch of the class explained.
    target: the class. layer: a name in `lrpjax.plan`, or "input". concepts: a batch of images
    for each name. random: two or more batches of random images; every concept gets one CAV
    against each. method: with "gradient" S is the derivative; any other method puts the relevance
    it propagates from 1 at the logit to h in the gradient's place. chunk: how many images are
    evaluated at once.

    The null is the scores of every random set, as a concept, against every other one. The p-value
    is that of a two-sided Welch t-test of a concept's scores against them, times the number of
    concepts (at most 1). The test takes the scores for independent, but those of one concept
    share its images: it calls too much significant, the more so the more random sets there are,
    and `false_positives` says how often.

    Raises ValueError for fewer than 2 random sets or 10 images in a set, images of another shape,
    NaN, an unknown layer or target, and sets that no direction tells apart; NotImplementedError
    for a layer without a rule.
    Source: Kim et al. 2018, "Interpretability Beyond Feature Attribution", sections 3.2 to 3.5.
    """
    learn()  # which may be missing: that is said before anything is computed
    method = resolve_chain(method, model)
    if not 0 < significance < 1:
        raise ValueError(f"The significance lies between 0 and 1, got {significance}.")
    checks.check_count(1, chunk=chunk)
    if target is None or np.ndim(target) != 0:
        raise ValueError(f"TCAV explains one class: the target is its index, got {target!r}.")
    images, shown, unrelated = _check_sets(images, concepts, random)
    sets = shown | unrelated
    stacked = np.concatenate(list(sets.values()))
    size = min(chunk, max(len(images), len(stacked)))
    first = Chunk(0, size, len(images)).index
    at_first = of_images(method, images, first)
    source = source_of(model, images)
    reading = read_for_target(source, images[first], at_first, target)
    graph, value = reading.graph, layer_value(reading.graph, layer)
    _, classes = graph.program.shape(graph.program.outputs[0])
    seed = jax.tree.unflatten(reading.out_tree, [np.eye(classes)[[int(target)] * size]])

    def derivative(index: np.ndarray) -> jax.Array:
        own = of_images(method, images, index)
        _, relevance = vjp(source, images[index], own, layers=[layer])
        return relevance(seed)[1][layer]

    by_example = layout_of(graph, value).by_example
    units = partial(_units, by_example=by_example, size=size)
    derivatives = units(derivative, len(images), "derivatives").astype(float)
    activation = lambda index: _activation(graph, value, reading.consts, stacked[index])
    activations = _split(units(activation, len(stacked), "activations"), sets, layer)
    sensitivity = partial(_sensitivity, layer, derivatives, activations)

    rows = []
    named = list(zip(concepts, shown, strict=True))
    with threadpool_limits(1, "blas"):  # threads cost many small fits more time than they save
        null = _null(sensitivity, list(unrelated))
        compare = partial(_compare, tests=len(shown), significance=significance)
        false_positives = _false_positives(null, compare)
        for concept, a in track(named, "concepts"):
            scores = np.array([np.mean(sensitivity(a, b) > 0) for b in unrelated])
            accuracies = [cav_accuracy(activations[a], activations[b]) for b in unrelated]
            row = {"concept": concept, "layer": layer, "target": int(target)}
            row |= compare(scores, _off_diagonal(null))
            row |= {"accuracy": float(np.mean(accuracies)), "false_positives": false_positives}
            rows.append(row)
    settings = {"method": method.name, "significance": significance, "images": len(images)}
    return TCAV(settings | {"random_sets": len(unrelated)}, rows)


def welch_p_value(scores: np.ndarray, null: np.ndarray) -> float:
    """The p-value of a two-sided Welch t-test of equal means.

    Where neither side varies it is the limit of the test: 1 for equal means, 0 for others.
    """
    if np.ptp(scores) == np.ptp(null) == 0:
        return float(scores[0] == null[0])
    sides = [(v.mean(), v.std(ddof=1), v.size) for v in (scores, null)]
    return float(ttest_ind_from_stats(*sides[0], *sides[1], equal_var=False).pvalue)


def _check_sets(
    images: Any, concepts: Mapping[str, Any], random: Sequence[Any]
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The images, the concepts and the random sets as arrays, the sets by what errors call them."""
    if not hasattr(images, "shape") or len(images) == 0:
        raise ValueError("TCAV needs a batch of images: one array (N, ...) with N at least 1.")
    if not isinstance(concepts, Mapping) or not concepts:
        raise ValueError(
            "The concepts are a dictionary from names to batches of images, with at least one."
        )
    if len(random) < 2:
        raise ValueError(
            "The null compares random sets with each other: give at least 2 batches of random "
            f"images, got {len(random)}."
        )
    images = np.asarray(images)
    shown = {f"the concept {name!r}": _like(images, batch) for name, batch in concepts.items()}
    unrelated = {f"random set {i}": _like(images, batch) for i, batch in enumerate(random)}
    for name, batch in (shown | unrelated).items():
        if batch.shape[1:] != images.shape[1:] or batch.dtype != images.dtype:
            raise ValueError(
                f"The images of {name} are {batch.dtype}{list(batch.shape[1:])} and those "
                f"explained {images.dtype}{list(images.shape[1:])}: prepare all of them alike."
            )
        if len(batch) < MIN_IMAGES:
            raise ValueError(
                f"There are {len(batch)} images in {name}: a CAV needs at least {MIN_IMAGES}, so "
                f"that its accuracy can be measured in {FOLDS} parts of 2."
            )
    sets = {"the images": images} | shown | unrelated
    checks.check_finite(list(sets.values()), list(sets))
    return images, shown, unrelated


def _like(images: np.ndarray, batch: Any) -> np.ndarray:
    """The batch as an array, of the images' precision where both hold floating-point numbers."""
    batch = np.asarray(batch)
    both_float = all(jnp.issubdtype(a.dtype, jnp.floating) for a in (images, batch))
    return batch.astype(images.dtype) if both_float else batch


@partial(jax.jit, static_argnums=(0, 1))
def _activation(graph: Graph, value: int, consts: list, images: jax.Array) -> jax.Array:
    return environment(graph, consts, [images])[value]


def _units(
    function: Callable,
    count: int,
    description: str,
    *,
    by_example: Callable,
    size: int,
) -> np.ndarray:
    """The function's values (images, units), of `size` images, given by their numbers, at once."""
    parts = [
        by_example(np.asarray(function(some.index)))[: some.own]
        for some in chunks(count, size, description)
    ]
    return np.concatenate(parts)


def _split(
    activations: np.ndarray, sets: dict[str, np.ndarray], layer: str
) -> dict[str, np.ndarray]:
    """The activations of each set; raises ValueError for those that no CAV can be fitted to."""
    parts = np.split(activations, np.cumsum([len(batch) for batch in sets.values()])[:-1])
    checks.check_finite(parts, [f"the activations of {name} at layer {layer!r}" for name in sets])
    if not varies(activations).any():
        raise ValueError(
            f"The activations at layer {layer!r} are the same for all images of the concepts and "
            "the random sets: choose a layer that depends on the input."
        )
    return dict(zip(sets, parts, strict=True))


def _sensitivity(
    layer: str, derivatives: np.ndarray, activations: dict, concept: str, random: str
) -> np.ndarray:
    """S of each image (N,) along the CAV from one set to another."""
    direction = cav(activations[concept], activations[random])
    if not direction.any():
        raise ValueError(
            f"At layer {layer!r} no direction leads from {random} to {concept}, because their mean "
            "activations are equal: give different images."
        )
    return derivatives @ direction


def _null(sensitivity: Callable, names: list[str]) -> np.ndarray:
    """The scores of each random set (row) against each other one (column)."""
    null = np.zeros((len(names), len(names)))
    pairs = list(combinations(range(len(names)), 2))
    for i, j in track(pairs, "random sets"):
        s = sensitivity(names[i], names[j])
        null[i, j], null[j, i] = np.mean(s > 0), np.mean(s < 0)  # swapped, the CAV is negated
    return null


def _compare(
    scores: np.ndarray, null: np.ndarray, *, tests: int, significance: float
) -> dict[str, Any]:
    p_value = min(1.0, tests * welch_p_value(scores, null))
    return {
        "score": scores.mean().item(),
        "score_std": scores.std(ddof=1).item(),
        "scores": scores.tolist(),
        "random_score": null.mean().item(),
        "random_std": null.std(ddof=1).item(),
        "p_value": p_value,
        "significant": p_value < significance,
    }


def _false_positives(null: np.ndarray, compare: Callable) -> float | None:
    """The share of the random sets that pass the test as concepts; two sets leave no null."""
    if len(null) < 3:
        return None
    others = lambda i: _off_diagonal(np.delete(np.delete(null, i, 0), i, 1))
    found = [compare(np.delete(null[i], i), others(i)) for i in range(len(null))]
    return np.mean([row["significant"] for row in found]).item()


def _off_diagonal(matrix: np.ndarray) -> np.ndarray:
    return matrix[~np.eye(len(matrix), dtype=bool)]
