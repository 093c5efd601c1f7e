"""What an audit returns: its measures, the verdicts they amount to, and the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from typing import Any

import numpy as np

from .._base.files import write_whole
from .._base.text import columns
from ..sanity import CONTROLS
from ..sanity.pictures import TwoClasses
from .verdict import DEFAULT, Thresholds, Verdict, summary, verdict

GOOD = "gradient"  # the control of which it is known that it depends on everything
_KNOWN_GOOD = "known good in these tests: the plain gradient"


@dataclass(frozen=True)
class Audit:
    """What an audit measured. settings: of the run. rows: all measures, each with its method and
    its check ("csc", "spectrum", "certificate", "mprt", "random-logit", "conservation",
    "completeness", "failed"). stops and maps: of the grid under randomisation, for each method
    (stops, images, H, W). pictures: (N, H, W, 3) in [0, 1], of the images of the grid. pairs: of
    the two-class experiment, with `pair_pictures`. `summary` has one row for each method.
    """

    settings: dict[str, Any]
    rows: list[dict[str, Any]]
    thresholds: Thresholds = DEFAULT
    stops: list[str] = field(default_factory=list)
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    pictures: np.ndarray | None = None
    pairs: Sequence[TwoClasses] = ()
    pair_pictures: np.ndarray | None = None

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(row["method"] for row in self.rows))

    def rows_of(self, check: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["check"] == check]

    def verdict(self, method: str) -> Verdict:
        own = [row for row in self.rows if row["method"] == method]
        known = {name: control.known for name, control in CONTROLS.items()} | {GOOD: _KNOWN_GOOD}
        return verdict(own, self.thresholds, control=known.get(method))

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
        """Writes the report as one HTML file that needs no network."""
        from ..report.audit import report  # imports go downwards; this is a convenience on top

        write_whole(path, report(self))

    def to_json(self, path: str | PathLike | None = None) -> str:
        """Everything but the pictures as JSON: settings, thresholds, summary and rows."""
        text = json.dumps(
            {
                "settings": self.settings,
                "thresholds": asdict(self.thresholds),
                "summary": self.summary,
                "rows": self.rows,
            },
            indent=1,
            allow_nan=False,
        )
        if path is not None:
            write_whole(path, text)
        return text

    def __str__(self) -> str:
        return columns(
            [{k: row[k] for k in ("method", "level", "verdict")} for row in self.summary]
        )
