"""Many pieces of work on threads, under one progress bar."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ._progress import drawable, silent

Job = TypeVar("Job", bound=Hashable)
THREADS = 2  # compiling one job overlaps with running another


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
    """Calls work(job) for every job on threads, and keep(job, result) here when one is finished.

    Returns the jobs that raised one of the errors to `catch`, and which; they leave the others.
    Ctrl-C goes through when what runs has been told to stop: what was kept is kept.
    """
    failed: dict[Job, Exception] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    pool = ThreadPoolExecutor(THREADS)
    with Progress(*columns, *times, console=console, disable=not drawable()) as bar:
        task = bar.add_task(unit, total=len(jobs))
        futures = {pool.submit(_silently, work, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                job = futures[future]
                bar.update(task, advance=1, description=label(job))
                try:
                    result = future.result()
                except catch as error:
                    failed[job] = error
                    continue
                keep(job, result)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return failed


def _silently(work: Callable[[Any], Any], job: Any) -> Any:
    with silent():
        return work(job)
