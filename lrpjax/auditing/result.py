"""What an audit returns: its measures, the verdicts they amount to, and the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np

from .._base.checks import check_known
from .._base.files import write_whole
from .._base.reading import Unreadable
from .._base.results import Results
from .._base.tables import Cells, as_html, cells
from .._base.upwards import page_of
from ..convergence import CSC, Certificate, SingularValues
from ..sanity import CONTROLS, Cascade, Sanity, TwoClasses
from .verdict import DEFAULT, Thresholds, Verdict, summary, verdict

GOOD = "gradient"  # the control of which it is known that it depends on everything
_KNOWN = {name: control.known for name, control in CONTROLS.items()} | {
    GOOD: "known good in these tests: the plain gradient"
}
_OF: dict[str, type[Results]] = {
    "csc": CSC,
    "spectrum": SingularValues,
    "certificate": Certificate,
    **dict.fromkeys(("mprt", "random-logit", "conservation", "completeness"), Sanity),
}
_FREE = {"methods", "command"}  # settings that may differ between audits that are joined


@dataclass(frozen=True, eq=False, repr=False)
class Audit(Results):
    """What an audit measured. settings: of the run. rows: all measures, each with its method and
    its check ("csc", "spectrum", "certificate", "mprt", "random-logit", "conservation",
    "completeness", "failed", "unavailable"); `of` gives those of a check as its own results. grid:
    maps while parameters become random, of some images. pairs: the two-class experiment.
    `summary` has one row for each method.

    Audits of other methods, with the same settings, are joined by `+`: the controls, which ran in
    both, are the first's.
    """

    thresholds: Thresholds = DEFAULT
    grid: Cascade | None = None
    pairs: TwoClasses | None = None

    required = "check method".split()

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(row["method"] for row in self.rows))

    @property
    def stops(self) -> list[str]:
        return self.grid.stops if self.grid else []

    @property
    def maps(self) -> dict[str, np.ndarray]:
        """Of the grid, for each method (stops, images, H, W)."""
        return self.grid.maps if self.grid else {}

    @property
    def pictures(self) -> np.ndarray | None:
        """(N, H, W, 3) in [0, 1], of the images of the grid."""
        return self.grid.pictures if self.grid else None

    def rows_of(self, check: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["check"] == check]

    def of(self, check: str) -> Any:
        """What one check measured, as the results of its own function: a `CSC` of "csc", a `Sanity`
        of "mprt", "random-logit", "conservation" and "completeness", `SingularValues` of
        "spectrum", a `Certificate` of "certificate"."""
        check_known("check", check, _OF)
        rows = [row for row in self.rows_of(check) if row.get("scope") != "sentence"]
        kind = _OF[check]
        if kind is not Sanity:  # which has a column for it
            rows = [{k: value for k, value in row.items() if k != "check"} for row in rows]
        return kind(self.settings, rows)

    def verdict(self, method: str) -> Verdict:
        own = [row for row in self.rows if row["method"] == method]
        return verdict(own, self.thresholds, control=_KNOWN.get(method))

    @property
    def summary(self) -> list[dict[str, Any]]:
        """A row for each method: method, level, verdict, one_minus_csc (at the input, or the last
        layer with more than one channel), random_logit, mprt_first and mprt_last (SSIM medians,
        with the parameters of the last layer and of all layers random), sigma_ratio (at the input),
        certificate (degrees, over the map), conservation and completeness (median relative errors).
        None where not measured."""
        return [summary(self.rows, name, self.verdict(name)) for name in self.methods]

    def judged(self, thresholds: Thresholds) -> Audit:
        """The same measures with other thresholds."""
        return replace(self, thresholds=thresholds)

    def save(self, path: str | PathLike) -> None:
        """Writes the report as one HTML file that needs no network (x.html), or all that the audit
        holds, for `load` (x.json)."""
        ending = Path(path).suffix.lower()
        if ending in (".html", ".htm"):
            write_whole(path, page_of(self))
        elif ending == ".json":
            super().save(path)
        else:
            raise ValueError(
                f"An audit is saved as a report (.html) or whole (.json), not as {str(path)!r}."
            )

    def to_json(self, path: str | PathLike | None = None) -> str:
        """Everything but the maps and pictures as JSON: settings, thresholds, summary and rows."""
        text = json.dumps(self._numbers(), indent=1, allow_nan=False)
        if path is not None:
            write_whole(path, text)
        return text

    def _numbers(self) -> dict[str, Any]:
        return {
            "settings": self.settings,
            "thresholds": asdict(self.thresholds),
            "summary": self.summary,
            "rows": self.rows,
        }

    def content(self) -> dict[str, Any]:
        parts = {"grid": self.grid, "pairs": self.pairs}
        return {**self._numbers(), **{name: own and own.content() for name, own in parts.items()}}

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self:
        """Also of what `to_json` wrote, which has no maps."""
        grid, pairs = content.get("grid"), content.get("pairs")
        made = {
            "thresholds": Thresholds(**content["thresholds"]),
            "grid": None if grid is None else Cascade.from_content(grid),
            "pairs": None if pairs is None else TwoClasses.from_content(pairs),
        }
        found = super().from_content({**content, **made})
        if not all(isinstance(row[name], str) for row in found.rows for name in cls.required):
            raise Unreadable("the method or the check of a row is no text")
        return found

    def _joined(self, other: Self) -> dict[str, Any]:
        self._check_alike(other)
        twice = [name for name in other.methods if name in self.methods]
        if own := [name for name in twice if name not in _KNOWN]:
            raise ValueError(f"Both audits have the method {own[0]!r}: leave it out of one.")
        new = [name for name in other.methods if name not in twice]
        rows = [*self.rows, *(row for row in other.rows if row["method"] in new)]
        rows.sort(key=lambda row: row["method"] in _KNOWN)  # the controls last
        names = list(dict.fromkeys(row["method"] for row in rows))
        settings = {k: v for k, v in self.settings.items() if k != "command"}
        joined: dict[str, Any] = {"settings": settings | {"methods": names}, "rows": rows}
        if self.grid and other.grid:
            joined["grid"] = (self.grid + other.grid.only(new)).only(names)
        if self.pairs and other.pairs:
            joined["pairs"] = (self.pairs + other.pairs.only(new)).only(names)
        return joined

    def _check_alike(self, other: Self) -> None:
        """Raises ValueError for audits that do not stand in one table."""
        mine, theirs = ({**a.settings, **asdict(a.thresholds)} for a in (self, other))
        for name in sorted({*mine, *theirs} - _FREE):
            if mine.get(name) != theirs.get(name):
                raise ValueError(
                    f"The audits differ in {name!r} ({mine.get(name)} and {theirs.get(name)}): "
                    "audits of one model, with the same images and settings, can be joined."
                )
        if bool(self.pairs) != bool(other.pairs):
            raise ValueError("One of the audits has no two-class experiment: give it to both.")

    def _cells(self) -> Cells:
        return cells(self.summary, ("method", "level", "verdict"))

    def _lines(self) -> list[str]:
        return []

    def _repr_html_(self) -> str:
        return as_html(cells(self.summary)) + self._image()
