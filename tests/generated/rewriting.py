"""Rewritings that change no function, and so may change no map.

A rewriting takes (network, style, draws) and gives another pair with a way back: what must be done
to its map to compare. Most put an identity behind some values ("touches").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from .backward import groups
from .description import Net
from .program import Style

Array = Any


def times_one(y: Array) -> Array:
    return y * 1.0


def plus_zero(y: Array) -> Array:
    return y + 0.0


def over_one(y: Array) -> Array:
    return y / 1.0


def minus_minus(y: Array) -> Array:
    return jnp.negative(-y)


def reshaped(y: Array) -> Array:
    return y.reshape(len(y), -1).reshape(y.shape)


def merged(y: Array) -> Array:
    """The batch joined with the axis behind it, as (N T, C), and taken apart."""
    return y.reshape(-1, *y.shape[2:]).reshape(y.shape) if y.ndim > 2 else reshaped(y)


def transposed(y: Array) -> Array:
    order = (*range(1, y.ndim), 0)
    return y.transpose(order).transpose(np.argsort(order))


def swapped(y: Array) -> Array:
    return y.swapaxes(1, -1).swapaxes(1, -1)


def squeezed(y: Array) -> Array:
    return jnp.expand_dims(y, 1).squeeze(1)


def expanded_last(y: Array) -> Array:
    return y[..., None][..., 0]


def split(y: Array) -> Array:
    if y.shape[-1] < 2:
        return jnp.concatenate([y], -1)
    return jnp.concatenate(jnp.split(y, [1], -1), -1)


def split_batch(y: Array) -> Array:
    return jnp.concatenate([y[:1], y[1:]], 0)


def stacked(y: Array) -> Array:
    return jnp.stack([y[..., k] for k in range(y.shape[-1])], -1)


def reversed_twice(y: Array) -> Array:
    return jnp.flip(y, -1)[..., ::-1]


def rolled(y: Array) -> Array:
    return jnp.roll(jnp.roll(y, 1, -1), -1, -1)


def padded(y: Array) -> Array:
    return jnp.pad(y, [(0, 0)] * (y.ndim - 1) + [(1, 2)])[..., 1:-2]


def permuted(y: Array) -> Array:
    """Units in another order, and back, as a gather does it."""
    order = np.random.default_rng(0).permutation(y.shape[-1])
    return jnp.take(jnp.take(y, order, -1), np.argsort(order), -1)


def barrier(y: Array) -> Array:
    return lax.optimization_barrier(y)


def where_true(y: Array) -> Array:
    return jnp.where(True, y, 0.0)


def where_all(y: Array) -> Array:
    return jnp.where(jnp.ones(y.shape[1:], bool), y, -1.0)


def named(y: Array) -> Array:
    return checkpoint_name(y, "here")


def cast(y: Array) -> Array:
    """A cast to its own type that stays in the program, as libraries leave them."""
    return lax.convert_element_type_p.bind(y, new_dtype=y.dtype, weak_type=False, sharding=None)


def clipped(y: Array) -> Array:
    """Wider than any value here: an activation that is the identity."""
    return jnp.clip(y, -1e6, 1e6)


def in_jit(y: Array) -> Array:
    return jax.jit(lambda v: v * 1.0)(y)


def in_checkpoint(y: Array) -> Array:
    return jax.checkpoint(lambda v: v + 0.0)(y)


def dropout_off(y: Array) -> Array:
    """What inference-mode dropout leaves: a mask of ones over a rate of keeping of 1."""
    return lax.select(jnp.ones(y.shape, bool), y / 1.0, jnp.zeros_like(y))


def cond_true(y: Array) -> Array:
    return lax.cond(True, lambda v: v, lambda v: 2 * v, y)


def stopped(y: Array) -> Array:
    """Moves values: the gradient family stops there, the others do not."""
    return lax.stop_gradient(y)


TOUCHES: tuple[Callable[[Array], Array], ...] = (
    *(times_one, plus_zero, over_one, minus_minus, reshaped, merged, transposed, swapped, squeezed),
    *(expanded_last, split, split_batch, stacked, reversed_twice, rolled, padded, permuted),
    *(barrier, where_true, where_all, named, cast, clipped, in_jit, in_checkpoint, dropout_off),
    cond_true,
)

# Between a product and its BatchNorm these are where one layer ends and another begins, so that the
# two share relevance one after the other. Of slices, padded, stacked or gathered, no one is all of
# the value: what is computed from each is its own; that they meet again only their numbers say.
PIECES = (
    *(split, split_batch, stacked, rolled, padded, permuted),
    clipped,  # an activation: that no value is beyond its bounds is known of the data alone
    stopped,  # one layer has one derivative, and here it is one above the stop and none below
)

Pair = tuple[Net, Style]


@dataclass(frozen=True)
class Rewriting:
    """applies: whether there is anything to rewrite. make: the other spelling of the pair.
    derivative: whether it keeps the derivative too, which is what the gradient family asks for.
    cuts: whether it keeps what cuts.

    factor: the input is multiplied by it. alone: the first example is asked alone. dtype: of the
    input. The maps must then be equal to `tolerance`, relative to the largest entry. denominators:
    whether LRP may divide by others, so that the stabiliser's part in the map is another.
    """

    name: str
    make: Callable[[Net, Style, np.random.Generator], Pair]
    applies: Callable[[Net], bool] = lambda net: True
    derivative: bool = True
    cuts: bool = True
    factor: float = 1.0
    alone: bool = False
    dtype: str = "float64"
    tolerance: float = 1e-9
    denominators: bool = False

    def __str__(self) -> str:
        return self.name


def touch(f: Callable, net: Net, style: Style, rng: np.random.Generator) -> Pair:
    """f behind the value of half of the nodes, never of none.

    Where a layer ends (see `PIECES`) is not put inside of one, and a number without axes is left.
    """
    within = {i for group in groups(net) for i in group.nodes[:-1]} if f in PIECES else set()
    touched = lambda i, node: node.shape and not node.inside and i not in within
    places = [i for i, node in enumerate(net.nodes) if touched(i, node)]
    chosen = [i for i in places if rng.random() < 0.5] or [places[-1]]
    return net, replace(style, touches=dict.fromkeys(chosen, f))


def styled(net: Net, style: Style, rng: np.random.Generator, **changes: Any) -> Pair:
    return net, replace(style, **changes)


def respelled(net: Net, style: Style, rng: np.random.Generator) -> Pair:
    return net, replace(style, seed=int(rng.integers(10**6)))


def copies(net: Net, style: Style, rng: np.random.Generator) -> Pair:
    """Every use of a parameter gets a copy of its own, under a new name."""
    params, nodes, seen = dict(net.params), [], set()
    for i, node in enumerate(net.nodes):
        if node.param and node.param in seen:
            params[f"copy_{i}"] = {k: v.copy() for k, v in params[node.param].items()}
            node = replace(node, param=f"copy_{i}")
        seen.add(node.param)
        nodes.append(node)
    return replace(net, nodes=tuple(nodes), params=params), style


def _shares(net: Net) -> bool:
    own = [node.param for node in net.nodes if node.param]
    return len(set(own)) < len(own)


def renamed(net: Net, style: Style, rng: np.random.Generator) -> Pair:
    """Other names, in another order; some are again prefixes of others."""
    pool = ["w", "w_2", "w_3", "w_2_2", "a", "dense", "dense_2", "relu", "input", "add_1", "norm_1"]
    names = list(rng.permutation(pool)) + [f"w_{k}" for k in range(10, 60)]
    new = dict(zip(net.params, map(str, names), strict=False))
    nodes = tuple(replace(node, param=new.get(node.param, "")) for node in net.nodes)
    return replace(net, nodes=nodes, params={new[k]: v for k, v in net.params.items()}), style


def permuted_units(net: Net, style: Style, rng: np.random.Generator) -> Pair:
    """Hidden units of a dense layer in another order: its columns, and the rows of the next."""
    params, nodes = {k: dict(v) for k, v in net.params.items()}, net.nodes
    for a, b in _stacked_dense(net):
        order = rng.permutation(nodes[a].shape[-1])
        own, after = params[nodes[a].param], params[nodes[b].param]
        own["kernel"] = own["kernel"][:, order]
        if "bias" in own:
            own["bias"] = own["bias"][order]
        after["kernel"] = after["kernel"][order]
    return net.with_params(params), style


def _stacked_dense(net: Net) -> list[tuple[int, int]]:
    """Pairs (dense, dense) with only activations between, used once each, that do not overlap."""
    uses = [node.param for node in net.nodes]
    once = lambda i: net.nodes[i].kind == "dense" and uses.count(net.nodes[i].param) == 1
    found = []
    for a in range(len(net.nodes)):
        b = a
        while once(a) and net.readers(b) == [b + 1] and net.nodes[b + 1].kind == "act":
            b += 1
        follows = b > a and net.readers(b) == [b + 1] and once(b + 1)
        if follows and len(net.nodes[b + 1].reads) == 1 and not any(p[1] == a for p in found):
            found.append((a, b + 1))
    return found


def same(net: Net, style: Style, rng: np.random.Generator) -> Pair:
    return net, style


def widened(net: Net, style: Style, rng: np.random.Generator) -> Pair:
    """An input of half the width, cast by the model."""
    return net, replace(style, touches={0: lambda x: x.astype(jnp.float64)})


def _multiplies_nothing(net: Net) -> bool:
    return not any(node.kind == "mul" for node in net.nodes)


def _activated(net: Net) -> bool:
    return any(node.kind == "act" for node in net.nodes)


def _images(net: Net) -> bool:
    return len(net.nodes[0].shape) == 3 or any(len(n.shape) == 3 for n in net.nodes)


REWRITINGS: tuple[Rewriting, ...] = (
    *(Rewriting(f.__name__, partial(touch, f)) for f in TOUCHES if f is not clipped),
    # A clip cuts, for Guided BP and its kin, and is an activation, for what weighs in a product.
    Rewriting("clipped", partial(touch, clipped), _multiplies_nothing, cuts=False),
    Rewriting("stopped", partial(touch, stopped), derivative=False),
    Rewriting("straight through", partial(styled, straight=True), _activated, derivative=False),
    # Where a LayerNorm is spelled as a sum of two, it shares out by two denominators more.
    Rewriting("another spelling", respelled, denominators=True),
    *(Rewriting(w, partial(styled, outer=w)) for w in ("jit", "checkpoint", "vmap", "closure")),
    Rewriting("everything wrapped", partial(styled, wrapped=1.0)),
    Rewriting("nothing wrapped", partial(styled, wrapped=0.0)),
    Rewriting("scan", partial(styled, scanned=True), lambda net: bool(net.loops)),
    Rewriting("NCHW", partial(styled, nchw=True), _images),
    Rewriting("input in parts", partial(styled, parts=True)),
    Rewriting("copies", copies, _shares),
    Rewriting("renamed", renamed),
    Rewriting("permuted units", permuted_units, lambda net: bool(_stacked_dense(net))),
    Rewriting("alone", same, alone=True),
    # Half of the digits of float32 in what is returned; what is computed is the same.
    Rewriting("widened", widened, dtype="float32", tolerance=1e-6),
    *(
        Rewriting(f"input times {f:g}", same, lambda net: not net.biased, factor=f)
        for f in (1e-30, 1e-6, 1e30)
    ),
)
