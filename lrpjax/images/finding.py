"""Which files there are in what a user names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISLNK, S_ISREG

from .._base.text import printable


@dataclass(frozen=True)
class Found:
    """A file: its relative path is that below the folder that was named. refused: why it is not
    read, "" where it is."""

    path: Path
    relative: str
    refused: str = ""

    @property
    def name(self) -> str:
        """The relative path, as it can be printed."""
        return printable(self.relative)


def find(source: Path) -> list[Found]:
    """The file that is named, or those in a folder and its subfolders, in the order of the bytes of
    their relative paths.

    Hidden ones are left out, links not followed. Raises FileNotFoundError where there is nothing.
    """
    require_there(source)
    if not source.is_dir():
        return [Found(source, source.name, "" if source.is_file() else "it is no file")]
    found = [Found(path, path.relative_to(source).as_posix(), why) for path, why in _walk(source)]
    return sorted(found, key=lambda each: os.fsencode(each.relative))


def require_there(source: Path) -> None:
    """FileNotFoundError where there is nothing, without looking further."""
    if not source.exists():
        raise FileNotFoundError(f"There are no images at {str(source)!r}: check the path.")


def _walk(folder: Path) -> Iterator[tuple[Path, str]]:
    for inside, folders, files in os.walk(folder, onerror=_raise):
        links = [name for name in folders if os.path.islink(os.path.join(inside, name))]
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in (*files, *links):
            if not name.startswith("."):
                path = Path(inside, name)
                yield path, _refusal(path.lstat().st_mode)


def _refusal(mode: int) -> str:
    if S_ISLNK(mode):
        return "it is a link, which is not followed"
    return "" if S_ISREG(mode) else "it is no file"


def _raise(error: OSError) -> None:
    raise type(error)(
        f"The folder {error.filename!r} cannot be read ({error.strerror}): check who may open it."
    ) from error
