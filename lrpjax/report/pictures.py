"""What heat maps are drawn with: their scale and colours, pictures, and grids of panels."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from numpy.typing import ArrayLike

from .style import Figure
from .texts import wrapped

_PERCENTILES = (0.5, 99.5)
RULE = "max(|P0.5|, |P99.5|)"
_COLOURS = colormaps["seismic"].resampled(257)  # an odd number: the middle one is white
_LUMA = (0.299, 0.587, 0.114)  # grey of red, green and blue, ITU-R BT.601
_CONTRAST = 0.6  # of an image under a map: none of its pixels is as dark as strong relevance
FONT, SMALL, GREY = 9, 7.5, "0.35"
TEXT: dict[str, Any] = {"fontsize": FONT}
_MINUS = "\N{MINUS SIGN}"
_BESIDE = 30  # letters that a row's caption may be wide


def normalise(maps: ArrayLike, scale: float | None = None) -> tuple[np.ndarray, float]:
    """The maps divided by a symmetric scale and clipped to [-1, 1], and that scale.

    maps: numbers of any shape, with the colour channels already summed; 0 stays 0. scale: in the
    unit of the maps; by default max(|P0.5|, |P99.5|) over all of them (percentiles of the signed
    values; Sixt et al. 2020), or max |maps| where both percentiles are 0. All-zero maps have
    scale 0 and stay zero.
    Raises ValueError for empty maps, NaN or infinity, and a scale that is not greater than 0.
    """
    maps = np.asarray(maps, np.float64)
    if maps.size == 0:
        raise ValueError(f"There is nothing to draw: the map has shape {maps.shape}.")
    if not np.isfinite(maps).all():
        raise ValueError("There is NaN or infinity in the map: it has no colour scale.")
    scale = scale_of(maps)[0] if scale is None else float(scale)
    if scale == 0 and not maps.any():
        return np.zeros_like(maps), scale
    if not 0 < scale < np.inf:
        raise ValueError(f"The scale must be a number greater than 0, got {scale:g}.")
    return np.clip(maps, -scale, scale) / scale, scale


def scale_of(maps: np.ndarray) -> tuple[float, str]:
    """The scale of maps, and what it is in words."""
    percentiles = np.abs(np.percentile(maps, _PERCENTILES))
    if percentiles.any():
        return float(percentiles.max()), RULE
    return float(np.abs(maps).max()), "max |R|"


def summed(relevance: ArrayLike, axes: str) -> np.ndarray:
    """Relevance with the axes "H, W" or "N, H, W", the sum over its channels where it has them."""
    relevance = np.asarray(relevance, np.float64)
    count = len(axes.split(","))
    if relevance.ndim == count + 1:
        return relevance.sum(-1)
    if relevance.ndim != count:
        raise ValueError(
            f"Relevance must have shape ({axes}, C) or ({axes}), got {relevance.shape}."
        )
    return relevance


def as_pictures(images: ArrayLike, axes: str) -> np.ndarray:
    """Images "H, W" or "N, H, W" in [0, 1], with three channels or with no axis for them."""
    images = np.asarray(images)
    count = len(axes.split(","))
    if images.ndim == count + 1 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim != count and not (images.ndim == count + 1 and images.shape[-1] == 3):
        raise ValueError(
            f"Images to draw must have shape ({axes}, 3) or ({axes}), got {images.shape}."
        )
    scaled = images / 255 if images.dtype == np.uint8 else images
    if scaled.size and not (scaled.min() >= 0 and scaled.max() <= 1):
        raise ValueError(
            f"Images to draw must be uint8 or lie in [0, 1], got values from {images.min():g} to "
            f"{images.max():g}."
        )
    return scaled


def as_grey(image: ArrayLike) -> np.ndarray:
    """An image (H, W) or (H, W, 3) in grey, so pale that a map can lie over it."""
    image = as_pictures(image, "H, W")
    grey = image @ np.array(_LUMA) if image.ndim == 3 else image
    return 1 - _CONTRAST * (1 - grey)


def grid(
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    cell: tuple[float, float],
    below: float,
) -> tuple[Figure, np.ndarray]:
    """A figure of empty panels with captions on the left and headings.

    cell: width and height of a panel; below: of the text below it. All in inches.
    """
    rows = [wrapped(caption, _BESIDE) for caption in rows]
    letters = max((len(line) for caption in rows for line in caption.split("\n")), default=0)
    beside = 1.0 + 0.08 * letters  # the colour bar and the captions
    width, height = cell
    size = (beside + 1.05 * width * len(columns), 0.8 + len(rows) * (height + below))
    figure = Figure(figsize=size, layout="compressed")
    panels = figure.subplots(len(rows), len(columns), squeeze=False)
    for panel, heading in zip(panels[0], columns, strict=True):
        panel.set_title(heading, **TEXT)
    for panel, caption in zip(panels[:, 0], rows, strict=True):
        panel.set_ylabel(caption, rotation=0, ha="right", va="center", **TEXT)
    for panel in panels.flat:
        bare(panel)
    return figure, panels


def draw(panel: Axes, values: np.ndarray, grey: np.ndarray | None = None) -> None:
    """A map in [-1, 1], over a grey image where there is one."""
    bare(panel)
    height, width = values.shape
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)  # the image may have another resolution
    if grey is not None:
        panel.imshow(grey, cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=extent)
    alpha = None if grey is None else np.sqrt(np.abs(values))  # the root keeps weak relevance seen
    panel.imshow(values, cmap=_COLOURS, vmin=-1, vmax=1, interpolation="nearest", alpha=alpha)


def draw_picture(panel: Axes, picture: np.ndarray) -> None:
    panel.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def note_scale(panel: Axes, text: str) -> None:
    """Small print below a panel."""
    panel.set_xlabel(text, fontsize=SMALL, color=GREY, labelpad=2)


def note(figure: Figure, text: str) -> None:
    """Small print below a figure."""
    letters = int(15 * figure.get_figwidth())  # that fit on a line
    figure.supxlabel(fill(text, letters), fontsize=SMALL, color=GREY)


def bare(panel: Axes) -> None:
    panel.set_xticks([])
    panel.set_yticks([])
    for spine in panel.spines.values():
        spine.set(color="0.75", linewidth=0.6)


def colour_bar(figure: Figure, panels: Any, scale: str, **place: Any) -> None:
    """A colour bar beside the panels. scale: what its ends are called, "" for no name."""
    mappable = ScalarMappable(Normalize(-1, 1), _COLOURS)
    bar = figure.colorbar(mappable, ax=panels, extend="both", **place)
    bar.set_ticks(
        [-1, 0, 1], labels=[f"{_MINUS}{scale}" if scale else "", "0", scale], fontsize=FONT
    )
    bar.set_label("relevance", fontsize=FONT)
    bar.outline.set_visible(False)


def short(number: float) -> str:
    """Two digits: 3.2e-3, 0.25, 130."""
    if number == 0 or 0.01 <= number < 1000:
        return f"{float(f'{number:.2g}'):g}"
    digits, _, exponent = f"{number:.1e}".partition("e")
    return f"{digits}e{int(exponent)}"
