"""Heat maps of relevance, in the manner of Sixt et al. 2020: red is positive, blue is negative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

_PERCENTILES = (0.5, 99.5)
_RULE = "max(|P0.5|, |P99.5|)"
_COLOURS = colormaps["seismic"].resampled(257)  # an odd number: the middle one is white
_LUMA = (0.299, 0.587, 0.114)  # grey of red, green and blue, ITU-R BT.601
_CONTRAST = 0.6  # of an image under a map: none of its pixels is as dark as strong relevance
_FONT, _SMALL, _GREY = 9, 7.5, "0.35"
_TEXT: dict[str, Any] = {"fontsize": _FONT, "parse_math": False}  # names may hold $
_CELL = 1.5  # inches, the width of a picture on a sheet
_MINUS = "\N{MINUS SIGN}"
_BELOW = 50  # letters that fit below a single map
_BESIDE = 30  # letters that a row's caption may be wide
_WRAP = 18  # letters of a method's name that fit above a picture


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
    scale = _scale(maps)[0] if scale is None else float(scale)
    if scale == 0 and not maps.any():
        return np.zeros_like(maps), scale
    if not 0 < scale < np.inf:
        raise ValueError(f"The scale must be a number greater than 0, got {scale:g}.")
    return np.clip(maps, -scale, scale) / scale, scale


def _scale(maps: np.ndarray) -> tuple[float, str]:
    """The scale of maps, and what it is in words."""
    percentiles = np.abs(np.percentile(maps, _PERCENTILES))
    if percentiles.any():
        return float(percentiles.max()), _RULE
    return float(np.abs(maps).max()), "max |R|"


def heatmap(
    relevance: ArrayLike,
    *,
    scale: float | None = None,
    overlay: ArrayLike | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    """One heat map with its colour bar; the scale stands on the bar and below the map.

    relevance: (H, W, C), summed over its channels, or (H, W). scale: see `normalise`. overlay:
    an image (H, W, 3), (H, W, 1) or (H, W), uint8 or in [0, 1], drawn in grey under the map, which
    is the more transparent the nearer to 0. caption: stands above the line with the scale.
    Raises ValueError for other shapes, and as `normalise` does.
    """
    reduced = _summed(relevance, 2)
    how = "" if scale is not None else f"{_scale(reduced)[1]} = "
    values, scale = normalise(reduced, scale)
    stated = f"scale: {how}{_short(scale)}" if scale else "scale: 0, all zero"
    height, width = values.shape
    figure = Figure(figsize=(4.4, 3.3 * height / width + 1.0), layout="compressed")
    panel = figure.subplots()
    _draw(panel, values, None if overlay is None else _grey(overlay, 2))
    panel.set_title(title, loc="left", **{**_TEXT, "fontsize": _FONT + 2})
    lines = [*filter(None, [_wrapped(caption, _BELOW)]), stated]
    panel.set_xlabel("\n".join(lines), loc="left", **_TEXT)
    ends = _short(scale) if scale else ""
    _colour_bar(figure, panel, ends, fraction=0.05, pad=0.03)
    return figure


def sheet(
    images: ArrayLike,
    maps: Mapping[str, ArrayLike],
    *,
    captions: Sequence[str] | None = None,
    shared_scale: bool = False,
    overlay: bool = False,
) -> Figure:
    """Heat maps side by side: a row for each image, which stands first, a column for each method.

    images: (N, H, W, 3), (N, H, W, 1) or (N, H, W), uint8 or in [0, 1]. maps: (N, H, W, C), summed
    over its channels, or (N, H, W) for each method's name. captions: N texts, left of the rows.
    shared_scale: one scale for all of a method's maps, so that stronger colour means more
    relevance, instead of one for each map, which shows only where it lies. Methods never share
    one: they differ by orders of magnitude. overlay: draw the maps over the images in grey.
    Raises ValueError for other shapes, and as `normalise` does.
    """
    pictures = _pictures(images, 3)
    if not len(pictures):
        raise ValueError("There are no images to draw.")
    values = {name: _summed(relevance, 3) for name, relevance in maps.items()}
    captions = list(captions) if captions is not None else [""] * len(pictures)
    counts = {name: len(own) for name, own in values.items()} | {"the captions": len(captions)}
    for name, count in counts.items():
        if count != len(pictures):
            raise ValueError(f"There are {len(pictures)} images, but {count} of {name}.")
    scales = {name: normalise(own)[1] if shared_scale else None for name, own in values.items()}
    headings = [
        fill(name, _WRAP, break_long_words=False)
        + ("" if scale is None else f"\n± {_short(scale)}")
        for name, scale in scales.items()
    ]
    figure, panels = _grid(pictures, headings, captions, shared_scale)
    for row, (picture, panel) in enumerate(zip(pictures, panels[:, 0], strict=True)):
        panel.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        for (name, own), panel in zip(values.items(), panels[row, 1:], strict=True):
            drawn, scale = normalise(own[row], scales[name])
            _draw(panel, drawn, _grey(picture, 2) if overlay else None)
            if not shared_scale:
                panel.set_xlabel(f"± {_short(scale)}", fontsize=_SMALL, color=_GREY, labelpad=2)
    shrink = min(1, 3 / len(pictures))
    _colour_bar(figure, panels, "scale", aspect=30, shrink=shrink, pad=0.01)
    whose = "its method's, ± in the heading" if shared_scale else "its own, ± below it"
    note = f"A map's scale is {whose}: {_RULE} over pixels, max |R| where that is 0"
    letters = int(15 * figure.get_figwidth())  # that fit on a line
    figure.supxlabel(fill(note, letters), fontsize=_SMALL, color=_GREY)
    return figure


def _grid(
    pictures: np.ndarray, headings: list[str], captions: list[str], shared_scale: bool
) -> tuple[Figure, np.ndarray]:
    """An empty sheet with its headings and captions: a column for the images, one per method."""
    rows, height, width = pictures.shape[:3]
    captions = [_wrapped(caption, _BESIDE) for caption in captions]
    columns = 1 + len(headings)
    letters = max((len(line) for caption in captions for line in caption.split("\n")), default=0)
    beside = 1.0 + 0.08 * letters  # the colour bar and the captions, in inches
    below = 0.08 if shared_scale else 0.24  # the line with the scale
    size = (beside + 1.05 * _CELL * columns, 0.8 + rows * (_CELL * height / width + below))
    figure = Figure(figsize=size, layout="compressed")
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel, heading in zip(panels[0], ["image", *headings], strict=True):
        panel.set_title(heading, **_TEXT)
    for panel, caption in zip(panels[:, 0], captions, strict=True):
        panel.set_ylabel(caption, rotation=0, ha="right", va="center", **_TEXT)
    for panel in panels.flat:
        _bare(panel)
    return figure, panels


def _draw(panel: Axes, values: np.ndarray, grey: np.ndarray | None) -> None:
    """A map in [-1, 1], over a grey image where there is one."""
    _bare(panel)
    height, width = values.shape
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)  # the image may have another resolution
    if grey is not None:
        panel.imshow(grey, cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=extent)
    alpha = None if grey is None else np.sqrt(np.abs(values))  # the root keeps weak relevance seen
    panel.imshow(values, cmap=_COLOURS, vmin=-1, vmax=1, interpolation="nearest", alpha=alpha)


def _bare(panel: Axes) -> None:
    panel.set_xticks([])
    panel.set_yticks([])
    for spine in panel.spines.values():
        spine.set(color="0.75", linewidth=0.6)


def _colour_bar(figure: Figure, panels: Any, scale: str, **place: Any) -> None:
    """A colour bar beside the panels. scale: what its ends are called, "" for no name."""
    mappable = ScalarMappable(Normalize(-1, 1), _COLOURS)
    bar = figure.colorbar(mappable, ax=panels, extend="both", **place)
    bar.set_ticks(
        [-1, 0, 1], labels=[f"{_MINUS}{scale}" if scale else "", "0", scale], fontsize=_FONT
    )
    bar.set_label("relevance", fontsize=_FONT)
    bar.outline.set_visible(False)


def _summed(relevance: ArrayLike, axes: int) -> np.ndarray:
    """Relevance with `axes` axes, the sum over its channels where it has them."""
    relevance = np.asarray(relevance, np.float64)
    if relevance.ndim == axes + 1:
        return relevance.sum(-1)
    if relevance.ndim != axes:
        wanted = "(H, W, C) or (H, W)" if axes == 2 else "(N, H, W, C) or (N, H, W)"
        raise ValueError(f"Relevance must have shape {wanted}, got {relevance.shape}.")
    return relevance


def _pictures(images: ArrayLike, axes: int) -> np.ndarray:
    """Images in [0, 1], with three channels or with no axis for them."""
    images = np.asarray(images)
    if images.ndim == axes + 1 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim != axes and not (images.ndim == axes + 1 and images.shape[-1] == 3):
        wanted = "(H, W, 3) or (H, W)" if axes == 2 else "(N, H, W, 3) or (N, H, W)"
        raise ValueError(f"Images to draw must have shape {wanted}, got {images.shape}.")
    scaled = images / 255 if images.dtype == np.uint8 else images
    if scaled.size and not (scaled.min() >= 0 and scaled.max() <= 1):
        raise ValueError(
            f"Images to draw must be uint8 or lie in [0, 1], got values from {images.min():g} to "
            f"{images.max():g}."
        )
    return scaled


def _grey(image: ArrayLike, axes: int) -> np.ndarray:
    image = _pictures(image, axes)
    grey = image @ np.array(_LUMA) if image.ndim == axes + 1 else image
    return 1 - _CONTRAST * (1 - grey)


def _wrapped(text: str, letters: int) -> str:
    """Each line of the text broken into lines of so many letters."""
    return "\n".join(fill(line, letters) for line in text.split("\n"))


def _short(number: float) -> str:
    """Two digits: 3.2e-3, 0.25, 130."""
    if number == 0 or 0.01 <= number < 1000:
        return f"{float(f'{number:.2g}'):g}"
    digits, _, exponent = f"{number:.1e}".partition("e")
    return f"{digits}e{int(exponent)}"
