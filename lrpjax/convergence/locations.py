"""Where the relevance of a value lies: its locations, and the channels at each."""

from __future__ import annotations

import jax
import numpy as np

from ..graph import Graph
from ..graph.places import layout_of
from ..program import Layout


def locations(graph: Graph, value: int, maps: jax.Array) -> jax.Array:
    """Relevance (V, *shape) of a value as (V, N, locations, channels).

    What is said of its axes further up holds here too: flat images (N, pixels) that become
    (N, H, W, C) have channels. Where features are nowhere spoken of all units are channels.
    Raises ValueError where the axes could not be followed.
    """
    layout = layout_of(graph, value)
    places, channels = _parts(layout)
    order = (0, *(1 + i for i in (*layout.batch, *places, *channels)))
    sizes = map(layout.sizes, (layout.batch, places, channels))
    return maps.reshape(-1, *layout.shape).transpose(order).reshape(len(maps), *sizes)


def place(graph: Graph, value: int, number: int) -> list[int]:
    """The location of that number, as its place along the axes of space."""
    layout = layout_of(graph, value)
    space = [layout.shape[i] for i in _parts(layout)[0]]
    return [int(i) for i in np.unravel_index(number, space)]


def _parts(layout: Layout) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes of the locations and those of the channels, of which the last features are."""
    channels = layout.features[-1:]
    if not channels and not layout.places:
        return (), layout.units
    return tuple(i for i in layout.units if i not in channels), channels
