"""Peak memory of 32 relevance vectors at the input of a network, weights and runtime included.

    python benchmarks/memory.py [--network vgg16] [--vectors 32] [--method lrp-zplus]

One measurement a process: the peak is that of the whole run (of the device where it reports one).
"""

from __future__ import annotations

import argparse
import resource

import jax
from networks import NETWORKS, network
from speed import compiled, vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vectors", type=int, default=32)
    parser.add_argument("--method", default="lrp-zplus")
    parser.add_argument("--network", default="vgg16", choices=NETWORKS)
    options = parser.parse_args()
    model = network(options.network)
    x = jax.random.normal(jax.random.key(0), (1, 224, 224, 3))
    compiled(model, options.method)(x, vectors(options.vectors, 1))
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    peak = stats.get("peak_bytes_in_use", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    print(
        f"{options.network}, {options.method}, {options.vectors} vectors on {device.device_kind}: "
        f"peak {peak / 2**30:.2f} GiB"
    )


if __name__ == "__main__":
    main()
