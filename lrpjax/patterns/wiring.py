"""Which outputs of one linear layer are which inputs of the next.

Numbers in the place of values are pushed through what lies between the two, so that no layout has
to be guessed: a flatten, a transpose or a channel shuffle moves them as it moves values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ..graph.kinds import KINDS
from ..graph.layer import Layer
from ..graph.layers import Graph
from ..layers.ops import Linear
from ..program.program import run
from .kernels import input_labels, is_stack, label_outputs


@partial(
    jax.tree_util.register_dataclass, data_fields=["feature", "places"], meta_fields=["before"]
)
@dataclass(frozen=True)
class Wiring:
    """What each row of a layer's `kernel` reads.

    before: the layer with weights whose outputs come here through passing layers alone, or None.
    feature: the number, from 1, of a column of that layer's kernel or, where there is none, of a
    feature of the map that the input was flattened from; None if no axis is known to be features.
    places: the position on this map, from 1, along each of its other axes; none for a stack of
    products, whose inputs are apart in any case.
    A number 0 is padding.
    """

    before: str | None
    feature: jax.Array | None
    places: tuple[jax.Array, ...]


def wiring(graph: Graph, env: Mapping[int, Any], op: Linear, ops: Mapping[str, Linear]) -> Wiring:
    """What the layer `op` reads. ops: the layers with weights, by name.

    env: every value of the program. Under `jax.jit` only constants among them are computed.
    """
    source, between = _passed(graph, op.layer)
    moves: list[tuple[Layer, int]] = []  # behind the map: they only move values
    while between and between[-1][0].kind == "structure":
        moves.insert(0, between.pop())
    value = moves[0][0].inputs[0] if moves else op.layer.inputs[0]
    shape, features = env[value].shape, graph.axes.features[value]

    numbers = None
    before = source.name if source is not None and source.name in ops else None
    if before is not None:
        numbers = label_outputs(ops[before])
        for layer, out in between:
            numbers = None if numbers is None else _through(graph, env, layer, out, numbers)
    if numbers is None:
        before = None
        numbers = _numbered(env[value], features) if features else None
    others = set(range(len(shape))) - {*features, graph.axes.batch[value]}
    if not features or is_stack(op):
        others = set()
    places = [_numbered(env[value], (i,)) for i in sorted(others)]

    def arrive(labels: jax.Array) -> jax.Array:
        for layer, out in moves:
            labels = run(layer.eqns, {**env, layer.inputs[0]: labels})[out]
        return input_labels(op, labels)

    feature = None if numbers is None else arrive(numbers)
    return Wiring(before, feature, tuple(map(arrive, places)))


def _passed(graph: Graph, layer: Layer) -> tuple[Layer | None, list[tuple[Layer, int]]]:
    """The layers in front that pass features on one by one, each with the value it hands on.

    Before them, what does not: a layer with weights, one that joins paths, or None for the input.
    """
    made = {value: layer for layer in graph.layers for value in layer.outputs}
    value = layer.inputs[0]
    passed: list[tuple[Layer, int]] = []
    while (maker := made.get(value)) is not None and _passes(maker):
        passed.insert(0, (maker, value))
        (value,) = maker.inputs
    return maker, passed


def _passes(layer: Layer) -> bool:
    if layer.kind == "sum" and layer.detail.core.name == "cumsum":
        return False
    return len(layer.inputs) == 1 and KINDS[layer.kind].passes


def _through(
    graph: Graph, env: Mapping[int, Any], layer: Layer, out: int, labels: jax.Array
) -> jax.Array | None:
    """Labels of features behind a passing layer; None where it mixes features."""
    if layer.kind == "activation":
        return labels
    if layer.kind == "structure":
        return run(layer.eqns, {**env, layer.inputs[0]: labels})[out]
    before, after = graph.axes.feature[layer.inputs[0]], graph.axes.feature[out]
    core = layer.detail.core if layer.kind == "sum" else layer.eqns[-1]
    window = core.params.get("window_dimensions")
    if before is None or after is None or (window and window[before] > 1):
        return None
    vector = jnp.moveaxis(labels, before, -1)[tuple(n // 2 for n in _without(labels, before))]
    return _spread(vector, env[out].shape, after)


def _without(array: jax.Array, axis: int) -> tuple[int, ...]:
    return array.shape[:axis] + array.shape[axis + 1 :]


def _numbered(like: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """1, 2, 3, ... along some axes together."""
    shape = [n if i in axes else 1 for i, n in enumerate(like.shape)]
    numbers = jnp.arange(1, 1 + math.prod(shape), dtype=like.dtype)
    return jnp.broadcast_to(numbers.reshape(shape), like.shape)


def _spread(vector: jax.Array, shape: tuple[int, ...], axis: int) -> jax.Array:
    return jnp.broadcast_to(vector.reshape([-1] + [1] * (len(shape) - axis - 1)), shape)
