"""What a rule is: a pure function with its parameters, comparable and printable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

STABILISER = 1e-9


@dataclass(frozen=True)
class Rule:
    """`rule(op, *inputs, output)` does what does not depend on relevance and returns the map
    from the relevance of the output to that of the input (a tuple where there are several)."""

    function: Callable[..., Callable[[jax.Array], Any]]
    parameters: tuple[tuple[str, Any], ...] = ()

    def __call__(self, op: Any, *values: Any) -> Any:
        return self.function(op, *values, **dict(self.parameters))

    def __str__(self) -> str:
        name = self.function.__name__.rstrip("_").replace("_", "-")
        shown = ", ".join(f"{k}={_short(v)}" for k, v in self.parameters)
        return f"{name}({shown})" if shown else name


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def rule(function: Callable, **parameters: Any) -> Rule:
    """The rule `function` with its parameters fixed."""
    return Rule(function, tuple(sorted(parameters.items())))


def stabilise(z: jax.Array, epsilon: float = STABILISER) -> jax.Array:
    """z + epsilon sign(z) with sign(0) = +1: the same number, never zero."""
    return z + jnp.where(z >= 0, epsilon, -epsilon).astype(z.dtype)


def nonzero(total: jax.Array) -> jax.Array:
    """A sum of non-negative terms as a denominator: 1 where it is empty, else itself."""
    return jnp.where(total == 0, 1, total)


def positive(x: jax.Array) -> jax.Array:
    return jnp.maximum(x, 0)


def negative(x: jax.Array) -> jax.Array:
    return jnp.minimum(x, 0)


def signs(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The positive and the negative part: their sum is x."""
    return positive(x), negative(x)
