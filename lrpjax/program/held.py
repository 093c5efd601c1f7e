"""What is known of the axes of a value, and what a walk through a program learns of them.

An entry of a value depends on one example at most: on the one that its place on the axes that
hold a factor of the batch says. What combines entries of several examples is written down as
mixing them; whether it matters is for `axes` to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from .factors import BATCH, Axis, Factor, core, digits, length
from .program import Eqn, Program


@dataclass(frozen=True)
class Held:
    """What is known of a value.

    axes: () for one along which it is repeated, as an operand that meets another.
    example: the number of the example that its first entry depends on, None if it depends on no
    example (or on all of them alike: an input without a batch).
    mixed: the first equation that made one of its entries depend on several examples.
    cut: the last one that took some examples and left the others.
    unknown: whether the axes could not be followed.
    opaque: the first equation that took examples of which it is not known whether it mixed them.
    """

    axes: tuple[Axis, ...]
    example: int | None = None
    mixed: Eqn | None = None
    cut: Eqn | None = None
    unknown: bool = False
    opaque: Eqn | None = None

    @property
    def owners(self) -> tuple:
        """Which example each entry depends on: equal for two values if and only if that is."""
        return (self.example, *map(digits, self.axes))


Operands = Sequence[Any]  # of Held, or None for a constant


class Walk:
    """What a walk through a program learns of its axes.

    An axis stands for its factors; axes that operations put on one another are alike, and what is
    said of one (that it holds features, or places) is true of both.
    """

    def __init__(self, program: Program, examples: int):
        self.program, self.examples = program, examples
        self._labels = count(BATCH + 1)
        self._parent: dict[Axis, Axis] = {}
        self.features: set[Axis] = set()
        self.places: set[Axis] = set()

    def new(self, size: int) -> Axis:
        return (Factor(next(self._labels), 1, size),)

    def fresh(self, value: int) -> Held:
        return Held(tuple(map(self.new, self.program.shape(value))))

    def root(self, axis: Axis) -> Axis:
        start = found = core(axis)
        while found in self._parent:
            found = self._parent[found]
        if start != found:
            self._parent[start] = found  # the way is short the next time
        return found

    def alike(self, a: Axis, b: Axis) -> None:
        one, other = self.root(a), self.root(b)
        if one != other:
            self._parent[other] = one

    @property
    def seen(self) -> set[Axis]:
        """The axes of which something may be said."""
        return {*self._parent, *self._parent.values(), *self.features, *self.places}

    def resized(self, axis: Axis, size: int) -> Axis:
        """An axis of another length that holds the same kind of thing."""
        made = self.new(size)
        self.alike(axis, made)
        return made

    def with_axes(self, held: Held, axes: Sequence[Axis]) -> Held:
        """The value with these axes. A single example that has lost its axis finds it again in a
        first axis of size 1."""
        first, *others = axes or [()]
        lost = self.examples == 1 and held.example is not None and not any(map(has_batch, axes))
        if axes and lost and length(first) == 1:
            axes = [(Factor(BATCH, 1, 1),), *others]
        return replace(held, axes=tuple(axes))

    def fitted(self, held: Held, shape: Sequence[int]) -> Held:
        """The value with axes of these lengths."""
        pairs = zip(held.axes, shape, strict=True)
        return replace(
            held, axes=tuple(a if length(a) == n else self.resized(a, n) for a, n in pairs)
        )

    def meet(self, eqn: Eqn, operands: Operands, shape: Sequence[int]) -> Held:
        """What operands have in common that are laid upon one another, entry by entry."""
        held = [h for h in operands if h is not None]
        known = [h for h in held if h.example is not None]
        axes = []
        for i, size in enumerate(shape):
            found = [a for h in [*known, *held] if (a := h.axes[i])]
            best = next((a for a in found if has_batch(a)), found[0] if found else self.new(size))
            for other in found:
                self.alike(best, other)
            axes.append(best)
        mixed = [h.mixed for h in held if h.mixed is not None]
        opaque = [h.opaque for h in held if h.opaque is not None]
        first = lambda eqns: min(eqns, key=lambda e: self.program.order[e.outputs[0]], default=None)
        if not mixed and len({h.owners for h in known}) > 1:
            mixed = [eqn]
        return Held(
            tuple(axes),
            known[0].example if known else None,
            first(mixed),
            next((h.cut for h in known if h.cut is not None), None),
            not known and any(h.unknown for h in held),
            first(opaque),
        )


def has_batch(axis: Axis) -> bool:
    """Whether an axis numbers examples, be it a single one."""
    return any(f.label == BATCH for f in core(axis))


def acting(eqn: Eqn, held: Held, dims: Iterable[int]) -> Held:
    """The value, mixed if the equation works along an axis that has several examples on it."""
    mixes = held.mixed is None and any(digits(held.axes[i]) for i in dims)
    return replace(held, mixed=eqn) if mixes else held


def out_shape(walk: Walk, eqn: Eqn) -> tuple[int, ...]:
    return walk.program.shape(eqn.outputs[0])


def as_number(held: Held | None, rank: int) -> Held | None:
    """A value without axes as an operand of that rank."""
    return held and (replace(held, axes=((),) * rank) if len(held.axes) != rank else held)
