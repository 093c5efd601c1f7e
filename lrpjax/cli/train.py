"""`lrpjax train`: the bundled network, trained again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import STDOUT, JsonOption, console, writable, write_json


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
    json_file: JsonOption = None,
) -> None:
    """Trains the CIFAR-10 network. Started again, it goes on from the last epoch."""
    import jax

    from ..models.datasets import read_cifar10
    from ..models.training import accuracy
    from ..models.training import train as run

    writable(out)
    images, labels = read_cifar10(data, train=True)
    held = None
    if test is not None or data.suffix not in (".npz",):
        held = read_cifar10(test or data, train=False)
    settings, rows = {"data": str(data), "epochs": epochs, "seed": seed}, []
    for epoch, model in run(images, labels, out=out, key=jax.random.key(seed), epochs=epochs):
        reached = accuracy(model, *held) if held else None
        rows.append({"epoch": epoch + 1, "test_accuracy": reached})
        console.print(f"epoch {epoch + 1}: " + (f"test accuracy {reached:.4f}" if held else "done"))
        if json_file != STDOUT:
            write_json(json_file, settings, rows)
    if json_file == STDOUT:
        write_json(json_file, settings, rows)
    console.print(f"Weights: {out / 'cifar10.safetensors'}", highlight=False)
