"""Cosine similarity convergence: do random relevance vectors align on their way to the input?

Random vectors are injected at the output of one layer and propagated down. At every layer below,
the absolute cosine of each pair is taken per spatial location over the channels (over all units
of a dense layer). A method whose chain of matrices collapses to rank 1 gives 1 everywhere: its
map cannot depend on the layers above. Sixt et al. 2020, section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import combinations
from math import prod
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import betaincinv

from .._base import checks
from .._base.results import Results, key_text
from .._base.work import chunks, fitting
from ..graph import COMPUTING, Graph
from ..graph.places import below, find_layer, layout_of, output_layer, values_at
from ..graph.reading import Model, Reading, Source, source_of
from ..methods.lookup import resolve_chain
from ..planning.claims import require
from ..propagation import refusals
from ..propagation.baselines import of_images
from ..propagation.method import Method
from ..propagation.propagations import propagations, span
from ..propagation.targets import reached, read_for
from .locations import locations
from .rays import NO_ANGLE, units

Scope = Literal["location", "map"]
PERCENTILES = (0, 1, 5, 10, 20, 50, 80, 95, 99, 100)


class CSC(Results):
    """What was measured: one row for each method, injection layer and layer below it.

    A row has method, start, layer, over, channels (the dimension of the vectors compared), median,
    one_minus_median (exact where the median rounds to 1), mean, quantiles {percentile: |cos|},
    one_minus_quantiles, baseline (the median for independent Gaussian vectors), count, dropped
    (pairs without an angle because a vector was zero), and undirected: None, or why no pair has an
    angle ("one channel": numbers have no direction; "no relevance": all of it is zero). Then count
    is 0, and what is measured is None.
    """

    required = "method start layer median one_minus_median baseline undirected".split()
    shown = "method start layer median one_minus_median baseline count dropped undirected".split()


def csc(
    model: Model,
    images: Any,
    method: str | Method,
    *,
    key: jax.Array,
    start: str | None = None,
    layers: Sequence[str] | None = None,
    vectors: int = 5,
    over: Scope = "location",
    chunk: int | None = None,
) -> CSC:
    """Measures cosine similarity convergence of one method.

    images: a batch (N, ...) as the model takes it. start: the layer at whose output the vectors
    are injected (default: the model's output). layers: where to measure (default: every layer
    below with weights, pooling or additions that relevance reaches, and the input). vectors: how
    many Gaussian vectors an image gets; all their pairs count. over: take cosines at each location
    over the channels, or one over the whole map. chunk: images at once (default: as many as keep
    the largest layer's relevance within 128 MiB).
    The same key gives the same vectors for an image whatever the chunk.
    """
    if over not in ("location", "map"):
        raise ValueError(f'Cosines are over a "location" or the "map", got over={over!r}.')
    checks.check_count(2, vectors=vectors)  # cosines are of pairs
    if chunk is not None:
        checks.check_count(1, chunk=chunk)
    checks.check_names("layers", layers)
    checks.check_images(images)
    checks.check_key(key)
    method, source = resolve_chain(method, model), source_of(model, images)
    alone = of_images(method, images, np.arange(1))
    require(source, images, method)
    first = read_for(source, images[:1], alone)
    start_name = start or output_layer(first.graph)
    names = _asked(first, alone, start_name, layers)
    values = values_at(first.graph, start_name, names)
    checks.check_input([images])
    refusals.check_range([images], method)
    fits = fitting(max(prod(first.graph.program.shape(v)) for v in values))
    size = min(len(images), chunk or max(1, fits // vectors))
    sizes = (vectors, min(vectors, max(1, fits // size)), over)
    found = _cosines(source, images, method, key, start_name, names, size, sizes)
    rows = []
    for name, value in zip(names, values, strict=True):
        channels = _channels(first.graph, value, over)
        measured = {"method": method.name, "start": start_name, "layer": name, "over": over}
        rows.append({**measured, **_summary(found[name], channels)})
    settings = {"images": len(images), "vectors": vectors, "key": key_text(key)}
    return CSC(settings, rows)


def _asked(
    reading: Reading, method: Method, start: str, layers: Sequence[str] | None
) -> tuple[str, ...]:
    """The layers to measure, each once; ValueError for one that relevance does not reach."""
    arrives = reached(reading, method, start)
    if layers is None:
        return tuple(_arriving(reading.graph, start, arrives))
    names = tuple(dict.fromkeys(layers))
    for name, value in zip(names, values_at(reading.graph, start, names), strict=True):
        if value not in arrives:
            raise ValueError(
                f"Under {method.name} no relevance reaches the layer {name!r}: its output only "
                "weighs another value."
            )
    return names


def _cosines(
    source: Source,
    images: Any,
    method: Method,
    key: jax.Array,
    start: str,
    names: tuple[str, ...],
    size: int,
    sizes: tuple[int, int, Scope],
) -> dict[str, np.ndarray]:
    """1 - |cos| of all pairs of all images at each layer. size: images at once."""
    reading = read_for(source, images[:size], of_images(method, images, np.arange(size)))
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for some in chunks(len(images), size, f"csc, {method.name}"):
        vectors, finite = _relevance(
            reading.graph,
            of_images(method, images, some.index),
            start,
            names,
            sizes,
            reading.consts,
            images[some.index],
            jax.vmap(partial(jax.random.fold_in, key))(some.index),
        )
        if not finite:
            raise ValueError(
                f"The model's output holds NaN or infinity for one of the images {some.first} to "
                f"{some.first + some.own - 1}: its relevance would mean nothing."
            )
        for name in names:  # each in a program that all layers of its shape share
            distances, largest_entry = _distances(vectors.pop(name))
            checks.check_maps(method.name, [largest_entry])
            pieces[name].append(np.asarray(distances)[:, : some.own].ravel())
    return {name: np.concatenate(parts) for name, parts in pieces.items()}


def reached_layers(reading: Reading, method: Method, start: str) -> list[str]:
    """Of `measured_layers`, those that relevance reaches under the method."""
    return _arriving(reading.graph, start, reached(reading, method, start))


def _arriving(graph: Graph, start: str, arrives: set[int]) -> list[str]:
    found = measured_layers(graph, start)
    places = values_at(graph, start, found)
    return [name for name, v in zip(found, places, strict=True) if v in arrives]


def measured_layers(graph: Graph, start: str | None) -> tuple[str, ...]:
    """The layers below `start` with weights, pooling or additions, from it down to the input.

    A sum over the features (the mean in a LayerNorm) leaves no direction to compare.
    """
    directed = lambda layer: layer.kind != "sum" or graph.axes.feature[layer.outputs[0]] is not None
    names = [a.name for a in below(graph, start) if a.kind in COMPUTING and directed(a)]
    return (*names[::-1], "input")


def random_baseline(channels: int) -> float:
    """The median |cos| of two independent Gaussian vectors of that dimension (1 has |cos| = 1).

    cos^2 follows Beta(1/2, (channels - 1)/2).
    """
    return float(np.sqrt(betaincinv(0.5, (channels - 1) / 2, 0.5))) if channels > 1 else 1.0


def one_minus_cosines(vectors: jax.Array) -> jax.Array:
    """1 - |cos| of all pairs of V vectors (V, ..., C), over the last axis: (pairs, ...).

    As half the squared distance of the unit vectors, which resolves 1e-12 in float32 where
    1 - u.v stops at 1e-7. NO_ANGLE where a vector is zero.
    """
    unit, given = units(vectors)

    def pair(indices):
        u, v = unit[indices[0]], unit[indices[1]]
        opposite = (u * v).sum(-1, keepdims=True) < 0
        apart = ((u - jnp.where(opposite, -v, v)) ** 2).sum(-1) / 2
        return jnp.where(given[indices[0]] & given[indices[1]], apart, NO_ANGLE)

    return jax.lax.map(pair, jnp.array(list(combinations(range(len(vectors)), 2))))


@partial(jax.jit, static_argnums=(0, 2, 3, 4))
def _relevance(graph, method, start, names, sizes, consts, images, keys):
    """What is compared at each layer, (V, N, places, channels) by its name, and whether the model's
    output is finite."""
    vectors, at_once, over = sizes
    seed = find_layer(graph, start).outputs[0]
    values = values_at(graph, start, names)
    whole = span(below(graph, start), [seed], values)
    env, (propagate,) = propagations(graph, method, consts, [images], [whole])
    layout, shape = layout_of(graph, seed), env[seed].shape
    units = (vectors, layout.sizes(layout.units))
    drawn = jax.vmap(lambda k: jax.random.normal(k, units, env[seed].dtype), out_axes=1)(keys)
    drawn = jax.vmap(lambda of_images: layout.together(of_images).reshape(shape))(drawn)

    def relevance(r):
        found = propagate({seed: r})
        return [found[v] for v in values]

    parts = [jax.vmap(relevance)(drawn[i : i + at_once]) for i in range(0, vectors, at_once)]
    measured = {
        name: jnp.concatenate([_compared(graph, v, part[k], over) for part in parts])
        for k, (name, v) in enumerate(zip(names, values, strict=True))
    }
    outputs = [jnp.isfinite(env[v]).all() for v in graph.program.outputs]
    return measured, jnp.stack(outputs).all()


@jax.jit
def _distances(vectors: jax.Array) -> tuple[jax.Array, jax.Array]:
    """1 - |cos| of all pairs, and a number that is not finite where an entry is not."""
    return one_minus_cosines(vectors), jnp.abs(vectors).max()


def _compared(graph: Graph, value: int, maps: jax.Array, over: str) -> jax.Array:
    """The vectors (V, N, places, channels) whose cosines are taken."""
    placed = locations(graph, value, maps)
    return placed.reshape(*placed.shape[:2], 1, -1) if over == "map" else placed


def _channels(graph: Graph, value: int, over: str) -> int:
    like = jax.ShapeDtypeStruct((2, *graph.program.shape(value)), jnp.float32)
    return jax.eval_shape(lambda maps: _compared(graph, value, maps, over), like).shape[-1]


def _summary(distances: np.ndarray, channels: int) -> dict[str, Any]:
    kept = distances[distances != NO_ANGLE] if channels > 1 else distances[:0]
    known = {
        "channels": channels,
        "baseline": random_baseline(channels),
        "count": len(kept),
        "dropped": len(distances) - len(kept),
    }
    if len(kept) == 0:
        measured = ("median", "one_minus_median", "mean", "quantiles", "one_minus_quantiles")
        why = "one channel" if channels == 1 else "no relevance"
        return {**known, **dict.fromkeys(measured), "undirected": why}
    # The p-th percentile of |cos| is 1 minus the (100 - p)-th of 1 - |cos|.
    far = np.percentile(kept.astype(np.float64), [100 - p for p in PERCENTILES])
    below_one = {str(p): float(d) for p, d in zip(PERCENTILES, far, strict=True)}
    return {
        **known,
        "median": 1 - below_one["50"],
        "one_minus_median": below_one["50"],
        "mean": float(1 - kept.mean(dtype=np.float64)),
        "quantiles": {p: 1 - d for p, d in below_one.items()},
        "one_minus_quantiles": below_one,
        "undirected": None,
    }
