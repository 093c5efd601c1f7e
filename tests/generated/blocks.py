"""Parts that networks are made of, each (draft, value) -> value. `BLOCKS` says which fits what."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .draft import ACTS, Draft

Block = Callable[[Draft, int], int]


def layer(d: Draft, i: int) -> int:
    return d.layer(i)


def two_products(d: Draft, i: int) -> int:
    return d.linear(d.linear(i))


def residual(d: Draft, i: int) -> int:
    """h + f(h) or h - f(h), behind an activation or before one."""
    shape = d.shape(i)
    inner = d.layer(i) if len(shape) < 3 else d.act(_same_conv(d, i), *ACTS)
    inner = d.dense(inner, shape[-1]) if d.chance() else inner
    out = d.add("add", *((i, inner) if d.chance() else (inner, i)), sign=d.choose(1, 1, 1, -1))
    return d.act(out, "relu") if d.chance() else out


def _same_conv(d: Draft, i: int) -> int:
    """A convolution that keeps the shape."""
    c = d.shape(i)[-1]
    param = d.weights(3, 3, c, c)
    pads = ((1, 1), (1, 1))
    return d.add("conv", i, param=param, window=(3, 3), strides=(1, 1), padding=pads, groups=1)


def branches(d: Draft, i: int) -> int:
    """Two branches of a concat; or a concat of slices in another order."""
    if len(d.shape(i)) < 3 and d.chance():
        parts = [d.layer(i), i if d.chance() else d.layer(i)]
    else:
        c, axis = d.shape(i)[-1], len(d.shape(i)) - 1
        cut = max(1, c // 2)
        parts = [
            d.add("take", i, slice=(axis, cut, c, 1)),
            d.add("take", i, slice=(axis, 0, cut, 1)),
        ]
        parts[0] = d.act(parts[0], *ACTS) if d.chance() else parts[0]
    return d.add("concat", *parts, axis=len(d.shape(i)) - 1)


def shared(d: Draft, i: int) -> int:
    """One parameter used twice or three times, in turn or side by side."""
    c = d.shape(i)[-1]
    if len(d.shape(i)) == 3:
        return _same_conv(d, i)
    first = d.act(d.dense(i, c), *ACTS)
    param = d.nodes[first - 1].param
    if d.chance(0.7):
        d.expect(f"{param}_2")
    again = d.act(d.add("dense", first, param=param), *ACTS)
    if d.chance(0.3):
        again = d.act(d.add("dense", again, param=param), *ACTS)
    return d.add("add", first, again, sign=1) if d.chance() else again


def loop(d: Draft, i: int) -> int:
    """Equal rounds of dense and activation: what a scan runs."""
    c, rounds, name = d.shape(i)[-1], d.choose(2, 3), d.choose(*ACTS)
    start = len(d.nodes)
    for _ in range(rounds):
        i = d.add("act", d.dense(i, c), name=name)
    d.loops.append((start, 2, rounds))
    return i


def affine_alone(d: Draft, i: int) -> int:
    """BatchNorm between two activations, where no product can take it."""
    return d.act(d.affine(d.act(i, *ACTS)), *ACTS)


def factor(d: Draft, i: int) -> int:
    """A constant factor without a shift: of all, a dropped unit or token, a negative number."""
    i, shape = d.act(i, *ACTS), d.shape(i)
    mask = np.ones(shape)
    mask.flat[:: d.choose(2, 3)] = 0
    by = d.choose(2.0, -0.5, 1e-3, mask)
    return d.act(d.add("factor", i, by=by), *ACTS)


def constants(d: Draft, i: int) -> int:
    """Some places hold a constant instead, also a negative one."""
    i, shape = d.act(i, *ACTS), d.shape(i)
    mask, kept = np.ones(shape, bool), None
    if d.chance() and shape[-1] > 1:
        kept = shape[-1] - 1
        mask[..., kept:] = False
    else:
        mask.flat[1 :: d.choose(2, 3)] = False
    other = d.choose(-1.5, 0.7, 0.0, -5.0)
    return d.linear(d.add("where", i, mask=mask, other=other, kept=kept))


def gate(d: Draft, i: int) -> int:
    """A value and what weighs it: GLU, SwiGLU, LSTM-like; two activations weigh half and half."""
    c = d.shape(i)[-1]
    branch = lambda: d.dense(i, c)
    kind = d.choose("sigmoid", "swish", "tanh", "both", "neither", "two gates")
    if kind == "neither":
        return d.act(d.mul(branch(), branch(), None), *ACTS)
    if kind == "two gates":
        a, b = (d.add("act", branch(), name="sigmoid") for _ in range(2))
        return d.mul(a, b, None)
    if kind == "both":
        a = d.act(branch(), "tanh", "silu", "gelu")
        b = d.add("act", branch(), name="sigmoid")
    else:
        a = d.act(branch(), *ACTS) if kind == "sigmoid" else branch()
        b = d.add("act", branch(), name={"swish": d.choose("silu", "gelu")}.get(kind, kind))
    return d.mul(b, a, 0) if d.chance() else d.mul(a, b, 1)


def one_number(d: Draft, i: int) -> int:
    """A value that one number of its example weighs or shifts: a mean of all, or one unit."""
    c, axes = d.shape(i)[-1], tuple(range(len(d.shape(i))))
    value = d.dense(i, c)
    source = value if d.chance() else d.dense(i, 2)
    picked = len(axes) == 1 and d.chance()
    number = d.add("take", source, slice=(0, 1)) if picked else d.add("mean", source, axes=axes)
    kind, more = d.choose(
        ("mul", {"weighs": None}), ("mul", {"weighs": 1}), ("add", {"sign": d.choose(1, -1)})
    )
    number = d.add("act", number, name="sigmoid") if more.get("weighs") else number
    wide = d.add("spread", number, axes=axes, shape=d.shape(i), inside=True)
    both, spelled = (value, wide), (value, number)
    if d.chance():
        both, spelled = both[::-1], spelled[::-1]
        more = {k: 0 if v == 1 and k == "weighs" else v for k, v in more.items()}
    if kind == "mul":
        d.refused.add("deeplift")
    return d.act(d.add(kind, *both, spelled_from=spelled, one_number=True, **more), *ACTS)


def squeeze_excitation(d: Draft, i: int) -> int:
    """x * sigmoid(dense(relu(dense(mean x)))), the mean over positions."""
    axes = tuple(range(len(d.shape(i)) - 1))
    c = d.shape(i)[-1]
    pooled = d.add("mean", i, axes=axes)
    weight = d.add("act", d.dense(d.layer(pooled, 2), c), name="sigmoid")
    wide = d.add("spread", weight, axes=axes, shape=d.shape(i))
    return d.mul(wide, i, 0) if d.chance() else d.mul(i, wide, 1)


def pool(d: Draft, i: int) -> int:
    h, w, _ = d.shape(i)
    if min(h, w) < 2:
        return d.layer(i)
    kind, strides = d.choose("max_pool", "avg_pool"), d.choose((2, 2), (1, 1), (2, 1))
    return d.add(kind, i, window=(2, 2), strides=strides, padding=((0, 0), (0, 0)))


def mixing(d: Draft, i: int) -> int:
    """A dense layer across tokens."""
    turned = d.add("transpose", i, order=(1, 0))
    return d.add("transpose", d.layer(turned), order=(1, 0))


def as_tokens(d: Draft, i: int) -> int:
    """A vector as two tokens, through a layer, and back."""
    (c,) = d.shape(i)
    if c % 2:
        return d.layer(i, 4)
    split = d.add("reshape", i, shape=(2, c // 2))
    inner = d.layer(split)
    return d.add("reshape", inner, shape=(int(np.prod(d.shape(inner))),))


GENERAL: tuple[Block, ...] = (
    layer, layer, two_products, residual, residual, branches, shared, shared, affine_alone, factor,
    constants,
)  # fmt: skip
