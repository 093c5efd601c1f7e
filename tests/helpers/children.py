"""Real processes of the command line, without a new interpreter and its imports for each.

A server imports all that a command needs and starts none of JAX's devices; each command runs in a
fork of it, as in a process of its own: it may be killed, and have limits.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

TESTS = Path(__file__).parents[1]
TOO_LONG = 300.0  # seconds: a command that hangs is killed, and fails its test
_LOADED = (
    "jax lrpjax.__main__ lrpjax.cli lrpjax.auditing lrpjax.auditing.audits lrpjax.convergence.cone "
    "lrpjax.report.plots lrpjax.report.audit lrpjax.models.training lrpjax.models.datasets "
    "lrpjax.patterns.fitting lrpjax.images lrpjax.methods lrpjax.planning.plans scipy.stats "
    "skimage.metrics helpers.crash_toys"
).split()


@dataclass(frozen=True)
class Ended:
    """status: as of a shell, minus the signal that killed it. text: all that it printed."""

    status: int
    text: str
    seconds: float


class Children:
    """`run` starts `lrpjax ARGUMENTS`; a `with` ends the server."""

    def __init__(self, cache: Path):
        settings = {
            "JAX_PLATFORMS": "cpu",
            "JAX_ENABLE_X64": "0",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiles in half the time
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
        }
        self._server = subprocess.Popen(
            [sys.executable, "-m", "helpers.children"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | settings,
        )  # fmt: skip

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stdin.close()
        self._server.wait()

    def run(
        self,
        *arguments: str,
        cwd: Path,
        kill_after: float | None = None,
        interrupt_when: str | None = None,
        interrupts: int = 1,
        prepare: str = "nothing",
        limits: dict[str, int] | None = None,
    ) -> Ended:
        """kill_after: seconds until SIGKILL. interrupt_when: a file at whose appearance it gets
        SIGINT, `interrupts` times with half a second between. prepare: a function of
        helpers.crash_toys that is called before. limits: of `resource`, as {"RLIMIT_NOFILE": 64}.
        """
        request = {"arguments": arguments, "cwd": str(cwd), "kill_after": kill_after}
        request |= {"interrupt_when": interrupt_when, "interrupts": interrupts}
        request |= {"prepare": prepare, "limits": limits or {}}
        print(json.dumps(request), file=self._server.stdin, flush=True)
        return Ended(**json.loads(self._server.stdout.readline()))


def serve() -> None:
    for name in _LOADED:
        import_module(name)
    warnings.filterwarnings("ignore", message=r".*os\.fork\(\) was called")
    for line in sys.stdin:
        print(json.dumps(_ended(json.loads(line))), flush=True)


def _ended(request: dict) -> dict:
    output = Path(request["cwd"]) / ".." / "printed.txt"
    output.write_bytes(b"")  # it may be killed before it is the child's
    begin = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _become(request, output)
    stop, sign = request["kill_after"] or TOO_LONG, request["interrupt_when"]
    left, next_one = request["interrupts"], 0.0
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        seconds = time.monotonic() - begin
        if done:
            break
        if seconds >= stop:
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            break
        if sign and left and seconds >= next_one and (Path(request["cwd"]) / sign).exists():
            os.kill(pid, signal.SIGINT)
            left, next_one = left - 1, seconds + 0.5
        time.sleep(0.002)
    status = os.waitstatus_to_exitcode(status)
    return {"status": status, "text": output.read_text(errors="replace"), "seconds": seconds}


def _become(request: dict, output: Path) -> None:
    """Runs the command in place of this process, which ends."""
    status = 1
    # The tests may run in the background of a shell, which lets its processes ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        os.chdir(request["cwd"])
        with output.open("wb") as stream, open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        sys.argv = ["lrpjax", *request["arguments"]]
        getattr(sys.modules["helpers.crash_toys"], request["prepare"])()
        if request["limits"]:  # JAX would leave half a program in its cache
            sys.modules["jax"].config.update("jax_enable_compilation_cache", False)
        for name, value in request["limits"].items():
            resource.setrlimit(getattr(resource, name), (value, value))
        sys.modules["lrpjax.__main__"].main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
