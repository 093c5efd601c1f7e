"""A page with everything on it, in which every text tries to break out of its place."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from lrpjax.report.page import Column, Picture, Section

HOSTILE = (
    """</script></style><script>window.broken = 1</script>'">"""
    """<img src=x onerror="window.broken = 1"><b>&amp; {{ 7 * 7 }} --> ]]>"""
)
MANY = 8_000  # points of a chart that is larger as SVG than as PNG


def line_chart() -> Figure:
    figure = Figure(figsize=(9, 5))
    figure.subplots().plot([0, 1, 2], [1, 3, 2])
    return figure


def crowded_chart() -> Figure:
    figure = Figure(figsize=(4, 3))
    x, y = np.random.default_rng(0).normal(size=(2, MANY))
    figure.subplots().scatter(x, y, s=1)
    return figure


def heat_map() -> Figure:
    figure = Figure(figsize=(3, 2))
    figure.subplots().imshow(np.arange(12.0).reshape(3, 4), cmap="seismic")
    return figure


COLUMNS = (
    Column("method", "method"),
    Column("verdict", "verdict", "what the checks amount to", kind="verdict"),
    Column("ssim", "other </th><b>class</b>", "hint " + HOSTILE, kind="number"),
    Column("csc", "1 - CSC", "0: blind", kind="number"),
    Column("note", "note"),
)


def _row(method, level, text, ssim, csc, note):
    return {
        "method": method,
        "verdict": {"level": level, "text": text},
        "ssim": ssim,
        "csc": csc,
        "note": note,
    }


# Equal values, missing ones, infinity, other texts than the values, and names with numbers.
ROWS = [
    _row("lrp-alpha10-beta9", "doubt", "Doubt: the last layer", 0.25, (6e-6, "1-6e-6"), "b"),
    _row("lrp-alpha2-beta1", "depends", "another map", (0.5, "one half"), (0.25, "0.25"), None),
    _row("gradient", "control", "known good", -1.5, None, "a"),
    _row(HOSTILE, "ignores", HOSTILE, 0.25, (2e-9, "<i>2e-9"), HOSTILE),
    _row("broken", "failed", "", None, None, "a"),
    _row("lrp-zplus", "ignores", "ignores the later layers", 12, float("inf"), "B"),
    _row("unclear", "doubt", "doubt", "not run", float("nan"), None),
    _row("plenty", "depends", "another map", 1234567, (0.0, "0"), "c"),
]

FILES = {
    "audit.json": '{"a": "</script>\N{GREEK SMALL LETTER ALPHA}", "b": [1, 2]}\n',
    "audit.csv": 'method,note\n"a,b","c ""d"""\n',
    "notes.txt": HOSTILE,
}

CONTENT = {
    "title": "Audit " + HOSTILE,
    "lead": f"First paragraph.\n \n\nSecond {HOSTILE}\nof two lines.\n",
    "columns": COLUMNS,
    "rows": ROWS,
    "sections": [
        Section(
            "Charts " + HOSTILE,
            "One.\n\nTwo " + HOSTILE,
            [
                Picture(line_chart(), "a line " + HOSTILE, "alt of the line " + HOSTILE),
                Picture(heat_map(), "a heat map", "alt of the map"),
            ],
        ),
        Section("Charts " + HOSTILE, pictures=[Picture(crowded_chart(), "a cloud", "alt")]),
        Section("A table", table=(COLUMNS[:3], ROWS[:2])),
    ],
    "settings": {
        HOSTILE: HOSTILE,
        "methods": ["a", "b"],
        "versions": {"jax": "0.8", "numpy": 2},
        "start": None,
        "whole": True,
    },
    "reproduce": "lrpjax audit \\\n    --out " + HOSTILE,
    "files": FILES,
}
