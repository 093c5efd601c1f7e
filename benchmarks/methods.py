"""What pattern fitting, integrated gradients and DeepLIFT cost, beside the plain passes they need.

    python benchmarks/methods.py

Fitting and integrated gradients on the bundled CIFAR-10 network, DeepLIFT on VGG-16's shape. Every
number is the median of rounds in which the competitors take turns; the ratios are what counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
from networks import network
from speed import compiled, vectors

import lrpjax as lrp

DEEPLIFT = ("deeplift-rescale", "deeplift-reveal-cancel", "deeplift-ablation")


def timed(runs: dict[str, Callable], rounds: int) -> dict[str, float]:
    """Median seconds of each run, the competitors taking turns, after one call to warm up."""
    for run in runs.values():
        jax.block_until_ready(run())
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            begin = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def fitting(rounds: int) -> dict[str, float]:
    """Throughput of fitting patterns as a share of that of plain forward passes."""
    model = lrp.models.cifar10()
    images = jax.random.uniform(jax.random.key(0), (8, 64, 32, 32, 3))
    forward = jax.jit(lambda model, x: model(x))
    seconds = timed(
        {
            "forward": lambda: [forward(model, x) for x in images],
            "fit": lambda: lrp.patterns.fit(model, list(images)),
            "fit, all patches": lambda: lrp.patterns.fit(model, list(images), patches=None),
        },
        rounds,
    )
    return {
        "pattern fitting / forward passes, throughput": seconds["forward"] / seconds["fit"],
        "the same with all patches": seconds["forward"] / seconds["fit, all patches"],
    }


def integrated(rounds: int) -> dict[str, float]:
    """Time of integrated gradients with 50 steps over that of 50 plain gradients."""
    model = lrp.models.cifar10()
    images = jax.random.uniform(jax.random.key(0), (16, 32, 32, 3))
    gradient = jax.jit(lambda model, x: jax.grad(lambda x: model(x)[:, 3].sum())(x))
    found = {}
    for name, x in (("1 image", images[:1]), ("16 images", images)):
        seconds = timed(
            {
                "gradients": lambda x=x: [gradient(model, x) for _ in range(50)],
                "integrated": lambda x=x: lrp.attribute(model, x, "integrated-gradients", target=3),
            },
            rounds,
        )
        ratio = seconds["integrated"] / seconds["gradients"]
        found[f"integrated gradients / 50 gradients, {name}"] = ratio
    return found


def deeplift(rounds: int) -> dict[str, float]:
    """Time of a multiplier vector at the input of VGG-16 over that of a gradient."""
    model = network("vgg16")
    x, r = jax.random.normal(jax.random.key(0), (1, 224, 224, 3)), vectors(8, 1)
    runs = {name: compiled(model, name) for name in DEEPLIFT} | {"vjp": compiled(model, None)}
    seconds = timed({name: lambda run=run: run(x, r) for name, run in runs.items()}, rounds)
    return {f"{name} / gradient, a vector": seconds[name] / seconds["vjp"] for name in DEEPLIFT}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"device: {jax.devices()[0].device_kind}, jax {jax.__version__}")
    rows = []
    for part in (fitting, integrated, deeplift):
        for name, ratio in part(options.rounds).items():
            rows.append({"ratio": name, "value": ratio})
            print(f"{name}: {ratio:.2f}")
    if options.json:
        settings = {"device": jax.devices()[0].device_kind, "jax": jax.__version__}
        options.json.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
