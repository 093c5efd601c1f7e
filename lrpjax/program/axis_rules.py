"""How axes go through each primitive: the rules that the table of primitives names.

An entry of a value depends on one example at most: on the one that its place on the axes that
hold a factor of the batch says. What combines entries of several examples is written down as
mixing them; whether it matters is for `axes` to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from . import axis_moves
from .axis_moves import placed
from .factors import apart, core, digits, length
from .held import Held, Operands, Walk, acting, as_number, has_batch, out_shape
from .program import Eqn

# --- entry by entry ------------------------------------------------------------------------------


def same(walk: Walk, eqn: Eqn, held: Operands) -> Held:
    """Entry by entry. An operand may be one number for all, or for all of an axis."""
    shape = out_shape(walk, eqn)
    laid = [_laid_out(as_number(h, len(shape)), shape) for h in held]
    return walk.meet(eqn, laid, shape)


def _laid_out(held: Held | None, shape: Sequence[int]) -> Held | None:
    """An operand without its axes of 1 that are repeated along the output's."""
    if held is None:
        return None
    kept = (a if n == 1 or length(a) == n else () for a, n in zip(held.axes, shape, strict=True))
    return replace(held, axes=tuple(kept))


def each(walk: Walk, eqn: Eqn, held: Operands) -> list[Held]:
    """Output k is operand k."""
    return [h or walk.fresh(v) for h, v in zip(held, eqn.outputs, strict=True)]


def new(walk: Walk, eqn: Eqn, held: Operands) -> list[Held]:
    """Nothing is known of the output's axes."""
    sources = [h for h in held if h is not None]
    mixed = next((h.mixed for h in sources if h.mixed), None)
    several = any(has_batch(axis) for h in sources for axis in h.axes)
    opaque = next((h.opaque for h in sources if h.opaque), eqn if several else None)
    made = map(walk.fresh, eqn.outputs)
    return [replace(h, mixed=mixed, unknown=True, opaque=opaque) for h in made]


# --- what works along an axis --------------------------------------------------------------------


def reduce(walk: Walk, eqn: Eqn, held: Operands) -> list[Held]:
    """Each operand without some of its axes. psum's may be names, of no axis that a value has."""
    gone = [int(i) for i in eqn.params["axes"] if not isinstance(i, str)]
    found = []
    for value, source in zip(eqn.outputs, held, strict=True):
        if source is None:
            found.append(walk.fresh(value))
            continue
        source = acting(eqn, source, gone)
        if source.mixed is None and any(has_batch(source.axes[i]) for i in gone):
            source = replace(source, mixed=eqn)  # also of a single example: it would be of more
        axes = tuple(a for i, a in enumerate(source.axes) if i not in gone)
        found.append(replace(source, axes=axes))
    return found


def window(walk: Walk, eqn: Eqn, held: Operands) -> Held:
    p = eqn.params
    settings = ("window_dimensions", "window_strides", "base_dilation", "padding")
    per_axis = zip(*(p[name] for name in settings), strict=True)
    still = [(n, step, d, tuple(pads)) == (1, 1, 1, (0, 0)) for n, step, d, pads in per_axis]
    source = acting(eqn, held[0], [i for i, s in enumerate(still) if not s])
    return walk.fitted(source, out_shape(walk, eqn))


def along(walk: Walk, eqn: Eqn, held: Operands) -> list[Held]:
    """Along one axis (sort: several operands by the order of the first)."""
    p, shape = eqn.params, out_shape(walk, eqn)
    dim = int(p["axis"] if "axis" in p else p["dimension"])
    sources = [h and acting(eqn, h, [dim]) for h in held]
    before = walk.program.shape(eqn.inputs[0])
    met = walk.meet(eqn, sources, before)
    return [walk.fitted(met, shape) for _ in eqn.outputs]


def fft(walk: Walk, eqn: Eqn, held: Operands) -> Held:
    """Along the last axes, of which the very last may change its length."""
    shape = out_shape(walk, eqn)
    first = len(shape) - len(eqn.params["fft_lengths"])
    source = acting(eqn, held[0], range(first, len(shape)))
    return walk.fitted(source, shape)


