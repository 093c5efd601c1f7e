"""Which axis of each value is the batch and which are features, read off the program.

The batch is the first axis of the input. Every axis of every input-dependent value is a product of
factors, which operations carry along (see `axis_rules`); convolutions and matrix products say
which of them are features and which are places.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import jax

from . import primitives
from .axis_rules import RULES
from .factors import BATCH, Axis, Factor, core, digits, length
from .held import Held, Walk, has_batch
from .program import Eqn, Program


@dataclass(frozen=True)
class Layout:
    """What the axes of a value hold, once it is reshaped to `shape`, which takes merged ones apart.

    batch, features, places: positions of the axes that number examples (none for a single one; the
    outermost first), features, and where they are.
    """

    shape: tuple[int, ...]
    batch: tuple[int, ...]
    features: tuple[int, ...]
    places: tuple[int, ...]

    def sizes(self, axes: Iterable[int]) -> int:
        return math.prod(self.shape[i] for i in axes)

    @property
    def units(self) -> tuple[int, ...]:
        """The axes within one example."""
        return tuple(i for i in range(len(self.shape)) if i not in self.batch)

    def by_example(self, values: jax.Array) -> jax.Array:
        """An array of the value's shape as (examples, units of one)."""
        order = (*self.batch, *self.units)
        sizes = (self.sizes(self.batch), self.sizes(self.units))
        return values.reshape(self.shape).transpose(order).reshape(sizes)

    def together(self, examples: jax.Array) -> jax.Array:
        """Of (examples, units of one) an array of `shape`, which the value's is a reshape of."""
        order = (*self.batch, *self.units)
        apart = examples.reshape([self.shape[i] for i in order])
        return apart.transpose(sorted(range(len(order)), key=order.__getitem__))


@dataclass(frozen=True)
class Mixing:
    """An equation by which one example's output depends on others.

    is_statistic: it sums over the batch, as BatchNorm does in training.
    """

    eqn: Eqn
    is_statistic: bool


@dataclass(frozen=True)
class Axes:
    """For each input-dependent value, the positions of its batch and its feature axis or None.

    batch: None also where the batch is one axis with others; see `layout`.
    features: all of its feature axes, such as heads and what each holds; never the spatial axes of
    a convolution, which are its places.
    layout: None where the axes could not be followed.
    mixes: what makes one example's output depend on others, if anything does.
    unproven: the first equation on the way to an output of which that is not known.
    """

    batch: dict[int, int | None]
    feature: dict[int, int | None]
    features: dict[int, tuple[int, ...]]
    places: dict[int, tuple[int, ...]]
    layout: dict[int, Layout | None]
    mixes: Mixing | None
    unproven: Eqn | None


def find_axes(program: Program) -> Axes:
    size = _batch_size(program)
    walk = Walk(program, size)
    held = _held_by(program, walk, size)
    batched = _has_batch(program, held, size)
    said = _Said(walk, batched)
    lost = lambda h: h.unknown and batched and size > 1
    channels = {v: _positions(h.axes, said.is_feature) for v, h in held.items()}
    return Axes(
        batch={v: _batch_axis(h) if batched else None for v, h in held.items()},
        feature={v: (None, *found)[-1] for v, found in channels.items()},
        features=channels,
        places={v: _positions(h.axes, said.is_place) for v, h in held.items()},
        layout={v: None if lost(h) else said.layout(h) for v, h in held.items()},
        mixes=_mixing(program, held, size) if batched else None,
        unproven=next((h.opaque for h in _known_outputs(program, held) if h.opaque), None),
    )


def _held_by(program: Program, walk: Walk, size: int) -> dict[int, Held]:
    """What the axes of each input-dependent value hold, from the input up."""
    held: dict[int, Held] = {}
    for value in program.inputs:
        held[value] = walk.fresh(value)
        if size and program.shape(value)[:1] == (size,):
            others = held[value].axes[1:]
            held[value] = Held(((Factor(BATCH, 1, size),), *others), example=0)
    for eqn in program.eqns:
        if program.active_inputs(eqn):
            rule = RULES[primitives.of(eqn.name).axes]
            found = rule(walk, eqn, [held.get(v) for v in eqn.inputs])
            outs = found if isinstance(found, list) else [found]
            held.update(zip(eqn.outputs, outs, strict=True))
    return held


