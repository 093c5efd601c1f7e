"""The figure of a model's pattern spectrum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .._base.upwards import figure_of
from ..convergence import PatternSpectrum
from .style import Figure, below, having_rows, tidy
from .texts import LAYER, drawn

# Okabe and Ito's colours; markers and dashes tell the lines apart in black and white.
_WEIGHTS = {"color": "#000000", "marker": "o", "linestyle": "--", "label": "W (gradient)"}
_PRODUCT = {"color": "#D55E00", "marker": "s", "label": "W * A (PatternAttribution)"}
_PATTERN = {"color": "#0072B2", "marker": "^", "label": "A, all taps (PatternNet)"}
_FEW_LAYERS = 20


@figure_of.register
def pattern_spectrum(result: PatternSpectrum) -> Figure:
    """sigma_1 / sigma_2 of the matrices of each layer, and of the links between consecutive ones.

    Where a ratio is not resolved there is a gap.
    """
    having_rows(result)
    names = result.settings["layers"]
    links = [row["layers"] for row in result.select("link", "W")]
    ticks = [" \u2192 ".join(pair) for pair in links]
    figure = Figure(figsize=(12.5, 5 + below([*names, *ticks])), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for part, matrix, style in (
        ("layer", "W", _WEIGHTS),
        ("layer", "W*A", _PRODUCT),
        ("full", "A", _PATTERN),
    ):
        _draw(left, [row["ratio"] for row in result.select(part, matrix)], style)
    _finish(left, names, "layer by layer: the matrices of the centre tap")
    left.set_ylabel("$\\sigma_1 / \\sigma_2$: how much one direction dominates")

    jumps = [i for i in range(1, len(links)) if links[i][0] != links[i - 1][1]]
    for matrix, style in (("W", _WEIGHTS), ("W*A", _PRODUCT)):
        ratios = [row["ratio"] for row in result.select("link", matrix)]
        _draw(right, ratios, {**style, "label": _product(result, matrix)}, jumps)
    _finish(right, ticks, "from layer to layer: the links of the chain")
    return figure


def _product(result: PatternSpectrum, matrix: str) -> str:
    """The matrix and, where there is one chain, what the ratios of its links multiply to."""
    name = matrix.replace("*", " * ")
    found = [row["log10_links"] for row in result.summary if row["matrix"] == matrix]
    if len(found) != 1 or found[0] is None:
        return name
    return f"{name}: product of all {10 ** found[0]:.3g}"


def _draw(panel: Axes, ratios: list[float | None], style: dict, jumps: Sequence[int] = ()) -> None:
    """A line through the ratios, broken in front of each number in `jumps`."""
    x = np.insert(np.arange(len(ratios)), jumps, 0)
    y = np.insert([np.nan if ratio is None else ratio for ratio in ratios], jumps, np.nan)
    panel.plot(x, y, lw=1.6, markersize=6.5, markeredgecolor="white", **style)


def _finish(panel: Axes, ticks: list[str], title: str) -> None:
    many = len(ticks) > _FEW_LAYERS
    size = max(3.5, min(9, 160 / max(1, len(ticks))))
    panel.set_xticks(
        range(len(ticks)),
        [drawn(t, LAYER) for t in ticks],
        fontsize=size,
        ha="center" if many else "right",
    )
    panel.tick_params("x", rotation=90 if many else 40)
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.set_title(title, loc="left", fontsize=10)
    tidy(panel)
    panel.legend(frameon=False, fontsize=8)
