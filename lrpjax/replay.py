"""One forward pass, and propagations of relevance as pytrees that outlive it."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from . import _pickles, checks
from ._compat import ClosedJaxpr, jaxpr_as_fun
from .graph import Graph, Layer
from .method import Method
from .propagate import Relevance, Sums, chain, values_for


@dataclass(frozen=True)
class Piece:
    """A part of a chain: the layers that relevance passes (by name, so that equal readings have
    equal pieces), the values at which it is injected, and those at which it is read."""

    layers: tuple[str, ...]
    injected: tuple[int, ...]
    captured: tuple[int, ...]


def piece(layers: Sequence[Layer], injected: Sequence[int], captured: Sequence[int]) -> Piece:
    return Piece(tuple(layer.name for layer in layers), tuple(injected), tuple(captured))


@partial(jax.jit, static_argnums=(0, 2))
def forward(
    graph: Graph, method: Method, pieces: tuple[Piece, ...], consts: list, leaves: list
) -> tuple[list[jax.Array], list[jax.tree_util.Partial]]:
    """The model's outputs, and for each piece the map from a list of relevance at its injected
    values to the list of relevance at those it reads (zeros where none arrives)."""
    program = graph.program
    passed = {name for piece in pieces for name in piece.layers}
    layers = [layer for layer in graph.layers if layer.name in passed]
    env, sums = values_for(graph, method, consts, leaves, layers)
    outputs = [env[v].astype(program.avals[v].dtype) for v in program.outputs]
    return outputs, [_replay(graph, method, env, sums, piece) for piece in pieces]


def _replay(graph: Graph, method: Method, env: dict[int, Any], sums: Sums, piece: Piece) -> Any:
    layers = graph.by_name
    propagate = chain(graph, method, env, [layers[name] for name in piece.layers], sums)

    def pull(*relevance):
        seeds: Relevance = {}
        for v, r in zip(piece.injected, relevance, strict=True):
            seeds[v] = seeds[v] + r if v in seeds else r
        found = propagate(seeds)
        return [found.get(v, jnp.zeros_like(env[v])) for v in piece.captured]

    # As a jaxpr with its constants the map is a pytree, which jit can return and cache.
    like = [jax.ShapeDtypeStruct(env[v].shape, env[v].dtype) for v in piece.injected]
    closed = jax.make_jaxpr(pull)(*like)
    return jax.tree_util.Partial(Replay(closed.jaxpr, tuple(like)), closed.consts)


@dataclass(frozen=True, eq=False)
class Replay:
    """The propagation of relevance as a jaxpr: `replay(consts, relevance)`.

    like: shape and dtype of the relevance it takes.
    """

    jaxpr: Any
    like: tuple[jax.ShapeDtypeStruct, ...]

    def __reduce__(self) -> tuple:
        return _restored, (_pickles.dumps(self.jaxpr), self.like)

    def __call__(self, consts: list[Any], relevance: Sequence[Any]) -> list[jax.Array]:
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
        return _evaluate(self.jaxpr, consts, cast)


def _restored(jaxpr: bytes, like: tuple[jax.ShapeDtypeStruct, ...]) -> Replay:
    return Replay(pickle.loads(jaxpr), like)


def _listed(shapes: list[tuple]) -> str:
    return ", ".join(map(str, shapes))


@partial(jax.jit, static_argnums=0)
def _evaluate(jaxpr, consts, relevance):
    return jaxpr_as_fun(ClosedJaxpr(jaxpr, consts))(*relevance)
