"""How each method shares relevance, from the equations, for one example and flat vectors.

c (out, in): what input j contributes to output i, c_ij = W_ij x_j; b (out): the offset; R (out).
A denominator d becomes d + s max|d| sign d with a small s that the oracle varies: what moves
with s is not determined by the equations, and such a draw is rejected. An empty sum shares out 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

Array = np.ndarray
# The defaults that the table of methods states, and that of the paper's composites.
EPSILON, GAMMA, CMP_EPSILON = 1e-6, 0.25, 1e-10


class Undetermined(Exception):
    """A denominator is zero and its numerators are not."""


@dataclass(frozen=True)
class Layer:
    """A linear layer of one example: W (out, in), b (out), which inputs reach which output."""

    W: Array
    b: Array
    connected: Array


def parts(c: Array) -> tuple[Array, Array]:
    return np.maximum(c, 0), np.minimum(c, 0)


def quotient(numerator: Array, d: Array, s: float) -> Array:
    """numerator_ij / d_i, and 0 where both are 0."""
    size = np.abs(d).max(initial=0)
    d = d + s * size * np.where(d < 0, -1, 1)
    empty = d == 0
    if (np.abs(numerator[empty]) > 0).any():
        raise Undetermined
    return numerator / np.where(empty, 1, d)[:, None]


def z(layer: Layer, x: Array, R: Array, s: float) -> Array:
    c = layer.W * x
    return quotient(c, c.sum(1) + layer.b, s).T @ R


def epsilon(layer: Layer, x: Array, R: Array, s: float, *, to: float = EPSILON) -> Array:
    c = layer.W * x
    total = c.sum(1) + layer.b
    return (c / (total + to * np.where(total < 0, -1, 1))[:, None]).T @ R


def gamma(layer: Layer, x: Array, R: Array, s: float, *, by: float = GAMMA) -> Array:
    c, b = layer.W * x, layer.b
    up = c.sum(1) + b >= 0
    same = np.where(up[:, None], *parts(c))
    same_b = np.where(up, *parts(b))
    own, more = 1 / (1 + by), by / (1 + by)  # of both sums, since 1 + gamma may be any number
    total = own * (c.sum(1) + b) + more * (same.sum(1) + same_b)
    return quotient(own * c + more * same, total, s).T @ R


def alpha_beta(
    layer: Layer, x: Array, R: Array, s: float, *, alpha: float, beta: float, bias: str = "none"
) -> Array:
    (up, down), b = parts(layer.W * x), layer.b
    to_up, to_down = {"none": (0, 0), "split": parts(b), "signed": (b, b)}[bias]
    found = alpha * quotient(up, up.sum(1) + to_up, s).T @ R
    if beta:
        found = found - beta * quotient(down, down.sum(1) + to_down, s).T @ R
    return found


def flat(layer: Layer, x: Array, R: Array, s: float) -> Array:
    ones = layer.connected.astype(float)
    return quotient(ones, ones.sum(1), 0).T @ R


def wsquare(layer: Layer, x: Array, R: Array, s: float) -> Array:
    return quotient(layer.W**2, (layer.W**2).sum(1), 0).T @ R


def add_signed(terms: list[Array], R: Array, s: float) -> list[Array]:
    return [quotient(t[:, None], sum(terms), s)[:, 0] * R for t in terms]


def add_alpha_beta(terms: list[Array], R: Array, s: float, *, alpha: float, beta: float):
    ups, downs = zip(*map(parts, terms), strict=True)
    found = [alpha * quotient(t[:, None], sum(ups), s)[:, 0] * R for t in ups]
    if beta:
        less = [beta * quotient(t[:, None], sum(downs), s)[:, 0] * R for t in downs]
        found = [f - n for f, n in zip(found, less, strict=True)]
    return found


@dataclass(frozen=True)
class Method:
    """linear: of products with weights and of affine maps. add, sums: of two values, of one.
    dense: of matrix products, first: of the first layers with parameters, where they have another.

    None for the gradient and DeepLIFT, which have no shares. family: "lrp", "gradient", "deeplift",
    or "cuts", of what has a rule of its own at ReLUs and is the gradient elsewhere.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    linear: Callable[..., Array] | None = None
    add: Callable[..., list[Array]] = add_signed
    sums: Callable[..., Array] = z
    dense: Callable[..., Array] | None = None
    first: Callable[..., Array] | None = None
    family: str = "lrp"

    def __str__(self) -> str:
        more = ", ".join(f"{k}={v}" for k, v in self.options.items())
        return f"{self.name}({more})" if more else self.name


def alpha_beta_method(alpha: float, beta: float, bias: str = "none") -> Method:
    share = partial(alpha_beta, alpha=alpha, beta=beta)
    add = partial(add_alpha_beta, alpha=alpha, beta=beta)
    return Method(
        f"lrp-alpha{alpha:g}-beta{beta:g}",
        {} if bias == "none" else {"bias": bias},
        partial(share, bias=bias),
        add,
        z if beta else share,
    )


_PLUS: dict[str, Any] = {
    "linear": partial(alpha_beta, alpha=1, beta=0),
    "add": partial(add_alpha_beta, alpha=1, beta=0),
    "sums": partial(alpha_beta, alpha=1, beta=0),
}

METHODS: tuple[Method, ...] = (
    Method("gradient", family="gradient"),
    Method("lrp-z", linear=z),
    Method("lrp-epsilon", linear=epsilon),
    Method("lrp-gamma", linear=gamma),
    Method("lrp-zplus", **_PLUS),
    *(
        alpha_beta_method(a, b, bias)
        for a, b in ((1, 0), (2, 1))
        for bias in ("none", "signed", "split")
    ),
    Method("lrp-flat", linear=flat),
    Method("lrp-wsquare", linear=wsquare),
    Method("deeplift-rescale", family="deeplift"),
    Method("input-x-gradient", family="gradient"),
    *(Method(name, family="cuts") for name in ("guided-bp", "deconv")),
    # Of a few units the paper's 98th percentile leaves none.
    Method("rect-grad", {"percentile": 50}, family="cuts"),
)

# Of these a layer's rule hangs on what it is and where it stands.
COMPOSITES: tuple[Method, ...] = (
    Method("epsilon-plus-flat", **_PLUS, dense=epsilon, first=flat),
    Method("deep-taylor", {"first": "wsquare"}, **_PLUS, first=wsquare),
    Method(
        "lrp-cmp-alpha2-beta1",
        linear=partial(alpha_beta, alpha=2, beta=1),
        add=partial(add_alpha_beta, alpha=2, beta=1),
        dense=partial(epsilon, to=CMP_EPSILON),
    ),
)
