"""Angles of rays and Hilbert's metric by their definitions, in numpy with long floats."""

from itertools import combinations

import numpy as np


def one_minus_cos(u, v):
    """1 - cos as half the squared distance of the unit vectors."""
    u, v = (np.asarray(a, np.longdouble) for a in (u, v))
    unit = lambda a: a / np.linalg.norm(a / np.abs(a).max()) / np.abs(a).max()
    return float(((unit(u) - unit(v)) ** 2).sum() / 2)


def widest(rays):
    """The largest 1 - cos of two rays that are not zero, over all pairs; NaN if there are none."""
    given = [ray for ray in np.asarray(rays) if np.any(ray)]
    return max((one_minus_cos(u, v) for u, v in combinations(given, 2)), default=np.nan)


def degrees(distance):
    """The angle of 1 - cos."""
    return np.degrees(2 * np.arcsin(np.sqrt(np.asarray(distance) / 2)))


def many(u, v):
    """1 - cos of rows u_i and v_i, in double precision; rows of zero have none."""
    norms = np.linalg.norm(u, axis=-1), np.linalg.norm(v, axis=-1)
    kept = (norms[0] > 0) & (norms[1] > 0)
    unit = [a[kept] / n[kept][:, None] for a, n in zip((u, v), norms, strict=True)]
    return ((unit[0] - unit[1]) ** 2).sum(-1) / 2


def projective_diameter(a):
    """max log (a_ij a_kl / a_il a_kj) over all rows i, k and columns j, l."""
    rows, columns = map(range, np.shape(a))
    found = [
        np.log(a[i][j] * a[k][l] / (a[i][l] * a[k][j]))
        for i in rows for k in rows for j in columns for l in columns
    ]  # fmt: skip
    return max(found)


def hilbert(u, v):
    """Hilbert's distance of positive vectors."""
    ratio = np.log(u / v)
    return ratio.max(-1) - ratio.min(-1)
