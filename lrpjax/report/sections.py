"""The sections of an audit's page: functions of the audit, None where it has nothing for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..auditing import Audit
from ..auditing.tasks import SIMILARITIES
from . import plots
from .page import Column, Picture, Section

_ROWS = 9  # of a grid, so that it can be read on paper


def sections(audit: Audit) -> list[Section]:
    """All that the audit has something for, in the order of the page."""
    return [found for of in SECTIONS if (found := _made(of, audit)) is not None]


def _made(of: Callable[[Audit], Section | None], audit: Audit) -> Section | None:
    """A section; in the place of one that cannot be made, why not: the others are not lost."""
    try:
        return of(audit)
    except Exception as error:  # whatever a figure raises
        reason = f"{type(error).__name__}: {error}"
        title = of.__name__.replace("_", " ").capitalize()
        return Section(title, f"This part could not be made ({reason}); see the data below.")


def other_class(audit: Audit) -> Section | None:
    if not audit.rows_of("random-logit"):
        return None
    return Section(
        "Does another class give another map?",
        "The map of the explained class is compared with that of a random other class: "
        "structural similarity (SSIM) of the two, with the sign that fits better, one box for "
        "each method. At 1 the map says nothing about the class.",
        [_picture(audit.plot(), "Similarity of the maps of two classes.")],
    )


def convergence(audit: Audit) -> Section | None:
    if not audit.rows_of("csc"):
        return None
    measured = audit.of("csc")
    return Section(
        "Do the later layers matter? Cosine similarity convergence",
        "Random relevance is injected at the output and propagated to the input. Where its "
        "vectors have become parallel (1, or high in the logarithmic figure), nothing that the "
        "layers above say can change the map there but its size and sign.",
        [
            _picture(measured.plot(), "Median |cosine| of random relevance, layer by layer."),
            _picture(measured.plot(scale="log"), "The same, as distance from 1."),
        ],
    )


def randomisation(audit: Audit) -> Section | None:
    if not audit.rows_of("mprt"):
        return None
    measured = audit.of("mprt")
    found = [s for s in SIMILARITIES if any(r["similarity"] == s for r in measured.rows)]
    drawn = [plots.randomisation(measured, similarity=similarity) for similarity in found]
    return Section(
        "Does the map change with the parameters?",
        "Layer by layer, from the output to the input, parameters are replaced by random ones "
        "of the same mean and deviation, and the map is compared with the one before. Bands "
        "are 99 % bootstrap intervals of the median. A curve that stays high belongs to a map "
        "that does not depend on what was learnt. Top-down randomisation keeps the scale of "
        "the lower layers' activations, and a map that is multiplied by the input keeps its "
        "picture, so the fall is never complete: the controls show what to expect.",
        [
            _picture(figure, f"Similarity under randomisation: {similarity}.")
            for figure, similarity in zip(drawn, found, strict=True)
        ],
    )


def cascades(audit: Audit) -> Section | None:
    """Of maps, where the images are pictures."""
    grid = audit.grid
    if grid is None or grid.pictures is None:
        return None
    names = list(grid.maps)
    groups = [names[i : i + _ROWS] for i in range(0, len(names), _ROWS)]
    return Section(
        "Maps while parameters become random",
        "Each map is on its own scale; red is positive, blue is negative. Columns: the trained "
        "model, then the layers that are random so far.",
        [
            _picture(
                plots.cascade(grid, image=i, methods=methods),
                f"Image {i + 1}: {', '.join(methods)}.",
            )
            for i in range(len(grid.pictures))
            for methods in groups
        ],
    )


def class_pairs(audit: Audit) -> Section | None:
    """Of maps, where the images are pictures."""
    if audit.pairs is None or audit.pairs.pictures is None:
        return None
    drawn = plots.two_classes(audit.pairs, names=audit.settings.get("pair_classes"))
    return Section(
        "Two classes in one image",
        "A method that sees the class marks other pixels for each. Last column: the difference "
        "of the absolute maps, with their mean distance.",
        [_picture(drawn, "Maps of two classes and of a random one.")],
    )


def certificates(audit: Audit) -> Section | None:
    sentences = [r for r in audit.rows_of("certificate") if r.get("scope") == "sentence"]
    if not sentences:
        return None
    shown = (Column("method", "method"), Column("sentence", "what it certifies"))
    return Section(
        "Certificates",
        "For the first image, with its activations as they are: by how much relevance at the "
        "output can change the map at all.",
        table=(shown, sentences),
    )


def missing(audit: Audit) -> Section | None:
    rows = [*audit.rows_of("failed"), *audit.rows_of("unavailable")]
    if not rows:
        return None
    columns = (Column("method", "method"), Column("of", "check"), Column("reason", "why not"))
    return Section("What could not be measured", table=(columns, rows))


SECTIONS = (
    other_class,
    convergence,
    randomisation,
    cascades,
    class_pairs,
    certificates,
    missing,
)


def _picture(figure: Any, caption: str) -> Picture:
    return Picture(figure, caption, caption)
