"""What comes from outside: files alone are opened, and what is wrong with one is one sentence."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from .text import printable

LONGEST = 300  # characters of a reason: a damaged file can hold a message of any length
# What would hang or never end, were it opened as a file.
KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


class Unreadable(ValueError):
    """A file is damaged, of another format, or refused: the message is the reason."""


@contextmanager
def reading(path: str | PathLike, what: str) -> Iterator[Path]:
    """Whatever fails inside is one error of one sentence, with the file's name and what is wrong.

    what: the kind of file, in words ("weight file"). What is no file (a folder, a pipe, a device)
    is refused before it is opened. Inside stands what reads, and not what its result is used for.
    Raises FileNotFoundError where nothing is there, OSError of the system's kind where it cannot be
    read, and ValueError for all else. A missing package is no fault of the file: its ImportError
    passes.
    """
    path = Path(path)
    try:
        _require_file(path)
        yield path
    except ImportError:
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no {what} {str(path)!r}: check the path.") from error
    except Exception as error:  # what a damaged file raises depends on its bytes
        named = f"The {what} {str(path)!r}"
        if isinstance(error, OSError) and error.errno:
            kind = type(OSError(error.errno, ""))
            raise kind(
                f"{named} cannot be read ({error.strerror or reason(error)}): choose another, or "
                "make it readable."
            ) from error
        raise ValueError(
            f"{named} is damaged or of another kind ({reason(error)}): fetch or write it again."
        ) from error


def _require_file(path: Path) -> None:
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in KINDS.items() if test(mode)), "of an unknown kind")
        raise Unreadable(f"it is {kind}, no file")


def reason(error: Exception) -> str:
    """What an error says, as a part of a sentence: on one line, printable, not too long."""
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    said = " ".join(str(error)[: 2 * LONGEST].split()).replace(". ", "; ").rstrip(".")
    if not isinstance(error, Unreadable):
        said = f"{type(error).__name__}: {said}".removesuffix(": ")
    said = printable(said)
    return said if len(said) <= LONGEST else f"{said[:LONGEST]}..."
