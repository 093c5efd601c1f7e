"""`lrpjax patterns`: patterns of a model, for PatternNet and PatternAttribution."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import (
    say,
    say_skipped,
    writable,
)
from .factories import ModelOption, WeightsOption, model_named
from .image_options import BUNDLED_ONES, Chosen, takes_images
from .inputs import load

BATCH = 100  # images


@takes_images()
def patterns(
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
    """Fits a pattern to every neuron of a model; read them with `lrpjax.patterns.load`."""
    import jax.numpy as jnp

    from .._base.progress import track
    from ..models.datasets import read_cifar10
    from ..patterns.fitting import fit

    writable(out.parent)
    if data is not None:
        network, (pixels, _) = model_named(model, weights), read_cifar10(data, train=True)
        steps = track(range(0, len(pixels), BATCH), "patterns")
        batches = (network.preprocess(jnp.asarray(pixels[i : i + BATCH])) for i in steps)
        fitted = fit(network, batches, mode=mode, patches=patches or None)
    else:
        network, inputs = load(model, weights, images)
        fitted = fit(network, inputs.x, mode=mode, patches=patches or None)
        say_skipped(inputs.settings)
    fitted.save(out)
    say(f"Patterns of {len(fitted.a)} layers: {out}")
