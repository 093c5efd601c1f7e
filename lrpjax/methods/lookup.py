"""A method by its name, and the table of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax

from .._base import checks, given
from .._base.checks import check_known
from .._base.text import columns
from ..composites import stabilised, uniform
from ..graph.reading import model_of
from ..propagation.entries import FAMILIES, NOTATION, STABILISERS, TABLE
from ..propagation.explainer import Explainer, explainer
from ..propagation.method import Method
from ..propagation.options import require_known


def based(method: str | Explainer) -> Explainer:
    """The method that another is over, as a value."""
    found = get(method) if isinstance(method, str) else explainer(method)
    if not found.nests:
        raise TypeError(f"The base is a method's name or value, got {method!r}.")
    return found


_COMMON = (
    "fold",
    "unknown",
    "start",
    "attention",
    "stabiliser",
)  # what `get` takes for every chain of rules


def get(name: str, **options: Any) -> Any:
    """The method of that name. Any lrp-alphaA-betaB is one, with A - B = 1.

    options: `fold`, `unknown` and `start` as on `Method`; `attention`, how LRP treats products of
    two values: "detached" (the default; CP-LRP: attention and gates are constants, and relevance
    is conserved) or "uniform" (AttnLRP: half to each); `stabiliser`, an absolute number that LRP
    adds to its denominators (default: 1e-9 of the layer's largest for one example); all others go
    to the method's own function (`get("rect-grad", percentile=95)`).
    Raises ValueError for an unknown name, with the nearest ones, or a missing option, and TypeError
    for an option that the method has not, with all that it has, or of another type.
    """
    if not isinstance(name, str):
        raise TypeError(f"A method's name is wanted here, got {given.what(name)}.")
    common = {key: options.pop(key) for key in _COMMON if key in options}
    fits = [(make, found) for spelling, make in FAMILIES if (found := spelling.fullmatch(name))]
    if fits:
        ((make, found),) = fits
        made = _made(name, partial(make, *map(float, found.groups())), options)
    elif name == "tcav":
        raise ValueError(
            "tcav gives a score for each concept, not a map: call lrpjax.tcav(model, images, ...)."
        )
    else:
        check_known("method", name, TABLE)
        made = _made(name, TABLE[name].make, options)
    if common and made.chain is None:
        raise TypeError(
            f"{name} has no option {next(iter(common))!r}: give it to the base method, as in "
            f"base=lrpjax.methods.get(..., {next(iter(common))}=...)."
        )
    attention = common.pop("attention", "detached")
    stabiliser = common.pop("stabiliser", None)
    if stabiliser is not None:
        checks.check_least(0, stabiliser=stabiliser)
    made = _with_attention(replace(made, **common), attention)
    if stabiliser is None:
        return made
    if not stabiliser > 0:
        raise ValueError(f"stabiliser must be greater than 0, got {stabiliser}.")
    return replace(made, composite=stabilised(made.composite, stabiliser))


def _made(name: str, make: Callable, options: dict[str, Any]) -> Any:
    is_chain = name not in TABLE or TABLE[name].chain
    require_known(name, make, options, _COMMON if is_chain else ())
    return make(**options)


def _with_attention(method: Any, attention: str) -> Any:
    if attention not in ("detached", "uniform"):
        raise ValueError(f'attention is "detached" or "uniform", got {attention!r}.')
    if attention == "detached":
        return method
    name = f"{method.name} (uniform attention)"
    return replace(method, name=name, composite=uniform(method.composite))


def resolve(method: Any, model: Any, *, key: jax.Array | None = None) -> Explainer:
    """The method as a value. What a method needs of a model, its `input_range` or its `patterns`,
    is taken from there; a key, for one that draws, is the one given here."""
    if not isinstance(method, str):
        return explainer(method)
    needs = TABLE[method].needs if method in TABLE else ""
    if needs == "key" and key is not None:
        return get(method, key=key)
    given = getattr(model_of(model), needs, None) if needs in ("input_range", "patterns") else None
    if given is None:
        return get(method)
    if needs == "patterns":
        return get(method, patterns=given)
    return get(method, low=given[0], high=given[1])


def resolve_chain(method: str | Method, model: Any) -> Method:
    """As `resolve`; ValueError for a method that is no chain of rules."""
    found = resolve(method, model)
    if found.chain is None:
        raise ValueError(
            f"{found.name} is not a chain of rules: it explains a target with lrpjax.attribute."
        )
    return found.chain


def table() -> str:
    """Every named method with its formula and its source, as text."""
    rows = [{"method": n, "formula": e.formula, "source": e.source} for n, e in TABLE.items()]
    return f"{columns(rows)}\n\n{NOTATION}\n\n{STABILISERS}"
