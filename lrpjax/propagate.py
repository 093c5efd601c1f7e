"""Relevance propagation: the chain of rules as a modified vjp."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from . import checks
from ._compat import ClosedJaxpr, jaxpr_as_fun
from .graph import Graph, Layer, bare, make_op, run, single, trace, tupled
from .methods import Method, resolve

Relevance = dict[int, jax.Array]  # by the number of the value it belongs to


@dataclass(frozen=True)
class Reading:
    """A model read at one input: its graph, the values of its constants, the input's leaves."""

    graph: Graph
    consts: list[Any]
    leaves: list[Any]
    x_tree: Any
    out_tree: Any


def read(model: Callable, x: Any, *, fold: bool) -> Reading:
    """Traces the model and reads its layers. Raises for inputs and weights that are not finite."""
    if not callable(model):
        raise TypeError(f"The model must be a function of a batch of inputs, got {model!r}.")
    leaves, x_tree = jax.tree.flatten(x)
    leaves = [leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf) for leaf in leaves]
    checks.check_input(leaves)
    program, consts, paths, out_tree = trace(model, jax.tree.unflatten(x_tree, leaves))
    if not program.active.intersection(program.outputs):
        raise ValueError("The model's output does not depend on its input: nothing to explain.")
    names = [paths.get(number, "a constant of the model") for number in program.consts]
    checks.check_finite([jnp.asarray(c) for c in consts], [f"the weights {n}" for n in names])
    return Reading(Graph(program, paths, fold=fold), consts, leaves, x_tree, out_tree)


def environment(graph: Graph, consts: Sequence[Any], leaves: Sequence[Any]) -> dict[int, Any]:
    """Every value of the program by number, half precision and integer inputs as float32."""
    program = graph.program
    numbers = [_number(leaf) for leaf in leaves]
    env = {v: jnp.asarray(value, single(value.dtype)) for v, value in program.literals.items()}
    env |= {v: _single(c) for v, c in zip(program.consts, consts, strict=True)}
    env |= dict(zip(program.inputs, numbers, strict=True))
    return run(program.eqns, env)


def _single(value: Any) -> Any:
    if not hasattr(value, "dtype") or jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return value
    return jnp.asarray(value, single(value.dtype))


def _number(leaf: Any) -> jax.Array:
    leaf = jnp.asarray(leaf)
    is_float = jnp.issubdtype(leaf.dtype, jnp.floating)
    return leaf.astype(single(leaf.dtype) if is_float else jnp.float32)


def below(graph: Graph, start: str | None) -> tuple[Layer, ...]:
    """The layers that relevance injected at the output of layer `start` can reach, in order."""
    wanted = set(graph.program.outputs)
    if start is not None:
        wanted = {checks.find_layer(graph, start).outputs[0]}
    kept = []
    for layer in reversed(graph.layers):
        if wanted.intersection(layer.outputs):
            kept.append(layer)
            wanted.update(layer.inputs)
    return tuple(kept[::-1])


def values_at(graph: Graph, start: str | None, names: Sequence[str]) -> list[int]:
    """The values that these layers write ("input" is the model's), by number.

    Raises ValueError for a layer that relevance injected at `start` does not reach.
    """
    reach = {layer.name for layer in below(graph, start)}
    for name in names:
        if name != "input" and checks.find_layer(graph, name).name not in reach:
            raise ValueError(f"Relevance injected at {start!r} does not reach {name!r}.")
    layers = graph.by_name
    return [graph.program.inputs[0] if n == "input" else layers[n].outputs[0] for n in names]


