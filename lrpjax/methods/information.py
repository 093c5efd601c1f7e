"""The information bottleneck as a method of the table."""

from __future__ import annotations

import jax

from ..bottleneck import InformationBottleneck
from ..propagation.entries import named
from ..propagation.layer_statistics import Statistics


@named(
    "iba", "bits of a layer that are kept when noise replaces what the class does not need",
    "Schulz et al. 2020", "no", "no", needs="layer", chain=False,
)  # fmt: skip
def iba(
    *,
    layer: str | None = None,
    statistics: Statistics | None = None,
    key: jax.Array | None = None,
    beta: float = InformationBottleneck.beta,
    steps: int = InformationBottleneck.steps,
    samples: int = InformationBottleneck.samples,
    learning_rate: float = InformationBottleneck.learning_rate,
    sigma: float = InformationBottleneck.sigma,
    chunk: int | None = None,
) -> InformationBottleneck:
    """layer, statistics and key are needed: the layer that loses information, from
    `bottleneck.statistics` what it holds on average, and the key of the noise.

    beta: the cost of a nat in nats of cross-entropy. steps, learning_rate: of the optimiser.
    samples: draws of the noise for each step. sigma: of the Gaussian that smooths over space, in
    units of the layer. chunk: images fitted at once. `lrpjax.iba` also gives the bits of each unit.
    """
    if layer is None or statistics is None or key is None:
        needed = {"layer": layer, "statistics": statistics, "key": key}
        missing = [name for name, value in needed.items() if value is None]
        raise ValueError(
            f"iba needs {', '.join(missing)}: use lrpjax.methods.get('iba', layer=..., "
            "statistics=lrpjax.bottleneck.statistics(model, images, layer), key=jax.random.key(0))."
        )
    return InformationBottleneck(
        layer, statistics, key, beta, steps, samples, learning_rate, sigma, chunk
    )
