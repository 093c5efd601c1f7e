"""How one writes each kind of node in JAX: several spellings, drawn for each node.

A spelling is `f(s, p, *values)`: s.node, s.one_of (draws), s.axis and s.lay (where axes are, in
NHWC or NCHW); p: the node's parameters; values have the batch in front.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .description import Node

Array = Any
IMAGE = {0: 2, 1: 3, 2: 1}  # H, W and C of an image in NCHW


@dataclass
class Speller:
    """What a spelling may know: its node, its random draws and the layout of images."""

    node: Node
    rng: np.random.Generator
    nchw: bool
    rows: bool = False
    straight: bool = False

    def one_of(self, *options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def axis(self, canonical: int, rank: int) -> int:
        """Where an axis of one example, (H, W, C) say, is in a batch."""
        canonical %= rank
        return IMAGE[canonical] if self.nchw and rank == 3 else canonical + 1

    def axes(self, rank: int, name: str = "axes") -> tuple[int, ...]:
        return tuple(self.axis(a, rank) for a in self.node[name])

    def lay(self, constant: np.ndarray) -> np.ndarray:
        """A constant of one example's shape, as it meets a batch."""
        constant = np.asarray(constant)
        moved = self.nchw and constant.ndim == 3
        return constant.transpose(2, 0, 1) if moved else constant

    def by_channel(self, v: Array, rank: int) -> Array:
        return v[:, None, None] if self.nchw and rank == 3 else v


def rank(x: Array) -> int:
    return x.ndim - 1


def dense(s: Speller, p: dict, x: Array) -> Array:
    w = p["kernel"]
    if s.rows and rank(x) > 1:
        out = (x.reshape(-1, x.shape[-1]) @ w).reshape(*x.shape[:-1], w.shape[1])
    elif s.nchw and rank(x) == 3:
        out = jnp.einsum("nchw,cd->ndhw", x, w)
    else:
        out = s.one_of(
            lambda: x @ w,
            lambda: x @ w,
            lambda: jnp.dot(x, w),
            lambda: jnp.einsum("...c,cd->...d", x, w),
            lambda: lax.dot_general(x, w, (((x.ndim - 1,), (0,)), ((), ()))),
            lambda: jax.vmap(lambda row: row @ w)(x),
            lambda: jnp.tensordot(x, w, 1),
        )()
    return biased(s, p, out)


def biased(s: Speller, p: dict, out: Array) -> Array:
    if "bias" not in p:
        return out
    b = s.by_channel(p["bias"], rank(out))
    return s.one_of(
        lambda: out + b,
        lambda: b + out,
        lambda: jnp.add(out, jnp.broadcast_to(b, out.shape)),
        lambda: out + b.reshape((1,) * (out.ndim - b.ndim) + b.shape),
    )()


def conv(s: Speller, p: dict, x: Array) -> Array:
    w, numbers = p["kernel"], ("NHWC", "HWIO", "NHWC")
    if s.nchw:
        numbers = s.one_of(("NCHW", "HWIO", "NCHW"), ("NCHW", "OIHW", "NCHW"))
        w = w.transpose(3, 2, 0, 1) if numbers[1] == "OIHW" else w
    out = lax.conv_general_dilated(
        x, w, s.node["strides"], s.node["padding"], dimension_numbers=numbers,
        feature_group_count=s.node["groups"],
    )  # fmt: skip
    return biased(s, p, out)


def affine(s: Speller, p: dict, x: Array) -> Array:
    eps = s.node["eps"]
    scale, shift, mean, var = (
        s.by_channel(p[k], rank(x)) for k in ("scale", "shift", "mean", "var")
    )
    inv = lambda: lax.rsqrt(var + eps)
    keras = lambda i: x * i + (shift - mean * i)
    return s.one_of(
        lambda: (x - mean) / jnp.sqrt(var + eps) * scale + shift,
        lambda: (x - mean) * inv() * scale + shift,
        lambda: (x - mean) * (inv() * scale) + shift,
        lambda: keras(inv() * scale),
        lambda: scale * ((x - mean) / (var + eps) ** 0.5) + shift,
        lambda: scale * jax.nn.standardize(x, mean=mean, variance=var, epsilon=eps) + shift,
    )()


