"""`python -m tests.crashes [--long] [--seed N] [COMMAND ...]`: 20 moments of each, or 100."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from .rounds import COMMANDS, survive

parser = argparse.ArgumentParser(prog="python -m tests.crashes", description=__doc__)
parser.add_argument("command", nargs="*", choices=[*COMMANDS, []])
parser.add_argument("--long", action="store_true", help="100 moments of each command")
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()
for name in options.command or COMMANDS:
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lrpjax-crashes-") as folder:
        found = survive(name, 100 if options.long else 20, options.seed, Path(folder))
    said = ", ".join(f"{count} {where}" for where, count in found.items())
    print(f"{name}: killed {said}; nothing lost, {time.monotonic() - begin:.0f} s", flush=True)
