"""An axis as a product of factors: what a reshape merges, another takes apart again.

A factor is a run of numbers along an axis that an operation made or the input had: a reshape that
merges axes puts their factors side by side, one that splits an axis takes a factor to pieces, and
pieces that meet again in order are the factor again. So (N, H, W, C) -> (N H W, C) -> (N, H, W, C)
finds N where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

BATCH = 0  # the label of the examples


@dataclass(frozen=True)
class Factor:
    """The numbers 0, stride, 2 stride, ... (`size` of them) of the run with that label."""

    label: int
    stride: int
    size: int


Axis = tuple[Factor, ...]  # outermost first; as long as the product of their sizes
New = Callable[[int], Axis]  # an axis of that size and of a label of its own


def length(axis: Axis) -> int:
    return math.prod(f.size for f in axis)


def core(axis: Axis) -> Axis:
    """The axis without factors of size 1, pieces put together. Where there is no other factor, it
    is those of size 1, or the one of them that is the batch."""
    long = [f for f in axis if f.size > 1]
    joined: list[Factor] = []
    for f in long or [f for f in axis if f.label == BATCH] or axis:
        last = joined[-1] if joined else None
        if last and last.label == f.label and last.stride == f.stride * f.size:
            joined[-1] = Factor(f.label, f.stride, last.size * f.size)
        else:
            joined.append(f)
    return tuple(joined)


def digits(axis: Axis) -> tuple[tuple[int, int, int], ...]:
    """Where the examples are in an axis: (numbers inside of it, stride, size) of each factor."""
    found, inside = [], 1
    for f in reversed(core(axis)):
        if f.label == BATCH and f.size > 1:
            found.append((inside, f.stride, f.size))
        inside *= f.size
    return tuple(found)


def apart(axis: Axis, inner: int) -> tuple[Axis, Axis] | None:
    """An axis as two, of which the second has `inner` numbers; None where no factor divides so."""
    outer, rest = list(axis), inner
    taken: list[Factor] = []
    while rest > 1:
        f = outer.pop()
        if rest % f.size == 0:
            taken.insert(0, f)
            rest //= f.size
        elif f.size % rest == 0:
            taken.insert(0, Factor(f.label, f.stride, rest))
            outer.append(Factor(f.label, f.stride * rest, f.size // rest))
            rest = 1
        else:
            return None
    return tuple(outer), tuple(taken)


def reshaped(axes: Sequence[Axis], shape: Sequence[int], new: New) -> tuple[list[Axis], Axis]:
    """The axes behind a reshape to `shape`, and the factors that it tears (2 x 3 as 3 x 2)."""
    left: list[Factor] = [f for axis in axes for f in axis]
    made: list[Axis] = []
    torn: list[Factor] = []
    while len(made) < len(shape):
        size = shape[len(made)]
        if size == 1:
            _place_ones(left, shape, made, new)
        elif (found := _front(left, size)) is not None:
            taken, left = found
            made.append(taken)
        else:  # to where the counts agree again, nothing is known
            before = after = 1
            while before != after or after == 1:
                if before <= after:
                    torn.append(left.pop(0))
                    before *= torn[-1].size
                else:
                    made.append(new(shape[len(made)]))
                    after *= length(made[-1])
    if made and left:  # factors of size 1 that no axis of size 1 took
        made[-1] = (*made[-1], *left)
    return made, tuple(torn)


def _place_ones(left: list[Factor], shape: Sequence[int], made: list[Axis], new: New) -> None:
    """Makes the run of axes of size 1 that comes next, of the factors of size 1 that do.

    The batch comes first. Of the others the last find a place: vmap joins the batch with the
    axis of size 1 that stands behind it, where there is one.
    """
    room = len(list(takewhile(lambda n: n == 1, shape[len(made) :])))
    ones = list(takewhile(lambda f: f.size == 1, left))
    del left[: len(ones)]
    if ones and ones[0].label == BATCH:
        made.append((ones.pop(0),))
        room -= 1
    spare = max(len(ones) - room, 0)
    if made:
        made[-1] = (*made[-1], *ones[:spare])
    else:
        left[:0] = ones[:spare]
    ones = ones[spare:]
    made.extend(new(1) for _ in range(room - len(ones)))
    made.extend((one,) for one in ones)


def _front(factors: list[Factor], size: int) -> tuple[Axis, list[Factor]] | None:
    """The first factors, `size` numbers together, and the others."""
    taken: list[Factor] = []
    left = list(factors)
    while size > 1:
        f = left.pop(0)
        if size % f.size == 0:
            taken.append(f)
            size //= f.size
        elif f.size % size == 0:
            inner = f.size // size
            taken.append(Factor(f.label, f.stride * inner, size))
            left.insert(0, Factor(f.label, f.stride, inner))
            size = 1
        else:
            return None
    return tuple(taken), left


def sliced(axis: Axis, first: int, count: int, step: int, new: New) -> tuple[Axis, int] | None:
    """The entries first, first + step, ... (`count` of them), and by how much the examples' numbers
    grow; None where they are no product of factors."""
    if count == length(axis) or not axis:
        return axis, 0
    head, rest = axis[0], axis[1:]
    inner = length(rest)
    block, last = first // inner, (first + (count - 1) * step) // inner
    if block == last:  # one number of the outermost factor
        found = sliced(rest, first % inner, count, step, new)
        moved = block * head.stride if head.label == BATCH else 0
        kept = (head,) if head.size == 1 else ()
        return found and ((*kept, *found[0]), found[1] + moved)
    if first % inner or count % inner or (step > 1 and inner > 1):
        return None
    if head.label != BATCH:
        return (*new(count // inner), *rest), 0
    return (Factor(BATCH, head.stride * step, count // inner), *rest), block * head.stride
