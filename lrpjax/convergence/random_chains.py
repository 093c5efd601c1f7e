"""Random chains: relevance vectors through Gaussian matrices with the shapes of a network.

Relevance vectors are rows, and a factor multiplies them from the right. The vectors of all cases
stand in one stack, so that a Gaussian factor W costs three products: with W, with its positive
part W+ and with |W|. Everything else follows: as beta = alpha - 1,

    alpha W+ + beta W- = beta W + W+        (W- holds the negative entries),

and the columns of |W| sum to one once the product is divided by their sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

# The channels of VGG-16 from the logits down to the image, 16 factors: a convolution counts as
# the matrix of one tap of its kernel, and fc1 as 512 x 4096.
DIMENSIONS = (1000, *[4096] * 2, *[512] * 6, *[256] * 3, *[128] * 2, *[64] * 2, 3)
SQUARE = (128,) * len(DIMENSIONS)

ALPHAS = (2, 3, 4, 5, 10)
FAMILY = tuple(f"alpha{a}-beta{a - 1}" for a in ALPHAS)
# In the order in which each of the three products needs a contiguous part.
_STACK = ("vanilla", "relu", *FAMILY, "non-negative", "stochastic", "positive")
_GAUSSIAN, _PLUS, _ABSOLUTE = slice(0, 7), slice(2, 8), slice(8, 10)
_RELU, _ALPHA_BETA, _STOCHASTIC = 1, slice(2, 7), 8
_BETAS = np.array([a - 1.0 for a in ALPHAS])[:, None, None]

CASES = ("vanilla", "relu", "stochastic", "positive", "non-negative", "alpha1-beta0", *FAMILY)
CONTROLS = ("square", "permutation")

_BLOCK = 2**18  # entries of a factor drawn at once: 2 MB stay in the cache


class Measured(NamedTuple):
    """One chain, step by step: the mean 1 - |cos| of its pairs, and how many vectors are not 0."""

    distance: np.ndarray
    alive: np.ndarray


def measure(seed: Sequence[int], index: int, *, vectors: int) -> dict[str, Measured]:
    """Draws and follows every chain once: repetition `index` of this seed."""
    network, square, permutation = generators(seed, index)
    start = network.standard_normal((vectors, DIMENSIONS[0]))
    found = _follow(np.stack([start] * len(_STACK)), DIMENSIONS, _all_cases, network)
    chains = dict(zip(_STACK, found, strict=True))
    chains["alpha1-beta0"] = chains["non-negative"]  # 1 W+ + 0 W- = max(0, W): the same chain
    for name, factor, rng in (("square", _plain, square), ("permutation", _permuted, permutation)):
        (chains[name],) = _follow(rng.standard_normal((1, vectors, SQUARE[0])), SQUARE, factor, rng)
    return chains


def generators(seed: Sequence[int], index: int) -> list[np.random.Generator]:
    """The random numbers of one repetition: for the network's chains, and for the two controls."""
    return np.random.default_rng([*seed, index]).spawn(3)


def mean_distance(unit: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Mean 1 - |cos| of the pairs in each stack of unit vectors (..., V, n); nan without a pair.

    As half the squared distance, which resolves 1e-26 in float64, where 1 - u.v stops at 1e-16.
    alive (..., V): which vectors are not zero; the others have no angle.
    """
    total = np.zeros(unit.shape[:-2])
    for i in range(1, unit.shape[-2]):
        others, own = unit[..., :i, :], unit[..., i : i + 1, :]
        side = np.where(others @ own.swapaxes(-1, -2) < 0, -1.0, 1.0)
        apart = others - side * own
        squared = np.einsum("...vn,...vn->...v", apart, apart)
        total += np.where(alive[..., :i] & alive[..., i : i + 1], squared / 2, 0).sum(-1)
    count = alive.sum(-1)
    pairs = count * (count - 1) / 2
    return np.divide(total, pairs, out=np.full_like(total, np.nan), where=pairs > 0)


def _follow(
    relevance: np.ndarray,
    dimensions: Sequence[int],
    factor: Callable[[np.ndarray, int, np.random.Generator], np.ndarray],
    rng: np.random.Generator,
) -> list[Measured]:
    """Each chain of the stack (chains, vectors, n), measured at its start and after each factor.

    The vectors are brought to length 1 at each step, which no angle sees: |W| overflows otherwise.
    """
    steps = []
    for step, dimension in enumerate(dimensions):
        if step > 0:
            relevance = factor(relevance, dimension, rng)
        norms = np.linalg.norm(relevance, axis=-1, keepdims=True)
        relevance = np.divide(relevance, norms, out=np.zeros_like(relevance), where=norms > 0)
        alive = norms[..., 0] > 0
        steps.append((mean_distance(relevance, alive), alive.sum(-1)))
    distance, count = (np.stack(part, axis=1) for part in zip(*steps, strict=True))
    return [Measured(*chain) for chain in zip(distance, count, strict=True)]


def _all_cases(relevance: np.ndarray, dimension: int, rng: np.random.Generator) -> np.ndarray:
    """One Gaussian factor for the whole stack.

    It is drawn transposed, (dimension, n), in blocks of rows: a whole one holds 134 MB, and the
    blocks continue one stream of numbers.
    """
    chains, vectors, n = relevance.shape
    rows = max(1, _BLOCK // n)
    blocks = []
    for first in range(0, dimension, rows):
        w = rng.standard_normal((min(rows, dimension - first), n))
        out = np.zeros((chains, vectors, len(w)))
        out[_GAUSSIAN] = _times(relevance[_GAUSSIAN], w)
        out[_RELU] = np.maximum(out[_RELU], 0)
        out[_ALPHA_BETA] *= _BETAS
        out[_PLUS] += _times(relevance[_PLUS], np.maximum(w, 0))
        absolute = np.abs(w)
        out[_ABSOLUTE] = _times(relevance[_ABSOLUTE], absolute)
        out[_STOCHASTIC] /= absolute.sum(1)
        blocks.append(out)
    return np.concatenate(blocks, axis=-1)


def _plain(relevance: np.ndarray, dimension: int, rng: np.random.Generator) -> np.ndarray:
    return _times(relevance, rng.standard_normal((dimension, relevance.shape[-1])))


def _permuted(relevance: np.ndarray, dimension: int, rng: np.random.Generator) -> np.ndarray:
    return relevance[..., rng.permutation(dimension)]


def _times(relevance: np.ndarray, transposed: np.ndarray) -> np.ndarray:
    """Vectors (chains, V, n) times a factor given as its transpose, as one product."""
    product = relevance.reshape(-1, relevance.shape[-1]) @ transposed.T
    return product.reshape(*relevance.shape[:-1], len(transposed))
