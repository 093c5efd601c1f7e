"""The command line: `lrpjax csc`, `plan`, `methods`, `train`."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ._text import columns

app = typer.Typer(
    help="Relevance propagation for any JAX model, and whether to trust its saliency maps.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # so that paragraphs flow
)
console = Console()
BUNDLED = ("cifar10",)
THREADS = 2  # compiling one method overlaps with running another

ModelOption = Annotated[
    str, typer.Option(help="cifar10, or package.module:function, a factory without arguments.")
]
ImagesOption = Annotated[
    list[Path] | None,
    typer.Option(help="A folder, image files or an .npz with `images`. Default: the bundled 20."),
]
JsonOption = Annotated[
    Path | None, typer.Option("--json", help="Write settings and rows to this file.")
]


def main() -> None:
    """The entry point: errors that the user can mend are one sentence, without a traceback."""
    try:
        app()
    except (ValueError, TypeError, NotImplementedError, OSError, ImportError) as error:
        Console(stderr=True).print(f"lrpjax: {error}", style="red", highlight=False,
                                   soft_wrap=True, markup=False)  # fmt: skip
        sys.exit(1)


@app.command()
def csc(
    method: Annotated[
        list[str] | None, typer.Option(help="A method (repeatable). Default: all of them.")
    ] = None,
    start: Annotated[
        list[str] | None,
        typer.Option(help="Layer to inject at (repeatable). Default: the model's output."),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Layers to measure, with commas. Default: all below.")
    ] = None,
    vectors: Annotated[int, typer.Option(help="Random vectors per image.", min=2)] = 5,
    images: ImagesOption = None,
    model: ModelOption = "cifar10",
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
    from .convergence import CSC
    from .report import plots

    _writable(out)
    if plot is not None:
        result = CSC.load(plot)
    else:
        result = _run_csc(method, start, layers, vectors, images, model, seed, out)
    for name in dict.fromkeys(row["start"] for row in result.rows):
        _print(_csc_table(result, name))
    files = [
        file
        for scale in ("linear", "log")
        for file in plots.save(result.plot(scale=scale), out / f"csc_{scale}")
    ]
    if json_file is not None:
        _writable(json_file.parent)
        result.save(json_file)
    if skipped := result.settings.get("skipped_files"):
        _print(f"\n{skipped} unreadable files skipped, {result.settings['n_images']} images read.")
    shown = ", ".join(str(f) for f in files if f.suffix == ".png")
    _print(f"\nFigures: {shown} (and .svg)")
    if plot is None:
        again = f"lrpjax csc --plot {out / 'results.json'}"
        _print(f"Results: {out / 'results.json'}; draw them again with `{again}`")


def _run_csc(method, start, layers, vectors, images, model, seed, out) -> Any:
    import jax

    from . import methods
    from .convergence import CSC, csc

    network, x, settings = _load(model, images)
    chosen = {name: methods.resolve(name, network) for name in method or _usable(network)}
    names = [name.strip() for name in layers.split(",")] if layers else None
    settings |= {"vectors": vectors, "seed": seed}
    jobs = [(name, where) for where in start or [None] for name in chosen]
    done: dict[tuple, CSC] = {}
    failed: dict[str, str] = {}

    def collected() -> CSC:
        rows = [row for job in jobs if job in done for row in done[job].rows]
        return CSC({**settings, "methods": [j[0] for j in jobs if j in done]}, rows)

    def measure(job: tuple) -> CSC:
        name, where = job
        key = jax.random.key(seed)
        return csc(network, x, chosen[name], key=key, start=where, layers=names, vectors=vectors)

    shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    pool = ThreadPoolExecutor(THREADS)
    with Progress(*shown, TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task("methods", total=len(jobs))
        futures = {pool.submit(measure, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                name = futures[future][0]
                bar.update(task, advance=1, description=name)
                try:
                    done[futures[future]] = future.result()
                except (ValueError, NotImplementedError) as error:
                    if len(jobs) == 1:
                        raise
                    failed[name] = str(error)
                    continue
                collected().save(out / "results.json")
        except KeyboardInterrupt:
            console.print(f"Interrupted: {len(done)} of {len(jobs)} finished and saved.")
            raise typer.Exit(130) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    for name, reason in failed.items():
        _print(f"{name} left out: {reason}")
    if not done:
        raise ValueError("No method could be measured; the reasons are above.")
    return collected()


def _csc_table(result: Any, start: str) -> str:
    rows = [row for row in result.rows if row["start"] == start]
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    baseline = {row["layer"]: _median(1 - row["baseline"]) for row in rows}
    shown = [{"method": "(independent vectors)", **baseline}]
    for method in dict.fromkeys(row["method"] for row in rows):
        own = {row["layer"]: row["one_minus_median"] for row in rows if row["method"] == method}
        medians = {layer: _median(own[layer]) if layer in own else "" for layer in layers}
        shown.append({"method": method, **medians})
    dropped = sum(row["dropped"] for row in rows)
    total = dropped + sum(row["count"] for row in rows)
    return (
        f"median |cosine| of random relevance injected at {start}, at each layer below\n\n"
        f"{columns(shown)}\n\n{dropped} of {total} cosines dropped (zero vectors)"
    )


def _median(distance: float) -> str:
    """0.87, and 1-3e-6 where two decimals would hide the difference."""
    if distance == 0:
        return "1"
    return f"1-{distance:.0e}".replace("e-0", "e-") if distance < 0.01 else f"{1 - distance:.2f}"


@app.command()
def plan(
    method: Annotated[str, typer.Argument(help="A method's name; see `lrpjax methods`.")],
    model: ModelOption = "cifar10",
    images: ImagesOption = None,
    check: Annotated[bool, typer.Option(help="Also run it: folding and conservation.")] = False,
    json_file: JsonOption = None,
) -> None:
    """The layers that are found in a model and the rule that each will get."""
    from .plan import plan as make_plan

    network, x, settings = _load(model, images)
    made = make_plan(network, x, method)
    _print(str(made))
    rows: list[dict[str, Any]] = made.rows
    if check:
        checked = made.check(x)
        rows = checked.rows
        _print(f"\n{checked}")
    if json_file is not None:
        _write_json(json_file, settings, rows)


@app.command()
def methods(json_file: JsonOption = None) -> None:
    """Every method with its formula and its source."""
    from . import methods as known

    _print(known.table())
    if json_file is not None:
        rows = [
            {"method": n, "formula": e.formula, "source": e.source} for n, e in known.TABLE.items()
        ]
        _write_json(json_file, {}, rows)


@app.command()
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

    from .models.datasets import read_cifar10
    from .models.training import accuracy
    from .models.training import train as run

    _writable(out)
    images, labels = read_cifar10(data, train=True)
    held = None
    if test is not None or data.suffix not in (".npz",):
        held = read_cifar10(test or data, train=False)
    rows = []
    for epoch, model in run(
        images, labels, out=out, key=jax.random.key(seed), epochs=epochs, progress=True
    ):
        reached = accuracy(model, *held) if held else None
        rows.append({"epoch": epoch + 1, "test_accuracy": reached})
        console.print(f"epoch {epoch + 1}: " + (f"test accuracy {reached:.4f}" if held else "done"))
        if json_file is not None:
            _write_json(json_file, {"data": str(data), "epochs": epochs, "seed": seed}, rows)
    console.print(f"Weights: {out / 'cifar10.safetensors'}", highlight=False)


def _load(name: str, sources: list[Path] | None) -> tuple[Callable, Any, dict[str, Any]]:
    """The model, its input images, and both as settings."""
    import jax.numpy as jnp

    from . import models
    from .images import bundled_images, load_images

    if name in BUNDLED:
        network = getattr(models, name)()
    elif ":" in name:
        module, _, function = name.partition(":")
        sys.path.insert(0, "")  # the user's own module, beside where the command is run
        factory = getattr(importlib.import_module(module), function, None)
        if factory is None:
            raise ValueError(f"The module {module!r} has no function {function!r}.")
        network = factory()
    else:
        raise ValueError(
            f"There is no model {name!r}: use {' or '.join(BUNDLED)}, or package.module:function."
        )
    if sources:
        loaded = load_images(sources, size=getattr(network, "image_size", None))
        pixels, origin = loaded.pixels, [str(source) for source in sources]
        skipped = len(loaded.skipped)
        for file, reason in loaded.skipped[:10]:
            console.print(f"skipped {file}: {reason}", style="yellow", soft_wrap=True, markup=False)
    else:
        pixels, origin, skipped = bundled_images()[0], ["bundled CIFAR-10 test images"], 0
    prepare = getattr(network, "preprocess", lambda images: jnp.asarray(images, jnp.float32) / 255)
    counts = {"n_images": len(pixels), "skipped_files": skipped}
    return network, prepare(pixels), {"model": name, "images": origin, **counts}


def _usable(network: Callable) -> list[str]:
    """All methods, less those that need an input range this model does not state."""
    from . import methods

    known = hasattr(network, "input_range")
    return [name for name, entry in methods.TABLE.items() if known or not entry.needs_range]


def _print(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def _writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".lrpjax-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"The output folder {str(folder)!r} cannot be written ({error.strerror}): choose "
            "another with --out."
        ) from error


def _write_json(path: Path, settings: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    _writable(path.parent)
    path.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1))
