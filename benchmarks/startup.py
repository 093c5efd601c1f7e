"""Seconds until relevance can run: imports, then reading, tracing and compiling in two processes.

    python benchmarks/startup.py [--network vgg16 resnet50] [--method lrp-zplus]

Each is a fresh process. Of imports it prints the median of seven, beside that of `import jax`. To
compile, two processes share JAX's persistent compilation cache in a new folder: the first fills it,
the second finds its programs there.
"""

from __future__ import annotations

import argparse
import statistics
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


FIRST_MAP = (
    "import numpy as np, lrpjax as lrp; w = np.ones((4, 3), np.float32);"
    "lrp.attribute(lambda x: x @ w, np.ones((2, 4), np.float32), 'lrp-z', target=0)"
)
STARTS = {  # the bare interpreter first, which is part of all
    "python": ["-c", ""],
    "import jax": ["-c", "import jax"],
    "import jax, lrpjax": ["-c", "import jax, lrpjax"],
    "a first map of a plain function": ["-c", FIRST_MAP],
    "lrpjax --help": ["-m", "lrpjax", "--help"],
    "lrpjax --version": ["-m", "lrpjax", "--version"],
    "lrpjax cscc (a typing error)": ["-m", "lrpjax", "cscc"],
}


def starting() -> None:
    """Prints the seconds of each start, all measured in turn."""
    taken: dict[str, list[float]] = {name: [] for name in STARTS}
    for _ in range(7):
        for name, arguments in STARTS.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True)
            taken[name].append(time.perf_counter() - begin)
    jax_alone = statistics.median(taken["import jax"])
    for name, seconds in taken.items():
        median = statistics.median(seconds)
        print(f"{name:32} {median:5.2f} s, {median / jax_alone:4.2f} of import jax")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--method", default="lrp-zplus")
    parser.add_argument("--cache", help="Used by the processes this one starts.")
    options = parser.parse_args()
    if options.cache:
        compiling(options.network[0], options.method, options.cache)
        return
    starting()
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
