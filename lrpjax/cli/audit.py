"""`lrpjax audit`: all checks of all methods on one model, as a report for a browser."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from .common import (
    INTERRUPTED,
    JsonOption,
    class_number,
    method_option,
    say,
    say_skipped,
    write_text,
)
from .factories import ModelOption, WeightsOption, stated_by
from .image_options import BUNDLED_ONES, Chosen, takes_images
from .inputs import load, read

IMAGES = 10  # of the bundled ones
SAMPLING = ("integrated-gradients", "smooth-grad", "occlusion")


@takes_images(IMAGES, labels=True)
def audit(
    context: typer.Context,
    method: Annotated[list[str] | None, method_option("the paper's chains of rules")] = None,
    all_methods: Annotated[
        bool,
        typer.Option(
            "--all", help=f"Also {', '.join(SAMPLING)} and iba, which need many evaluations."
        ),
    ] = False,
    start: Annotated[
        str | None, typer.Option(help="Layer to inject at, for CSC. Default: the model's output.")
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(help="Where maps are taken under randomisation, with commas. Default: all."),
    ] = None,
    draws: Annotated[int, typer.Option(help="Random models.", min=1)] = 1,
    classes: Annotated[int, typer.Option(help="Other classes per image.", min=1)] = 1,
    converged: Annotated[
        float, typer.Option(help="1 - CSC up to which vectors count as parallel.")
    ] = 1e-3,
    same_map: Annotated[
        float, typer.Option(help="SSIM from which two maps count as the same.")
    ] = 0.9,
    two_class: Annotated[
        list[Path] | None,
        typer.Option(help="Images that show two classes, for the two-class figure (repeatable)."),
    ] = None,
    two_classes: Annotated[
        str | None, typer.Option(help="These classes: two names or numbers, with a comma.")
    ] = None,
    images: Chosen = BUNDLED_ONES,
    model: ModelOption = "cifar10",
    weights: WeightsOption = None,
    seed: Annotated[int, typer.Option(help="Of everything that is random.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for the report and finished pieces.")] = Path(
        "lrpjax-audit"
    ),
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Remove the pieces of another audit from the folder."),
    ] = False,
    json_file: JsonOption = None,
) -> None:
    """May you trust a saliency map of this model? One report for all methods.

    Cosine convergence, singular values, a certificate, parameter randomisation, the random-logit
    test, conservation and completeness, beside three controls. An interrupted audit goes on where
    it stopped when it is started again with the same settings and --out.
    """
    import jax

    from .. import auditing
    from .._base.fingerprint import Unstable
    from .._base.locks import held

    context.with_resource(held(out))
    network, inputs = load(model, weights, images, bundled=IMAGES)
    key = jax.random.key(seed)
    chosen: list[Any] = list(dict.fromkeys(method or auditing.PAPER))
    if all_methods:
        chosen += [*SAMPLING, _iba(network, inputs.x, key)]
    pair, labels = _pair(network, images, two_class, two_classes)
    options: dict[str, Any] = {
        "key": key,
        "target": inputs.targets(network),
        "start": start,
        "layers": [name.strip() for name in layers.split(",")] if layers else None,
        "draws": draws,
        "classes": classes,
        "thresholds": auditing.Thresholds(converged=converged, same_map=same_map),
        "two_class": pair,
    }
    try:
        try:
            kept = out / "pieces"
            found = auditing.audit(
                network, inputs.x, chosen, **options, out=kept, overwrite=overwrite
            )
        except Unstable as error:
            say(f"Nothing is kept until the end: {error}")
            found = auditing.audit(network, inputs.x, chosen, **options)
    except KeyboardInterrupt:
        say(f"Interrupted: what is finished is in {out / 'pieces'}; the same command goes on.")
        raise typer.Exit(INTERRUPTED) from None
    settings = {**inputs.settings, **found.settings, "seed": seed, "command": _command()}
    if labels:
        settings["pair_classes"] = labels(found.pairs)
    found = replace(found, settings=settings)
    found.to_json(out / "audit.json")  # before anything is drawn: a figure may fail
    write_text(json_file, found.to_json())
    say("Drawing the report ...")
    found.save(out / "audit.html")
    say(str(found))
    say_skipped(found.settings)
    say(f"\nReport: {out / 'audit.html'} (open it in a browser)\nNumbers: {out / 'audit.json'}")


def _iba(network: Any, x: Any, key: Any) -> Any:
    """IBA at the last convolution, with the statistics of the images that are audited."""
    from .. import bottleneck, methods
    from ..planning.plans import plan

    convolutions = [layer.name for layer in plan(network, x[:1], "gradient").layers
                    if layer.kind == "conv"]  # fmt: skip
    if not convolutions:
        raise ValueError("IBA needs a convolution, and this model has none: leave out --all.")
    layer = convolutions[-1]
    statistics = bottleneck.statistics(network, x, layer)
    return methods.get("iba", layer=layer, statistics=statistics, key=key)


def _pair(network: Any, images: Chosen, files: list[Path] | None, named: str | None) -> Any:
    """The images of the two-class experiment with their classes, and the names of its columns."""
    if not files and not named:
        return None, None
    if not files or not named:
        raise ValueError("The two-class figure needs both --two-class and --two-classes.")
    parts = [part.strip() for part in named.split(",")]
    if len(parts) != 2:
        raise ValueError(f"--two-classes takes two classes with a comma, got {named!r}.")
    _, x, _ = read(network, replace(images, images=tuple(files)))
    names = stated_by(network).classes
    count = network(x[:1]).shape[1]
    a, b = (class_number(part, names, count) for part in parts)

    def labels(pairs: Any) -> list[str]:
        shown = pairs.classes if pairs else (a, b)
        return [names[c] if names else str(c) for c in shown]

    return (x, (a, b)), labels


def _command() -> str:
    return shlex.join(["lrpjax", *sys.argv[1:]])
