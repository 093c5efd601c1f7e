"""`lrpjax csc`: cosine similarity convergence of methods, measured and drawn."""

from __future__ import annotations

from collections.abc import Callable
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


@takes_images()
def csc(
    method: Annotated[list[str] | None, method_option("all chains of rules")] = None,
    start: Annotated[
        list[str] | None,
        typer.Option(
            help="Layer to inject at (repeatable). Default: the model's `injection_layers` (VGG's "
            "and ResNet's are the paper's), else its output."
        ),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Layers to measure, with commas. Default: all below.")
    ] = None,
    vectors: Annotated[int, typer.Option(help="Random vectors per image.", min=2)] = 5,
    images: Chosen = BUNDLED_ONES,
    model: ModelOption = "cifar10",
    weights: WeightsOption = None,
    seed: Annotated[int, typer.Option(help="Of the random vectors.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for results and figures.")] = Path("lrpjax-csc"),
    json_file: JsonOption = None,
    plot: Annotated[
        Path | None, typer.Option(help="Measure nothing: draw this results file again.")
    ] = None,
) -> None:
    """Cosine similarity convergence: does a method forget the later layers?

    Injects random relevance at a layer, propagates it to the input and measures how far the
    vectors have become parallel. A median of 1 means that the map is the same (up to size and
    sign) whatever the layers above say.
    """
    from ..convergence import CSC
    from ..report import plots

    writable(out)
    if plot is not None:
        result = CSC.load(plot)
    else:
        result = _measure(method, start, layers, vectors, images, model, weights, seed, out)
    for name in dict.fromkeys(row["start"] for row in result.rows):
        say(_table(result, name))
    write_json(json_file, result.settings, result.rows)
    files = [
        file
        for scale in ("linear", "log")
        for file in plots.save(result.plot(scale=scale), out / f"csc_{scale}")
    ]
    say_skipped(result.settings)
    shown = ", ".join(str(f) for f in files if f.suffix == ".png")
    say(f"\nFigures: {shown} (and .svg)")
    if plot is None:
        again = f"lrpjax csc --plot {out / 'results.json'}"
        say(f"Results: {out / 'results.json'}; draw them again with `{again}`")


def _measure(method, start, layers, vectors, images, model, weights, seed, out) -> Any:
    import jax

    from ..convergence import CSC, csc

    network, inputs = load(model, weights, images)
    chosen = {name: make_method(name, network) for name in method or _usable(network)}
    names = [name.strip() for name in layers.split(",")] if layers else None
    settings = {**inputs.settings, "vectors": vectors, "seed": seed}
    starts = start or getattr(network, "injection_layers", None) or [None]
    jobs = [(name, where) for where in starts for name in chosen]
    done: dict[tuple, CSC] = {}

    def collected() -> CSC:
        finished = [job for job in jobs if job in done]
        rows = [row for job in finished for row in done[job].rows]
        methods = list(dict.fromkeys(name for name, _ in finished))
        return CSC({**settings, "methods": methods}, rows)

    def measure(job: tuple) -> CSC:
        name, where = job
        key = jax.random.key(seed)
        return csc(
            network, inputs.x, chosen[name], key=key, start=where, layers=names, vectors=vectors
        )

    def keep(job: tuple, result: CSC) -> None:
        done[job] = result
        collected().save(out / "results.json")

    if run_jobs(jobs, measure, keep, label=lambda job: job[0]):
        raise typer.Exit(INTERRUPTED)
    return collected()


def _usable(network: Callable) -> list[str]:
    """All chains of rules, less those that need of the model what this one does not state."""
    from .. import methods

    return [
        name
        for name, entry in methods.TABLE.items()
        if entry.chain and (not entry.needs or getattr(network, entry.needs, None) is not None)
    ]


def _table(result: Any, start: str) -> str:
    rows = [row for row in result.rows if row["start"] == start]
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    shown = {"(independent vectors)": {row["layer"]: _median(1 - row["baseline"]) for row in rows}}
    for method in dict.fromkeys(row["method"] for row in rows):
        own = {row["layer"]: row["one_minus_median"] for row in rows if row["method"] == method}
        shown[method] = {layer: _median(own[layer]) if layer in own else "" for layer in layers}
    if len(layers) <= len(shown):
        table = [{"method": method, **medians} for method, medians in shown.items()]
    else:  # a deep network reads from top to bottom
        table = [{"layer": a, **{name: own[a] for name, own in shown.items()}} for a in layers]
    directed = [row for row in rows if row["undirected"] != "one channel"]
    dropped = sum(row["dropped"] for row in directed)
    total = dropped + sum(row["count"] for row in directed)
    return (
        f"median |cosine| of random relevance injected at {start}, at each layer below\n\n"
        f"{columns(table)}\n\n{dropped} of {total} cosines dropped (zero vectors)"
    )


def _median(distance: float | None) -> str:
    """0.87, and 1-3e-6 where two decimals would hide the difference; "-" without a direction."""
    if distance is None:
        return "-"
    if distance == 0:
        return "1"
    return f"1-{distance:.0e}".replace("e-0", "e-") if distance < 0.01 else f"{1 - distance:.2f}"
