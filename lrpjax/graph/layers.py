"""A model as a graph of named layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..program import primitives
from ..program.axes import Axes, find_axes
from ..program.program import Program, constants_behind, text
from ..program.trace import INFERENCE
from ..program.uniform import uniform_values
from .kinds import KINDS
from .layer import Layer
from .names import assign_names
from .positions import describe
from .recognition import find_layers, moves_values


class Graph:
    """A model read at one input shape: its program, its layers in order, and its axes.

    paths: the path of each constant that is a known parameter. uniform: the constants that are one
    number everywhere, as scalars.
    Equal graphs compute the same function of (constants, input), so compiled work is shared.
    """

    def __init__(self, program: Program, paths: dict[int, str], *, fold: bool):
        self.program, self.paths = program, paths
        self.axes: Axes = find_axes(program)
        _refuse_training_mode(program)
        _refuse_mixing(self.axes)
        _refuse_integers(program)
        self.uniform = uniform_values(program)
        found = find_layers(program, self.uniform, fold=fold)
        described = describe(program, self.uniform, self.axes, found)
        self.layers: tuple[Layer, ...] = assign_names(program, paths, described)
        given = tuple(layer.detail for layer in self.layers if layer.kind == "unknown")
        named = tuple((layer.name, layer.kind) for layer in self.layers)
        self._key = (fold, text(program), named, given, tuple(sorted(program.fixed)))
        self._answers: dict[Any, dict[int, Any]] = {}

    def asked(self, composite: Callable[[Layer], Any], layer: Layer) -> Any:
        """composite(layer), which is called once for each layer."""
        known = self._answers.setdefault(composite, {})
        if layer.place not in known:
            known[layer.place] = composite(layer)
        return known[layer.place]

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self._key == other._key

    @property
    def weights(self) -> set[int]:
        """The program's constants that layers multiply values with, by number."""
        cores = [layer.detail.core for layer in self.layers if KINDS[layer.kind].linear]
        active = self.program.active
        return constants_behind(
            self.program, {v for core in cores if core for v in core.inputs if v not in active}
        )

    def name_of(self, value: int) -> str:
        """The name of the layer that writes a value; "input" for one of the model's."""
        return next((layer.name for layer in self.layers if value in layer.outputs), "input")

    @property
    def by_name(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in self.layers}


def _refuse_integers(program: Program) -> None:
    """Relevance of an integer input needs a model that makes it a float before it computes."""
    whole = {v for v in program.inputs if np.issubdtype(program.avals[v].dtype, np.integer)}
    for eqn in program.eqns:
        if not whole.intersection(eqn.inputs):
            continue
        out = program.avals[eqn.outputs[0]].dtype
        if np.issubdtype(out, np.inexact):
            continue
        if not moves_values(program, eqn) or eqn.name == "convert_element_type":
            raise TypeError(
                f"The model computes with integers that come from its input ({eqn.name} at "
                f"{eqn.source}): make the input a float before."
            )
        whole.update(eqn.outputs)


def _refuse_training_mode(program: Program) -> None:
    for eqn in program.eqns:
        if primitives.of(eqn.name).role == "random":
            raise ValueError(
                f"The model draws random numbers at {eqn.source} (active dropout?): {INFERENCE}"
            )


def _refuse_mixing(axes: Axes) -> None:
    if axes.mixes is None:
        return
    eqn = axes.mixes.eqn
    if axes.mixes.is_statistic:
        raise ValueError(
            f"The model reduces over the batch axis at {eqn.source} "
            f"({eqn.name}; training-mode BatchNorm?), so one image's output depends on the "
            f"others: {INFERENCE}"
        )
    raise ValueError(
        f"The outputs of one example depend on others: {eqn.name} at {eqn.source} works along the "
        "batch, the first axis of the input; keep the examples apart, as jax.vmap does with a "
        "model of one example, or give a single example as x[None]."
    )
