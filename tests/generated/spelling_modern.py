"""How one writes norms and attention in JAX: several spellings of each."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .spelling import SPELLINGS, Array, Speller, rank


def norm(s: Speller, p: dict, x: Array) -> Array:
    """GroupNorm on (N, groups, ...) and back; the others where they are."""
    if "groups" not in s.node.options:
        return normalised(s, x, s.axes(rank(x)))
    groups, shape = s.node["groups"], x.shape
    if s.nchw:
        split = x.reshape(len(x), groups, -1)
        return normalised(s, split, (2,)).reshape(shape)
    split = x.reshape(*shape[:-1], groups, shape[-1] // groups)
    return normalised(s, split, (1, 2, 4)).reshape(shape)


def normalised(s: Speller, x: Array, axes: tuple[int, ...]) -> Array:
    eps, form = s.node["eps"], s.node["form"]
    over = {"axis": axes, "keepdims": True}
    if form == "layer":
        mean = x.mean(**over)
        centred = x - mean
        var = s.one_of(
            lambda: x.var(**over),
            lambda: (centred**2).mean(**over),
            lambda: jnp.mean(x * x, **over) - mean * mean,
            lambda: jnp.mean(lax.square(centred), **over),
        )()
        inv = lax.rsqrt(var + eps)
        return s.one_of(
            lambda: centred / jnp.sqrt(var + eps),
            lambda: centred * inv,
            lambda: centred * inv,
            lambda: x * inv + (-mean * inv),
            lambda: x * inv - mean * inv,
            lambda: jax.nn.standardize(x, axes, variance=var, epsilon=eps),
        )()
    square = s.one_of(lambda: x * x, lambda: x**2, lambda: jnp.square(x))()
    power = square.sum(**over) if form == "l2" else square.mean(**over)
    root = jnp.sqrt(power + eps)
    return s.one_of(
        lambda: x / root,
        lambda: x * lax.rsqrt(power + eps),
        lambda: (1 / root) * x,
        lambda: x / jnp.broadcast_to(root, x.shape),
    )()


def attention(s: Speller, p: dict, q: Array, k: Array, v: Array, *gates: Array) -> Array:
    n, t, width = q.shape
    heads, scale = s.node["heads"], s.node["scale"]
    split = lambda a: a.reshape(n, t, heads, width // heads)
    q, k, v = split(q), split(k), split(v)
    a = weights(s, q, k, scale)
    if gates:
        a = gated(s, a, *(g.transpose(0, 2, 1) for g in gates))
    if s.one_of(True, False):
        out = jnp.einsum("nhts,nshd->nthd", a, v)
    else:
        out = (a @ v.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
    return out.reshape(n, t, width)


def weights(s: Speller, q: Array, k: Array, scale: float) -> Array:
    """(N, heads, T, S): masks by a number or by minus infinity, and what is done to them after."""
    scores = s.one_of(
        lambda: jnp.einsum("nthd,nshd->nhts", q, k) * scale,
        lambda: jnp.einsum("nthd,nshd->nhts", q * scale, k),
        lambda: q.transpose(0, 2, 1, 3) @ k.transpose(0, 2, 3, 1) / (1 / scale),
    )()
    if (mask := s.node.get("mask")) is not None:
        scores = s.one_of(
            lambda: jnp.where(mask, scores, -1e9),
            lambda: jnp.where(mask, scores, -jnp.inf),
            lambda: scores + np.where(mask, 0, -1e9),
            lambda: scores + np.where(mask, 0, -np.inf),
            lambda: jnp.where(mask, scores, jnp.finfo(scores.dtype).min),
        )()
    e = lambda: jnp.exp(scores - lax.stop_gradient(scores.max(-1, keepdims=True)))
    over = lambda v: v / v.sum(-1, keepdims=True)
    a = s.one_of(
        lambda: jax.nn.softmax(scores), lambda: jax.nn.softmax(scores), lambda: over(e())
    )()
    a = s.one_of(lambda: a, lambda: a, lambda: a * 1.0, lambda: jnp.where(True, a, 0.0))()
    if (keep := s.node.get("keep")) is not None:
        a = over(a * keep)
    if (mask := s.node.get("head_mask")) is not None:
        a = s.one_of(
            lambda: a * mask[:, None, None],
            lambda: jnp.einsum("h,nhts->nhts", jnp.asarray(mask), a),
        )()
    return a


def gated(s: Speller, a: Array, of_queries: Array, of_keys: Array) -> Array:
    """Attention weights times weights, which may be multiplied with one another first."""
    g, h = of_queries[..., None], of_keys[:, :, None]
    return s.one_of(lambda: a * (g * h), lambda: (h * g) * a, lambda: (a * g) * h)()


def fixed(s: Speller, p: dict, x: Array) -> Array:
    """A matrix of numpy, which no module holds: what is no parameter."""
    axis, matrix = s.axis(s.node["axis"], rank(x)), s.node["matrix"]
    along = lambda: jnp.moveaxis(jnp.moveaxis(x, axis, -1) @ matrix, -1, axis)
    contracted = lambda: jnp.moveaxis(jnp.tensordot(x, matrix, (axis, 0)), -1, axis)
    if not s.node.get("resized"):
        return s.one_of(along, contracted)()
    shape = (*x.shape[:axis], matrix.shape[1], *x.shape[axis + 1 :])
    return s.one_of(along, lambda: jax.image.resize(x, shape, "linear"))()


def spectral(s: Speller, p: dict, x: Array) -> Array:
    axis = s.axis(s.node["axis"], rank(x))
    x, mask = jnp.moveaxis(x, axis, -1), s.node["mask"]
    half = mask[: mask.size // 2 + 1]
    y = s.one_of(
        lambda: jnp.fft.ifft(jnp.fft.fft(x) * mask).real,
        lambda: jnp.fft.irfft(jnp.fft.rfft(x) * half, mask.size),
    )()
    return jnp.moveaxis(y, -1, axis)


SPELLINGS["fixed"] = fixed
SPELLINGS["spectral"] = spectral
SPELLINGS["norm"] = norm
SPELLINGS["attention"] = attention
