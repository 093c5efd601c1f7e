"""Singular values by their definitions, in plain numpy, and patterns with values set by hand."""

from dataclasses import replace

import jax
import numpy as np

import lrpjax as lrp


def ratio(matrix):
    s = np.linalg.svd(matrix, compute_uv=False)
    return s[0] / s[1]


def link(a, b):
    """N = S_l^{1/2} V_l^T U_{l+1} S_{l+1}^{1/2}."""
    _, s, vt = np.linalg.svd(a, full_matrices=False)
    u, t, _ = np.linalg.svd(b, full_matrices=False)
    return np.diag(s**0.5) @ vt @ u @ np.diag(t**0.5)


def found(result, part, matrix):
    return [row["ratio"] for row in result.select(part, matrix)]


def random_patterns(model, x, getkey):
    """Of the layouts of the model's weights: nothing in the spectrum needs w^T a = 1."""
    fitted = lrp.patterns.fit(model, x)
    return replace(fitted, a={k: jax.random.normal(getkey(), w.shape) for k, w in fitted.w.items()})