def chain(
    graph: Graph, method: Method, env: dict[int, Any], layers: Sequence[Layer]
) -> Callable[[Relevance], Relevance]:
    """The composition of the layers' rules: from relevance at some values to relevance at every
    value below them. All that does not depend on relevance is computed here, once."""
    rules = checks.rules_for(graph, method, layers)
    stages = []
    for layer, rule in zip(layers, rules, strict=True):
        inputs = [env[v] for v in layer.inputs]
        outputs = [env[v] for v in layer.outputs]
        like = [jax.ShapeDtypeStruct(o.shape, o.dtype) for o in outputs]
        stages.append(
            (layer, rule(make_op(graph.program, layer, env), *inputs, bare(outputs)), like)
        )

    def propagate(relevance: Relevance) -> Relevance:
        relevance = dict(relevance)
        for layer, pull, like in reversed(stages):
            if not any(v in relevance for v in layer.outputs):
                continue
            pulled = pull(
                bare(
                    relevance[v] if v in relevance else jnp.zeros(out.shape, out.dtype)
                    for v, out in zip(layer.outputs, like, strict=True)
                )
            )
            for v, r in zip(layer.inputs, tupled(pulled), strict=True):
                relevance[v] = relevance[v] + r if v in relevance else r
        return relevance

    return propagate


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
    method = resolve(method, model)
    reading = read(model, x, fold=method.fold)
    graph = reading.graph
    if isinstance(layers, str):
        raise TypeError(f"layers is a list of names: use layers=[{layers!r}].")
    names = tuple(dict.fromkeys(layers or ()))
    values_at(graph, start, names)
    checks.rules_for(graph, method, below(graph, start))
    outputs, pull = _forward(graph, method, start, names, reading.consts, reading.leaves)
    checks.check_finite(outputs, ["the model's output"] * len(outputs))
    out = jax.tree.unflatten(reading.out_tree, outputs)
    shape = RelevanceMap(
        reading.out_tree if start is None else None, reading.x_tree, layers is not None
    )
    return out, jax.tree_util.Partial(shape, pull)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
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
        read_out = [
            found.get(v, jnp.zeros_like(env[v])) * (env[v] if method.times_input else 1)
            for v in program.inputs
        ]
        return read_out, [found[v] for v in captured]

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


def attribute(model: Callable, x: Any, method: str | Method, *, target: Any = None) -> Any:
    """The relevance of the input for one class: the heat map, of x's structure and shape.

    model: a callable from (N, ...) to (N, classes). target: a class, N classes, or None for
    each image's largest logit. The method says what propagation starts from: the logit or 1.
    Raises as `vjp` does, and ValueError for outputs of another shape or a target out of range.
    """
    method = resolve(method, model)
    reading = read(model, x, fold=method.fold)
    graph, program = reading.graph, reading.graph.program
    if reading.out_tree.num_leaves != 1:
        raise ValueError(
            f"A target needs one output (N, classes), this model returns {reading.out_tree}."
        )
    checks.check_target(target, program.shape(program.outputs[0]))
    checks.rules_for(graph, method, below(graph, None))
    if checks.ends_in_softmax(graph):
        warnings.warn(
            "The model ends in softmax: its maps explain probabilities, which depend on every "
            "class. To explain one logit pass the model without its last activation.",
            stacklevel=2,
        )
    logits, read_out = _attribute(graph, method, reading.consts, reading.leaves, target)
    checks.check_finite([logits], ["the model's output"])
    return jax.tree.unflatten(reading.x_tree, read_out)


@partial(jax.jit, static_argnums=(0, 1))
def _attribute(graph, method, consts, leaves, target):
    (logits,), pull = _forward(graph, method, None, (), consts, leaves)
    logits = logits.astype(single(logits.dtype))
    read_out, _ = pull([start_relevance(method, logits, target)])
    return logits, read_out


def start_relevance(method: Method, logits: jax.Array, target: Any) -> jax.Array:
    """The method's start at each image's target (None: its largest logit), 0 elsewhere."""
    target = logits.argmax(-1) if target is None else target
    seed = jax.nn.one_hot(target, logits.shape[-1], dtype=logits.dtype)
    seed = jnp.broadcast_to(seed, logits.shape)
    return seed * logits if method.start == "logit" else seed
