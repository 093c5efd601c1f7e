"""Products with a function of the weights, without a second copy of a large weight matrix."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..program.program import Eqn, evaluate

Entry = Callable[[jax.Array], Any]  # a function of each entry by itself, or a tuple of such
LARGE = 2**22  # entries of a matrix that is read in blocks
# A block stays in the cache of a processor's core, and is large enough to be a product of its own.
BLOCK, ROWS = 2**17, 128  # least entries, and least entries along the axis that is summed over


def at(core: Eqn, side: int, x: jax.Array, w: jax.Array) -> jax.Array:
    """What the equation gives for x, w being its operand number `side`."""
    return evaluate(core, (x, w) if side == 1 else (w, x))[0]


def of_each_entry(core: Eqn, side: int, x: jax.Array, w: jax.Array, entry: Entry) -> Any:
    """The product of x and entry(w), w being operand number `side` of the equation.

    Where entry gives a tuple, the product with each of it; w is read once for all.
    A matrix of more than a few million entries is read block by block along the axis that is
    summed over: writing entry(w) to memory costs more than all products with a few vectors.
    """

    def products(x, w):
        return jax.tree.map(partial(at, core, side, x), entry(w))

    blocks = _blocks(core, side, w)
    if blocks == 1:
        return products(x, w)
    contract, _ = core.params["dimension_numbers"]
    x_axis, w_axis = contract[1 - side][0], contract[side][0]
    rows = w.shape[w_axis] // blocks

    def add(total, block):
        part = lambda of, axis: lax.dynamic_slice_in_dim(of, block * rows, rows, axis)
        return jax.tree.map(jnp.add, total, products(part(x, x_axis), part(w, w_axis))), None

    # Without it, the transpose would write entry(w) for all blocks and read it again.
    add = jax.checkpoint(add, prevent_cse=False)
    none = jax.tree.map(jnp.zeros_like, jax.eval_shape(products, x, w))
    return lax.scan(add, none, jnp.arange(blocks))[0]


def _blocks(core: Eqn, side: int, w: Any) -> int:
    """How many equal blocks a large matrix's summed axis divides into; else 1."""
    if core.name != "dot_general":
        return 1
    contract, batch = core.params["dimension_numbers"]
    size = prod(w.shape)
    if len(contract[side]) != 1 or batch[side] or size <= LARGE:
        return 1
    length = w.shape[contract[side][0]]
    most = min(length // ROWS, size // BLOCK)
    return next((n for n in range(most, most // 4, -1) if length % n == 0), 1)
