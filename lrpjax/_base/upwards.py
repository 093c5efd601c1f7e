"""What a result needs of `lrpjax.report`: its figure, and the page of an audit.

Imports go downwards, and the report is above all that is measured. It registers here what it can
draw. This is the one place that knows a room above by its name, and it loads the report when it is
first asked for something.
"""

from __future__ import annotations

from functools import singledispatch
from importlib import import_module
from typing import Any

_FIGURES, _PAGES = "lrpjax.report.plots", "lrpjax.report.audit"


class NoFigure(TypeError):
    """There is no figure of this class of results."""


@singledispatch
def figure_of(result: Any, **options: Any) -> Any:
    """The figure of a result; the options are those of its function in `lrpjax.plots`."""
    return _above(figure_of, _FIGURES, result)(result, **options)


@singledispatch
def page_of(result: Any) -> str:
    """The text of a result's HTML page."""
    return _above(page_of, _PAGES, result)(result)


def _above(function: Any, module: str, result: Any) -> Any:
    """What the report has registered for the result's class."""
    import_module(module)
    found = function.dispatch(type(result))
    if found is function.dispatch(object):
        name = type(result).__name__
        raise NoFigure(f"There is no figure of {name} results: print them, or draw their rows.")
    return found
