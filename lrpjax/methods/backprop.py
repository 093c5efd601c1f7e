"""Backpropagation, and the methods that change what it does at activations."""

from __future__ import annotations

from dataclasses import replace

from .. import rules as r
from ..graph import CUTTING
from ..propagation.entries import NOT_LINEAR, named
from ..propagation.method import Method, backprop
from ..rules import Rule, rule

_START = '(start="logit": protocol of Sixt et al. 2020)'


@named("gradient", "J^T 1_t", "Simonyan et al. 2014", "no", "no")
def gradient() -> Method:
    return backprop("gradient", "one", colour="max-abs", control=rule(r.gradient))


@named("input-x-gradient", "x * J^T 1_t", "Shrikumar et al. 2016", "up to bias (ReLU nets)", "no")
def input_x_gradient() -> Method:
    return replace(gradient(), name="input-x-gradient", times_input=True, colour="sum")


def _cutting(name: str, cut: Rule) -> Method:
    """The gradient, with a rule of its own for the activations that cut."""
    made = backprop(name, "one", colour="max-abs", **dict.fromkeys(CUTTING, cut))
    return replace(made, needs_cuts=True)


@named(
    "guided-bp",
    f"J^T with f'(x) max(R, 0) where an activation f cuts {_START}",
    "Springenberg et al. 2015",
    "no",
    NOT_LINEAR,
)
def guided_bp() -> Method:
    return _cutting("guided-bp", rule(r.guided))


@named(
    "deconv",
    f"J^T with max(R, 0) where an activation cuts {_START}",
    "Zeiler and Fergus 2014",
    "no",
    NOT_LINEAR,
)
def deconv() -> Method:
    return _cutting("deconv", rule(r.deconv))


@named(
    "rect-grad",
    f"J^T with f'(x) 1[y R > tau] R where y = f(x) cuts, tau the 98th percentile {_START}",
    "Kim et al. 2019",
    "no",
    NOT_LINEAR,
)
def rect_grad(percentile: float = 98) -> Method:
    """percentile: of y R over a layer's units, below which a unit passes nothing on."""
    if not 0 <= percentile <= 100:
        raise ValueError(f"The percentile lies between 0 and 100, got {percentile}.")
    return replace(_cutting("rect-grad", rule(r.rect, percentile=percentile)), sparse=True)
