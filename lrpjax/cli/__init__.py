"""The command line: `lrpjax csc`, `audit`, `sanity`, `attribute`, `plan`, `methods`, `patterns`,
`simulate`, `spectrum`, `train`."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from textwrap import indent
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from .. import __version__
from . import attribute, audit, csc, describe, patterns, sanity, simulate, spectrum, train
from .cache import caching
from .factories import ABOUT, EXAMPLE


class _Group(TyperGroup):
    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        typer.echo(indent(EXAMPLE, "   "))  # rich would run its lines into one another


app = typer.Typer(
    help="Relevance propagation for any JAX model, and whether to trust its saliency maps.",
    epilog=ABOUT,
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # so that paragraphs flow
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"lrpjax {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """What the commands share."""


for _command in (
    csc.csc,
    audit.audit,
    sanity.sanity,
    attribute.attribute,
    describe.plan,
    patterns.patterns,
    simulate.simulate,
    spectrum.spectrum,
    train.train,
):
    app.command()(caching(_command))
app.command()(describe.methods)


_MENDED_BY_THE_USER = (ValueError, TypeError, NotImplementedError, OSError, ImportError)


def main() -> None:
    """Runs the command: warnings, and errors that the user can mend, are one sentence each."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: _print_error(message, "yellow")
        try:
            app()
        except Exception as error:
            said = _of_the_machine(error)
            if said is None and not isinstance(error, _MENDED_BY_THE_USER):
                raise
            _print_error(said or error, "red")
            sys.exit(1)


def _of_the_machine(error: Exception) -> str | None:
    """An error of this machine, and not of the model or of this library, in one sentence."""
    text = str(error)
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return (
            f"{error.strerror} (the next one was to be {error.filename!r}): raise the limit of "
            "open files (ulimit -n); what is finished is kept."
        )
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "bad_alloc" in text:
        return (
            "There is not enough memory: give fewer images, or a smaller model; what is finished "
            "is kept."
        )
    if isinstance(error, _MENDED_BY_THE_USER) or _has_devices():
        return None
    wanted = os.environ.get("JAX_PLATFORMS", "")
    return (
        f"JAX finds nothing to compute on here (JAX_PLATFORMS is {wanted!r}): set it to what this "
        "machine has, as in JAX_PLATFORMS=cpu, or leave it out."
    )


def _has_devices() -> bool:
    """Whether JAX, where it was loaded, can compute on anything."""
    try:
        return "jax" not in sys.modules or bool(sys.modules["jax"].devices())
    except Exception:  # of many kinds, some without a word
        return False


def _print_error(message: object, style: str) -> None:
    console = Console(stderr=True)
    # As it is: a name may hold [x] or :x:.
    plain = Text(f"lrpjax: {message}", style=style)
    console.print(plain, highlight=False, soft_wrap=True)
