"""How axes go through the primitives that move values: see `axis_rules`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .._base.compat import outside_traces
from . import primitives
from .factors import BATCH, Axis, Factor, core, digits, length, reshaped, sliced
from .held import Held, Operands, Walk, acting, as_number, out_shape
from .program import Eqn, Program, evaluate

_KNOWN = 2**20  # entries that a constant may have whose numbers are computed here

# --- moves of whole axes -------------------------------------------------------------------------


def reshape(walk: Walk, eqn: Eqn, held: Operands) -> Held:
    """Factors stay in order. `dimensions`: a transposition that comes first (vmap writes it)."""
    (source,) = held
    order = eqn.params.get("dimensions") or range(len(source.axes))
    shape = out_shape(walk, eqn)
    if 0 in shape:
        return replace(source, axes=walk.fresh(eqn.outputs[0]).axes)
    axes, torn = reshaped([source.axes[i] for i in order], shape, walk.new)
    if digits(torn) and source.mixed is None:
        source = replace(source, mixed=eqn)
    return walk.with_axes(source, axes)


def transpose(walk: Walk, eqn: Eqn, held: Operands) -> Held:
    return replace(held[0], axes=tuple(held[0].axes[i] for i in eqn.params["permutation"]))


def squeeze(walk: Walk, eqn: Eqn, held: Operands) -> Held:
    gone = {i % len(held[0].axes) for i in eqn.params["dimensions"]}
    return replace(held[0], axes=tuple(a for i, a in enumerate(held[0].axes) if i not in gone))


def broadcast(walk: Walk, eqn: Eqn, held: Operands) -> Held:
    """An axis that is repeated is another one."""
    source, shape = held[0], out_shape(walk, eqn)
    axes = [walk.new(size) for size in shape]
    for axis, place in zip(source.axes, eqn.params["broadcast_dimensions"], strict=True):
        if length(axis) == shape[place]:
            axes[place] = axis
    return walk.with_axes(source, axes)


def tile(walk: Walk, eqn: Eqn, held: Operands) -> Held:
    """Whole copies of an axis, one after the other."""
    pairs = zip(held[0].axes, eqn.params["reps"], strict=True)
    return replace(held[0], axes=tuple((*walk.new(n), *a) if n > 1 else a for a, n in pairs))


# --- moves of parts of axes ----------------------------------------------------------------------


def _part(
    walk: Walk, eqn: Eqn, held: Held, starts: Sequence[Any], sizes: Any, steps: Any = None
) -> Held:
    """Some of the entries along each axis. starts: None where it is not known."""
    axes, example = [], held.example or 0
    for axis, first, size, step in zip(
        held.axes, starts, sizes, steps or [1] * len(starts), strict=True
    ):
        part = None
        if size == length(axis):
            part = axis, 0
        elif first is not None and size > 0 and digits(axis):
            part = sliced(axis, first, size, step, walk.new)
        elif not digits(axis):
            part = walk.resized(axis, size), 0
        if part is None:
            whole = replace(held, axes=walk.fresh(eqn.outputs[0]).axes, cut=None)
            return replace(whole, example=example, mixed=held.mixed or eqn)
        axes.append(part[0] or walk.new(1))
        example += part[1]
    if held.example is None:
        return replace(held, axes=tuple(axes))
    cut = any(digits(a) != digits(b) for a, b in zip(axes, held.axes, strict=True))
    return replace(held, axes=tuple(axes), example=example, cut=eqn if cut else held.cut)


def slice_(walk: Walk, eqn: Eqn, held: Operands) -> Held:
    p = eqn.params
    return _part(walk, eqn, held[0], p["start_indices"], out_shape(walk, eqn), p["strides"])


def dynamic_slice(walk: Walk, eqn: Eqn, held: Operands) -> Held:
    """A start that is written in the code is known; one that is computed is not."""
    source, *indices = held
    shape = out_shape(walk, eqn)
    if source is not None:
        sizes = walk.program.shape(eqn.inputs[0])
        starts = [walk.program.literals.get(v) for v in eqn.inputs[1:]]
        starts = [  # what lies outside is moved inside
            None if s is None else min(max(int(s), 0), n - m)
            for s, n, m in zip(starts, sizes, shape, strict=True)
        ]
        source = _part(walk, eqn, source, starts, shape)
    return walk.meet(eqn, [source, *(as_number(h, len(shape)) for h in indices)], shape)


def split(walk: Walk, eqn: Eqn, held: Operands) -> list[Held]:
    axis, found, start = eqn.params["axis"], [], 0
    for size in eqn.params["sizes"]:
        starts, sizes = [0] * len(held[0].axes), [length(a) for a in held[0].axes]
        starts[axis], sizes[axis] = start, int(size)
        found.append(_part(walk, eqn, held[0], starts, sizes))
        start += int(size)
    return found


def unstack(walk: Walk, eqn: Eqn, held: Operands) -> list[Held]:
    """The entries along an axis, one by one."""
    axis, found = eqn.params["axis"], []
    for start in range(len(eqn.outputs)):
        starts, sizes = [0] * len(held[0].axes), [length(a) for a in held[0].axes]
        starts[axis], sizes[axis] = start, 1
        part = _part(walk, eqn, held[0], starts, sizes)
        found.append(replace(part, axes=(*part.axes[:axis], *part.axes[axis + 1 :])))
    return found


def concatenate(walk: Walk, eqn: Eqn, held: Operands) -> Held:
    return _joined(walk, eqn, held, eqn.params["dimension"])


def stack(walk: Walk, eqn: Eqn, held: Operands) -> Held:
    at = eqn.params["axis"]
    parts = [h and replace(h, axes=(*h.axes[:at], walk.new(1), *h.axes[at:])) for h in held]
    return _joined(walk, eqn, parts, at)


def _joined(walk: Walk, eqn: Eqn, parts: Operands, at: int) -> Held:
    """Parts one after the other: examples in order, copies, or anything along an axis without."""
    shape = out_shape(walk, eqn)
    parts = [h for h in parts if h is None or length(h.axes[at]) > 0]
    found = [h for h in parts if h is not None]
    whole = all(h is not None and h.example is not None for h in parts)
    spread = any(digits(h.axes[at]) for h in found)
    axis, example = walk.new(shape[at]), None
    if not spread and len({h.example for h in found} - {None}) < 2:
        for h in found:
            walk.alike(axis, h.axes[at])
    elif whole and (run := _in_order(found, at)):
        axis, example = run, found[0].example
    elif whole and (copied := _copied(found, at)):
        axis = (*walk.new(shape[at] // length(copied)), *copied)
    else:
        found = [replace(h, mixed=h.mixed or eqn) for h in found]
    free = [
        replace(
            h,
            axes=(*h.axes[:at], (), *h.axes[at + 1 :]),
            example=h.example if example is None else example,
        )
        for h in found
    ]
    met = walk.meet(eqn, free, shape)
    return replace(met, axes=(*met.axes[:at], axis, *met.axes[at + 1 :]))


def _copied(parts: Sequence[Any], at: int) -> Axis | None:
    """The axis that all parts hold, some of them several times, if they do."""
    inner = []
    for h in parts:
        axis = core(h.axes[at])
        first = next((i for i, f in enumerate(axis) if f.label == BATCH), len(axis))
        inner.append(axis[first:])
    same = len({(h.example, length(a), digits(a)) for h, a in zip(parts, inner, strict=True)}) == 1
    return inner[0] if same and inner[0] else None


def _in_order(parts: Sequence[Any], at: int) -> Axis | None:
    """The axis on which the examples of the parts follow one another, if they do."""
    if len(parts) < 2:
        return None
    heads: list[Factor | None] = []
    rests: list[Axis] = []
    for h in parts:
        head, *rest = core(h.axes[at])
        several = head.label == BATCH and head.size > 1
        heads.append(head if several else None)
        rests.append(tuple(rest) if several else (head, *rest))
    first, second = parts[0].example, parts[1].example
    strides = {head.stride for head in heads if head} or {second - first}
    (stride, *others) = strides
    following = first
    for h, run in zip(parts, heads, strict=True):
        if h.example != following:
            return None
        following += stride * (run.size if run else 1)
    fits = len({(length(rest), digits(rest)) for rest in rests}) == 1
    if others or stride <= 0 or not fits:
        return None
    return (Factor(BATCH, stride, (following - first) // stride), *rests[0])


def pad(walk: Walk, eqn: Eqn, held: Operands) -> Held:
    source, value = held
    shape, padded = out_shape(walk, eqn), eqn.params["padding_config"]
    if source is not None:
        source = acting(eqn, source, [i for i, p in enumerate(padded) if any(p)])
        source = walk.fitted(source, shape)
    return walk.meet(eqn, [source, as_number(value, len(shape))], shape)


def reverse(walk: Walk, eqn: Eqn, held: Operands) -> Held:
    return acting(eqn, held[0], eqn.params["dimensions"])


def update(walk: Walk, eqn: Eqn, held: Operands) -> Held:
    """A part of operand 0 gives way to operand 1."""
    source, part, *indices = held
    shape, small = out_shape(walk, eqn), walk.program.shape(eqn.inputs[1])
    if part is not None:
        whole = {i: i for i, (n, m) in enumerate(zip(shape, small, strict=True)) if n == m}
        part = placed(eqn, part, whole, len(shape))
    return walk.meet(eqn, [source, part, *(as_number(h, len(shape)) for h in indices)], shape)


def gather(walk: Walk, eqn: Eqn, held: Operands) -> Held:
    """Windows of operand 0 at the places that operand 1 says."""
    source, indices = held
    p, shape = eqn.params, out_shape(walk, eqn)
    numbers, sizes = p["dimension_numbers"], p["slice_sizes"]
    whole = walk.program.shape(eqn.inputs[0])
    offset = [int(i) for i in numbers.offset_dims]
    apart_dims = [int(i) for i in numbers.operand_batching_dims]
    window = [i for i in range(len(whole)) if i not in (*numbers.collapsed_slice_dims, *apart_dims)]
    outer = [i for i in range(len(shape)) if i not in offset]  # one for each axis of the indices
    if source is not None:
        to = dict(zip(window, offset, strict=True))
        for dim, k in zip(apart_dims, numbers.start_indices_batching_dims, strict=True):
            to[dim] = outer[k]
        for column, dim in enumerate(map(int, numbers.start_index_map)):
            k = _counting(walk.program, eqn.inputs[1], column, whole[dim])
            if k is not None and sizes[dim] == 1 and dim not in to:  # x[arange(N), ...]
                to[dim] = outer[k]
        moved = lambda i: i in apart_dims or i not in window or sizes[i] == whole[i]
        source = placed(eqn, source, {i: k for i, k in to.items() if moved(i)}, len(shape))
    if indices is not None:
        last = len(indices.axes) - 1  # the columns: one number for each axis that is indexed
        places = {k: outer[k] for k in range(last)}
        indices = placed(eqn, indices, places, len(shape), [last])
    return walk.meet(eqn, [source, indices], shape)


def scatter(walk: Walk, eqn: Eqn, held: Operands) -> Held:
    """Windows of operand 0, at the places that operand 1 says, give way to operand 2, or it is
    added to them."""
    source, indices, part = held
    numbers, shape = eqn.params["dimension_numbers"], out_shape(walk, eqn)
    small = walk.program.shape(eqn.inputs[2])
    batching = [int(i) for i in numbers.operand_batching_dims]
    window = [int(i) for i in numbers.update_window_dims]
    outer = [i for i in range(len(small)) if i not in window]
    kept = [i for i in range(len(shape)) if i not in (*numbers.inserted_window_dims, *batching)]
    aside = dict(zip(numbers.scatter_indices_batching_dims, batching, strict=True))
    if part is not None:
        to = {i: k for i, k in zip(window, kept, strict=True) if small[i] == shape[k]}
        to |= {outer[k]: dim for k, dim in aside.items()}
        for column, dim in enumerate(map(int, numbers.scatter_dims_to_operand_dims)):
            k = _counting(walk.program, eqn.inputs[1], column, shape[dim])
            if k is not None and dim in numbers.inserted_window_dims:  # x.at[arange(N), ...]
                to[outer[k]] = dim
        part = placed(eqn, part, to, len(shape))
    if indices is not None:
        indices = placed(eqn, indices, aside, len(shape))
    return walk.meet(eqn, [source, indices, part], shape)


def placed(eqn: Eqn, held: Held, to: dict[int, int], rank: int, idle: Sequence[int] = ()) -> Held:
    """The value as an operand of that rank: its axis i at to[i]. The equation works along those
    that have no place and are not idle."""
    others = [i for i in range(len(held.axes)) if i not in to and i not in idle]
    held = acting(eqn, held, others)
    axes: list[Axis] = [()] * rank
    for i, k in to.items():
        axes[k] = held.axes[i]
    return replace(held, axes=tuple(axes))


def _counting(program: Program, indices: int, column: int, size: int) -> int | None:
    """The axis along which a column of indices counts 0, 1, ..., size - 1, if it does."""
    made = program.producer.get(indices)
    if made is not None and made.name == "concatenate":
        for part in made.inputs:
            width = program.shape(part)[-1]
            if column < width:
                return _counting(program, part, column, size)
            column -= width
    numbers = _known(program, indices, {})
    if numbers is None:
        return None
    for k, n in enumerate(numbers.shape[:-1]):
        line = np.arange(n).reshape([-1] + [1] * (numbers.ndim - 2 - k))
        if n == size and (numbers[..., column] == line).all():
            return k
    return None


def _known(program: Program, value: int, found: dict[int, Any]) -> np.ndarray | None:
    """The numbers of a constant that the code writes out, by counting or as they are. found: those
    looked for before."""
    made = program.producer.get(value)
    if value in program.literals or made is None:
        return program.literals.get(value)
    if value not in found:
        found[value] = None
        row = primitives.of(made.name)
        small = np.prod(program.shape(value)) <= _KNOWN and value not in program.active
        if small and (made.name == "iota" or row.is_move or row.is_entrywise):
            inputs = [_known(program, v, found) for v in made.inputs]
            if all(v is not None for v in inputs):
                with outside_traces():
                    outs = evaluate(made, inputs)
                found[value] = np.asarray(outs[made.outputs.index(value)])
    return found[value]
