"""Contrastive methods: the map of a class less the map of what speaks for the others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import jax

from ..composites import negate_last
from ..propagation.entries import named
from ..propagation.method import Method
from ..rules.protocol import nonzero, positive
from .estimator import Estimator, ExplainedOutput, Maps
from .lookup import based

DUALS = ("classes", "weights")


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["base"],
    meta_fields=["name", "at_once", "dual", "normalised"],
)
@dataclass(frozen=True, kw_only=True)
class Contrastive(Estimator):
    """max(0, n(R) - n(R_dual)), n(R) = R / sum(R); or R - R_dual where not normalised.

    R is the base method's map started with 1 at the class. dual "classes": started with 1/(C - 1)
    at each of the C - 1 others; "weights": at the class, with the weights of the last linear layer
    negated. Gu et al. 2018 (CLRP1 and CLRP2); Zhang et al. 2018 (contrastive Excitation BP).
    """

    name: str = "contrastive-lrp"
    dual: str = "classes"
    normalised: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dual not in DUALS:
            raise ValueError(f"The dual is one of {', '.join(DUALS)}, got {self.dual!r}.")
        if self.dual == "weights" and self.base.chain is None:
            raise ValueError(
                f'The dual "weights" negates a layer of a chain of rules, and {self.base} is none: '
                'use dual="classes".'
            )

    def evaluations(self, explained: ExplainedOutput, leaves: Maps) -> int:
        return 1

    def sample(self, explained: ExplainedOutput, leaves: Maps, i: jax.Array) -> Maps:
        base, seed = self.base.started("one"), explained.seed
        if self.dual == "classes":
            if seed.shape[-1] < 2:
                raise ValueError('The dual "classes" needs another class: this model has one.')
            other, other_seed = base, (1 - seed) / (seed.shape[-1] - 1)
        else:
            other, other_seed = replace(base, composite=negate_last(base.composite)), seed
        maps = explained.maps(base, leaves, seed)
        duals = explained.maps(other, leaves, other_seed)
        if not self.normalised:
            return [m - d for m, d in zip(maps, duals, strict=True)]
        pairs = zip(_shares(maps), _shares(duals), strict=True)
        return [positive(m - d) for m, d in pairs]


def _shares(maps: Maps) -> Maps:
    """Each image's maps divided by their sum."""
    total = jax.tree.reduce(jax.numpy.add, [m.reshape(len(m), -1).sum(1) for m in maps])
    return [m / nonzero(total).reshape(-1, *[1] * (m.ndim - 1)) for m in maps]


@named(
    "contrastive-lrp", "max(0, n(R_t) - n(R_dual)), n(R) = R / sum R", "Gu et al. 2018",
    "no", "its parts as their base", chain=False,
)  # fmt: skip
def contrastive_lrp(
    base: str | Method | Estimator = "lrp-alpha1-beta0", *, dual: str = "classes"
) -> Estimator:
    """base: the method whose maps are compared.

    dual: "classes" (all others; Gu et al.'s CLRP1) or "weights" (negated; CLRP2).
    """
    return Contrastive(base=based(base), dual=dual)


@named(
    "contrastive-excitation-bp", "R_t - R_dual, the dual with the last weights negated",
    "Zhang et al. 2018", "no", "its parts as their base", chain=False,
)  # fmt: skip
def contrastive_excitation_bp(
    base: str | Method | Estimator = "excitation-bp", *, dual: str = "weights"
) -> Estimator:
    """base, dual: as in `contrastive_lrp`."""
    return Contrastive(
        name="contrastive-excitation-bp", base=based(base), dual=dual, normalised=False
    )
