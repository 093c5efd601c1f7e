"""The table of some rows, as texts, and as HTML for Jupyter."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from .text import cell

Cells = list[dict[str, str]]
_LEFT = 'style="text-align:left;padding-right:1em"'


def cells(rows: Sequence[Mapping[str, Any]], names: Sequence[str] = ()) -> Cells:
    """What the columns of these names show of the rows: those that any row has, and an empty text
    where one has not. No names: all columns that hold no lists and mappings."""
    found = list(dict.fromkeys(name for row in rows for name in row))
    if names:
        kept = [name for name in names if name in found]
    else:
        kept = [name for name in found if not any(_is_nested(row.get(name)) for row in rows)]
    return [{name: cell(row[name]) if name in row else "" for name in kept} for row in rows]


def as_html(table: Sequence[Mapping[str, str]], lines: Sequence[str] = ()) -> str:
    """The table, and lines of text below it. All texts are escaped."""
    rows = [_row("td", row.values()) for row in table]
    head = _row("th", table[0]) if table else ""
    below = "".join(f'<p style="white-space:pre-wrap">{escape(line)}</p>' for line in lines)
    return (
        f'<div style="overflow-x:auto"><table><thead>{head}</thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{below}"
    )


def as_image(png: bytes, alt: str) -> str:
    source = f"data:image/png;base64,{b64encode(png).decode()}"
    return f'<img src="{source}" alt="{escape(alt)}" style="max-width:100%">'


def _row(tag: str, texts: Any) -> str:
    return f"<tr>{''.join(f'<{tag} {_LEFT}>{escape(text)}</{tag}>' for text in texts)}</tr>"


def _is_nested(value: Any) -> bool:
    return isinstance(value, list | tuple | Mapping)
