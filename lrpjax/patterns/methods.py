"""The functions that make the methods of fitted patterns, each with its row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .. import rules as r
from ..propagation.entries import SEEN, named
from ..propagation.method import Method, backprop
from ..rules import patterns as own
from ..rules import rule
from .fitting import Patterns


@named(
    "pattern-net",
    "J^T with patterns A for the weights W",
    "Kindermans et al. 2018",
    "no",
    SEEN,
    needs="patterns",
)
def pattern_net(patterns: Patterns | None = None) -> Method:
    """patterns: of this model, from `lrpjax.patterns.fit` or `lrpjax.patterns.load`."""
    return _with_patterns("pattern-net", _fitted("pattern-net", patterns).a, own.pattern)


@named(
    "pattern-attribution",
    "J^T with A * W for the weights W",
    "Kindermans et al. 2018",
    "no",
    SEEN,
    needs="patterns",
)
def pattern_attribution(patterns: Patterns | None = None, *, frozen: bool = False) -> Method:
    """patterns: as in `pattern_net`.

    frozen: multiply by the weights the patterns were fitted with, whatever the model's are now,
    as the paper's code did."""
    fitted = _fitted("pattern-attribution", patterns)
    if not frozen:
        return _with_patterns("pattern-attribution", fitted.a, own.pattern_times_weights)
    products = {name: a * fitted.w[name] for name, a in fitted.a.items()}
    return _with_patterns("pattern-attribution (frozen)", products, own.pattern)


def _fitted(name: str, patterns: Patterns | None) -> Patterns:
    if patterns is None:
        raise ValueError(
            f"{name} needs patterns of the model: use lrpjax.methods.get({name!r}, "
            "patterns=lrpjax.patterns.fit(model, images))."
        )
    if not isinstance(patterns, Patterns):
        raise TypeError(
            f"The patterns come from lrpjax.patterns.fit or .load, got {type(patterns).__name__}."
        )
    return patterns


def _with_patterns(name: str, patterns: dict[str, Any], function: Callable) -> Method:
    made = backprop(
        name,
        "logit",
        dense=rule(function),
        conv=rule(function),
        activation=rule(own.derivative),
        structure=rule(r.moved),
        choice=rule(r.moved),
        add=rule(r.add_copy),
        max_pool=rule(r.winner_takes_all),
    )
    return replace(made, patterns=patterns, derivative=False)
