"""The means of a fit so far, in a folder, so that an interrupted one goes on from there.

Which images are in them says a chain of digests, one for each batch: images that come one after
another need not be held to be compared.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

import jax
import numpy as np

from .._base.fingerprint import Unstable, digest, environment
from .._base.npy import open_npz
from .._base.reading import reading as reading_file
from .._base.resuming import Kept, kept, versions
from ..graph.fingerprint import fingerprint
from ..graph.reading import Reading

_FILE = "means.npz"
_EVERY = 1.0  # seconds of work that may be lost
_COSTS = 20  # but writing takes no more than one part in so many of the time

State = dict[str, list[Any]]  # of each layer, by name: counts and means


class Means:
    """state: the means that were found, None for none. A folder is optional."""

    def __init__(self, kept: Kept | None, layers: Sequence[str]):
        self._kept, self._layers = kept, layers
        self._turn, self._chain = 0, ""
        self._wait, self._last = _EVERY, time.monotonic()
        self.state, self._done, self._wanted = _read(kept, layers)

    def have(self, x: Any) -> bool:
        """Whether the next batch is in the means already. Raises ValueError where another was."""
        if self._kept is None:
            return False
        self._turn += 1
        self._chain = digest((self._chain, x))
        if self._turn == self._done and self._chain != self._wanted:
            self._refuse()
        return self._turn <= self._done

    def keep(self, state: Mapping[str, Sequence[jax.Array]], *, last: bool = False) -> None:
        """Writes the means after a batch, where the last writing is long enough ago."""
        if self._kept is None:
            return
        if last and self._turn < self._done:
            self._refuse()
        jax.block_until_ready(state)  # what waits in a queue would be lost too
        begin = time.monotonic()
        if not last and begin - self._last < self._wait:
            return
        arrays = {f"{i} {k}": np.asarray(a) for i, n in enumerate(self._layers)
                  for k, a in enumerate(state[n])}  # fmt: skip
        with self._kept.writing(_FILE) as stream:
            np.savez(stream, turn=self._turn, chain=self._chain, **arrays)  # type: ignore[arg-type]
        self._last = time.monotonic()
        self._wait = max(_EVERY, _COSTS * (self._last - begin))

    def _refuse(self) -> None:
        assert self._kept is not None
        raise ValueError(
            f"The folder {str(self._kept.folder)!r} holds means over other images: give another "
            "folder, or remove this one."
        )


def _read(kept: Kept | None, layers: Sequence[str]) -> tuple[State | None, int, str]:
    """The means in a folder, of how many batches, and their digest; none where they are damaged."""
    if kept is None:
        return None, 0, ""
    try:
        with reading_file(kept.folder / _FILE, "means") as file, open_npz(file) as found:
            of = lambda name: found[name].read()
            state = {n: [of(f"{i} {k}") for k in range(5)] for i, n in enumerate(layers)}
            return state, int(of("turn")), str(of("chain"))
    except (OSError, ValueError):  # they are made again
        return None, 0, ""


@contextmanager
def means(
    out: str | PathLike | None, reading: Reading, layers: Sequence[str], settings: dict[str, Any]
) -> Iterator[Means]:
    """The means of a fit of a model that is read at the first batch, with these settings.

    Raises as `resuming.kept` does, and `Unstable` for a model that cannot be told from another.
    """
    if out is None:
        yield Means(None, layers)
        return
    try:
        told = {**fingerprint(reading), "precision": environment(), "versions": versions()}
    except Unstable as error:
        raise Unstable(
            f"This fit could not be told from another, and so not be resumed ({error}): run it "
            "without a folder to go on from."
        ) from error
    with kept(out, {**told, **settings}, what="a fit of patterns", pieces=[_FILE]) as folder:
        yield Means(folder, layers)
