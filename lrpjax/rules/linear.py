"""The LRP rules of a linear layer z = W x + b (folded; see `graph.fold`).

Each docstring gives R_j, the relevance of input j, from R_i, that of output i. c_ij = W_ij x_j is
the contribution of j to i, and c+ and c- are its positive and negative parts: with inputs of
both signs, c+ = x+ W+ + x- W-, never x W+. x, z and R have the layer's shapes. A denominator d
is d + s sign(d), sign(0) = +1: s is the `stabiliser` given, an absolute number, or else 1e-9 times
max |d| over the layer's outputs of one example (see `rule.stabilise`).
Sources: Bach et al. 2015; Montavon et al. 2017 and 2019; Sixt et al. 2020.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp

from ..layers import Bound, Linear
from .accounts import by_origin, by_sign, shared_out, sum_shared_out
from .protocol import (
    OF_ANOTHER,
    Account,
    Rule,
    known,
    negative,
    nonzero,
    positive,
    signs,
    stabilise,
)

Pull = Callable[[jax.Array], jax.Array]


def _of_output(op: Linear, x: jax.Array, z: jax.Array, r: jax.Array, **added: float) -> Account:
    """z_i = sum_k c_ik + b_i: each part takes its own, b_i that of the bias."""
    (stabiliser,) = added.values() or (None,)
    return by_origin(op, shared_out(op, z, stabiliser, r, bias=op.b))


@known(
    linear=True,
    conserves=True,
    stabilises=True,
    takes_apart=False,
    inside_only=False,
    account=_of_output,
)
def epsilon(op: Linear, x: jax.Array, z: jax.Array, *, epsilon: float) -> Pull:
    """R_j = sum_i c_ij R_i / (z_i + epsilon sign z_i). Bach et al. 2015, eq. 58."""
    return lambda r: x * op.T(r / stabilise(op, z, epsilon))


@known(
    linear=True,
    conserves=True,
    stabilises=True,
    takes_apart=False,
    inside_only=False,
    account=_of_output,
)
def z(op: Linear, x: jax.Array, z: jax.Array, *, stabiliser: float | None = None) -> Pull:
    """R_j = sum_i c_ij R_i / z_i. Bach et al. 2015, eq. 56."""
    return lambda r: x * op.T(r / stabilise(op, z, stabiliser))


def _of_both_signs(
    op: Linear,
    x: jax.Array,
    z: jax.Array,
    r: jax.Array,
    *,
    alpha: float,
    beta: float,
    bias: str,
    stabiliser: float | None = None,
) -> Account:
    to_a, to_n = biases = _biases(op, bias)
    a, n = _by_sign(op, x)[0] if beta else (_positive(op, x)[0], None)
    a, n = _with(a, to_a), n if n is None else _with(n, to_n)
    return by_origin(op, by_sign(op, alpha, a, beta, n, stabiliser, r, biases=biases))


def _biases(op: Linear, bias: str) -> tuple[jax.Array | None, jax.Array | None]:
    """What joins the positive and the negative contributions."""
    return {
        "none": (None, None),
        "split": (None, None) if op.b is None else signs(op.b),
        "signed": (op.b, op.b),
    }[bias]


def _with(total: jax.Array, b: jax.Array | None) -> jax.Array:
    return total if b is None else total + b


@known(
    linear=True,
    conserves=True,
    stabilises=False,
    takes_apart=False,
    inside_only=False,
    account=partial(_of_both_signs, alpha=1, beta=0, bias="none"),
)
def zplus(op: Linear, x: jax.Array, z: jax.Array, *, stabiliser: float | None = None) -> Pull:
    """R_j = sum_i c+_ij R_i / sum_k c+_ik. Montavon et al. 2017; the Z+ of Sixt et al. 2020."""
    return alpha_beta(op, x, z, alpha=1, beta=0, bias="none", stabiliser=stabiliser)


@known(
    linear=True,
    conserves=True,
    stabilises=False,
    takes_apart=lambda beta, **_: beta != 0,
    inside_only=False,
    account=_of_both_signs,
)
def alpha_beta(
    op: Linear,
    x: jax.Array,
    z: jax.Array,
    *,
    alpha: float,
    beta: float,
    bias: str,
    stabiliser: float | None = None,
) -> Pull:
    """R_j = sum_i (alpha c+_ij / a_i - beta c-_ij / n_i) R_i. Bach et al. 2015, eq. 60.

    bias "none": a_i = sum_k c+_ik, n_i = sum_k c-_ik, so a row of Z sums to alpha - beta.
    "split": b+ joins a and b- joins n. "signed": the whole b joins both, as in iNNvestigate,
    which the paper ran: denominators may change sign and relevance is not conserved.
    """
    to_a, to_n = _biases(op, bias)
    share = lambda weight, total: weight / stabilise(op, total, stabiliser)
    if not beta:
        a, pull_a = _positive(op, x)
        share_a = share(alpha, _with(a, to_a))
        return lambda r: pull_a(r * share_a)
    (a, n), pull = _by_sign(op, x)
    # An empty sum is -0.0 or 0.0: the stabiliser of a sum of negative terms is negative.
    share_a, share_n = share(alpha, _with(a, to_a)), share(beta, -_with(n, to_n))
    return lambda r: pull(r * share_a, r * share_n)


def _of_strengthened(
    op: Linear,
    x: jax.Array,
    z: jax.Array,
    r: jax.Array,
    *,
    gamma: float,
    stabiliser: float | None = None,
) -> Account:
    """The bias b_i + gamma b_i^s takes part as every contribution does."""
    _, b, agreeing = _agreeing(op, x, z)
    own, more, stabiliser = _of_range(gamma, stabiliser)
    shift = None if op.b is None else own * b + more * jnp.where(z >= 0, positive(b), negative(b))
    return by_origin(op, shared_out(op, own * z + more * agreeing, stabiliser, r, bias=shift))


def _of_range(gamma: float, stabiliser: float | None) -> tuple[float, float, float | None]:
    """What z and what agrees with it count in the denominator, over 1 + gamma as the numerators
    are: of a large gamma they would leave the range of single precision."""
    own = 1 / (1 + gamma)
    return own, gamma / (1 + gamma), None if stabiliser is None else own * stabiliser


def _agreeing(op: Linear, x: jax.Array, z: jax.Array) -> tuple[Callable, jax.Array, jax.Array]:
    """The map of `_by_sign`, b, and sum_k c^s_ik + b_i^s."""
    b = jnp.zeros((), z.dtype) if op.b is None else op.b
    (a, n), pull = _by_sign(op, x)
    return pull, b, jnp.where(z >= 0, a + positive(b), n + negative(b))


@known(
    linear=True,
    conserves=True,
    stabilises=True,
    takes_apart=True,
    inside_only=False,
    account=_of_strengthened,
)
def gamma(
    op: Linear, x: jax.Array, z: jax.Array, *, gamma: float, stabiliser: float | None = None
) -> Pull:
    """R_j = sum_i (c_ij + gamma c^s_ij) R_i / (z_i + gamma (sum_k c^s_ik + b_i^s)), s = sign z_i.

    c^s and b^s are the parts of the sign of z_i: what agrees with the output is strengthened.
    Montavon et al. 2019 for x >= 0; its extension to both signs after Anders et al. 2021.
    """
    pull, _, agreeing = _agreeing(op, x, z)
    up = z >= 0
    own, more, stabiliser = _of_range(gamma, stabiliser)
    denominator = stabilise(op, own * z + more * agreeing, stabiliser)
    share_a = jnp.where(up, 1.0, own) / denominator
    share_n = jnp.where(up, own, 1.0) / denominator
    return lambda r: pull(r * share_a, r * share_n)


def _of_connected(op: Linear, x: jax.Array, z: jax.Array, r: jax.Array, *, entry) -> Account:
    """An output to which no input is connected loses its relevance."""
    return Account(lost=jnp.where(op(jnp.ones_like(x), entry) == 0, r, 0))


@known(
    linear=True,
    conserves=True,
    stabilises=False,
    takes_apart=False,
    inside_only=False,
    account=partial(_of_connected, entry=jnp.ones_like),
)
def flat(op: Linear, x: jax.Array, z: jax.Array) -> Pull:
    """R_j = sum_i 1_ij R_i / sum_k 1_ik over the inputs connected to i. Lapuschkin et al. 2017."""
    count = op(jnp.ones_like(x), jnp.ones_like)
    return lambda r: op.T(r / nonzero(count), jnp.ones_like)


@known(
    linear=True,
    conserves=True,
    stabilises=False,
    takes_apart=False,
    inside_only=False,
    account=partial(_of_connected, entry=jnp.square),
)
def wsquare(op: Linear, x: jax.Array, z: jax.Array) -> Pull:
    """R_j = sum_i W_ij^2 R_i / sum_k W_ik^2. Montavon et al. 2017, eq. 12."""
    total = op(jnp.ones_like(x), jnp.square)
    return lambda r: op.T(r / nonzero(total), jnp.square)


def _of_box(
    op: Linear,
    x: jax.Array,
    z: jax.Array,
    r: jax.Array,
    *,
    low: Bound,
    high: Bound,
    stabiliser: float | None = None,
) -> Account:
    return sum_shared_out(op, _in_box(op, x, low, high)[2], stabiliser, r)


@known(
    linear=True,
    conserves=True,
    stabilises=False,
    takes_apart=False,
    inside_only=False,
    account=_of_box,
)
def zbox(
    op: Linear,
    x: jax.Array,
    z: jax.Array,
    *,
    low: Bound,
    high: Bound,
    stabiliser: float | None = None,
) -> Pull:
    """R_j = sum_i (W+_ij (x_j - l) + W-_ij (x_j - u)) R_i / sum_k (the same). Montavon et al. 2017.

    That is W x - W+ l - W- u, of terms that are not negative for x in the box [l, u]; the bias
    takes no part. low, high: the bounds of the model's input, a number each or one for each
    channel, from which l and u, those of x, follow (see `graph.Bounds`). Of an op made without a
    model around it they are l and u themselves.
    """
    above, below, total = _in_box(op, x, low, high)
    d = stabilise(op, total, stabiliser)

    def pull(r):
        s = r / d
        return above * op.T(s, positive) + below * op.T(s, negative)

    return pull


def _in_box(op: Linear, x: jax.Array, low: Bound, high: Bound) -> tuple[jax.Array, ...]:
    """x - l, x - u and the sum of the terms."""
    l, u = map(jnp.asarray, (low, high)) if op.bounds is None else op.bounds(low, high)
    above, below = x - l, x - u
    return above, below, op(above, positive) + op(below, negative)


def _of_negated(op: Linear, x: jax.Array, z: jax.Array, r: jax.Array, *, of: Rule) -> Account:
    return of.account(_negative(op), x, -z, r)  # type: ignore[misc]


@known(**OF_ANOTHER, account=_of_negated)
def negated(op: Linear, x: jax.Array, z: jax.Array, *, of: Rule) -> Pull:
    """The rule `of` for the layer -W x - b: evidence against what the layer computes.

    At the last layer it makes the dual of contrastive methods. Gu et al. 2018, CLRP2.
    """
    return of(_negative(op), x, -z)


def _negative(op: Linear) -> Linear:
    b = None if op.b is None else -op.b
    sums = None if op.sums is None else (-op.sums[1], -op.sums[0])
    return replace(op, w=-op.w, b=b, sums=sums)


def _positive(op: Linear, x: jax.Array) -> tuple[jax.Array, Pull]:
    """sum_k c+_ik and the map r -> sum_i c+_ij r_i.

    Half the work where the inputs are known not to be negative.
    """
    if op.non_negative:
        return op(x, positive), lambda r: x * op.T(r, positive)
    x_plus, x_minus = signs(x)
    total = op(x_plus, positive) + op(x_minus, negative)
    both = jnp.stack(signs(op.w))

    def pull(r):
        # vmap over the weights makes one product of the two: r is read once.
        to_plus, to_minus = jax.vmap(lambda w: op.T(r, w))(both)
        return x_plus * to_plus + x_minus * to_minus

    return total, pull


def _by_sign(op: Linear, x: jax.Array) -> tuple[tuple[jax.Array, jax.Array], Callable]:
    """(sum_k c+_ik, sum_k c-_ik) and the map (r, s) -> sum_i c+_ij r_i + c-_ij s_i."""
    if op.non_negative:
        sums = op(x, signs) if op.sums is None else op.sums
        return sums, lambda r, s: x * op.T((r, s), signs)
    x_plus, x_minus = signs(x)
    plus, minus = op(x_plus, signs), op(x_minus, signs)

    def pull(r, s):
        return x_plus * op.T((r, s), signs) + x_minus * op.T((s, r), signs)

    return (plus[0] + minus[1], plus[1] + minus[0]), pull
