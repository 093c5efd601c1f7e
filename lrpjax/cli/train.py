"""`lrpjax train`: the bundled network, trained again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .common import INTERRUPTED, STDOUT, JsonOption, console, say, write_json


def train(
    data: Annotated[
        Path, typer.Option(help="The CIFAR-10 python archive, a folder of images, or an .npz.")
    ],
    test: Annotated[
        Path | None, typer.Option(help="Test images. Default: the archive's own.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and weights.")] = Path(
        "lrpjax-train"
    ),
    epochs: Annotated[int, typer.Option(min=1)] = 14,
    seed: int = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove another training from the folder.")
    ] = False,
    json_file: JsonOption = None,
) -> None:
    """Trains the CIFAR-10 network. Started again, it goes on from the last epoch."""
    import jax

    from ..models.datasets import read_cifar10
    from ..models.training import history
    from ..models.training import train as run

    images, labels = read_cifar10(data, train=True)
    test_set = None
    if test is not None or data.suffix != ".npz":
        test_set = read_cifar10(test or data, train=False)
    settings = {"data": str(data), "epochs": epochs, "seed": seed}
    options: dict[str, Any] = {"epochs": epochs, "test": test_set, "overwrite": overwrite}
    key = jax.random.key(seed)
    try:
        for epoch, _ in run(images, labels, out=out, key=key, **options):
            rows = history(out)
            reached = rows[-1]["test_accuracy"]
            said = "done" if reached is None else f"test accuracy {reached:.4f}"
            console.print(f"epoch {epoch + 1}: {said}")
            if json_file != STDOUT:
                write_json(json_file, settings, rows)
    except KeyboardInterrupt:
        say(f"Interrupted: the epochs that are finished are in {out}; the same command goes on.")
        raise typer.Exit(INTERRUPTED) from None
    write_json(json_file, settings, history(out))
    console.print(f"Weights: {out / 'cifar10.safetensors'}", highlight=False)
