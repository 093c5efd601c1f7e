"""Mean and standard deviation of each unit of a layer over many images, in one pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base import checks
from .._base.files import writing
from .._base.npy import open_npz
from .._base.reading import reading
from .._base.work import chunks
from ..graph import Graph
from ..graph.places import values_at
from ..graph.reading import Model, environment, source_of


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and standard deviation (divisor count - 1) of each unit of a layer over `count` images.

    mean, std: of the shape of the layer's output without the batch.
    """

    layer: str = field(metadata={"static": True})
    mean: jax.Array
    std: jax.Array
    count: int

    def save(self, path: str | PathLike) -> None:
        """Writes layer, mean, std and count as .npz, whole or not at all."""
        with writing(path) as stream:
            np.savez(stream, layer=self.layer, mean=self.mean, std=self.std, count=self.count)

    @classmethod
    def load(cls, path: str | PathLike) -> Statistics:
        """Reads what `save` wrote. FileNotFoundError for a missing file, ValueError for one that is
        damaged or something else."""
        with reading(path, "file of a layer's statistics") as file, open_npz(file) as arrays:
            mean, std = (jnp.asarray(arrays[name].read()) for name in ("mean", "std"))
            layer, count = (arrays[name].read().item() for name in ("layer", "count"))
            return cls(str(layer), mean, std, int(count))


def statistics(model: Model, images: Any, layer: str, *, chunk: int = 32) -> Statistics:
    """Mean and standard deviation of a layer's output over images, read chunk by chunk.

    images: (N, ...) as the model takes it, also a memory-mapped array. layer: a name that
    `lrpjax.plan` prints, or "input". chunk: images read at once; chunks are merged in double
    precision (Chan et al. 1983).
    Raises ValueError for an unknown layer, fewer than 2 images, or images that are not finite.
    """
    if not hasattr(images, "shape") or len(images) < 2:
        raise ValueError("A standard deviation needs one array (N, ...) of at least 2 images.")
    checks.check_count(1, chunk=chunk)
    chunk = min(chunk, len(images))
    reading = source_of(model, images).at(images[:chunk], fold=True)
    value = layer_value(reading.graph, layer)
    count, mean, squares = 0, np.zeros(()), np.zeros(())
    for some in chunks(len(images), chunk, f"statistics of {layer}"):
        part, new = images[some.index], some.own
        checks.check_input([part])
        moments = _moments(reading.graph, value, reading.consts, part, new)
        own, variance = (np.asarray(m, np.float64) for m in moments)
        shift, total = own - mean, count + new
        squares = squares + variance * new + shift**2 * (count * new / total)
        mean, count = mean + shift * (new / total), total
    dtype, std = moments[0].dtype, np.sqrt(squares / (count - 1))
    return Statistics(layer, jnp.asarray(mean, dtype), jnp.asarray(std, dtype), count)


@partial(jax.jit, static_argnums=(0, 1))
def _moments(graph, value, consts, images, count):
    """Mean and variance (divisor `count`) of each unit over the first `count` images."""
    features = environment(graph, consts, [images])[value]
    features = jnp.moveaxis(features, graph.axes.batch[value], 0)
    counts = (jnp.arange(len(features)) < count).reshape(-1, *[1] * (features.ndim - 1))
    return features.mean(0, where=counts), features.var(0, where=counts)


def layer_value(graph: Graph, layer: str) -> int:
    """The value that a layer writes; ValueError if there is none or it mixes the images."""
    (value,) = values_at(graph, None, [layer])
    if graph.axes.batch[value] is None:
        raise ValueError(
            f"The output of layer {layer!r} has shape {graph.program.shape(value)} and no axis for "
            "the images: choose a layer whose output keeps the images apart."
        )
    return value
