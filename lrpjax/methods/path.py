"""Integrated gradients: a method's map averaged along the way from a baseline to the input."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base import checks
from ..graph.reading import Model
from ..propagation.baselines import Baseline, baseline_of, rows_of
from ..propagation.entries import named
from ..propagation.method import Method
from ..propagation.targets import read_for_target
from .estimator import Estimator, ExplainedOutput, Maps
from .lookup import based

QUADRATURES = ("gauss-legendre", "left", "right", "middle", "trapezoid")


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["base", "baseline"],
    meta_fields=["name", "at_once", "steps", "quadrature"],
)
@dataclass(frozen=True, kw_only=True)
class IntegratedGradients(Estimator):
    """(x - x0) * sum_k w_k m(x0 + a_k (x - x0)), m the map of the base method.

    With the gradient the sum approximates an integral, and the map of one image adds up to
    f(x) - f(x0). steps, quadrature: the nodes a_k and weights w_k on [0, 1]. baseline: x0 (see
    `baselines`; over a set the maps are averaged). Sundararajan et al. 2017.
    """

    name: str = "integrated-gradients"
    steps: int = 50
    quadrature: str = "gauss-legendre"
    baseline: Baseline = field(default_factory=baseline_of, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quadrature not in QUADRATURES:
            raise ValueError(
                f"The quadrature is one of {', '.join(QUADRATURES)}, got {self.quadrature!r}."
            )
        least = 2 if self.quadrature == "trapezoid" else 1
        if self.steps < least:
            raise ValueError(
                f"The {self.quadrature} quadrature needs at least {least} steps, got {self.steps}."
            )

    def evaluations(self, explained: ExplainedOutput, leaves: Maps) -> int:
        return self.steps * len(rows_of(self.baseline, leaves)[0])

    def sample(self, explained: ExplainedOutput, leaves: Maps, i: jax.Array) -> Maps:
        rows = rows_of(self.baseline, leaves)
        nodes, weights = _nodes(self.quadrature, self.steps)
        a, w = jnp.asarray(nodes)[i % self.steps], jnp.asarray(weights)[i % self.steps]
        starts = [row[i // self.steps] for row in rows]
        steps = [x - x0 for x, x0 in zip(leaves, starts, strict=True)]
        points = [x0 + a.astype(d.dtype) * d for x0, d in zip(starts, steps, strict=True)]
        share = w / len(rows[0])
        maps = explained.maps(self.base, points)
        return [share.astype(d.dtype) * d * m for d, m in zip(steps, maps, strict=True)]

    def attribute_with_delta(
        self, model: Model, x: Any, *, target: Any = None
    ) -> tuple[Any, jax.Array]:
        """The heat map and, for each image, its sum less f(x) - f(x0): the quadrature's error."""
        reading = read_for_target(model, x, self, target)
        explained, leaves = self._explained(reading, target)
        rows = rows_of(self.baseline, leaves)
        gain = explained.output(leaves) - jax.lax.map(explained.output, rows).mean(0)
        maps = self._run(explained, leaves)
        checks.check_maps(self.name, [*maps, gain])
        total = sum(m.reshape(len(m), -1).sum(1) for m in maps)
        return jax.tree.unflatten(reading.x_tree, maps), total - gain


def _nodes(quadrature: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the map is taken on [0, 1], and with what weight."""
    k = np.arange(steps)
    if quadrature == "gauss-legendre":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        return (nodes + 1) / 2, weights / 2
    if quadrature == "trapezoid":
        ends = np.where((k == 0) | (k == steps - 1), 0.5, 1.0)
        return k / (steps - 1), ends / (steps - 1)
    return (k + {"left": 0, "middle": 0.5, "right": 1}[quadrature]) / steps, np.full(
        steps, 1 / steps
    )


@named(
    "integrated-gradients", "(x - x0) * integral of J^T 1_t from x0 to x",
    "Sundararajan et al. 2017", "sum is f(x) - f(x0)", "no", chain=False,
)  # fmt: skip
def integrated_gradients(
    base: str | Method | Estimator = "gradient",
    *,
    steps: int = IntegratedGradients.steps,
    quadrature: str = IntegratedGradients.quadrature,
    baseline: Any = 0.0,
    baselines: Any = None,
    at_once: int | None = None,
) -> Estimator:
    """base: the method that is averaged along the way from x0 to x.

    steps, quadrature: the points of the way and their weights; quadrature is "gauss-legendre",
    "left", "right", "middle" or "trapezoid". baseline: x0, a number, one input, or one
    for each image (N, ...). baselines: a set (K, ...) to average over. at_once: points that
    run at once.
    """
    return IntegratedGradients(
        base=based(base),
        steps=steps,
        quadrature=quadrature,
        baseline=baseline_of(baseline, baselines),
        at_once=at_once,
    )
