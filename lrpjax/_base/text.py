"""Plain text tables: they are never cut to a terminal's width, and grep reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def columns(rows: Sequence[Mapping[str, str]]) -> str:
    """The rows under their keys, in aligned columns."""
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    lines = ["  ".join(f"{key:{widths[key]}}" for key in rows[0])]
    lines += ["  ".join(f"{row[key]:{widths[key]}}" for key in rows[0]) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def arrays(leaves: Iterable[Any]) -> str:
    """float32[2, 3], int32[2]: what has a dtype and a shape, in words."""
    return ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves)
