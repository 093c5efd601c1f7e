"""Plain text tables: they are never cut to a terminal's width, and grep reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any
from unicodedata import category

NOTHING = "\N{EN DASH}"  # what is not known


def columns(rows: Sequence[Mapping[str, str]]) -> str:
    """The rows under their keys, in aligned columns."""
    table = [list(rows[0]), *([row[key] for key in rows[0]] for row in rows)]
    shown = [[visible(text, "") for text in line] for line in table]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = [
        "  ".join(f"{text:{width}}" for text, width in zip(line, widths, strict=True))
        for line in shown
    ]
    return "\n".join(line.rstrip() for line in lines)


# Letters that are not seen, or that turn those behind them round: controls, halves of pairs (what
# is no UTF-8 in a file's name), ends of lines and paragraphs, and the marks of direction.
_UNSEEN = {"Cc", "Cs", "Zl", "Zp"}
_TURNING = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A)), "\u200e", "\u200f"}


def visible(text: Any, kept: str = "\n\t") -> str:
    """A text with what is not seen as an escape, "\\x1b", but for the letters `kept`."""
    return "".join(
        escaped(letter) if letter not in kept and _is_unseen(letter) else letter
        for letter in str(text)
    )


def _is_unseen(letter: str) -> bool:
    return letter in _TURNING or category(letter) in _UNSEEN


def escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


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


def printable(text: str) -> str:
    """A text whose control characters, and bytes of a file's name that are no text, are escaped."""
    return "".join(c if c.isprintable() else escaped(c) for c in text)
