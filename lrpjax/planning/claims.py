"""Every claim that a reading makes of a model, tested at an input.

A reading says that its layers compute what the model does, what cannot be negative, along which
axes a statistic is one number, that examples do not see each other. What a map means rests on
that, so it is tried on the data before anything is measured with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from .._base.compat import FOR_ONE_RUN
from ..graph import Graph, Layer
from ..graph.reading import Reading, Source, environment
from ..layers import Linear, Op, make_op, tupled
from ..program import Program, evaluate, is_inexact, single
from ..program.evaluation import as_number
from ..propagation.chain import Chain
from ..propagation.derivative import derivative, stands_as_it_is
from ..propagation.method import Method
from ..propagation.targets import read_as
from ..propagation.travelling import AsRelevance
from ..rules import gradient, rule

# How far two ways to compute one number may differ, by the precision of the model.
BOUNDS = {"float64": 1e-9, "float32": 1e-4, "half": 2e-2}
_DERIVATIVE = Method("the derivative of every layer", lambda layer: rule(gradient))
OUTPUT = "the model's output"
FOLDED = "what the folded layers compute"
GRADIENT = "the gradient through the layers"


@dataclass(frozen=True)
class Claim:
    """what: in words, of `layer`. difference: from what was read, relative to the largest value
    there; the claim holds where it is at most `bound`."""

    what: str
    layer: str
    difference: float
    bound: float

    @property
    def holds(self) -> bool:
        return self.difference <= self.bound  # NaN does not


def tested(reading: Reading) -> list[Claim]:
    """The claims of a reading of the model, tested at its input: two compilations.

    Raises ValueError for the first that does not hold, with the name of its layer.
    """
    bound = BOUNDS[_precision(reading.graph)]
    outputs, measured = _measured(reading.graph, reading.consts, reading.leaves)
    measured |= _alone(reading, outputs[0])
    if not float(measured[GRADIENT]["input"]) <= bound:
        culprit = _where_it_parts(reading, bound)
        measured[GRADIENT] = {culprit: measured[GRADIENT]["input"]}
    claims = [
        Claim(what, layer, float(difference), bound)
        for what, differences in measured.items()
        for layer, difference in differences.items()
    ]
    places = {layer.name: layer.place for layer in reading.graph.layers}
    last = lambda claim: claim.what == GRADIENT  # it is off where anything else is
    claims.sort(key=lambda claim: (last(claim), places.get(claim.layer, len(places))))
    for claim in claims:
        if not claim.holds:
            raise ValueError(
                f"This model is not what it was read as: {claim.what} at {claim.layer!r} is off "
                f"by {claim.difference:.2g} (rounding makes at most {claim.bound:.0e}), so no map "
                "of it can be trusted. lrpjax.plan shows how it was read."
            )
    return claims


def require(source: Source, images: Any, method: Any) -> None:
    """Tests the claims at the first image, as the method will read the model. Raises as `tested`.

    What measures a model calls it before: a map of what was read wrongly would be measured. Once
    for a source and an image.
    """
    reading = read_as(source, jax.tree.map(lambda leaf: leaf[:1], images), method)
    numbers = tuple(np.asarray(leaf).tobytes() for leaf in reading.leaves)
    source.once(("claims", reading.graph, numbers), lambda: tested(reading))


def _precision(graph: Graph) -> str:
    kinds = [a.dtype for a in graph.program.avals if jnp.issubdtype(a.dtype, jnp.floating)]
    if any(single(dtype) != dtype for dtype in kinds):
        return "half"
    return "float64" if set(kinds) == {jnp.dtype("float64")} else "float32"


Differences = dict[str, dict[str, Any]]  # in words -> layer -> difference


def _outputs(program: Program) -> list[int]:
    return [v for v in program.outputs if v in program.active]


@partial(jax.jit, static_argnums=0, compiler_options=FOR_ONE_RUN)
def _measured(graph: Graph, consts: list, leaves: list) -> tuple[list[jax.Array], Differences]:
    """The model's outputs that depend on the input, and all that one pass there and back shows."""
    outputs = _outputs(graph.program)

    def values(*numbers):
        env = environment(graph, consts, numbers)
        return [env[v] for v in outputs], env

    made, pull, env = jax.vjp(values, *map(as_number, leaves), has_aux=True)
    seeds = _seeds(env, outputs)
    return made, {
        FOLDED: _folded(graph, env),
        "what the activation computes": _activations(graph, env),
        "an input that cannot be negative": _signs(graph, env),
        "the statistic of a norm": _statistics(graph, env),
        GRADIENT: {"input": _gradient(graph, env, seeds, pull)},
        "the derivative of the model": _derivative(graph, consts, leaves, seeds),
    }


