"""What Jupyter shows of a figure that a cell ends with."""

from __future__ import annotations

import inspect
from io import BytesIO
from types import SimpleNamespace

import numpy as np
from IPython.core.formatters import DisplayFormatter
from IPython.core.pylabtools import select_figure_formats
from matplotlib.figure import Figure
from PIL import Image

from lrpjax import plots


def draw():
    return plots.heatmap(np.arange(6.0).reshape(2, 3))


def shown(figure):
    """The PNG that a fresh kernel, without pyplot, makes of its last expression."""
    bundle, _ = DisplayFormatter().format(figure)
    return bundle.get("image/png")


def test_a_figure_is_shown_as_it_is_saved(tmp_path):
    draw().savefig(tmp_path / "figure.png")
    saved = np.asarray(Image.open(tmp_path / "figure.png"))
    assert np.array_equal(np.asarray(Image.open(BytesIO(shown(draw())))), saved)


def test_matplotlibs_own_figure_is_not():
    figure = Figure()
    figure.subplots()
    assert shown(figure) is None  # else a class of our own is needless


def test_no_figure_is_of_matplotlibs_own_class():
    modules = {inspect.getmodule(f) for f in vars(plots).values() if inspect.isfunction(f)}
    assert len(modules) > 4
    for module in modules:
        assert vars(module).get("Figure") is not Figure, module.__name__


def test_inline_shows_a_figure_once():
    """`%matplotlib inline` has a printer for matplotlib's figures, which then takes precedence."""
    formatter = DisplayFormatter()
    select_figure_formats(SimpleNamespace(display_formatter=formatter), {"png"})
    bundle, _ = formatter.format(draw())
    assert set(bundle) == {"image/png", "text/plain"}
