"""What the neurons of a linear layer see: sums over patches, for statistics of its inputs.

A neuron is one output feature; a patch is what one position of it is computed from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import jax
import jax.numpy as jnp
from jax import lax

from ..layers.ops import Core, Linear
from ..program.program import evaluate
from .kernels import core_of, neuron_axes

ROWS = 1024  # patches at once: they stay in a processor's cache


def fan_in(op: Linear) -> tuple[int, ...]:
    """The axes of W that a neuron sums over."""
    core = core_of(op)
    if core.eqn.name == "conv_general_dilated":
        return tuple(core.eqn.params["dimension_numbers"].rhs_spec[1:])
    return tuple(core.eqn.params["dimension_numbers"][0][core.side])


@dataclass(frozen=True)
class Grid:
    """Every stride-th position along each spatial axis of a convolution's output, from an offset.

    counts: how many that makes. The offsets may be traced.
    """

    strides: tuple[int, ...]
    counts: tuple[int, ...]
    offsets: tuple[jax.Array, ...]


def grid(op: Linear, patches: int | None, turn: jax.Array) -> Grid | None:
    """About so many positions of an image, others for every `turn` until all have had theirs.

    None where that is all of them: a product, a small map, or patches None.
    """
    core = core_of(op)
    if patches is None or not _is_plain_convolution(core):
        return None
    places = [core.z_like.shape[i] for i in core.eqn.params["dimension_numbers"].out_spec[2:]]
    stride = max(1, round((math.prod(places) / patches) ** (1 / len(places))))
    strides = tuple(min(stride, n) for n in places)
    if max(strides) == 1:
        return None
    offsets = []
    for s in strides:
        offsets.append(turn % s)
        turn = turn // s
    return Grid(
        strides, tuple(n // s for n, s in zip(places, strides, strict=True)), tuple(offsets)
    )


def on_grid(op: Linear, values: jax.Array, grid: Grid | None) -> jax.Array:
    """Values of the layer's output in the arrangement of `Core.eqn`, 0 off the grid."""
    values = _at_core(op, values)
    if grid is None:
        return values
    axes = core_of(op).eqn.params["dimension_numbers"].out_spec[2:]
    for axis, s, count, offset in zip(axes, grid.strides, grid.counts, grid.offsets, strict=True):
        place = jnp.arange(values.shape[axis]) - offset
        upon = (place % s == 0) & (place >= 0) & (place < s * count)
        values = values * upon.reshape([-1 if k == axis else 1 for k in range(values.ndim)])
    return values


def neuron_sums(op: Linear, values: jax.Array) -> jax.Array:
    """Sums over positions of values from `on_grid`: W's axes, 1 along `fan_in`."""
    kept = neuron_axes(core_of(op))
    sums = values.sum([i for i in range(values.ndim) if i not in kept])
    return jnp.expand_dims(sums, fan_in(op))


def patch_sums(
    op: Linear, x: jax.Array, values: list[jax.Array], grid: Grid | None
) -> list[jax.Array]:
    """sum over positions of patch times value, in W's layout, for each of the values.

    x: the layer's input; values: arrays from `on_grid`.
    """
    core = core_of(op)
    x = core.before(x)
    if _is_plain_convolution(core):
        return list(_convolution_sums(core, x, jnp.stack(values), grid))
    e, side = core.eqn, core.side
    onto = lambda w: evaluate(e, (x, w) if side == 1 else (w, x))[0]
    transposed = jax.linear_transpose(onto, jax.ShapeDtypeStruct(core.w_shape, x.dtype))
    return [transposed(v)[0] for v in values]


def _at_core(op: Linear, values: jax.Array) -> jax.Array:
    """Values of the layer's output in the arrangement of the convolution's or product's own."""
    core = core_of(op)
    return jax.linear_transpose(core.after, core.z_like)(values.astype(core.z_like.dtype))[0]


def _is_plain_convolution(core: Core) -> bool:
    p = core.eqn.params
    return (
        core.eqn.name == "conv_general_dilated"
        and p["feature_group_count"] == p["batch_group_count"] == 1
        and set(p["lhs_dilation"]) == {1}
        and min(min(pair) for pair in p["padding"]) >= 0
        and core.side == 1
    )


def _convolution_sums(core: Core, x: jax.Array, values: jax.Array, grid: Grid | None) -> jax.Array:
    """One product of patches and values, a few images at a time.

    XLA's own gradient by the kernel takes several times as long on processors.
    """
    p = core.eqn.params
    dims = p["dimension_numbers"]
    x = x.transpose(dims.lhs_spec[0], *dims.lhs_spec[2:], dims.lhs_spec[1])
    values = values.transpose(
        1 + dims.out_spec[0], *(1 + i for i in dims.out_spec[2:]), 0, 1 + dims.out_spec[1]
    )
    values = values.reshape(*values.shape[:-2], -1)  # (N, *positions, K * features)
    x = jnp.pad(x, [(0, 0), *(tuple(pair) for pair in p["padding"]), (0, 0)])
    kernel = [core.w_shape[i] for i in dims.rhs_spec[2:]]
    steps, counts = list(p["window_strides"]), list(values.shape[1:-1])
    if grid is not None:
        for i, (s, count, offset) in enumerate(
            zip(grid.strides, grid.counts, grid.offsets, strict=True)
        ):
            reach = (count - 1) * s * steps[i] + (kernel[i] - 1) * p["rhs_dilation"][i] + 1
            x = lax.dynamic_slice_in_dim(x, offset * steps[i], reach, i + 1)
            values = lax.dynamic_slice_in_dim(values, offset, (count - 1) * s + 1, i + 1)
            values = lax.slice_in_dim(values, 0, None, s, i + 1)
            steps[i], counts[i] = steps[i] * s, count
    taps = list(product(*map(range, kernel)))

    def patches(x):
        parts = []
        for tap in taps:
            start = [t * d for t, d in zip(tap, p["rhs_dilation"], strict=True)]
            stop = [s + (n - 1) * k + 1 for s, n, k in zip(start, counts, steps, strict=True)]
            window = [slice(*w) for w in zip(start, stop, steps, strict=True)]
            parts.append(x[(slice(None), *window)])
        return jnp.concatenate(parts, -1)

    def add(total, block):
        x, v = block
        seen = patches(x)
        rows = seen.reshape(-1, seen.shape[-1])
        return total + rows.T @ v.reshape(-1, v.shape[-1]), None

    images = math.gcd(len(x), max(1, ROWS // math.prod(counts)))
    blocks = [a.reshape(-1, images, *a.shape[1:]) for a in (x, values)]
    zeros = jnp.zeros((len(taps) * x.shape[-1], values.shape[-1]), x.dtype)
    sums, _ = lax.scan(add, zeros, blocks)
    # (taps, channels, K, features) to K arrays in the kernel's own layout.
    rank = len(kernel)
    sums = sums.reshape(*kernel, x.shape[-1], -1, core.w_shape[dims.rhs_spec[0]])
    order = [0] * (rank + 2)
    order[dims.rhs_spec[0]], order[dims.rhs_spec[1]] = rank + 2, rank
    for i, axis in enumerate(dims.rhs_spec[2:]):
        order[axis] = i
    return sums.transpose(rank + 1, *order)
