"""A progress bar for work that takes more than a few seconds, and none for work that does not."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from rich.progress import Progress

T = TypeVar("T")
PATIENCE = 3.0  # seconds
_silent = ContextVar("silent", default=False)


@contextmanager
def silent() -> Iterator[None]:
    """No bars inside: for work that already stands under one."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def track(steps: Sequence[T], description: str) -> Iterator[T]:
    """Yields the steps; a bar appears once they have taken longer than a few seconds."""
    bar = Progress(transient=True, disable=_silent.get())
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
