"""Attribution: relevance of the input, as a modified vjp and as a heat map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import jax

from . import checks
from .method import Method
from .methods import Explainer, resolve, resolve_chain
from .propagate import explain, is_vjp, piece, read_for_target
from .reading import below, read, values_at
from .replay import forward, forward_as_it_is


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
    With "gradient" it is the model's derivative as JAX has it, custom rules and ties included:
    without start and layers bit for bit `jax.jit` of `jax.vjp`, unless the model computes in half
    precision or x holds integers. Inside of a function with a derivative of its own, of which its
    rule says nothing, the relevance at a layer is that of the function's body.
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
    inner = tuple(name for name in names if name != "input")
    injected = tuple(graph.program.outputs)
    if start is not None:
        injected = (checks.find_layer(graph, start).outputs[0],)
    captured = (*graph.program.inputs, *values_at(graph, start, inner))
    whole = piece(below(graph, start), injected, captured)
    values = reading.consts, reading.leaves
    if start is None and not inner and is_vjp(graph, method):
        outputs, pull = forward_as_it_is(graph, method, whole, *values)
    else:
        outputs, (pull,) = forward(graph, method, (whole,), *values)
    checks.check_finite(outputs, ["the model's output"] * len(outputs))
    out = jax.tree.unflatten(reading.out_tree, outputs)
    shape = RelevanceMap(
        reading.out_tree if start is None else None,
        reading.x_tree,
        None if layers is None else names,
    )
    return out, jax.tree_util.Partial(shape, pull)


@dataclass(frozen=True)
class RelevanceMap:
    """Puts pytrees around a `Replay`. out_tree is None where relevance enters at one layer.

    names: of the layers whose relevance is returned too, or None for that of the input alone.
    """

    out_tree: Any
    x_tree: Any
    names: tuple[str, ...] | None

    def __call__(self, pull: Callable, relevance: Any) -> Any:
        if self.out_tree is None:
            leaves = [relevance]
        else:
            leaves, tree = jax.tree.flatten(relevance)
            if tree != self.out_tree:
                raise ValueError(f"The relevance must be a {self.out_tree}, got a {tree}.")
        found = iter(pull(leaves))
        result = jax.tree.unflatten(self.x_tree, islice(found, self.x_tree.num_leaves))
        if self.names is None:
            return result
        return result, {name: result if name == "input" else next(found) for name in self.names}


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
