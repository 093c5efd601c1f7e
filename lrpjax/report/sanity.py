"""The figures of the sanity checks: randomised parameters, and the map of another class."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cbook import boxplot_stats
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .._base.upwards import figure_of
from ..auditing import Audit
from ..sanity import CONTROLS, Sanity
from .style import COLOURS, Figure, below, line_styles, name_layers, tidy, together
from .texts import drawn, joined, room

Row = dict[str, Any]

_SIMILARITIES = {
    "ssim": "SSIM (either sign)",
    "ssim-standard": "SSIM",
    "spearman": "Spearman correlation",
    "pearson": "Pearson correlation",
    "cosine": "cosine",
    "hog": "correlation of gradient histograms (HOG)",
}
_CASCADE = "layer that is randomised, with all those to its left"
_ORDERS = {  # title, label of the axis of layers
    "output": ("randomised from the output to the input", _CASCADE),
    "input": ("randomised from the input to the output", _CASCADE),
    "single": ("one layer randomised at a time", "layer that is randomised"),
}
_BAND = ("median", "low", "high")
_ACROSS = 2  # panels side by side, each with its legend
_BESIDE = 40  # letters of a name beside its box
_ROW = 0.33  # inches, a method's box and the gap to the next
_HALF = 0.31  # of the rows' distance, half a box's height
_GREYS, _DASHES, _MARKERS = ("0.35", "0.55", "0.7"), ((0, (5, 2)), (0, (1, 1))), ".x+1"
_INTERVAL = "0.1"


@figure_of.register
def sanity(result: Sanity, **options: Any) -> Figure:
    """The figure of the check that the rows are of: of one, where they are of several."""
    checks = {row["check"] for row in result.rows}
    if "efficient-mprt" in checks:
        return entropy_rise(result, **options)
    return (random_logit if "random-logit" in checks else randomisation)(result, **options)


def randomisation(result: Sanity, *, similarity: str | None = None) -> Figure:
    """How alike the maps stay while layers are randomised: a line and a band for each method.

    Drawn are the rows of `mprt` and `smooth_mprt`. One panel for each order and similarity, or for
    those of the one `similarity`. A cascade starts at 1, the trained network. A median of None
    leaves a gap. Legends go from the most to the least similar at the last layer; methods with the
    same curve and band share a line; controls, and rows with `control` True, are dashed and grey.
    Raises ValueError if there is no row to draw.
    """
    rows = _of_checks(result, ("mprt", "smooth-mprt"), similarity)
    kinds = list(dict.fromkeys(row["similarity"] for row in rows))
    orders = list(dict.fromkeys(row["order"] for row in rows))
    wanted = [(kind, order) for kind in kinds for order in orders]
    parts = [[r for r in rows if (r["similarity"], r["order"]) == pair] for pair in wanted]
    parts = [part for part in parts if part]
    styles = _styles(rows)
    across = min(len(parts), _ACROSS)
    down = -(-len(parts) // across)
    slant = below(row["layer"] for row in rows)
    width, height = across * (9 + slant + room(_names(rows), 28)), down * (5.6 + slant)
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = list(figure.subplots(down, across, squeeze=False).ravel())
    for unused in panels[len(parts) :]:
        unused.remove()
    for panel, part in zip(panels, parts, strict=False):
        _curves(panel, part, styles)
    return figure


def _curves(panel: Axes, rows: list[Row], styles: dict[str, dict[str, Any]]) -> None:
    """The panel of rows of one order and similarity."""
    order = rows[0]["order"]
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    start = [] if order == "single" else ["trained"]
    curves = {}
    for name in _names(rows):
        own = {row["layer"]: row for row in rows if _name(row) == name}
        found = [[own.get(layer, {}).get(value) for layer in layers] for value in _BAND]
        curves[name] = np.array([[1.0] * len(start) + values for values in found], float)
    groups = together({name: curve.ravel() for name, curve in curves.items()})
    for group in sorted(groups, key=lambda group: _falling(curves[group[0]][0, -1])):
        median, low, high = curves[group[0]]
        style = styles[group[0]]
        x = range(len(median))
        panel.fill_between(x, low, high, color=style["color"], alpha=0.12, lw=0)
        panel.plot(x, median, label=joined(group), **style)
    name_layers(panel, [*start, *layers])
    title, label = _ORDERS[order]
    panel.set_title(title, loc="left", fontsize=10)
    panel.set_xlabel(label + _left_out(rows))
    panel.set_ylabel(
        f"{_words(rows)} with the trained network's map\n"
        f"(median of {_images(rows)} images and its 99 % interval)"
    )
    least = np.nanmin(np.concatenate([[0.0], *map(np.ravel, curves.values())]))
    panel.set_ylim(least - 0.05, 1.05)
    tidy(panel)
    panel.legend(
        loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8, title="method"
    )


def random_logit(result: Sanity, *, similarity: str | None = None) -> Figure:
    """How alike the maps of two classes are: a box for each method, the most similar on top.

    Drawn are the rows of `random_logit`. One panel for each similarity, or that of the one
    `similarity`. A box holds the middle half of the images, its whiskers reach to the last image
    within 1.5 times the box, dots are images. Controls, and rows with `control` True, are grey and
    hatched.
    Raises ValueError if there is no row to draw.
    """
    rows = _of_checks(result, ("random-logit",), similarity)
    figure, panels = _boxes(rows)
    for panel, part in panels:
        least = min((value for row in part for value in _values(row)), default=0)
        panel.set_xlim(min(0, least) - 0.02, 1.02)
        same = "the same map" + (" or its negative" if part[0]["similarity"] == "ssim" else "")
        panel.set_xlabel(
            f"{_words(part)} of the maps of two classes, {_images(part)} images\n"
            f"1: the map of another class is {same}"
        )
    return figure


@figure_of.register
def audit(result: Audit) -> Figure:
    """Of an audit: whether another class gives another map, by SSIM."""
    return random_logit(result.of("random-logit"), similarity="ssim")


def entropy_rise(result: Sanity) -> Figure:
    """How much more complex maps become when all parameters are random: a box for each method.

    The rows of `efficient_mprt`, drawn as in `random_logit`.
    Raises ValueError if there is no row to draw.
    """
    figure, ((panel, part),) = _boxes(_of_checks(result, ("efficient-mprt",)))
    panel.axvline(0, color="0.7", lw=1, zorder=0)
    panel.set_xlabel(
        f"rise of the map's entropy, relative, {_images(part)} images\n"
        "0: random parameters make the map no more complex"
    )
    return figure


def _boxes(rows: list[Row]) -> tuple[Figure, list[tuple[Axes, list[Row]]]]:
    """Box plots, a panel for each similarity, with the rows of each from the largest median."""
    kinds = list(dict.fromkeys(row["similarity"] for row in rows))
    parts = [[row for row in rows if row["similarity"] == kind] for kind in kinds]
    width = len(parts) * (8 + 1.4 * room(_names(rows), 28, _BESIDE))
    size = (width, 1.5 + _ROW * max(map(len, parts)))
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(1, len(parts), squeeze=False)[0])
    for panel, part in zip(panels, parts, strict=True):
        part.sort(key=lambda row: _falling(row["median"]))
        for place, row in enumerate(part):
            _box(panel, place, row)
        panel.set_yticks(
            range(len(part)), [drawn(_name(row), _BESIDE) + _count(row) for row in part]
        )
        panel.set_ylim(len(part) - 0.4, -0.6)
        tidy(panel, grid="x")
        panel.set_axisbelow(True)
    figure.legend(handles=_key(rows), loc="outside lower center", ncols=5, frameon=False)
    return figure, list(zip(panels, parts, strict=True))


def _box(panel: Axes, place: int, row: Row) -> None:
    """The box of one method, at the height `place`."""
    values = _values(row)
    if not values:
        panel.text(0.02, place, "no map has structure", va="center", fontsize=8, color="0.35")
        return
    (box,) = boxplot_stats(values)
    face = _face(row)
    panel.hlines(place, box["whislo"], box["whishi"], color=face["edgecolor"], lw=1)
    panel.barh(place, box["q3"] - box["q1"], 2 * _HALF, box["q1"], **face)
    # Spread over the height by the golden ratio, so that neighbours do not cover each other.
    spread = (np.arange(len(values)) * 0.618) % 1 * 0.44 - 0.22
    panel.plot(values, place + spread, color=face["edgecolor"], **_DOT)
    if row["low"] is not None:  # an interval takes two images
        panel.hlines(place, row["low"], row["high"], color=_INTERVAL, lw=3.5)
    panel.vlines(row["median"], place - _HALF, place + _HALF, color=_INTERVAL, lw=1.6)


_DOT: dict[str, Any] = {"linestyle": "", "marker": ".", "markersize": 5, "mew": 0, "alpha": 0.5}


def _face(row: Row) -> dict[str, Any]:
    if row.get("control"):
        return {"facecolor": "0.93", "edgecolor": "0.5", "hatch": "////", "lw": 0.8}
    return {"facecolor": "#CCE3F0", "edgecolor": COLOURS[0], "lw": 0.8}


def _key(rows: list[Row]) -> list[Any]:
    """What the marks of the box plot mean."""
    key: list[Any] = [Patch(label="middle half of the images", **_face({}))]
    if any(row.get("control") for row in rows):
        key.append(Patch(label="of a control", **_face({"control": True})))
    return [
        *key,
        Line2D([], [], color=COLOURS[0], label="an image", **_DOT),
        Line2D([], [], color=_INTERVAL, lw=3.5, label="99 % interval of the median"),
    ]


def _of_checks(result: Sanity, checks: tuple[str, ...], similarity: str | None = None) -> list[Row]:
    """The rows of these checks, and of one similarity if it is given; those of controls say so."""
    found = [row for row in result.rows if row["check"] in checks]
    if not found:
        had = ", ".join(dict.fromkeys(row["check"] for row in result.rows)) or "nothing"
        raise ValueError(
            f"The figure is of rows of {' and '.join(checks)}, but these are of {had}."
        )
    known = list(dict.fromkeys(row["similarity"] for row in found))
    if similarity is not None and similarity not in known:
        raise ValueError(f"There are no rows of {similarity!r}, they have {', '.join(known)}.")
    kept = [row for row in found if similarity in (None, row["similarity"])]
    return [{**row, "control": True} if row["method"] in CONTROLS else row for row in kept]


def _name(row: Row) -> str:
    return f"{row['method']} (control)" if row.get("control") else row["method"]


def _names(rows: list[Row]) -> list[str]:
    """Methods, and behind them controls, which share a method's line and not the other way."""
    ordered = sorted(rows, key=lambda row: bool(row.get("control")))
    return list(dict.fromkeys(map(_name, ordered)))


