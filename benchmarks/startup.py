"""Seconds until relevance can run (reading, tracing, compiling), in a first and a second process.

    python benchmarks/startup.py [--network vgg16 resnet50] [--method lrp-zplus]

Each is a fresh process with JAX's persistent compilation cache in a new folder: the first one fills
it, the second one finds its programs there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time

import jax
from networks import NETWORKS, network
from speed import vectors

import lrpjax as lrp


def compiling(name: str, method: str, cache: str) -> None:
    """Prints the seconds of reading the model, tracing its relevance and compiling it."""
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    model = network(name)
    x, r = jax.random.normal(jax.random.key(0), (1, 224, 224, 3)), vectors(1, 1)
    jax.block_until_ready((x, r))
    relevance = jax.jit(lambda model, x, r: jax.vmap(lrp.vjp(model, x, method)[1])(r))
    begin = time.perf_counter()
    relevance.lower(model, x, r).compile()
    print(time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--method", default="lrp-zplus")
    parser.add_argument("--cache", help="Used by the processes this one starts.")
    options = parser.parse_args()
    if options.cache:
        compiling(options.network[0], options.method, options.cache)
        return
    for name in options.network:
        with tempfile.TemporaryDirectory() as cache:
            command = [sys.executable, __file__, "--network", name, "--cache", cache]
            command += ["--method", options.method]
            first, second = (
                float(subprocess.run(command, check=True, capture_output=True).stdout)
                for _ in range(2)
            )
        print(
            f"{name}, {options.method}: reading and compiling {first:.1f} s, in a second process "
            f"{second:.1f} s ({second / first:.2f})"
        )


if __name__ == "__main__":
    main()
