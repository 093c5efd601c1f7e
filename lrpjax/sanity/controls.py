"""Maps that explain nothing, to see what a check says of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..graph.reading import Reading
from ..propagation.explainer import Explainer


@dataclass(frozen=True)
class Control(Explainer):
    """A method with what is known of it in words. function: (model, x, target) to its map."""

    name: str
    known: str
    function: Callable[[Callable, Any, Any], Any]
    foreign = True

    def explain(self, reading: Reading, x: Any, target: Any) -> Any:
        return self.function(reading.model, x, target)


def input_itself(model: Callable, x: Any, target: Any) -> Any:
    """The input: a sharp picture, whatever the model and the class."""
    return x


def noise(model: Callable, x: Any, target: Any) -> jax.Array:
    """Gaussian noise, drawn anew for other outputs or another class: never the same map twice."""
    seed = jnp.concatenate([jnp.ravel(model(x)), jnp.ravel(jnp.asarray(target, jnp.float32))])
    words = np.frombuffer(np.asarray(seed).tobytes(), np.uint32)
    return np.random.default_rng(words).standard_normal(x.shape)


CONTROLS = {
    control.name: control
    for control in (
        Control("the input itself", "known bad: it knows neither model nor class", input_itself),
        Control("random noise", "known bad, but it changes with everything", noise),
    )
}
