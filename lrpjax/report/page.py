"""One HTML page that holds all it shows: tables that sort, figures, settings and files to save.

What is passed in is plain text, and escaped. The page loads nothing, not even from beside itself:
figures and files are data URIs, and its content security policy lets only its own script run.
Without scripts everything can be read; only sorting and copying are gone.
"""

from __future__ import annotations

import csv
import json
import math
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import resources
from io import StringIO
from itertools import count
from numbers import Real
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from matplotlib.figure import Figure

from .._base.text import NOTHING, cell, visible, words
from .embed import as_bytes, figure_size, figure_uri, file_uri

LEVELS = ("ignores", "doubt", "depends", "failed", "control")  # in the order in which they sort

_FORMULA = tuple("=+-@\t\r")  # what a formula of a spreadsheet begins with

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Column:
    """A column of a table. field: the key of its cells in the rows. hint: what it means, shown when
    the heading is pointed at or its question mark is tapped, and below the table.

    A cell is a text, a number, None (an en dash, last in either order), or a pair of a number and
    the text to show for it. In a column of kind "verdict" it is {"level": ..., "text": ...}, with a
    level of `LEVELS`. Columns of kind "number" and "verdict" sort by value, others by their text.
    """

    field: str
    title: str
    hint: str = ""
    kind: Literal["text", "number", "verdict"] = "text"


@dataclass(frozen=True)
class Picture:
    """A figure, what it shows, and the words that stand for it where it cannot be seen."""

    figure: Figure
    caption: str
    alt: str


@dataclass(frozen=True)
class Section:
    """A part of the page below its heading. text: paragraphs with blank lines between them."""

    title: str
    text: str = ""
    pictures: Sequence[Picture] = ()
    table: tuple[Sequence[Column], Rows] | None = None


def page(
    *,
    title: str,
    lead: str,
    columns: Sequence[Column],
    rows: Rows,
    sections: Sequence[Section],
    settings: Mapping[str, Any],
    reproduce: str,
    files: Mapping[str, str],
) -> str:
    """The page as text, to be written as UTF-8.

    lead: paragraphs below the title. columns and rows: of the table that stands first; its first
    column names the rows. settings: numbers, texts, and lists and mappings of them. reproduce: the
    command or code that gives the same results. files: name and content of the files that readers
    can save, empty for none.
    Raises ValueError for a row without a column's field, an unknown level, and a picture without
    alternative text.
    """
    tables = count()
    script = _source("page.js")
    return _template().render(
        title=title,
        lead=_paragraphs(lead),
        summary=_table(next(tables), columns, rows),
        sections=[_section(section, tables) for section in sections],
        settings={name: words(value) for name, value in settings.items()},
        reproduce=reproduce,
        files=[
            {"name": name, "size": _size(content), "uri": file_uri(name, content)}
            for name, content in files.items()
        ],
        style=_source("page.css"),
        script=script,
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
    )


def csv_text(rows: Rows) -> str:
    """The rows as CSV, with a heading: every key of any row, in order of first appearance.

    Lists, tuples and mappings become JSON in their cell; None and a missing key an empty cell. A
    text that a spreadsheet would take for a formula (=, +, -, @, a tab or a return in front) has an
    apostrophe in front, which it does not show; numbers stay numbers.
    """
    fields = list(dict.fromkeys(field for row in rows for field in row))
    if not fields:
        return ""
    stream = StringIO()
    writer = csv.DictWriter(stream, fields)  # with the ends of lines of RFC 4180
    writer.writerow({field: _text(field) for field in fields})
    writer.writerows({field: _flat(value) for field, value in row.items()} for row in rows)
    return stream.getvalue()


def _flat(value: Any) -> Any:
    if isinstance(value, list | tuple | Mapping):
        return json.dumps(value)
    return _text(value) if isinstance(value, str) else value


def _text(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("lrpjax.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


@cache
def _source(name: str) -> str:
    return resources.files("lrpjax.report").joinpath(name).read_text(encoding="utf-8")


def _paragraphs(text: str) -> list[str]:
    return [paragraph for paragraph in re.split(r"\n\s*\n", text.strip()) if paragraph]


def _section(section: Section, tables: Iterator[int]) -> dict[str, Any]:
    table = None
    if section.table is not None:
        columns, rows = section.table
        table = _table(next(tables), columns, rows)
    return {
        "title": section.title,
        "text": _paragraphs(section.text),
        "pictures": [_picture(picture) for picture in section.pictures],
        "table": table,
    }


def _picture(picture: Picture) -> dict[str, Any]:
    if not picture.alt.strip():
        raise ValueError(f"The picture {picture.caption!r} has no alternative text: set its alt.")
    width, height = figure_size(picture.figure)
    try:
        uri = figure_uri(picture.figure)
    except Exception as error:  # whatever matplotlib raises, the numbers are not lost for it
        return {"failed": f"{type(error).__name__}: {error}", "caption": picture.caption}
    return {
        "failed": "",
        "uri": uri,
        "alt": picture.alt,
        "caption": picture.caption,
        "width": width,
        "height": height,
    }


@dataclass(frozen=True)
class _Cell:
    """What a cell shows, the number that it sorts by if it has one, and the level of a verdict."""

    text: str
    value: str | None = None
    level: str | None = None
    missing: bool = False


def _table(number: int, columns: Sequence[Column], rows: Rows) -> dict[str, Any]:
    """A table as the template takes it; `levels` counts its verdicts."""
    for i, row in enumerate(rows, 1):
        for column in columns:
            if column.field not in row:
                raise ValueError(
                    f"Row {i} has no {column.field!r}, which the column {column.title!r} shows: "
                    "give it, or None."
                )
    body = [[_cell(column, row[column.field]) for column in columns] for row in rows]
    found = Counter(cell.level for cells in body for cell in cells)
    return {
        "number": number,
        "columns": columns,
        "rows": body,
        "levels": {level: found[level] for level in LEVELS if found[level]},
    }


def _cell(column: Column, given: Any) -> _Cell:
    if given is None:
        return _Cell(NOTHING, missing=True)
    if column.kind == "verdict":
        return _verdict(column, given)
    value, text = given if isinstance(given, tuple) else (given, None)
    shown = cell(value) if text is None else text
    return _Cell(shown, value=_sortable(value) if column.kind == "number" else None)


def _verdict(column: Column, given: Mapping[str, str]) -> _Cell:
    level, text = given["level"], given["text"]
    if level not in LEVELS:
        raise ValueError(
            f"There is no level {level!r}, in the column {column.title!r}: use one of "
            f"{', '.join(LEVELS)}."
        )
    # The badge says the level's word: a text that begins with it goes on from there.
    rest = re.sub(rf"^{level}\b[\s:;,.]*", "", text, flags=re.IGNORECASE)
    return _Cell(rest, value=str(LEVELS.index(level)), level=level)


def _sortable(value: Any) -> str | None:
    """The number as JavaScript reads it; None for what is no number, and sorts last."""
    if not isinstance(value, Real) or math.isnan(value):
        return None
    return repr(float(value)).replace("inf", "Infinity")


def _size(content: str) -> str:
    """How large a file is, in the units of file managers."""
    size = float(len(as_bytes(content)))
    for unit in ("bytes", "kB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} MB"
