"""`python -m tests.generated --forever [--seed N]`: every method and every rewriting, new seeds.

Prints each failure with the command that shows it again, and a count. Without --forever, one seed:
`python -m tests.generated --seed 7 --method "lrp-gamma" --rewriting vmap`.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
import warnings
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)
warnings.simplefilter("ignore")
sys.path[:0] = [str(folder) for folder in (Path(__file__).parents[1],) if folder.is_dir()]

from .architectures import pairs  # noqa: E402
from .check import NoNetwork, case, fits, wrong_with  # noqa: E402
from .draw import draw  # noqa: E402
from .options import LIMITS  # noqa: E402
from .rewriting import REWRITINGS, Rewriting  # noqa: E402
from .shares import METHODS, Method  # noqa: E402

ALL = (*METHODS, *LIMITS)
EVERY = 60  # seconds between two counts


def show(seed: int, method: str, rewriting: str, blocks: int) -> list[str]:
    """The failures of one case, printed with what reproduces them."""
    chosen = next(m for m in ALL if str(m) == method)
    way = next(r for r in REWRITINGS if r.name == rewriting)
    drawn = case(seed, chosen, way, blocks)
    try:
        wrong = wrong_with(drawn)
    except Exception:
        wrong = [traceback.format_exc(limit=-1).strip()]
    if wrong:
        print(
            f'python -m tests.generated --seed {seed} --blocks {blocks} --method "{method}" '
            f'--rewriting "{rewriting}"',
            *wrong,
            sep="\n    ",
            flush=True,
        )
    return wrong


def forever(seed: int, blocks: int) -> None:
    """All methods and all rewritings in turn; they meet in every pair as their numbers differ."""
    began = told = time.monotonic()
    asked = failed = missing = 0
    jobs = [(m, r) for m in ALL for r in REWRITINGS]
    while True:
        method, way = jobs[seed % len(jobs)]
        if fits_ever(method, way):
            try:
                failed += bool(show(seed, str(method), way.name, blocks))
                asked += 1
            except NoNetwork:
                missing += 1
        seed += 1
        if asked % 50 == 0:
            jax.clear_caches()  # thousands of programs exhaust a process's memory maps
        if time.monotonic() - told > EVERY:
            told = time.monotonic()
            minutes = f"{missing} without a network, {(told - began) / 60:.0f} minutes"
            print(f"{asked} cases, {failed} failed, {minutes}", flush=True)


def real(seed: int) -> None:
    """Without end, the five real architectures in place of generated networks."""
    asked = failed = 0
    while True:
        for what, wrong in pairs(seed):
            asked, failed = asked + 1, failed + bool(wrong)
            if wrong:
                print(f"{what}: {wrong}", flush=True)
        seed += 1
        print(f"{asked} cases, {failed} failed", flush=True)
        jax.clear_caches()


def fits_ever(method: Method, way: Rewriting) -> bool:
    """Some pairs mean nothing: epsilon is absolute; the gradient stops where it is told to."""
    return any(fits(draw(seed), method, way) for seed in range(400))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.generated", description=__doc__)
    parser.add_argument("--forever", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--blocks", type=int, default=4, help="parts of a network, at most")
    parser.add_argument("--method", default="gradient")
    parser.add_argument("--rewriting", default=REWRITINGS[0].name)
    parser.add_argument("--real", action="store_true", help="five real architectures instead")
    asked = parser.parse_args()
    if asked.real:
        real(asked.seed)
    if asked.forever:
        forever(asked.seed, asked.blocks)
    wrong = show(asked.seed, asked.method, asked.rewriting, asked.blocks)
    print(case(asked.seed, *named(asked), asked.blocks))
    sys.exit(bool(wrong))


def named(asked: argparse.Namespace):
    method = next(m for m in ALL if str(m) == asked.method)
    return method, next(r for r in REWRITINGS if r.name == asked.rewriting)


main()
