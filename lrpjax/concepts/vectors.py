"""Concept activation vectors: the direction at a layer in which a concept lies. Kim et al. 2018."""

from __future__ import annotations

from typing import Any

import numpy as np

FOLDS = 5
_ROUNDING = 10  # a unit that varies by fewer roundings of its largest value is constant


def cav(concept: np.ndarray, random: np.ndarray) -> np.ndarray:
    """The concept activation vector: the unit normal towards the concept, (units,).

    concept, random: activations (images, units), both sets with equal weight in the logistic
    regression (L2, C = 1). It is fitted to units scaled to variance 1, w . (h - mean) / std, so
    that the penalty does not depend on their scale; the normal in terms of h is w / std.
    Zero where no direction separates the sets. Source: Kim et al. 2018, section 3.2.
    """
    scaler, classifier = _classifier().fit(*_labelled(concept, random))
    normal = classifier.coef_[0] / scaler.scale_
    length = np.linalg.norm(normal)
    return normal / length if length > 0 else normal


def cav_accuracy(concept: np.ndarray, random: np.ndarray) -> float:
    """The share of both sets, each with equal weight, that the classifier of `cav` gets right.

    Cross-validated: each fifth of the images, in their order, by a classifier fitted to the rest.
    """
    select = learn().model_selection
    options: dict[str, Any] = {"cv": select.StratifiedKFold(FOLDS), "scoring": "balanced_accuracy"}
    return (
        select.cross_val_score(_classifier(), *_labelled(concept, random), **options).mean().item()
    )


def _classifier() -> Any:
    sk = learn()
    logistic = sk.linear_model.LogisticRegression(
        class_weight="balanced", tol=1e-6, max_iter=10_000
    )
    return sk.pipeline.make_pipeline(sk.preprocessing.StandardScaler(), logistic)


def learn() -> Any:
    """scikit-learn. ImportError with what to install, where it is not."""
    try:
        import sklearn.linear_model
        import sklearn.model_selection
        import sklearn.pipeline
        import sklearn.preprocessing
    except ImportError as error:
        raise ImportError(
            'The classifiers of TCAV are of scikit-learn: pip install "lrpjax[tcav]".'
        ) from error
    return sklearn


def _labelled(concept: np.ndarray, random: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The examples (images, units) and their labels, 1 for the concept.

    Units that vary by rounding alone are 0: scaled to variance 1 they would be noise.
    """
    both = np.concatenate([concept, random])
    examples = np.where(varies(both), both, 0).astype(float)
    return examples, np.repeat([1, 0], [len(concept), len(random)])


def varies(values: np.ndarray) -> np.ndarray:
    rounding = _ROUNDING * np.finfo(values.dtype).eps
    return np.ptp(values, axis=0) > rounding * np.abs(values).max(0)
