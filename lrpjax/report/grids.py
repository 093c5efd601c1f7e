"""Grids of heat maps: while a network is randomised, and of two classes (Sixt et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from .._base.checks import check_known
from .._base.upwards import figure_of
from ..sanity import Cascade, TwoClasses
from .pictures import (
    GREY,
    RULE,
    TEXT,
    as_pictures,
    colour_bar,
    draw,
    draw_picture,
    grid,
    normalise,
    note,
    note_scale,
    short,
    summed,
)
from .style import Figure
from .texts import wrapped

_CELL = 1.15  # inches, the width of a picture
_BELOW = 0.22  # inches, the line below it
_HEADING = 0.35  # inches, of a row with headings
_TITLE = 60  # letters of a line of the title
_WRAP = 15  # letters of a heading that fit above a picture
_LEAST = 1e-6  # as fine as L1 is written: below is rounding, which must not be drawn as structure
_NOTHING = 0.88  # the grey in place of a map
_DIFFERENCE = "difference\n|A| \N{MINUS SIGN} |B|"
_STATED = f"A map's scale is its own, ± below it: {RULE} over pixels, max |R| where that is 0."


@figure_of.register
def cascade(
    result: Cascade, *, image: int = 0, methods: Sequence[str] | None = None, name: str = ""
) -> Figure:
    """The maps of one image while a network is randomised layer by layer: a row for each method.

    image: its number. methods: some of them (default: all). name: of the image or the network, as a
    title. Each map has a scale of its own (`normalise`), which stands below it. In place of a map
    with NaN or infinity there is "none", in place of one of zeros "zero".
    Raises ValueError for images that are no pictures, and numbers and methods that there are not.
    """
    pictures = _pictures(result)
    if not -len(pictures) <= image < len(pictures):
        raise ValueError(f"There are {len(pictures)} images, numbered from 0: got image {image}.")
    maps = {method: own[:, image] for method, own in _chosen(result, methods).items()}
    return cascade_panels(pictures[image], maps, result.stops, name=name).flat[0].figure


@figure_of.register
def two_classes(
    result: TwoClasses,
    *,
    methods: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> Figure:
    """The maps of two classes and of a random one, and the difference of the two: a row for each
    image and method.

    methods: some of them (default: all). names: of the three classes (default: their numbers).
    The last column is |A| - |B| after each was divided by its scale (`normalise`), with the L1
    distance of the two; all differences share a scale, so that a pale one is small.
    Raises ValueError for images that are no pictures, methods that there are not, and other numbers
    of names.
    """
    pictures, maps = _pictures(result), _chosen(result, methods)
    named = result.classes if names is None else names
    panels = two_class_panels(pictures, maps, named, distances=result.distances)
    return panels.flat[0].figure


def _pictures(result: Cascade | TwoClasses) -> np.ndarray:
    if result.pictures is None:
        raise ValueError(
            "The images of these maps are no pictures (N, H, W) of 1 or 3 colours: there is no "
            "figure of them."
        )
    return result.pictures


def _chosen(result: Cascade | TwoClasses, methods: Sequence[str] | None) -> dict[str, np.ndarray]:
    for method in methods or ():
        check_known("method", method, result.maps)
    return result.maps if methods is None else {name: result.maps[name] for name in methods}


def cascade_panels(
    picture: ArrayLike, maps: Mapping[str, ArrayLike], stops: Sequence[str], *, name: str = ""
) -> np.ndarray:
    """The figure of `cascade`, of arrays.

    picture: (H, W, 3), (H, W, 1) or (H, W), uint8 or in [0, 1]. maps: (S, H, W, C), summed over its
    channels, or (S, H, W) for each method's name. stops: S names, "trained" and then the layers up
    to which all are random. name: as a title.
    Returns the panels (methods, 1 + S), images first; `.flat[0].figure` is the figure. Raises
    ValueError for no maps, other shapes, and other numbers of maps than of stops.
    """
    image = as_pictures(picture, "H, W")
    values = {method: summed(own, "S, H, W") for method, own in _some(maps).items()}
    for method, own in values.items():
        if len(own) != len(stops):
            raise ValueError(f"There are {len(stops)} stops, but {len(own)} maps of {method}.")
    headings = ["image", *stops[:2], *(f"+ {stop}" for stop in stops[2:])]
    figure, panels = grid(list(values), _wrapped(headings), cell=_cell(image), below=_BELOW)
    for row, own in zip(panels, values.values(), strict=True):
        draw_picture(row[0], image)
        for panel, relevance in zip(row[1:], own, strict=True):
            _draw_scaled(panel, relevance)
    _finish(figure, panels, f"All layers up to the named one are random. {_STATED}")
    if name:
        figure.suptitle(wrapped(name, _TITLE), **TEXT)
    return panels


def two_class_panels(
    pictures: ArrayLike,
    maps: Mapping[str, ArrayLike],
    classes: Sequence[Any],
    *,
    distances: Mapping[str, Sequence[float | None]] | None = None,
) -> np.ndarray:
    """The figure of `two_classes`, of arrays.

    pictures: (N, H, W, 3), (N, H, W, 1) or (N, H, W), uint8 or in [0, 1]. maps: (N, 3, H, W, C) or
    (N, 3, H, W) for each method's name: of class A, class B and a random class, drawn as in
    `cascade`. classes: their three names, or three for each image. distances: N for each method's
    name; by default the mean of ||A| - |B|| over pixels and channels, each over its scale. Nothing
    is written where one is NaN or None. A difference of maps with channels is the mean over them.
    Returns the panels (N * methods, 5), images first; `.flat[0].figure` is the figure. Raises
    ValueError for no images or maps, other shapes, and other numbers of classes or distances.
    """
    images = as_pictures(pictures, "N, H, W")
    if not len(images):
        raise ValueError("There are no images to draw.")
    values = _triples(maps, len(images))
    names = _names(classes, len(images))
    apart = {m: [_difference(a, b) for a, b, _ in own] for m, own in values.items()}
    if distances is None:
        distances = {m: [float(np.abs(d).mean()) for d in own] for m, own in apart.items()}
    for method in values:
        if (count := len(distances.get(method, ()))) != len(images):
            raise ValueError(f"There are {len(images)} images, but {count} distances of {method}.")
    apart = {m: [d.mean(-1) if d.ndim == 3 else d for d in own] for m, own in apart.items()}
    scale = _common_scale([d for own in apart.values() for d in own])

    headings = [["image", *_wrapped(own), _DIFFERENCE] for own in names]
    new = [i for i in range(len(images)) if i == 0 or headings[i] != headings[i - 1]]
    below = _BELOW + _HEADING * (len(new) - 1) / (len(images) * len(values))
    rows = [*values] * len(images)
    figure, panels = grid(rows, headings[0], cell=_cell(images[0]), below=below)
    for i, block in enumerate(panels.reshape(len(images), len(values), -1)):
        if i in new:
            for panel, heading in zip(block[0], headings[i], strict=True):
                panel.set_title(heading, **TEXT)
        for row, method in zip(block, values, strict=True):
            draw_picture(row[0], images[i])
            for panel, relevance in zip(row[1:4], values[method][i], strict=True):
                _draw_scaled(panel, summed(relevance, "H, W"))
            _draw(row[4], apart[method][i], scale)
            distance = distances[method][i]
            if distance is not None and np.isfinite(distance):
                note_scale(row[4], f"L1 {distance:.6f}")
    _finish(
        figure,
        panels,
        f"{_STATED} A and B are the first two classes; their difference is of the maps over their "
        f"scales, without signs, and its scale is ± {short(scale)} everywhere.",
    )
    return panels


def _some(maps: Mapping[str, ArrayLike]) -> Mapping[str, ArrayLike]:
    if not maps:
        raise ValueError("There are no maps to draw.")
    return maps


def _triples(maps: Mapping[str, ArrayLike], count: int) -> dict[str, np.ndarray]:
    values = {method: np.asarray(own, np.float64) for method, own in _some(maps).items()}
    for method, own in values.items():
        if own.ndim not in (4, 5) or own.shape[:2] != (count, 3):
            raise ValueError(
                f"Maps of {count} images must have shape ({count}, 3, H, W, C) or "
                f"({count}, 3, H, W), those of {method} have {own.shape}."
            )
    return values


def _names(classes: Sequence[Any], count: int) -> list[list[str]]:
    """The names of three classes, for each image."""
    names = np.asarray(classes, dtype=str)
    if names.shape not in ((3,), (count, 3)):
        raise ValueError(
            f"The classes must be three names, or three for each of {count} images, got an array "
            f"of shape {names.shape}."
        )
    return np.broadcast_to(names, (count, 3)).tolist()


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|A| - |B| of the maps over their scales; NaN if one of them has none."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return np.full_like(a, np.nan)
    return np.abs(normalise(a)[0]) - np.abs(normalise(b)[0])


def _common_scale(maps: Sequence[np.ndarray]) -> float:
    finite = [own.ravel() for own in maps if np.isfinite(own).all()]
    return max(_LEAST, normalise(np.concatenate(finite))[1]) if finite else _LEAST


def _draw(panel: Axes, relevance: np.ndarray, scale: float | None = None) -> float:
    """Draws a map, or a word in place of one that shows nothing; returns its scale."""
    finite = np.isfinite(relevance).all()
    if finite and relevance.any():
        values, scale = normalise(relevance, scale)
        draw(panel, values)
        return scale
    height, width = relevance.shape
    draw_picture(panel, np.full((height, width), _NOTHING))
    word = "zero" if finite else "none"
    panel.text(0.5, 0.5, word, transform=panel.transAxes, ha="center", va="center", color=GREY)
    return 0.0


def _draw_scaled(panel: Axes, relevance: np.ndarray) -> None:
    if scale := _draw(panel, relevance):
        note_scale(panel, f"± {short(scale)}")


def _cell(image: np.ndarray) -> tuple[float, float]:
    return _CELL, _CELL * image.shape[0] / image.shape[1]


def _wrapped(headings: Sequence[str]) -> list[str]:
    return [wrapped(heading, _WRAP, whole=True) for heading in headings]


def _finish(figure: Any, panels: np.ndarray, text: str) -> None:
    colour_bar(figure, panels, "scale", aspect=30, shrink=min(1, 3 / len(panels)), pad=0.01)
    note(figure, text)
