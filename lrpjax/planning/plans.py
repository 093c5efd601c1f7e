"""What will run, before it runs: the table of layers and rules, and its check on an input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .._base import checks
from .._base.tables import Cells, as_html, cells
from .._base.text import columns
from ..graph import Graph, Layer, decision
from ..graph.reading import Model, Source, read_at
from ..methods.lookup import resolve_chain
from ..program import calls_around
from ..propagation import refusals
from ..propagation.method import Method
from ..propagation.targets import read_for
from . import ledger
from .claims import FOLDED, Claim, tested

OPENED = " (in a custom_vjp or custom_jvp, opened)"


@dataclass(frozen=True)
class Plan:
    """The layers of a model in order, each with the rule that the method gives it.

    A function to which the model gives a derivative of its own (`jax.custom_vjp`) is opened to be
    read, and the rule says so: LRP follows what it computes, the gradient family its derivative.
    `print(plan)` shows the table; `plan.layers` are the layers; `plan.check(x)` tests it.
    """

    source: Source
    method: Method
    graph: Graph
    like: Any  # shapes and dtypes of the input

    def __reduce__(self) -> tuple:
        """A pickle of it holds the model, which is read again."""
        return plan, (self.model, self.like, self.method)

    @property
    def model(self) -> Callable:
        return self.source.model

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self.graph.layers

    @property
    def rows(self) -> list[dict[str, str]]:
        return [self._row(layer) for layer in self.layers]

    def _row(self, layer: Layer) -> dict[str, str]:
        shape = self.graph.program.shape
        return {
            "layer": layer.name,
            "kind": layer.detail.name if layer.kind == "activation" else layer.kind,
            "input": " + ".join(_dims(shape(v)) for v in layer.inputs),
            "output": " + ".join(_dims(shape(v)) for v in layer.outputs),
            "rule": self._rule(layer),
            "decision": decision(self.graph, layer),
            "source": layer.source,
        }

    def _rule(self, layer: Layer) -> str:
        found = self.method.rule_for(self.graph, layer)
        if found is not None:
            around = calls_around(self.graph.program, layer.eqns)
            return str(found) + (OPENED if any(call.foreign for call in around) else "")
        carries = refusals.carries_relevance(self.graph, layer)
        return f"NONE for {layer.primitive}" if carries else "nothing"

    def __str__(self) -> str:
        return columns(self.rows)

    def _repr_html_(self) -> str:
        return as_html(self.rows)

    def check(self, x: Any, *, target: Any = None) -> Check:
        """Tests every claim of the reading at x (see `claims`), and makes one attribution.

        x: inputs of the planned shape. target: as in `attribute`. See `Check`.
        Raises ValueError for a claim that does not hold, with the name of its layer.
        """
        reading = read_for(self.source, x, self.method)
        rules_found = refusals.rules_for(reading.graph, self.method, reading.graph.layers)
        shape = reading.graph.program.shape(reading.graph.program.outputs[0])
        checks.check_target(target, shape)
        claims = tested(reading)
        told = ledger.measured(reading, self.method, target)
        differences = [claim.difference for claim in claims if claim.what == FOLDED]
        rows = [
            {"layer": layer.name, "rule": str(rule), "forward": difference, **entry}
            for layer, rule, difference, entry in zip(
                reading.graph.layers, rules_found, differences, told.rows, strict=True
            )
        ]
        return Check(max(differences), rows, claims, told.shares, told.grew)


@dataclass(frozen=True)
class Check:
    """The result of `plan.check`.

    forward_difference: the largest difference between the folded layers, run one after the other,
    and the model's own values, relative to the largest value of the layer.
    rows: per layer its own forward difference and its ledger: the relevance of its outputs and of
    its inputs, where the rest went (the fields of `rules.Account`), and the residual, which all of
    these leave: None where the rule does not conserve. Where the method is the model's derivative
    (or that but for some layers), what is shown of an input has arrived from all that read it.
    claims: what the reading says of the model, each with what was found on the data.
    shares: where all relevance ended, see `ledger.shares`; empty where no rule conserves.
    grew: sum |R| at the input by that at the output, in the image where it is largest.
    """

    forward_difference: float
    rows: list[dict[str, Any]]
    claims: list[Claim]
    shares: dict[str, float]
    grew: float

    @property
    def unbalanced(self) -> list[str]:
        """The layers whose ledger does not add up: their rule's account is wrong, or there is too
        little precision for the relevance that cancels there."""
        return [row["layer"] for row in self.rows if row["balanced"] is False]

    def __str__(self) -> str:
        return f"{columns(self._cells())}\n\n{self._text()}"

    def _repr_html_(self) -> str:
        return as_html(self._cells(), [self._text()])

    def _cells(self) -> Cells:
        return cells([{k: v for k, v in row.items() if k != "balanced"} for row in self.rows])

    def _text(self) -> str:
        first, last = self.rows[-1]["relevance_out"], self.rows[0]["relevance_in"]
        text = (
            f"folded forward pass: largest relative difference {self.forward_difference:.1e}\n"
            f"relevance: {first:.6g} at the output, {last:.6g} at the input, "
            f"whose absolute values sum to {self.grew:.3g} times those of the output"
        )
        if self.shares:
            ended = ", ".join(f"{name} {part:.1%}" for name, part in self.shares.items())
            text += f"\nwhere it ended, by size: {ended}"
        if self.unbalanced:
            text += (
                "\nThe ledger does not add up (residual above "
                f"{ledger.RESIDUAL:.0e} of the relevance) at {', '.join(self.unbalanced)}."
            )
        return text


def plan(model: Model, x: Any, method: str | Method) -> Plan:
    """What `vjp` and `attribute` will do: a printable table of layers and rules.

    x: an input, or anything with its shape and dtype (`jax.ShapeDtypeStruct`). Layers without
    a rule are listed as such; using the plan's method on them raises.
    """
    method = resolve_chain(method, model)
    filled = jax.tree.map(_example, x)
    reading = read_at(model, filled, fold=method.fold)
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), filled
    )
    return Plan(reading.source, method, reading.graph, like)


def _example(leaf: Any) -> Any:
    is_shape = isinstance(leaf, jax.ShapeDtypeStruct)
    return jnp.zeros(leaf.shape, leaf.dtype) if is_shape else leaf


def _dims(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
