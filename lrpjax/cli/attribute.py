"""`lrpjax attribute`: heat maps of images, as pictures and as arrays."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from .._base.files import writing
from .._base.text import columns
from .common import (
    INTERRUPTED,
    JsonOption,
    class_number,
    make_method,
    method_option,
    run_jobs,
    say,
    say_skipped,
    writable,
    write_json,
)
from .factories import ModelOption, WeightsOption, stated_by
from .image_options import BUNDLED_ONES, Chosen, takes_images
from .inputs import Inputs, load

METHODS = ("gradient", "lrp-epsilon", "lrp-alpha1-beta0", "lrp-alpha2-beta1", "guided-bp")
BUNDLED = 8  # of the bundled images, where none are named
BATCH = 16  # images propagated at once
SHEET_ROWS = 20
DPI = 150


@takes_images(BUNDLED, labels=True)
def attribute(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="IMAGE", show_default=False, help="The same as --images IMAGE."),
    ] = None,
    method: Annotated[list[str] | None, method_option(", ".join(METHODS))] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="The class to explain: a number, or a name where the model has `classes`. "
            "Default: its label, else each image's largest logit."
        ),
    ] = None,
    images: Chosen = BUNDLED_ONES,
    model: ModelOption = "cifar10",
    weights: WeightsOption = None,
    out: Annotated[Path, typer.Option(help="Folder for pictures and arrays.")] = Path(
        "lrpjax-attribute"
    ),
    shared_scale: Annotated[
        bool,
        typer.Option(
            "--shared-scale",
            help="One colour scale for all of a method's maps, to compare images. Default: one for "
            "each map, which shows where relevance lies and not how much there is.",
        ),
    ] = False,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Draw the maps over the images, in grey.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of methods that draw random numbers.")] = 0,
    json_file: JsonOption = None,
) -> None:
    """Heat maps: which pixels speak for a class (red), and which against it (blue)?

    Writes METHOD/IMAGE.png for each map, sheet.png with all of them side by side, and maps.npz
    with one array (N, H, W, C) for each method, names, targets and logits (N, classes).

    A map is summed over colours and divided by a scale, the larger of its 0.5th and 99.5th
    percentile in size, which stands below it. The table shows each map's sum beside the logit:
    methods that conserve relevance keep it, but for what biases took.
    """
    from ..attribution import attribute as relevance_of

    if target is not None and images.labels is not None:
        raise ValueError("Both --target and --labels say what to explain: leave out one.")
    writable(out)
    network, inputs = load(model, weights, images.also(files or []), bundled=BUNDLED)
    chosen = {name: make_method(name, network, seed=seed) for name in method or METHODS}
    explained = _explain(network, inputs, target)
    maps: dict[str, Any] = {}
    rows: dict[str, list[dict[str, Any]]] = {}

    def work(name: str) -> Any:
        propagate = lambda x, targets: relevance_of(network, x, chosen[name], target=targets)
        return _channels_last(_in_batches(propagate, inputs.x, explained.targets))

    def keep(name: str, found: Any) -> None:
        rows[name] = _draw(name, found, explained, out, shared_scale, overlay)
        maps[name] = found

    interrupted = run_jobs(list(chosen), work, keep)
    finished = [name for name in chosen if name in maps]
    if finished:
        _write_arrays(out / "maps.npz", {name: maps[name] for name in finished}, explained)
        _draw_sheet(out, {name: maps[name] for name in finished}, explained, shared_scale, overlay)
        say(_table(explained, {name: rows[name] for name in finished}))
        say(f"\nPictures: {out / 'sheet.png'}, {out / 'METHOD' / 'IMAGE.png'}")
        say(f"Arrays: {out / 'maps.npz'}")
    options = {"target": target, "methods": finished, "seed": seed}
    looks = {"shared_scale": shared_scale, "overlay": overlay}
    settings = {**inputs.settings, **options, **looks}
    write_json(json_file, settings, [row for name in finished for row in rows[name]])
    say_skipped(inputs.settings)
    if interrupted:
        raise typer.Exit(INTERRUPTED)


@dataclass(frozen=True)
class _Explained:
    """pixels: as `Inputs` has them. logits: (N, classes). targets: N class numbers."""

    pixels: Any
    names: list[str]
    logits: Any
    targets: Any
    classes: list[str]

    def logit(self, i: int) -> float:
        return float(self.logits[i, self.targets[i]])

    def target(self, i: int) -> str:
        return self.classes[self.targets[i]]

    def predicted(self, i: int) -> str:
        return self.classes[self.logits[i].argmax()]


def _explain(network: Any, inputs: Inputs, target: str | None) -> _Explained:
    import numpy as np

    from .._base.checks import check_target

    if getattr(inputs.x, "ndim", 0) not in (3, 4):
        raise ValueError(
            "Heat maps need inputs (N, H, W, C), (N, C, H, W) or (N, H, W), this model's "
            f"`preprocess` makes {getattr(inputs.x, 'shape', type(inputs.x).__name__)}."
        )
    outputs = network(inputs.x[:1])
    if not hasattr(outputs, "shape"):
        raise ValueError(
            f"A target needs one output (N, classes), this model returns a "
            f"{type(outputs).__name__}."
        )
    check_target(None, outputs.shape)
    logits = _in_batches(network, inputs.x).astype(np.float32)
    count = logits.shape[1]
    classes = stated_by(network).classes
    if classes and len(classes) != count:
        raise ValueError(f"The model has {count} outputs, but names {len(classes)} `classes`.")
    if target is not None:
        targets = np.full(len(logits), class_number(target, classes, count))
    elif inputs.labels is not None:
        targets = inputs.targets(network)
    else:
        targets = logits.argmax(-1)
    named = classes or [str(i) for i in range(count)]
    return _Explained(inputs.pixels, inputs.names, logits, targets, named)


def _in_batches(function: Callable, *arrays: Any) -> Any:
    """function(*arrays) of N entries each, BATCH of them at once, as one numpy array."""
    import numpy as np

    starts = range(0, len(arrays[0]), BATCH)
    return np.concatenate(
        [np.asarray(function(*(a[i : i + BATCH] for a in arrays))) for i in starts]
    )


def _channels_last(maps: Any) -> Any:
    """Maps of the input's shape as float32 (N, H, W, C). ValueError for NaN and infinity."""
    import numpy as np

    if not np.isfinite(maps).all():
        raise ValueError("There is NaN or infinity in the maps.")
    if maps.ndim == 3:
        maps = maps[..., None]
    elif maps.shape[-1] not in (1, 3) and maps.shape[1] in (1, 3):
        maps = np.moveaxis(maps, 1, -1)
    return maps.astype(np.float32)


