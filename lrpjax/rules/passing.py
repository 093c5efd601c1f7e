"""Rules of layers without weights: activations, additions, structure, sums.

x, y: input and output of the layer; R: relevance of y.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.dtypes import float0

from ..layers import Linear, Op, bare
from ..program import is_inexact
from .accounts import all_handed_on, by_sign, shared_out, sum_shared_out
from .protocol import Account, known, negative, positive, stabilise

Pull = Callable[[Any], Any]


def _unclipped(clip: Any = None, **_: Any) -> bool:
    return clip is None


@known(
    linear=True,
    conserves=True,
    stabilises=False,
    takes_apart=False,
    inside_only=True,
    account=all_handed_on,
)
def pass_(op: Op, x: jax.Array, y: jax.Array) -> Pull:
    """R_in = R. An activation hands relevance on unchanged. Bach et al. 2015."""
    return lambda r: r


@known(linear=True, conserves=False, stabilises=False, takes_apart=False, inside_only=False)
def gradient(op: Op, *values: jax.Array) -> Pull:
    """R_in = J^T R, J the Jacobian of the layer: what `jax.vjp` does.

    None goes to whole numbers and truth values, and none comes from them.
    """
    *inputs, y = values
    function: Callable = op
    if op.layer.kind == "activation" and not op.layer.detail.stops_gradient:
        function = lambda x: op.detail(x).astype(y.dtype)  # a cast may belong to it
    return _pullback(function, inputs, y)


@known(linear=True, conserves=False, stabilises=False, takes_apart=False, inside_only=False)
def nothing(op: Op, *values: jax.Array) -> Pull:
    """Nothing goes on: whole numbers and truth values have no relevance."""
    return lambda r: bare(None for _ in op.layer.inputs)


def _of_moved(op: Op, *values: jax.Array) -> Account:
    """What the output holds besides the inputs' values are constants."""
    *inputs, _, r = values
    one = lambda v: jnp.ones_like(v) if is_inexact(v) else np.zeros(v.shape, float0)
    _, theirs = jax.jvp(op.detail, tuple(inputs), tuple(map(one, inputs)))
    rest = lambda r, own: r * (1 - own) if is_inexact(own) else None
    return Account(constants=jax.tree.map(rest, r, theirs))


@known(
    linear=True,
    conserves=True,
    stabilises=False,
    takes_apart=False,
    inside_only=False,
    account=_of_moved,
)
def moved(op: Op, *values: jax.Array) -> Pull:
    """R moves back to where the values came from, also where the model stops their gradient."""
    *inputs, y = values
    return _pullback(op.detail, inputs, y)


def _pullback(function: Callable, inputs: Sequence[jax.Array], y: Any) -> Pull:
    _, pull = jax.vjp(function, *inputs)
    of_inexact = lambda r, y: r if is_inexact(y) else np.zeros(y.shape, float0)

    def towards(r):
        found = pull(jax.tree.map(of_inexact, r, y))
        return bare(None if v.dtype == float0 else v for v in found)

    return towards


def _of_linear(op: Op, *values: jax.Array, stabiliser: float | None = None) -> Account:
    """y_i = sum_k J_ik x_k and what it is at 0: a shift by constants, that of the bias."""
    *inputs, y, r = values
    return shared_out(op, y, stabiliser, r, bias=op(*map(jnp.zeros_like, inputs)))


@known(
    linear=True,
    conserves=True,
    stabilises=True,
    takes_apart=False,
    inside_only=False,
    account=_of_linear,
)
def input_times_gradient(op: Op, *values: jax.Array, stabiliser: float | None = None) -> Pull:
    """R_j = x_j sum_i J_ij R_i / y_i: the z rule of a sum, a mean, or any linear map of values."""
    *inputs, y = values
    _, pull = jax.vjp(op, *inputs)

    def towards(r):
        shares = pull(r / stabilise(op, y, stabiliser))
        return bare(x * share for x, share in zip(inputs, shares, strict=True))

    return towards


