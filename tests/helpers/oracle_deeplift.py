"""DeepLIFT in plain numpy: one input and one reference at a time, flat vectors, dense matrices.

Written from the equations alone (Shrikumar et al. 2017; for the ablation Sixt et al. 2020). Every
value of a network has a difference D from its reference, split as D = plus + minus, and two
multipliers, one for each part; its contribution is m+ plus + m- minus. Nothing here is shared
with the library.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

NO_DIFFERENCE = 1e-7  # below this |D| the ratio of an activation is its slope at the reference
PSEUDO_COUNT = 1e-7  # added to the parts of a split that are below half of it

Multipliers = tuple[np.ndarray, np.ndarray]  # m+ and m-


@dataclass(frozen=True)
class Method:
    """activation: "rescale" or "reveal-cancel". linear: "mixed" (DeepLIFT), or the ablation as it
    was run, "code", or as it was written, "text". max_pool: "complete" or "gradient"."""

    activation: str = "rescale"
    linear: str = "mixed"
    max_pool: str = "complete"


@dataclass(frozen=True)
class Value:
    """A value at the input and at the reference, and the split of their difference."""

    x: np.ndarray
    ref: np.ndarray
    plus: np.ndarray
    minus: np.ndarray

    @property
    def difference(self) -> np.ndarray:
        return self.x - self.ref


def positive(a: np.ndarray) -> np.ndarray:
    return np.maximum(a, 0)


def negative(a: np.ndarray) -> np.ndarray:
    return np.minimum(a, 0)


def by_sign(D: np.ndarray, above: Any, below: Any, zero: Any) -> np.ndarray:
    return np.where(D > 0, above, np.where(D < 0, below, zero))


@dataclass(frozen=True)
class Linear:
    """z = W h + b: a dense layer or a convolution."""

    W: np.ndarray
    b: np.ndarray

    def forward(self, method: Method, h: Value) -> Value:
        c = self.W * h.difference
        z, z0 = (self.W @ v + self.b for v in (h.x, h.ref))
        return Value(z, z0, positive(c).sum(1), negative(c).sum(1))

    def back(self, method: Method, m: Multipliers, h: Value) -> list[Multipliers]:
        plus, minus = m
        D, up, down = h.difference, positive(self.W).T, negative(self.W).T
        if method.linear == "text":
            return [((D > 0) * (up @ plus), (D < 0) * (down @ minus))]
        mean = self.W.T @ (plus + minus) / 2
        if method.linear == "code":
            both = by_sign(D, up @ plus, up @ minus, mean)
        else:
            both = by_sign(D, up @ plus + down @ minus, down @ plus + up @ minus, mean)
        return [(both, both)]


@dataclass(frozen=True)
class Activation:
    """y = f(h), elementwise. slope: the derivative of f."""

    f: Callable[[np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray], np.ndarray]

    def forward(self, method: Method, h: Value) -> Value:
        y, y0 = self.f(h.x), self.f(h.ref)
        if method.activation == "reveal-cancel":
            return Value(y, y0, *self._revealed(h))
        ratio = self._ratio(h)
        return Value(y, y0, h.plus * ratio, h.minus * ratio)

    def back(self, method: Method, m: Multipliers, h: Value) -> list[Multipliers]:
        plus, minus = m
        if method.activation == "reveal-cancel":
            of_plus, of_minus = self._revealed(h)
            return [(plus * of_plus / _counted(h.plus), minus * of_minus / _counted(h.minus))]
        ratio = self._ratio(h)
        return [(plus * ratio, minus * ratio)]

    def _ratio(self, h: Value) -> np.ndarray:
        D = h.difference
        small = np.abs(D) < NO_DIFFERENCE
        rise = self.f(h.x) - self.f(h.ref)
        return np.where(small, self.slope(h.ref), rise / np.where(small, 1, D))

    def _revealed(self, h: Value) -> Multipliers:
        """What each part does to y: the mean of when it comes first and when it comes second."""
        f, r = self.f, h.ref

        def share(own, other):
            return (f(r + own) - f(r)) / 2 + (f(r + other + own) - f(r + other)) / 2

        return share(h.plus, h.minus), share(h.minus, h.plus)


def _counted(d: np.ndarray) -> np.ndarray:
    return d + np.where(np.abs(d) < PSEUDO_COUNT / 2, np.where(d < 0, -1, 1) * PSEUDO_COUNT, 0)


@dataclass(frozen=True)
class MaxPool:
    """The maximum of each window, a list of places."""

    windows: Sequence[list[int]]

    def forward(self, method: Method, h: Value) -> Value:
        y, y0 = (np.array([v[w].max() for w in self.windows]) for v in (h.x, h.ref))
        if method.max_pool == "gradient":
            return Value(y, y0, positive(y - y0), negative(y - y0))
        T = self._routes(method, h)
        return Value(y, y0, T.T @ h.plus, T.T @ h.minus)

    def back(self, method: Method, m: Multipliers, h: Value) -> list[Multipliers]:
        T = self._routes(method, h)
        return [(T @ m[0], T @ m[1])]

    def _routes(self, method: Method, h: Value) -> np.ndarray:
        """T_jw: what multiplier j gets of the multiplier of window w."""
        T, D = np.zeros((h.x.size, len(self.windows))), h.difference
        for w, window in enumerate(self.windows):
            j, k = (window[int(np.argmax(v[window]))] for v in (h.x, h.ref))
            if method.max_pool == "gradient":
                T[j, w] = 1
                continue
            y, y0 = h.x[j], h.ref[k]
            for winner, share in ((j, max(y, y0) - y0), (k, y - max(y, y0))):
                if D[winner] != 0:
                    T[winner, w] += share / D[winner]
        return T


@dataclass(frozen=True)
class Fixed:
    """sum_k M_k h_k + c: means, average pools, moves and concatenations."""

    M: Sequence[np.ndarray]
    c: np.ndarray

    def forward(self, method: Method, *h: Value) -> Value:
        total = lambda parts: sum(M @ part for M, part in zip(self.M, parts, strict=True))
        return Value(
            total(v.x for v in h) + self.c,
            total(v.ref for v in h) + self.c,
            total(v.plus for v in h),
            total(v.minus for v in h),
        )

    def back(self, method: Method, m: Multipliers, *h: Value) -> list[Multipliers]:
        return [(M.T @ m[0], M.T @ m[1]) for M in self.M]


@dataclass(frozen=True)
class Add:
    """a + c, or a - c with the signs (1, -1). places: which entry of each branch an output reads,
    where a branch is repeated."""

    signs: tuple[int, int]
    places: Sequence[np.ndarray]

    def forward(self, method: Method, *h: Value) -> Value:
        terms = [s * v.difference[p] for s, p, v in zip(self.signs, self.places, h, strict=True)]
        y, y0 = (
            sum(s * v[p] for s, p, v in zip(self.signs, self.places, vs, strict=True))
            for vs in ([v.x for v in h], [v.ref for v in h])
        )
        return Value(y, y0, sum(map(positive, terms)), sum(map(negative, terms)))

    def back(self, method: Method, m: Multipliers, *h: Value) -> list[Multipliers]:
        plus, minus = m
        pulled = []
        for sign, places, v in zip(self.signs, self.places, h, strict=True):
            above, below = (plus, minus) if sign > 0 else (-minus, -plus)
            each = by_sign(v.difference[places], above, below, sign * (plus + minus) / 2)
            both = np.bincount(places, each, v.x.size)
            pulled.append((both, both))
        return pulled


@dataclass(frozen=True)
class Scale:
    """y = g h + c, elementwise: BatchNorm that stands alone."""

    g: np.ndarray
    c: np.ndarray

    def forward(self, method: Method, h: Value) -> Value:
        up, down = positive(self.g), negative(self.g)
        plus, minus = up * h.plus + down * h.minus, up * h.minus + down * h.plus
        return Value(self.g * h.x + self.c, self.g * h.ref + self.c, plus, minus)

    def back(self, method: Method, m: Multipliers, h: Value) -> list[Multipliers]:
        plus, minus = m
        up, down = positive(self.g), negative(self.g)
        return [(plus * up + minus * down, plus * down + minus * up)]


Layers = Mapping[str, tuple[Any, tuple[str, ...]]]  # by name: the layer and what it reads


def values(layers: Layers, method: Method, x: np.ndarray, ref: np.ndarray) -> dict[str, Value]:
    """Every value by the name of the layer that writes it; "input" is the input itself."""
    D = x - ref
    found = {"input": Value(x, ref, positive(D), negative(D))}
    for name, (layer, reads) in layers.items():
        found[name] = layer.forward(method, *(found[v] for v in reads))
    return found


def contributions(
    layers: Layers,
    method: Method,
    x: np.ndarray,
    ref: np.ndarray,
    m: np.ndarray,
    start: str | None = None,
) -> dict[str, np.ndarray]:
    """The contribution of every value, for multipliers m of the output of `start` (the last)."""
    found = values(layers, method, x, ref)
    multipliers = {name: [np.zeros(v.x.size), np.zeros(v.x.size)] for name, v in found.items()}
    multipliers[start or list(layers)[-1]] = [m, m]
    for name, (layer, reads) in reversed(layers.items()):
        pulled = layer.back(method, tuple(multipliers[name]), *(found[v] for v in reads))
        for value, parts in zip(reads, pulled, strict=True):
            multipliers[value] = [a + b for a, b in zip(multipliers[value], parts, strict=True)]
    return {
        name: plus * found[name].plus + minus * found[name].minus
        for name, (plus, minus) in multipliers.items()
    }
