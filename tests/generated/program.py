"""A network as a JAX function of parameters and a batch, in a style of writing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import spelling_activations, spelling_modern  # noqa: F401  they add their spellings
from .description import Net, Node
from .spelling import SPELLINGS, Speller

Array = Any
Touch = Callable[[Array], Array]


@dataclass(frozen=True)
class Style:
    """How a network is written.

    seed: of the spellings. nchw: images with their channels first. wrapped: how often a node stands
    in a jit, a checkpoint, a vmap or a named scope of its own. touches: by node, what is done to
    its value besides, the identity. scanned: loops as scans. outer: around the whole, as it is
    called: "partial", "closure", "jit", "checkpoint", "vmap". straight: an activation g as
    h + stop_gradient(g(h) - h), the spelling of a straight-through estimator. rows: dense layers
    see the tokens of all examples as rows of one matrix. parts: the input is a pytree, of its
    first feature and of the others.
    """

    seed: int
    nchw: bool = False
    wrapped: float = 0.15
    touches: Mapping[int, Touch] = field(default_factory=dict)
    scanned: bool = False
    outer: str = "partial"
    straight: bool = False
    rows: bool = False
    parts: bool = False


def _jitted(f: Callable) -> Callable:
    return jax.jit(f)


def _vmapped(f: Callable) -> Callable:
    def batched(p, *values):
        return jax.vmap(lambda *one: f(p, *(v[None] for v in one))[0])(*values)

    return batched


def _scoped(f: Callable) -> Callable:
    return jax.named_scope("part")(f)


WRAPPERS = (_jitted, jax.checkpoint, _vmapped, _scoped)


def apply_node(net: Net, i: int, style: Style, p: dict, values: list[Array]) -> Array:
    node, rng = net.nodes[i], np.random.default_rng([style.seed, i])
    wrap = rng.random() < style.wrapped
    wrapper = WRAPPERS[int(rng.integers(len(WRAPPERS)))]

    def f(p, *values):
        # Drawn anew at each trace, so that a second trace spells the same.
        rng = np.random.default_rng([style.seed, i, 1])
        s = Speller(node, rng, style.nchw, style.rows, style.straight)
        return SPELLINGS[node.kind](s, p, *values)

    return (wrapper(f) if wrap else f)(p, *values)


def function(net: Net, style: Style) -> Callable[[dict, Array], Array]:
    """(params, x) -> output."""
    starts = {start: (size, rounds) for start, size, rounds in net.loops} if style.scanned else {}

    def f(params, x):
        values: dict[int, Array] = {0: _touched(style, 0, _joined(net, style, x))}
        i = 1
        while i < len(net.nodes):
            node = net.nodes[i]
            if i in starts:
                size, rounds = starts[i]
                last = i + size * rounds - 1
                values[last] = _scan(net, style, params, i, size, rounds, values[node.reads[0]])
                i = last + 1
                continue
            if not node.inside:
                reads = node.reads if node.spelled_from is None else node.spelled_from
                own = params.get(node.param, {})
                y = apply_node(net, i, style, own, [values[k] for k in reads])
                values[i] = _touched(style, i, y)
            i += 1
        return values[len(net.nodes) - 1]

    return _whole(f, style.outer)


def _touched(style: Style, i: int, y: Array) -> Array:
    return style.touches[i](y) if i in style.touches else y


def _scan(net: Net, style: Style, params: dict, start: int, size: int, rounds: int, x: Array):
    """Rounds of equal nodes as one body over stacked parameters."""
    bodies = [net.nodes[start + k * size : start + (k + 1) * size] for k in range(rounds)]
    own = [[params.get(node.param, {}) for node in body] for body in bodies]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *own)

    def body(value, ps):
        for k, p in enumerate(ps):
            value = apply_node(net, start + k, style, p, [value])
        return value, None

    return jax.lax.scan(body, x, stacked)[0]


def _whole(f: Callable, outer: str) -> Callable:
    if outer == "jit":
        return jax.jit(f)
    if outer == "checkpoint":
        return jax.checkpoint(f)
    if outer == "vmap":
        alone = lambda one: jax.tree.map(lambda v: v[None], one)
        return lambda params, x: jax.vmap(lambda one: f(params, alone(one))[0])(x)
    return f


def model(net: Net, style: Style, params: Any) -> Callable[[Array], Array]:
    f = function(net, style)
    if style.outer == "closure":
        return lambda x: f(params, x)
    return jax.tree_util.Partial(f, params)


def laid(net: Net, style: Style, x: Array) -> Any:
    """A batch of inputs as the style's function takes it: an array, or a pytree of parts."""
    x = x.transpose(0, 3, 1, 2) if _moves(net, style) else x
    if not style.parts:
        return x
    first, rest = np.split(x, [1], 1 if _moves(net, style) else -1)
    return {"first": first, "rest": (rest,)}


def unlaid(net: Net, style: Style, x: Any) -> Array:
    x = _joined(net, style, x)
    return x.transpose(0, 2, 3, 1) if _moves(net, style) else x


def _joined(net: Net, style: Style, x: Any) -> Array:
    if not style.parts:
        return x
    return jnp.concatenate([x["first"], *x["rest"]], 1 if _moves(net, style) else -1)


def _moves(net: Net, style: Style) -> bool:
    first: Node = net.nodes[0]
    return style.nchw and len(first.shape) == 3
