"""A model read for a method, and the relevance of its input for a target."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .._base import checks
from ..graph import Graph, ending
from ..graph.ends import ends_in
from ..graph.places import below, find_layer
from ..graph.reading import Model, Reading, environment, read_at
from ..program.evaluation import as_number
from . import refusals
from .apart import refuse_what_mixes
from .baselines import check_baselines
from .chain import Watch
from .explainer import Explainer
from .propagations import chain, is_vjp, propagations, span
from .rule_chain import RuleChain


def reached(reading: Reading, method: RuleChain, start: str) -> set[int]:
    """The values at which relevance arrives that is injected at the output of layer `start`.

    None arrives at what only weighs something else: a statistic, or attention under CP-LRP.
    """
    graph = reading.graph
    seed = find_layer(graph, start).outputs[0]
    if method.derivative:
        passed = below(graph, start)
        return {v for layer in passed for v in (*layer.inputs, *layer.outputs)}

    def propagate(consts, leaves):
        env = environment(graph, consts, leaves)
        return chain(graph, method, env, below(graph, start), {})({seed: env[seed]})

    return set(jax.eval_shape(propagate, reading.consts, reading.leaves))


def read_for(model: Model, x: Any, method: RuleChain) -> Reading:
    """Reads a model for a chain of rules. Raises as `read` does, and ValueError for an input
    outside of the range that the method supposes, or a baseline that does not fit the input."""
    reading = read_at(model, x, fold=method.fold)
    refusals.check_range(reading.leaves, method)
    check_baselines(method, reading.leaves, reading.x_tree)
    return reading


def read_as(model: Model, x: Any, method: Explainer) -> Reading:
    """The reading that a method of any kind works with."""
    return read_at(model, x, fold=method.rules is None or method.rules.fold)


def read_for_target(model: Model, x: Any, method: Explainer, target: Any) -> Reading:
    """Reads a model whose output (N, classes) is to be explained at a target.

    method: that will explain it, of any kind. Raises as `read_for` does, and ValueError for outputs
    of another shape, a target out of range, or examples that are seen to depend on one another.
    Warns of a softmax at the end.
    """
    rules = method.rules
    reading = read_at(model, x, fold=True) if rules is None else read_for(model, x, rules)
    check_baselines(method, reading.leaves, reading.x_tree)
    graph, program = reading.graph, reading.graph.program
    if reading.out_tree.num_leaves != 1:
        raise ValueError(
            f"A target needs one output (N, classes), this model returns {reading.out_tree}."
        )
    checks.check_target(target, program.shape(program.outputs[0]))
    if rules is not None:
        refusals.rules_for(graph, rules, below(graph, None))
    refuse_what_mixes(reading)
    if ends := ending(graph):
        warnings.warn(
            f"{ends_in(ends[-1])}: its maps explain probabilities, which depend on every "
            "class. To explain one logit pass the model without its last activation.",
            stacklevel=3,
        )
    return reading


@partial(jax.jit, static_argnums=0)
def logits_of(graph: Graph, consts: Sequence[Any], leaves: Sequence[Any]) -> jax.Array:
    """The model's output (N, classes), half precision as float32."""
    return environment(graph, consts, leaves)[graph.program.outputs[0]]


@partial(jax.jit, static_argnums=0)
def relevance_from(
    graph: Graph, method: RuleChain, consts: Sequence[Any], leaves: Sequence[Any], seed: jax.Array
) -> list[jax.Array]:
    """The relevance of each input for `seed` (N, classes), times the logits if the method says."""
    _, propagate = _whole(graph, method, consts, leaves)
    return propagate(seed)


def explained(
    graph: Graph,
    method: RuleChain,
    consts: Sequence[Any],
    leaves: Sequence[Any],
    target: Any,
    watch: Watch | None = None,
) -> tuple[jax.Array, list[jax.Array]]:
    """The logits (N, classes) and the relevance of each input for the target."""
    as_is = is_vjp(graph, method)
    logits, propagate = _whole(graph, method, consts, leaves, as_is=as_is, watch=watch)
    return logits, propagate(one_hot(target, logits))


def _whole(graph, method, consts, leaves, *, as_is=False, watch=None) -> tuple[jax.Array, Callable]:
    """The logits, and the map from a seed of their shape to the relevance of each input."""
    output, inputs = graph.program.outputs[0], graph.program.inputs
    whole = span(below(graph, None), [output], inputs)
    env, (pull,) = propagations(graph, method, consts, leaves, [whole], as_is=as_is, watch=watch)
    logits = env[output]

    def propagate(seed):
        found = pull({output: start_relevance(method, logits, seed)})
        zeros = lambda leaf: jnp.zeros_like(as_number(leaf))
        return [
            found[v] if v in found else zeros(leaf) for v, leaf in zip(inputs, leaves, strict=True)
        ]

    return logits, propagate


def start_relevance(method: RuleChain, logits: jax.Array, seed: jax.Array) -> jax.Array:
    """What the method starts from: the seed, or the seed times the logits."""
    return (seed * logits if method.start == "logit" else seed).astype(logits.dtype)


def classes_of(reading: Reading, target: Any) -> jax.Array:
    """The explained class of each image (N,): the target, or that of its largest logit."""
    program = reading.graph.program
    if target is None:
        target = logits_of(reading.graph, reading.consts, reading.leaves).argmax(-1)
    return jnp.broadcast_to(target, program.shape(program.outputs[0])[:1])


def one_hot(target: Any, logits: jax.Array) -> jax.Array:
    """1 at each image's target (None: its largest logit), 0 elsewhere: the shape of the logits."""
    target = logits.argmax(-1) if target is None else target
    return jnp.broadcast_to(
        jax.nn.one_hot(target, logits.shape[-1], dtype=logits.dtype), logits.shape
    )


@dataclass(frozen=True)
class ExplainedOutput:
    """A model read at a batch and one of its outputs for each image: what is explained."""

    graph: Graph
    consts: Sequence[Any]
    seed: jax.Array  # (N, classes): 1 at each image's target

    def output(self, leaves: Sequence[jax.Array]) -> jax.Array:
        """The explained logit of each image, (N,)."""
        return (logits_of(self.graph, self.consts, leaves) * self.seed).sum(-1)

    def maps(
        self, method: Any, leaves: Sequence[jax.Array], seed: jax.Array | None = None
    ) -> list[jax.Array]:
        """The maps of a method that nests, for a seed (N, classes): by default this one's."""
        return method.maps(self if seed is None else replace(self, seed=seed), leaves)
