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

from .graph import KINDS, LINEAR, Layer
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
    return ByKind(tuple(sorted(rules.items())))


def for_every_kind(**rules: Rule | None) -> ByKind:
    """As `by_kind`, of a rule or None for every kind. ValueError where a kind is forgotten."""
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
        return self.one(layer) or self.other(layer)


@dataclass(frozen=True)
class NegateLast:
    """The composite's rules, with the weights of the last linear layers negated."""

    composite: Composite

    def __call__(self, layer: Layer) -> Rule | None:
        found = self.composite(layer)
        if found is None or not layer.last:
            return found
        return make_rule(negated, of=found)


@dataclass(frozen=True)
class Uniform:
    """The composite's rules, with every product of two values shared half and half (AttnLRP)."""

    composite: Composite

    def __call__(self, layer: Layer) -> Rule | None:
        found = self.composite(layer)
        if found is None or found.function is not product:
            return found
        return make_rule(product, **{**dict(found.parameters), "share": "uniform"})


@dataclass(frozen=True)
class Stabilised:
    """The composite's rules, with one absolute number added to all of their denominators."""

    composite: Composite
    stabiliser: float

    def __call__(self, layer: Layer) -> Rule | None:
        found = self.composite(layer)
        return None if found is None else found.stabilised(self.stabiliser)


def stabilised(composite: Composite, stabiliser: float) -> Stabilised:
    return Stabilised(composite, stabiliser)


def uniform(composite: Composite) -> Uniform:
    return Uniform(composite)


def negate_last(composite: Composite) -> NegateLast:
    return NegateLast(composite)


def first_layer(rule: Rule) -> FirstLayer:
    return FirstLayer(rule)


def or_else(one: Composite, other: Composite) -> OrElse:
    return OrElse(one, other)
