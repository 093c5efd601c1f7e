"""One case: a network, a method and a rewriting; what the library says, and what is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

import lrpjax as lrp

from . import backward
from .blocks import Block
from .description import Net
from .draw import draw
from .program import Style, laid, model, unlaid
from .rewriting import REWRITINGS, Rewriting
from .shares import METHODS, Method

# The oracle adds no stabiliser; the library's moves an accepted map by 1e-6 at most.
TOLERANCE = 1e-5
# One small program for each network: XLA spends its time on splitting and fusing it.
QUICK = {"xla_cpu_parallel_codegen_split_count": 1, "xla_cpu_use_fusion_emitters": False}
STABILISER = 1e-9  # the library's, of a layer's largest value
UNOPTIMISED = "jax_disable_most_optimizations"
SUMS = 1e-9  # DeepLIFT and the gradient divide by nothing that is stabilised


@dataclass(frozen=True, eq=False)
class Case:
    """expected: the oracle's map for the relevance R of the output. baseline: of DeepLIFT 0, one
    input (1, ...), or one for each image (N, ...)."""

    seed: int
    net: Net
    method: Method
    rewriting: Rewriting
    style: Style
    R: np.ndarray
    expected: np.ndarray
    rejected: int
    baseline: Any = 0.0

    def __str__(self) -> str:
        return (
            f"seed {self.seed}, {self.method}, {self.rewriting}, fold={self.net.fold}, "
            f"{self.style.outer}\n{self.net}"
        )


# Activations with corners that are neither ReLUs nor clips of a value.
UNCLEAR = {"hard_tanh", "hard_swish", "hard_sigmoid"}


def fits(net: Net, method: Method, rewriting: Rewriting) -> bool:
    """Whether this may be asked: epsilon is absolute, so that an input may not be rescaled."""
    absolute = method.name == "lrp-epsilon" or method.dense is not None
    homogeneous = not absolute or rewriting.factor == 1
    derivative = method.family not in ("gradient", "cuts") or rewriting.derivative
    able = method.family not in net.refused and derivative
    if method.family == "cuts":
        able = able and rewriting.cuts
        acts = {node["name"] for node in net.nodes if node.kind == "act"}
        able = able and bool(acts & {"relu"}) and not acts & UNCLEAR
        if method.name == "rect-grad":
            able = able and not acts & (set(backward.CUTS) - {"relu"})
    return able and rewriting.applies(net) and homogeneous


class NoNetwork(LookupError):
    """Of the networks drawn none has what a method and a rewriting need."""


DRAWS = 400  # one network in thirty has neither bias, norm nor gate, for the rarest rewritings


def case(
    seed: int,
    method: Method | None = None,
    rewriting: Rewriting | None = None,
    blocks: int = 2,
    holding: Block | None = None,
) -> Case:
    """The case of a seed: draws networks until one fits and the oracle's map is determined.

    Methods and rewritings take turns, so that each has its share of the seeds. holding: a part that
    the network holds besides.
    """
    rng = np.random.default_rng([seed, 2])
    way = rewriting or REWRITINGS[seed % len(REWRITINGS)]
    first = seed + seed // len(REWRITINGS)
    in_turn = [METHODS[(first + k) % len(METHODS)] for k in range(len(METHODS))]
    rejected = 0
    for attempt in range(DRAWS):
        net = draw(seed + 1_000_000 * attempt, blocks, holding)
        able = [m for m in ([method] if method else in_turn) if fits(net, m, way)]
        if not able:
            continue
        chosen = able[0]
        R = rng.normal(size=(len(net.x), net.nodes[-1].shape[0]))
        baseline = _baseline(seed, net) if chosen.family == "deeplift" else 0.0
        expected = backward.determined(net, chosen, net.x, R, baseline)
        if expected is not None:
            outer = ("partial", "closure", "jit", "vmap")[int(rng.integers(4))]
            style = Style(seed, nchw=bool(rng.random() < 0.3), outer=outer)
            return Case(seed, net, chosen, way, style, R, expected, rejected, baseline)
        rejected += 1
    raise NoNetwork(f"seed {seed}: no network fits {method} and {way}, of {DRAWS}")


def _baseline(seed: int, net: Net) -> Any:
    rng = np.random.default_rng([seed, 4])
    count = int(rng.integers(3))
    return rng.normal(size=(count, *net.x.shape[1:])) / 3 if count else 0.0


def library_method(case: Case, style: Style | None = None, factor: float = 1.0) -> Any:
    """The case's method; its baseline as that style has inputs, times a factor."""
    options, given = dict(case.method.options), case.baseline
    if np.ndim(given):
        rows = laid(case.net, style or case.style, factor * given)
        one = lambda rows: jax.tree.map(lambda leaf: leaf[0], rows)
        options["baseline"] = one(rows) if len(given) == 1 else rows
    return lrp.methods.get(case.method.name, fold=case.net.fold, **options)


