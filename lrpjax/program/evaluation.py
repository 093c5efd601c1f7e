"""A program run again with the derivatives of the model: those of its own functions included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .program import Call, Eqn, Program, Step, as_written, evaluate, is_inexact, opened, run, single
from .windows import tiles, winners


def resumed(program: Program, env: dict[int, Any], changed: dict[int, Any]) -> dict[int, Any]:
    """Every value of the program with some in the place of others: what depends on them, or is not
    in `env`, is run again, with the model's derivative and the names of its scopes."""
    whole = carrying(program)

    def is_closed(call: Call) -> bool:
        return call.is_custom and not (
            call.inside.intersection(changed) or whole.intersection(call.inputs)
        )

    def by(step: Step, values: list[Any]) -> Sequence[Any]:
        with jax.named_scope(step.scope):
            return evaluated(program, step, values, env, False)

    reached, again = set(changed), []
    for step in opened(program.steps, is_closed):
        if changed.keys() >= set(step.outputs):
            continue
        if reached.intersection(step.inputs):
            reached.update(step.outputs)
            again.append(step)
        elif not env.keys() >= set(step.outputs):
            again.append(step)
    return run(again, env | changed, by)


def evaluated(
    program: Program, step: Step, values: list[Any], env: dict[int, Any], as_is: bool
) -> Sequence[Any]:
    if isinstance(step, Call):
        if step.own is None or (not step.holds and program.is_single):
            return as_written(step, values)
        return _with_own(step, values, env, as_written if as_is else evaluate)
    by = as_written if as_is else evaluate
    if step.name != "reduce_window_max" or not is_inexact(values[0]):
        return by(step, values)
    # Where windows overlap, another order of their sums would be seen in the last bit.
    exact = not as_is or tiles(values[0].shape, step.params)
    return [_window_max(step, values[0])] if exact else by(step, values)


def _window_max(eqn: Eqn, x: jax.Array) -> jax.Array:
    """The maxima of windows, with their derivative as a mask: all to a window's first maximum, as
    JAX has it, but found in the forward pass. XLA's own takes long to compile and to run."""
    function = jax.custom_vjp(lambda x: evaluate(eqn, [x])[0])
    pooled = lambda x: (evaluate(eqn, [x])[0], x)
    function.defvjp(pooled, lambda x, r: (winners(eqn, x)(r),))
    return function(x)


def _with_own(call: Call, values: list[Any], env: dict[int, Any], by: Callable) -> Sequence[Any]:
    """A call by the two programs of its own derivative, whose arrays are the program's."""
    own, count = call.own, len(call.outputs)
    assert own is not None

    def through(program: Program, arrays: tuple[int, ...], values: Sequence[Any]) -> list[Any]:
        number = as_single if by is evaluate else jnp.asarray
        inner = {v: number(value) for v, value in program.literals.items()}
        inner |= {v: env[n] for v, n in zip(program.consts, arrays, strict=True)}
        inner |= dict(zip(program.inputs, values, strict=True))
        inner = run(program.eqns, inner, by)
        return [inner[v] for v in program.outputs]

    def forward(*values):
        outs = through(own.forward, own.arrays[0], values)
        return outs[:count], outs[count:]

    def backward(kept, cotangents):
        inexact = [r for r in cotangents if r.dtype != jax.dtypes.float0]
        found = through(own.backward, own.arrays[1], [*kept, *inexact])
        sent: list[Any] = [None] * len(values)
        for i, r in zip(own.moving, found, strict=True):
            sent[i] = r.astype(values[i].dtype)
        return tuple(sent)

    function = jax.custom_vjp(lambda *values: forward(*values)[0])
    function.defvjp(forward, backward)
    return function(*values)


def carrying(program: Program) -> set[int]:
    """The integers that stand for an integer input: their relevance is that of the floats they
    become, and they are computed as such."""
    whole = {v for v in program.inputs if not is_inexact(program.avals[v])}
    for eqn in program.eqns if whole else ():
        if whole.intersection(eqn.inputs):
            whole.update(v for v in eqn.outputs if not is_inexact(program.avals[v]))
    return whole


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
