"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from stat import S_IMODE, S_ISREG
from typing import BinaryIO

_PARTIAL = re.compile(r"\.[0-9a-f]{16}\.part")
_ROOM = "make room there, or choose another place"
_ADVICE = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "raise the limit of a file's size (ulimit -f), or choose another place",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the limit of open files (ulimit -n)",
    errno.ENOENT: "its folder was removed meanwhile",
}


def write_whole(path: str | PathLike, content: str | bytes) -> None:
    """Writes a file, text as UTF-8, in the way of `writing`."""
    with writing(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def writing(path: str | PathLike) -> Iterator[BinaryIO]:
    """A stream of what shall be in a file: it is there when the `with` ends, and as it was before
    where an error ends it.

    Missing folders are made, a symbolic link stays and the file it points to is written, and a file
    that was there keeps its permissions. What is no file (a pipe, /dev/stdout) is written to as it
    is. Raises OSError, of the kind that the system raised, with one sentence.
    """
    try:
        if _is_device(path):
            with open(path, "wb") as stream:
                yield stream
        else:
            with _replacing(Path(os.path.realpath(path))) as stream:
                yield stream
    except OSError as error:
        kind = type(OSError(error.errno, ""))
        advice = _ADVICE.get(error.errno or 0, "choose another, or make it writable")
        kept = "; what it held is kept" if _is_file(path) else ""
        raise kind(
            f"The file {str(path)!r} cannot be written ({error.strerror or error}): {advice}{kept}."
        ) from error


def remove_partial(folder: str | PathLike) -> None:
    """Removes what `writing` left in a folder when its process was killed; what is being written
    has a lock, and stays."""
    with suppress(OSError):  # the folder need not be there
        for file in Path(folder).iterdir():
            if _PARTIAL.fullmatch(file.name):
                _remove_unlocked(file)


def _remove_unlocked(file: Path) -> None:
    with suppress(OSError), file.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.unlink(missing_ok=True)


def _is_device(path: str | PathLike) -> bool:
    """Whether something is there that must not be replaced, as it is no file."""
    try:
        return not S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def _is_file(path: str | PathLike) -> bool:
    with suppress(OSError):
        return S_ISREG(os.stat(path).st_mode)
    return False


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream of a new file beside `path`, which takes its place at the end."""
    mode = S_IMODE(path.stat().st_mode) if path.exists() else None
    if mode is not None and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "it is read-only")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_file = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with partial_file.open("xb") as stream:
            with suppress(OSError):  # a folder on a network may have no locks
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())  # the rename must not reach the disk before the content
            if mode is not None and mode != S_IMODE(partial_file.stat().st_mode):
                partial_file.chmod(mode)
            partial_file.replace(path)
    except BaseException:
        with suppress(OSError):
            partial_file.unlink(missing_ok=True)
        raise
