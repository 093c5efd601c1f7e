"""The constants of a program that are one number everywhere."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from .._base.compat import outside_traces
from . import primitives
from .program import Eqn, Program, evaluate, single


def uniform_values(program: Program) -> dict[int, np.ndarray]:
    """The constants that are one number everywhere, as scalars."""
    uniform = {v: value for v, value in program.literals.items() if np.ndim(value) == 0}
    for eqn in program.eqns:
        if not all(v in uniform for v in eqn.inputs) or len(eqn.inputs) == 0:
            continue
        row = primitives.of(eqn.name)
        if row.is_one_to_one and not _casts(eqn):
            uniform |= zip(eqn.outputs, (uniform[v] for v in eqn.inputs), strict=True)
        elif row.is_entrywise:
            with outside_traces():
                ins = [jnp.asarray(uniform[v], single(uniform[v].dtype)) for v in eqn.inputs]
                (value,) = evaluate(eqn, ins)
            uniform[eqn.outputs[0]] = np.asarray(value)
    return uniform


def _casts(eqn: Eqn) -> bool:
    return eqn.name in ("convert_element_type", "reduce_precision")
