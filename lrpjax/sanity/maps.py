"""What is tested: a method's maps of some images by a model."""

from __future__ import annotations

from math import ceil, prod
from typing import Any

import numpy as np

from .._base import checks, jobs
from .._base.work import chunks, fitting
from ..graph.reading import Model, Reading, Source, source_of
from ..methods.lookup import resolve
from ..planning.claims import require
from ..propagation.baselines import of_images
from ..propagation.targets import logits_of, read_for_target

_ENOUGH = 32  # images: with fewer a chunk's products lose speed
LOGITS = "the model's output"


class Subject:
    """A method and a model at a batch of images, read and checked.

    method: what `lrpjax.attribute` takes.
    target: a class, N classes, or None for the prediction of the model as it is given: it stays the
    explained class when parameters change. chunk: how many images are explained at once by a chain
    of rules (default: equal chunks that keep the largest layer within 64 MiB).
    """

    def __init__(
        self,
        model: Model,
        images: Any,
        method: Any,
        *,
        target: Any = None,
        chunk: int | None = None,
    ):
        checks.check_images(images)
        if chunk is not None:
            checks.check_count(1, chunk=chunk)
        self.source, self.images = source_of(model, images), images
        self.method = resolve(method, model)
        self.name = self.method.name
        by_rules = self.method.chain is not None
        self.chunk = min(len(images), chunk or len(images)) if by_rules else len(images)
        try:
            self.reading: Reading = self._read(target)
            if by_rules and chunk is None and self._fitting() < self.chunk:
                self.chunk = self._fitting()
                self.reading = self._read(target)
        except ValueError as error:
            if _is_single(self.source, images):
                raise ValueError(
                    f"Images are needed as a batch (N, ...), got one of shape {images.shape}: give "
                    "images[None]."
                ) from error
            raise
        require(self.source, images, self.method)
        program = self.reading.graph.program
        shape = (len(images), *program.shape(program.outputs[0])[1:])
        checks.check_target(target, shape)
        self.classes = shape[1]
        at = target
        if target is None or not by_rules:  # a chain looks at its own logits
            logits = self.logits()
            checks.check_finite([logits], [LOGITS])
            at = logits.argmax(-1) if target is None else target
        self.target: np.ndarray = np.broadcast_to(np.asarray(at), len(images))

    def _read(self, target: Any) -> Reading:
        """The model read at the first images."""
        first = None if target is None else checks.target_array(target)
        if first is not None and first.ndim:
            if len(first) != len(self.images):
                raise ValueError(f"There are {len(self.images)} images, but {len(first)} targets.")
            first = first[: self.chunk]
        some = of_images(self.method, self.images, np.arange(self.chunk))
        return read_for_target(self.source, self.images[: self.chunk], some, first)

    def _fitting(self) -> int:
        """How many images keep the largest layer's values within the limit: in equal chunks, and
        in two, which work side by side, where they are large enough."""
        program, count = self.reading.graph.program, len(self.images)
        largest = max(prod(program.shape(value)) for value in program.active)
        fits = max(1, fitting(ceil(largest / self.chunk)) // jobs.THREADS)
        return ceil(count / max(ceil(count / fits), min(jobs.THREADS, count // _ENOUGH)))

    def logits(self, images: Any = None) -> np.ndarray:
        """The model's output (N, classes), for other images of the same shape if given."""
        images = self.images if images is None else images
        graph, consts = self.reading.graph, self.reading.consts
        parts = [
            logits_of(graph, consts, [images[some.index]])[: some.own]
            for some in chunks(len(images), self.chunk)
        ]
        return np.concatenate([np.asarray(part) for part in parts])

    @property
    def channel(self) -> int | None:
        """The axis of the images' channels; None if they have no axes of space."""
        graph = self.reading.graph
        return graph.axes.feature[graph.program.inputs[0]] if self.images.ndim > 2 else None


def _is_single(source: Source, images: Any) -> bool:
    """Whether these are one image, without the axis of a batch."""
    try:
        program = source.at(images, fold=True).graph.program
        if len(program.shape(program.outputs[0])) == 2:
            return False
    except Exception:  # the model does not take them as they are
        pass
    try:
        source.at(images[None], fold=True)
    except Exception:  # whatever a model raises, it does not take them so either
        return False
    return True
