"""Activations, recognised by what they compute and not by how they are spelled.

An activation is a piece of the program that maps one value to one of the same shape,
elementwise and with numbers written in the code. Its name is found by evaluating it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from .program import Eqn, Program, evaluate

ELEMENTWISE = set(
    "abs add and clamp convert_element_type copy div eq erf erfc exp exp2 expm1 ge gt integer_pow "
    "is_finite le log log1p logistic lt max min mul ne neg not or pow rsqrt select_n sign sqrt "
    "square stop_gradient sub tan tanh xor".split()
)
_AFFINE = {"add", "sub", "mul", "div", "neg", "convert_element_type", "copy"}
_LARGEST = 32  # equations in an activation
_GRID = np.concatenate([np.linspace(-7.9, 8.3, 38), [-20.0, -1.0, 0.0, 20.0]]).astype(np.float32)

# name -> (its function given a parameter, how to read the parameter off its values)
_KNOWN: dict[str, tuple[Callable, Callable | None]] = {
    "relu": (jax.nn.relu, None),
    "relu6": (jax.nn.relu6, None),
    "leaky_relu": (jax.nn.leaky_relu, lambda f: float(-f[_GRID == -1.0][0])),
    "elu": (jax.nn.elu, lambda f: float(-f[_GRID == -20.0][0])),
    "gelu": (lambda x: jax.nn.gelu(x, approximate=False), None),
    "gelu_tanh": (lambda x: jax.nn.gelu(x, approximate=True), None),
    "silu": (jax.nn.silu, None),
    "softplus": (jax.nn.softplus, None),
    "tanh": (jnp.tanh, None),
    "logistic": (jax.nn.sigmoid, None),
    "selu": (jax.nn.selu, None),
    "mish": (jax.nn.mish, None),
    "hard_tanh": (jax.nn.hard_tanh, None),
    "hard_sigmoid": (jax.nn.hard_sigmoid, None),
    "hard_swish": (jax.nn.hard_silu, None),
    "soft_sign": (jax.nn.soft_sign, None),
}
NON_NEGATIVE = {"relu", "relu6", "softplus", "logistic", "hard_sigmoid"}


@dataclass(frozen=True)
class Activation:
    """name, its parameter (the slope of leaky_relu, the alpha of elu) or None, and where it is."""

    name: str
    parameter: float | None
    root: int
    eqns: tuple[Eqn, ...]

    def __call__(self, x: jax.Array) -> jax.Array:
        function, _ = _KNOWN[self.name]
        return function(x) if self.parameter is None else function(x, self.parameter)


def uniform_values(program: Program) -> dict[int, np.ndarray]:
    """The constants that are one number everywhere, as scalars: literals and what is made of them."""
    uniform = {v: value for v, value in program.literals.items() if np.ndim(value) == 0}
    passing = {"broadcast_in_dim", "reshape", "squeeze", "copy"}
    for eqn in program.eqns:
        if not all(v in uniform for v in eqn.inputs) or len(eqn.inputs) == 0:
            continue
        if eqn.name in passing:
            uniform[eqn.outputs[0]] = uniform[eqn.inputs[0]]
        elif eqn.name in ELEMENTWISE:
            with jax.ensure_compile_time_eval():
                value = eqn.primitive.bind(*(uniform[v] for v in eqn.inputs), **eqn.params)
            uniform[eqn.outputs[0]] = np.asarray(value)
    return uniform


def find_activation(
    program: Program, uniform: dict[int, np.ndarray], value: int
) -> Activation | None:
    """The activation that ends in `value`: the smallest piece of the program that is a known one."""
    order = {id(eqn): i for i, eqn in enumerate(program.eqns)}
    frontier, eqns = {value}, []
    while len(eqns) < _LARGEST:
        producers = [program.producer.get(v) for v in frontier]
        eqn = max(producers, key=lambda e: -1 if e is None else order[id(e)])
        if eqn is None:
            return None
        constants = [v for v in eqn.inputs if v not in program.active]
        if eqn.name not in ELEMENTWISE or not all(v in uniform for v in constants):
            return None
        eqns.append(eqn)
        frontier = (frontier - set(eqn.outputs)) | set(program.active_inputs(eqn))
        if len(frontier) > 1 or all(e.name in _AFFINE for e in eqns):
            continue
        (root,) = frontier
        if program.shape(root) != program.shape(value):
            return None
        if found := _match(program, uniform, root, eqns[::-1], value):
            return Activation(*found, root, tuple(eqns[::-1]))
    return None


def _match(program, uniform, root, eqns, value) -> tuple[str, float | None] | None:
    half = program.avals[root].dtype in (jnp.bfloat16, jnp.float16)
    tolerance = 1e-2 if half else 1e-5  # numbers in the code are rounded to the model's precision
    with jax.ensure_compile_time_eval():
        env = {root: jnp.asarray(_GRID)}
        for eqn in eqns:
            ins = [env[v] if v in env else _scalar(uniform[v]) for v in eqn.inputs]
            env[eqn.outputs[0]] = _on_grid(eqn, ins)
        values = np.asarray(env[value], np.float32)
        for name, (function, fit) in _KNOWN.items():
            parameter = fit(values) if fit else None
            if parameter is not None and parameter <= 0:
                continue
            expected = function(_GRID) if parameter is None else function(_GRID, parameter)
            if np.allclose(values, expected, rtol=tolerance, atol=tolerance):
                return name, parameter
    return None


def _scalar(value: np.ndarray) -> jax.Array:
    return jnp.asarray(value, bool if value.dtype == bool else jnp.float32)


def _on_grid(eqn: Eqn, ins: list[jax.Array]) -> jax.Array:
    """The equation on a row of numbers: in float32, with every operand of the row's shape."""
    if eqn.name == "convert_element_type":
        return ins[0].astype(bool if eqn.params["new_dtype"] == bool else jnp.float32)
    if eqn.name not in ("clamp", "integer_pow"):
        ins = [jnp.broadcast_to(v, _GRID.shape) for v in ins]
    return evaluate(eqn, ins)[0]
