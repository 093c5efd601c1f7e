"""What will run, before it runs: the table of layers and rules, and its check on an input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from . import checks
from ._text import columns
from .baselines import rows_of
from .claims import FOLDED, Claim, tested
from .graph import Graph, Layer, Linear, bare, calls_around, decision, scaled
from .method import Method
from .methods import resolve_chain
from .propagate import (
    Chain,
    Stage,
    one_hot,
    piece,
    propagations,
    read_for,
    start_relevance,
)
from .reading import environment, read

OPENED = " (in a custom_vjp or custom_jvp, opened)"


@dataclass(frozen=True)
class Plan:
    """The layers of a model in order, each with the rule that the method gives it.

    A function to which the model gives a derivative of its own (`jax.custom_vjp`) is opened to be
    read, and the rule says so: LRP follows what it computes, the gradient family its derivative.
    `print(plan)` shows the table; `plan.layers` are the layers; `plan.check(x)` tests it.
    """

    model: Callable
    method: Method
    graph: Graph
    like: Any  # shapes and dtypes of the input

    def __reduce__(self) -> tuple:
        """A pickle of it holds the model, which is read again."""
        return plan, (self.model, self.like, self.method)

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
        found = self.method.rule_for(layer)
        if found is not None:
            around = calls_around(self.graph.program, layer.eqns)
            return str(found) + (OPENED if any(call.foreign for call in around) else "")
        carries = checks.carries_relevance(self.graph, layer)
        return f"NONE for {layer.primitive}" if carries else "nothing"

    def __str__(self) -> str:
        return columns(self.rows)

    def check(self, x: Any, *, target: Any = None) -> Check:
        """Tests every claim of the reading at x (see `claims`), and makes one attribution.

        x: inputs of the planned shape. target: as in `attribute`. See `Check`.
        Raises ValueError for a claim that does not hold, with the name of its layer.
        """
        reading = read_for(self.model, x, self.method)
        rules_found = checks.rules_for(reading.graph, self.method, reading.graph.layers)
        shape = reading.graph.program.shape(reading.graph.program.outputs[0])
        checks.check_target(target, shape)
        claims = tested(self.model, reading)
        ledger = _check(reading.graph, self.method, reading.consts, reading.leaves, target)
        differences = [claim.difference for claim in claims if claim.what == FOLDED]
        rows = [
            {
                "layer": layer.name,
                "rule": str(rule),
                "forward": difference,
                **dict(zip(_LEDGER, map(float, entry), strict=True)),
            }
            for layer, rule, difference, entry in zip(
                reading.graph.layers, rules_found, differences, ledger, strict=True
            )
        ]
        return Check(max(differences), rows, claims)


_LEDGER = ("relevance_out", "relevance_in", "bias", "stabiliser", "dropped")


@dataclass(frozen=True)
class Check:
    """The result of `plan.check`.

    forward_difference: the largest difference between the folded layers, run one after the other,
    and the model's own values, relative to the largest value of the layer.
    rows: per layer its own forward difference and its ledger: the relevance of its outputs and
    of its inputs, and where the deficit went: to the bias, to the stabiliser (each has its share of
    the denominator, as the inputs have), or dropped (an output without contributions of the sign
    the rule distributes over, a ReLU, a gradient). Where the method is the model's derivative (or
    that but for some layers), what is shown of an input has arrived there from all that read it.
    claims: what the reading says of the model, each with what was found on the data.
    """

    forward_difference: float
    rows: list[dict[str, Any]]
    claims: list[Claim]

    def __str__(self) -> str:
        shown = [
            {k: v if isinstance(v, str) else f"{v:.3g}" for k, v in row.items()}
            for row in self.rows
        ]
        first, last = self.rows[-1]["relevance_out"], self.rows[0]["relevance_in"]
        return (
            f"{columns(shown)}\n\n"
            f"folded forward pass: largest relative difference {self.forward_difference:.1e}\n"
            f"relevance: {first:.6g} at the output, {last:.6g} at the input"
        )


def plan(model: Callable, x: Any, method: str | Method) -> Plan:
    """What `vjp` and `attribute` will do: a printable table of layers and rules.

    x: an input, or anything with its shape and dtype (`jax.ShapeDtypeStruct`). Layers without
    a rule are listed as such; using the plan's method on them raises.
    """
    method = resolve_chain(method, model)
    filled = jax.tree.map(_example, x)
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), filled
    )
    return Plan(model, method, read(model, filled, fold=method.fold).graph, like)


def _example(leaf: Any) -> Any:
    is_shape = isinstance(leaf, jax.ShapeDtypeStruct)
    return jnp.zeros(leaf.shape, leaf.dtype) if is_shape else leaf


@partial(jax.jit, static_argnums=0)
def _check(graph: Graph, method: Method, consts: list, leaves: list, target: Any):
    env = environment(graph, consts, leaves)
    ledger = lambda baseline: _ledger(graph, method, env, target, baseline)
    if method.derivative:
        return _arrived(graph, method, consts, leaves, env, target)
    if method.baseline is None:
        return ledger(None)
    baselines = rows_of(method.baseline, [env[v] for v in graph.program.inputs])
    return jax.tree.map(lambda r: r.mean(0), jax.lax.map(ledger, baselines))


def _arrived(
    graph: Graph, method: Method, consts: list, leaves: list, env: dict[int, Any], target: Any
) -> list:
    """Per layer what has arrived at its outputs and inputs: a derivative is not taken in steps."""
    output = graph.program.outputs[0]
    values = dict.fromkeys(v for a in graph.layers for v in (*a.outputs, *a.inputs))
    whole = piece(graph.layers, [output], tuple(values))
    _, (propagate,) = propagations(graph, method, consts, leaves, [whole])
    seed = start_relevance(method, env[output], one_hot(target, env[output]))
    found = propagate({output: seed})
    none = jnp.zeros(())
    rows = []
    for layer in graph.layers:
        total_out, total_in = (
            _total([found[v] for v in values]) for values in (layer.outputs, layer.inputs)
        )
        rows.append((total_out, total_in, none, none, total_out - total_in))
    return rows


def _ledger(graph: Graph, method: Method, env: dict[int, Any], target: Any, baseline: Any) -> list:
    """Per layer: relevance out and in, and the deficit by where it went; see `Check`."""
    links = Chain(graph, method, env, graph.layers, baseline)
    output = graph.program.outputs[0]
    seed = start_relevance(method, env[output], one_hot(target, env[output]))
    travelling = links.start({output: seed})
    ledger = []
    for stage in reversed(links.stages):
        layer = stage.layer
        outs = links.arriving(stage, travelling)
        pulled = links.pulled(stage, outs)
        links.send(travelling, layer.inputs, pulled)
        total = lambda values, maps: _total(
            [links.read_out(v, m) for v, m in zip(values, maps, strict=True) if m is not None]
        )
        total_out, total_in = total(layer.outputs, outs), total(layer.inputs, pulled)
        deficit, op = total_out - total_in, stage.op
        lost = bias = jnp.zeros(())
        if not isinstance(op, Linear) or op.b is None or baseline is not None:
            lost = deficit if stage.rule.facts.stabilises else lost
        elif stage.rule.facts.stabilises:
            lost = total_out - _unchanged(stage, env)(bare(outs)).sum()
            bias = deficit - lost
        elif stage.rule.facts.conserves:
            bias = _without_bias(stage, op, env)(bare(outs)).sum() - _total(pulled)
        ledger.append((total_out, total_in, bias, lost, deficit - bias - lost))
    return ledger[::-1]


def _unchanged(stage: Stage, env: dict[int, Any]) -> Callable:
    """The propagation of a layer with the same output and that output as its only input: all it
    loses it loses to the stabiliser."""
    z = env[stage.layer.outputs[0]]
    same = Linear(
        replace(stage.layer, non_negative=False),
        product=scaled,
        w=jnp.ones_like(z),
        b=None,
        x_like=jax.ShapeDtypeStruct(z.shape, z.dtype),
    )
    return stage.rule(same, z, z)


def _without_bias(stage: Stage, op: Linear, env: dict[int, Any]) -> Callable:
    """The layer's propagation, as if it had been without its bias."""
    (x,), (z,) = stage.layer.inputs, stage.layer.outputs
    return stage.rule(replace(op, b=None), env[x], env[z] - op.b)


def _total(values: Sequence[jax.Array]) -> jax.Array:
    return sum((v.sum() for v in values), jnp.zeros(()))


def _dims(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
