"""The price of parameter randomisation, and Quantus' on the same weights and images.

    python benchmarks/sanity.py                # pip install quantus==0.6.0 torch zennit
    python benchmarks/sanity.py --no-quantus   # without torch

MPRT over all layers of the bundled network is compared with as many plain attributions, and with
Quantus' (Pearson correlation, top-down; its other similarities fail with current scipy): with the
gradient, and with alpha2-beta1 by zennit. Competitors take turns; ratios of medians are printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from networks import torch_cifar10

import lrpjax as lrp
from lrpjax.images import bundled_images

METHODS = ("gradient", "lrp-alpha2-beta1")


def pictures(count: int) -> np.ndarray:
    """The bundled images with a little noise, as many as asked for."""
    pixels = bundled_images()[0].astype(np.float32) / 255
    noise = np.random.default_rng(0).normal(0, 0.02, (count, *pixels.shape[1:]))
    return np.clip(pixels[np.arange(count) % len(pixels)] + noise, 0, 1).astype(np.float32)


def timed(runs: dict[str, Callable], rounds: int) -> dict[str, float]:
    """Median seconds of each, the competitors taking turns, after one call to compile."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(own) for name, own in seconds.items()}


def ours(model: Any, x: Any, target: np.ndarray, method: str) -> dict[str, Callable]:
    """MPRT of all layers, and one attribution for each of its maps."""
    mprt = partial(lrp.sanity.mprt, model, x, method, key=jax.random.key(0), target=target)
    maps = 1 + len(mprt().rows)

    def plain() -> None:
        for _ in range(maps):
            jax.block_until_ready(lrp.attribute(model, x, method, target=target))

    return {"plain": plain, "mprt": mprt, "mprt, pearson": partial(mprt, similarity="pearson")}


def compilations(run: Callable) -> int:
    """How often XLA compiles during a call."""
    count = 0

    def counted(event: str, duration: float, **_: Any) -> None:
        nonlocal count
        count += event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(counted)
    run()
    return count


def quantus_runs(model: Any, x: np.ndarray, target: np.ndarray) -> dict[str, Callable]:
    """Quantus' MPRT of the same network in torch, for each of `METHODS`."""
    import quantus
    import torch
    from quantus.functions.similarity_func import correlation_pearson
    from zennit.attribution import Gradient
    from zennit.composites import LayerMapComposite
    from zennit.rules import AlphaBeta, Pass
    from zennit.types import Activation, Convolution, Linear

    twin, images = torch_cifar10(model), x.transpose(0, 3, 1, 2).copy()
    with torch.no_grad():
        expected = np.asarray(model(x))
        apart = np.abs(twin(torch.tensor(images)).numpy() - expected).max()
    print(f"forward difference to torch: {apart / np.abs(expected).max():.1e}")
    rules = [(Activation, Pass()), (Convolution, AlphaBeta(2, 1)), (Linear, AlphaBeta(2, 1))]
    composites = dict(zip(METHODS, (None, LayerMapComposite(rules)), strict=True))

    def explain(composite: Any, model: Any, inputs: Any, targets: Any, **_: Any) -> np.ndarray:
        with Gradient(model, composite) as attributor:
            seed = torch.eye(10)[torch.as_tensor(np.asarray(targets))]
            found = attributor(torch.as_tensor(np.asarray(inputs)), seed)[1]
        return found.detach().numpy().sum(1, keepdims=True)

    def run(composite: Any) -> None:
        metric = quantus.MPRT(
            similarity_func=correlation_pearson,
            layer_order="top_down",
            abs=False,
            normalise=False,
            display_progressbar=False,
            disable_warnings=True,
        )
        metric(
            model=twin,
            x_batch=images,
            y_batch=target,
            explain_func=partial(explain, composite),
            batch_size=len(images),
        )

    return {name: partial(run, composites[name]) for name in METHODS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", nargs="+", type=int, default=[20, 100])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-quantus", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    model, rows = lrp.models.cifar10(), []
    for count in options.images:
        x = pictures(count)
        target = np.asarray(model(x)).argmax(-1)
        rivals = {} if options.no_quantus else quantus_runs(model, x, target)
        for method in METHODS:
            compiled = compilations(
                partial(lrp.sanity.mprt, model, x, method, key=jax.random.key(0), draws=2)
            )
            runs = ours(model, x, target, method)
            if rivals:
                runs["quantus"] = rivals[method]
            seconds = timed(runs, options.rounds)
            row = {"images": count, "method": method, "compilations": compiled, **seconds}
            row["mprt_to_plain"] = seconds["mprt"] / seconds["plain"]
            if rivals:
                row["faster_than_quantus"] = seconds["quantus"] / seconds["mprt, pearson"]
            rows.append(row)
            text = (f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
            print("  ".join(text), flush=True)
    if options.json:
        settings = {"device": jax.devices()[0].device_kind, "jax": jax.__version__}
        options.json.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
