"""Heat maps of relevance, in the manner of Sixt et al. 2020: red is positive, blue is negative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from numpy.typing import ArrayLike

from .._base.upwards import figure_of
from ..bottleneck import Bottleneck
from .pictures import (
    FONT,
    RULE,
    TEXT,
    as_grey,
    as_pictures,
    colour_bar,
    draw,
    draw_picture,
    grid,
    normalise,
    note,
    note_scale,
    scale_of,
    short,
    summed,
)
from .style import Figure
from .texts import wrapped

_CELL = 1.5  # inches, the width of a picture on a sheet
_ABOVE = 42  # letters that fit above a single map
_BELOW = 50  # letters that fit below a single map
_WRAP = 18  # letters of a method's name that fit above a picture


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
    reduced = summed(relevance, "H, W")
    how = "" if scale is not None else f"{scale_of(reduced)[1]} = "
    values, scale = normalise(reduced, scale)
    stated = f"scale: {how}{short(scale)}" if scale else "scale: 0, all zero"
    height, width = values.shape
    figure = Figure(figsize=(4.4, 3.3 * height / width + 1.0), layout="compressed")
    panel = figure.subplots()
    draw(panel, values, None if overlay is None else as_grey(overlay))
    panel.set_title(wrapped(title, _ABOVE), loc="left", **{**TEXT, "fontsize": FONT + 2})
    lines = [*filter(None, [wrapped(caption, _BELOW)]), stated]
    panel.set_xlabel("\n".join(lines), loc="left", **TEXT)
    ends = short(scale) if scale else ""
    colour_bar(figure, panel, ends, fraction=0.05, pad=0.03)
    return figure


@figure_of.register
def bottleneck(result: Bottleneck, *, image: int = 0) -> Figure:
    """The bits of one image, by its number, at the places of the input."""
    if not -len(result.relevance) <= image < len(result.relevance):
        raise ValueError(f"There are {len(result.relevance)} images: got image {image}.")
    bits = result.rows[image]["bits"]
    title = f"bits that pass {result.settings['layer']}"
    return heatmap(result.relevance[image], title=title, caption=f"{short(bits)} bits in all")


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
    pictures = as_pictures(images, "N, H, W")
    if not len(pictures):
        raise ValueError("There are no images to draw.")
    values = {name: summed(relevance, "N, H, W") for name, relevance in maps.items()}
    captions = list(captions) if captions is not None else [""] * len(pictures)
    counts = {name: len(own) for name, own in values.items()} | {"the captions": len(captions)}
    for name, count in counts.items():
        if count != len(pictures):
            raise ValueError(f"There are {len(pictures)} images, but {count} of {name}.")
    scales = {name: normalise(own)[1] if shared_scale else None for name, own in values.items()}
    headings = [
        wrapped(name, _WRAP, whole=True) + ("" if scale is None else f"\n± {short(scale)}")
        for name, scale in scales.items()
    ]
    height, width = pictures.shape[1:3]
    below = 0.08 if shared_scale else 0.24  # the line with the scale
    cell = (_CELL, _CELL * height / width)
    figure, panels = grid(captions, ["image", *headings], cell=cell, below=below)
    for row, (picture, panel) in enumerate(zip(pictures, panels[:, 0], strict=True)):
        draw_picture(panel, picture)
        for (name, own), panel in zip(values.items(), panels[row, 1:], strict=True):
            drawn, scale = normalise(own[row], scales[name])
            draw(panel, drawn, as_grey(picture) if overlay else None)
            if not shared_scale:
                note_scale(panel, f"± {short(scale)}")
    shrink = min(1, 3 / len(pictures))
    colour_bar(figure, panels, "scale", aspect=30, shrink=shrink, pad=0.01)
    whose = "its method's, ± in the heading" if shared_scale else "its own, ± below it"
    note(figure, f"A map's scale is {whose}: {RULE} over pixels, max |R| where that is 0")
    return figure
