"""Unique names for layers: the path of the parameter read, else the named scope, else the kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ..program.program import Program
from .kinds import KINDS
from .layer import Layer


def assign_names(
    program: Program, paths: dict[int, str], layers: Sequence[Layer]
) -> tuple[Layer, ...]:
    """The layers with their names, each another.

    paths: the known parameters, by number. A layer with weights is named after the parameter
    it reads ("conv1" for "conv1.kernel"), an activation after the layer in front of it
    ("conv1:relu"), everything else after its `jax.named_scope` if it is alone in it. The name of a
    parameter or scope is its first layer's; further uses have the first number that is free.
    """
    of_parameters = _of_parameters(program, paths, layers)
    wanted = of_parameters | _of_scopes(layers, set(of_parameters))
    taken, reserved = {"input"}, {"input", *wanted.values()}
    given: dict[int, str] = {}
    for place, base in wanted.items():  # a parameter's own name comes before a scope's
        given[place] = base if base not in taken else _free(base, reserved)
        taken.add(given[place])
        reserved.add(given[place])
    of_value: dict[int, str] = dict.fromkeys(program.inputs, "input")
    named = []
    for place, layer in enumerate(layers):
        before = of_value[layer.inputs[0]]
        if place not in given:
            base = f"{before}:{layer.detail.name}"
            given[place] = base if base not in reserved else _free(base, reserved)
            reserved.add(given[place])
        name = given[place]
        # What only moves values keeps the name of what it moves: not "reshape_1:relu".
        moved = layer.kind == "structure" and len(layer.inputs) == 1
        of_value.update(dict.fromkeys(layer.outputs, before if moved else name))
        named.append(replace(layer, name=name, place=place))
    if len({layer.name for layer in named}) != len(named):
        raise AssertionError("Two layers have one name.")
    return tuple(named)


def _free(base: str, reserved: set[str]) -> str:
    """The base with the first number, from 2, with which no layer is named or wants to be."""
    number = 2
    while f"{base}_{number}" in reserved:
        number += 1
    return f"{base}_{number}"


def _of_parameters(
    program: Program, paths: dict[int, str], layers: Sequence[Layer]
) -> dict[int, str]:
    """The names of the layers that read a known parameter, by place."""
    found = {}
    for place, layer in enumerate(layers):
        named = KINDS[layer.kind].named_after == "parameter"
        if named and (path := _parameter(program, paths, layer)):
            found[place] = path.rpartition(".")[0] or path
    return found


def _of_scopes(layers: Sequence[Layer], named: set[int]) -> dict[int, str]:
    """The names of all others but activations: of their scope, else of their kind with a number."""
    in_scope = Counter(_scope(layer) for layer in layers if layer.kind != "activation")
    in_kind: Counter[str] = Counter()
    found = {}
    for place, layer in enumerate(layers):
        if place in named or KINDS[layer.kind].named_after == "value":
            continue
        scope = _scope(layer)
        if scope and in_scope[scope] == 1:
            found[place] = scope
            continue
        by_primitive = layer.kind in ("structure", "unknown", "transform")
        kind = layer.primitive if by_primitive else layer.kind
        prefix = f"{scope}/{kind}" if scope else kind
        in_kind[prefix] += 1
        found[place] = f"{prefix}_{in_kind[prefix]}"
    return found


def _scope(layer: Layer) -> str:
    """Of a folded layer that of its product, not of the BatchNorm behind it."""
    core = layer.detail.core if KINDS[layer.kind].linear else None
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
