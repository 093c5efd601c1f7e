"""One process at a time in a folder: a lock that the system frees, however its process ends."""

from __future__ import annotations

import errno
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from os import PathLike
from pathlib import Path

from filelock import Timeout, UnixFileLock

from .files import remove_partial

LOCK = ".lrpjax.lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)


@contextmanager
def held(folder: str | PathLike, name: str = LOCK) -> Iterator[Path]:
    """Makes the folder and holds the lock `name` in it; removes files that were left half written.

    Raises BlockingIOError, with who it is, where another process holds the lock, and OSError for a
    folder that cannot be made or written to. Warns where the file system has no locks.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = UnixFileLock(folder / name, timeout=0, fallback_to_soft=False, on_acquired=_sign)
        lock.acquire()
    except Timeout as error:
        raise BlockingIOError(
            f"The folder {str(folder)!r} is in use ({_holder(folder / name)}): wait until that has "
            "ended, or choose another folder."
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            kind = type(OSError(error.errno, ""))
            raise kind(
                f"The folder {str(folder)!r} cannot be written ({error.strerror or error}): choose "
                "another, or make it writable."
            ) from error
        warnings.warn(
            f"The file system of {str(folder)!r} has no locks: see to it that no second process "
            "writes there.",
            stacklevel=3,
        )
        yield folder
        return
    try:
        remove_partial(folder)
        yield folder
    finally:
        with suppress(OSError):
            (folder / name).unlink()  # who waits for this file finds out that it is gone
        with suppress(OSError):
            lock.release()


def _sign(descriptor: int) -> None:
    """Writes into the lock whose it is."""
    start = datetime.now().astimezone().isoformat(" ", "seconds")
    text = f"process {os.getpid()} on {socket.gethostname()} since {start}"
    os.ftruncate(descriptor, 0)
    os.write(descriptor, text.encode())


def _holder(file: Path) -> str:
    with suppress(OSError):
        if text := file.read_text(encoding="utf-8", errors="replace").strip():
            return text
    return "by a process that has not said which"
