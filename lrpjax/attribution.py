"""Attribution: relevance of the input, as a modified vjp and as a heat map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from . import checks
from ._compat import ClosedJaxpr, jaxpr_as_fun
from .method import Method
from .methods import Explainer, resolve, resolve_chain
from .propagate import Relevance, chain, explain, read_for_target
from .reading import below, environment, read, values_at


def vjp(
    model: Callable,
    x: Any,
    method: str | Method,
    *,
    start: str | None = None,
    layers: Sequence[str] | None = None,
) -> tuple[Any, Callable]:
    """The model's output and the map from relevance of the output to relevance of the input.

    model: a callable from a batch (N, ...) to outputs of any shape. x: its input, any pytree.
    start: inject at the output of this layer instead of at the model's output.
    layers: names of layers ("input" is x itself); the map then returns (R_in, {name: R}) with
    the relevance at each layer's output.
    The map takes relevance of the shape of the output (or of the layer `start`) and returns
    relevance of x's structure, in float32 where the model computes in half precision. Like
    the second result of `jax.vjp` it is a pytree: jit may return it, vmap may batch it.
    Raises NotImplementedError for a layer without a rule, ValueError for unknown names, input
    or weights that are not finite, or a model in training mode.
    """
    method = resolve_chain(method, model)
    reading = read(model, x, fold=method.fold)
    graph = reading.graph
    if isinstance(layers, str):
        raise TypeError(f"layers is a list of names: use layers=[{layers!r}].")
    names = tuple(dict.fromkeys(layers or ()))
    values_at(graph, start, names)
    checks.check_range(reading.leaves, method)
    checks.rules_for(graph, method, below(graph, start))
    outputs, pull = _forward(graph, method, start, names, reading.consts, reading.leaves)
    checks.check_finite(outputs, ["the model's output"] * len(outputs))
    out = jax.tree.unflatten(reading.out_tree, outputs)
    shape = RelevanceMap(
        reading.out_tree if start is None else None, reading.x_tree, layers is not None
    )
    return out, jax.tree_util.Partial(shape, pull)


@partial(jax.jit, static_argnums=(0, 2, 3))
def _forward(graph, method, start, names, consts, leaves):
    program = graph.program
    env = environment(graph, consts, leaves)
    propagate = chain(graph, method, env, below(graph, start))
    if start is None:
        injected = list(program.outputs)
    else:
        injected = [checks.find_layer(graph, start).outputs[0]]
    captured = values_at(graph, start, [n for n in names if n != "input"])

    def pull(*relevance):
        seeds: Relevance = {}
        for v, r in zip(injected, relevance, strict=True):
            seeds[v] = seeds[v] + r if v in seeds else r
        found = propagate(seeds)
        at = lambda v: found.get(v, jnp.zeros_like(env[v]))
        return list(map(at, program.inputs)), list(map(at, captured))

    # As a jaxpr with its constants the map is a pytree, which jit can return and cache.
    like = [jax.ShapeDtypeStruct(env[v].shape, env[v].dtype) for v in injected]
    closed, shapes = jax.make_jaxpr(pull, return_shape=True)(*like)
    replay = Replay(closed.jaxpr, jax.tree.structure(shapes), tuple(like), names)
    outputs = [env[v].astype(program.avals[v].dtype) for v in program.outputs]
    return outputs, jax.tree_util.Partial(replay, closed.consts)


@dataclass(frozen=True, eq=False)
class Replay:
    """The propagation of relevance as a jaxpr: `replay(consts, relevance)`."""

    jaxpr: Any
    tree: Any
    like: tuple[jax.ShapeDtypeStruct, ...]
    names: tuple[str, ...]

    def __call__(self, consts: list[Any], relevance: list[jax.Array]) -> tuple[list, dict]:
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
        read_out, captured = jax.tree.unflatten(self.tree, _evaluate(self.jaxpr, consts, cast))
        named = iter(captured)
        return read_out, {n: read_out if n == "input" else next(named) for n in self.names}


def _listed(shapes: list[tuple]) -> str:
    return ", ".join(map(str, shapes))


@partial(jax.jit, static_argnums=0)
def _evaluate(jaxpr, consts, relevance):
    return jaxpr_as_fun(ClosedJaxpr(jaxpr, consts))(*relevance)


@dataclass(frozen=True)
class RelevanceMap:
    """Puts pytrees around a `Replay`. out_tree is None where relevance enters at one layer."""

    out_tree: Any
    x_tree: Any
    captures: bool

    def __call__(self, pull: Callable, relevance: Any) -> Any:
        if self.out_tree is None:
            leaves = [relevance]
        else:
            leaves, tree = jax.tree.flatten(relevance)
            if tree != self.out_tree:
                raise ValueError(f"The relevance must be a {self.out_tree}, got a {tree}.")
        read_out, captured = pull(leaves)
        result = jax.tree.unflatten(self.x_tree, read_out)
        if "input" in captured:
            captured["input"] = result
        return (result, captured) if self.captures else result


def attribute(model: Callable, x: Any, method: str | Explainer, *, target: Any = None) -> Any:
    """The relevance of the input for one class: the heat map, of x's structure and shape.

    model: a callable from (N, ...) to (N, classes). target: a class, N classes, or None for
    each image's largest logit. The method says what propagation starts from: the logit or 1.
    Raises as `vjp` does, and ValueError for outputs of another shape or a target out of range.
    """
    method = resolve(method, model)
    if not isinstance(method, Method):
        return method.attribute(model, x, target=target)
    reading = read_for_target(model, x, method, target)
    logits, maps = explain(reading.graph, method, reading.consts, reading.leaves, target)
    checks.check_finite([logits], ["the model's output"])
    return jax.tree.unflatten(reading.x_tree, maps)
