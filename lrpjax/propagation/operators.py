"""Z as an operator: multiplied with and never stored, unless it is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .._base import checks
from .._base.progress import track

MEMORY = 2 * 10**9  # bytes that a dense matrix may take, unless the caller says more


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["pull"],
    meta_fields=["method", "start", "stop", "out_shape", "in_shapes", "dtype", "at_once"],
)
@dataclass(frozen=True)
class ChainOperator:
    """The matrix Z (n_out, n_in) from `start` down to `stop`, for one example, as products with it.

    Vectors are flat, entries in the order of the layers' own arrays (out_shape, in_shapes: several
    where a layer has several inputs). It is a pytree, and jit, vmap and scipy's `aslinearoperator`
    take it; of two consecutive operators `upper @ lower` is the whole, in scipy's algebra.
    method: the name of the one whose matrix it is. at_once: how many vectors propagate at once.
    """

    pull: jax.tree_util.Partial
    method: str
    start: str
    stop: str
    out_shape: tuple[int, ...]
    in_shapes: tuple[tuple[int, ...], ...]
    dtype: Any
    at_once: int

    @property
    def shape(self) -> tuple[int, int]:
        return math.prod(self.out_shape), sum(map(math.prod, self.in_shapes))

    @property
    def is_linear(self) -> bool:
        """Whether JAX can transpose the map, which it can if it is linear."""
        like = _taken(self.pull)
        pull = lambda r: self.pull([r])
        try:
            jax.eval_shape(lambda r: jax.linear_transpose(pull, like)(pull(r)), like)
        except (NotImplementedError, AssertionError, TypeError, ValueError):
            return False
        return True

    @property
    def nbytes(self) -> int:
        """What Z would take, made dense."""
        return math.prod(self.shape) * jnp.dtype(self.dtype).itemsize

    def rmatvec(self, r: Any) -> jax.Array:
        """Z^T r, (n_out,) to (n_in,): propagates relevance of `start` to `stop`."""
        return self.rmatmat(jnp.ravel(r)[:, None])[:, 0]

    def matvec(self, v: Any) -> jax.Array:
        """Z v, (n_in,) to (n_out,): the transpose of the propagation."""
        return self.matmat(jnp.ravel(v)[:, None])[:, 0]

    def rmatmat(self, columns: Any) -> jax.Array:
        """Z^T R, (n_out, k) to (n_in, k). ValueError for another shape, NaN or infinity."""
        return self._product(_many_down, self._checked(columns, 0))

    def matmat(self, columns: Any) -> jax.Array:
        """Z V, (n_in, k) to (n_out, k). ValueError for another shape, NaN or infinity."""
        return self._product(_many_up, self._checked(columns, 1))

    def _product(self, many: Callable, columns: jax.Array) -> jax.Array:
        count, label = columns.shape[1], f"{self.method}, products"
        found = _in_chunks(partial(many, self.pull, columns), count, self.at_once, 1, label)
        checks.check_maps(self.method, [found])
        return found

    def _checked(self, columns: Any, axis: int) -> jax.Array:
        if jnp.iscomplexobj(columns):
            raise TypeError("The vectors must be real numbers, got complex ones.")
        columns = jnp.asarray(columns, self.dtype)
        if columns.ndim != 2 or len(columns) != self.shape[axis]:
            raise ValueError(
                f"Z from {self.start!r} to {self.stop!r} has shape {self.shape}: it takes "
                f"{self.shape[axis]} entries (k columns of them) here, got shape {columns.shape}."
            )
        checks.check_finite([columns], ["the vectors"])
        return columns

    def dense(self, *, memory_limit: float = MEMORY) -> jax.Array:
        """Z itself, (n_out, n_in), from unit vectors on its shorter side, `at_once` at a time.

        memory_limit: in bytes. ValueError if Z takes more, with what to use instead.
        """
        if self.nbytes > memory_limit:
            n_out, n_in = self.shape
            raise ValueError(
                f"Z from {self.start!r} to {self.stop!r} is {n_out} x {n_in} and takes "
                f"{_bytes(self.nbytes)}, more than the limit of {_bytes(memory_limit)}: use "
                "lrpjax.chain, which multiplies with it without storing it, or give a larger "
                "memory_limit."
            )
        n_out, n_in = self.shape
        propagate, n = (_down, n_out) if n_out <= n_in else (_up, n_in)
        rows = _in_chunks(
            partial(_unit_rows, self.pull, propagate, n),
            n,
            self.at_once,
            0,
            f"{self.method}, matrix",
        )
        checks.check_maps(self.method, [rows])
        return rows if n_out <= n_in else rows.T


# What is compiled is for a propagation, whatever its place in the network is called.


def _taken(pull: jax.tree_util.Partial) -> jax.ShapeDtypeStruct:
    """What a replay of one value takes."""
    replay: Any = pull.func
    (like,) = replay.like
    return like


def _down(pull: jax.tree_util.Partial, r: jax.Array) -> jax.Array:
    """Z^T r of a flat r."""
    like = _taken(pull)
    return jnp.concatenate([part.ravel() for part in pull([r.reshape(like.shape)])])


def _up(pull: jax.tree_util.Partial, v: jax.Array) -> jax.Array:
    """Z v of a flat v."""
    like = _taken(pull)
    flat = jax.ShapeDtypeStruct((math.prod(like.shape),), like.dtype)
    down = partial(_down, pull)
    (out,) = jax.linear_transpose(down, flat)(v.astype(jax.eval_shape(down, flat).dtype))
    return out


@partial(jax.jit, static_argnums=3)
def _many_down(pull: jax.tree_util.Partial, columns: jax.Array, first: int, n: int) -> jax.Array:
    some = jax.lax.dynamic_slice_in_dim(columns, first, n, 1)
    return jax.vmap(partial(_down, pull), 1, 1)(some)


@partial(jax.jit, static_argnums=3)
def _many_up(pull: jax.tree_util.Partial, columns: jax.Array, first: int, n: int) -> jax.Array:
    some = jax.lax.dynamic_slice_in_dim(columns, first, n, 1)
    return jax.vmap(partial(_up, pull), 1, 1)(some)


@partial(jax.jit, static_argnums=(1, 2, 4))
def _unit_rows(
    pull: jax.tree_util.Partial, propagate: Callable, size: int, first: int, n: int
) -> jax.Array:
    """What is propagated from n unit vectors, of `size` entries, from number `first`."""
    units = jax.nn.one_hot(first + jnp.arange(n), size, dtype=_taken(pull).dtype)
    return jax.vmap(partial(propagate, pull))(units)


def _in_chunks(
    apply: Callable[[int, int], jax.Array], n: int, most: int, axis: int, label: str
) -> jax.Array:
    """apply(first, size) from first = 0 to n, in chunks of one size, joined along an axis.

    The loop is Python's: in one of XLA's own, a processor takes several times as long for a
    convolution whose kernel is not laid out as XLA would choose.
    """
    if n <= most:
        return apply(0, n)
    size = -(-n // -(-n // most))
    starts = [*range(0, n - size, size), n - size]  # the last chunk may overlap the one before
    parts = [apply(first, size) for first in track(starts, label)]
    parts[-1] = jax.lax.slice_in_dim(parts[-1], size * len(starts) - n, size, axis=axis)
    return jnp.concatenate(parts, axis)


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
