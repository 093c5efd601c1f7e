"""Singular values of chains of relevance matrices: how close to rank 1 has the product come?

`singular_values` is matrix-free and works on a whole chain. It saturates as the product itself
does, in the precision of the model: in float32 a sigma_2 below 1e-6 sigma_1 is rounding. `lyapunov`
keeps the growth of each direction as a sum of logarithms over the layers, which does not saturate.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matfree.decomp import bidiag

from .._base import checks
from .._base.results import Results, key_text
from .._base.work import chunks
from ..graph.places import output_layer
from ..graph.reading import Model, source_of
from ..matrices import one_example
from ..methods.lookup import resolve_chain
from ..planning.claims import require
from ..propagation.baselines import of_images
from ..propagation.descent import descent
from ..propagation.method import Method
from ..propagation.operators import ChainOperator
from .cosines import reached_layers

_OVERSAMPLING = 5  # more directions than asked for are carried along, so that the last converge
_SWEEPS = 30
_SETTLED = 1e-4  # by how much a logarithm may still change between two sweeps
_TOLERANCE = 1e-4  # of what is left of a direction, which bounds the error of its value
_CHECK = 4  # steps that look for another copy of a singular value
_PER_VALUE = 12  # products for each singular value, above which the dense matrix costs less


class SingularValues(Results):
    """One row for each image and layer: method, start, layer, image, values (the leading singular
    values of Z from `start` to the layer's output), ratio (sigma_1 / sigma_2, or None for a
    sigma_2 of 0), resolved (whether sigma_2 stands above rounding) and products (with Z or its
    transpose)."""

    required = "method start layer image values ratio resolved".split()


class Lyapunov(Results):
    """One row for each image and link of the chain, from the upper to the lower.

    A row has method, start, layer (at whose output the link ends), image, growth (the natural
    logarithm of what the link does to the length of each leading direction), gap (growth_1 -
    growth_2), total (the sum of growth down to here; at the last link the logarithms of the whole
    chain's singular values), total_gap (log sigma_1 / sigma_2 at the last), resolved (for each
    direction: whether all of its growth stands above rounding; where not, it is an upper bound) and
    settled (whether the last sweep changed no total by more than 1e-4).
    """

    required = "method start layer image growth gap total total_gap resolved settled".split()


def singular_values(
    model: Model,
    images: Any,
    method: str | Method,
    *,
    key: jax.Array,
    start: str | None = None,
    layers: Sequence[str] | None = None,
    k: int = 5,
) -> SingularValues:
    """The k leading singular values of Z from `start` to each layer, for each image.

    images: a batch (N, ...). start: a layer (default: the model's output). layers: where the chains
    end (default: those below `start` that `csc` measures). Z is multiplied with and never stored,
    by Golub and Kahan's bidiagonalisation (matfree), to 1e-4 at worst; a Z of fewer than 12 k rows
    or columns is made dense. key: of the first Lanczos vector.
    Raises as `lrpjax.chain` does, and ValueError if the iteration does not converge.
    """
    method = resolve_chain(method, model)
    checks.check_images(images)
    checks.check_key(key)
    checks.check_count(1, k=k)
    source = source_of(model, images)
    require(source, images, method)
    rows = []
    for i, some in enumerate(chunks(len(images), 1, f"singular values, {method.name}")):
        at = of_images(method, images, some.index)
        reading = one_example(source, images[some.slice], at)
        start_name = start or output_layer(reading.graph)
        names = layers or reached_layers(reading, at, start_name)[1:]
        own = jax.random.fold_in(key, i)
        if not names:
            continue
        way = descent(reading, at, start_name, names)
        operators = {name: way.to(name) for name in names}
        few = [name for name, op in operators.items() if op.shape[0] <= _few(op, k)]
        made = dict(zip(few, way.dense(few), strict=True))
        for name, op in operators.items():
            values, products = _leading(op, k, own, made.get(name))
            ratio = float(values[0] / values[1]) if len(values) > 1 and values[1] > 0 else None
            rounding = 10 * float(jnp.finfo(op.dtype).eps)
            rows.append(
                {
                    "method": method.name,
                    "start": start_name,
                    "layer": op.stop,
                    "image": i,
                    "values": values.tolist(),
                    "ratio": ratio,
                    "resolved": ratio is not None and ratio < 1 / rounding,
                    "products": products,
                }
            )
    return SingularValues({"images": len(images), "k": k, "key": key_text(key)}, rows)


class Lanczos(NamedTuple):
    """What some steps of bidiagonalisation give: Ritz values, from the largest, how far each is
    from a singular value at most, and its right vector (a column)."""

    values: np.ndarray
    missed: np.ndarray
    vectors: np.ndarray


def _few(op: ChainOperator, k: int) -> int:
    """Up to how many rows Z is made dense from them, all at once with others."""
    return min(_PER_VALUE * k, op.shape[1])


def _leading(
    op: ChainOperator, k: int, key: jax.Array, dense: np.ndarray | None
) -> tuple[np.ndarray, int]:
    """The k leading singular values, from the largest, and how many products they took.

    dense: Z, where that is known already.
    """
    least = min(op.shape)
    if dense is not None:
        return _of_dense(dense, k), least
    if least <= _PER_VALUE * k:
        return _of_dense(op.dense(), k), least
    count, values, vectors = 0, np.zeros(0), np.zeros((op.shape[1], 0))
    for turn in range(k):
        for steps in (5 * k, 10 * k, 20 * k):
            found = _lanczos(op, jax.random.fold_in(key, turn), steps, vectors)
            count += 2 * steps
            rounding = 10 * np.finfo(op.dtype).eps * found.values[0]
            bound = np.maximum(_TOLERANCE * found.values[:k], rounding)
            if (found.missed[:k] <= bound).all() or 2 * steps >= least:
                break
        if not (found.missed[:k] <= bound).all():
            break
        values = np.concatenate([values, found.values[:k]])
        order = np.argsort(-values)[:k]
        vectors = np.concatenate([vectors, found.vectors[:, :k]], 1)[:, order]
        values = values[order]
        # One vector finds one copy of a repeated value: is there more, beside what was found?
        more = _lanczos(op, jax.random.fold_in(key, k + turn), _CHECK, vectors)
        count += 2 * _CHECK
        if not more.values[0] > values[-1] * (1 + _TOLERANCE):
            return values, count
    try:
        return _of_dense(op.dense(), k), count + least
    except ValueError as error:
        raise ValueError(
            f"The singular values of Z from {op.start!r} to {op.stop!r} did not converge: ask for "
            "fewer, or use lrpjax.convergence.lyapunov."
        ) from error


def _lanczos(op: ChainOperator, key: jax.Array, steps: int, known: np.ndarray) -> Lanczos:
    """Of Z beside the right vectors that are known. Golub and Kahan 1965."""
    b, left, basis = (np.asarray(a, np.float64) for a in _bidiagonal(op, key, steps, known))
    if not np.isfinite(b).all():  # the first vector's Krylov space was exhausted
        return Lanczos(np.zeros(steps), np.full(steps, np.inf), np.zeros((op.shape[1], steps)))
    u, values, vt = np.linalg.svd(b)
    return Lanczos(values, left * np.abs(u[-1]), basis.T @ vt.T)


@partial(jax.jit, static_argnums=2)
def _bidiagonal(
    op: ChainOperator, key: jax.Array, steps: int, known: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The upper bidiagonal B of Z = U B V^T, the length of what is left, and V^T."""
    precision = jnp.zeros(()).dtype  # matfree's, whatever the model's
    known = known.astype(precision)
    beside = lambda v: v - known @ (known.T @ v)
    multiply = lambda v: op.matvec(beside(v).astype(op.dtype)).astype(precision)
    first = beside(jax.random.normal(key, op.shape[1:], precision))
    found = bidiag(steps)(multiply, first)
    return found.J_small, jnp.linalg.norm(found.residual), found.Q_tall[1]


def _of_dense(z: Any, k: int) -> np.ndarray:
    return np.linalg.svd(np.asarray(z, np.float64), compute_uv=False)[:k]


def lyapunov(
    model: Model,
    images: Any,
    method: str | Method,
    *,
    key: jax.Array,
    start: str | None = None,
    stop: str = "input",
    k: int = 2,
) -> Lyapunov:
    """The growth of the k leading directions of Z, link by link: the rate of convergence.

    At each link the directions are multiplied by its Z^T and made orthonormal again: Y = Q R, and
    the logarithms of diag R add up (Benettin et al. 1980). Down and up the chain again and again,
    the first directions become the singular vectors of the whole, and the sums the logarithms of
    its singular values, whatever their ratio; one link alone resolves ratios up to 1e7 in float32.
    images: a batch (N, ...). Raises as `lrpjax.chain` does, and ValueError where no chain of links
    leads to `stop` (it lies inside of a residual block).
    """
    method = resolve_chain(method, model)
    checks.check_images(images)
    checks.check_key(key)
    checks.check_count(1, k=k)
    source = source_of(model, images)
    require(source, images, method)
    rows = []
    for i, some in enumerate(chunks(len(images), 1, f"Lyapunov exponents, {method.name}")):
        reading = one_example(source, images[some.slice], method)
        start_name = start or output_layer(reading.graph)
        chain = descent(reading, method, start_name, [stop]).links(stop)
        if not chain:
            raise ValueError(f"Between {start_name!r} and {stop!r} there is nothing to multiply.")
        growths, resolved, settled = _growths(chain, k, jax.random.fold_in(key, i))
        for n, op in enumerate(chain):
            total = growths[: n + 1].sum(0)
            row = {"method": method.name, "start": start_name, "layer": op.stop, "image": i}
            row |= {"growth": growths[n].tolist(), "gap": _gap(growths[n])}
            row |= {"total": total.tolist(), "total_gap": _gap(total)}
            row |= {"resolved": resolved[: n + 1].all(0).tolist(), "settled": settled}
            rows.append(row)
    return Lyapunov({"images": len(images), "k": k, "key": key_text(key)}, rows)


def _growths(
    chain: Sequence[ChainOperator], k: int, key: jax.Array
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Logarithms of diag R at each link (links, k), whether they stand above rounding, and whether
    the sweeps have settled."""
    columns = min(k + _OVERSAMPLING, *(n for op in chain for n in op.shape))
    k = min(k, columns)
    q, _ = jnp.linalg.qr(jax.random.normal(key, (chain[0].shape[0], columns), chain[0].dtype))
    before, settled = np.full(k, np.inf), False
    for _ in range(_SWEEPS):
        growths, resolved = [], []
        for op in chain:
            q, growth, above = _stretched(op.rmatmat(q))
            growths.append(np.asarray(growth, np.float64)[:k])
            resolved.append(np.asarray(above)[:k])
        total = np.sum(growths, 0)
        settled = bool(np.abs(total - before).max() < _SETTLED)
        if settled:
            break
        before = total
        for op in reversed(chain):
            q, _, _ = _stretched(op.matmat(q))
    return np.stack(growths), np.stack(resolved), settled


@jax.jit
def _stretched(y: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Y = Q R: Q, log |diag R| and whether each is more than the rounding of Y."""
    q, r = jnp.linalg.qr(y)
    rounding = 4 * jnp.finfo(y.dtype).eps * jnp.linalg.norm(y, axis=0).max()
    floor = jnp.maximum(rounding, jnp.finfo(y.dtype).tiny)
    diagonal = jnp.abs(jnp.diagonal(r))
    return q, jnp.log(jnp.maximum(diagonal, floor)), diagonal > floor


def _gap(growth: np.ndarray) -> float | None:
    return float(growth[0] - growth[1]) if len(growth) > 1 else None
