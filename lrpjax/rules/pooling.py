"""Rules of max-pooling: windows of any shape, stride, padding and dilation, and global maxima."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax import lax

from ..layers import Op
from ..program.windows import Pull, winners
from .accounts import all_handed_on, shared_out
from .protocol import Account, known, stabilise


@known(
    linear=True,
    conserves=True,
    stabilises=False,
    takes_apart=False,
    inside_only=False,
    account=all_handed_on,
)
def winner_takes_all(op: Op, x: jax.Array, y: jax.Array) -> Pull:
    """R_j = R_i if j is the first maximum of window i, else 0: exactly one winner a window.

    The winners are found once, in the forward pass, and kept as numbers: XLA's own gradient of
    max-pooling searches for them anew for every relevance vector.
    """
    return winners(op.detail, x)


def _of_windows(
    op: Op, x: jax.Array, y: jax.Array, r: jax.Array, *, stabiliser: float | None = None
) -> Account:
    return shared_out(op, _window_sum(op)(x), stabiliser, r)


@known(
    linear=True,
    conserves=True,
    stabilises=False,
    takes_apart=False,
    inside_only=False,
    account=_of_windows,
)
def proportional(op: Op, x: jax.Array, y: jax.Array, *, stabiliser: float | None = None) -> Pull:
    """R_j = sum_i x_j R_i / sum_k x_k over window i: the z rule of the window's sum."""
    total, pull = jax.vjp(_window_sum(op), x)
    return lambda r: x * pull(r / stabilise(op, total, stabiliser))[0]


def _window_sum(op: Op) -> Callable[[jax.Array], jax.Array]:
    p = op.detail.params
    if op.detail.name == "reduce_max":
        return lambda x: x.sum(p["axes"])
    return lambda x: lax.reduce_window(
        x,
        x.dtype.type(0),  # a plain number: with a traced one reduce_window has no gradient
        lax.add,
        p["window_dimensions"],
        p["window_strides"],
        p["padding"],
        p["base_dilation"],
        p["window_dilation"],
    )
