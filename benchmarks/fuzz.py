"""Damages files of every format that this library reads, and sees what reading them does.

    python benchmarks/fuzz.py [--count 10000 | --minutes 5] [--format torch npz] [--seed 0]
        [--torch PYTHON] [--out FOLDER]

Seven of ten files are damaged in what their bytes mean (benchmarks/mutations.py). Each is read in
another process, and may take 5 s of a processor, and 500 MB beside the file. It must be refused in
one sentence that names it, or give what the format's own reader gives; of torch's files that is
torch.load(weights_only=True), by the Python given. What does neither is kept in FOLDER, and the
status is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from fuzz_formats import FORMATS, Format, checkpoint
from mutations import bytes_of

import lrpjax

SECONDS, MEMORY = 5, 500 * 2**20
AWARE = 0.7
PACKAGE = str(Path(lrpjax.__file__).parent)
TORCH = """
import hashlib, json, sys
import torch
def digest(tensor):
    plain = tensor.detach().contiguous()
    kind = str(plain.dtype).removeprefix("torch.")
    if kind == "bool":
        plain = plain.view(torch.uint8) != 0
    data = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return [kind, list(plain.shape), hashlib.sha256(data).hexdigest()]
for line in sys.stdin:
    try:
        found = torch.load(line.rstrip("\\n"), map_location="cpu", weights_only=True)
        for wrapper in ("state_dict", "model"):
            if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
                found = found[wrapper]
        prefix = "module." if all(name.startswith("module.") for name in found) else ""
        answer = {name.removeprefix(prefix): digest(t) for name, t in found.items()}
    except Exception as error:
        answer = f"{type(error).__name__}: {str(error)[:200]}"
    print(json.dumps(answer), flush=True)
"""


def digests(arrays: dict[str, Any]) -> dict[str, Any]:
    """Type, shape and a checksum of each, whatever the order of its bytes."""
    found = {}
    for name, array in arrays.items():
        array = np.asarray(array)
        if array.dtype.kind == "b":
            array = array.view(np.uint8) != 0
        plain = array.astype(array.dtype.newbyteorder("<"), order="C")
        checksum = hashlib.sha256(plain.tobytes()).hexdigest()
        found[name] = [str(array.dtype.newbyteorder("=")), list(array.shape), checksum]
    return found


def sentence(message: str, path: Path) -> bool:
    plain = message.isprintable() and message.endswith(".") and ". " not in message
    return plain and path.name in message


def attempt(read: Callable[[Path], dict], path: Path) -> dict[str, Any]:
    """What reading gives: {"read": digests} or {"refused" or "raised": message, "ours": whether our
    own code found it, not the library below}."""
    try:
        return {"read": digests(read(path))}
    except Exception as error:
        cause = error.__cause__ or error
        at = [f.filename for f in traceback.extract_tb(cause.__traceback__)]
        ours = at[-1].startswith(PACKAGE) and not at[-1].endswith("_base/reading.py")
        ours = ours and type(cause).__module__.partition(".")[0] in ("builtins", "lrpjax")
        fine = type(error) is ValueError or isinstance(error, OSError)
        fine = fine and sentence(str(error), path)
        said = str(error) if fine else "".join(traceback.format_exception(error))[-2000:]
        return {"refused" if fine else "raised": said, "ours": ours}


def apart(form: Format, paths: list[Path], base: int) -> Iterator[tuple[dict, dict | None]]:
    """For each file what reading it gives here, and by the format's own reader where that one is to
    be asked, as `attempt`. They are read in processes of their own, one of which goes on until it
    ends: {"ended": signal} for the file at which it does. "memory": its most so far, in bytes."""
    done = 0
    while done < len(paths):
        receiving, sending = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(receiving)
            with open(sending, "w") as stream:
                _read_all(form, paths[done:], base, stream)
            os._exit(0)
        os.close(sending)
        with open(receiving) as stream:
            while line := stream.readline():
                found, own = json.loads(line), None
                if "read" in found and form.own is not None:
                    own = json.loads(stream.readline() or '{"raised": "it ended"}')
                yield found, own
                done += 1
        status = os.waitpid(child, 0)[1]
        if status:
            yield {"ended": signal.Signals(status & 127).name, "memory": base}, None
            done += 1


def _read_all(form: Format, paths: list[Path], base: int, stream: IO[str]) -> None:
    """The work of such a process, which writes a line of JSON for each that reads a file."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for path in paths:
        used = math.ceil(time.process_time())
        resource.setrlimit(resource.RLIMIT_CPU, (used + SECONDS, resource.RLIM_INFINITY))
        signal.alarm(60)
        answer = attempt(form.ours, path)
        signal.alarm(0)  # that others wait is no fault of it
        print(json.dumps(answer | {"memory": most_memory()}), file=stream, flush=True)
        if "read" in answer and form.own is not None:
            print(json.dumps(attempt(form.own, path)), file=stream, flush=True)
        if most_memory() > base + MEMORY // 4:
            return  # the next file's is to be told from this one's


