"""Parts that a network holds only where it is asked for: (draft, value) -> value.

Each makes some question answerable (whose rule is the first layer's?) that most networks do not
pose, or takes an answer away that most networks have.
"""

from __future__ import annotations

import numpy as np

from .draft import ACTS, Draft


def fixed_map(d: Draft, i: int) -> int:
    """A linear map whose numbers are no parameters, bare or behind a layer: colours mixed, tokens
    or pixels mixed or resized, a filter of frequencies."""
    i = d.layer(i) if d.chance() else i
    rank, size = len(d.shape(i)), d.shape(i)[-1]
    kind = d.choose("mixed", "mixed", "filtered", "resized" if rank > 1 else "filtered")
    if kind == "filtered":
        mask = d.rng.uniform(0.3, 1, size)
        mask = (mask + mask[-np.arange(size)]) / 2  # so that real numbers stay real
        matrix = np.fft.ifft(np.fft.fft(np.eye(size)) * mask).real
        i = d.add("spectral", i, axis=rank - 1, matrix=matrix, mask=mask)
    elif kind == "resized":
        axis = int(d.rng.integers(rank - 1))
        matrix = _bilinear(d.shape(i)[axis], 2 * d.shape(i)[axis])
        i = d.add("fixed", i, axis=axis, matrix=matrix, resized=True)
    else:
        axis = int(d.rng.integers(rank))
        matrix = d.rng.normal(size=(d.shape(i)[axis],) * 2)
        i = d.add("fixed", i, axis=axis, matrix=matrix)
    return d.layer(i) if d.chance(0.7) else i


def _bilinear(n: int, m: int) -> np.ndarray:
    """(n, m): the weights of linear interpolation from n to m places, edges repeated."""
    at = (np.arange(m) + 0.5) * n / m - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(n)[:, None] - at))
    return weights / weights.sum(0)


OWN = ("reversal", "clipped", "binarised", "rounded", "other_slope")


def own_derivative(d: Draft, i: int) -> int:
    """A function whose derivative is not that of what it computes, between two layers."""
    d.refused |= {"lrp", "deeplift"}
    i = d.linear(i) if d.chance() else d.layer(i)
    i = d.add("own", i, name=d.choose(*OWN))
    return d.layer(i)  # what is rounded may be 0, where spellings of an activation differ


UNKNOWN = ("sine", "exponential", "sorted", "log_sum")


def unknown(d: Draft, i: int) -> int:
    """What LRP has no rule for."""
    d.refused.add("deeplift")
    i = d.linear(i) if d.chance() else d.layer(i)
    i = d.add("unknown", i, name=d.choose(*UNKNOWN))
    return d.act(d.linear(i), *ACTS)


def quotient(d: Draft, i: int) -> int:
    """A vector over one of as many numbers: each is a sum, of values that nothing else reads, as a
    norm's statistic is, but none is shared."""
    d.refused.add("deeplift")
    axes = tuple(range(len(d.shape(i)) - 1))
    i = d.add("mean", i, axes=axes) if axes else i
    (c,) = d.shape(i)
    terms = d.add("act", d.dense(i, 3 * c), name="softplus")
    total = d.add("sum", d.add("reshape", terms, shape=(c, 3)), axes=(1,))
    return d.layer(d.add("unknown", d.dense(i, c), total, name="over"))


def rounded(d: Draft, i: int) -> int:
    """Whole numbers with the derivative of what they were: zeros and ties, on which what comes next
    hangs. No oracle says what the derivative is there: it is JAX's, of each spelling."""
    d.refused |= {"lrp", "deeplift"}
    i = d.add("own", d.linear(i), name="rounded")
    axes = tuple(range(len(d.shape(i)) - 1))
    if axes and d.chance(0.3):
        most = d.add("spread", d.add("max_over", i, axes=axes), axes=axes, shape=d.shape(i))
        i = d.mul(i, most, None)
    if len(d.shape(i)) == 3 and min(d.shape(i)[:2]) > 1 and d.chance():
        strides = d.choose((2, 2), (1, 1))
        i = d.add("max_pool", i, window=(2, 2), strides=strides, padding=((0, 0), (0, 0)))
    return d.layer(d.act(i, "relu", "relu6", "leaky_relu", "clip"))


def threshold(d: Draft, i: int) -> int:
    """Truth values as numbers, through which all goes."""
    d.refused.add("deeplift")
    return d.layer(d.add("unknown", d.layer(i), name="threshold"))


def dead_end(d: Draft, i: int) -> int:
    """h + relu(dense(h) - 1000): a branch that adds nothing, of two layers."""
    c = d.shape(i)[-1]
    inner = d.act(d.add("offset", d.dense(i, c), by=-1000.0), "relu")
    return d.add("add", i, d.dense(inner, c, bias=False), sign=1)


def one_channel(d: Draft, i: int) -> int:
    """A bottleneck of one unit."""
    return d.layer(d.act(d.dense(i, 1), "tanh", "leaky_relu", "softplus"), 4)


def tied(d: Draft, i: int) -> int:
    """A kernel that is used below a layer and above it, as an embedding tied to the output is. The
    layer between may have the name that the second use would be given."""
    first = d.act(d.dense(i, d.shape(i)[-1]), *ACTS)
    param = d.nodes[first - 1].param
    d.expect(f"{param}_2")
    return d.act(d.add("dense", d.layer(first), param=param), *ACTS)
