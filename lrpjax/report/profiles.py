"""The figure of a profile: singular values, cosines and exponents of chains, against depth."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from .._base.upwards import figure_of
from ..convergence import Profile
from .style import COLOURS, Figure, below, having_rows, tidy
from .texts import LAYER, drawn, room

_MARKERS = "os^Dv<>"
_SCOPES = {"map": "over the whole map", "location": "at each location, over the channels"}


@figure_of.register
def profile(result: Profile) -> Figure:
    """1 - |cos| as measured and as the singular values lead one to expect, and the Lyapunov gap.

    One colour for each method; of one injection layer.
    """
    starts = list(dict.fromkeys(row["start"] for row in having_rows(result)))
    if len(starts) != 1:
        raise ValueError(
            f"The figure is of one injection layer, the rows have {', '.join(starts)}."
        )
    methods = list(dict.fromkeys(row["method"] for row in result.rows))
    layers = list(dict.fromkeys(row["layer"] for row in result.rows))
    figure = Figure(figsize=(17 + room(methods, 24), 5.2 + below(layers)), layout="constrained")
    panels = figure.subplots(1, 3)
    for panel, (scope, words) in zip(panels, _SCOPES.items(), strict=False):
        for number, method in enumerate(methods):
            rows = [row for row in result.rows if row["method"] == method]
            x = [layers.index(row["layer"]) for row in rows]
            style = _style(number)
            panel.plot(x, _values(rows, f"{scope}_csc"), **style)
            expected = {**style, "linestyle": (0, (2, 1.5)), "markerfacecolor": "white", "lw": 1.1}
            panel.plot(x, _values(rows, f"{scope}_expected"), **expected)
        _upside_down(panel)
        _finish(panel, layers, words)
    panels[0].set_ylabel("median of 1 - |cos|: higher is closer to rank 1")
    for number, method in enumerate(methods):
        rows = [row for row in result.rows if row["method"] == method]
        linked = [row for row in rows if row["total_gap"] is not None]
        x = [layers.index(row["layer"]) for row in linked]
        total = _values(linked, "total_gap") / np.log(10)
        panels[2].plot(x, total, label=drawn(method), **_style(number))
    panels[2].set_ylabel("log10 of $\\sigma_1 / \\sigma_2$ so far, link by link")
    _finish(panels[2], layers, "growth of the gap down the chain (Lyapunov)")
    kinds = [
        Line2D([], [], color="0.3", marker="o", label="measured (CSC)"),
        Line2D(
            [],
            [],
            color="0.3",
            marker="o",
            markerfacecolor="white",
            linestyle=(0, (2, 1.5)),
            label="expected, $2 (\\sigma_2 / \\sigma_1)^2$",
        ),
    ]
    figure.legend(
        handles=[*panels[2].get_lines(), *kinds], loc="outside right center", frameon=False
    )
    figure.suptitle(
        f"random relevance injected at {drawn(starts[0])}", x=0.01, ha="left", fontsize=11
    )
    return figure


def _values(rows: list[dict], field: str) -> np.ndarray:
    """A gap in the line where a row has no value."""
    return np.array([np.nan if row[field] is None else row[field] for row in rows], float)


def _style(number: int) -> dict:
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "markersize": 5.5,
        "lw": 1.7,
    }


def _upside_down(panel: Axes) -> None:
    panel.set_yscale("log")
    panel.invert_yaxis()
    exponent = lambda value, _: f"{value:.0e}".replace("e-0", "e-").replace("e+00", "")
    panel.yaxis.set_major_formatter(FuncFormatter(exponent))


def _finish(panel: Axes, layers: list[str], title: str) -> None:
    many = len(layers) > 20
    shown = [drawn(layer, LAYER) for layer in layers]
    panel.set_xticks(range(len(layers)), shown, fontsize=max(3.5, min(9, 200 / len(layers))))
    panel.tick_params("x", rotation=90 if many else 40)
    panel.set_title(title, loc="left", fontsize=10)
    tidy(panel)
