"""Maps that explain nothing, to see what a check says of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..graph.reading import Reading
from ..propagation.explainer import Explainer
from ..propagation.targets import logits_of


@dataclass(frozen=True)
class Control(Explainer):
    """A method with what is known of it in words. function: (model, x, target) to its map."""

    name: str
    known: str
    function: Callable[[Reading, Any, Any], Any]
    foreign = True

    def explain(self, reading: Reading, x: Any, target: Any) -> Any:
        return self.function(reading, x, target)


def input_itself(reading: Reading, x: Any, target: Any) -> Any:
    """The input: a sharp picture, whatever the model and the class."""
    return x


def noise(reading: Reading, x: Any, target: Any) -> np.ndarray:
    """Gaussian noise, drawn anew for other outputs or another class: never the same map twice."""
    here = reading.at(x)
    logits = np.asarray(logits_of(here.graph, here.consts, here.leaves))
    seed = np.concatenate([logits.ravel(), np.ravel(target)]).astype(np.float32)
    words = np.frombuffer(seed.tobytes(), np.uint32)
    return np.random.default_rng(words).standard_normal(x.shape)


CONTROLS = {
    control.name: control
    for control in (
        Control("the input itself", "known bad: it knows neither model nor class", input_itself),
        Control("random noise", "known bad, but it changes with everything", noise),
    )
}