class _Said:
    """What is said of an axis: whether it numbers examples, features, or places."""

    def __init__(self, walk: Walk, batched: bool):
        self._walk, self._batched = walk, batched
        self._places = {walk.root(axis) for axis in walk.places}
        self._features = {walk.root(axis) for axis in walk.features} - self._places
        self._pieces = _pieces(walk, self._features | self._places)

    def is_batch(self, axis: Axis) -> bool:
        return self._batched and has_batch(axis)

    def is_feature(self, axis: Axis) -> bool:
        return self._walk.root(axis) in self._features and not self.is_batch(axis)

    def is_place(self, axis: Axis) -> bool:
        return self._walk.root(axis) in self._places and not self.is_batch(axis)

    def layout(self, held: Held) -> Layout:
        axes: list[Axis] = []
        for a in held.axes:
            whole = self._walk.root(a) in self._features
            axes.extend([a] if whole else _apart(a, self._pieces, self.is_batch))
        numbering = sorted(_positions(axes, self.is_batch), key=lambda i: -core(axes[i])[0].stride)
        return Layout(
            tuple(map(length, axes)),
            tuple(numbering),
            _positions(axes, self.is_feature),
            _positions(axes, self.is_place),
        )


def _positions(axes: Sequence[Axis], said: Callable[[Axis], bool]) -> tuple[int, ...]:
    """The positions of the axes of which something is said."""
    return tuple(i for i, axis in enumerate(axes) if said(axis))


def _batch_size(program: Program) -> int:
    """How many examples there are: as many as the first axis is long that the output has too."""
    sizes = [shape[0] for v in program.inputs if (shape := program.shape(v))]
    outputs = {shape[0] for v in program.outputs if (shape := program.shape(v))}
    return next((n for n in sizes if n in outputs), sizes[0] if sizes else 0)


def _known_outputs(program: Program, held: dict[int, Held]) -> list[Held]:
    return [held[v] for v in program.outputs if v in held]


def _has_batch(program: Program, held: dict[int, Held], size: int) -> bool:
    """Whether the first axis is a batch: the model's output has it too, or has one as long.

    A vector alone may be one example: it is a batch if an output has an entry for each of its own.
    """
    outputs = _known_outputs(program, held)
    ranks = [len(program.shape(v)) for v in program.inputs]
    if size == 1 or max(ranks, default=0) < 2:
        return any(any(map(has_batch, h.axes)) and not (size > 1 and h.mixed) for h in outputs)
    lengths = {program.shape(v)[:1] for v in program.outputs}
    return lengths == {(size,)} or any(any(map(digits, h.axes)) for h in outputs)


def _mixing(program: Program, held: dict[int, Held], size: int) -> Mixing | None:
    """The first equation that mixes examples on the way to an output, or leaves some out."""
    culprits = [
        h.mixed or (None if _is_whole(h, size) else h.cut) for h in _known_outputs(program, held)
    ]
    found = [eqn for eqn in culprits if eqn is not None]
    if not found:
        return None
    eqn = min(found, key=lambda e: program.order[e.outputs[0]])
    row = primitives.of(eqn.name)
    return Mixing(eqn, row.axes == "reduce" and row.linear == "all")


def _is_whole(held: Held, size: int) -> bool:
    """Whether the value holds every example once."""
    counts = [n for axis in held.axes for _, _, n in digits(axis)]
    return held.example is None or (held.example == 0 and math.prod(counts) == size)


def _batch_axis(held: Held) -> int | None:
    """The axis that numbers examples and nothing else."""
    found = [i for i, axis in enumerate(held.axes) if has_batch(axis)]
    return found[0] if len(found) == 1 and len(core(held.axes[found[0]])) == 1 else None


def _pieces(walk: Walk, said: set[Axis]) -> dict[int, list[Factor]]:
    """The factors of which something is said, by their label, the innermost first."""
    found: dict[int, list[Factor]] = {}
    for axis in walk.seen:
        if len(axis) == 1 and walk.root(axis) in said:
            found.setdefault(axis[0].label, []).append(axis[0])
    return {label: sorted(fs, key=lambda f: (f.stride, f.size)) for label, fs in found.items()}


def _apart(axis: Axis, pieces: dict[int, list[Factor]], is_batch: Callable) -> list[Axis]:
    """An axis taken apart: into its factors, and these into pieces of which something is said."""
    found: list[Axis] = []
    for f in core(axis):
        inner, stride = list[Axis](), f.stride
        for piece in pieces.get(f.label, []):
            if piece.stride == stride and piece.size <= f.size * f.stride // stride:
                inner.insert(0, (piece,))
                stride *= piece.size
        complete = stride == f.stride * f.size and not is_batch((f,))
        found.extend(inner if complete else [(f,)])
    return found
