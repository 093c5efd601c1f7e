"""What the figures share: their class, colours, line styles and the names of layers on an axis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from itertools import cycle
from typing import Any

import matplotlib.figure
from matplotlib.axes import Axes

from .._base.results import Results
from .texts import LAYER, drawn, room

# Okabe and Ito's colours, told apart by the colour-blind; markers and dashes tell them apart in
# black and white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
_MARKERS = "os^Dv<>pXP*h"
_DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))
_FEW_LAYERS = 20


class Figure(matplotlib.figure.Figure):
    """matplotlib's figure, which Jupyter also shows without pyplot and `%matplotlib inline`."""

    def _repr_png_(self) -> bytes:
        stream = BytesIO()
        self.savefig(stream, format="png")
        return stream.getvalue()


def having_rows(result: Results) -> list[dict[str, Any]]:
    """The rows of a result; ValueError if there are none to draw."""
    if not result.rows:
        raise ValueError(f"There is nothing to draw: the {type(result).__name__} has no rows.")
    return result.rows


def line_styles() -> Iterator[dict[str, Any]]:
    """Endless distinct line styles."""
    for i, (colour, marker) in enumerate(zip(cycle(COLOURS), cycle(_MARKERS), strict=False)):
        yield {
            "color": colour,
            "marker": marker,
            "linestyle": _DASHES[i // len(COLOURS) % len(_DASHES)],
            "markersize": 5,
            "markeredgecolor": "white",
            "markeredgewidth": 0.5,
            "lw": 1.6,
        }


def together(curves: Mapping[str, Iterable[float]]) -> list[list[str]]:
    """The names in groups whose curves agree in four digits."""
    groups: dict[tuple, list[str]] = {}
    for name, curve in curves.items():
        groups.setdefault(tuple(f"{y:.3e}" for y in curve), []).append(name)
    return list(groups.values())


def name_layers(panel: Axes, layers: Sequence[str]) -> None:
    shown = [drawn(layer, LAYER) for layer in layers]
    if len(layers) <= _FEW_LAYERS:
        panel.set_xticks(range(len(layers)), shown, rotation=40, ha="right")
    else:  # upright and small, so that all of a deep network's fit
        size = max(3.5, min(8, 400 / len(layers)))
        panel.set_xticks(range(len(layers)), shown, rotation=90, fontsize=size)


def below(layers: Iterable[str]) -> float:
    """The inches that names of layers on an axis need which are longer than usual: they are slanted
    or upright."""
    return 0.8 * room(layers, 20, LAYER)


def tidy(panel: Axes, *, grid: Any = "y") -> None:
    """Two spines and pale lines across the axis `grid`."""
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis=grid, color="0.9")
