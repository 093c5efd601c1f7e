"""What the commands share: options, classes by name, jobs under a progress bar, files."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any, TextIO

import rich
import typer

from .._base.files import remove_partial, write_whole

console = rich.get_console()
INTERRUPTED = 130  # the exit status after Ctrl-C
STDOUT = Path("-")  # of --json
_stdout: ContextVar[TextIO | None] = ContextVar("standard output", default=None)


@contextmanager
def _all_else_on_stderr() -> Iterator[None]:
    """Keeps standard output for `write_json`; what else is printed goes to standard error."""
    kept = _stdout.set(sys.stdout)
    with redirect_stdout(sys.stderr):
        rich.reconfigure()  # which stream is a terminal, and of how many colours?
        try:
            yield
        finally:
            _stdout.reset(kept)
    rich.reconfigure()


def _leave_stdout_to_json(context: typer.Context, path: Path | None) -> Path | None:
    if path == STDOUT:
        context.find_root().with_resource(_all_else_on_stderr())
    return path


JsonOption = Annotated[
    Path | None,
    typer.Option(
        "--json",
        callback=_leave_stdout_to_json,
        help="Write settings and rows to this file. -: to standard output, and all else to "
        "standard error.",
    ),
]


def method_option(default: str) -> Any:
    """--method, for list[str] | None, of a command that takes these methods by itself."""
    return typer.Option(
        "--method", help=f"A method (repeatable); see `lrpjax methods`. Default: {default}."
    )


def make_method(name: str, network: Any, *, seed: int = 0) -> Any:
    """The method of that name for this network; one that draws random numbers gets the seed."""
    import jax

    from .. import methods

    return methods.resolve(name, network, key=jax.random.key(seed))


def parameters_of(command: Callable) -> list[inspect.Parameter]:
    """The parameters of a command, as typer reads them."""
    return list(inspect.signature(command, eval_str=True).parameters.values())


def with_parameters(call: Callable, parameters: Sequence[inspect.Parameter]) -> Callable:
    """A function of keywords that typer takes for a command with these parameters."""
    made = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    call.__signature__ = inspect.Signature(made)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in made}
    return call


def class_number(target: str, classes: list[str], count: int) -> int:
    """The number of a class, given as a name or as a number."""
    if target in classes:
        return classes.index(target)
    try:
        number = int(target)
    except ValueError:
        if not classes:
            raise ValueError(
                f"The target {target!r} is no number, and this model has no `classes` with names: "
                f"give a number from 0 to {count - 1}."
            ) from None
        near = get_close_matches(target, classes, 3, 0.4) or classes[:10]
        raise ValueError(
            f"There is no class {target!r}; the nearest are {', '.join(near)}."
        ) from None
    if not 0 <= number < count:
        raise ValueError(
            f"There is no class {number}: this model's are numbered from 0 to {count - 1}."
        )
    return number


def say_skipped(settings: dict[str, Any]) -> None:
    if skipped := settings.get("skipped_files"):
        say(f"\n{skipped} unreadable files skipped, {settings['n_images']} images read.")


def run_jobs(
    jobs: Sequence[Hashable],
    work: Callable[[Any], Any],
    keep: Callable[[Any, Any], None],
    *,
    label: Callable[[Any], str] = str,
) -> bool:
    """Calls work(job) for every job on threads, and keep(job, result) here when one is finished.

    A job that raises ValueError or NotImplementedError leaves the others, and its reason is
    printed at the end. Returns whether Ctrl-C cut it short.
    Raises the jobs' error where all failed for one reason, ValueError where for several.
    """
    from .._base.jobs import run

    kept = []

    def counted(job: Any, result: Any) -> None:
        keep(job, result)
        kept.append(job)

    try:
        failed = run(jobs, work, counted, label=label, console=console)
    except KeyboardInterrupt:
        console.print(f"Interrupted: {len(kept)} of {len(jobs)} finished and saved.")
        return True
    if not kept and len(set(map(str, failed.values()))) == 1:
        raise next(iter(failed.values()))
    for job, reason in failed.items():
        say(f"{label(job)} left out: {reason}")
    if not kept:
        raise ValueError("No method gave a result; the reasons are above.")
    return False


def say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False, emoji=False)


def writable(folder: Path) -> None:
    """Makes the folder. OSError, with what to do, if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"The output folder {str(folder)!r} cannot be written ({error.strerror}): choose "
            "another with --out."
        ) from error


def write_json(path: Path | None, settings: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    write_text(path, json.dumps({"settings": settings, "rows": rows}, indent=1))


def write_text(path: Path | None, text: str) -> None:
    """Writes what --json asks for: a file, standard output, or nothing."""
    if path == STDOUT:
        print(text, file=_stdout.get(), flush=True)
    elif path is not None:
        remove_partial(path.parent)  # of a command that was killed here
        write_whole(path, text)
