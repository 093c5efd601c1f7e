"""`lrpjax sanity`: parameter randomisation and the random-logit test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .._base.text import columns
from .common import (
    INTERRUPTED,
    JsonOption,
    make_method,
    method_option,
    run_jobs,
    say,
    say_skipped,
    writable,
    write_json,
)
from .factories import ModelOption, WeightsOption
from .image_options import BUNDLED_ONES, Chosen, takes_images
from .inputs import load

METHODS = ["lrp-alpha1-beta0", "lrp-alpha2-beta1", "lrp-z", "guided-bp", "gradient"]
RANDOMISATION, LOGIT = "mprt", "random-logit"


@takes_images(labels=True)
def sanity(
    method: Annotated[list[str] | None, method_option(", ".join(METHODS))] = None,
    check: Annotated[
        list[str] | None,
        typer.Option(help=f"{RANDOMISATION} or {LOGIT} (repeatable). Default: both."),
    ] = None,
    order: Annotated[
        str, typer.Option(help="Randomise from the output, from the input, or single layers.")
    ] = "output",
    layers: Annotated[
        str | None, typer.Option(help="Where to take maps, with commas. Default: all.")
    ] = None,
    randomiser: Annotated[
        str, typer.Option(help="gaussian (of each array's moments) or permutation.")
    ] = "gaussian",
    draws: Annotated[int, typer.Option(help="Random models.", min=1)] = 1,
    classes: Annotated[int, typer.Option(help="Other classes per image.", min=1)] = 1,
    similarity: Annotated[
        list[str] | None,
        typer.Option(help="ssim, ssim-standard, spearman, pearson, cosine, hog (repeatable)."),
    ] = None,
    colour: Annotated[
        str, typer.Option(help="auto (the paper's), sum, max-abs, abs-sum or none.")
    ] = "auto",
    multiplier: Annotated[
        str | None, typer.Option(help="Compare the maps times the input, or divided by it.")
    ] = None,
    images: Chosen = BUNDLED_ONES,
    model: ModelOption = "cifar10",
    weights: WeightsOption = None,
    seed: Annotated[int, typer.Option(help="Of the random parameters and classes.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for results and figures.")] = Path(
        "lrpjax-sanity"
    ),
    json_file: JsonOption = None,
) -> None:
    """If the parameters change, or the class: does the saliency map change too?

    The map is compared with that of a model whose parameters are random, layer by layer, and with
    that of another class. 1 means that it is the same map. For verdicts, see `lrpjax audit`.
    """
    import jax

    from ..sanity import Sanity, mprt, random_logit

    wanted = list(dict.fromkeys(check or [RANDOMISATION, LOGIT]))
    _require_known(wanted, similarity or [], order, randomiser)
    writable(out)
    network, inputs = load(model, weights, images)
    shared: dict[str, Any] = {
        "key": jax.random.key(seed),
        "similarity": similarity or ["ssim"],
        "colour": colour,
        "multiplier": multiplier,
        "target": inputs.targets(network),
    }
    names = [name.strip() for name in layers.split(",")] if layers else None
    cascade: dict[str, Any] = {"order": order, "layers": names, "draws": draws}
    cascade["randomiser"] = randomiser
    jobs = [(name, each) for each in wanted for name in dict.fromkeys(method or METHODS)]
    settings = {**inputs.settings, "seed": seed, "order": order, "randomiser": randomiser}
    settings |= {"draws": draws, "classes": classes, "colour": colour, "multiplier": multiplier}
    done: dict[tuple[str, str], Sanity] = {}

    def measure(job: tuple[str, str]) -> Sanity:
        chosen = make_method(job[0], network, seed=seed)
        if job[1] == LOGIT:
            return random_logit(network, inputs.x, chosen, classes=classes, **shared)
        return mprt(network, inputs.x, chosen, **cascade, **shared)

    def collected() -> Sanity:
        return Sanity(settings, [row for job in jobs if job in done for row in done[job].rows])

    def keep(job: tuple[str, str], result: Sanity) -> None:
        done[job] = result
        collected().save(out / "results.json")

    cut_short = run_jobs(jobs, measure, keep, label=" ".join)
    found = collected()
    if found.rows:
        write_json(json_file, found.settings, found.rows)
    files = _drawn(found, out)
    say_skipped(found.settings)
    if files:
        shown = ", ".join(str(f) for f in files if f.suffix == ".png")
        say(f"\nFigures: {shown} (and .svg)\nResults: {out / 'results.json'}")
    if cut_short:
        raise typer.Exit(INTERRUPTED)


def _require_known(checks: list[str], similarities: list[str], order: str, randomiser: str) -> None:
    """Raises ValueError, with the nearest names, before anything is loaded."""
    from .._base.checks import check_known
    from ..sanity import SIMILARITIES
    from ..sanity.parameters import ORDERS, RANDOMISERS

    for name in checks:
        check_known("check", name, [RANDOMISATION, LOGIT])
    for name in similarities:
        check_known("similarity", name, SIMILARITIES)
    check_known("order", order, ORDERS)
    check_known("randomiser", randomiser, RANDOMISERS)


def _drawn(found: Any, out: Path) -> list[Path]:
    """Says the table of each check, and writes its figure."""
    from ..report import plots

    files = []
    for name in (RANDOMISATION, LOGIT):
        rows = [row for row in found.rows if row["check"] == name]
        if rows:
            say(f"\n{_table(rows)}")
            files += plots.save(type(found)(found.settings, rows).plot(), out / name)
    return files


def _table(rows: list[dict[str, Any]]) -> str:
    """A line for each method and similarity, a column for each layer, or one for the class."""
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        line = lines.setdefault(
            (row["method"], row["similarity"]),
            {"method": row["method"], "similarity": row["similarity"]},
        )
        line[row.get("layer", "another class")] = _interval(row)
    dropped = sum(row["dropped"] for row in rows)
    of = sum(len(row["values"]) for row in rows)
    first = "parameters random, from layer to layer" if "layer" in rows[0] else "random logit"
    return (
        f"{first}: median similarity of the maps and its 99 % interval\n\n"
        f"{columns(list(lines.values()))}\n\n{dropped} of {of} maps dropped (without structure)"
    )


def _interval(row: dict[str, Any]) -> str:
    if row["median"] is None:
        return "-"
    if row["low"] is None:
        return f"{row['median']:.2f}"
    return f"{row['median']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
