"""Reading a model at an input: its graph, its constants, and every value it computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import checks
from .graph import Graph, Layer, evaluate, is_real, run, single, trace


@dataclass(frozen=True)
class Reading:
    """A model read at one input: its graph, the values of its constants, the input's leaves."""

    graph: Graph
    consts: list[Any]
    leaves: list[Any]
    x_tree: Any
    out_tree: Any


def read(model: Callable, x: Any, *, fold: bool) -> Reading:
    """Traces the model and reads its layers. Raises for inputs and weights that are not finite, and
    other constants that are NaN: a mask may hide with infinity."""
    if not callable(model):
        raise TypeError(f"The model must be a function of a batch of inputs, got {model!r}.")
    leaves, x_tree = jax.tree.flatten(x)
    leaves = [leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf) for leaf in leaves]
    checks.check_input(leaves)
    program, consts, paths, out_tree = trace(model, jax.tree.unflatten(x_tree, leaves))
    if not program.active.intersection(program.outputs):
        raise ValueError("The model's output does not depend on its input: nothing to explain.")
    # Functions are recognised by trying others, on numbers where these may be NaN.
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.debug_nans(False),
    ):
        graph = Graph(program, paths, fold=fold)
    names = [paths.get(number) or "a constant of the model" for number in program.consts]
    weights = graph.weights
    numbers = [
        jnp.asarray(c) if v in weights else _without_infinity(jnp.asarray(c))
        for v, c in zip(program.consts, consts, strict=True)
    ]
    checks.check_finite(numbers, [f"the weights {n}" for n in names])
    return Reading(graph, consts, leaves, x_tree, out_tree)


def _without_infinity(constant: jax.Array) -> jax.Array:
    if not is_real(constant) or (checks.is_concrete(constant) and not np.isinf(constant).any()):
        return constant
    return jnp.where(jnp.isinf(constant), 0, constant)


def environment(
    graph: Graph, consts: Sequence[Any], leaves: Sequence[Any], by: Callable = evaluate
) -> dict[int, Any]:
    """Every value of the program by number, half precision and integer inputs as float32.

    by: how each equation is evaluated, as by `graph.evaluate`.
    """
    program = graph.program
    numbers = [as_number(leaf) for leaf in leaves]
    env = {v: jnp.asarray(value, single(value.dtype)) for v, value in program.literals.items()}
    env |= {v: as_single(c) for v, c in zip(program.consts, consts, strict=True)}
    env |= dict(zip(program.inputs, numbers, strict=True))
    return run(program.eqns, env, by)


def as_single(value: Any) -> Any:
    """A constant in the precision that it is computed with: float32 for half precision."""
    if not hasattr(value, "dtype") or jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return value
    return jnp.asarray(value, single(value.dtype))


def as_number(leaf: Any) -> jax.Array:
    """An input as the floating-point array that relevance belongs to."""
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
    reach = {layer.place for layer in below(graph, start)}
    for name in names:
        if name != "input" and checks.find_layer(graph, name).place not in reach:
            raise ValueError(f"Relevance injected at {start!r} does not reach {name!r}.")
    layers = graph.by_name
    return [graph.program.inputs[0] if n == "input" else layers[n].outputs[0] for n in names]


def output_layer(graph: Graph) -> str:
    """The name of the layer that writes the model's (first) output."""
    output = graph.program.outputs[0]
    return next(layer.name for layer in graph.layers if output in layer.outputs)
