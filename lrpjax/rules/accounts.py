"""What the accounts of rules are made of: parts of stabilised denominators, by whose they are."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..graph import shifts
from ..layers import Linear
from .protocol import Account, stabilise


def shared_out(
    op: Any,
    total: jax.Array,
    stabiliser: float | None,
    r: jax.Array,
    *,
    bias: jax.Array | None = None,
    empty: Any = False,
) -> Account:
    """Of relevance shared out by stabilised denominators of `total`: the part of the bias in it,
    and of what is added to it. Where it is `empty`, and where all are 0, it is lost."""
    d = stabilise(op, total, stabiliser)
    s = r / d
    nowhere = jnp.isinf(d) | empty
    return Account(
        bias=None if bias is None else bias * s,
        stabiliser=jnp.where(nowhere, 0, (d - total) * s),
        lost=jnp.where(nowhere, r, 0),
    )


def sum_shared_out(
    op: Any,
    total: jax.Array,
    stabiliser: float | None,
    r: jax.Array,
    *,
    bias: jax.Array | None = None,
) -> Account:
    """`shared_out` for a total of terms of one sign, which is empty where it is 0."""
    return shared_out(op, total, stabiliser, r, bias=bias, empty=total == 0)


def by_sign(
    op: Any,
    alpha: float,
    a: jax.Array,
    beta: float,
    n: Any,
    stabiliser: float | None,
    r: jax.Array,
    *,
    biases: tuple[Any, Any] = (None, None),
) -> Account:
    """alpha R_i shared out by a_i, and lost where that is empty; beta R_i taken back by n_i. Where
    n_i alone is empty nothing is taken, and relevance has grown. biases: what is in a and n."""
    plus = sum_shared_out(op, a, stabiliser, alpha * r, bias=biases[0])
    if not beta:
        return plus
    to_n = None if biases[1] is None else -biases[1]
    minus = sum_shared_out(op, -n, stabiliser, beta * r, bias=to_n)
    return Account(
        bias=None if to_n is None else plus.bias - minus.bias,
        stabiliser=plus.stabiliser - minus.stabiliser,
        lost=jnp.where(a == 0, plus.lost - minus.lost, 0),
        grown=jnp.where(a == 0, 0, -minus.lost),
    )


def all_handed_on(op: Any, *values: Any, **_: Any) -> Account:
    """The account of a rule that hands all relevance on to inputs."""
    return Account()


def by_origin(op: Linear, account: Account) -> Account:
    """The account of a linear layer, in which a shift that is no bias but a table of constants is
    named so."""
    if account.bias is None or op.b is None:
        return account
    table = _is_table(op, jnp.broadcast_to(op.b, account.bias.shape))
    bias, constants = jnp.where(table, 0, account.bias), jnp.where(table, account.bias, 0)
    return account._replace(bias=bias, constants=constants)


def _is_table(op: Linear, b: jax.Array) -> bool | jax.Array:
    """Whether what a layer adds differs along two axes or more, as position embeddings do and a
    bias does not. What is added to the input of a product is none: it differs where padding is."""
    if shifts(op.layer.detail.pre):
        return False
    layout = op.layer.layout
    within = tuple(range(1, b.ndim)) if layout is None else layout.units
    b = b if layout is None else b.reshape(layout.shape)
    varies = [jnp.any(b != jax.lax.slice_in_dim(b, 0, 1, axis=axis)) for axis in within]
    return sum(v.astype(int) for v in varies) > 1