def most_memory() -> int:
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used * (1 if sys.platform == "darwin" else 1024)


class Torch:
    """torch.load(weights_only=True) in another process, perhaps of another Python."""

    def __init__(self, python: str):
        command = [python, "-c", TORCH]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.start = lambda: subprocess.Popen(command, stderr=subprocess.DEVNULL, **pipes)
        self.process = self.start()

    def __call__(self, path: Path) -> dict[str, Any]:
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            self.process = self.start()
            return {"raised": "torch ended"}
        answer = json.loads(line)
        return {"read": answer} if isinstance(answer, dict) else {"raised": answer}


def judged(
    form: Format, path: Path, found: dict, own: dict | None, base: int, torch: Torch | None
) -> tuple[str, bool, str]:
    """What became of a file in a word, whether our own code was reached, and what to say of it."""
    reached = "read" in found or found.get("ours", False)
    if found["memory"] - base > MEMORY + path.stat().st_size:
        return "memory", reached, f"{found['memory'] - base} bytes"
    again = "ended" in found and path.suffix in (".h5", ".keras")
    if again:  # as it is read in earnest, by a process apart
        found = attempt(checkpoint, path)
    if "ended" in found:
        hung = found["ended"] in ("SIGXCPU", "SIGALRM", "SIGKILL")
        return "hang" if hung else "crash", reached, found["ended"]
    if "raised" in found:
        return "no sentence", reached, found["raised"]
    if "refused" in found:
        return "reader ended" if again else "refused", reached, found["refused"]
    if form.own is None:
        if torch is None:
            return "read", reached, ""
        own = torch(path)
    if own is None or "read" not in own:
        return "read alone", reached, str(own)
    differing = {k for k, v in found["read"].items() if own["read"].get(k) != v}
    differing |= own["read"].keys() - found["read"].keys()
    return "other" if differing else "equal", reached, f"{sorted(differing)}"


BAD = ("no sentence", "other", "crash", "hang", "memory")
FINE = ("refused", "equal", "reader ended", "read alone", "read")
BATCH = 200


def fuzzed(name: str, options: argparse.Namespace, folder: Path, torch: Torch | None) -> Counter:
    form, counts, seeds = FORMATS[name], Counter[str](), FORMATS[name].seeds()
    until = time.monotonic() + 60 * options.minutes if options.minutes else None
    base = most_memory()
    for first in range(0, options.count, BATCH):
        if until is not None and time.monotonic() > until:
            break
        paths = []
        for number in range(first, min(first + BATCH, options.count)):
            draw = random.Random(f"{options.seed} {name} {number}")
            path = folder / f"{name}-{options.seed}-{number}{form.suffix}"
            aware = draw.random() < AWARE
            content = (form.damaged if aware else bytes_of)(draw, draw.choice(seeds))
            path.write_bytes(seeds[number] if number < len(seeds) else content)
            paths.append(path)
            counts.update(["files", *(["aware"] if aware else [])])
        for path, (found, own) in zip(paths, apart(form, paths, base), strict=True):
            word, reached, said = judged(form, path, found, own, base, torch)
            if first == 0 and paths.index(path) < len(seeds) and word not in ("equal", "read"):
                raise SystemExit(f"{name}: a whole file is not read, {word}: {said}")
            counts.update([word, *(["reached"] if reached else [])])
            if word in BAD or (options.verbose and word in ("read alone", "reader ended")):
                print(f"{path.name}: {word}: {said}", flush=True)
            if word in BAD and options.out:
                Path(options.out).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, options.out)
            path.unlink()
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="files of each format")
    parser.add_argument("--minutes", type=float, help="at most, for each format")
    parser.add_argument("--format", nargs="+", default=list(FORMATS), choices=FORMATS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--torch", help="the Python that has torch")
    parser.add_argument("--out", help="where files are kept that do what they must not")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # JAX warns of every fork; nothing of it runs here
    torch = Torch(options.torch) if options.torch else None
    words = ("files", "aware", "reached", *FINE, *BAD)
    print(f"| format | {' | '.join(words)} |")
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in options.format:
            counts = fuzzed(name, options, Path(folder), torch)
            print(f"| {name} | {' | '.join(str(counts[word]) for word in words)} |", flush=True)
            bad += sum(counts[word] for word in BAD)
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