# --- products with weights, or of two values -----------------------------------------------------


def conv(walk: Walk, eqn: Eqn, held: Operands) -> Held | list[Held]:
    """Groups (which vmap makes of examples) stay apart; inside of one, features are summed."""
    x, w = held
    p, shape = eqn.params, out_shape(walk, eqn)
    numbers, groups = p["dimension_numbers"], p["feature_group_count"]
    (batch, feature, *space) = numbers.out_spec
    if p["batch_group_count"] != 1:
        return new(walk, eqn, held)
    if x is not None:
        (at, summed, *places) = numbers.lhs_spec
        size = walk.program.shape(eqn.inputs[0])[summed]
        outer, inner = apart(x.axes[summed], size // groups) or ((), x.axes[summed])
        made = walk.new(shape[feature] // groups)
        if not digits(outer):
            outer, inner, made = (), x.axes[summed], walk.new(shape[feature])
        walk.features.update(map(core, (inner, made)))
        walk.places.update(core(x.axes[i]) for i in places)
        taps = [walk.program.shape(eqn.inputs[1])[i] for i in numbers.rhs_spec[2:]]
        steps = zip(taps, p["window_strides"], p["padding"], p["lhs_dilation"], strict=True)
        still = [(n, step, tuple(pads), d) == (1, 1, (0, 0), 1) for n, step, pads, d in steps]
        to = {at: batch} | {i: k for i, k, s in zip(places, space, still, strict=True) if s}
        x = replace(x, axes=tuple(inner if i == summed else a for i, a in enumerate(x.axes)))
        x = placed(eqn, x, to, len(shape))
        x = replace(
            x, axes=tuple((*outer, *made) if i == feature else a for i, a in enumerate(x.axes))
        )
    if w is not None:
        w = placed(eqn, w, {numbers.rhs_spec[0]: feature}, len(shape))
    met = walk.meet(eqn, [x, w], shape)
    walk.places.update(core(met.axes[i]) for i in space)
    return met


def dot(walk: Walk, eqn: Eqn, held: Operands) -> Held:
    """Batch axes of both, then what is left of each. With weights, both what is summed and what
    they make are features; attention sums over tokens."""
    (summed, shared) = eqn.params["dimension_numbers"]
    shape = out_shape(walk, eqn)
    operands, following = [], len(shared[0])
    for side in (0, 1):
        rank = len(walk.program.shape(eqn.inputs[side]))
        free = [i for i in range(rank) if i not in (*summed[side], *shared[side])]
        to = dict(zip(shared[side], range(len(shared[side])), strict=True))
        to |= {i: following + k for k, i in enumerate(free)}
        following += len(free)
        operand = held[side]
        operands.append(operand and placed(eqn, operand, to, len(shape)))
        if operand is not None and held[1 - side] is None:
            walk.features.update(core(operand.axes[i]) for i in summed[side])
    met = walk.meet(eqn, operands, shape)
    if None in operands:
        (operand,) = [h for h in operands if h is not None]
        walk.features.update(core(a) for a, b in zip(met.axes, operand.axes, strict=True) if not b)
    return met


RULES: dict[str, Callable[[Walk, Eqn, Any], Held | list[Held]]] = {
    "same": same,
    "each": each,
    "new": new,
    "reshape": axis_moves.reshape,
    "transpose": axis_moves.transpose,
    "squeeze": axis_moves.squeeze,
    "broadcast": axis_moves.broadcast,
    "tile": axis_moves.tile,
    "slice": axis_moves.slice_,
    "dynamic_slice": axis_moves.dynamic_slice,
    "split": axis_moves.split,
    "unstack": axis_moves.unstack,
    "concatenate": axis_moves.concatenate,
    "stack": axis_moves.stack,
    "pad": axis_moves.pad,
    "reverse": axis_moves.reverse,
    "update": axis_moves.update,
    "gather": axis_moves.gather,
    "scatter": axis_moves.scatter,
    "reduce": reduce,
    "window": window,
    "along": along,
    "fft": fft,
    "conv": conv,
    "dot": dot,
}