def plain(case: Case) -> tuple[Callable, np.ndarray]:
    """The network of a case as a model, and its batch, as somebody has them."""
    return model(case.net, case.style, case.net.params), laid(case.net, case.style, case.net.x)


def rewritten(case: Case) -> tuple[Net, Style]:
    return case.rewriting.make(case.net, case.style, np.random.default_rng([case.seed, 3]))


def maps(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(output, map, map of the rewritten network), in the layout of the description."""
    way, pairs = case.rewriting, [(case.net, case.style), rewritten(case)]
    number = len(case.net.x) if not way.alone else 1
    of_one = replace(case, baseline=case.baseline[:1]) if np.ndim(case.baseline) else case
    methods = (
        library_method(case),
        library_method(of_one if way.alone else case, pairs[1][1], way.factor),
    )

    def relevance(k, params, x, R):
        out, pull = lrp.vjp(model(*pairs[k], params), x, methods[k])
        return out, pull(R)

    @partial(jax.jit, compiler_options=QUICK)
    def both(params, xs, R):
        out, one = relevance(0, params[0], xs[0], R)
        _, two = relevance(1, params[1], xs[1], R[:number].astype(way.dtype))
        return out, one, two

    x = laid(*pairs[0], case.net.x.astype(way.dtype).astype("float64"))
    other = laid(*pairs[1], (case.net.x[:number] * way.factor).astype(way.dtype))
    out, one, two = both([net.params for net, _ in pairs], [x, other], case.R)
    return np.asarray(out), unlaid(*pairs[0], one), unlaid(*pairs[1], two)


def error(found: Any, wanted: Any) -> float:
    """The largest difference, relative to the largest entry if there is any; of NaN infinite."""
    wanted = np.asarray(wanted)
    worst = np.abs(np.asarray(found) - wanted).max()
    return float(worst / (np.abs(wanted).max() or 1)) if np.isfinite(worst) else np.inf


def failures(case: Case) -> Iterator[str]:
    """What is wrong with the library's maps of this case, one sentence each."""
    x = case.net.x.astype(case.rewriting.dtype).astype("float64")
    expected = case.expected
    if case.rewriting.dtype != "float64":
        expected = backward.relevance(case.net, case.method, x, case.R, baseline=case.baseline)
    out, one, two = maps(case)
    values = backward.run(case.net, x)
    assert error(out, values[-1]) < SUMS, "the two descriptions differ"
    bound = TOLERANCE if case.method.family == "lrp" else SUMS
    if (worst := error(one, expected)) > bound:
        yield f"the map differs from the oracle's by {worst:.2g}"
    if case.method.family == "deeplift":
        start = backward.run(case.net, case.baseline + np.zeros_like(x))[-1]
        total = ((values[-1] - start) * case.R).sum(1)
        if error(one.reshape(len(x), -1).sum(1), total) > SUMS:
            yield "the contributions do not add up to f(x) - f(x0)"
    wanted = one[: len(two)] * (case.rewriting.factor if scales(case) else 1)
    if (worst := error(two, wanted)) > allowed(case):
        yield f"{case.rewriting} changes the map by {worst:.2g}"


def wrong_with(case: Case) -> list[str]:
    """`failures` that optimisations do not mend: without them XLA gets one network in a hundred
    wrong, `jax.vjp` of it too."""
    if not jax.config.read(UNOPTIMISED):
        return list(failures(case))
    try:
        wrong = list(failures(case))
    except ValueError as refused:  # of a map that is not finite
        wrong = [str(refused)]
    if wrong:
        jax.config.update(UNOPTIMISED, False)
        try:
            wrong = list(failures(case))
        finally:
            jax.config.update(UNOPTIMISED, True)
    return wrong


def allowed(case: Case) -> float:
    """How far the maps of two spellings may be apart."""
    if not case.rewriting.denominators or case.method.family != "lrp":
        return case.rewriting.tolerance
    stabilised = backward.relevance(case.net, case.method, case.net.x, case.R, s=STABILISER)
    return case.rewriting.tolerance + 2 * error(stabilised, case.expected)


def scales(case: Case) -> bool:
    """LRP's relevance is started here from R, which stays; a difference from 0 grows."""
    return case.method.family == "deeplift" or case.method.name == "input-x-gradient"
