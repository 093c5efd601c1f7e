"""Products with a function of the weights, without a second copy of a large weight matrix."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .program import Eqn, evaluate

Entry = Callable[[jax.Array], jax.Array]  # a function of each entry by itself
BLOCK = 2**21  # entries: 8 MB of float32 stay in a processor's cache


def in_one_block(core: Eqn, side: int, w: Any) -> bool:
    """Whether a product with weights like w (their shape counts) is computed at once."""
    return _blocks(core, side, w) == 1


def of_each_entry(core: Eqn, side: int, x: jax.Array, w: jax.Array, entry: Entry) -> jax.Array:
    """The product of x and entry(w), w being operand number `side` of the equation.

    A matrix of more than a few million entries is read block by block along the axis that is
    summed over: writing entry(w) to memory costs more than all products with a few vectors.
    """
    blocks = _blocks(core, side, w)
    if blocks == 1:
        return evaluate(core, (x, entry(w)) if side == 1 else (entry(w), x))[0]
    contract, _ = core.params["dimension_numbers"]
    x_axis, w_axis = contract[1 - side][0], contract[side][0]
    rows = w.shape[w_axis] // blocks

    def add(total, block):
        x_part = lax.dynamic_slice_in_dim(x, block * rows, rows, x_axis)
        w_part = entry(lax.dynamic_slice_in_dim(w, block * rows, rows, w_axis))
        return total + evaluate(core, (x_part, w_part) if side == 1 else (w_part, x_part))[0], None

    # Without it, the transpose would write entry(w) for all blocks and read it again.
    add = jax.checkpoint(add, prevent_cse=False)
    like = jax.eval_shape(lambda: evaluate(core, (x, w) if side == 1 else (w, x))[0])
    return lax.scan(add, jnp.zeros(like.shape, like.dtype), jnp.arange(blocks))[0]


def _blocks(core: Eqn, side: int, w: Any) -> int:
    """How many equal blocks of about BLOCK entries a matrix's summed axis divides into; else 1."""
    if core.name != "dot_general":
        return 1
    contract, batch = core.params["dimension_numbers"]
    size = prod(w.shape)
    if len(contract[side]) != 1 or batch[side] or size <= 2 * BLOCK:
        return 1
    length = w.shape[contract[side][0]]
    wanted = -(-size // BLOCK)
    return next((n for n in range(wanted, 4 * wanted) if length % n == 0), 1)
