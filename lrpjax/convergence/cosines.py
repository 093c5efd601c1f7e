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
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import betaincinv

from .._base import checks
from .._base.progress import track
from .._base.results import Results, key_text
from ..graph import COMPUTING, Graph, places
from ..graph.places import below, output_layer, values_at
from ..graph.reading import Model, Reading, source_of
from ..methods.table import resolve_chain
from ..planning.claims import require
from ..propagation import refusals
from ..propagation.baselines import of_images
from ..propagation.chain import piece, propagations
from ..propagation.explain import reached, read_for
from ..propagation.layer_statistics import filled_up
from ..propagation.method import Method
from .locations import locations
from .rays import NO_ANGLE, units

Scope = Literal["location", "map"]
PERCENTILES = (0, 1, 5, 10, 20, 50, 80, 95, 99, 100)
_BYTES = 128 * 2**20  # of relevance at the largest layer, held at once, unless `chunk` says more


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
    over the channels, or one over the whole map. chunk: how many are propagated at
    once (default: as many as keep the largest layer's relevance within 128 MiB).
    The same key gives the same vectors for an image whatever the chunk.
    """
    if over not in ("location", "map"):
        raise ValueError(f'Cosines are over a "location" or the "map", got over={over!r}.')
    if vectors < 2:
        raise ValueError(f"Cosines are of pairs: vectors must be at least 2, got {vectors}.")
    checks.check_images(images)
    method, source = resolve_chain(method, model), source_of(model, images)
    alone = of_images(method, images, np.arange(1))
    require(source, images, method)
    first = read_for(source, images[:1], alone)
    graph = first.graph
    start_name = start or output_layer(graph)
    arrives = reached(first, alone, start_name)
    asked = _arriving(graph, start_name, arrives) if layers is None else layers
    names = tuple(dict.fromkeys(asked))
    values = values_at(graph, start_name, names)
    for name, value in zip(names, values, strict=True):
        if value not in arrives:
            raise ValueError(
                f"Under {method.name} no relevance reaches the layer {name!r}: its output only "
                "weighs another value."
            )
    largest = max(np.prod(graph.program.shape(v)) for v in values)
    at_once = chunk or max(1, _BYTES // (4 * int(largest)))
    batch = min(len(images), max(1, at_once // vectors))
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in names}
    checks.check_input([images])
    refusals.check_range([images], method)
    reading = read_for(source, images[:batch], of_images(method, images, np.arange(batch)))
    starts = range(0, len(images), batch)
    for i in track(starts, f"csc, {method.name}"):
        index = filled_up(i, batch, len(images))
        vectors_found, finite = _relevance(
            reading.graph,
            of_images(method, images, index),
            start_name,
            names,
            (vectors, min(vectors, at_once), over),
            reading.consts,
            images[index],
            jax.vmap(partial(jax.random.fold_in, key))(index),
        )
        if not finite:
            raise ValueError(
                f"The model's output holds NaN or infinity for one of the images {i} to "
                f"{i + batch - 1}: its relevance would mean nothing."
            )
        real = min(batch, len(images) - i)
        for name in names:  # each in a program that all layers of its shape share
            distances, largest_entry = _distances(vectors_found.pop(name))
            checks.check_maps(method.name, [largest_entry])
            pieces[name].append(np.asarray(distances)[:, :real].ravel())
    rows = []
    for name, value in zip(names, values, strict=True):
        channels = _channels(graph, value, over)
        measured = {"method": method.name, "start": start_name, "layer": name, "over": over}
        rows.append({**measured, **_summary(np.concatenate(pieces[name]), channels)})
    settings = {"images": len(images), "vectors": vectors, "key": key_text(key)}
    return CSC(settings, rows)


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
    seed = places.find_layer(graph, start).outputs[0]
    values = values_at(graph, start, names)
    whole = piece(below(graph, start), [seed], values)
    env, (propagate,) = propagations(graph, method, consts, [images], [whole])
    layout, shape = places.layout_of(graph, seed), env[seed].shape
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