def factor(s: Speller, p: dict, x: Array) -> Array:
    by = s.lay(s.node["by"])
    ways = [lambda: x * by, lambda: by * x, lambda: jnp.multiply(x, by), lambda: x / (1 / by)]
    if np.isin(by, (0, 1)).all():
        ways[-1] = lambda: jnp.where(by == 1, x, 0.0)
    return s.one_of(*ways)()


def offset(s: Speller, p: dict, x: Array) -> Array:
    by = s.node["by"]
    return s.one_of(lambda: x + by, lambda: by + x, lambda: x - (-by))()


def windows_of(s: Speller, x: Array) -> tuple[dict[str, Any], bool]:
    """The arguments of reduce_window, and whether the windows tile an NHWC image."""
    put = lambda h, w: (1, 1, h, w) if s.nchw else (1, h, w, 1)
    size, step = put(*s.node["window"]), put(*s.node["strides"])
    tiles = size == step and all(n % k == 0 for n, k in zip(x.shape, size, strict=True))
    return {"window_dimensions": size, "window_strides": step, "padding": "VALID"}, tiles


def tiled(s: Speller, x: Array) -> tuple[Array, tuple[int, int]]:
    (h, w), at = s.node["window"], 2 if s.nchw else 1
    rows, columns = x.shape[at] // h, x.shape[at + 1] // w
    return x.reshape(*x.shape[:at], rows, h, columns, w, *x.shape[at + 2 :]), (at + 1, at + 3)


def max_pool(s: Speller, p: dict, x: Array) -> Array:
    args, tiles = windows_of(s, x)
    if tiles and s.one_of(True, False):
        split, axes = tiled(s, x)
        return split.max(axes)
    return lax.reduce_window(x, -jnp.inf, lax.max, **args)


def avg_pool(s: Speller, p: dict, x: Array) -> Array:
    args, tiles = windows_of(s, x)
    if tiles and s.one_of(True, False):
        split, axes = tiled(s, x)
        return split.mean(axes)
    count = np.prod(s.node["window"])
    total = lax.reduce_window(x, 0.0, lax.add, **args)
    return s.one_of(lambda: total / count, lambda: total * (1 / count))()


def mean(s: Speller, p: dict, x: Array) -> Array:
    axes = s.axes(rank(x))
    count = np.prod([x.shape[a] for a in axes])
    return s.one_of(
        lambda: x.mean(axes),
        lambda: jnp.mean(x, axes),
        lambda: x.sum(axes) / count,
        lambda: x.mean(axes, keepdims=True).squeeze(axes),
        # Not the factor first: it would scale the layer in front, and epsilon is absolute there.
        lambda: jnp.sum(x, axes) * (1 / count),
    )()


def max_over(s: Speller, p: dict, x: Array) -> Array:
    axes = s.axes(rank(x))
    return s.one_of(lambda: x.max(axes), lambda: jnp.max(x, axes, keepdims=True).squeeze(axes))()


def add(s: Speller, p: dict, a: Array, b: Array) -> Array:
    if s.node.get("one_number"):
        return with_number(s, jnp.add if s.node["sign"] > 0 else jnp.subtract, a, b)
    if s.node["sign"] < 0:
        return s.one_of(lambda: a - b, lambda: a + (-b), lambda: jnp.subtract(a, b))()
    return s.one_of(lambda: a + b, lambda: jnp.add(a, b), lambda: lax.add(*full(a, b)))()


def full(a: Array, b: Array) -> list[Array]:
    return list(jnp.broadcast_arrays(a, b))


def with_number(s: Speller, f: Callable, a: Array, b: Array) -> Array:
    """f of a value (N, ...) and one number for each example (N,), or of these two swapped: numbers
    without axes where several examples are taken one by one."""
    ndim = max(a.ndim, b.ndim)
    unit = lambda v: v if v.ndim == ndim else v.reshape(-1, *(1,) * (ndim - 1))
    wide = lambda: f(unit(a), unit(b))
    one_by_one = lambda: jnp.stack([f(*one) for one in zip(a, b, strict=True)])
    if len(a) > 1 and s.one_of(True, False):
        return one_by_one()
    return s.one_of(lambda: jax.vmap(f)(a, b), wide)()