def _seeds(env: dict[int, Any], outputs: list[int]) -> dict[int, jax.Array]:
    """A random cotangent for each output."""
    keys = jax.random.split(jax.random.key(0), len(outputs))
    return {
        v: jax.random.normal(key, env[v].shape, env[v].dtype)
        for key, v in zip(keys, outputs, strict=True)
    }


def _off(found: jax.Array, wanted: jax.Array) -> jax.Array:
    """The largest difference, relative to the largest value; infinities that agree agree."""
    if wanted.size == 0:
        return jnp.zeros(())
    largest = jnp.max(jnp.where(jnp.isfinite(wanted), jnp.abs(wanted), 0))
    apart = jnp.where(found == wanted, 0, jnp.abs(found - wanted))
    return jnp.max(apart) / jnp.maximum(largest, jnp.finfo(largest.dtype).tiny)


def _folded(graph: Graph, env: dict[int, Any]) -> dict[str, jax.Array]:
    """The layers run one after the other, beside the model's own equations."""
    folded, off = dict(env), {}
    for layer in graph.layers:
        op = make_op(graph.program, layer, env)
        found = op(*(folded[v] for v in layer.inputs))
        if isinstance(op, Linear) and op.b is not None:
            found = found + op.b
        folded.update(zip(layer.outputs, tupled(found), strict=True))
        worst = [_off(folded[v], env[v]) for v in layer.outputs if is_inexact(env[v])]
        off[layer.name] = jnp.max(jnp.stack(worst)) if worst else jnp.zeros(())
    return off


def _activations(graph: Graph, env: dict[int, Any]) -> dict[str, jax.Array]:
    """The function that an activation was recognised as, at the model's own values."""
    off = {}
    for layer in _of_kind(graph, "activation"):
        (x,), (y,) = layer.inputs, layer.outputs
        function = cast(Op, make_op(graph.program, layer, env)).detail
        off[layer.name] = _off(function(env[x]).astype(env[y].dtype), env[y])
    return off


def _signs(graph: Graph, env: dict[int, Any]) -> dict[str, jax.Array]:
    below = lambda v: -jnp.min(env[v], initial=0) / (1 + jnp.max(jnp.abs(env[v]), initial=0))
    return {
        layer.name: jnp.max(jnp.stack([below(v) for v in layer.inputs]))
        for layer in graph.layers
        if layer.non_negative and all(is_inexact(env[v]) for v in layer.inputs)
    }


def _statistics(graph: Graph, env: dict[int, Any]) -> dict[str, jax.Array]:
    """How much a norm's statistic varies along the axes where it is one number."""
    off = {}
    for layer in _of_kind(graph, "norm"):
        last = layer.eqns[-1]
        x = layer.inputs[0]
        (statistic,) = [v for v in last.inputs if v != x] or [last.inputs[1]]
        full = jnp.broadcast_to(env[statistic], env[layer.outputs[0]].shape)
        ends = [full.max(layer.detail.axes), full.min(layer.detail.axes)] if full.size else ()
        off[layer.name] = _off(*ends) if ends else jnp.zeros(())
    return off


def _gradient(
    graph: Graph, env: dict[int, Any], seeds: dict[int, jax.Array], pull: Callable
) -> jax.Array:
    """The layers' derivatives one after the other, beside that of the equations as one."""
    found = Chain(AsRelevance(graph, _DERIVATIVE, env), graph.layers)(seeds)
    wanted = pull(list(seeds.values()))
    pairs = zip(graph.program.inputs, wanted, strict=True)
    off = [_off(found.get(v, jnp.zeros_like(w)), w) for v, w in pairs]
    return jnp.max(jnp.stack(off))


