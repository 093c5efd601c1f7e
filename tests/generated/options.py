"""Options of methods up to the limits of their range and beyond: which values are in it, and what
the oracle's method is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

import lrpjax as lrp

from .shares import COMPOSITES, METHODS, Method, alpha_beta_method, epsilon, gamma

BY_NAME = {m.name: m for m in (*METHODS, *COMPOSITES)}
BEYOND = (np.inf, -np.inf, np.nan, -1.0)


@dataclass(frozen=True)
class Option:
    """made: the library's method for a value, a ValueError beyond the range. inside, beyond: such
    values. oracle: the method of a value inside, None where the oracle has none."""

    name: str
    made: Callable[[Any], Any]
    inside: tuple[Any, ...]
    beyond: tuple[Any, ...]
    oracle: Callable[[Any], Method] | None = None


def _of(method: str, name: str, inside: tuple, beyond: tuple, **shares: Callable) -> Option:
    """shares: what the option changes in the oracle's method, functions of its value."""

    def oracle(value):
        changed = {key: share(value) for key, share in shares.items()}
        return replace(BY_NAME[method], options={name: value}, **changed)

    made = lambda value: lrp.methods.get(method, **{name: value})
    return Option(name, made, inside, beyond, oracle)


EPSILONS = (1e-12, 0.25, 1e3)
OPTIONS: tuple[Option, ...] = (
    _of(
        "lrp-gamma", "gamma", (1e-3, 10.0, 1e6, 1e308), (*BEYOND, 0.0),
        linear=lambda v: partial(gamma, by=v),
    ),
    _of(
        "lrp-epsilon", "epsilon", EPSILONS, (*BEYOND, 0.0),
        linear=lambda v: partial(epsilon, to=v),
    ),
    _of(
        "epsilon-plus-flat", "epsilon", EPSILONS, (*BEYOND, 0.0),
        dense=lambda v: partial(epsilon, to=v),
    ),
    Option(
        "alpha", lambda ab: lrp.methods.alpha_beta(*ab), ((1.0, 0.0), (1.5, 0.5), (100.0, 99.0)),
        ((2, 0), (0.5, -0.5), (1, 1), (-1, -2), (np.inf, np.inf), (np.nan, 0)),
        lambda ab: alpha_beta_method(*ab),
    ),
    _of("rect-grad", "percentile", (0, 10.0, 90, 100), (*BEYOND, 101)),
    _of("deeplift-rescale", "near_zero", (1e-300, 1e-12), (np.inf, -np.inf, np.nan, -1.0, 0.0)),
    Option(
        "noise", lambda v: lrp.methods.get("smooth-grad", noise=v, key=jax.random.key(0)), (0.0,),
        BEYOND,
    ),
    Option("steps", lambda v: lrp.methods.get("integrated-gradients", steps=v), (1,), (0, -1)),
    Option("low", lambda v: lrp.methods.get("deep-taylor", low=v, high=0), (-1e300,), BEYOND[:3]),
)  # fmt: skip

# What a generated network can be asked with beside `METHODS`.
LIMITS: tuple[Method, ...] = tuple(
    option.oracle(value) for option in OPTIONS if option.oracle for value in option.inside
)
