"""A progress bar for work that takes more than a few seconds, and none for work that does not.

Where there is no terminal to draw on (a pipe, a file, a queue of jobs), a line every half minute.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextvars import ContextVar
from importlib.util import find_spec
from typing import TypeVar

from rich import get_console
from rich.progress import Progress, TextColumn

T = TypeVar("T")
PATIENCE = 3.0  # seconds before a bar appears
SILENCE = 30.0  # seconds between two lines
on_thread = ContextVar("on thread", default=False)  # one of several pieces, under a bar of theirs


def drawable() -> bool:
    """A notebook without ipywidgets shows a warning in place of a bar."""
    return not get_console().is_jupyter or find_spec("ipywidgets") is not None


def seen() -> bool:
    """Whether there is somebody to look at a bar, and none above it."""
    console = get_console()
    return (console.is_terminal or console.is_jupyter) and drawable() and not on_thread.get()


class Lines:
    """Lines of what is done on stderr, where bars are not seen: `told(description, done)`."""

    def __init__(self, total: int | None):
        console = get_console()
        self._silent = console.is_terminal or console.is_jupyter or on_thread.get()
        self._total, self._begin = total, time.monotonic()
        self._last = self._begin

    def told(self, description: str, done: int) -> None:
        now = time.monotonic()
        if self._silent or now - self._last < SILENCE or done == self._total:
            return
        self._last = now
        of = "" if self._total is None else f" of {self._total}"
        print(f"{description}: {done}{of}, {now - self._begin:.0f} s", file=sys.stderr, flush=True)


def track(steps: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yields the steps; a bar appears once they have taken longer than a few seconds.

    total: how many there are, where the steps do not know.
    """
    if total is None and isinstance(steps, Sized):
        total = len(steps)
    told = TextColumn("{task.description}", style="progress.description", markup=False)
    columns = (told, *Progress.get_default_columns()[1:])
    bar = Progress(*columns, console=get_console(), transient=True, disable=not seen())
    lines = Lines(total)
    task = bar.add_task(description, total=total)
    begin = time.monotonic()
    try:
        for done, step in enumerate(steps, 1):
            yield step
            bar.advance(task)
            lines.told(description, done)
            if not bar.live.is_started and time.monotonic() - begin > PATIENCE:
                bar.start()
    finally:
        if bar.live.is_started:
            bar.stop()
