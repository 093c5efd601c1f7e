"""`lrpjax` and `python -m lrpjax`: Ctrl-C is answered before anything heavy is imported."""

from __future__ import annotations

import sys

from ._base import interrupts


def main() -> None:
    """The entry point of the command."""
    interrupts.answer()
    try:
        from .cli import main as run  # what a Ctrl-C in here meets is answered too

        run()
    except KeyboardInterrupt:
        status: str | int | None = interrupts.STATUS
    except SystemExit as end:
        status = end.code
    else:
        return
    if status != interrupts.STATUS:
        sys.exit(status)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    interrupts.leave(interrupts.STATUS)


if __name__ == "__main__":
    main()