def _draw(name, maps, explained: _Explained, out: Path, shared_scale: bool, overlay: bool) -> list:
    """Writes a method's heat maps; returns its rows."""
    from ..report import plots

    folder = out / _file_name(name)
    shared, note = None, ""
    if shared_scale:
        _, shared = plots.normalise(maps.sum(-1))
        note = f"\none scale for all {len(maps)} images, max(|P0.5|, |P99.5|)"
    rows = []
    for i, image in enumerate(explained.names):
        reduced = maps[i].sum(-1)
        _, scale = plots.normalise(reduced, shared)
        file = folder / f"{i:03d}-{_file_name(Path(image).stem)}.png"
        caption = f"{image}: target {explained.target(i)}, logit {explained.logit(i):.2f}"
        figure = plots.heatmap(
            reduced,
            scale=shared,
            overlay=explained.pixels[i] if overlay else None,
            title=name,
            caption=caption + note,
        )
        _write_figure(file, figure)
        row = {"image": image, "method": name, "target": int(explained.targets[i])}
        row |= {"target_name": explained.target(i), "predicted": explained.predicted(i)}
        row |= {"logit": explained.logit(i), "sum": float(reduced.sum(dtype=float))}
        rows.append({**row, "scale": scale, "file": str(file)})
    return rows


def _draw_sheet(out: Path, maps: Mapping, explained: _Explained, shared_scale, overlay) -> None:
    from ..report import plots

    captions = [
        f"{name}\ntarget {explained.target(i)}, logit {explained.logit(i):.2f}\n"
        f"predicted {explained.predicted(i)}"
        for i, name in enumerate(explained.names)
    ]
    shown = slice(0, SHEET_ROWS)
    figure = plots.sheet(
        explained.pixels[shown],
        {name: own[shown] for name, own in maps.items()},
        captions=captions[shown],
        shared_scale=shared_scale,
        overlay=overlay,
    )
    _write_figure(out / "sheet.png", figure)
    if len(captions) > SHEET_ROWS:
        say(f"The sheet shows the first {SHEET_ROWS} of {len(captions)} images.")


def _write_figure(path: Path, figure: Any) -> None:
    with writing(path) as stream:
        figure.savefig(stream, format="png", dpi=DPI)


def _write_arrays(path: Path, maps: Mapping[str, Any], explained: _Explained) -> None:
    import numpy as np

    about = {"names": explained.names, "targets": explained.targets, "logits": explained.logits}
    with writing(path) as stream:
        np.savez(stream, **maps, **about)


def _table(explained: _Explained, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    shown = [
        {
            "image": image,
            "target": explained.target(i),
            "logit": f"{explained.logit(i):.4g}",
            **{name: f"{own[i]['sum']:.4g}" for name, own in rows.items()},
        }
        for i, image in enumerate(explained.names)
    ]
    return f"sum of each method's map\n\n{columns(shown)}"


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", text)