def _of_ones(op: Linear, x: jax.Array, z: jax.Array, r: jax.Array) -> Account:
    """An output whose factor is 0 loses its relevance."""
    return Account(lost=jnp.where(op(jnp.ones_like(x), _not_zero) == 0, r, 0))


def _not_zero(w: jax.Array) -> jax.Array:
    return (w != 0).astype(w.dtype)


@known(
    linear=True,
    conserves=True,
    stabilises=False,
    takes_apart=False,
    inside_only=False,
    account=_of_ones,
)
def one_to_one(op: Linear, x: jax.Array, z: jax.Array) -> Pull:
    """R_j = sum_i 1[W_ij != 0] R_i where each output is a factor times one input."""
    return lambda r: op.T(r, _not_zero)


def _of_positive(
    op: Op, x: jax.Array, y: jax.Array, r: jax.Array, *, stabiliser: float | None = None
) -> Account:
    return sum_shared_out(op, _positive_sum(op, x)[0], stabiliser, r)


@known(
    linear=True,
    conserves=True,
    stabilises=False,
    takes_apart=False,
    inside_only=False,
    account=_of_positive,
)
def positive_share(op: Op, x: jax.Array, y: jax.Array, *, stabiliser: float | None = None) -> Pull:
    """R_j = sum_i c+_ij R_i / sum_k c+_ik, c_ij = J_ij x_j: the z+ rule of a sum or a mean.

    That of `input_times_gradient` where no input is negative. All of an output's J_ij have one
    sign, which |x| shows.
    """
    _, pull = jax.vjp(op, x)
    total, up = _positive_sum(op, x)
    d = stabilise(op, total, stabiliser)

    def towards(r):
        s = r / d
        (plus,), (minus,) = pull(jnp.where(up, s, 0)), pull(jnp.where(up, 0, s))
        return positive(x) * plus + negative(x) * minus

    return towards


