"""The activations that are known, and what is known of each: one row for each, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from . import steps

Function = Callable[[float], float]
Parameters = tuple[float, ...]


@dataclass(frozen=True)
class Known:
    """An activation f(x, *parameters) and what is true of it, which the tests prove on the whole
    real line.

    read_off: the parameters of the row that a function of one number could have, given it and the
        largest number of its dtype; None if there are none.
    range: between which bounds f lies, given the parameters.
    cuts: whether it is piecewise linear.
    rises: whether f(x) <= f(y) for all x < y, whatever the parameters are.
    keeps_sign: whether f(x) x >= 0 for all x, given the parameters.
    jumps: of a step function where it jumps, given the parameters. It is an activation only where
        the model says another derivative than its own, 0; its values are the model's own, in whose
        precision it is decided on which side of a jump a number lies.
    """

    function: Callable[..., jax.Array]
    read_off: Callable[[Function, float], Parameters | None]
    range: Callable[..., tuple[float, float]]
    cuts: bool
    rises: bool
    keeps_sign: Callable[..., bool]
    jumps: Callable[..., np.ndarray] | None = None

    @property
    def is_step(self) -> bool:
        return self.jumps is not None


def _none(f: Function, largest: float) -> Parameters:
    return ()


def _trained(f: Function, largest: float) -> None:
    """The parameter is no number in the code."""
    return None


def _slope(f: Function, largest: float) -> Parameters | None:
    slope = -f(-1.0)
    return (slope,) if 0 < slope < 1 else None


def _elu_alpha(f: Function, largest: float) -> Parameters | None:
    alpha = f(-20.0) / float(np.expm1(-20.0))
    return (alpha,) if 0 < alpha < np.inf else None


def _celu_alpha(f: Function, largest: float) -> Parameters | None:
    """The alpha for which alpha (1 - exp(-20 / alpha)) is the depth, by fixed-point iteration."""
    depth = alpha = -f(-20.0)
    for _ in range(50):
        if not 0 < alpha < np.inf:
            return None
        alpha = depth / -float(np.expm1(-20 / alpha))
    return (alpha,)


def _bounds(f: Function, largest: float) -> Parameters | None:
    """A side at whose end the function is the number itself has no bound."""
    low, high = f(-largest), f(largest)
    low = -np.inf if low == -largest else low
    high = np.inf if high == largest else high
    bounded = low < high and (low, high) != (-np.inf, np.inf)
    return (low, high) if bounded else None


def _leaky(x: jax.Array, slope: float) -> jax.Array:
    return jnp.where(x > 0, x, slope * x)


def _between(low: float, high: float) -> Callable[..., tuple[float, float]]:
    return lambda *parameters: (low, high)


def _above_minus_alpha(alpha: float) -> tuple[float, float]:
    return -alpha, np.inf


_anything, _positive = _between(-np.inf, np.inf), _between(0, np.inf)
_yes, _no = (lambda *parameters: True), (lambda *parameters: False)
_gelu, _gelu_tanh = (partial(jax.nn.gelu, approximate=how) for how in (False, True))
CLIP, PRELU = "clip", "prelu"

# Of those that fit equally well the first gives the name.
KNOWN: dict[str, Known] = {
    # name: function, read_off, range, cuts, rises, keeps_sign
    "identity": Known(lambda x: x, _none, _anything, False, True, _yes),
    "relu": Known(jax.nn.relu, _none, _positive, True, True, _yes),
    "relu6": Known(jax.nn.relu6, _none, _between(0, 6), True, True, _yes),
    "leaky_relu": Known(_leaky, _slope, _anything, True, True, _yes),
    "elu": Known(jax.nn.elu, _elu_alpha, _above_minus_alpha, False, True, _yes),
    "celu": Known(jax.nn.celu, _celu_alpha, _above_minus_alpha, False, True, _yes),
    "gelu": Known(_gelu, _none, _between(-0.17, np.inf), False, False, _yes),
    "gelu_tanh": Known(_gelu_tanh, _none, _between(-0.18, np.inf), False, False, _yes),
    "silu": Known(jax.nn.silu, _none, _between(-0.28, np.inf), False, False, _yes),
    "softplus": Known(jax.nn.softplus, _none, _positive, False, True, _no),
    "log_sigmoid": Known(jax.nn.log_sigmoid, _none, _between(-np.inf, 0), False, True, _no),
    "tanh": Known(jnp.tanh, _none, _between(-1, 1), False, True, _yes),
    "logistic": Known(jax.nn.sigmoid, _none, _between(0, 1), False, True, _no),
    "selu": Known(jax.nn.selu, _none, _between(-1.76, np.inf), False, True, _yes),
    "mish": Known(jax.nn.mish, _none, _between(-0.31, np.inf), False, False, _yes),
    "hard_tanh": Known(jax.nn.hard_tanh, _none, _between(-1, 1), True, True, _yes),
    "hard_sigmoid": Known(jax.nn.hard_sigmoid, _none, _between(0, 1), True, True, _no),
    "hard_swish": Known(jax.nn.hard_silu, _none, _between(-0.375, np.inf), False, False, _yes),
    "soft_sign": Known(jax.nn.soft_sign, _none, _between(-1, 1), False, True, _yes),
    CLIP: Known(jnp.clip, _bounds, lambda *both: both, True, True, lambda a, b: a <= 0 <= b),
    PRELU: Known(_leaky, _trained, _anything, True, False, _no),  # its slope may be negative
    "sign": Known(jnp.sign, _none, _between(-1, 1), False, True, _yes, lambda: np.zeros(1)),
    "step": Known(
        steps.step, steps.read_step, lambda at, low, high, there: (low, high), False, False,
        steps.step_keeps_sign, lambda at, *levels: np.array([at]),
    ),
    "quantise": Known(
        steps.quantise, steps.read_quantise, lambda *p: p[-2:], False, False,
        steps.quantise_keeps_sign, steps.quantise_jumps,
    ),
}  # fmt: skip
CUTTING = {name for name, row in KNOWN.items() if row.cuts}
# Of which the model's own values are the function: the row does not have its parameters, or not to
# the last bit.
OWN_VALUES = {CLIP, PRELU, *(name for name, row in KNOWN.items() if row.is_step)}
