"""Which values cannot be negative, read off the program equation by equation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.lax import GatherScatterMode

from ..program import primitives
from ..program.program import Eqn, Program
from .activations import Activation


def find_non_negative(
    program: Program, uniform: Mapping[int, Any], activations: Mapping[int, Activation]
) -> set[int]:
    """The values that cannot be negative.

    uniform: the constants that are one number everywhere. activations: by the value they end in.
    """
    unsigned = {
        v for v in program.inputs if np.issubdtype(program.avals[v].dtype, np.unsignedinteger)
    }
    real = {v for v, x in uniform.items() if np.isrealobj(x)}
    positive = unsigned | {v for v in real if uniform[v] >= 0}
    for eqn in program.eqns:
        stays = _stays(eqn, positive)
        positive.update(
            v for v in eqn.outputs if stays or (v in activations and activations[v].never_negative)
        )
    return positive


def _stays(eqn: Eqn, positive: set[int]) -> bool:
    row = primitives.of(eqn.name)
    if row.sign == "never" or _is_even_power(eqn):
        return True
    if row.sign == "any":
        return any(v in positive for v in eqn.inputs)
    return (
        row.sign == "keeps"
        and _fills_no_less(eqn)
        and all(eqn.inputs[k] in positive for k in row.values(len(eqn.inputs)))
    )


def _is_even_power(eqn: Eqn) -> bool:
    if eqn.name == "mul":
        return eqn.inputs[0] == eqn.inputs[1]
    return eqn.name == "integer_pow" and eqn.params["y"] % 2 == 0


def _fills_no_less(eqn: Eqn) -> bool:
    """Whether what a gather puts in the place of entries out of bounds is not negative."""
    fills = eqn.params.get("mode") == GatherScatterMode.FILL_OR_DROP and eqn.name == "gather"
    fill = eqn.params.get("fill_value")
    return not fills or fill is None or fill >= 0
