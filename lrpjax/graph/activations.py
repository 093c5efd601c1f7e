"""Activations, recognised by what they compute and not by how they are spelled.

An activation is a piece of the program that maps one value to one of the same shape,
elementwise and with numbers written in the code (or, for PReLU, with one trained parameter). Its
name is found by evaluating it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._compat import outside_traces
from .primitives import TABLE
from .program import Eqn, Program, evaluate, single

ELEMENTWISE = {n for n, row in TABLE.items() if row.is_entrywise and row.role == "-"}
_AFFINE = {"add", "sub", "mul", "div", "neg", "convert_element_type", "copy"}
_LARGEST = 32  # equations in an activation
_NEAR_ZERO = np.outer([-1, 1], [1e-3, 0.01, 0.05, 0.1, 0.2]).ravel()  # where thresholds may hide
_GRID = np.array([*np.linspace(-7.9, 8.3, 38), *_NEAR_ZERO, -20.0, -1.0, 0.0, 20.0])


def _celu_alpha(depth: float) -> float:
    """The alpha for which alpha (1 - exp(-20 / alpha)) is the depth, by fixed-point iteration."""
    alpha = depth
    for _ in range(50):
        alpha = depth / -np.expm1(-20 / alpha) if alpha > 0 else -1.0
    return alpha


# name -> (its function given a parameter, how to read the parameter off its values, its limit)
KNOWN: dict[str, tuple[Callable, Callable | None, float]] = {
    "identity": (lambda x: x, None, 0),
    "relu": (jax.nn.relu, None, 0),
    "relu6": (jax.nn.relu6, None, 0),
    "leaky_relu": (jax.nn.leaky_relu, lambda f: float(-f[_GRID == -1.0][0]), 0.999),
    "elu": (jax.nn.elu, lambda f: float(f[_GRID == -20.0][0] / np.expm1(-20.0)), np.inf),
    "celu": (jax.nn.celu, lambda f: _celu_alpha(float(-f[_GRID == -20.0][0])), np.inf),
    "gelu": (lambda x: jax.nn.gelu(x, approximate=False), None, 0),
    "gelu_tanh": (lambda x: jax.nn.gelu(x, approximate=True), None, 0),
    "silu": (jax.nn.silu, None, 0),
    "softplus": (jax.nn.softplus, None, 0),
    "log_sigmoid": (jax.nn.log_sigmoid, None, 0),
    "tanh": (jnp.tanh, None, 0),
    "logistic": (jax.nn.sigmoid, None, 0),
    "selu": (jax.nn.selu, None, 0),
    "mish": (jax.nn.mish, None, 0),
    "hard_tanh": (jax.nn.hard_tanh, None, 0),
    "hard_sigmoid": (jax.nn.hard_sigmoid, None, 0),
    "hard_swish": (jax.nn.hard_silu, None, 0),
    "soft_sign": (jax.nn.soft_sign, None, 0),
}
PRELU = "prelu"
_SLOPES = (0.3, 0.7)  # at which a function with one trained parameter is tried
# Piecewise linear, with a kink: what cuts or weakens a signal, and smooth functions do not.
CUTTING = {"relu", "relu6", "leaky_relu", PRELU, "hard_tanh", "hard_sigmoid"}
GATES = {"logistic", "hard_sigmoid"}  # from 0 to 1
NON_NEGATIVE = {"relu", "relu6", "softplus", "logistic", "hard_sigmoid"}


@dataclass(frozen=True)
class Activation:
    """name, its parameter (the slope of leaky_relu, the alpha of elu) or None, and where it is."""

    name: str
    parameter: float | None
    root: int
    eqns: tuple[Eqn, ...]

    @property
    def is_gate(self) -> bool:
        return self.name in GATES

    @property
    def is_non_negative(self) -> bool:
        return self.name in NON_NEGATIVE

    @property
    def keeps_sign(self) -> bool:
        return self.name not in ("logistic", "hard_sigmoid", "softplus", "log_sigmoid")

    def cuts(self) -> bool:
        return self.name in CUTTING

    def __call__(self, x: jax.Array) -> jax.Array:
        """The function itself; PReLU has none without the model's parameters."""
        function, _, _ = KNOWN[self.name]
        return function(x) if self.parameter is None else function(x, self.parameter)


