"""Ctrl-C at the command line: answered at once, also while a computation holds the main thread.

Python runs a handler of signals when the main thread comes back to Python, which may be minutes
after a long compilation began. The number of the signal is in a pipe at once, and a thread waits
there. What is finished is safe whatever ends the process, so that the second Ctrl-C may end it.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from typing import Any

STATUS = 130  # the exit status after Ctrl-C
PROMPT = 0.2  # seconds in which a process that is not held up has ended
_WAITING = (
    "lrpjax: interrupted, and waiting for the step that is being computed (Ctrl-C again ends at "
    "once; what is finished is kept either way).\n"
)


def answer() -> None:
    """Answers Ctrl-C from here on; nothing where the process was started to ignore it."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, _interrupted)
    threading.Thread(target=_watch, args=(ours,), daemon=True).start()


def leave(status: int) -> None:
    """Ends the process without waiting for threads that compute what nobody wants any more.

    XLA's threads end a process with an abort where the interpreter is taken down around them.
    """
    os._exit(status)


def _watch(pipe: int) -> None:
    asked = 0
    while number := os.read(pipe, 1):
        asked += number[0] == signal.SIGINT
        if asked > 1:
            leave(STATUS)
        if asked and not select.select([pipe], [], [], PROMPT)[0]:
            os.write(2, _WAITING.encode())


def _interrupted(number: int, frame: Any) -> None:
    """While something is imported there is nothing to lose, and libraries turn the interrupt into
    errors of their own."""
    while frame is not None:
        if "importlib._bootstrap" in frame.f_code.co_filename:
            leave(STATUS)
        frame = frame.f_back
    raise KeyboardInterrupt
