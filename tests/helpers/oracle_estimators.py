"""Occlusion, integrated gradients and contrastive relevance in plain numpy, from the formulas.

Nothing here is fast, and nothing is shared with the library.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy.integrate import quad

from helpers.oracle import Affine, Rule

QUADRATURES = ("gauss-legendre", "left", "right", "middle", "trapezoid")


def quadrature(name: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The nodes and the weights on [0, 1]."""
    k, same = np.arange(steps), np.full(steps, 1 / steps)
    if name == "gauss-legendre":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        return (nodes + 1) / 2, weights / 2
    if name == "trapezoid":
        ends = np.where((k == 0) | (k == steps - 1), 0.5, 1.0)
        return k / (steps - 1), ends / (steps - 1)
    return (k + {"left": 0, "middle": 0.5, "right": 1}[name]) / steps, same


def path_integral(
    m: Callable, x: np.ndarray, x0: Any, nodes: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """(x - x0) sum_k w_k m(x0 + a_k (x - x0)): `m` maps a batch to its maps."""
    pairs = zip(nodes, weights, strict=True)
    return (x - x0) * sum(w * np.asarray(m(x0 + a * (x - x0))) for a, w in pairs)


@dataclass(frozen=True, eq=False)
class TanhNet:
    """tanh(x W + b) V for flattened x, with its gradient by hand."""

    W: np.ndarray
    b: np.ndarray
    V: np.ndarray

    def logits(self, x: np.ndarray) -> np.ndarray:
        return np.tanh(x.reshape(len(x), -1) @ self.W + self.b) @ self.V

    def gradient(self, x: np.ndarray, target: int) -> np.ndarray:
        slope = 1 - np.tanh(x.reshape(len(x), -1) @ self.W + self.b) ** 2
        return ((slope * self.V[:, target]) @ self.W.T).reshape(x.shape)

    def integrated(self, x: np.ndarray, x0: np.ndarray, target: int) -> np.ndarray:
        """(x - x0) times the integral over the straight path, pixel by pixel."""
        found = np.empty(x.shape)
        for at in np.ndindex(x.shape):
            along = lambda a, at=at: self.gradient(x0 + a * (x - x0), target)[at]
            found[at] = quad(along, 0, 1, epsabs=1e-12)[0]
        return (x - x0) * found


def starts(size: int, window: int, stride: int) -> list[int]:
    """0, stride, ... up to the first window that reaches the border."""
    found = [0]
    while found[-1] + window < size:
        found.append(found[-1] + stride)
    return found


def occlusion(
    f: Callable, x: np.ndarray, axes: Sequence[int], window: Sequence[int], stride: Sequence[int],
    baseline: Any = 0.0,
) -> np.ndarray:  # fmt: skip
    """The mean over the windows that cover a pixel of f(x) - f(x with the window replaced).

    f: from a batch to a number for each image. axes: the spatial axes of x, counting the batch.
    """
    total, covered = np.zeros(x.shape), np.zeros(x.shape)
    replacement = np.broadcast_to(baseline, x.shape)
    sizes = [x.shape[axis] for axis in axes]
    for corner in product(*map(starts, sizes, window, stride)):
        box = [slice(None)] * x.ndim
        for axis, start, size in zip(axes, corner, window, strict=True):
            box[axis] = slice(start, start + size)
        hidden = x.copy()
        hidden[tuple(box)] = replacement[tuple(box)]
        total[tuple(box)] += (f(x) - f(hidden)).reshape(-1, *[1] * (x.ndim - 1))
        covered[tuple(box)] += 1
    return total / covered


def propagated(
    rule: Rule, layers: Sequence[Affine], hidden: Sequence[np.ndarray], seed: np.ndarray
) -> np.ndarray:
    """The seed at the logits through every layer's rule, down to the input of one image."""
    R = seed
    for layer, h in zip(layers[::-1], hidden[::-1], strict=True):
        R = rule(layer, h, R)
    return R


def target_and_dual(
    rule: Rule, layers: Sequence[Affine], x: np.ndarray, target: int, dual: str, others: float = 1
) -> tuple[np.ndarray, np.ndarray]:
    """R and R_dual of one image under a chain of affine layers with ReLU between them.

    others: what each of the other classes starts with, for the dual "classes".
    """
    hidden = [x.ravel()]
    for layer in layers[:-1]:
        hidden.append(np.maximum(layer.W @ hidden[-1] + layer.b, 0))
    last = layers[-1]
    one = np.eye(len(last.b))[target]
    R = propagated(rule, layers, hidden, one)
    if dual == "classes":
        return R, propagated(rule, layers, hidden, others * (1 - one))
    negated = Affine(-last.W, -last.b, last.connected)
    return R, propagated(rule, [*layers[:-1], negated], hidden, one)


def contrastive(R: np.ndarray, dual: np.ndarray) -> np.ndarray:
    return np.maximum(0, R / R.sum() - dual / dual.sum())
