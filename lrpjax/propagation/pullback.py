"""One forward pass, and propagations of relevance as pytrees that outlive it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp

from .._base import checks, pickles
from .._base.compat import ClosedJaxpr, Literal, jaxpr_as_fun, without_values
from .._base.jaxprs import identity, needed
from ..graph import Graph
from .derivative import Relevance
from .propagations import Span, propagations
from .rule_chain import RuleChain


@partial(jax.jit, static_argnums=(0, 2, 5))
def forward(
    graph: Graph,
    method: RuleChain,
    spans: tuple[Span, ...],
    consts: list,
    leaves: list,
    as_is: bool = False,
) -> tuple[list[jax.Array], list[jax.tree_util.Partial]]:
    """The model's outputs, and for each span the map from a list of relevance at its injected
    values to the list of relevance at those it reads (zeros where none arrives).

    as_is: as in `propagations`.
    """
    program = graph.program
    env, maps = propagations(graph, method, consts, leaves, spans, as_is=as_is)
    outputs = [env[v].astype(program.avals[v].dtype) for v in program.outputs]
    return outputs, [_replay(env, *own) for own in zip(spans, maps, strict=True)]


def forward_as_it_is(
    graph: Graph, method: RuleChain, whole: Span, consts: list, leaves: list
) -> tuple[list[jax.Array], jax.tree_util.Partial]:
    """As `forward`, for a method that is `jax.vjp` of the model: `jit(jax.vjp)` to the last bit.

    XLA joins other operations where a program ends, and rounds otherwise. The map is therefore one
    program with the forward pass in it, and the outputs are of one that keeps what is needed.
    """
    outputs, (kept,) = forward(graph, method, (whole,), consts, leaves, True)
    anew = Anew(kept.func.like, graph, method, whole)
    return outputs, jax.tree_util.Partial(anew, (consts, leaves))


def _replay(env: dict[int, Any], span: Span, propagate: Callable[[Relevance], Relevance]) -> Any:
    def pull(*relevance):
        found = _sent(span, propagate, relevance)
        return [found[v] if v in found else jnp.zeros_like(env[v]) for v in span.captured]

    # As a jaxpr with its constants the map is a pytree, which jit can return and cache.
    like = [jax.ShapeDtypeStruct(env[v].shape, env[v].dtype) for v in span.injected]
    closed = jax.make_jaxpr(pull)(*like)
    return jax.tree_util.Partial(Replay(tuple(like), without_values(closed)), closed.consts)


def section(
    pull: jax.tree_util.Partial, above: int | None, below: Sequence[int]
) -> jax.tree_util.Partial | None:
    """The part of a replay from the relevance at one of its outputs (None: from all that it takes)
    to that at others, by their numbers. None where relevance reaches these also beside it."""
    replay: Any = pull.func
    (values,), jaxpr = pull.args, replay.jaxpr
    given = [*jaxpr.constvars, *jaxpr.invars]  # from JAX 0.11 on, both are the latter
    constants, inputs = given[: len(values)], given[len(values) :]
    entry = inputs if above is None else [jaxpr.outvars[above]]
    outs = [jaxpr.outvars[i] for i in below]
    if any(isinstance(v, Literal) for v in entry):
        return None
    passed = {*given, *entry}
    writes = [v for v in outs if not isinstance(v, Literal) and v not in passed]
    eqns, reads = needed(jaxpr.eqns, writes, passed)
    used = {*reads, *(v for v in outs if not isinstance(v, Literal))}
    if not used.isdisjoint(set(inputs) - set(entry)):
        return None
    kept = [(v, c) for v, c in zip(constants, values, strict=True) if v in used]
    part = jaxpr.replace(constvars=[v for v, _ in kept], invars=entry, outvars=outs, eqns=eqns)
    like = tuple(jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in entry)
    return jax.tree_util.Partial(Replay(like, part), [c for _, c in kept])


def _sent(span: Span, propagate: Callable, relevance: Sequence[jax.Array]) -> Relevance:
    """What a span makes of relevance at its injected values, of which one may stand twice."""
    seeds: Relevance = {}
    for v, r in zip(span.injected, relevance, strict=True):
        seeds[v] = seeds[v] + r if v in seeds else r
    return propagate(seeds)


class Checked:
    """A map `f(values, relevance)` that says what is wrong with relevance that it does not take.

    like: shape and dtype of the relevance it takes.
    """

    like: tuple[jax.ShapeDtypeStruct, ...]

    def __call__(self, values: Any, relevance: Sequence[Any]) -> list[jax.Array]:
        wanted = [like.shape for like in self.like]
        if [jnp.shape(r) for r in relevance] != wanted:
            raise ValueError(
                f"The relevance must have shape {_listed(wanted)}, got "
                f"{_listed([jnp.shape(r) for r in relevance])}."
            )
        if any(jnp.iscomplexobj(r) for r in relevance):
            raise TypeError("The relevance must be real numbers, got complex ones.")
        checks.check_finite([jnp.asarray(r) for r in relevance], ["the relevance"] * len(relevance))
        cast = [jnp.asarray(r, like.dtype) for r, like in zip(relevance, self.like, strict=True)]
        return self.run(values, cast)

    def run(self, values: Any, relevance: list[jax.Array]) -> list[jax.Array]:
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Replay(Checked):
    """The propagation of relevance as a jaxpr; the values are its constants.

    Equal ones do the same to the same values: what is compiled for one block of a network is for
    all that are like it.
    """

    like: tuple[jax.ShapeDtypeStruct, ...]
    jaxpr: Any

    @cached_property
    def _identity(self) -> Hashable:
        return identity(self.jaxpr)

    def __hash__(self) -> int:
        return hash(self._identity)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Replay) and self._identity == other._identity

    def __reduce__(self) -> tuple:
        return _restored, (self.like, pickles.dumps(self.jaxpr))

    def run(self, values: list[Any], relevance: list[jax.Array]) -> list[jax.Array]:
        return _evaluate(self, values, relevance)


@dataclass(frozen=True)
class Anew(Checked):
    """`jax.vjp` of the model from its start; the values are its constants and its input."""

    like: tuple[jax.ShapeDtypeStruct, ...]
    graph: Graph
    method: RuleChain
    whole: Span

    def run(self, values: tuple[list, list], relevance: list[jax.Array]) -> list[jax.Array]:
        return _vjp(self.graph, self.method, self.whole, *values, relevance)


def _restored(like: tuple[jax.ShapeDtypeStruct, ...], jaxpr: bytes) -> Replay:
    return Replay(like, pickle.loads(jaxpr))


def _listed(shapes: list[tuple]) -> str:
    return ", ".join(map(str, shapes))


@partial(jax.jit, static_argnums=0)
def _evaluate(replay, consts, relevance):
    return jaxpr_as_fun(ClosedJaxpr(replay.jaxpr, consts))(*relevance)


@partial(jax.jit, static_argnums=(0, 2))
def _vjp(graph, method, whole, consts, leaves, relevance):
    _, (pull,) = propagations(graph, method, consts, leaves, [whole], as_is=True)
    found = _sent(whole, pull, relevance)
    return [found[v] for v in whole.captured]
