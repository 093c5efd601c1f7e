"""Methods that ask for many maps or outputs and combine them, over any other method.

An estimator is a pytree (its arrays are leaves) that says how many evaluations it makes, what the
i-th one is, and how they add up. Some run at once: memory holds these, and all runs are of the same
compiled program.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .._base import checks
from .._base.progress import track
from .._base.work import fitting
from ..graph.reading import Reading
from ..program.evaluation import as_number
from ..propagation.explainer import Explainer
from ..propagation.targets import ExplainedOutput, logits_of, one_hot, read_as

Maps = list[jax.Array]  # one for each input of the model


@dataclass(frozen=True, kw_only=True)
class Estimator(Explainer):
    """Base class. base: the method it is over, or None. at_once: evaluations made at once."""

    name: str
    base: Any = None
    at_once: int | None = None
    nests = True

    def __post_init__(self) -> None:
        if self.at_once is not None:
            checks.check_count(1, at_once=self.at_once)

    def evaluations(self, explained: ExplainedOutput, leaves: Maps) -> int:
        raise NotImplementedError

    def sample(self, explained: ExplainedOutput, leaves: Maps, i: jax.Array) -> Any:
        """What the i-th evaluation gives; i may be traced."""
        raise NotImplementedError

    def start(self, leaves: Maps) -> Any:
        """The state before any evaluation; by default samples are added to zeros."""
        return [jnp.zeros_like(leaf) for leaf in leaves]

    def add(self, state: Any, samples: Any, valid: jax.Array) -> Any:
        """The state after some samples (stacked), of which only the valid ones count."""
        return [
            s + jnp.tensordot(valid.astype(m.dtype), m, 1)
            for s, m in zip(state, samples, strict=True)
        ]

    def finish(self, explained: ExplainedOutput, leaves: Maps, state: Any) -> Maps:
        return state

    def maps(self, explained: ExplainedOutput, leaves: Maps) -> Maps:
        """The maps, as one traceable computation."""
        count, at_once = sizes = self._sizes(explained, leaves)
        advance = lambda state, first: (self._advance(sizes, explained, leaves, state, first), None)
        state, _ = jax.lax.scan(advance, self.start(leaves), jnp.arange(0, count, at_once))
        return self.finish(explained, leaves, state)

    def explain(self, reading: Reading, x: Any, target: Any) -> Any:
        reading = read_as(reading, x, self)
        return jax.tree.unflatten(reading.x_tree, self._run(*self._explained(reading, target)))

    def _run(self, explained: ExplainedOutput, leaves: Maps) -> Maps:
        count, at_once = sizes = self._sizes(explained, leaves)
        if count <= at_once or not all(map(checks.is_concrete, [explained.seed, *leaves])):
            return _maps(explained.graph, self, explained.consts, explained.seed, leaves)
        state = self.start(leaves)
        for first in track(range(0, count, at_once), self.name):
            state = self._advance(sizes, explained, leaves, state, first)
        return self.finish(explained, leaves, state)

    def _advance(self, sizes, explained, leaves, state, first):
        return _add_some(
            explained.graph, sizes, self, explained.consts, explained.seed, leaves, state, first
        )

    def _explained(self, reading: Reading, target: Any) -> tuple[ExplainedOutput, Maps]:
        leaves = [as_number(leaf) for leaf in reading.leaves]
        logits = logits_of(reading.graph, reading.consts, leaves)
        checks.check_finite([logits], ["the model's output"])
        return ExplainedOutput(reading.graph, reading.consts, one_hot(target, logits)), leaves

    def _sizes(self, explained: ExplainedOutput, leaves: Maps) -> tuple[int, int]:
        """How many evaluations, and how many at once."""
        count = self.evaluations(explained, leaves)
        largest = max(math.prod(a.shape) for a in explained.graph.program.avals)
        return count, min(count, self.at_once or fitting(largest))


@partial(jax.jit, static_argnums=0)
def _maps(graph, estimator, consts, seed, leaves):
    return estimator.maps(ExplainedOutput(graph, consts, seed), leaves)


@partial(jax.jit, static_argnums=(0, 1))
def _add_some(graph, sizes, estimator, consts, seed, leaves, state, first):
    count, at_once = sizes
    explained = ExplainedOutput(graph, consts, seed)
    index = first + jnp.arange(at_once)
    sample = lambda i: estimator.sample(explained, leaves, jnp.minimum(i, count - 1))
    return estimator.add(state, jax.vmap(sample)(index), index < count)
