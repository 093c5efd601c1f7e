"""Whether examples are kept apart, tried on the data where no table says it."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base import checks
from ..graph import Graph
from ..graph.reading import Reading, environment


def refuse_what_mixes(reading: Reading) -> None:
    """ValueError if one example's output changes with the other examples.

    Asked only of a model with an equation on the way to its output of which it is not known how it
    treats a batch: some such work along other axes, and have rules that users gave them. Nothing
    under jit or vmap, where there are no numbers to try it on.
    """
    graph = reading.graph
    eqn, values = graph.axes.unproven, (*reading.leaves, *reading.consts)
    if eqn is None or not all(map(checks.is_concrete, values)):
        return
    sizes = {leaf.shape[:1] for leaf in reading.leaves}
    outputs = [v for v in graph.program.outputs if graph.program.shape(v)[:1] in sizes]
    if len(sizes) != 1 or not outputs or max(sizes) <= (1,):
        return
    if _depends(graph, tuple(outputs), reading.consts, reading.leaves):
        raise ValueError(
            f"The outputs of one example depend on others, as is seen when these are changed: it "
            f"is not known how {eqn.name} at {eqn.source} treats the batch, the first axis of the "
            "input. Keep the examples apart, as jax.vmap does with a model of one example, or "
            "give a single example as x[None]."
        )


@partial(jax.jit, static_argnums=(0, 1))
def _depends(graph: Graph, outputs: tuple[int, ...], consts: list, leaves: list) -> jax.Array:
    """Whether an output changes with examples that are not its own. Any two examples differ in a
    digit of their numbers: for each, those with a 0 there are changed, and then those with a 1."""
    size = len(leaves[0])
    digits = np.arange(size) >> np.arange(size.bit_length())[:, None] & 1
    groups = jnp.asarray(np.concatenate([digits, 1 - digits]).astype(bool))
    others = [_another(leaf) for leaf in map(jnp.asarray, leaves)]
    env = environment(graph, consts, leaves)

    def seen(changed: jax.Array) -> jax.Array:
        mixed = [
            jnp.where(_along(changed, leaf), other, leaf)
            for leaf, other in zip(leaves, others, strict=True)
        ]
        found = environment(graph, consts, mixed)
        return jnp.any(jnp.stack([_moved(found[v], env[v], changed) for v in outputs]))

    return jnp.any(jax.lax.map(seen, groups))


def _another(leaf: jax.Array) -> jax.Array:
    """Another example in each place: its neighbour, reversed."""
    return jnp.flip(jnp.roll(leaf, 1, 0), range(1, leaf.ndim))


def _along(changed: jax.Array, like: Any) -> jax.Array:
    return changed.reshape(-1, *[1] * (like.ndim - 1))


def _moved(found: jax.Array, wanted: jax.Array, changed: jax.Array) -> jax.Array:
    """Whether an output of an example that was not changed is another one, beyond rounding."""
    same = (found == wanted) | (jnp.isnan(found) & jnp.isnan(wanted)) | _along(changed, found)
    off = jnp.where(same, 0, jnp.abs(found - wanted))
    largest = jnp.max(jnp.where(jnp.isfinite(wanted), jnp.abs(wanted), 0), initial=0)
    return ~(jnp.max(off, initial=0) <= jnp.sqrt(jnp.finfo(found.dtype).eps) * largest)
