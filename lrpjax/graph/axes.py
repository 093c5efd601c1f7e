"""Which axis of each value is the batch and which the features, read off the program.

Every axis of every input-dependent value gets a label; operations carry labels along, and
convolutions and matrix products say which labels are features.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

from .program import Eqn, Program


@dataclass(frozen=True)
class Axes:
    """For each input-dependent value, the positions of its batch and its feature axis or None.

    features: all of its feature axes, such as heads and what each holds; never the spatial axes of
    a convolution.
    mixes: the first equation that reduces over the batch axis, if any.
    """

    batch: dict[int, int | None]
    feature: dict[int, int | None]
    features: dict[int, tuple[int, ...]]
    mixes: Eqn | None


def find_axes(program: Program) -> Axes:
    fresh = count()
    parent: dict[int, int] = {}
    labels: dict[int, tuple[int, ...]] = {}
    features: set[int] = set()
    spatial: set[int] = set()
    inner: set[int] = set()  # spatial and contracted axes: never the batch
    reductions: list[tuple[Eqn, int]] = []

    def new(size: int) -> tuple[int, ...]:
        return tuple(next(fresh) for _ in range(size))

    def root(label: int) -> int:
        while label in parent:
            label = parent[label]
        return label

    def same(a: int, b: int) -> None:
        if root(a) != root(b):
            parent[root(b)] = root(a)

    def visit(eqn: Eqn) -> None:
        source = program.active_inputs(eqn)[0]
        held, shape, p = labels[source], program.shape(source), eqn.params
        out_shape = program.shape(eqn.outputs[0])
        out = list(new(len(out_shape)))
        if eqn.name == "conv_general_dilated":
            dims = p["dimension_numbers"]
            features.update((held[dims.lhs_spec[1]], out[dims.out_spec[1]]))
            inner.update(held[i] for i in dims.lhs_spec[1:])
            spatial.update(held[i] for i in dims.lhs_spec[2:])
            spatial.update(out[i] for i in dims.out_spec[2:])
            out[dims.out_spec[0]] = held[dims.lhs_spec[0]]
        elif eqn.name == "dot_general":
            (contract, batch) = p["dimension_numbers"]
            sides = [labels.get(v, (None,) * len(program.shape(v))) for v in eqn.inputs]
            constant_side = next((s for s in (0, 1) if eqn.inputs[s] not in labels), None)
            kept = [sides[0][i] for i in batch[0]]
            for side in (0, 1):
                summed = [sides[side][i] for i in contract[side] if sides[side][i] is not None]
                inner.update(summed)
                if constant_side is not None:  # attention sums over tokens, weights over features
                    features.update(summed)
                drop = {*contract[side], *batch[side]}
                kept += [label for i, label in enumerate(sides[side]) if i not in drop]
            out = [
                new_label if old is None else old for new_label, old in zip(out, kept, strict=True)
            ]
            if constant_side is not None:
                features.update(o for o, old in zip(out, kept, strict=True) if old is None)
        elif eqn.name == "transpose":
            out = [held[i] for i in p["permutation"]]
        elif eqn.name == "broadcast_in_dim":
            for i, position in enumerate(p["broadcast_dimensions"]):
                if shape[i] == out_shape[position]:
                    out[position] = held[i]
        elif eqn.name == "squeeze":
            out = [label for i, label in enumerate(held) if i not in p["dimensions"]]
        elif eqn.name == "reshape":
            for old, position in kept_axes(shape, out_shape):
                out[position] = held[old]
        elif eqn.name.startswith(("reduce_", "arg", "psum", "pmax", "pmin")) and "axes" in p:
            axes = [i for i in p["axes"] if isinstance(i, int)]  # psum's may be names
            reductions.extend((eqn, held[i]) for i in axes)
            out = [label for i, label in enumerate(held) if i not in axes]
        elif len(out_shape) == len(shape):
            out = list(held)
            for other in program.active_inputs(eqn):
                if program.shape(other) != out_shape:
                    continue
                for a, b in zip(out, labels[other], strict=True):
                    same(a, b)
        for value in eqn.outputs:
            fits = len(program.shape(value)) == len(out)
            labels[value] = tuple(out) if fits else new(len(program.shape(value)))

    for value in program.inputs:
        labels[value] = new(len(program.shape(value)))
    batches = [labels[v][0] for v in program.inputs if labels[v]]
    for eqn in program.eqns:
        if program.active_inputs(eqn):
            visit(eqn)

    features = {root(label) for label in features}
    inner = {root(label) for label in inner}
    batch = {root(label) for label in batches} - inner

    def positions(value: int, wanted: set[int]) -> tuple[int, ...]:
        return tuple(i for i, label in enumerate(labels[value]) if root(label) in wanted)

    def position(value: int, wanted: set[int]) -> int | None:
        return (None, *positions(value, wanted))[-1]

    unplaced = features - batch - {root(label) for label in spatial}

    return Axes(
        batch={value: position(value, batch) for value in labels},
        feature={value: position(value, features - batch) for value in labels},
        features={value: positions(value, unplaced) for value in labels},
        mixes=next((eqn for eqn, label in reductions if root(label) in batch), None),
    )


def kept_axes(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[int, int]]:
    """Pairs (old axis, new axis) that a reshape leaves alone, sizes of 1 aside."""
    pairs = []
    i = j = 0
    while i < len(old) and j < len(new):
        if old[i] == new[j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif old[i] == 1:
            i += 1
        elif new[j] == 1:
            j += 1
        else:  # a merge or a split: skip to where the element counts agree again
            left, right = old[i], new[j]
            while left != right:
                if left < right:
                    i += 1
                    left *= old[i]
                else:
                    j += 1
                    right *= new[j]
            i, j = i + 1, j + 1
    return pairs
