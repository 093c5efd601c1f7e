"""Convolutions in a form whose transpose is cheap.

A kernel of one tap is a matrix product over the channels, which a processor does in half of the
time of a convolution, with a stride in a third: the transpose need not pass over the places that
the stride leaves out.

A network's first convolution often has a stride s, and its transpose has three channels to write:
too few for a processor to be busy. The same convolution, of a map whose s x s phases stand side by
side as channels, has stride 1, and so has its transpose: for ResNet's first layer it takes a
quarter of the time. With more channels there is nothing to gain.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..program.program import Eqn, Program

FEW = 8  # channels of the input


def cheap_form(program: Program, eqn: Eqn) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """The convolution of x and w that an equation computes, in another form; None to keep it."""
    if eqn.name != "conv_general_dilated":
        return None
    p = eqn.params
    dims = p["dimension_numbers"]
    if {*p["lhs_dilation"], p["feature_group_count"]} != {1}:
        return None
    kernel = program.shape(eqn.inputs[1])
    if {kernel[i] for i in dims.rhs_spec[2:]} == {1} and set(p["padding"]) == {(0, 0)}:
        return partial(as_product, eqn)
    few = program.shape(eqn.inputs[0])[dims.lhs_spec[1]] <= FEW
    if few and set(p["rhs_dilation"]) == {1} and max(p["window_strides"]) > 1:
        return partial(without_stride, eqn)
    return None


def as_product(eqn: Eqn, x: jax.Array, w: jax.Array) -> jax.Array:
    """The convolution of x and w, whose kernel has one tap, as a product over the channels."""
    dims = eqn.params["dimension_numbers"]
    strides = dict(zip(dims.lhs_spec[2:], eqn.params["window_strides"], strict=True))
    x = x[tuple(slice(None, None, strides.get(axis, 1)) for axis in range(x.ndim))]
    matrix = jnp.transpose(w, (*dims.rhs_spec[1::-1], *dims.rhs_spec[2:])).reshape(
        *(w.shape[i] for i in dims.rhs_spec[1::-1])
    )
    contract = (((dims.lhs_spec[1],), (0,)), ((), ()))
    z = lax.dot_general(x, matrix, contract, precision=lax.Precision.HIGHEST)
    kept = [axis for axis in range(x.ndim) if axis != dims.lhs_spec[1]]
    made = dict(zip(dims.out_spec[2:], map(kept.index, dims.lhs_spec[2:]), strict=True))
    made |= {dims.out_spec[0]: kept.index(dims.lhs_spec[0]), dims.out_spec[1]: x.ndim - 1}
    return jnp.transpose(z, [made[axis] for axis in range(x.ndim)])


def without_stride(eqn: Eqn, x: jax.Array, w: jax.Array) -> jax.Array:
    """The convolution of x and w that a strided equation computes, with stride 1."""
    p = eqn.params
    dims = p["dimension_numbers"]
    last = lambda spec: (spec[0], *spec[2:], spec[1])  # batch (or outputs), space, features
    x, w = jnp.transpose(x, last(dims.lhs_spec)), jnp.transpose(w, last(dims.rhs_spec))
    windows = zip(p["window_strides"], p["padding"], strict=True)
    for axis, (stride, (low, high)) in enumerate(windows, 1):
        n = x.shape[axis]
        outputs = (n + low + high - w.shape[axis]) // stride + 1
        w = _padded(w, axis, 0, -w.shape[axis] % stride)
        x = _padded(x, axis, low, (outputs - 1) * stride + w.shape[axis] - low - n)
        x, w = _phases(x, axis, stride), _phases(w, axis, stride)
    space = "HWDTUV"[: x.ndim - 2]
    dense = lax.conv_general_dilated(
        x,
        jnp.moveaxis(w, 0, -1),
        (1,) * len(space),
        "VALID",
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        precision=lax.Precision.HIGHEST,
    )
    return jnp.transpose(dense, np.argsort(last(dims.out_spec)).tolist())


def _padded(x: jax.Array, axis: int, low: int, high: int) -> jax.Array:
    """With zeros at both ends of an axis; entries are cut off where a number is negative."""
    pads = [(low, high, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)]
    return lax.pad(x, x.dtype.type(0), pads)


def _phases(x: jax.Array, axis: int, stride: int) -> jax.Array:
    """Entries k, k + stride, k + 2 stride, ... of an axis as features of their own, for each k."""
    shape = list(x.shape)
    shape[axis : axis + 1] = [shape[axis] // stride, stride]
    x = jnp.moveaxis(x.reshape(shape), axis + 1, -2)
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])  # also where N = 0
