"""What each kind of node computes, in numpy, for a batch of values that may be complex.

Complex because the oracle differentiates by complex steps: f(x + ih) / h is f'(x) to the last bit.
So there is no abs, no max and no comparison of complex numbers here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import special

from .description import Node

Array = np.ndarray


def _where_up(x: Array, up: Array, down: Array, at: float = 0) -> Array:
    return np.where(x.real > at, up, down)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _clip(x: Array, low: float, high: float) -> Array:
    return _where_up(x, _where_up(x, high + 0 * x.real, x, high), low + 0 * x.real, low)


_SELU = 1.0507009873554805, 1.6732632423543772
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: _where_up(x, x, 0),
    "relu6": lambda x: _clip(x, 0, 6),
    "clip": lambda x: _clip(x, 0, 20),
    "clip_wide": lambda x: _clip(x, -50, 50),
    "minimum": lambda x: _where_up(x, 20 + 0 * x.real, x, 20),
    "leaky_relu": lambda x: _where_up(x, x, 0.1 * x),
    "elu": lambda x: _where_up(x, x, np.exp(_where_up(-x, x, 0)) - 1),
    "selu": lambda x: _SELU[0] * _where_up(x, x, _SELU[1] * (np.exp(_where_up(-x, x, 0)) - 1)),
    "sigmoid": _sigmoid,
    "hard_sigmoid": lambda x: _clip(x + 3, 0, 6) / 6,
    "tanh": np.tanh,
    "hard_tanh": lambda x: _clip(x, -1, 1),
    "softplus": lambda x: np.log(1 + np.exp(x)),
    "log_sigmoid": lambda x: -np.log(1 + np.exp(-x)),
    "soft_sign": lambda x: x / (1 + _where_up(x, x, -x)),
    "silu": lambda x: x * _sigmoid(x),
    "hard_swish": lambda x: x * _clip(x + 3, 0, 6) / 6,
    "gelu": lambda x: x * (1 + special.erf(x / np.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "mish": lambda x: x * np.tanh(np.log(1 + np.exp(x))),
}


# What a function computes, and what its derivative makes of x and a cotangent.
OWN: dict[str, tuple[Callable[[Array], Array], Callable[[Array, Array], Array]]] = {
    "reversal": (lambda x: x, lambda x, r: -0.5 * r),
    "clipped": (lambda x: x, lambda x, r: np.clip(r, -0.1, 0.1)),
    "binarised": (
        lambda x: _where_up(x, 1 + 0 * x.real, -1 + 0 * x.real),
        lambda x, r: np.where(np.abs(x) < 1, r, 0),
    ),
    "rounded": (lambda x: np.round(x.real), lambda x, r: r),
    "other_slope": (np.tanh, lambda x, r: 0.3 * np.cos(x) * r),
}


def _sorted(x: Array) -> Array:
    return np.take_along_axis(x, x.real.argsort(-1, kind="stable"), -1)


# What no rule of LRP covers; the last sums exponentials along the last axis as it goes.
UNKNOWN: dict[str, Callable[..., Array]] = {
    "sine": np.sin,
    "exponential": np.exp,
    "threshold": lambda x: _where_up(x, 1 + 0 * x.real, 0 * x.real),
    "sorted": _sorted,
    "log_sum": lambda x: np.log(np.cumsum(np.exp(x), -1)),
    "over": lambda x, y: x / y,
}


def windows(node: Node, x: Array) -> Array:
    """The windows of a pool or a convolution, (N, H', W', places, C), padded with zeros."""
    (kh, kw), (sh, sw), pads = node["window"], node["strides"], node["padding"]
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = (x.shape[1] - kh) // sh + 1, (x.shape[2] - kw) // sw + 1
    places = [
        x[:, i : i + (rows - 1) * sh + 1 : sh, j : j + (columns - 1) * sw + 1 : sw]
        for i in range(kh)
        for j in range(kw)
    ]
    return np.stack(places, 3)


def dense(node: Node, p: dict, x: Array) -> Array:
    return x @ p["kernel"] + p.get("bias", 0)


def conv(node: Node, p: dict, x: Array) -> Array:
    """kernel (h, w, C / groups, D): output channel d sees the inputs of its group alone."""
    kernel, groups = p["kernel"], node["groups"]
    taps = kernel.reshape(-1, *kernel.shape[2:])
    seen = windows(node, x)
    parts = [
        np.einsum("nhwpc,pcd->nhwd", a, w)
        for a, w in zip(np.split(seen, groups, -1), np.split(taps, groups, -1), strict=True)
    ]
    return np.concatenate(parts, -1) + p.get("bias", 0)


def affine(node: Node, p: dict, x: Array) -> Array:
    """BatchNorm as it is used: (x - mean) / sqrt(var + eps) * scale + shift, by channel."""
    w = p["scale"] / np.sqrt(p["var"] + node["eps"])
    return (x - p["mean"]) * w + p["shift"]


def fixed(node: Node, p: dict, x: Array) -> Array:
    """A matrix that is no parameter, along one axis: colours mixed, tokens, pixels resized."""
    axis = node["axis"] + 1
    return np.moveaxis(np.moveaxis(x, axis, -1) @ node["matrix"], -1, axis)


def max_pool(node: Node, p: dict, x: Array) -> Array:
    seen = windows(node, x)
    winner = seen.real.argmax(3)[:, :, :, None]
    return np.take_along_axis(seen, winner, 3)[:, :, :, 0]


def max_over(node: Node, p: dict, x: Array) -> Array:
    flat = _last(node, x)
    return np.take_along_axis(flat, flat.real.argmax(-1)[..., None], -1)[..., 0]


def _last(node: Node, x: Array) -> Array:
    """The axes that are reduced as one last axis."""
    axes = tuple(a + 1 for a in node["axes"])
    moved = np.moveaxis(x, axes, range(x.ndim - len(axes), x.ndim))
    return moved.reshape(*moved.shape[: x.ndim - len(axes)], -1)


def mean(node: Node, p: dict, x: Array) -> Array:
    """Over axes, or over the channels of each group, whose mean then stands for each of them."""
    return _grouped(node, x).mean(-1)


def _grouped(node: Node, x: Array) -> Array:
    """(..., what is reduced), for axes or for (H, W, C / groups) of an image."""
    if "groups" in node.options:
        n, h, w, c = x.shape
        split = x.reshape(n, h * w, node["groups"], c // node["groups"])
        return np.moveaxis(split, 2, 1).reshape(n, node["groups"], -1)
    return _last(node, x)


def norm(node: Node, p: dict, x: Array) -> Array:
    """x / sqrt(mean x^2 + eps) over axes or groups; x / sqrt(sum x^2 + eps) for "l2"."""
    seen = _grouped(node, x)
    power = (seen**2).sum(-1) if node["form"] == "l2" else (seen**2).mean(-1)
    return x / spread_statistic(node, np.sqrt(power + node["eps"]), x.shape)


def spread_statistic(node: Node, s: Array, shape: tuple[int, ...]) -> Array:
    if "groups" in node.options:
        return np.repeat(s, shape[-1] // node["groups"], -1)[:, None, None]
    return np.expand_dims(s, tuple(a + 1 for a in node["axes"]))


def spread(node: Node, p: dict, x: Array) -> Array:
    """Repeats a value along new or unit axes: (N, C) for every token or pixel, say."""
    if "groups" in node.options:
        return np.broadcast_to(spread_statistic(node, x, (*node.shape,)), (len(x), *node.shape))
    wide = np.expand_dims(x, tuple(a + 1 for a in node["axes"]))
    return np.broadcast_to(wide, (len(x), *node.shape))


def where(node: Node, p: dict, x: Array) -> Array:
    return np.where(node["mask"], x, node["other"])


def take(node: Node, p: dict, x: Array) -> Array:
    """A slice of one axis: (axis, start, stop, step); or one place of it, without the axis."""
    axis, *place = node["slice"]
    index = [slice(None)] * x.ndim
    index[axis + 1] = slice(*place) if len(place) > 1 else place[0]
    return x[tuple(index)]


def attention_weights(node: Node, q: Array, k: Array, *gates: Array) -> Array:
    """(N, heads, T, S), masked before the softmax, then by head, then renormalised.

    gates: of the queries and of the keys, (N, T, heads) each, or none.
    """
    heads = node["heads"]
    split = lambda v: v.reshape(*v.shape[:2], heads, -1)
    scores = np.einsum("nthd,nshd->nhts", split(q), split(k)) * node["scale"]
    if node.get("mask") is not None:
        scores = np.where(node["mask"], scores, -1e9)
    e = np.exp(scores - scores.real.max(-1, keepdims=True))
    a = e / e.sum(-1, keepdims=True)
    if node.get("keep") is not None:
        a = a * node["keep"]
        a = a / a.sum(-1, keepdims=True)
    if node.get("head_mask") is not None:
        a = a * node["head_mask"][:, None, None]
    if gates:
        of_queries, of_keys = (np.moveaxis(g, -1, 1) for g in gates)
        a = a * (of_queries[..., None] * of_keys[:, :, None])
    return a


def attention(node: Node, p: dict, q: Array, k: Array, v: Array, *gates: Array) -> Array:
    a = attention_weights(node, q, k, *gates)
    out = np.einsum("nhts,nshd->nthd", a, v.reshape(*v.shape[:2], node["heads"], -1))
    return out.reshape(len(v), *node.shape)


FORWARD: dict[str, Callable[..., Array]] = {
    "dense": dense,
    "conv": conv,
    "affine": affine,
    "factor": lambda node, p, x: x * node["by"],
    "offset": lambda node, p, x: x + node["by"],
    "fixed": fixed,
    "spectral": fixed,
    "own": lambda node, p, x: OWN[node["name"]][0](x),
    "unknown": lambda node, p, *xs: UNKNOWN[node["name"]](*xs),
    "act": lambda node, p, x: ACTIVATIONS[node["name"]](x),
    "max_pool": max_pool,
    "max_over": max_over,
    "avg_pool": lambda node, p, x: windows(node, x).mean(3),
    "mean": mean,
    "sum": lambda node, p, x: _last(node, x).sum(-1),
    "add": lambda node, p, a, b: a + node["sign"] * b,
    "mul": lambda node, p, a, b: a * b,
    "norm": norm,
    "spread": spread,
    "where": where,
    "take": take,
    "concat": lambda node, p, *xs: np.concatenate(xs, node["axis"] + 1),
    "reshape": lambda node, p, x: x.reshape(len(x), *node.shape),
    "transpose": lambda node, p, x: x.transpose(0, *(a + 1 for a in node["order"])),
    "attention": attention,
}
