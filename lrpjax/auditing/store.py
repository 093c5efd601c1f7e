"""The finished pieces of an audit in a folder, so that a run goes on where another stopped.

Every file is written under another name and then renamed: it is whole, or it is not there. A piece
holds a checksum of itself: one that was damaged since is done again.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from .._base.arrays import decoded, encoded
from .._base.files import write_whole
from ..sanity import Cascade
from .tasks import Finding

_SETTINGS = "settings.json"


class Store:
    """The pieces of one audit. Raises ValueError for a folder of an audit with other settings."""

    def __init__(self, folder: str | os.PathLike, settings: dict[str, Any]):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / _SETTINGS
        wanted = json.loads(json.dumps(settings))
        if file.exists():
            _require_same(file, wanted)
        elif self.pieces():
            raise ValueError(
                f"The folder {str(self.folder)!r} has pieces of an audit, but no {_SETTINGS} that "
                "says of which: give an empty one."
            )
        else:
            write_whole(file, json.dumps(wanted, indent=1))

    def pieces(self) -> list[Path]:
        return sorted(self.folder.glob("piece-*.json"))

    def read(self, method: str, check: str) -> Finding | None:
        """The piece if it is there and whole."""
        try:
            content = json.loads(self._file(method, check).read_text())
            body = content["piece"]
            if content["checksum"] != _checksum(body):
                return None
            return _finding(body)
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def write(self, method: str, check: str, finding: Finding) -> None:
        body = {"method": method, "check": check, **_body(finding)}
        content = {"checksum": _checksum(body), "piece": body}
        write_whole(self._file(method, check), json.dumps(content, allow_nan=False))

    def _file(self, method: str, check: str) -> Path:
        plain = "".join(c if c.isalnum() else "-" for c in method)
        told_apart = hashlib.sha256(method.encode()).hexdigest()[:8]
        return self.folder / f"piece-{plain[:40]}-{told_apart}-{check}.json"


def _require_same(file: Path, wanted: dict[str, Any]) -> None:
    try:
        found = json.loads(file.read_text())
        differing = [k for k in {**found, **wanted} if found.get(k) != wanted.get(k)]
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(file)!r} is damaged: give an empty folder.") from error
    if differing:
        said = "; ".join(f"{k}: {_short(found.get(k))}, now {_short(wanted.get(k))}"
                         for k in differing)  # fmt: skip
        raise ValueError(
            f"The folder {str(file.parent)!r} holds an audit with other settings ({said}): give "
            "the same settings, or another folder."
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _body(finding: Finding) -> dict[str, Any]:
    grid = None if finding.grid is None else finding.grid.content()
    return {"rows": finding.rows, "grid": encoded(grid)}


def _finding(body: dict[str, Any]) -> Finding:
    grid = body["grid"]
    return Finding(body["rows"], grid and Cascade.from_content(decoded(grid)))
