"""Plain text tables: they are never cut to a terminal's width, and grep reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def columns(rows: Sequence[Mapping[str, str]]) -> str:
    """The rows under their keys, in aligned columns."""
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    lines = ["  ".join(f"{key:{widths[key]}}" for key in rows[0])]
    lines += ["  ".join(f"{row[key]:{widths[key]}}" for key in rows[0]) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
