"""What is known of each named method, said above the function that makes it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import getdoc
from typing import Any, Literal

from .options import checked

NOTATION = """\
c_ij = W_ij x_j is what input j contributes to output i, + and - are positive and negative parts,
and D is the difference from a baseline x0."""

STABILISERS = """\
No denominator d of LRP is 0: it counts as d + s sign(d) with s = 1e-9 max |d|, the maximum over a
layer's outputs of one example. A number that you give is absolute: epsilon, in every method that
has one (1e-6; 1e-10 in lrp-cmp), and get(..., stabiliser=1e-9), in place of s. In DeepLIFT a
difference counts as none below 1e-7 max |x|, the maximum over a layer's inputs of one example, or
below the absolute near_zero= that you give."""

# Whether chains of matrices collapse to rank 1.
SEEN = "no proof; observed"
NOT_LINEAR = "not linear; ignores later layers otherwise"


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    make: the method's function. needs: what it takes from the model where the model has it.
    chain: whether it is a chain of rules. conserves, converges: whether relevance is conserved, and
    whether its chain of matrices is expected to collapse to rank 1, in words.
    """

    make: Callable[..., Any]
    formula: str
    source: str
    conserves: str
    converges: str
    needs: Literal["", "input_range", "patterns", "key", "layer"] = ""
    chain: bool = True


TABLE: dict[str, Entry] = {}
FAMILIES: list[
    tuple[re.Pattern, Callable[..., Any]]
] = []  # a name that holds numbers, the function


def spelled(name: str) -> Callable[[Callable], Callable]:
    """Lists a function under every name of a spelling, whose groups are its first arguments."""

    def enter(make: Callable) -> Callable:
        FAMILIES.append((re.compile(name), make))
        return make

    return enter


def named(
    name: str,
    formula: str,
    source: str,
    conserves: str,
    converges: str,
    *,
    needs: Literal["", "input_range", "patterns", "key", "layer"] = "",
    chain: bool = True,
    arguments: tuple[Any, ...] = (),
) -> Callable[[Callable], Callable]:
    """Lists a function under a name, and says in its docstring what the table says.

    arguments: the function's first, where it makes a family of which this name is one. Such a
    function has a row, and a decorator, for each of its names.
    """

    def enter(make: Callable) -> Callable:
        make = checked(make)
        made = partial(make, *arguments) if arguments else make
        TABLE[name] = Entry(made, formula, source, conserves, converges, needs, chain)
        make.__doc__ = _said(getdoc(make) or "", formula, source, chain)
        return make

    return enter


def _said(own: str, formula: str, source: str, chain: bool) -> str:
    """The docstring of a function that has one row, or one more."""
    first = f"{formula}. {source}."
    if first in own:
        return own
    if formula in own:
        return own.replace(formula, f"{formula}. {source}", 1).replace(f"{source}. ", f"{source}; ")
    if _COMMON in own:
        return f"{first}\n{own}"
    parts = [first, own, NOTATION if "c_ij" in formula or "D" in formula else ""]
    return "\n\n".join(part for part in (*parts, _COMMON if chain else "") if part)


_COMMON = """\
`lrpjax.methods.get` also takes what every chain of rules takes: fold, unknown, start, attention and
stabiliser."""
