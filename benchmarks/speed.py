"""Seconds per relevance vector at the input of VGG-16 and ResNet-50: lrpjax, plain vjp, zennit.

    python benchmarks/speed.py                                       # all of it
    python benchmarks/speed.py --no-zennit                           # without torch
    python benchmarks/speed.py --network resnet50 --vectors 8

Every number is the median of rounds in which the competitors take turns, so that a change of
the machine's speed meets all of them; the ratios are what counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from networks import NETWORKS, TORCH, network

import lrpjax as lrp

METHODS = {"z+": "lrp-zplus", "alpha2-beta1": "lrp-alpha2-beta1", "epsilon": "lrp-epsilon"}


def vectors(count: int, images: int) -> jax.Array:
    return jax.random.normal(jax.random.key(1), (count, images, 1000))


def compiled(model: Any, method: str | None) -> Callable:
    """(model, x, vectors) to relevance at the input: of a method, or jax.vjp's if it is None."""

    @jax.jit
    def run(model, x, r):
        pull = jax.vjp(model, x)[1] if method is None else lrp.vjp(model, x, method)[1]
        return jax.vmap(pull)(r)

    return lambda x, r: jax.block_until_ready(run(model, x, r))


def zennit_runs(name: str, model: Any, x: jax.Array) -> dict[str, Callable]:
    """The same weights in torch, relevance by zennit's rules, one backward pass per vector."""
    import torch
    from zennit.attribution import Gradient
    from zennit.core import Composite
    from zennit.layer import Sum
    from zennit.rules import AlphaBeta, Epsilon, Norm, Pass, ZPlus

    twin = TORCH[name](model)
    image = torch.tensor(np.asarray(x).transpose(0, 3, 1, 2).copy())
    kinds = {
        (torch.nn.Conv2d, torch.nn.Linear): None,
        (torch.nn.ReLU,): Pass(),
        (Sum, torch.nn.AdaptiveAvgPool2d): Norm(),
    }

    def run(rule):
        def module_map(context, path, module):
            for types, fixed in kinds.items():
                if isinstance(module, types):
                    return fixed or rule
            return None

        def each(_, r):
            with Gradient(twin, Composite(module_map)) as attributor:
                for row in np.asarray(r)[:, 0]:
                    attributor(image, torch.tensor(row)[None])

        return each

    with torch.no_grad():
        expected = np.asarray(model(x))
        difference = np.abs(twin(image).numpy() - expected).max() / np.abs(expected).max()
    print(f"forward difference to torch: {difference:.1e}")
    rules = {"z+": ZPlus(), "alpha2-beta1": AlphaBeta(2, 1), "epsilon": Epsilon()}
    return {f"zennit {name}": run(rule) for name, rule in rules.items()}


def timed(runs: dict[str, Callable], x, r, rounds: int) -> dict[str, float]:
    """Median seconds per vector of each, the competitors taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            begin = time.perf_counter()
            run(x, r)
            seconds[name].append((time.perf_counter() - begin) / len(r) / len(x))
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All competitors on one network, with each number of vectors."""
    model = network(name)
    x = jax.random.normal(jax.random.key(0), (1, 224, 224, 3))
    runs: dict[str, Callable] = {"plain vjp": compiled(model, None)}
    runs |= {f"lrpjax {label}": compiled(model, method) for label, method in METHODS.items()}
    if not options.no_zennit:
        try:
            runs |= zennit_runs(name, model, x)
        except ImportError as error:
            print(f"zennit left out ({error}): pip install '.[bench]'")
    rows = []
    for count in options.vectors:
        r = vectors(count, 1)
        for label, run in runs.items():
            if not label.startswith("zennit"):
                begin = time.perf_counter()
                run(x, r)
                print(f"first call, {label}: {time.perf_counter() - begin:.1f} s")
        seconds = timed(runs, x, r, options.rounds)
        print(f"{name}, {count} vectors")
        for label, value in seconds.items():
            row = {"network": name, "vectors": count, "run": label, "seconds_per_vector": value}
            row["to_plain_vjp"] = value / seconds["plain vjp"]
            rival = seconds.get(label.replace("lrpjax", "zennit"))
            if label.startswith("lrpjax") and rival:
                row["faster_than_zennit"] = rival / value
            rows.append(row)
            shown = {k: v for k, v in row.items() if k not in ("network", "vectors", "run")}
            print(f"  {label:20}" + "  ".join(f"{k} {v:.3f}" for k, v in shown.items()))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--vectors", nargs="+", type=int, default=[8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-zennit", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    print(f"device: {jax.devices()[0].device_kind}, jax {jax.__version__}")
    rows = [row for name in options.network for row in measure(name, options)]
    if options.json:
        settings = {"device": jax.devices()[0].device_kind, "jax": jax.__version__}
        options.json.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
