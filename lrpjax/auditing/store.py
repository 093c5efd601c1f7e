"""The finished pieces of an audit in a folder, so that a run goes on where another stopped.

Every file is written under another name and then renamed: it is whole, or it is not there. A piece
holds a checksum of itself: one that was damaged since is done again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any

from .._base.arrays import decoded, encoded
from .._base.fingerprint import Unstable, digest, environment
from .._base.resuming import Kept, kept
from ..graph.fingerprint import fingerprint
from ..graph.reading import Reading
from ..sanity import Cascade
from .tasks import Finding

_PIECES = "piece-*.json"


def identity(reading: Reading, methods: dict[str, Any]) -> dict[str, Any]:
    """What tells another model, other images, other methods of the same names and another
    precision apart. Raises `Unstable` where something of these cannot be told from another."""
    try:
        found = {**fingerprint(reading), "precision": environment()}
        return {**found, "method": {name: _named(name, own) for name, own in methods.items()}}
    except Unstable as error:
        raise Unstable(
            f"This audit could not be told from another, and so not be resumed ({error}): run it "
            "without a folder to go on from."
        ) from error


def _named(name: str, method: Any) -> str:
    try:
        return digest(method)
    except Unstable as error:
        raise Unstable(f"{name}: {error}") from error


@contextmanager
def storing(
    folder: str | PathLike | None, settings: dict[str, Any], *, overwrite: bool
) -> Iterator[Store | None]:
    """The store of one audit; None without a folder. Raises as `resuming.kept` does."""
    if folder is None:
        yield None
        return
    with kept(folder, settings, what="an audit", pieces=[_PIECES], overwrite=overwrite) as found:
        yield Store(found)


class Store:
    """The pieces of one audit."""

    def __init__(self, kept: Kept):
        self._kept = kept

    def read(self, method: str, check: str) -> Finding | None:
        """The piece if it is there and whole."""
        try:
            file = self._kept.folder / _name(method, check)
            content = json.loads(file.read_text(encoding="utf-8"))
            body = content["piece"]
            if content["checksum"] != _checksum(body):
                return None
            return _finding(body)
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def write(self, method: str, check: str, finding: Finding) -> None:
        body = {"method": method, "check": check, **_body(finding)}
        content = {"checksum": _checksum(body), "piece": body}
        self._kept.write(_name(method, check), json.dumps(content, allow_nan=False))


def _name(method: str, check: str) -> str:
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in method)
    told_apart = hashlib.sha256(method.encode()).hexdigest()[:8]
    return f"piece-{plain[:40]}-{told_apart}-{check}.json"


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _body(finding: Finding) -> dict[str, Any]:
    grid = None if finding.grid is None else finding.grid.content()
    return {"rows": finding.rows, "grid": encoded(grid)}


def _finding(body: dict[str, Any]) -> Finding:
    grid = body["grid"]
    return Finding(body["rows"], grid and Cascade.from_content(decoded(grid)))
