"""Figures. Each function takes results and returns a matplotlib figure; `save` writes it."""

from __future__ import annotations

from math import nan
from os import PathLike
from pathlib import Path

from matplotlib.ticker import FuncFormatter

from .._base.files import writing
from .._base.upwards import figure_of
from ..convergence import CSC
from .grids import cascade as cascade
from .grids import two_classes as two_classes
from .heatmaps import heatmap as heatmap
from .heatmaps import sheet as sheet
from .pictures import normalise as normalise
from .profiles import profile as profile
from .sanity import entropy_rise as entropy_rise
from .sanity import random_logit as random_logit
from .sanity import randomisation as randomisation
from .simulated import simulation as simulation
from .spectra import pattern_spectrum as pattern_spectrum
from .style import Figure, below, having_rows, line_styles, name_layers, tidy, together
from .texts import drawn, joined, room

__all__ = [
    "cascade",
    "csc",
    "entropy_rise",
    "heatmap",
    "normalise",
    "pattern_spectrum",
    "profile",
    "random_logit",
    "randomisation",
    "save",
    "sheet",
    "simulation",
    "two_classes",
]
_ACROSS = 3  # panels side by side
_FLOOR = 1e-8  # of 1 - median in the logarithmic figure, as in the paper


@figure_of.register
def csc(result: CSC, *, scale: str = "linear") -> Figure:
    """Median |cos| against depth, one panel for each injection layer, one line for each method.

    scale "linear": the median, with the baseline of independent vectors in grey. "log": 1 - median
    on an inverted logarithmic axis down to 1 - 1e-8: higher means closer to rank 1. Where relevance
    has no direction (layers with one channel, or all of it zero) a line has a gap.
    """
    if scale not in ("linear", "log"):
        raise ValueError(f'The scale is "linear" or "log", got {scale!r}.')
    rows = having_rows(result)
    directed = {row["layer"] for row in rows if row["undirected"] is None}
    shown = [row for row in rows if row["layer"] in directed or not directed]
    starts = list(dict.fromkeys(row["start"] for row in shown))
    across = min(len(starts), _ACROSS)
    down = -(-len(starts) // across)
    methods = list(dict.fromkeys(row["method"] for row in shown))
    slant = below(row["layer"] for row in shown)
    width = 2.6 + (6.4 + slant) * across + room(methods, 28)
    height = down * (5.4 + slant)
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = list(figure.subplots(down, across, squeeze=False).ravel())
    for unused in panels[len(starts) :]:
        unused.remove()
    panels = panels[: len(starts)]
    styles = dict(zip(methods, line_styles(), strict=False))
    for panel, start in zip(panels, starts, strict=True):
        rows = [row for row in shown if row["start"] == start]
        layers = list(dict.fromkeys(row["layer"] for row in rows))
        place = {layer: i for i, layer in enumerate(layers)}
        for group in _by_convergence(rows):
            method = group[0]
            own = [row for row in rows if row["method"] == method]
            x = [place[row["layer"]] for row in own]
            y = [_height(row, scale) for row in own]
            panel.plot(x, y, label=joined(group), **styles[method])
        name_layers(panel, layers)
        panel.set_title(f"random relevance injected at {drawn(start)}", loc="left", fontsize=10)
        panel.set_xlabel("relevance arriving at the output of layer (input on the right)")
        tidy(panel)
        if scale == "log":
            _log_axis(panel)
        else:
            baseline = {row["layer"]: row["baseline"] for row in rows}
            x, y = list(place.values()), [baseline[layer] for layer in layers]
            panel.plot(x, y, color="0.6", lw=5, zorder=0, label="independent vectors")
            panel.set_ylim(-0.05, 1.05)
    floor = ", drawn up to 1 - 1e-8" if scale == "log" else ""
    for panel in panels[::across]:
        panel.set_ylabel(f"median |cosine| of two relevance vectors{floor}")
    panels[across - 1].legend(
        loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8, title="method"
    )
    return figure


def save(figure: Figure, path: str | PathLike) -> list[Path]:
    """Writes the figure as PNG and as SVG beside it; returns the two paths."""
    paths = [Path(path).with_suffix(suffix) for suffix in (".png", ".svg")]
    for file in paths:
        with writing(file) as stream:
            figure.savefig(stream, format=file.suffix[1:], dpi=160)
    return paths


def _height(row: dict, scale: str) -> float:
    if row["undirected"] is not None:
        return nan
    return max(row["one_minus_median"], _FLOOR) if scale == "log" else row["median"]


def _by_convergence(rows: list[dict]) -> list[list[str]]:
    """Methods from the most converged to the least at the input, those with one curve together."""
    curves: dict[str, list[float]] = {}
    for row in rows:
        known = row["undirected"] is None
        curves.setdefault(row["method"], []).append(row["one_minus_median"] if known else 2.0)
    return sorted(together(curves), key=lambda group: curves[group[0]][-1])


def _log_axis(panel) -> None:
    panel.set_yscale("log")
    panel.invert_yaxis()
    label = lambda value, _: "0" if value >= 1 else f"1 - {value:.0e}".replace("e-0", "e-")
    panel.yaxis.set_major_formatter(FuncFormatter(label))


def __dir__() -> list[str]:
    return __all__
