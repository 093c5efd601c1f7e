"""Unique names for layers: the path of the parameter read, else the named scope, else the kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .program import Program

LINEAR = ("conv", "dense", "scale")  # the kinds of layers with weights

if TYPE_CHECKING:
    from .layers import Layer


def assign_names(
    program: Program, paths: dict[int, str], layers: Sequence[Layer]
) -> tuple[Layer, ...]:
    """The layers with their names.

    paths: the known parameters, by number. A layer with weights is named after the parameter
    it reads ("conv1" for "conv1.kernel"), an activation after the layer in front of it
    ("conv1:relu"), everything else after its `jax.named_scope` if it is alone in it.
    """
    in_scope = Counter(_scope(layer) for layer in layers if layer.kind != "activation")
    in_kind: Counter[str] = Counter()
    taken: Counter[str] = Counter({"input": 1})
    names: dict[int, str] = dict.fromkeys(program.inputs, "input")
    named = []
    for layer in layers:
        kind = layer.primitive if layer.kind in ("structure", "unknown") else layer.kind
        scope = _scope(layer)
        if layer.kind == "activation":
            name = f"{names[layer.inputs[0]]}:{layer.detail.name}"
        elif layer.kind in ("conv", "dense", "scale") and (
            path := _parameter(program, paths, layer)
        ):
            name = path.rpartition(".")[0] or path
        elif scope and in_scope[scope] == 1:
            name = scope
        else:
            prefix = f"{scope}/{kind}" if scope else kind
            in_kind[prefix] += 1
            name = f"{prefix}_{in_kind[prefix]}"
        taken[name] += 1
        if taken[name] > 1:
            name = f"{name}_{taken[name]}"
        # What only moves values keeps the name of what it moves: not "reshape_1:relu".
        moved = layer.kind == "structure" and len(layer.inputs) == 1
        names.update(dict.fromkeys(layer.outputs, names[layer.inputs[0]] if moved else name))
        named.append(replace(layer, name=name))
    return tuple(named)


def _scope(layer: Layer) -> str:
    """Of a folded layer that of its product, not of the BatchNorm behind it."""
    core = layer.detail.core if layer.kind in LINEAR else None
    return (core or layer.eqns[-1]).scope


def _parameter(program: Program, paths: dict[int, str], layer: Layer) -> str | None:
    """The path of the parameter behind a layer's weights: those of its product come first."""
    core = layer.detail.core
    eqns = [*([core] if core else []), *layer.eqns]
    queue = [v for eqn in eqns for v in eqn.inputs if v not in program.active]
    seen: set[int] = set()
    while queue:
        value = queue.pop(0)
        if paths.get(value):
            return paths[value]
        if value not in seen and (eqn := program.producer.get(value)):
            queue.extend(eqn.inputs)
        seen.add(value)
    return None