def mul(s: Speller, p: dict, a: Array, b: Array) -> Array:
    if s.node.get("one_number"):
        return with_number(s, jnp.multiply, a, b)
    return s.one_of(lambda: a * b, lambda: jnp.multiply(a, b), lambda: lax.mul(*full(a, b)))()


def spread(s: Speller, p: dict, x: Array) -> Array:
    """As one writes it: a unit axis that broadcasts, or the whole."""
    shape = s.node.shape
    axes = s.axes(len(shape))
    unit = jnp.expand_dims(x, axes)
    wide = s.lay(np.empty(shape)).shape
    return s.one_of(lambda: unit, lambda: jnp.broadcast_to(unit, (len(x), *wide)))()


def where(s: Speller, p: dict, x: Array) -> Array:
    mask, other = s.lay(s.node["mask"]), s.node["other"]
    if (kept := s.node.get("kept")) is not None and s.one_of(True, False):
        return filled(s, x, kept, other)
    return s.one_of(
        lambda: jnp.where(mask, x, other),
        lambda: jnp.where(~mask, other, x),
        lambda: lax.select(jnp.broadcast_to(mask, x.shape), x, jnp.full_like(x, other)),
    )()


def filled(s: Speller, x: Array, kept: int, other: float) -> Array:
    """The first channels, and a constant in the place of the others."""
    axis = s.axis(-1, rank(x))
    first = lax.slice_in_dim(x, 0, kept, axis=axis)
    rest = jnp.full_like(lax.slice_in_dim(x, kept, None, axis=axis), other)
    pads = [(0, 0)] * x.ndim
    pads[axis] = (0, x.shape[axis] - kept)
    index = np.arange(x.shape[axis])
    return s.one_of(
        lambda: jnp.concatenate([first, rest], axis),
        lambda: jnp.pad(first, pads, constant_values=other),
        lambda: lax.dynamic_update_slice_in_dim(x, rest, kept, axis),
        lambda: jnp.take(first, index, axis, mode="fill", fill_value=other),
    )()


def take(s: Speller, p: dict, x: Array) -> Array:
    canonical, *place = s.node["slice"]
    axis = s.axis(canonical, rank(x))
    if len(place) == 1:
        return s.one_of(
            lambda: jnp.take(x, place[0], axis),
            lambda: lax.index_in_dim(x, place[0], axis, keepdims=False),
            lambda: x.swapaxes(axis, -1)[..., place[0]] if rank(x) < 3 else jnp.take(x, 0, axis),
        )()
    start, stop, _ = place
    index = (*(slice(None),) * axis, slice(start, stop))
    return s.one_of(
        lambda: x[index],
        lambda: lax.slice_in_dim(x, start, stop, axis=axis),
        lambda: lax.dynamic_slice_in_dim(x, start, stop - start, axis),
        lambda: jnp.take(x, np.arange(start, stop), axis),
    )()


def concat(s: Speller, p: dict, *xs: Array) -> Array:
    axis = s.axis(s.node["axis"], rank(xs[0]))
    return s.one_of(
        lambda: jnp.concatenate(xs, axis),
        lambda: jnp.moveaxis(jnp.concatenate([jnp.moveaxis(x, axis, 0) for x in xs]), 0, axis),
    )()


def reshape(s: Speller, p: dict, x: Array) -> Array:
    x = x.transpose(0, 2, 3, 1) if s.nchw and rank(x) == 3 else x
    return s.one_of(
        lambda: x.reshape(len(x), *s.node.shape),
        lambda: jax.vmap(lambda one: one.reshape(s.node.shape))(x),
    )()


def transpose(s: Speller, p: dict, x: Array) -> Array:
    return s.one_of(lambda: x.transpose(0, 2, 1), lambda: jnp.swapaxes(x, -1, -2))()


SPELLINGS: dict[str, Callable[..., Array]] = {
    **{
        f.__name__: f
        for f in (
            *(
                dense,
                conv,
                affine,
                factor,
                offset,
                max_pool,
                avg_pool,
                mean,
                max_over,
                add,
                mul,
                spread,
            ),
            *(where, take, concat, reshape, transpose),
        )
    },
    "sum": lambda s, p, x: x.sum(s.axes(rank(x))),
}
