"""The chain of layers in a program: what each is, what it reads, what it writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np

from .activations import GATES, NON_NEGATIVE, Activation, find_activation, uniform_values
from .attention import find_norm, find_softmax, is_product
from .axes import Axes, find_axes
from .fold import SUMS, Affine, find_affine, rounds
from .names import LINEAR, assign_names
from .program import Eqn, Program, text
from .registry import REGISTERED
from .trace import INFERENCE

STRUCTURAL = set(
    "reshape transpose squeeze expand_dims broadcast_in_dim slice dynamic_slice pad "
    "concatenate split rev gather select_n convert_element_type copy copy_p reduce_precision "
    "tile stack unstack dynamic_update_slice optimization_barrier sharding_constraint name "
    "device_put real stop_gradient reshard pvary".split()
)
ADDITIONS = {"add", "sub", "add_any"}
MAXIMA = {"reduce_window_max", "reduce_max"}
_RANDOM = {"random_bits", "threefry2x32", "rng_bit_generator", "rng_uniform"}


@dataclass(frozen=True, eq=False)
class Layer:
    """One link of the chain.

    kind: conv, dense and scale are linear maps with weights; sum is a sum, a mean or an average
    pool; add joins two input-dependent values (signs +1 or -1 in `detail`); product multiplies
    two (`detail`: the number of the one that only weighs the other, or None); norm multiplies one
    by a statistic of the others; softmax; structure moves values without computing; control is a
    data-dependent branch or loop; unknown is what no kind covers (`detail`: the rule registered for
    its primitive, or None).
    inputs, outputs: the numbers of the input-dependent values that it reads and writes.
    detail: what the kind needs to be evaluated (see `ops`).
    first, last: no other linear layer lies between the input and this one, or above it.
    non_negative: its inputs cannot be negative.
    feature: the axis of its (first) input's features, or None.
    """

    kind: str
    eqns: tuple[Eqn, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    detail: Any = None
    name: str = ""
    first: bool = False
    last: bool = False
    non_negative: bool = False
    feature: int | None = None

    @property
    def primitive(self) -> str:
        return self.eqns[-1].name

    @property
    def source(self) -> str:
        return self.eqns[-1].source


class Graph:
    """A model read at one input shape: its program, its layers in order, and its axes.

    Equal graphs compute the same function of (constants, input), so compiled work is shared.
    """

    def __init__(self, program: Program, paths: dict[int, str], *, fold: bool):
        self.program, self.paths = program, paths
        self.axes: Axes = find_axes(program)
        _refuse_training_mode(program, self.axes)
        _refuse_integers(program)
        uniform = uniform_values(program)
        found = _with_weighing(_find_layers(program, uniform, fold))
        described = _describe(program, uniform, self.axes, found)
        self.layers: tuple[Layer, ...] = assign_names(program, paths, described)
        given = tuple(layer.detail for layer in self.layers if layer.kind == "unknown")
        named = tuple((layer.name, layer.kind) for layer in self.layers)
        self._key = (fold, text(program), named, given)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self._key == other._key

    @property
    def by_name(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in self.layers}


def _find_layers(program: Program, uniform: dict[int, Any], fold: bool) -> list[Layer]:
    """Walks from the outputs to the input and reads the layer that computes each value needed."""
    activation = cache(partial(find_activation, program, uniform))
    needed = [v for v in program.outputs if v in program.active]
    done = set(program.inputs)
    layers: list[Layer] = []
    while needed:
        value = needed.pop()
        if value in done:
            continue
        layer = _read(program, activation, value, fold)
        done.update(layer.outputs)
        layers.append(layer)
        needed.extend(layer.inputs)
    return sorted(layers, key=lambda layer: max(program.order[v] for v in layer.outputs))


def _read(
    program: Program, activation: Callable[[int], Activation | None], value: int, fold: bool
) -> Layer:
    if found := activation(value):
        kind, detail = ("structure", None) if found.name == "identity" else ("activation", found)
        return Layer(kind, found.eqns, (found.root,), (value,), detail)
    if affine := find_affine(program, value, fold=fold, activation=activation):
        return Layer(_affine_kind(affine), affine.eqns, (affine.root,), (value,), affine)
    eqn = program.producer[value]
    active = tuple(program.active_inputs(eqn))
    if eqn.name in ADDITIONS and len(active) == 2:
        signs = (1, -1) if eqn.name == "sub" else (1, 1)
        return Layer("add", (eqn,), active, eqn.outputs, signs)
    if eqn.name in MAXIMA:
        return Layer("max_pool", (eqn,), active, eqn.outputs)
    if softmax := find_softmax(program, value):
        return Layer("softmax", softmax.eqns, (softmax.root,), (value,), softmax)
    if norm := find_norm(program, value):
        return Layer("norm", norm.eqns, (norm.x, *norm.roots), (value,))
    if is_product(program, eqn):
        return Layer("product", (eqn,), active, eqn.outputs)
    if _moves_values(program, eqn):
        return _structure(program, eqn)
    if eqn.name in ("cond", "while"):
        return Layer("control", (eqn,), active, eqn.outputs)
    return Layer("unknown", (eqn,), active, eqn.outputs, REGISTERED.get(eqn.name))


def _with_weighing(layers: list[Layer]) -> list[Layer]:
    """Says of each product which of its two values only weighs the other: attention or a gate.

    It is what a softmax made, else what a sigmoid made (or 1 minus it, or twice it), else what any
    activation made: the first of these that is true of one and not of both.
    """
    maker = {v: layer for layer in layers for v in layer.outputs}

    def made_by(value: int, *passing: str) -> Layer | None:
        """The layer that makes a value, before those of the passing kinds."""
        layer = maker.get(value)
        while layer is not None and layer.kind in passing and len(layer.inputs) == 1:
            layer = maker.get(layer.inputs[0])
        return layer

    def is_attention(value: int) -> bool:
        made = made_by(value, "structure")
        return made is not None and made.kind == "softmax"

    def is_gate(value: int) -> bool:
        made = made_by(value, "structure", "scale")
        return made is not None and made.kind == "activation" and made.detail.name in GATES

    def is_activated(value: int) -> bool:
        made = made_by(value, "structure")
        return made is not None and made.kind == "activation"

    def weighing(layer: Layer) -> int | None:
        for weighs in (is_attention, is_gate, is_activated):
            found = [weighs(v) for v in layer.inputs]
            if found.count(True) == 1:
                return found.index(True)
        return None

    return [
        replace(layer, detail=weighing(layer)) if layer.kind == "product" else layer
        for layer in layers
    ]


def _affine_kind(affine: Affine) -> str:
    if affine.core is None:
        return "scale"
    if affine.core.name in SUMS:
        return "sum"
    return {"conv_general_dilated": "conv", "dot_general": "dense"}[affine.core.name]


def _moves_values(program: Program, eqn: Eqn) -> bool:
    if eqn.name not in STRUCTURAL or rounds(program, eqn):
        return False
    # Which value goes where must not depend on the input: no input-dependent predicate or index.
    payload = {
        "select_n": eqn.inputs[1:],
        "gather": eqn.inputs[:1],
        "dynamic_slice": eqn.inputs[:1],
        "dynamic_update_slice": eqn.inputs[:2],
        "pad": eqn.inputs[:1],
    }.get(eqn.name, eqn.inputs)
    return not any(v in program.active for v in eqn.inputs if v not in payload)


def _structure(program: Program, last: Eqn) -> Layer:
    """A run of structural equations of one scope, as far back as nothing else reads it."""
    eqns = [last]
    while len(active := program.active_inputs(eqns[-1])) == 1:
        before = program.producer.get(active[0])
        if (
            before is None
            or before.scope != last.scope
            or program.consumers[active[0]] > 1
            or len(before.outputs) > 1
            or not _moves_values(program, before)
        ):
            break
        eqns.append(before)
    return Layer("structure", tuple(eqns[::-1]), tuple(active), last.outputs)


def _describe(
    program: Program, uniform: dict[int, Any], axes: Axes, layers: list[Layer]
) -> list[Layer]:
    """Adds to each layer whether it is first or last and what is known of its inputs."""
    unsigned = [
        v for v in program.inputs if np.issubdtype(program.avals[v].dtype, np.unsignedinteger)
    ]
    positive = set(unsigned) | {v for v, x in uniform.items() if x >= 0}
    untouched = set(program.inputs)  # values that no linear layer has made
    last = _last_linear(program, layers)
    described = []
    for layer in layers:
        non_negative = all(v in positive for v in layer.inputs)
        first = layer.kind in LINEAR and untouched.issuperset(layer.inputs)
        if layer.kind not in LINEAR and untouched.issuperset(layer.inputs):
            untouched.update(layer.outputs)
        if _stays_positive(program, layer, positive, non_negative):
            positive.update(layer.outputs)
        described.append(
            replace(
                layer,
                first=first,
                last=layer.outputs in last,
                non_negative=non_negative,
                feature=axes.feature[layer.inputs[0]],
            )
        )
    return described


def _last_linear(program: Program, layers: list[Layer]) -> set[tuple[int, ...]]:
    """The linear layers, by their outputs, above which there is none."""
    above, found = set(program.outputs), set()
    for layer in reversed(layers):
        if above.isdisjoint(layer.outputs):
            continue
        if layer.kind in LINEAR:
            found.add(layer.outputs)
        else:
            above.update(layer.inputs)
    return found


def _stays_positive(program: Program, layer: Layer, positive: set[int], given: bool) -> bool:
    if layer.kind == "activation":
        return layer.detail.name in NON_NEGATIVE
    if layer.kind in ("sum", "structure"):
        own = {v for eqn in layer.eqns for v in eqn.outputs}
        indices = ("gather", "dynamic_slice", "dynamic_update_slice", "select_n")
        constants = {
            v
            for eqn in layer.eqns
            for v in (eqn.inputs if eqn.name not in indices else ())
            if v not in program.active and v not in own
        }
        steps = all(eqn.name in STRUCTURAL | SUMS | {"mul", "div", "add"} for eqn in layer.eqns)
        return given and steps and constants <= positive
    if layer.kind == "add":
        return given and layer.detail == (1, 1)
    return layer.kind == "softmax" or (layer.kind in ("max_pool", "product") and given)


def _refuse_integers(program: Program) -> None:
    """Relevance of an integer input needs a model that makes it a float before it computes."""
    whole = {v for v in program.inputs if np.issubdtype(program.avals[v].dtype, np.integer)}
    for eqn in program.eqns:
        if not whole.intersection(eqn.inputs):
            continue
        out = program.avals[eqn.outputs[0]].dtype
        if np.issubdtype(out, np.inexact):
            continue
        if not _moves_values(program, eqn) or eqn.name == "convert_element_type":
            raise TypeError(
                f"The model computes with integers that come from its input ({eqn.name} at "
                f"{eqn.source}): make the input a float before."
            )
        whole.update(eqn.outputs)


def _refuse_training_mode(program: Program, axes: Axes) -> None:
    for eqn in program.eqns:
        if eqn.name in _RANDOM:
            raise ValueError(
                f"The model draws random numbers at {eqn.source} (active dropout?): {INFERENCE}"
            )
    if axes.mixes is not None:
        raise ValueError(
            f"The model reduces over the batch axis at {axes.mixes.source} "
            f"({axes.mixes.name}; training-mode BatchNorm?), so one image's output depends on the "
            f"others: {INFERENCE}"
        )