def _positive_sum(op: Op, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """sum_k c+_ik, and whether an output's J_ij are not negative."""
    along = lambda v: jax.jvp(op, (x,), (v,))[1]
    unsigned = along(jnp.abs(x))
    return (jnp.abs(unsigned) + along(x)) / 2, unsigned >= 0


@known(linear=False, conserves=False, stabilises=False, takes_apart=False, inside_only=False)
def guided(op: Op, x: jax.Array, y: jax.Array) -> Pull:
    """R_in = f'(x) max(R, 0) at an activation that cuts. Springenberg et al. 2015, for ReLU."""
    pull = gradient(op, x, y)
    return lambda r: pull(positive(r))


@known(linear=False, conserves=False, stabilises=False, takes_apart=False, inside_only=False)
def deconv(op: Op, x: jax.Array, y: jax.Array) -> Pull:
    """R_in = max(R, 0) at an activation that cuts, whatever the forward pass did. Zeiler and
    Fergus 2014, for ReLU."""
    return lambda r: positive(r)


@known(linear=False, conserves=False, stabilises=False, takes_apart=False, inside_only=False)
def rect(op: Op, x: jax.Array, y: jax.Array, *, percentile: float) -> Pull:
    """R_in = f'(x) 1[y R > tau] R at an activation that cuts, tau the percentile of y R over a
    sample's units.

    The percentile is the nearest value present (half-way to the even rank, as numpy and
    TensorFlow round). Kim et al. 2019; Sixt et al. 2020 (98).
    Raises ValueError where it is not known which units are of one sample.
    """
    layout = op.layer.layout
    if layout is None:
        raise ValueError(
            f"RectGrad ranks the units of one example, and which these are at layer "
            f"{op.layer.name!r} ({op.layer.source}) is not known: choose another method, or write "
            "what lies below with primitives whose axes can be followed."
        )
    through = gradient(op, x, y)

    def pull(r):
        samples = layout.by_example(y * r)
        size = samples.shape[1]
        rank = round((size - 1) * percentile / 100)
        tau = jax.lax.top_k(samples, size - rank)[0][:, -1:]  # a sort would take far longer
        keep = layout.together(samples > tau).reshape(r.shape)
        return through(jnp.where(keep, r, 0))

    return pull


@known(linear=True, conserves=False, stabilises=False, takes_apart=False, inside_only=False)
def add_copy(op: Op, a: jax.Array, c: jax.Array, y: jax.Array) -> Pull:
    """R_a = R, R_c = +-R: the derivative of a +- c."""
    return lambda r: tuple(
        unbroadcast(sign * r, v) for sign, v in zip(op.detail, (a, c), strict=True)
    )


def _of_two(op: Op, *values: jax.Array, stabiliser: float | None = None) -> Account:
    *_, y, r = values
    return shared_out(op, y, stabiliser, r)


@known(
    linear=True,
    conserves=True,
    stabilises=True,
    takes_apart=False,
    inside_only=False,
    account=_of_two,
)
def add_signed(
    op: Op, a: jax.Array, c: jax.Array, y: jax.Array, *, stabiliser: float | None = None
) -> Pull:
    """R_a = a R / (a + c), R_c = c R / (a + c), for a - c with -c in c's place."""
    terms = _terms(op, a, c)

    def pull(r):
        s = r / stabilise(op, y, stabiliser)
        return tuple(unbroadcast(t * s, v) for t, v in zip(terms, (a, c), strict=True))

    return pull


def _of_two_by_sign(
    op: Op,
    a: jax.Array,
    c: jax.Array,
    y: jax.Array,
    r: jax.Array,
    *,
    alpha: float,
    beta: float,
    stabiliser: float | None = None,
) -> Account:
    plus, minus = _sums_by_sign(_terms(op, a, c))
    return by_sign(op, alpha, plus, beta, minus, stabiliser, r)


@known(
    linear=_unclipped,
    conserves=_unclipped,
    stabilises=False,
    takes_apart=lambda beta, **_: beta != 0,
    inside_only=False,
    account=_of_two_by_sign,
)
def add_alpha_beta(
    op: Op,
    a: jax.Array,
    c: jax.Array,
    y: jax.Array,
    *,
    alpha: float,
    beta: float,
    clip: tuple[float, float] | None = None,
    stabiliser: float | None = None,
) -> Pull:
    """R_a = alpha a+ R / (a+ + c+) - beta a- R / (a- + c-), and the same for c.

    The alpha-beta rule of the layer [I I] over both branches. clip: R_a and R_c are clipped to this
    range: not linear any more; (0, 1000) deletes all negative relevance. Sixt et al. 2020, official
    code.
    """
    terms = _terms(op, a, c)
    plus, minus = _sums_by_sign(terms)
    total_plus, total_minus = stabilise(op, plus, stabiliser), -stabilise(op, -minus, stabiliser)
    # beta = 0 leaves nothing to multiply: XLA would keep 0 * n, which may be NaN.
    part = lambda t: (
        alpha * positive(t) / total_plus - (beta * negative(t) / total_minus if beta else 0)
    )
    shares = [part(t) for t in terms]

    def pull(r):
        kept = [share * r for share in shares]
        if clip is not None:
            kept = [jnp.clip(k, *clip) for k in kept]
        return tuple(unbroadcast(k, v) for k, v in zip(kept, (a, c), strict=True))

    return pull


def _terms(op: Op, a: jax.Array, c: jax.Array) -> list[jax.Array]:
    return [sign * v for sign, v in zip(op.detail, (a, c), strict=True)]


def _sums_by_sign(terms: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    a, c = terms
    return positive(a) + positive(c), negative(a) + negative(c)


def unbroadcast(r: jax.Array, like: jax.Array) -> jax.Array:
    """Sums relevance over the axes along which an operand was repeated; a number has none."""
    if like.ndim < r.ndim:
        return r.sum()
    axes = tuple(i for i, (n, m) in enumerate(zip(like.shape, r.shape, strict=True)) if n < m)
    return r.sum(axes, keepdims=True) if axes else r
