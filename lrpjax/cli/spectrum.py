"""`lrpjax spectrum`: singular values, Lyapunov exponents and the certificate, beside the CSC."""

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

METHODS = ["lrp-alpha1-beta0", "lrp-alpha2-beta1", "lrp-z", "gradient"]
IMAGES = 3  # of the bundled ones


@takes_images(IMAGES)
def spectrum(
    method: Annotated[list[str] | None, method_option(", ".join(METHODS))] = None,
    start: Annotated[
        str | None, typer.Option(help="Layer to inject at. Default: the model's output.")
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Layers to measure, with commas. Default: all below.")
    ] = None,
    vectors: Annotated[int, typer.Option(help="Random vectors per image, for CSC.", min=2)] = 20,
    certificate: Annotated[
        bool, typer.Option(help="Also the certificate of the first image.")
    ] = True,
    images: Chosen = BUNDLED_ONES,
    model: ModelOption = "cifar10",
    weights: WeightsOption = None,
    seed: Annotated[int, typer.Option(help="Of the random vectors.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for results and the figure.")] = Path(
        "lrpjax-spectrum"
    ),
    json_file: JsonOption = None,
) -> None:
    """How close to rank 1 is a method's chain of relevance matrices, and how fast does it get so?

    Singular values of the chain down to each layer, Lyapunov exponents link by link, and the
    cosines of random vectors (CSC) that they explain. The certificate bounds what any non-negative
    relevance can do. Default images: three bundled ones.
    """
    import jax

    from ..convergence import Certificate, Profile, profile
    from ..convergence import certificate as certify
    from ..report import plots

    writable(out)
    network, inputs = load(model, weights, images, bundled=IMAGES)
    names = [name.strip() for name in layers.split(",")] if layers else None
    settings = {**inputs.settings, "vectors": vectors, "seed": seed}
    jobs = list(dict.fromkeys(method or METHODS))
    done: dict[str, tuple[Profile, Certificate | None]] = {}

    def measure(name: str) -> tuple[Profile, Certificate | None]:
        chosen, key = make_method(name, network), jax.random.key(seed)
        found = profile(
            network, inputs.x, chosen, key=key, start=start, layers=names, vectors=vectors
        )
        if not certificate:
            return found, None
        return found, certify(network, inputs.x[:1], chosen, key=key, start=start)

    def finished() -> dict[str, tuple[Profile, Certificate | None]]:
        return {name: done[name] for name in jobs if name in done}

    def keep(name: str, result: tuple[Profile, Certificate | None]) -> None:
        done[name] = result
        rows = [row for found, _ in finished().values() for row in found.rows]
        Profile({**settings, "methods": list(finished())}, rows).save(out / "results.json")

    cut_short = run_jobs(jobs, measure, keep)
    for name, (found, certified) in finished().items():
        say(f"\n{name}\n{_table(found)}")
        if certified is not None:
            say(f"\ncertificate of the first image\n{certified}")
    if done:
        whole = Profile.load(out / "results.json")
        rows = [*whole.rows, *(row for _, c in finished().values() if c for row in c.rows)]
        write_json(json_file, whole.settings, rows)
        files = plots.save(whole.plot(), out / "spectrum")
        say_skipped(whole.settings)
        say(f"\nFigure: {files[0]} (and .svg)\nResults: {out / 'results.json'}")
    if cut_short:
        raise typer.Exit(INTERRUPTED)


_COLUMNS = {
    "map_ratio": "map: s1/s2",
    "map_expected": "expects",
    "map_csc": "1 - CSC",
    "location_ratio": "location: s1/s2",
    "location_expected": "expects it",
    "location_csc": "its 1 - CSC",
    "gap": "link: log gap",
    "total_gap": "so far",
}


def _table(found: Any) -> str:
    text = lambda value: "" if value is None else f"{value:.3g}"
    return columns(
        [
            {"at": row["layer"], **{title: text(row[field]) for field, title in _COLUMNS.items()}}
            for row in found.rows
        ]
    )
