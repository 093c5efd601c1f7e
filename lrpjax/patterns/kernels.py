"""A linear layer's weights as a matrix for each tap of its kernel, in any library's layout.

Which axis is what is read off the dimension numbers of the convolution or product.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from ..layers.ops import Core, Linear


def core_of(op: Linear) -> Core:
    """The convolution or product in a layer. ValueError for a layer that has none."""
    if op.core is None:
        raise ValueError(f"The layer {op.layer.name!r} only scales its input: it has no neurons.")
    return op.core


def neuron_axes(core: Core) -> list[int]:
    """The axes of the output of `Core.eqn` that number its neurons, in `kernel`'s order."""
    dims = core.eqn.params["dimension_numbers"]
    if core.eqn.name == "conv_general_dilated":
        return [dims.out_spec[1]]
    contract, batch = (sides[core.side] for sides in dims)
    stacked, rank = len(batch), len(core.z_like.shape)
    own = len(core.w_shape) - len(contract) - stacked
    start = stacked if core.side == 0 else rank - own
    return [*range(stacked), *range(start, start + own)]


def is_stack(op: Linear) -> bool:
    """Whether it is several matrix products side by side."""
    eqn = core_of(op).eqn
    return eqn.name == "dot_general" and bool(eqn.params["dimension_numbers"][1][0])


def kernel(op: Linear, w: jax.Array) -> jax.Array:
    """Weights w, in the layer's own layout, as (*taps, inputs, outputs): z = sum over taps of x W.

    A product has no taps. A grouped convolution (or a stack of products) is block-diagonal.
    """
    core = core_of(op)
    p = core.eqn.params
    if core.eqn.name == "conv_general_dilated":
        outputs, inputs, *taps = p["dimension_numbers"].rhs_spec
        sizes, groups = [w.shape[i] for i in taps], p["feature_group_count"]
        blocks = w.transpose(*taps, inputs, outputs)
        blocks = blocks.reshape(*sizes, w.shape[inputs], groups, -1)
    else:
        contract, batch = (sides[core.side] for sides in p["dimension_numbers"])
        free = [i for i in range(w.ndim) if i not in (*contract, *batch)]
        groups = math.prod(w.shape[i] for i in batch)
        inputs_of_one = math.prod(w.shape[i] for i in contract)
        blocks = w.transpose(*contract, *batch, *free).reshape(inputs_of_one, groups, -1)
        sizes = []
    diagonal = jnp.eye(groups, dtype=w.dtype)[:, None, :, None]
    full = jnp.moveaxis(blocks, -2, -3)[..., None, :] * diagonal
    return full.reshape(*sizes, groups * blocks.shape[-3], groups * blocks.shape[-1])


def label_outputs(op: Linear) -> jax.Array:
    """The layer's output with the number of its column in `kernel`, from 1, in every place."""
    core = core_of(op)
    shape, axes = core.z_like.shape, neuron_axes(core)
    numbers = jnp.arange(1, 1 + math.prod(shape[i] for i in axes), dtype=core.z_like.dtype)
    numbers = numbers.reshape([shape[i] for i in axes])
    others = [i for i in range(len(shape)) if i not in axes]
    onto = jnp.broadcast_to(numbers, [*(shape[i] for i in others), *numbers.shape])
    order = [*others, *axes]
    return core.after(onto.transpose([order.index(i) for i in range(len(shape))]))


def input_labels(op: Linear, x: jax.Array) -> jax.Array:
    """The label of each row of `kernel`, given the layer's input with labels in place of values.

    They are read in the middle of all other axes, where no padding is.
    """
    core = core_of(op)
    x = core.before(x)
    axes = _input_axes(core)
    others = [i for i in range(x.ndim) if i not in axes]
    return x.transpose(*others, *axes)[tuple(x.shape[i] // 2 for i in others)].ravel()


def _input_axes(core: Core) -> list[int]:
    """The axes of the input of `Core.eqn` that a neuron reads, in the order of `kernel`'s rows."""
    dims = core.eqn.params["dimension_numbers"]
    if core.eqn.name == "conv_general_dilated":
        return [dims.lhs_spec[1]]
    contract, batch = (sides[1 - core.side] for sides in dims)
    return [*batch, *contract]
