"""What a first run compiles: programs, seconds of the processor, memory.

    python benchmarks/compile.py                 # all of it, a process each: about 20 minutes
    python benchmarks/compile.py audit-resnet20-1 audit-resnet20-2 [--programs] [--warm]

Each measurement is a process of its own with an empty compilation cache: a program counts when the
cache did not have it. What one more method costs is "audit-resnet20-2" less "audit-resnet20-1".
"unit" is a fixed compilation, by which figures of other machines are compared. --programs: names
the programs that took longest. --warm: runs each again with the cache that the first filled.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from typing import Any

METHODS = "lrp-alpha2-beta1 lrp-z guided-bp".split()  # of "audit-1", "audit-2", "audit-3"
SECONDS = {
    "/jax/core/compile/backend_compile_duration": "compiling",
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
}


def resnet20() -> Any:
    """A CIFAR ResNet-20 in plain lax, He-initialised, BatchNorm with moments away from 0 and 1."""
    import jax
    import numpy as np

    stages = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
    widths = [own for i, o, stride in stages for own in [(i, o, stride), (o, o, 1), (o, o, 1)]]
    rng = np.random.default_rng(0)  # numpy draws: what is compiled here is no work of a measure
    draw = lambda *shape, scale: rng.normal(0, scale, shape).astype(np.float32)

    def made(side: int, i: int, o: int) -> dict[str, Any]:
        moments = {"mean": draw(o, scale=0.1), "var": np.exp(draw(o, scale=0.2))}
        affine = {"scale": 1 + draw(o, scale=0.1), "bias": draw(o, scale=0.1)}
        return {
            "w": draw(side, side, i, o, scale=(2 / (side * side * i)) ** 0.5),
            **moments,
            **affine,
        }

    params: dict[str, Any] = {"stem": made(3, 3, 16)}
    for n, (i, o, stride) in enumerate(widths):
        own = {"a": made(3, i, o), "b": made(3, o, o)}
        params[f"block{n}"] = own | ({"skip": made(1, i, o)} if stride == 2 else {})
    params["head"] = {"w": draw(64, 10, scale=0.2), "b": draw(10, scale=0)}

    def conv(x: Any, p: dict[str, Any], stride: int = 1) -> Any:
        y = jax.lax.conv_general_dilated(
            x, p["w"], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return (y - p["mean"]) * jax.lax.rsqrt(p["var"] + 1e-5) * p["scale"] + p["bias"]

    def model(params: dict[str, Any], x: Any) -> Any:
        x = jax.nn.relu(conv(x, params["stem"]))
        for n, (_, _, stride) in enumerate(widths):
            own = params[f"block{n}"]
            y = conv(jax.nn.relu(conv(x, own["a"], stride)), own["b"])
            x = jax.nn.relu(y + (conv(x, own["skip"], stride) if "skip" in own else x))
        return x.mean((1, 2)) @ params["head"]["w"] + params["head"]["b"]

    return jax.tree_util.Partial(model, params)


def _resnet() -> tuple[Any, Any]:
    import numpy as np

    x = np.random.default_rng(1).random((10, 32, 32, 3), np.float32)
    return resnet20(), x


def _bundled() -> tuple[Any, Any]:
    import jax

    import lrpjax as lrp
    from lrpjax.images import bundled_images

    model = lrp.models.cifar10(key=jax.random.key(0))
    return model, model.preprocess(bundled_images()[0][:10])


def run(what: str) -> None:
    """One measurement, in this process."""
    import jax

    import lrpjax as lrp

    kind, _, rest = what.partition("-")
    if kind == "unit":
        f = lambda x: [x := jax.numpy.sin(x @ x) for _ in range(40)][-1]
        jax.jit(jax.grad(lambda x: f(x).sum())).lower(jax.numpy.ones((64, 64))).compile()
        return
    if kind == "cli":
        from lrpjax.cli import main

        with tempfile.TemporaryDirectory() as out:
            sys.argv = ["lrpjax", rest, "--out", out]
            main()
        return
    network, _, count = rest.rpartition("-")
    model, x = _bundled() if network == "bundled" else _resnet()
    key = jax.random.key(0)
    if kind == "audit":
        from lrpjax.auditing.audits import PAPER

        some = [m for m in METHODS + [p for p in PAPER if p not in METHODS] if "pattern" not in m]
        lrp.audit(model, x, some[: int(count)], key=key)
    elif kind == "csc":
        for method in METHODS[: int(count)]:
            lrp.convergence.csc(model, x, method, key=key)


def child(what: str, cache: str, programs: bool) -> None:
    import jax

    names: Counter[str] = Counter()
    slow: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    jax.monitoring.register_event_listener(lambda e, **_: counts.update([e]))
    jax.monitoring.register_event_duration_secs_listener(
        lambda e, s, **_: seconds.update({SECONDS.get(e, "other"): s})
    )
    if programs:
        jax.config.update("jax_log_compiles", True)
        told = re.compile(r"Finished XLA compilation of (\S+) in (\S+) sec")

        class Named(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if found := told.match(record.getMessage()):
                    names[found[1]] += 1
                    slow[found[1]] += float(found[2])

        for name in ("jax._src.dispatch", "jax._src.interpreters.pxla", "jax._src.compiler", "jax"):
            logging.getLogger(name).handlers = [Named()] if name == "jax._src.dispatch" else []
            logging.getLogger(name).propagate = False
    begin, spent = time.perf_counter(), time.process_time()
    run(what)
    found = {
        "programs": counts["/jax/compilation_cache/cache_misses"],
        "found again": counts["/jax/compilation_cache/cache_hits"],
        "processor": time.process_time() - spent,
        "wall": time.perf_counter() - begin,
        **{name: seconds[name] for name in SECONDS.values()},
        "GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    if programs:
        found["names"] = [(name, names[name], seconds) for name, seconds in slow.most_common(20)]
    print("\n" + json.dumps(found))


def measured(what: str, cache: str, programs: bool) -> dict[str, Any]:
    order = [sys.executable, __file__, "--child", what, "--cache", cache]
    done = subprocess.run(
        [*order, *(["--programs"] if programs else [])], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{what} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


ALL = (
    "unit- audit-resnet20-1 audit-resnet20-2 audit-resnet20-15 audit-bundled-1 csc-resnet20-1 "
    "csc-resnet20-2 cli-csc cli-audit"
).split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", nargs="*", help=f"of {', '.join(ALL)} (default: all)")
    parser.add_argument("--programs", action="store_true")
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.cache, given.programs)
        return
    columns = "programs", "found again", "processor", "wall", *SECONDS.values(), "GB"
    print(f"{'':24}" + "".join(f"{c:>12}" for c in columns))
    for what in given.what or ALL:
        with tempfile.TemporaryDirectory() as cache:
            for turn in ("", " again") if given.warm else ("",):
                found = measured(what, cache, given.programs)
                print(
                    f"{what + turn:24}" + "".join(f"{found[c]:12.4g}" for c in columns), flush=True
                )
                for name, count, seconds in found.get("names", []):
                    print(f"{count:8} {seconds:8.2f} s  {name}")


if __name__ == "__main__":
    main()
