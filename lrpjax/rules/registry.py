"""What is covered without your help, and how to cover more."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from .._base.compat import primitive_names
from .._base.text import columns
from ..graph import KINDS, REGISTERED, covered
from .protocol import Rule
from .protocol import rule as make_rule


def register(primitive: Any, rule: Rule | Callable | None) -> None:
    """Gives every primitive of that name ("sin") a rule in every method that has none for it and
    has no baseline (DeepLIFT: a rule moves relevance, and what travels there are multipliers).

    primitive: a name of JAX's, or a JAX primitive, also one of your own. rule: a `Rule`, a function
    of your own (op, *inputs, output) -> pull, or None to take it away again. It counts only where a
    primitive is read as an unknown layer (see `lrpjax.plan`): for a layer that lrpjax reads, use a
    composite. It holds for the whole process. Raises ValueError for a name of no primitive.
    """
    name = getattr(primitive, "name", primitive)
    if not isinstance(name, str):
        raise TypeError(f"The primitive is a name such as 'sin' or a JAX primitive, got {name!r}.")
    known = {*primitive_names(), *REGISTERED}
    if name is primitive and name not in known:
        near = get_close_matches(name, known, 3, 0.4)
        raise ValueError(
            f"JAX names no primitive {name!r}"
            + (f"; the nearest are {', '.join(near)}" if near else "")
            + ": take the name that lrpjax.plan shows, or pass the primitive itself."
        )
    if rule is None:
        REGISTERED.pop(name, None)
    elif isinstance(rule, Rule):
        REGISTERED[name] = rule
    elif callable(rule):
        REGISTERED[name] = make_rule(rule)
    else:
        raise TypeError(f"The rule is an lrpjax.rules.rule(...) or a function, got {rule!r}.")


def coverage() -> list[dict[str, str]]:
    """Rows (kind, primitives, lrp): what each kind of layer is read from, and how LRP treats it.

    For activations the functions that are recognised stand in the place of primitives.
    """
    return [
        {"kind": kind, "primitives": " ".join(names), "lrp": KINDS[kind].lrp}
        for kind, names in covered().items()
    ]


def table() -> str:
    """`coverage` as text, and what has been registered."""
    registered = {"kind": "registered", "primitives": " ".join(REGISTERED), "lrp": "as registered"}
    return columns(coverage() + ([registered] if REGISTERED else []))
