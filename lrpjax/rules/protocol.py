"""What a rule is: a pure function with its parameters, comparable and printable, and its facts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from inspect import Parameter, signature
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._base.checks import takes, written
from .._base.given import what

STABILISER = 1e-9  # of the largest denominator of a layer


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a rule; where nothing is, each fact is the careful choice, `UNKNOWN`.

    linear: the relevance of the inputs is linear in that of the output.
    conserves: an output hands on its relevance in parts of its denominator, of which some are no
    input's; an `Account` says whose.
    stabilises: that denominator is the layer's whole output, the bias included, and a stabiliser.
    takes_apart: the rule sums the positive and the negative contributions of a layer, each alone.
    inside_only: made for the inside of a network, not for an activation that the model ends in.
    """

    linear: bool
    conserves: bool
    stabilises: bool
    takes_apart: bool
    inside_only: bool


UNKNOWN = Facts(
    linear=False, conserves=False, stabilises=False, takes_apart=False, inside_only=False
)


class Account(NamedTuple):
    """Where the relevance of a layer's outputs goes that goes to no input: maps of the outputs'
    shape (a tuple of them where there are several outputs), None where nothing does. Relevance is
    that of the inputs plus all of these.

    bias, stabiliser: by their parts of the denominators. constants: what came from no input but
    from constants of the model, such as a class token or position embeddings. lost: what had
    no contribution to go to. grown: what the inputs have received too much, with a minus.
    """

    bias: Any = None
    stabiliser: Any = None
    constants: Any = None
    lost: Any = None
    grown: Any = None


@dataclass(frozen=True)
class Rule:
    """`rule(op, *inputs, output)` does what does not depend on relevance and returns the map
    from the relevance of the output to that of the input (a tuple where there are several)."""

    function: Callable[..., Callable[[jax.Array], Any]]
    parameters: tuple[tuple[str, Any], ...] = ()

    def __call__(self, op: Any, *values: Any) -> Any:
        """TypeError for a function that cannot be called so, or that returns no map."""
        parameters = dict(self.parameters)
        if not takes(self.function, op, *values, **parameters):
            raise TypeError(
                f"The rule {self}{_of_layer(op)} is called with it, {len(values) - 1} of its "
                f"inputs and its output, and its function is {_name(self.function)}"
                f"{written(self.function)}: write it as (op, *inputs, output)."
            )
        made = self.function(op, *values, **parameters)
        maps = made if isinstance(made, tuple) else (made,)
        if not all(map(callable, maps)) or not takes(maps[0], None):
            raise TypeError(
                f"The rule {self}{_of_layer(op)} returns {what(made)}{written(made)}: it must "
                "return a function, from the relevance of the output to that of the input."
            )
        return made

    @property
    def facts(self) -> Facts:
        """What `known` says of the function, with these parameters."""
        said: dict[str, Any] = getattr(self.function, "facts", None) or vars(UNKNOWN)
        parameters = dict(self.parameters)
        return Facts(**{k: v(**parameters) if callable(v) else v for k, v in said.items()})

    @property
    def account(self) -> Callable[..., Account] | None:
        """`account(op, *inputs, output, relevance)`; None for a rule that does not conserve."""
        if not self.facts.conserves:
            return None
        return partial(self.function.account, **dict(self.parameters))  # type: ignore[attr-defined]

    @property
    def absolute(self) -> float | None:
        """What it adds to its denominators whatever their size; None if it follows their size."""
        given = dict(self.parameters)
        if "of" in given:
            return given["of"].absolute
        return given.get("epsilon", given.get("stabiliser"))

    def stabilised(self, stabiliser: float) -> Rule:
        """The rule with this number added to its denominators, if it has a choice there."""
        given = dict(self.parameters)
        if "of" in given:
            given["of"] = given["of"].stabilised(stabiliser)
        if "stabiliser" in signature(self.function).parameters:
            given["stabiliser"] = stabiliser
        return rule(self.function, **given)

    def __str__(self) -> str:
        name = _name(self.function).rstrip("_").replace("_", "-")
        shown = ", ".join(f"{k}={_short(v)}" for k, v in self.parameters)
        return f"{name}({shown})" if shown else name


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _name(function: Any) -> str:
    """A function's name; of an object that is called, its class'."""
    return getattr(function, "__name__", type(function).__name__)


def _of_layer(op: Any) -> str:
    layer = getattr(op, "layer", None)
    return "" if layer is None else f" of the layer {layer.name!r} ({layer.source})"


