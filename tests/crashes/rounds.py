"""A command killed at seeded moments, started again each time, and compared with one that was not.

Each round begins in an empty folder and ends when a run is through; its moments are drawn from the
time that an undisturbed run takes, every second one from the part in which pieces are written.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from helpers.children import Children, Ended
from helpers.crash_toys import BATCH, EPOCHS, IMAGES, LOG, write_images
from safetensors import safe_open

LOST = 2.0  # seconds of work that may be done again
KILLED = -9


@dataclass(frozen=True)
class Command:
    """finished: what is finished in a folder, as it is compared before and after a run, and how
    many `pieces` that are in the end.
    check: raises where a run has lost something that was there `before`. writing: when, in parts of
    the whole time, pieces are written.
    """

    arguments: tuple[str, ...]
    finished: Callable[[Path], Any]
    pieces: int
    check: Callable[[Path, Any, Ended], None]
    writing: tuple[float, float]
    prepare: str = "nothing"

    def amount(self, folder: Path) -> int:
        found = self.finished(folder)
        return found if isinstance(found, int) else len(found)


def pieces(folder: Path) -> dict[str, int]:
    """The pieces of an audit, each whole, with the moment when it was written."""
    found = sorted(folder.glob("run/pieces/piece-*.json"))
    for file in found:
        json.loads(file.read_text(encoding="utf-8"))
    return {file.name: file.stat().st_mtime_ns for file in found}


def no_piece_is_done_again(folder: Path, before: dict[str, int], _: Ended) -> None:
    after = pieces(folder)
    assert {name: after.get(name) for name in before} == before


def epochs(folder: Path) -> int:
    file = folder / "run" / "checkpoint.safetensors"
    if not file.exists():
        return 0
    with safe_open(file, "numpy") as tensors:
        return len(json.loads(tensors.metadata()["rows"]))


def no_epoch_is_done_again(folder: Path, before: int, ended: Ended) -> None:
    said = [line for line in ended.text.splitlines() if line.startswith("epoch ")]
    numbers = [int(line.split(":")[0].split()[1]) for line in said]
    assert numbers == list(range(before + 1, before + 1 + len(numbers))), (before, ended)
    # An epoch is printed when its checkpoint is there.
    assert before + len(numbers) <= epochs(folder) <= before + len(numbers) + 1
    assert ended.status == KILLED or epochs(folder) == EPOCHS


def batches(folder: Path) -> int:
    """How many batches are in the means that are kept."""
    file = folder / "p.safetensors.part" / "means.npz"
    if not file.exists():
        return 0
    with np.load(file) as found:
        return int(found["turn"])


def little_is_fitted_again(folder: Path, before: int, ended: Ended) -> None:
    """What was lost began no longer ago than the log of the batches allows."""
    log = folder / LOG
    begun = [float(line) for line in log.read_text().splitlines()] if log.exists() else []
    log.unlink(missing_ok=True)
    if ended.status != KILLED:
        return
    kept = batches(folder)
    if kept == 0 and (folder / "p.safetensors").exists():
        return  # it was through
    assert kept >= before
    lost = begun[kept:]
    # A process that others keep waiting cannot write either: its longest pauses do not count.
    pauses = sorted((b - a for a, b in pairwise(lost)), reverse=True)[:3]
    assert not lost or lost[-1] - lost[0] - sum(pauses) <= LOST


_TOY = ("--model", "helpers.crash_toys:net", "--images", "images.npz")
_DATA = ("--data", "data.npz", "--test", "data.npz")
COMMANDS = {
    "audit": Command(
        ("audit", *_TOY, "--method", "lrp-z", "--out", "run", "--json", "r.json"),
        pieces,
        16,
        no_piece_is_done_again,
        (0.0, 0.5),  # then the report is drawn
    ),
    "train": Command(
        ("train", *_DATA, "--epochs", str(EPOCHS), "--out", "run", "--json", "r.json"),
        epochs,
        EPOCHS,
        no_epoch_is_done_again,
        (0.5, 1.0),
        "small_network",
    ),
    "patterns": Command(
        ("patterns", "p.safetensors", "--model", "helpers.crash_toys:slow", "--data", "data.npz"),
        batches,
        IMAGES // BATCH,
        little_is_fitted_again,
        (0.2, 1.0),
        "small_batches",
    ),
}


def survive(name: str, moments: int, seed: int, folder: Path) -> dict[str, Any]:
    """Kills the command at so many moments; AssertionError where it does not get over one.

    Returns how often it was killed before its first piece, between pieces and at the end.
    """
    command, draw = COMMANDS[name], random.Random(f"{name} {seed}")
    (folder / "cache").mkdir(parents=True)

    with Children(folder / "cache") as children:
        run = lambda where, **how: children.run(
            *command.arguments, cwd=where, prepare=command.prepare, **how
        )
        _done(run(_begun(folder / "first")))  # which compiles
        whole = _begun(folder / "whole")
        ended = run(whole)
        _done(ended)
        expected = _content(whole)
        killed = {"with nothing kept": 0, "on the way": 0, "with all kept": 0}
        for number in range(10 * moments):
            if sum(killed.values()) == moments:
                break
            where = _begun(folder / f"round {number}")
            for _ in range(4):  # then it may end
                if sum(killed.values()) == moments:
                    break
                before = command.finished(where)
                part = command.writing if sum(killed.values()) % 2 else (0.0, 1.0)
                found = run(where, kill_after=ended.seconds * draw.uniform(*part))
                command.check(where, before, found)
                if found.status != KILLED:
                    _done(found)
                    break
                amount = command.amount(where)
                place = "on the way" if amount < command.pieces else "with all kept"
                killed[place if amount else "with nothing kept"] += 1
            before = command.finished(where)
            last = run(where)
            command.check(where, before, last)
            _done(last)
            content = _content(where)
            assert sorted(content) == sorted(expected)  # nothing is left, nothing is missing
            assert [file for file in expected if content[file] != expected[file]] == []
        assert sum(killed.values()) == moments
        return killed


def _begun(folder: Path) -> Path:
    where = folder / "work"
    where.mkdir(parents=True)
    write_images(where)
    return where


def _done(ended: Ended) -> None:
    assert ended.status == 0, ended.text


def _content(where: Path) -> dict[str, bytes]:
    """All files by name, but for the log of the tests."""
    files = [file for file in where.rglob("*") if file.is_file() and file.name != LOG]
    return {str(file.relative_to(where)): file.read_bytes() for file in files}
