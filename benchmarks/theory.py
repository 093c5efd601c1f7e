"""The price of the theory: a dense Z, leading singular values, a certificate.

    python benchmarks/theory.py                # all three
    python benchmarks/theory.py --no-vgg       # without VGG-16 (a minute)

A dense Z is compared with one matrix product of its size, in turns; singular values are counted in
products with the chain or its transpose; the certificate is timed with and without compiling.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

import lrpjax as lrp
from lrpjax.images import bundled_images

SIZE = 4096


def seconds(run: Callable) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - begin


def dense_z(rounds: int) -> None:
    """Z of a dense layer behind a ReLU, under z+, against the product of two matrices."""
    keys = jax.random.split(jax.random.key(0), 3)
    a, b = (jax.random.normal(k, (SIZE, SIZE)) for k in keys[:2])
    model = jax.tree_util.Partial(lambda w, x: jax.nn.relu(x) @ w, b)
    x = jax.random.normal(keys[2], (1, SIZE))
    op = lrp.chain(model, x, "lrp-zplus")
    runs = {"product": partial(jax.jit(jnp.matmul), a, b), "Z": op.dense}
    for run in runs.values():
        seconds(run)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(seconds(run))
    product, z = (statistics.median(times[name]) for name in runs)
    print(
        f"dense Z {SIZE} x {SIZE}: {z:.2f} s, one product {product:.2f} s, ratio {z / product:.2f}"
    )


def certificate() -> None:
    """The bundled network from fc5, one image: the first call compiles, the second does not."""
    model = lrp.models.cifar10()
    x = model.preprocess(bundled_images()[0])
    for label, image in (("with compiling", x[:1]), ("again, another image", x[1:2])):
        begin = time.perf_counter()
        made = lrp.convergence.certificate(
            model, image, "lrp-alpha1-beta0", start="fc5", key=jax.random.key(0)
        )
        print(f"certificate from fc5, {label}: {time.perf_counter() - begin:.1f} s")
    print(made.sentence)


def vgg_spectrum() -> None:
    """The 5 leading singular values of VGG-16 from fc3 to the pixels."""
    model = lrp.models.vgg16("random", key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (1, 224, 224, 3))
    for method in ("lrp-zplus", "gradient"):
        begin = time.perf_counter()
        found = lrp.convergence.singular_values(
            model, x, method, start="fc3", layers=["input"], key=jax.random.key(2)
        )
        (row,) = found.rows
        values = ", ".join(f"{v:.3g}" for v in row["values"])
        took = time.perf_counter() - begin
        print(f"VGG-16 fc3 to input, {method}: {row['products']} products, {took:.0f} s: {values}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-vgg", action="store_true")
    options = parser.parse_args()
    dense_z(options.rounds)
    certificate()
    if not options.no_vgg:
        vgg_spectrum()


if __name__ == "__main__":
    main()
