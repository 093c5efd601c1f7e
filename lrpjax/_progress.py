"""A progress bar for work that takes more than a few seconds, and none for work that does not."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from importlib.util import find_spec
from typing import TypeVar

from rich import get_console
from rich.progress import Progress

T = TypeVar("T")
PATIENCE = 3.0  # seconds
on_thread = ContextVar("on thread", default=False)  # one of several pieces, under a bar of theirs


def drawable() -> bool:
    """A notebook without ipywidgets shows a warning in place of a bar."""
    return not get_console().is_jupyter or find_spec("ipywidgets") is not None


def track(steps: Sequence[T], description: str) -> Iterator[T]:
    """Yields the steps; a bar appears once they have taken longer than a few seconds.

    Nothing is written to a file or a pipe, where a bar that goes away leaves empty lines.
    """
    console = get_console()
    seen = (console.is_terminal or console.is_jupyter) and drawable() and not on_thread.get()
    bar = Progress(transient=True, disable=not seen)
    task = bar.add_task(description, total=len(steps))
    begin = time.monotonic()
    try:
        for step in steps:
            yield step
            bar.advance(task)
            if not bar.live.is_started and time.monotonic() - begin > PATIENCE:
                bar.start()
    finally:
        if bar.live.is_started:
            bar.stop()
