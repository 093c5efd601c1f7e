"""Where the relevance of a value lies: its locations, and the channels at each."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from ..graph import Eqn, Graph, Layout, run


def locations(graph: Graph, value: int, maps: jax.Array) -> jax.Array:
    """Relevance (V, *shape) of a value as (V, N, locations, channels).

    A value without a feature axis (images (N, H, W), or flat ones) is seen as the layer behind it
    sees it, once it is moved into a value that has one. Where there is none all units are channels.
    """
    moves, seen = seen_as(graph, value)
    if moves:
        maps = jax.vmap(lambda one: run(moves, {value: one})[seen])(maps)
    layout = graph.axes.layout[seen]
    if graph.axes.batch[seen] is None and layout is not None and layout.batch:
        return _apart(layout, maps)
    batch, feature = graph.axes.batch[seen] or 0, graph.axes.feature[seen]
    maps = jnp.moveaxis(maps, batch + 1, 1)
    if feature is None or maps.ndim == 3:
        return maps.reshape(*maps.shape[:2], 1, -1)
    feature += 1 if feature > batch else 2
    maps = jnp.moveaxis(maps, feature, -1)
    return maps.reshape(*maps.shape[:2], -1, maps.shape[-1])


def _apart(layout: Layout, maps: jax.Array) -> jax.Array:
    """Relevance of a value whose batch is one axis with others, as (V, N, locations, channels)."""
    sizes = lambda axes: math.prod(layout.shape[i] for i in axes)
    others = set(range(len(layout.shape))) - {*layout.batch, *layout.features}
    places = tuple(sorted(others)) if layout.features else ()
    channels = tuple(layout.features) if layout.features else tuple(sorted(others))
    split = maps.reshape(len(maps), *layout.shape)
    order = (0, *(1 + i for i in (*layout.batch, *places, *channels)))
    return split.transpose(order).reshape(
        len(maps), sizes(layout.batch), sizes(places), sizes(channels)
    )


def seen_as(graph: Graph, value: int) -> tuple[list[Eqn], int]:
    """The equations that move a value, whole, to where its features are known; and that value."""
    moves, now = list[Eqn](), value
    while graph.axes.feature[now] is None:
        size = math.prod(graph.program.shape(now))
        onwards = (
            layer
            for layer in graph.layers
            if layer.kind == "structure"
            and layer.inputs == (now,)
            and all(len(eqn.inputs) == 1 for eqn in layer.eqns)  # no indices, no predicates
            and [math.prod(graph.program.shape(v)) for v in layer.outputs] == [size]
            and graph.axes.batch[layer.outputs[0]] is not None
        )
        layer = next(onwards, None)
        if layer is None:
            return [], value
        moves.extend(layer.eqns)
        now = layer.outputs[0]
    return moves, now
