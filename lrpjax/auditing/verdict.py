"""From what was measured to a verdict in words, by thresholds that a user can change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Level = Literal["ignores", "doubt", "depends", "failed", "control"]
Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Thresholds:
    """Where a number becomes a word.

    converged: 1 - median |cosine| of random relevance at or below which its vectors count as
    parallel. same_map: median SSIM at or above which the maps of two classes count as the same, and
    a map as unchanged when the last layer's parameters are random. (That a map's sum is right says
    nothing about the map: it has no threshold.)
    """

    converged: float = 1e-3
    same_map: float = 0.9

    def __post_init__(self) -> None:
        for name in ("converged", "same_map"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"The threshold {name} lies between 0 and 1, not {self}.")


DEFAULT = Thresholds()


@dataclass(frozen=True)
class Verdict:
    """level: "ignores" (the map of another class is the same map), "doubt" (another check says so),
    "depends" (none does), "failed" (the method does not run) or "control"."""

    level: Level
    text: str


def verdict(rows: Rows, thresholds: Thresholds, *, control: str | None = None) -> Verdict:
    """What the rows of one method amount to. control: what is known of it, if it is one."""
    reasons = [row["reason"] for row in rows if row["check"] == "failed"]
    other, last = _first(rows, "random-logit"), _first(rows, "mprt")
    logit = None if other is None else other["median"]
    if logit is None and last is None and reasons:
        return Verdict("failed", f"could not be run: {reasons[0]}")
    claims = []
    blind = logit is not None and logit >= thresholds.same_map
    forgets = _forgets(rows, thresholds)
    moved = None if last is None else last["median"]
    if forgets:
        at, row = forgets
        where = "the input" if at == "input" else at
        distance = f"{row['one_minus_median']:.0e}".replace("e-0", "e-")
        claims.append(f"forgets the layers above {where} (1 - CSC {distance})")
    if other is not None and logit is not None:
        which = "the same map" if blind else "another map"
        claims.append(f"another class gives {which} (SSIM {_interval(other)})")
    unmoved = last is not None and moved is not None and moved >= thresholds.same_map
    if last is not None and unmoved:
        claims.append(
            f"random parameters in {last['layer']} change nothing (SSIM {_interval(last)})"
        )
    level: Level = "ignores" if blind else "doubt" if forgets or unmoved else "depends"
    if control is not None:
        level, claims = "control", [control, *claims]
    if reasons:
        claims.append(f"{len(reasons)} of its checks could not be run")
    return Verdict(level, "; ".join(claims))


def _forgets(rows: Rows, thresholds: Thresholds) -> tuple[str, dict[str, Any]] | None:
    """The highest layer from which on, down to the input, random relevance has become parallel."""
    found = None
    for row in reversed(_directed(rows)):
        if row["layer"] == row["start"] or row["one_minus_median"] > thresholds.converged:
            break
        found = row["layer"], row
    return found


def _directed(rows: Rows) -> list[dict[str, Any]]:
    """The rows of CSC without those of one channel, or where no relevance arrives."""
    return [row for row in rows if row["check"] == "csc" and row["undirected"] is None]


def _interval(row: dict[str, Any]) -> str:
    """A median with its interval, where it has one."""
    if row["low"] is None:
        return f"{row['median']:.2f}"
    return f"{row['median']:.2f}, {row['low']:.2f} to {row['high']:.2f}"


def _first(rows: Rows, check: str, similarity: str = "ssim") -> dict[str, Any] | None:
    """The check's first row in this similarity: of a randomisation, the first layer's."""
    own = (r for r in rows if r["check"] == check and r["similarity"] == similarity)
    return next(own, None)


def _median(rows: Rows, check: str, similarity: str = "ssim") -> float | None:
    row = _first(rows, check, similarity)
    return None if row is None else row["median"]


def summary(rows: Rows, method: str, made: Verdict) -> dict[str, Any]:
    """One line of the table: the method, its verdict, and a number of each check."""
    own = [row for row in rows if row["method"] == method]
    cosines = _directed(own)
    cascade = [r for r in own if r["check"] == "mprt" and r["similarity"] == "ssim"]
    spectra = [r["ratio"] for r in own if r["check"] == "spectrum" and r["layer"] == "input"]
    bounds = [r for r in own if r["check"] == "certificate" and r.get("scope") == "map"]
    at = lambda found, field: found[-1][field] if found else None
    return {
        "method": method,
        "level": made.level,
        "verdict": made.text,
        "one_minus_csc": at(cosines, "one_minus_median"),
        "random_logit": _median(own, "random-logit"),
        "mprt_first": cascade[0]["median"] if cascade else None,
        "mprt_last": at(cascade, "median"),
        "sigma_ratio": float(np.median(spectra)) if spectra and None not in spectra else None,
        "certificate": bounds[0]["angle"] if bounds and bounds[0]["one_minus_cos"] <= 1 else None,
        "conservation": _median(own, "conservation", "relative error"),
        "completeness": _median(own, "completeness", "relative error"),
    }
