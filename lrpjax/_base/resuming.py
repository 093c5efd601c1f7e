"""A folder of finished pieces that knows what they are pieces of, so that a run goes on there."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from .files import write_whole, writing
from .locks import held

SETTINGS = "settings.json"
_DIGEST = re.compile(r"[0-9a-f]{16}")


def versions(*names: str) -> dict[str, str]:
    """Of what decides about the numbers."""
    return {name: version(name) for name in ("lrpjax", "jax", "jaxlib", "numpy", *names)}


@dataclass(frozen=True)
class Kept:
    """A folder that this process holds, and what it is of, in words."""

    folder: Path
    what: str

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """As `files.writing`; an error also says what is kept."""
        if not (self.folder / SETTINGS).exists():
            raise FileNotFoundError(
                f"The folder {str(self.folder)!r} of {self.what} was removed while it ran, and "
                "nothing in it is kept: start it again, in a folder that stays."
            )
        try:
            with writing(self.folder / name) as stream:
                yield stream
        except OSError as error:
            raise type(error)(
                f"{error} What is finished of {self.what} is kept in {str(self.folder)!r}, and the "
                "same call goes on from there."
            ) from error

    def write(self, name: str, content: str | bytes) -> None:
        with self.writing(name) as stream:
            stream.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def kept(
    folder: str | PathLike,
    settings: dict[str, Any],
    *,
    what: str,
    pieces: Sequence[str],
    overwrite: bool | None = None,
) -> Iterator[Kept]:
    """Holds a folder for pieces (files of these patterns) of a run with these settings.

    Where it has pieces of a run with other settings they are removed, with `overwrite` (None: the
    caller has no such option). Otherwise raises ValueError, which says what differs;
    BlockingIOError where another process is at work in the folder.
    """
    with held(folder) as path:
        file = path / SETTINGS
        there = sorted(file for pattern in pieces for file in path.glob(pattern))
        wanted = json.loads(json.dumps(settings))
        found = _read(file)
        if found != wanted:
            if not overwrite and (there or file.exists()):
                ways = _WAYS if overwrite is None else _OR_OVERWRITE
                raise ValueError(f"{_refusal(file, found, wanted, what)}: {ways}.")
            for piece in there:
                piece.unlink()
            write_whole(file, json.dumps(wanted, indent=1))
        yield Kept(path, what)


def _read(file: Path) -> Any:
    """The settings of a folder; None where they are damaged or not there."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


_WAYS = "give another folder, or remove this one"
_OR_OVERWRITE = f"{_WAYS} (overwrite=True, --overwrite)"


def _refusal(file: Path, found: Any, wanted: dict[str, Any], what: str) -> str:
    folder = str(file.parent)
    if found is None and file.exists():
        return f"{str(file)!r} is damaged, so that nobody knows what is in its folder"
    if found is None:
        return f"The folder {folder!r} has pieces of {what}, but no {SETTINGS} that says which"
    said = "; ".join(_differences("", found, wanted))
    return f"The folder {folder!r} holds {what} with other settings ({said})"


def _differences(name: str, found: Any, wanted: Any) -> Iterator[str]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in {**found, **wanted}:
            if found.get(key) != wanted.get(key):
                yield from _differences(f"{name} {key}".strip(), found.get(key), wanted.get(key))
    elif all(isinstance(v, str) and _DIGEST.fullmatch(v) for v in (found, wanted)):
        yield f"{name.removesuffix('_sha256')}: another"
    else:
        yield f"{name}: {_short(found)}, now {_short(wanted)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def remove(folder: str | PathLike) -> None:
    """Removes the folder of a run that is finished: what says whose pieces they are goes last."""
    for file in Path(folder).glob("*"):
        if file.name != SETTINGS:
            file.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
