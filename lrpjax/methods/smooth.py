"""SmoothGrad: a method's maps of noisy copies of the input, averaged."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .._base import checks
from ..propagation.entries import named
from ..propagation.method import Colour, Method
from .estimator import Estimator, ExplainedOutput, Maps
from .lookup import based

FORMS = ("mean", "square", "variance")


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["base", "key"],
    meta_fields=["name", "at_once", "samples", "noise", "form"],
)
@dataclass(frozen=True, kw_only=True)
class SmoothGrad(Estimator):
    """The mean over i of m(x + e_i), e_i ~ N(0, sigma^2), m the map of the base method.

    sigma: `noise` times (max - min) of the image. form: "mean"; "square", the mean of m^2 (Hooker
    et al. 2019); "variance" of m (Adebayo et al. 2018). Smilkov et al. 2017; 50 and 0.15 as in
    Sixt et al. 2020. The i-th noise depends on the key and i alone: but for its sigma it is the
    same for every image, so that an image's map does not depend on its place in the batch.
    """

    name: str = "smooth-grad"
    samples: int = 50
    noise: float = 0.15
    form: str = "mean"
    key: Any = field(default=None, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in FORMS:
            raise ValueError(f"The form is one of {', '.join(FORMS)}, got {self.form!r}.")
        checks.check_count(1, samples=self.samples)
        if not 0 <= self.noise < float("inf"):
            raise ValueError(f"The noise is a share of the image's range, got {self.noise}.")

    @property
    def colour(self) -> Colour:
        return self.base.colour

    @property
    def sparse(self) -> bool:
        return self.base.sparse

    def evaluations(self, explained: ExplainedOutput, leaves: Maps) -> int:
        return self.samples

    def sample(self, explained: ExplainedOutput, leaves: Maps, i: jax.Array) -> Maps:
        keys = [jax.random.fold_in(jax.random.fold_in(self.key, k), i) for k in range(len(leaves))]
        noisy = [x + noise(key, x, self.noise) for key, x in zip(keys, leaves, strict=True)]
        return explained.maps(self.base, noisy)

    def start(self, leaves: Maps) -> Any:
        """Count, mean and sum of squared deviations, as Chan et al. 1983 add them up."""
        zeros = [jnp.zeros_like(leaf) for leaf in leaves]
        return jnp.zeros((), leaves[0].dtype), zeros, zeros

    def add(self, state: Any, samples: Any, valid: jax.Array) -> Any:
        before, means, squares = state
        new = valid.sum().astype(before.dtype)
        after = before + new
        means_after, squares_after = [], []
        for mean, square, m in zip(means, squares, samples, strict=True):
            weight = valid.astype(m.dtype)
            own = jnp.tensordot(weight, m, 1) / new
            step = own - mean
            spread = jnp.tensordot(weight, (m - own[None]) ** 2, 1)
            means_after.append(mean + step * (new / after))
            squares_after.append(square + spread + step**2 * (before * new / after))
        return after, means_after, squares_after

    def finish(self, explained: ExplainedOutput, leaves: Maps, state: Any) -> Maps:
        count, means, squares = state
        if self.form == "mean":
            return means
        variances = [square / count for square in squares]
        if self.form == "variance":
            return variances
        return [v + mean**2 for v, mean in zip(variances, means, strict=True)]


def noise(key: jax.Array, x: jax.Array, share: float) -> jax.Array:
    """Gaussian noise for images (N, ...): one draw for all, times a share of each one's range."""
    axes = tuple(range(1, x.ndim))
    sigma = share * (x.max(axes, keepdims=True) - x.min(axes, keepdims=True))
    return sigma * jax.random.normal(key, (1, *x.shape[1:]), x.dtype)


@named(
    "smooth-grad", "mean of J^T 1_t at x + N(0, sigma^2)", "Smilkov et al. 2017", "no", "no",
    needs="key", chain=False,
)  # fmt: skip
def smooth_grad(
    base: str | Method | Estimator = "gradient",
    *,
    key: jax.Array | None = None,
    samples: int = SmoothGrad.samples,
    noise: float = SmoothGrad.noise,
    form: str = SmoothGrad.form,
    at_once: int | None = None,
) -> Estimator:
    """base: the method whose maps are averaged. key: of the noise, which it needs.

    samples: how many noisy copies. noise: sigma over the range, max - min, of the image. form: what
    is averaged: the maps ("mean"), their squares ("square"), or what the squares have over the
    squared mean ("variance"). at_once: copies that run at once.
    """
    if key is None:
        raise ValueError(
            "smooth-grad draws noise and needs a key: use "
            "lrpjax.methods.get('smooth-grad', key=jax.random.key(0))."
        )
    checks.check_key(key)
    return SmoothGrad(
        base=based(base), key=key, samples=samples, noise=noise, form=form, at_once=at_once
    )
