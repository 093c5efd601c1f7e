"""Many pieces of work on threads: XLA's computations leave cores of a processor idle in turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from contextvars import copy_context
from typing import Any, TypeVar

import jax
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from .progress import Lines, drawable, on_thread

Job = TypeVar("Job", bound=Hashable)
T = TypeVar("T")
THREADS = 2  # compiling one job overlaps with running another
# What a `with` of JAX sets for one thread alone.
_SETTINGS = (
    "enable_x64",
    "default_device",
    "default_matmul_precision",
    "numpy_dtype_promotion",
    "debug_nans",
)


def run(
    jobs: Sequence[Job],
    work: Callable[[Job], Any],
    keep: Callable[[Job, Any], None],
    *,
    label: Callable[[Job], str] = str,
    unit: str = "methods",
    console: Console | None = None,
    catch: tuple[type[Exception], ...] = (ValueError, NotImplementedError),
) -> dict[Job, Exception]:
    """Calls work(job) for every job on threads, and keep(job, result) here when one is finished,
    under one progress bar.

    Returns the jobs that raised one of the errors to `catch`, and which; they leave the others.
    Ctrl-C goes through when what runs has been told to stop: what was kept is kept.
    """
    failed: dict[Job, Exception] = {}
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    pool = ThreadPoolExecutor(THREADS)
    lines = Lines(len(jobs))
    with Progress(*columns, *times, console=console, disable=not drawable()) as bar:
        task = bar.add_task(unit, total=len(jobs))
        futures = {pool.submit(carried(work), job): job for job in jobs}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                job = futures[future]
                bar.update(task, advance=1, description=label(job))
                lines.told(label(job), done)
                try:
                    result = future.result()
                except catch as error:
                    failed[job] = error
                    continue
                keep(job, result)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return failed


def each(work: Callable[[T], Any], items: Iterable[T]) -> Iterator[Any]:
    """work(item) of every item, in their order, on threads that are ahead of what is asked for.

    An item is taken when a thread will soon need it: not all are held at once. Work that is itself
    one of several pieces on threads goes on by itself.
    """
    if on_thread.get():
        yield from map(work, items)
        return
    waiting: deque[Future] = deque()
    pool = ThreadPoolExecutor(THREADS)
    try:
        for item in items:
            waiting.append(pool.submit(carried(work), item))
            if len(waiting) > THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def carried(work: Callable[[T], Any]) -> Callable[[T], Any]:
    """The work as it is to run on another thread: with this one's settings of JAX, and no bars."""
    context = copy_context()
    values = {name: getattr(jax.config, f"jax_{name}") for name in _SETTINGS}

    def run(item: T) -> Any:
        on_thread.set(True)
        with ExitStack() as stack:
            for name, value in values.items():
                stack.enter_context(getattr(jax, name)(value))
            return work(item)

    return lambda item: context.run(run, item)