def _derivative(
    graph: Graph, consts: list, leaves: list, seeds: dict[int, jax.Array]
) -> dict[str, jax.Array]:
    """The derivative that the gradient family is made of, custom rules, stops and ties kept, beside
    `jax.vjp` of the model as it is written. Nothing for a model that is not replayed so: one in
    half precision or of integers."""
    layers = [(layer, rule(gradient)) for layer in graph.layers]
    if not stands_as_it_is(graph, layers):
        return {}
    inputs, outputs = graph.program.inputs, list(seeds)
    found, wanted = (
        derivative(graph, layers, consts, leaves, outputs, inputs, as_is=as_is)[1](seeds)
        for as_is in (False, True)
    )
    return {"input": jnp.max(jnp.stack([_off(found[v], wanted[v]) for v in inputs]))}


def _where_it_parts(reading: Reading, bound: float) -> str:
    """The uppermost layer that reads or writes a value at which the gradient is off."""
    off = jax.device_get(_both_sides(reading.graph, reading.consts, reading.leaves))
    for layer in reversed(reading.graph.layers):
        if not all(off.get(v, 0) <= bound for v in (*layer.inputs, *layer.outputs)):
            return layer.name
    return "input"


@partial(jax.jit, static_argnums=0, compiler_options=FOR_ONE_RUN)
def _both_sides(graph: Graph, consts: list, leaves: list) -> dict[int, jax.Array]:
    """How far the gradient at each value is off, where a layer reads or writes it."""
    outputs = _outputs(graph.program)
    numbers = dict(zip(graph.program.inputs, map(as_number, leaves), strict=True))
    env = environment(graph, consts, list(numbers.values()))
    seen = {v for layer in graph.layers for v in (*layer.inputs, *layer.outputs)}
    nothing = {v: jnp.zeros_like(env[v]) for v in seen if is_inexact(env[v])}

    def beside(added):
        """The outputs where something is added to each value."""

        def by(eqn, inputs):
            made = evaluate(eqn, inputs)
            return [
                m + added[v] if v in added else m for v, m in zip(eqn.outputs, made, strict=True)
            ]

        given = [x + added[v] if v in added else x for v, x in numbers.items()]
        env = environment(graph, consts, given, by)
        return [env[v] for v in outputs]

    seeds = _seeds(env, outputs)
    _, pull = jax.vjp(beside, nothing)
    (wanted,) = pull(list(seeds.values()))
    found = Chain(AsRelevance(graph, _DERIVATIVE, env), graph.layers)(seeds)
    return {v: _off(found.get(v, jnp.zeros_like(w)), w) for v, w in wanted.items()}


def _of_kind(graph: Graph, kind: str) -> Iterable[Layer]:
    return (layer for layer in graph.layers if layer.kind == kind)


def _alone(reading: Reading, outputs: jax.Array) -> Differences:
    """The first example's output in a batch and in another: alone or, where it was, beside a
    second. Nothing for a model that takes no other batch, or has none."""
    program, leaves = reading.graph.program, reading.leaves
    axes, sizes = reading.graph.axes, {leaf.shape[:1] for leaf in leaves}
    batch = axes.batch[_outputs(program)[0]]
    if batch is None and axes.unproven is not None and outputs.shape[:1] in sizes:
        batch = 0  # as far as is known
    if batch is None or len(sizes) != 1 or outputs.size == 0:
        return {}
    others = [
        _beside_another(leaf) if len(leaf) == 1 else leaf[:1] for leaf in map(np.asarray, leaves)
    ]
    try:
        other = reading.source.at(jax.tree.unflatten(reading.x_tree, others), fold=True)
    except ValueError:
        return {}
    off = _first_of_both(other.graph, other.consts, other.leaves, outputs, batch)
    return {"an example by itself": {OUTPUT: off}}


@partial(jax.jit, static_argnums=(0, 4), compiler_options=FOR_ONE_RUN)
def _first_of_both(
    graph: Graph, consts: list, leaves: list, outputs: jax.Array, batch: int
) -> jax.Array:
    found = environment(graph, consts, leaves)[_outputs(graph.program)[0]]
    first = lambda outputs: jax.lax.index_in_dim(outputs, 0, batch)
    return _off(first(found), first(outputs))


def _beside_another(leaf: np.ndarray) -> np.ndarray:
    """A batch of one and its mirror image."""
    return np.concatenate([leaf, np.flip(leaf)])