def rule(function: Callable, **parameters: Any) -> Rule:
    """The rule `function` with its parameters fixed.

    Raises TypeError for what is no function (op, *inputs, output) with these parameters.
    """
    if isinstance(function, Rule | type) or not callable(function):
        raise TypeError(
            f"A rule is made of a function (op, *inputs, output), got {what(function)}"
            f"{': it is a rule already' * isinstance(function, Rule)}."
        )
    if wrong := _wrong(function, parameters):
        raise TypeError(f"The function {_name(function)}{written(function)} is no rule: {wrong}.")
    return Rule(function, tuple(sorted(parameters.items())))


def _wrong(function: Callable, parameters: dict[str, Any]) -> str:
    """Why a function cannot be called as a rule with these parameters; empty if it can."""
    try:
        known = signature(function).parameters.values()
    except (TypeError, ValueError):  # of a builtin nobody can say
        return ""
    kinds = {p.kind for p in known}
    named = {p.name for p in known if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if Parameter.VAR_KEYWORD not in kinds and (odd := [p for p in parameters if p not in named]):
        return f"it has no parameter {odd[0]!r}"
    needed = [p.name for p in known if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if missing := [name for name in needed if name not in parameters]:
        return f"it needs {', '.join(missing)}, as in rule({_name(function)}, {missing[0]}=...)"
    plain = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    taken = [p for p in known if p.kind in plain and p.name not in parameters]
    if Parameter.VAR_POSITIONAL not in kinds and len(taken) < _LEAST:
        return "it is called as (op, *inputs, output), with at least one input"
    return ""


_LEAST = 3  # values that a rule is called with: the layer at work, an input and the output


def known(
    *, account: Callable[..., Account] | None = None, **facts: bool | Callable[..., bool]
) -> Callable[[Callable], Callable]:
    """Says the `Facts` of a rule above its definition: all of them, or it is a TypeError.

    A fact that depends on the rule's parameters is a function of them.
    account: `account(op, *inputs, output, relevance, **parameters)`, which a rule that conserves
    needs.
    """
    wanted = [field.name for field in fields(Facts)]
    if sorted(facts) != sorted(wanted):
        raise TypeError(f"The facts of a rule are {', '.join(wanted)}; given {', '.join(facts)}.")
    if facts["conserves"] is not False and account is None:
        raise TypeError("A rule that conserves relevance needs an account: known(account=...).")

    def say(function: Callable) -> Callable:
        function.facts = facts  # type: ignore[attr-defined]
        function.account = account  # type: ignore[attr-defined]
        return function

    return say


def _of_another(fact: str) -> Callable[..., bool]:
    return lambda of, **_: getattr(of.facts, fact)


OF_ANOTHER = {field.name: _of_another(field.name) for field in fields(Facts)}
"""The facts of a rule that is made of another, its parameter `of`."""


def stabilise(op: Any, d: jax.Array, stabiliser: float | None = None) -> jax.Array:
    """d + s sign(d), sign(0) = +1, for denominators d of the outputs of the layer `op`.

    s is the stabiliser given, or 1e-9 max |d| over the layer's outputs of one example and at least
    the smallest normal number: the map of c R and c d is then that of R and d. Where all d of an
    example are 0 they count as infinite: there is nothing to share out by, and relevance ends.
    """
    d = d.astype(jnp.promote_types(d.dtype, jnp.float32))
    if stabiliser is not None:
        return d + jnp.where(d >= 0, stabiliser, -stabiliser).astype(d.dtype)
    largest = magnitude(op, d)
    s = jnp.maximum(STABILISER * largest, jnp.finfo(d.dtype).tiny)
    return jnp.where(largest == 0, jnp.inf, d + jnp.where(d >= 0, s, -s))


def magnitude(op: Any, v: jax.Array) -> jax.Array:
    """max |v| over one example, to broadcast to v, of the shape of the output of the layer `op`;
    of what is finite, as a mask's infinity is no value of the layer.

    Where the examples' axis is not known it counts as the first.
    """
    # It follows a layer's size, and is no part of the rule that is differentiated.
    size = jax.lax.stop_gradient(jnp.where(jnp.isinf(v), 0, jnp.abs(v)))
    layout = op.layer.layout
    if layout is None:
        return jnp.max(size, range(1, v.ndim), keepdims=True, initial=0)
    largest = jnp.max(size.reshape(layout.shape), layout.units, keepdims=True, initial=0)
    return jnp.broadcast_to(largest, layout.shape).reshape(v.shape)


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