def _styles(rows: list[Row]) -> dict[str, dict[str, Any]]:
    """A line style for each name."""
    controls = {_name(row) for row in rows if row.get("control")}
    colourful, grey = line_styles(), _grey_styles()
    return {name: next(grey if name in controls else colourful) for name in _names(rows)}


def _grey_styles() -> Iterator[dict[str, Any]]:
    for i in count():
        yield {
            "color": _GREYS[i % len(_GREYS)],
            "linestyle": _DASHES[i % len(_DASHES)],
            "marker": _MARKERS[i % len(_MARKERS)],
            "lw": 1.6,
        }


def _words(rows: list[Row]) -> str:
    similarity: str = rows[0]["similarity"]
    return _SIMILARITIES.get(similarity, similarity)


def _images(rows: list[Row]) -> int:
    return max(len(row["values"]) for row in rows)


def _count(row: Row) -> str:
    """Of how many images a box is, where some have a map without structure."""
    return f" ({len(_values(row))} images)" if row["dropped"] else ""


def _left_out(rows: list[Row]) -> str:
    """A line on the methods some of whose maps have no structure."""
    most: dict[str, int] = {}
    for row in rows:
        most[_name(row)] = max(most.get(_name(row), 0), row["dropped"])
    found = ", ".join(f"{count} of {drawn(name, _BESIDE)}" for name, count in most.items() if count)
    text = f"maps without structure, left out: up to {found}"
    return "\n" + fill(text, 90) if found else ""


def _values(row: Row) -> list[float]:
    return [value for value in row["values"] if value is not None]


def _falling(value: float | None) -> float:
    """The key that sorts from the largest to the smallest, with nothing at the end."""
    return np.inf if value is None or np.isnan(value) else -value
