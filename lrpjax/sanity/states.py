"""The maps of a subject in states of the model: with other parameters, or for other classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from functools import lru_cache
from threading import Lock
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base import checks, jobs
from .._base.progress import track
from .._base.work import Chunk, chunks
from ..graph import Graph
from ..propagation.baselines import of_images
from ..propagation.refusals import flat_first, warn_of_uniform_maps
from ..propagation.targets import explained
from .maps import LOGITS, Subject
from .parameters import by_layer
from .partial_evaluation import Incremental
from .similarity import multiplied, reduced

TARGET = -1  # the place of the classes among those of the parameters


class States:
    """`states(chunk, consts, target)`: some images' maps as they are looked at, on the host.

    subject: what is tested. colour, multiplier: as in `lrpjax.sanity.mprt`. Of a chain of rules
    only what other parameters or classes reach is computed anew: the values of the model as given
    are kept, of two chunks.
    """

    def __init__(
        self,
        subject: Subject,
        colour: str = "none",
        multiplier: str | None = None,
    ):
        self.subject, self.colour, self.multiplier = subject, colour, multiplier
        self.chunks = [some.slice for some in chunks(len(subject.images), subject.chunk)]
        if subject.method.chain is not None:
            arguments, tree = jax.tree.flatten(self._arguments(self.chunks[0], {}, None))
            like = tuple(map(jax.typeof, arguments))
            widest = jax.dtypes.canonicalize_dtype(np.float64)
            self._groups = (
                *map(frozenset, by_layer(subject.reading).values()),
                frozenset({TARGET}),
            )
            self._parts = _in_parts(subject.reading.graph, tree, like, widest, self._groups)
        rules = subject.method.rules
        self._flat = "" if rules is None else flat_first(subject.reading.graph, rules)
        self._given: dict[int, Future] = {}
        self._lock = Lock()

    def each(self, asked: Iterable[tuple[slice, dict[int, Any], Any]]) -> Iterator[np.ndarray]:
        """states(*asked) of each; two at once, but for a function of the user's, one by one."""
        at_once = not self.subject.method.foreign
        return (jobs.each if at_once else map)(lambda ask: self(*ask), asked)

    def all(self, asked: Iterable[tuple[dict[int, Any], Any]]) -> list[np.ndarray]:
        """The maps of all images, in each of some states."""
        states = list(asked)
        work = [(chunk, *state) for chunk in self.chunks for state in states]
        steps = zip(track(work, self.subject.name), self.each(work), strict=True)
        found = [maps for _, maps in steps]
        return [np.concatenate(found[s :: len(states)]) for s in range(len(states))]

    def __call__(
        self, chunk: slice, consts: dict[int, Any] | None = None, target: Any = None
    ) -> np.ndarray:
        """consts: other values for some of `subject.reading.consts`, by place. target: the images'
        other classes."""
        subject, consts = self.subject, consts or {}
        images = np.asarray(subject.images[chunk])
        if subject.method.chain is not None:
            found = self._propagated(chunk, consts, target)[: len(images)]
        else:
            found = self._explained(consts, subject.target[chunk] if target is None else target)
        if not consts and not subject.method.foreign:  # others' are counted as dropped
            checks.check_maps(subject.name, [found])
            warn_of_uniform_maps(subject.name, self._flat, [found], stacklevel=2)
        return reduced(multiplied(found, images, self.multiplier), self.colour, subject.channel)

    def _explained(self, consts: dict[int, Any], target: Any) -> np.ndarray:
        """What a method that is no chain of rules gives for all images."""
        subject = self.subject
        reading = subject.reading.holding(self._values(consts)) if consts else subject.reading
        return np.asarray(subject.method.explain(reading, subject.images, target))

    def _propagated(self, chunk: slice, consts: dict[int, Any], target: Any) -> np.ndarray:
        """What a chain of rules gives; the last chunk is filled up."""
        swap = {*consts} | (set() if target is None else {TARGET})
        if not swap:
            return np.asarray(self._as_given(chunk)[0])
        arguments = jax.tree.leaves(self._arguments(chunk, consts, target))
        given = self._given.get(chunk.start)
        if given and given.done():
            swapped = [i for i, group in enumerate(self._groups) if not group.isdisjoint(swap)]
            found, _ = self._parts(arguments, given.result()[1], swapped)
        else:  # nothing is kept of these images, or not yet: rather than wait, compute it all
            found, _ = self._parts(arguments)
        return np.asarray(found[1])

    def _as_given(self, chunk: slice) -> tuple[jax.Array, dict]:
        """The maps of the model and the classes as they were given, and the values to keep."""
        with self._lock:
            first = chunk.start not in self._given
            made = self._given.setdefault(chunk.start, Future())
            if first and len(self._given) > 2:
                del self._given[next(iter(self._given))]
        if first:
            try:
                arguments = jax.tree.leaves(self._arguments(chunk, {}, None))
                (logits, maps), kept = self._parts(arguments)
                checks.check_finite([logits], [LOGITS])
                made.set_result((maps, kept))
            except BaseException as error:
                made.set_exception(error)
        return made.result()

    def _arguments(self, chunk: slice, consts: dict[int, Any], target: Any) -> tuple:
        """What the computation in parts takes, for the images of a chunk."""
        subject = self.subject
        index = Chunk(chunk.start, subject.chunk, len(subject.images)).index
        at = subject.target[index] if target is None else target[index - chunk.start]
        x = jnp.asarray(subject.images[index])
        # Labels may be of any integer type (uint8); what is compiled is for one.
        method = of_images(subject.method, subject.images, index)
        return self._values(consts), x, jnp.asarray(at, int), method

    def _values(self, consts: dict[int, Any]) -> list[Any]:
        """The constants of the model, with some in their place."""
        given = self.subject.reading.consts
        return [consts.get(place, value) for place, value in enumerate(given)]


@lru_cache(maxsize=32)
def _in_parts(
    graph: Graph, tree: Any, like: tuple, widest: Any, groups: tuple[frozenset[int], ...]
) -> Incremental:
    """The logits and maps as a function of constants, images, classes and a method's arrays.

    It is kept for equal models, as what `jax.jit` compiles is. widest: the precision that JAX is
    set to, on which what is traced depends.
    """

    def explain(*arguments):
        consts, x, target, method = jax.tree.unflatten(tree, arguments)
        logits, (maps,) = explained(graph, method, consts, [x], target)
        return logits, maps

    # A forward pass at a baseline costs what one at the images does.
    _, x, target, method = jax.tree.unflatten(tree, range(len(like)))
    data = {x, target, *jax.tree.leaves(method.baseline)}
    places = [group if TARGET not in group else frozenset({target}) for group in groups]
    return Incremental(jax.make_jaxpr(explain)(*like), data, places)
