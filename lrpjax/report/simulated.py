"""The figure of simulated convergence."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from .._base.upwards import figure_of
from ..convergence import Simulation
from .style import Figure, having_rows, tidy

_FLOOR = 1e-12  # of 1 - mean |cosine|, as in the paper
_DASHED, _DOTTED = (0, (4, 2)), (0, (1, 1.2))


class _Curve(NamedTuple):
    """side, height: where the label stands beside a curve that rises as high as that."""

    case: str
    label: str
    colour: str
    dash: Any = "-"
    side: str = "left"
    height: float = 1e-11


# Okabe and Ito's colours for cases that differ in kind, one ramp for those that differ in alpha.
_PANELS = (
    (
        "factors of one kind, and two controls that must not converge",
        (
            _Curve("positive", "positive |W|", "#009E73"),
            _Curve("stochastic", "stochastic |W|", "#C98500", _DASHED, height=1e-9),
            _Curve("non-negative", "non-negative max(0, W)", "#0072B2", side="right"),
            _Curve("relu", "vanilla with ReLU", "#CC79A7"),
            _Curve("vanilla", "vanilla W", "#D55E00"),
            _Curve("square", "control: square 128 x 128", "0.5", _DASHED),
            _Curve("permutation", "control: permutation", "0.2", _DOTTED),
        ),
    ),
    (
        "the family alpha W+ + beta W-",
        (
            _Curve("alpha1-beta0", "alpha 1, beta 0", "#C98500"),
            _Curve("alpha2-beta1", "alpha 2, beta 1", "#D2691E", side="right"),
            _Curve("alpha3-beta2", "alpha 3, beta 2", "#C8504A", height=0),
            _Curve("alpha4-beta3", "alpha 4, beta 3", "#A02F63"),
            _Curve("alpha5-beta4", "alpha 5, beta 4", "#6A1F70"),
            _Curve("alpha10-beta9", "alpha 10, beta 9", "#2A1555"),
        ),
    ),
)


@figure_of.register
def simulation(result: Simulation) -> Figure:
    """1 minus the mean |cos| after each factor: kinds of factors beside the alpha-beta family.

    The axis is logarithmic and inverted, down to 1e-12: higher means closer to rank 1. Lines are
    medians over the repetitions, bands hold the middle half of them.
    """
    all_rows = having_rows(result)
    figure = Figure(figsize=(16, 5.8), layout="constrained")
    for panel, (title, curves) in zip(figure.subplots(1, 2), _PANELS, strict=True):
        ends = []
        for curve in curves:
            rows = [row for row in all_rows if row["case"] == curve.case]
            steps = np.array([row["step"] for row in rows])
            low, median, high = (_values(rows, p) for p in ("25", "50", "75"))
            panel.fill_between(steps, low, high, color=curve.colour, alpha=0.2, lw=0)
            panel.plot(steps, median, color=curve.colour, linestyle=curve.dash, lw=1.8)
            edge = low if curve.side == "left" else high  # the less converged is on the right
            if (edge <= curve.height).any():
                _label_beside(panel, curve, steps, edge)
            else:
                ends.append((curve, max(median[~np.isnan(median)][-1], _FLOOR)))
        rows = [row for row in all_rows if row["case"] == curves[0].case]
        _axes(panel, [row["dimension"] for row in rows])
        spread = f"median and quartiles of {result.settings['repetitions']} repetitions"
        panel.set_ylabel(f"mean |cosine| of the relevance vectors\n({spread})")
        _label_ends(panel, ends, len(rows) - 1)
        panel.set_title(title, loc="left", fontsize=10)
    return figure


def _values(rows: list[dict], percentile: str) -> np.ndarray:
    """Of each step, as logarithms can take them: nan for None, and the smallest for 0."""
    found = np.array([row["quantiles"][percentile] for row in rows], float)
    return np.maximum(found, np.finfo(float).tiny)


def _axes(panel, dimensions: list[int]) -> None:
    panel.set_yscale("log")
    panel.set_ylim(1, _FLOOR)
    panel.yaxis.set_major_locator(FixedLocator([10.0**-i for i in range(0, 13, 2)]))
    panel.yaxis.set_minor_locator(NullLocator())
    label = lambda value, _: "0" if value >= 1 else f"1 - {value:.0e}".replace("e-0", "e-")
    panel.yaxis.set_major_formatter(FuncFormatter(label))
    panel.set_xlim(0, len(dimensions) - 1)
    texts = [f"{step}\n{dimension}" for step, dimension in enumerate(dimensions)]
    panel.set_xticks(range(len(dimensions)), texts, fontsize=7.5)
    panel.set_xlabel("factors multiplied, and the dimension of the vectors (controls: 128)")
    tidy(panel)


def _label_beside(panel, curve: _Curve, steps: np.ndarray, values: np.ndarray) -> None:
    """Where the curve first passes its height, on a straight line between two steps."""
    after = int(np.argmax(values <= curve.height))
    pair = slice(after - 1, after + 1)
    x = np.interp(-np.log(curve.height), -np.log(values[pair]), steps[pair])
    left = curve.side == "left"
    panel.text(
        x + (-0.3 if left else 0.3),
        curve.height,
        curve.label,
        color=curve.colour,
        ha="right" if left else "left",
        va="center",
        fontsize=9,
    )


def _label_ends(panel, ends: list[tuple[_Curve, float]], last: int) -> None:
    """Behind the last step, from the least converged upwards, apart where they would touch."""
    place = 0.0
    for curve, value in sorted(ends, key=lambda end: -end[1]):
        place = max(place, -np.log10(value))
        panel.annotate(
            curve.label,
            (last, value),
            (last + 0.6, 10**-place),
            color=curve.colour,
            va="center",
            fontsize=9,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": curve.colour,
                "lw": 0.8,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )
        place += 0.45
