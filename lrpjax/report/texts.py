"""Names and other texts of users as figures show them: whatever they hold, and not too long.

A figure has all of its texts from here: matplotlib reads what stands between two $ as a formula,
leaves out labels that begin with _, and makes room for a text of any length until no room is left.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from textwrap import fill
from typing import Any

from .._base.text import visible

NAME = 48  # letters of a name in a legend or on an axis
LINES = 3  # that a name may be broken into
LAYER = 56  # letters of a layer's name on an axis
_LETTER = 0.085  # inches, a wide one
_GAP = "\N{HORIZONTAL ELLIPSIS}"


def drawn(text: Any, letters: int = NAME) -> str:
    """A text in one line, of no more letters than these: what is too long loses its middle."""
    return _literal(_shortened(visible(text, ""), letters))


def joined(names: Iterable[Any]) -> str:
    """The names of one line of a figure, below each other."""
    return "\n= ".join(map(drawn, names))


def wrapped(text: Any, letters: int, *, whole: bool = False) -> str:
    """Each line of a text broken into lines of so many letters, and no more than a few of them.

    whole: whether words that are only a little longer stay whole.
    """
    return _literal("\n".join(_broken(line, letters, whole) for line in str(text).splitlines()))


def room(texts: Iterable[Any], usual: int, most: int = NAME) -> float:
    """The inches that texts need which are longer than usual, and no longer than `most` letters."""
    longest = max((len(visible(text, "")) for text in texts), default=0)
    return _LETTER * max(0, min(longest, most) - usual)


def _broken(line: str, letters: int, whole: bool) -> str:
    kept = _shortened(visible(line, ""), LINES * letters)
    longest = max(map(len, re.split(r"[\s-]", kept)))
    if whole and longest <= 1.5 * letters:
        return fill(kept, letters, break_long_words=False)
    return fill(kept, round(0.75 * letters) if whole else letters)


def _shortened(text: str, letters: int) -> str:
    if len(text) <= letters:
        return text
    end = (letters - 1) // 2
    return f"{text[: letters - 1 - end]}{_GAP}{text[-end:]}"


def _literal(text: str) -> str:
    """What matplotlib draws as this text."""
    hidden = text.startswith("_")
    return "\N{HAIR SPACE}" * hidden + text.replace("$", r"\$")
