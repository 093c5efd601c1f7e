"""Plain text tables: they are never cut to a terminal's width, and grep reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

NOTHING = "\N{EN DASH}"  # what is not known


def columns(rows: Sequence[Mapping[str, str]]) -> str:
    """The rows under their keys, in aligned columns."""
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    lines = ["  ".join(f"{key:{widths[key]}}" for key in rows[0])]
    lines += ["  ".join(f"{row[key]:{widths[key]}}" for key in rows[0]) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def cell(value: Any) -> str:
    """What a table shows of a value: a number in three digits, an integer in all of its own, and
    anything else as its words."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return words(value)
    if isinstance(value, Integral):
        return str(value)
    mantissa, e, exponent = f"{float(value):.3g}".partition("e")
    return mantissa + (e and f"e{int(exponent)}")


def words(value: Any) -> str:
    """Numbers, texts, and lists and mappings of them, whole; a dash for None."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {words(own)}" for name, own in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(words, value))
    return str(value)


def arrays(leaves: Iterable[Any]) -> str:
    """float32[2, 3], int32[2]: what has a dtype and a shape, in words."""
    return ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves)
