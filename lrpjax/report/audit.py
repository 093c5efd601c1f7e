"""An audit as one HTML page: the table first, then a figure for every check, then the settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .._base.upwards import page_of
from ..auditing import Audit, Thresholds
from ..sanity import CONTROLS
from .page import Column, csv_text, page
from .sections import sections

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
        sections=sections(audit),
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
