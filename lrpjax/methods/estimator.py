"""Methods that ask for many maps or outputs and combine them, over any other method.

An estimator is a pytree (its arrays are leaves) that says how many evaluations it makes, what the
i-th one is, and how they add up. Evaluations run in chunks: memory holds one chunk, and every
chunk runs the same compiled program.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .._base import checks
from .._base.progress import track
from ..graph import Graph
from ..graph.reading import Model, Reading, as_number
from ..propagation.explain import logits_of, one_hot, read_for_target, relevance_from
from ..propagation.method import Colour, Method

_BYTES = 256 * 2**20  # of the largest layer's values, held at once, unless `chunk` says more
Maps = list[jax.Array]  # one for each input of the model


@dataclass(frozen=True)
class Network:
    """A model read at a batch and one of its outputs for each image: what is explained."""

    graph: Graph
    consts: Sequence[Any]
    seed: jax.Array  # (N, classes): 1 at each image's target

    def output(self, leaves: Maps) -> jax.Array:
        """The explained logit of each image, (N,)."""
        return (logits_of(self.graph, self.consts, leaves) * self.seed).sum(-1)

    def maps(self, method: Method | Estimator, leaves: Maps, seed: jax.Array | None = None) -> Maps:
        """The maps of any method for a seed (N, classes); by default the explained unit's."""
        seed = self.seed if seed is None else seed
        if isinstance(method, Method):
            return relevance_from(self.graph, method, self.consts, leaves, seed)
        return method.maps(Network(self.graph, self.consts, seed), leaves)


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """Base class. base: the method it is over, or None. chunk: evaluations made at once."""

    name: str
    base: Any = None
    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(
                f"chunk is how many evaluations run at once: at least 1, got {self.chunk}."
            )

    def __str__(self) -> str:
        return self.name

    @property
    def colour(self) -> Colour:
        """As on `Method`."""
        return "sum"

    @property
    def sparse(self) -> bool:
        """As on `Method`."""
        return False

    def evaluations(self, network: Network, leaves: Maps) -> int:
        raise NotImplementedError

    def sample(self, network: Network, leaves: Maps, i: jax.Array) -> Any:
        """What the i-th evaluation gives; i may be traced."""
        raise NotImplementedError

    def start(self, leaves: Maps) -> Any:
        """The state before any evaluation; by default samples are added to zeros."""
        return [jnp.zeros_like(leaf) for leaf in leaves]

    def add(self, state: Any, samples: Any, valid: jax.Array) -> Any:
        """The state after a chunk of samples (stacked), of which only the valid ones count."""
        return [
            s + jnp.tensordot(valid.astype(m.dtype), m, 1)
            for s, m in zip(state, samples, strict=True)
        ]

    def finish(self, network: Network, leaves: Maps, state: Any) -> Maps:
        return state

    def maps(self, network: Network, leaves: Maps) -> Maps:
        """The maps, as one traceable computation."""
        count, chunk = sizes = self._sizes(network, leaves)
        advance = lambda state, first: (self._advance(sizes, network, leaves, state, first), None)
        state, _ = jax.lax.scan(advance, self.start(leaves), jnp.arange(0, count, chunk))
        return self.finish(network, leaves, state)

    def attribute(self, model: Model, x: Any, *, target: Any = None) -> Any:
        """The heat map, as `lrpjax.attribute` gives and checks it; shows progress where it takes
        long."""
        reading = read_for_target(model, x, self, target)
        maps = self.explain(reading, target)
        checks.check_maps(self.name, maps)
        return jax.tree.unflatten(reading.x_tree, maps)

    def explain(self, reading: Reading, target: Any) -> Maps:
        """The heat map of each input of a model that has been read."""
        return self._run(*self._network(reading, target))

    def _run(self, network: Network, leaves: Maps) -> Maps:
        count, chunk = sizes = self._sizes(network, leaves)
        if count <= chunk or not all(map(checks.is_concrete, [network.seed, *leaves])):
            return _maps(network.graph, self, network.consts, network.seed, leaves)
        state = self.start(leaves)
        for first in track(range(0, count, chunk), self.name):
            state = self._advance(sizes, network, leaves, state, first)
        return self.finish(network, leaves, state)

    def _advance(self, sizes, network, leaves, state, first):
        return _add_chunk(
            network.graph, sizes, self, network.consts, network.seed, leaves, state, first
        )

    def _network(self, reading: Reading, target: Any) -> tuple[Network, Maps]:
        leaves = [as_number(leaf) for leaf in reading.leaves]
        logits = logits_of(reading.graph, reading.consts, leaves)
        checks.check_finite([logits], ["the model's output"])
        return Network(reading.graph, reading.consts, one_hot(target, logits)), leaves

    def _sizes(self, network: Network, leaves: Maps) -> tuple[int, int]:
        """How many evaluations, and how many at once."""
        count = self.evaluations(network, leaves)
        largest = max(math.prod(a.shape) for a in network.graph.program.avals)
        return count, min(count, self.chunk or max(1, _BYTES // (4 * largest)))


@partial(jax.jit, static_argnums=0)
def _maps(graph, estimator, consts, seed, leaves):
    return estimator.maps(Network(graph, consts, seed), leaves)


@partial(jax.jit, static_argnums=(0, 1))
def _add_chunk(graph, sizes, estimator, consts, seed, leaves, state, first):
    count, chunk = sizes
    network = Network(graph, consts, seed)
    index = first + jnp.arange(chunk)
    sample = lambda i: estimator.sample(network, leaves, jnp.minimum(i, count - 1))
    return estimator.add(state, jax.vmap(sample)(index), index < count)
