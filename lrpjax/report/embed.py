"""Figures and files as data URIs, so that a page holds them and needs no network."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from pathlib import PurePath

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

_DPI = 160
_PIXELS = 96  # of CSS in an inch
_TYPES = {".csv": "text/csv", ".json": "application/json"}


def data_uri(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{b64encode(content).decode()}"


def figure_uri(figure: Figure) -> str:
    """The figure as a data URI: a PNG, or an SVG where that is smaller and as good.

    Lines and text are sharp at any size as SVG, and small as long as the points are few. Heat maps
    are PNGs in any case: inside an SVG they are pixels all the same, which browsers blur. The
    letters of an SVG are outlines: the fonts of a reader's machine have other widths. The same
    figure gives the same text each time.
    """
    png = _saved(figure, "png", {"Software": None})
    if any(panel.findobj(AxesImage) for panel in figure.axes):
        return data_uri(png, "image/png")
    with rc_context({"svg.fonttype": "path", "svg.hashsalt": "lrpjax"}):
        svg = _saved(figure, "svg", {"Date": None, "Creator": None})
    if len(svg) < len(png):
        return data_uri(svg, "image/svg+xml")
    return data_uri(png, "image/png")


def figure_size(figure: Figure) -> tuple[int, int]:
    """Width and height in CSS pixels at which the figure's letters have the size they state."""
    width, height = figure.get_size_inches() * _PIXELS
    return round(width), round(height)


def file_uri(name: str, content: str) -> str:
    """A text file as a data URI, of the type that its name's ending says."""
    kind = _TYPES.get(PurePath(name).suffix.lower(), "text/plain")
    return data_uri(as_bytes(content), f"{kind};charset=utf-8")


def as_bytes(content: str) -> bytes:
    """A text as UTF-8; what cannot be (half of a pair, from a file's name) as an escape."""
    return content.encode("utf-8", "backslashreplace")


def _saved(figure: Figure, kind: str, metadata: dict[str, None]) -> bytes:
    stream = BytesIO()
    figure.savefig(stream, format=kind, dpi=_DPI, metadata=metadata)
    return stream.getvalue()
