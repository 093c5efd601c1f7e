"""`lrpjax patterns`: patterns of a model, for PatternNet and PatternAttribution."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .common import (
    INTERRUPTED,
    say,
    say_skipped,
)
from .factories import ModelOption, WeightsOption, model_named
from .image_options import BUNDLED_ONES, Chosen, takes_images
from .inputs import load

BATCH = 100  # images


@takes_images()
def patterns(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="The file to write (safetensors).")],
    images: Chosen = BUNDLED_ONES,
    data: Annotated[
        Path | None, typer.Option(help="CIFAR-10 training images instead, as for `lrpjax train`.")
    ] = None,
    model: ModelOption = "cifar10",
    weights: WeightsOption = None,
    mode: Annotated[str, typer.Option(help="Of the estimator: relu or linear.")] = "relu",
    patches: Annotated[
        int, typer.Option(help="Patches of an image a convolution is fitted on; 0: all.", min=0)
    ] = 9,
) -> None:
    """Fits a pattern to every neuron of a model; read them with `lrpjax.patterns.load`.

    An interrupted fit goes on where it stopped when it is started again with the same settings:
    what it has found so far is in OUT.part, until OUT is written.
    """
    import jax.numpy as jnp

    from .._base.fingerprint import Unstable
    from .._base.locks import held
    from .._base.progress import track
    from .._base.resuming import remove
    from ..models.datasets import read_cifar10
    from ..patterns.fitting import fit

    context.with_resource(held(out.parent, f".{out.name}.lock"))
    pieces = out.with_name(f"{out.name}.part")
    if data is not None:
        network, (pixels, _) = model_named(model, weights), read_cifar10(data, train=True)
        starts = range(0, len(pixels), BATCH)
        batch = lambda i: network.preprocess(jnp.asarray(pixels[i : i + BATCH]))
        batches = lambda: map(batch, track(starts, "patterns"))
        settings = {}
    else:
        network, inputs = load(model, weights, images)
        settings, batches = inputs.settings, lambda: inputs.x
    options: dict[str, Any] = {"mode": mode, "patches": patches or None}
    try:
        try:
            fitted = fit(network, batches(), **options, out=pieces)
        except Unstable as error:
            say(f"Nothing is kept until the end: {error}")
            fitted = fit(network, batches(), **options)
    except KeyboardInterrupt:
        say(f"Interrupted: what is found so far is in {pieces}; the same command goes on.")
        raise typer.Exit(INTERRUPTED) from None
    fitted.save(out)
    remove(pieces)
    say_skipped(settings)
    say(f"Patterns of {len(fitted.a)} layers: {out}")
