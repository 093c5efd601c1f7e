"""An audit as one HTML page: the table first, then a figure for every check, then the settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .._base.upwards import page_of
from ..auditing import Audit, Thresholds
from ..auditing.checks import SIMILARITIES
from ..sanity import CONTROLS
from . import plots
from .page import Column, Picture, Section, csv_text, page

_ROWS = 9  # of a grid, so that it can be read on paper

COLUMNS = (
    Column("method", "method"),
    Column("verdict", "verdict", "by the thresholds in the settings", kind="verdict"),
    Column(
        "random_logit",
        "other class",
        "median SSIM of the maps of the explained class and of another one; 1: the same map",
        kind="number",
    ),
    Column(
        "one_minus_csc",
        "1\N{NO-BREAK SPACE}-\N{NO-BREAK SPACE}CSC",
        "1 - median |cosine|, at the input (or the last layer with more than one channel), of "
        "random relevance injected at the output; 0: the map is the same, up to size and sign, "
        "whatever is injected",
        kind="number",
    ),
    Column(
        "mprt_first",
        "last layer random",
        "median SSIM of the maps before and after the last layer's parameters became random",
        kind="number",
    ),
    Column("mprt_last", "all random", "the same, with all parameters random", kind="number"),
    Column(
        "certificate",
        "certificate",
        "first image, in degrees: how far apart the maps of any two non-negative relevances at the "
        "output can be; none where it is no bound",
        kind="number",
    ),
    Column(
        "sigma_ratio",
        "s1/s2",
        "ratio of the two leading singular values of the chain from the output to the input",
        kind="number",
    ),
    Column(
        "conservation",
        "conservation",
        "median relative error of: the map's sum is the relevance that was put in",
        kind="number",
    ),
    Column(
        "completeness",
        "completeness",
        "median relative error of: the map's sum is f(x) - f(0)",
        kind="number",
    ),
)


@page_of.register
def report(audit: Audit) -> str:
    """The page as text, with all figures and numbers inside. Colours stand for verdicts:
    ignores, doubt, depends, failed, control."""
    settings = {**audit.settings, **_thresholds(audit.thresholds)}
    target, command = settings.pop("target"), settings.pop("command", None)
    return page(
        title=f"Audit of saliency maps: {settings.get('model', 'a model')}",
        lead=_lead(audit),
        columns=COLUMNS,
        rows=[_cells(row) for row in audit.summary],
        sections=list(_sections(audit)),
        settings={**settings, "target": target},
        reproduce=command or _call(audit),
        files={"audit.json": audit.to_json(), "audit.csv": csv_text(audit.summary)},
    )


def _lead(audit: Audit) -> str:
    levels = [row["level"] for row in audit.summary]
    of = lambda level: levels.count(level)
    failed = f", {of('failed')} could not be run" if of("failed") else ""
    return (
        f"Of {len(levels) - of('control')} methods, {of('ignores')} give the same map for another "
        f"class on this model, {of('doubt')} leave doubt, and {of('depends')} have no check "
        f"against them{failed}. Measured on {audit.settings['n_images']} images. Passing these "
        "checks is necessary for a map to explain the prediction, and not sufficient: random noise "
        "passes most of them."
    )


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    verdict = {"level": row["level"], "text": row["verdict"]}
    return {**{k: _number(v) for k, v in row.items()}, "verdict": verdict}


def _number(value: Any) -> Any:
    """A number with two or three digits to show."""
    if not isinstance(value, float):
        return value
    shown = f"{value:.2f}" if 0.01 <= abs(value) < 1000 or value == 0 else f"{value:.0e}"
    return value, shown.replace("e-0", "e-").replace("e+0", "e")


def _sections(audit: Audit) -> Iterator[Section]:
    checks = {row["check"] for row in audit.rows}
    if "random-logit" in checks:
        yield Section(
            "Does another class give another map?",
            "The map of the explained class is compared with that of a random other class: "
            "structural similarity (SSIM) of the two, with the sign that fits better, one box for "
            "each method. At 1 the map says nothing about the class.",
            [_picture(audit.plot(), "Similarity of the maps of two classes.")],
        )
    if "csc" in checks:
        measured = audit.of("csc")
        yield Section(
            "Do the later layers matter? Cosine similarity convergence",
            "Random relevance is injected at the output and propagated to the input. Where its "
            "vectors have become parallel (1, or high in the logarithmic figure), nothing that the "
            "layers above say can change the map there but its size and sign.",
            [
                _picture(measured.plot(), "Median |cosine| of random relevance, layer by layer."),
                _picture(measured.plot(scale="log"), "The same, as distance from 1."),
            ],
        )
    if "mprt" in checks:
        measured = audit.of("mprt")
        found = [s for s in SIMILARITIES if any(r["similarity"] == s for r in measured.rows)]
        yield Section(
            "Does the map change with the parameters?",
            "Layer by layer, from the output to the input, parameters are replaced by random ones "
            "of the same mean and deviation, and the map is compared with the one before. Bands "
            "are 99 % bootstrap intervals of the median. A curve that stays high belongs to a map "
            "that does not depend on what was learnt. Top-down randomisation keeps the scale of "
            "the lower layers' activations, and a map that is multiplied by the input keeps its "
            "picture, so the fall is never complete: the controls show what to expect.",
            [
                _picture(
                    plots.randomisation(measured, similarity=similarity),
                    f"Similarity under randomisation: {similarity}.",
                )
                for similarity in found
            ],
        )
    yield from _grids(audit)
    sentences = [r for r in audit.rows_of("certificate") if r.get("scope") == "sentence"]
    if sentences:
        shown = (Column("method", "method"), Column("sentence", "what it certifies"))
        yield Section(
            "Certificates",
            "For the first image, with its activations as they are: by how much relevance at the "
            "output can change the map at all.",
            table=(shown, sentences),
        )
    missing = [*audit.rows_of("failed"), *audit.rows_of("unavailable")]
    if missing:
        columns = (Column("method", "method"), Column("of", "check"), Column("reason", "why not"))
        yield Section("What could not be measured", table=(columns, missing))


def _grids(audit: Audit) -> Iterator[Section]:
    """The sections of maps, where the images are pictures."""
    grid, pairs = audit.grid, audit.pairs
    if grid is not None and grid.pictures is not None:
        yield Section(
            "Maps while parameters become random",
            "Each map is on its own scale; red is positive, blue is negative. Columns: the trained "
            "model, then the layers that are random so far.",
            [
                _picture(
                    plots.cascade(grid, image=i, methods=methods),
                    f"Image {i + 1}: {', '.join(methods)}.",
                )
                for i in range(len(grid.pictures))
                for methods in _groups(list(grid.maps), _ROWS)
            ],
        )
    if pairs is not None and pairs.pictures is not None:
        drawn = plots.two_classes(pairs, names=audit.settings.get("pair_classes"))
        yield Section(
            "Two classes in one image",
            "A method that sees the class marks other pixels for each. Last column: the difference "
            "of the absolute maps, with their mean distance.",
            [_picture(drawn, "Maps of two classes and of a random one.")],
        )


def _groups(names: list[str], size: int) -> list[list[str]]:
    return [names[i : i + size] for i in range(0, len(names), size)]


def _picture(figure: Any, caption: str) -> Picture:
    return Picture(figure, caption, caption)


def _thresholds(thresholds: Thresholds) -> dict[str, float]:
    return {f"threshold: {name}": value for name, value in vars(thresholds).items()}


def _call(audit: Audit) -> str:
    """The call that gives this audit again, as far as the settings know it."""
    s = audit.settings
    given = {k: s[k] for k in ("start", "layers") if s[k] is not None}
    given |= {k: s[k] for k in ("vectors", "draws", "classes")}
    options = "".join(f", {name}={value!r}" for name, value in given.items())
    own = [name for name in s["methods"] if name not in CONTROLS]
    key = f"jax.random.wrap_key_data(jnp.array({json.dumps(s['key'])}, jnp.uint32))"
    return f"lrpjax.audit(model, images, {own},\n    key={key}{options})"
