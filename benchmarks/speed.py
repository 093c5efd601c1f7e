"""Seconds per relevance vector at the input of VGG-16: lrpjax, plain vjp and zennit, side by side.

    python benchmarks/speed.py                 # all of it
    python benchmarks/speed.py --no-zennit     # without torch

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

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from vgg16 import VGG16

import lrpjax as lrp

METHODS = {"z+": "lrp-zplus", "alpha2-beta1": "lrp-alpha2-beta1", "epsilon": "lrp-epsilon"}


def vectors(count: int, images: int) -> jax.Array:
    return jax.random.normal(jax.random.key(1), (count, images, 1000))


def compiled(model: VGG16, method: str | None) -> Callable:
    """(model, x, vectors) to relevance at the input: of a method, or jax.vjp's if it is None."""

    @jax.jit
    def run(model, x, r):
        pull = jax.vjp(model, x)[1] if method is None else lrp.vjp(model, x, method)[1]
        return jax.vmap(pull)(r)

    return lambda x, r: jax.block_until_ready(run(model, x, r))


def zennit_runs(model: VGG16, x: jax.Array) -> dict[str, Callable]:
    """The same weights in torch, relevance by zennit's rules, one backward pass per vector."""
    import torch
    from vgg16 import STAGES
    from zennit.attribution import Gradient
    from zennit.core import Composite
    from zennit.rules import AlphaBeta, Epsilon, Pass, ZPlus

    def conv(layer):
        weight = np.asarray(layer.kernel[...]).transpose(3, 2, 0, 1)
        made = torch.nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
        made.weight.data, made.bias.data = map(torch.tensor, (weight, np.asarray(layer.bias[...])))
        return made

    def dense(layer, kernel):
        made = torch.nn.Linear(*kernel.shape)
        made.weight.data = torch.tensor(kernel.T.copy())
        made.bias.data = torch.tensor(np.asarray(layer.bias[...]))
        return made

    parts, convs = [], iter(model.convs)
    for stage in STAGES:
        for _ in stage:
            parts += [conv(next(convs)), torch.nn.ReLU()]
        parts.append(torch.nn.MaxPool2d(2))
    first = np.asarray(model.fc1.kernel[...]).reshape(7, 7, 512, 4096)  # NHWC to NCHW flattening
    parts += [torch.nn.Flatten(), dense(model.fc1, first.transpose(2, 0, 1, 3).reshape(-1, 4096))]
    parts += [torch.nn.ReLU(), dense(model.fc2, np.asarray(model.fc2.kernel[...])), torch.nn.ReLU()]
    network = torch.nn.Sequential(
        *parts, dense(model.fc3, np.asarray(model.fc3.kernel[...]))
    ).eval()
    image = torch.tensor(np.asarray(x).transpose(0, 3, 1, 2).copy())
    linear = (torch.nn.Conv2d, torch.nn.Linear)

    def run(rule):
        def module_map(context, name, module):
            if isinstance(module, linear):
                return rule
            return Pass() if isinstance(module, torch.nn.ReLU) else None

        def each(_, r):
            with Gradient(network, Composite(module_map)) as attributor:
                for row in np.asarray(r)[:, 0]:
                    attributor(image, torch.tensor(row)[None])

        return each

    with torch.no_grad():
        difference = np.abs(network(image).numpy() - np.asarray(model(x))).max()
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vectors", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-zennit", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    print(f"device: {jax.devices()[0].device_kind}, jax {jax.__version__}")
    model = VGG16(rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (1, 224, 224, 3))
    r = vectors(options.vectors, 1)
    runs: dict[str, Callable] = {"plain vjp": compiled(model, None)}
    runs |= {f"lrpjax {name}": compiled(model, method) for name, method in METHODS.items()}
    for name, run in runs.items():
        begin = time.perf_counter()
        run(x, r)
        print(f"first call with compilation, {name}: {time.perf_counter() - begin:.1f} s")
    if not options.no_zennit:
        try:
            runs |= zennit_runs(model, x)
        except ImportError as error:
            print(f"zennit left out ({error}): pip install '.[bench]'")
    seconds = timed(runs, x, r, options.rounds)
    rows = []
    for name, value in seconds.items():
        row = {
            "run": name,
            "seconds_per_vector": value,
            "to_plain_vjp": value / seconds["plain vjp"],
        }
        rival = seconds.get(name.replace("lrpjax", "zennit"))
        if name.startswith("lrpjax") and rival:
            row["faster_than_zennit"] = rival / value
        rows.append(row)
        print(
            "  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{v:22}" for k, v in row.items())
        )

    zplus = runs["lrpjax z+"]
    print("scaling of z+ (seconds in all; linear means twice the work, twice the time)")
    for count, images in ((4, 1), (8, 1), (16, 1), (4, 2), (4, 4)):
        batch, many = jnp.repeat(x, images, 0), vectors(count, images)
        zplus(batch, many)
        total = timed({"z+": zplus}, batch, many, 3)["z+"] * count * images
        rows.append({"run": "scaling", "vectors": count, "images": images, "seconds": total})
        print(f"  {images} images x {count} vectors: {total:.2f}")
    if options.json:
        settings = {"device": jax.devices()[0].device_kind, "jax": jax.__version__}
        options.json.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
