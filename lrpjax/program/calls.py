"""Functions with a derivative of their own (`jax.custom_jvp`, `jax.custom_vjp`), taken apart."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from .._base.compat import ClosedJaxpr, bind, call_body, is_of_jax_itself


@dataclass(frozen=True)
class Traced:
    """What a custom call does when it is differentiated, as two jaxprs.

    forward: from its inputs to its outputs and what it keeps. backward: from what is kept and the
    cotangents of its inexact outputs to those of its inputs in `moving`: those that are inexact,
    but for what the function closes over, of which its rule says nothing.
    """

    forward: ClosedJaxpr
    backward: ClosedJaxpr
    moving: tuple[int, ...]


def traced(eqn: Any) -> Traced:
    """The forward and the backward pass of a custom call's equation."""
    if not is_of_jax_itself(eqn):
        return _traced(eqn.primitive, dict(eqn.params), [v.aval for v in eqn.invars])
    return _of_jax_itself(_Equation(eqn))


class _Equation:
    """An equation of one of JAX's own functions, which are what their text says."""

    def __init__(self, eqn: Any):
        self.eqn = eqn
        self.text = (eqn.primitive.name, str(call_body(eqn)), jax.dtypes.canonicalize_dtype(float))

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Equation) and self.text == other.text


@lru_cache(maxsize=512)
def _of_jax_itself(equation: _Equation) -> Traced:
    eqn = equation.eqn
    return _traced(eqn.primitive, dict(eqn.params), [v.aval for v in eqn.invars])


def _traced(primitive: Any, params: dict[str, Any], avals: list[Any]) -> Traced:
    like = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals]
    closed_over = params.get("num_consts", 0)
    moving = tuple(i for i, a in enumerate(like) if i >= closed_over and _inexact(a))
    trees: list[Any] = []

    def forward(*values):
        def function(*some):
            full = list(values)
            for i, value in zip(moving, some, strict=True):
                full[i] = value
            outs = bind(primitive, full, params)
            return [y for y in outs if _inexact(y)], outs

        _, pull, outs = jax.vjp(function, *(values[i] for i in moving), has_aux=True)
        kept, tree = jax.tree.flatten(pull)
        trees.append(tree)
        return outs, kept

    there, (outs, kept) = jax.make_jaxpr(forward, return_shape=True)(*like)

    def backward(kept, cotangents):
        return jax.tree.unflatten(trees[-1], kept)(cotangents)

    back = jax.make_jaxpr(backward)(kept, [y for y in outs if _inexact(y)])
    return Traced(there, back, moving)


def _inexact(value: Any) -> bool:
    return jnp.issubdtype(value.dtype, jnp.inexact)