def uniform_values(program: Program) -> dict[int, np.ndarray]:
    """The constants that are one number everywhere, as scalars."""
    uniform = {v: value for v, value in program.literals.items() if np.ndim(value) == 0}
    passing = {"broadcast_in_dim", "reshape", "squeeze", "copy"}
    for eqn in program.eqns:
        if not all(v in uniform for v in eqn.inputs) or len(eqn.inputs) == 0:
            continue
        if eqn.name in passing:
            uniform[eqn.outputs[0]] = uniform[eqn.inputs[0]]
        elif eqn.name in ELEMENTWISE:
            with outside_traces():
                value = eqn.primitive.bind(*(uniform[v] for v in eqn.inputs), **eqn.params)
            uniform[eqn.outputs[0]] = np.asarray(value)
    return uniform


def find_activation(
    program: Program, uniform: dict[int, np.ndarray], value: int
) -> Activation | None:
    """The activation that ends in `value`: the smallest known piece of the program."""
    frontier, eqns, trained = {value}, list[Eqn](), set[int]()
    while len(eqns) < _LARGEST:
        eqn = program.producer.get(max(frontier, key=lambda v: program.order.get(v, -1)))
        if eqn is None:
            return None
        constants = [v for v in eqn.inputs if v not in program.active and v not in uniform]
        trained.update(constants)
        numbers = all(np.issubdtype(program.avals[v].dtype, np.floating) for v in constants)
        made = program.avals[eqn.outputs[0]]
        real = jnp.issubdtype(made.dtype, jnp.floating) or made.dtype == bool
        if eqn.name not in ELEMENTWISE or len(trained) > 1 or not numbers or not real:
            return None
        eqns.append(eqn)
        frontier = (frontier - set(eqn.outputs)) | set(program.active_inputs(eqn))
        if len(frontier) > 1 or all(e.name in _AFFINE for e in eqns):
            continue
        (root,) = frontier
        if program.shape(root) != program.shape(value) or program.avals[root].dtype == bool:
            return None
        in_order = tuple(eqns[::-1])
        if trained:
            if _is_prelu(program, uniform, root, in_order, value, *trained):
                return Activation(PRELU, None, root, in_order)
        elif found := _match(program, uniform, root, in_order, value):
            return Activation(*found, root, in_order)
    return None


def _is_prelu(program, uniform, root, eqns, value, trained: int) -> bool:
    """Whether the piece is x for x > 0 and the trained parameter times x below (or minus it)."""
    for slope in _SLOPES:
        found = _values(program, {**uniform, trained: np.asarray(slope)}, root, eqns, value)
        leaky = [np.where(_GRID > 0, _GRID, sign * slope * _GRID) for sign in (1, -1)]
        if not any(np.allclose(found, expected, rtol=1e-2, atol=1e-5) for expected in leaky):
            return False
    return True


def _match(program, uniform, root, eqns, value) -> tuple[str, float | None] | None:
    half = single(program.avals[root].dtype) != program.avals[root].dtype
    tolerance = 1e-2 if half else 1e-5  # numbers in the code are rounded to the model's precision
    values = _values(program, uniform, root, eqns, value)
    with outside_traces():
        grid = jnp.asarray(_GRID, values.dtype)
        for name, (function, fit, limit) in KNOWN.items():
            parameter = fit(values) if fit else None
            if parameter is not None and not 0 < parameter < limit:
                continue
            expected = function(grid) if parameter is None else function(grid, parameter)
            if np.allclose(values, expected, rtol=tolerance, atol=tolerance):
                return name, parameter
    return None


def _values(program, uniform, root, eqns, value) -> np.ndarray:
    """The piece of the program on a row of numbers, in double precision if the model's is."""
    dtype = np.float64 if program.avals[root].dtype == np.float64 else np.float32
    with outside_traces():
        env = {root: jnp.asarray(_GRID, dtype)}
        for eqn in eqns:
            ins = [env[v] if v in env else _scalar(uniform[v], dtype) for v in eqn.inputs]
            env[eqn.outputs[0]] = _on_grid(eqn, ins, dtype)
        return np.asarray(env[value], dtype)


def _scalar(value: np.ndarray, dtype: Any) -> jax.Array:
    return jnp.asarray(value, bool if value.dtype == bool else dtype)


def _on_grid(eqn: Eqn, ins: list[jax.Array], dtype: Any) -> jax.Array:
    """The equation on a row of numbers: in one precision, with every operand of the row's shape."""
    if eqn.name == "convert_element_type":
        return ins[0].astype(bool if eqn.params["new_dtype"] == np.dtype(bool) else dtype)
    if eqn.name not in ("clamp", "integer_pow"):
        ins = [jnp.broadcast_to(v, _GRID.shape) for v in ins]
    return evaluate(eqn, ins)[0]
