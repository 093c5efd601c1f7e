"""TCAV in plain numpy: logistic regression by Newton's method, scores, accuracy and the t-test.

Nothing here is fast, and nothing is shared with the library.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
from scipy import stats


def fit(concept: np.ndarray, random: np.ndarray) -> tuple[np.ndarray, float]:
    """The normal and the offset, in activation space, of regularised logistic regression.

    Newton's method on |w|^2 / 2 + sum_i c_i log(1 + exp(-y_i (w . u_i + b))), u the standardised
    activations, y = 1 for the concept and -1 for the rest, c_i = n / (2 size of i's set).
    """
    h = np.concatenate([concept, random])
    y = np.repeat([1.0, -1.0], [len(concept), len(random)])
    c = len(h) / 2 / np.repeat([len(concept), len(random)], [len(concept), len(random)])
    mean, std = h.mean(0), h.std(0)
    u = np.column_stack([(h - mean) / std, np.ones(len(h))])
    ridge = np.diag([*np.ones(h.shape[1]), 0.0])  # the offset is not penalised
    w = np.zeros(u.shape[1])
    for _ in range(50):
        wrong = 1 / (1 + np.exp(y * (u @ w)))
        gradient = ridge @ w - u.T @ (c * y * wrong)
        curvature = ridge + (u * (c * wrong * (1 - wrong))[:, None]).T @ u
        w = w - np.linalg.solve(curvature, gradient)
    return w[:-1] / std, w[-1] - w[:-1] @ (mean / std)


def cav(concept: np.ndarray, random: np.ndarray) -> np.ndarray:
    normal, _ = fit(concept, random)
    return normal / np.linalg.norm(normal)


def accuracy(concept: np.ndarray, random: np.ndarray) -> float:
    """Of five folds, each a fifth of either set in its order; the mean over sets, then folds."""
    fifths = [np.split(np.arange(len(s)), 5) for s in (concept, random)]
    found = []
    for a, b in zip(*fifths, strict=True):
        normal, offset = fit(np.delete(concept, a, 0), np.delete(random, b, 0))
        right = [concept[a] @ normal + offset > 0, random[b] @ normal + offset < 0]
        found.append((right[0].mean() + right[1].mean()) / 2)
    return np.mean(found)


def welch(a: np.ndarray, b: np.ndarray) -> float:
    """The two-sided p-value of Welch's t-test."""
    va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    t = (a.mean() - b.mean()) / np.sqrt(va + vb)
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    return 2 * stats.t.sf(abs(t), freedom)


def rows(
    derivatives: np.ndarray,
    concepts: Mapping[str, np.ndarray],
    random: Sequence[np.ndarray],
    significance: float,
) -> list[dict[str, Any]]:
    """What is found from derivatives (N, units) and the activations of each set."""
    score: Callable = lambda a, b: np.mean(derivatives @ cav(a, b) > 0)
    n = range(len(random))
    null = {(i, j): score(random[i], random[j]) for i, j in permutations(n, 2)}
    among = lambda sets: np.array([null[pair] for pair in permutations(sets, 2)])
    corrected = lambda a, b: min(1.0, len(concepts) * welch(a, b))
    passed = []
    for i in n:
        others = [j for j in n if j != i]
        p_value = corrected(np.array([null[i, j] for j in others]), among(others))
        passed.append(p_value < significance)
    found = []
    for name, activations in concepts.items():
        scores = np.array([score(activations, other) for other in random])
        p_value = corrected(scores, among(n))
        found.append(
            {
                "concept": name,
                "score": scores.mean(),
                "score_std": scores.std(ddof=1),
                "scores": scores,
                "random_score": among(n).mean(),
                "random_std": among(n).std(ddof=1),
                "p_value": p_value,
                "significant": p_value < significance,
                "accuracy": np.mean([accuracy(activations, other) for other in random]),
                "false_positives": np.mean(passed),
            }
        )
    return found
