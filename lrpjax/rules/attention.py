"""Rules of transformers: normalisation by a statistic, softmax, products of two values.

None in the place of an input's relevance means that none goes there.
Sources: Ali et al. 2022 (CP-LRP); Achtibat et al. 2024 (AttnLRP).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from ..layers import Op, bare, factor
from .accounts import all_handed_on
from .passing import unbroadcast
from .protocol import OF_ANOTHER, Account, Rule, known

Pull = Callable[[Any], Any]


@known(
    linear=True,
    conserves=True,
    stabilises=False,
    takes_apart=False,
    inside_only=False,
    account=all_handed_on,
)
def pass_value(op: Op, x: jax.Array, *rest: jax.Array) -> Pull:
    """R_x = R at y = x g(statistics): the statistics count as constants. Ali et al. 2022, eq. 9."""
    nothing = [None] * (len(op.layer.inputs) - 1)
    return lambda r: bare([unbroadcast(r, x), *nothing])


@known(linear=True, conserves=False, stabilises=False, takes_apart=False, inside_only=True)
def softmax_taylor(op: Op, x: jax.Array, y: jax.Array) -> Pull:
    """R_j = x_j (R_j - y_j sum_i R_i) at y = softmax(x), sums over the softmax's axes.

    The first-order term of y around x: what its constant term holds is lost. Achtibat et al. 2024,
    proposition 3.1.
    """
    finite = jnp.where(jnp.isinf(x), 0, x)  # what a mask hides has no share, and no relevance
    return lambda r: finite * (r - y * r.sum(op.detail.axes, keepdims=True))


def _of_product(
    op: Op,
    a: jax.Array,
    c: jax.Array,
    y: jax.Array,
    r: jax.Array,
    *,
    of: Rule,
    share: Literal["detached", "uniform"],
) -> Account:
    """The sum of the accounts of the factors, each of its part; entry by entry all is handed on."""
    if op.layer.primitive == "mul":
        return Account()
    told = [
        of.account(factor(op, (a, c), k), (a, c)[k], y, part * r)  # type: ignore[misc]
        for k, part in _parts(op, share).items()
    ]
    return Account(*(_added(terms) for terms in zip(*told, strict=True)))


def _added(terms: Sequence[Any]) -> Any:
    given = [t for t in terms if t is not None]
    return sum(given[1:], given[0]) if given else None


def _parts(op: Op, share: str) -> dict[int, float]:
    """What part of the relevance each factor gets, by its number."""
    weights = op.detail.weighs if share == "detached" else None
    return {0: 0.5, 1: 0.5} if weights is None else {1 - weights: 1.0}


@known(**OF_ANOTHER, account=_of_product)
def product(
    op: Op,
    a: jax.Array,
    c: jax.Array,
    y: jax.Array,
    *,
    of: Rule,
    share: Literal["detached", "uniform"],
) -> Pull:
    """Relevance of a and c at y = a c, entry by entry or as matrices.

    Each factor is seen as the input of a linear layer whose weights are the other, under the rule
    `of`. share "uniform": each gets half of what it would get so (Achtibat et al. 2024, eq. 13).
    "detached": where one only weighs the other (see `graph.products`: a mask, attention, a gate),
    the other gets everything and the weights none (Ali et al. 2022; for gates Arras et al. 2017);
    half and half where neither does.
    """
    values = (a, c)
    elementwise = op.layer.primitive == "mul"
    parts = _parts(op, share)

    def pull_to(k: int) -> Pull | None:
        if k not in parts:
            return None
        part = parts[k]
        if elementwise and share == "detached" and op.detail.why == "mask":
            shown = values[op.detail.weighs] != 0  # as behind a factor of 0, nothing goes there
            return lambda r: unbroadcast(jnp.where(shown, r, 0), values[k])
        if elementwise:
            return lambda r: unbroadcast(part * r, values[k])
        linear = of(factor(op, values, k), values[k], y)
        return lambda r: part * linear(r)

    pulls = [pull_to(k) for k in (0, 1)]
    return lambda r: tuple(None if pull is None else pull(r) for pull in pulls)
