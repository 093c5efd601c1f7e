"""Angles between the maps that single units send: the extreme rays of the cone of all maps.

Relevance r >= 0 of n units gives the map sum_i r_i g_i, g_i what unit i alone sends. No two such
maps are farther apart than two of the g_i are, if these are within 90 degrees of each other: the
vectors within an angle of up to 90 degrees of one vector form a convex cone.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_BLOCK = 2**24  # distances held at once
NO_ANGLE = -1.0  # in the place of 1 - cos, which is never negative


class Widest(NamedTuple):
    """The widest pair of rays: 1 - cos of its angle and the numbers of the two.

    Arrays with one entry for each set of rays; one_minus_cos is NO_ANGLE where a set has fewer than
    two rays that are not zero.
    """

    one_minus_cos: jax.Array
    first: jax.Array
    second: jax.Array


@jax.jit
def widest(rays: jax.Array) -> Widest:
    """The widest pair in each of many sets of rays (sets, n, d); rays of zero have no angle."""
    return jax.lax.map(_widest_of, rays)


def _widest_of(rays: jax.Array) -> Widest:
    """1 - cos as half the squared distance of unit vectors, seen from their mean.

    |u - v|^2 = |u - c|^2 + |v - c|^2 - 2 (u - c)(v - c) loses nothing where all rays are nearly the
    same, which is where it matters: 1 - u v stops at 1e-7 in float32.
    """
    n = len(rays)
    unit, given = units(rays)
    centre = unit.sum(0) / jnp.maximum(given.sum(), 1)
    off = jnp.where(given[:, None], unit - centre, 0)
    squares = (off**2).sum(-1)
    size = max(1, min(n, _BLOCK // n))
    starts = jnp.minimum(jnp.arange(0, n, size), n - size)  # the last block may overlap

    def farthest(start):
        rows = jax.lax.dynamic_slice_in_dim(off, start, size)
        own = jax.lax.dynamic_slice_in_dim(squares, start, size)
        valid = jax.lax.dynamic_slice_in_dim(given, start, size)[:, None] & given
        products = jnp.matmul(rows, off.T, precision="highest")
        distance = jnp.where(valid, own[:, None] + squares - 2 * products, -jnp.inf)
        most = distance.max(1)  # which of all it is takes far longer to say
        best = jnp.argmax(most)
        return most[best], start + best, jnp.argmax(distance[best])

    distances, firsts, seconds = jax.lax.map(farthest, starts)
    best = jnp.argmax(distances)
    i, j = firsts[best], seconds[best]
    exact = ((unit[i] - unit[j]) ** 2).sum() / 2
    return Widest(jnp.where(given.sum() > 1, exact, NO_ANGLE), i, j)


def units(vectors: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Vectors (..., d) with length 1 (zeros stay), and which are not zero."""
    largest = jnp.abs(vectors).max(-1, keepdims=True)
    given = largest > 0
    scaled = vectors / jnp.where(given, largest, 1)  # so that very small squares do not vanish
    length = jnp.linalg.norm(scaled, axis=-1, keepdims=True)
    return scaled / jnp.where(given, length, 1), given[..., 0]


def degrees(one_minus_cos: np.ndarray | float) -> np.ndarray:
    """The angle of 1 - cos: 2 arcsin sqrt((1 - cos) / 2), exact for small ones."""
    half = np.clip(np.asarray(one_minus_cos, np.float64) / 2, 0, 1)
    return np.degrees(2 * np.arcsin(np.sqrt(half)))


@jax.jit
def projective_diameter(a: jax.Array) -> jax.Array:
    """Delta(A) = max log (a_ij a_kl / a_il a_kj) of a positive matrix (n, m).

    The diameter of the image of the positive cone in Hilbert's metric, that A contracts by
    tanh(Delta / 4). Birkhoff 1957.
    """
    logs = jnp.log(a)
    most = jax.lax.map(lambda row: (logs - row).max(-1), logs)  # max_j log (a_ij / a_kj)
    return (most + most.T).max()
