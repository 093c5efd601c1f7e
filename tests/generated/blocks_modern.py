"""Norms, modulation and attention, as parts of a network: (draft, value) -> value."""

from __future__ import annotations

import numpy as np

from .blocks import (
    GENERAL,
    Block,
    as_tokens,
    gate,
    loop,
    mixing,
    one_number,
    pool,
    squeeze_excitation,
)
from .draft import ACTS, Draft


def normalised(d: Draft, i: int, form: str, **over) -> int:
    """A LayerNorm centres first: a linear map; the deviation is a constant. RMS and L2 do not."""
    d.refused.add("deeplift")
    eps = d.choose(1e-6, 1e-3)
    if form in ("rms", "l2"):
        return d.add("norm", i, form=form, eps=eps, **over)
    shape = d.shape(i)
    reduced = {"shape": (over["groups"],)} if "groups" in over else {}
    mean = d.add("mean", i, inside=True, **reduced, **over)
    wide = d.add("spread", mean, inside=True, shape=shape, **over)
    centred = d.add("add", i, wide, sign=-1, inside=True)
    return d.add("norm", centred, form="layer", eps=eps, spelled_from=(i,), **over)


def _any_norm(d: Draft, i: int) -> int:
    rank = len(d.shape(i))
    if rank == 3 and d.shape(i)[-1] % 2 == 0 and d.chance(0.7):
        return normalised(d, i, "layer", groups=2)
    return normalised(d, i, d.choose("layer", "rms", "l2"), axes=(rank - 1,))


def norm(d: Draft, i: int) -> int:
    """Bare, or with a scale and a shift before an activation."""
    i = _any_norm(d, i)
    if d.chance(0.6):
        return d.layer(i) if d.chance() else i
    return d.act(d.affine(i), *ACTS)


def gated_norm(d: Draft, i: int) -> int:
    """A normalised value is signal: what gates it gets nothing, whichever stands first."""
    c = d.shape(i)[-1]
    a, b = _any_norm(d, d.dense(i, c)), d.act(d.dense(i, c), "sigmoid", "silu", "tanh")
    return d.mul(b, a, 0) if d.chance() else d.mul(a, b, 1)


def two_norms(d: Draft, i: int) -> int:
    """LN(a) * LN(b): half and half."""
    c = d.shape(i)[-1]
    return d.mul(_any_norm(d, d.dense(i, c)), _any_norm(d, d.dense(i, c)), None)


def modulated(d: Draft, i: int) -> int:
    """adaLN: LN(v) * (1 + scale(c)) + shift(c), c another value; half to each factor."""
    c, axes = d.shape(i)[-1], tuple(range(len(d.shape(i)) - 1))
    condition = d.add("mean", i, axes=axes) if axes else d.layer(i)
    spread = lambda v: d.add("spread", v, axes=axes, shape=d.shape(i)) if axes else v
    scale = d.dense(condition, c, bias=True)
    # Without folding, this offset and the bias could not be told apart.
    scale = spread(d.add("offset", scale, by=1.0) if d.fold else scale)
    shift = spread(d.dense(condition, c))
    return d.add("add", d.mul(_any_norm(d, i), scale, None), shift, sign=1)


def cosine(d: Draft, i: int) -> int:
    """The cosines of two projections, for a few pairs: half of each to either side."""
    (c,) = d.shape(i)
    sides = []
    for _ in range(2):
        wide = d.add("reshape", d.dense(i, 3 * c), shape=(3, c))
        sides.append(normalised(d, wide, "l2", axes=(1,)))
    return d.add("sum", d.mul(*sides, None), axes=(1,))


def attention(d: Draft, i: int) -> int:
    """Self-attention with or without projections, masks, head masks and renormalised weights, or a
    gate of each query's heads times one of each key's, which weigh the weights."""
    d.refused.add("deeplift")
    t, c = d.shape(i)
    heads = d.choose(*(h for h in (1, 2) if c % h == 0))
    q, k, v = (d.dense(i, c) if d.chance(0.8) else i for _ in range(3))
    mask = keep = head_mask = None
    if d.chance(0.3):
        mask = np.tril(np.ones((t, t), bool))
    if d.chance(0.25):
        keep = np.ones((t, t))
        keep[:, d.choose(0, t - 1)] = 0.5
    if d.chance(0.25):
        head_mask = np.linspace(0.5, 1.5, heads) if d.chance() else np.eye(heads)[0]
    gates = [d.add("act", d.dense(i, heads), name="sigmoid") for _ in range(2 * d.chance(0.3))]
    out = d.add(
        "attention", q, k, v, *gates, heads=heads, scale=(c // heads) ** -0.5, mask=mask, keep=keep,
        head_mask=head_mask, shape=(t, c),
    )  # fmt: skip
    out = d.dense(out, c) if d.chance() or head_mask is not None else out
    return d.add("add", i, out, sign=1) if d.chance() else out


MODERN: tuple[Block, ...] = (norm, gated_norm, two_norms, modulated)
BLOCKS: dict[int, tuple[Block, ...]] = {
    1: (*GENERAL, *GENERAL, loop, loop, gate, gate, one_number, cosine, as_tokens, *MODERN),
    2: (
        *(*GENERAL, loop, gate, gate, one_number, squeeze_excitation, mixing, *MODERN),
        *(attention,) * 5,
    ),
    3: (*GENERAL, *GENERAL, *(pool,) * 5, gate, one_number, squeeze_excitation, *MODERN),
}
