"""Composites: plain functions from a layer's description to a rule, or to None for "no rule".

The description is a `graph.Layer`: name, kind, first, non_negative, primitive, source. Your own
is three lines:

    def mine(layer):
        return rule(rules.flat) if layer.first else None

    lrp.methods.Method("mine", or_else(mine, lrp.methods.get("lrp-zplus").composite))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ._base.checks import check_known, takes, written
from ._base.given import what
from .graph import KINDS, LINEAR, Layer
from .graph.known import KNOWN
from .rules import Rule, negated, one_to_one, product, zbox
from .rules import rule as make_rule

Composite = Callable[[Layer], Rule | None]

__all__ = [
    "Composite",
    "by_kind",
    "first_layer",
    "for_every_kind",
    "negate_last",
    "or_else",
    "stabilised",
    "uniform",
]


def __dir__() -> list[str]:
    return __all__


def chosen(composite: Composite, layer: Layer) -> Rule | None:
    """composite(layer). Raises TypeError where that is neither a rule nor None."""
    return require_rule(composite(layer), f"The composite gives the layer {layer.name!r}")


def require_rule(found: Any, where: str) -> Rule | None:
    """What was found, if it is a rule or None; TypeError if not. where: the sentence's begin."""
    if found is None or isinstance(found, Rule):
        return found
    name = getattr(found, "__name__", None)
    advice = f": use lrpjax.rules.rule({name})" if callable(found) and name else ""
    raise TypeError(f"{where} {what(found)} in the place of a rule or None{advice}.")


def require_composite(given: Any, of: str) -> Composite:
    """What was given, if it is a function of a layer; TypeError if not. of: whose it is."""
    kinds = ((Rule, "lambda layer: rule"), (str, f"lrpjax.methods.get({given!r}).composite"))
    instead = next((words for kind, words in kinds if isinstance(given, kind)), "")
    if hasattr(given, "composite") and not callable(given):
        instead = "its .composite"
    if not instead and callable(given) and takes(given, None):
        return given
    raise TypeError(
        f"The composite of {of} is a function from a layer to its rule, got {what(given)}"
        f"{written(given)}{instead and ': pass ' + instead}."
    )


@dataclass(frozen=True)
class ByKind:
    """The rule listed for the layer's kind; see `by_kind`."""

    table: tuple[tuple[str, Rule], ...]

    def __call__(self, layer: Layer) -> Rule | None:
        rules = dict(self.table)
        if layer.kind == "activation" and layer.detail.name in rules:
            return rules[layer.detail.name]
        return rules.get(layer.kind, rules.get("linear") if layer.kind in LINEAR else None)


def by_kind(**rules: Rule) -> ByKind:
    """Rules by kind (see `lrpjax.rules.table`): conv, dense, scale, factor, fixed (or linear for
    what is left of these), sum, max_pool, activation (or one activation's own name, such as relu),
    add, product, norm, softmax, structure, transform, unknown."""
    for kind, rule in rules.items():
        check_known("kind of layer", kind, {*KINDS, "linear", *KNOWN})
        require_rule(rule, f"by_kind has for {kind!r}")
    return ByKind(tuple(sorted(rules.items())))


def for_every_kind(**rules: Rule | None) -> ByKind:
    """As `by_kind`, of a rule or None for every kind. ValueError where a kind is forgotten."""
    for kind in rules:
        check_known("kind of layer", kind, {*KINDS, "linear", *KNOWN})
    named = {*rules, *(LINEAR if "linear" in rules else ())}
    if forgotten := set(KINDS) - named:
        raise ValueError(f"There is no word on {', '.join(sorted(forgotten))}: a rule, or None.")
    return by_kind(**{kind: rule for kind, rule in rules.items() if rule is not None})


@dataclass(frozen=True)
class FirstLayer:
    """A rule for the linear layers that the input reaches, wherever they are in the code.

    The z-box of W (a x + b) is that of its parts, W a and what is added: where the steps in front
    are not folded they hand on what arrives.
    """

    rule: Rule

    def __call__(self, layer: Layer) -> Rule | None:
        if layer.front and layer.kind == "scale" and self.rule.function is zbox:
            return make_rule(one_to_one)
        return self.rule if layer.first else None


@dataclass(frozen=True)
class OrElse:
    """The first composite's rule, or the second's where the first has none."""

    one: Composite
    other: Composite

    def __call__(self, layer: Layer) -> Rule | None:
        return chosen(self.one, layer) or chosen(self.other, layer)


@dataclass(frozen=True)
class NegateLast:
    """The composite's rules, with the weights of the last linear layers negated."""

    composite: Composite

    def __call__(self, layer: Layer) -> Rule | None:
        found = chosen(self.composite, layer)
        if found is None or not layer.last:
            return found
        return make_rule(negated, of=found)


@dataclass(frozen=True)
class Uniform:
    """The composite's rules, with every product of two values shared half and half (AttnLRP)."""

    composite: Composite

    def __call__(self, layer: Layer) -> Rule | None:
        found = chosen(self.composite, layer)
        if found is None or found.function is not product:
            return found
        return make_rule(product, **{**dict(found.parameters), "share": "uniform"})


@dataclass(frozen=True)
class Stabilised:
    """The composite's rules, with one absolute number added to all of their denominators."""

    composite: Composite
    stabiliser: float

    def __call__(self, layer: Layer) -> Rule | None:
        found = chosen(self.composite, layer)
        return None if found is None else found.stabilised(self.stabiliser)


def stabilised(composite: Composite, stabiliser: float) -> Stabilised:
    return Stabilised(require_composite(composite, "stabilised"), stabiliser)


def uniform(composite: Composite) -> Uniform:
    return Uniform(require_composite(composite, "uniform"))


def negate_last(composite: Composite) -> NegateLast:
    return NegateLast(require_composite(composite, "negate_last"))


def first_layer(rule: Rule) -> FirstLayer:
    if not isinstance(require_rule(rule, "first_layer has"), Rule):
        raise TypeError("first_layer needs a rule, got None.")
    return FirstLayer(rule)


def or_else(one: Composite, other: Composite) -> OrElse:
    return OrElse(*(require_composite(given, "or_else") for given in (one, other)))
