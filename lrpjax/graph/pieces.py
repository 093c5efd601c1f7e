"""Pieces of a program that map one number to one, and what they give on the whole real line.

A piece is evaluated by numpy in double precision, whatever the model's precision is: it is the
function that is asked for, not its rounding, and no spelling overflows earlier than it must. The
numbers in it are those of the model, rounded as the model has rounded them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np

from . import primitives
from .program import Eqn

Operand = int | str


@dataclass(frozen=True)
class Step:
    """A primitive applied to values, by number (those given first, then the steps' in order), and
    to numbers, as text that says them exactly. exponent: of integer_pow."""

    name: str
    operands: tuple[Operand, ...]
    exponent: int = 1


@dataclass(frozen=True)
class Piece:
    """Steps in order, from a number of the dtype (and the parameters after it) to the result."""

    steps: tuple[Step, ...]
    result: Operand
    dtype: str

    @property
    def numbers(self) -> set[float]:
        """The numbers written in the piece."""
        written = (v for step in self.steps for v in step.operands if isinstance(v, str))
        return {float.fromhex(v) for v in written if v not in _TRUTH}


def piece_of(
    eqns: Sequence[Eqn], given: Sequence[int], numbers: Mapping[int, Any], dtype: Any
) -> Piece | None:
    """The equations as a piece; None if one of them is not known here.

    given: the value it is a function of, and its parameters. numbers: the constants.
    """
    place: dict[int, Operand] = {v: k for k, v in enumerate(given)}
    steps: list[Step] = []
    result: Operand = 0
    for eqn in eqns:
        name = eqn.name
        if name == "convert_element_type" and eqn.params["new_dtype"] == np.dtype(bool):
            name = _TO_TRUTH
        elif name not in _NUMPY:
            if primitives.of(name).moves != "0" or not primitives.of(name).is_entrywise:
                return None
            name = _SAME
        if any(v not in place and np.iscomplexobj(numbers[v]) for v in eqn.inputs):
            return None
        operands = tuple(place[v] if v in place else _text(numbers[v]) for v in eqn.inputs)
        step = Step(name, operands, eqn.params.get("y", 1))
        (out,) = eqn.outputs
        place[out] = len(given) + len(steps)
        steps.append(step)
        cancelled = _cancelled(step, dict(enumerate(steps, len(given))))
        result = place[out] = place[out] if cancelled is None else cancelled
    return _without_unused(Piece(tuple(steps), result, np.dtype(dtype).name), len(given))


def _without_unused(piece: Piece, given: int) -> Piece:
    """The steps that the result is computed from. What was cancelled is rounding alone near 0, and
    changes its sign there over and over."""
    needed, waiting = set[Operand](), [piece.result]
    while waiting:
        v = waiting.pop()
        if isinstance(v, int) and v >= given and v not in needed:
            needed.add(v)
            waiting.extend(piece.steps[v - given].operands)
    new: dict[Operand, Operand] = {v: v for v in range(given)}
    steps = []
    for v, step in enumerate(piece.steps, given):
        if v in needed:
            steps.append(replace(step, operands=tuple(new.get(o, o) for o in step.operands)))
            new[v] = given + len(steps) - 1
    return replace(piece, steps=tuple(steps), result=new.get(piece.result, piece.result))


def _cancelled(step: Step, made: Mapping[Operand, Step]) -> Operand | None:
    """What is left of x + (g - x) or x - (x - g): g, exactly, where numbers would be rounded."""

    def source(v: Operand) -> Operand:
        while v in made and made[v].name == _SAME:
            (v,) = made[v].operands
        return v

    for x, v in (step.operands, step.operands[::-1])[: {"add": 2, "sub": 1}.get(step.name, 0)]:
        inner = made.get(source(v))
        if inner is not None and inner.name == "sub":
            left, right = map(source, inner.operands)
            if source(x) == (right if step.name == "add" else left):
                return left if step.name == "add" else right
    return None


_TRUTH = {"True": True, "False": False}
_SAME, _TO_TRUTH = "same", "to truth"


def _text(number: Any) -> str:
    number = np.asarray(number)
    return str(bool(number)) if number.dtype == bool else float(number).hex()


def _read(operand: str) -> float | bool:
    return _TRUTH[operand] if operand in _TRUTH else float.fromhex(operand)


def _special(name: str) -> Callable:
    def function(x):
        from scipy import special  # takes a third of a second, and few models need it

        return getattr(special, name)(x)

    return function


def _select(which: Any, *cases: Any) -> Any:
    return np.where(which, cases[-1], cases[0])


# How numpy says each primitive that a known activation may be spelled with.
_NUMPY: dict[str, Callable] = {
    "abs": np.abs,
    "add": np.add,
    "add_any": np.add,
    "and": np.logical_and,
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
    "cosh": np.cosh,
    "div": np.divide,
    "eq": np.equal,
    "erf": _special("erf"),
    "erfc": _special("erfc"),
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "ge": np.greater_equal,
    "gt": np.greater,
    "integer_pow": np.power,
    "is_finite": np.isfinite,
    "le": np.less_equal,
    "log": np.log,
    "log1p": np.log1p,
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "neg": np.negative,
    "not": np.logical_not,
    "or": np.logical_or,
    "pow": np.power,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "select_n": _select,
    "sign": np.sign,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "square": np.square,
    "sub": np.subtract,
    "tanh": np.tanh,
    "xor": np.logical_xor,
    _SAME: lambda x: np.asarray(x, np.float64),  # a cast too: from truth to 0 and 1
    _TO_TRUTH: lambda x: np.asarray(x) != 0,
}
_COMPARING = {"eq", "ge", "gt", "le", "lt", "max", "min", "ne"}


def values(piece: Piece, x: np.ndarray, *parameters: float) -> np.ndarray:
    """The piece at each of the numbers x, in double precision."""
    if isinstance(piece.result, str):
        return np.full_like(x, _read(piece.result))
    env = [x, *parameters, *(value for _, value in _run(piece, x, *parameters))]
    return np.asarray(env[piece.result], np.float64)


def numpy_value(name: str, *operands: Any) -> Any:
    """A primitive of numbers, without an opinion on infinities."""
    with np.errstate(all="ignore"):
        return _NUMPY[name](*operands)


def _run(piece: Piece, x: np.ndarray, *parameters: float) -> list[tuple[list, Any]]:
    """(operands, value) of each step."""
    env: list[Any] = [x, *parameters]
    made = []
    with np.errstate(all="ignore"):
        for step in piece.steps:
            ins = [env[v] if isinstance(v, int) else _read(v) for v in step.operands]
            if step.name == "integer_pow":
                ins.append(step.exponent)
            env.append(_NUMPY[step.name](*ins))
            made.append((ins, env[-1]))
    return made


_USUAL = np.array(
    [
        *np.linspace(-7.9, 8.3, 38),
        *np.outer([-1, 1], [1e-3, 0.01, 0.05, 0.1, 0.2]).ravel(),  # where thresholds may hide
        *(-20.0, -1.0, 0.0, 20.0),
    ]
)
_MOST_BENDS = 100  # a piece with more is no activation


@cache
def few(dtype: str) -> np.ndarray:
    """Numbers at which most functions differ."""
    largest = float(jnp.finfo(dtype).max)
    return np.concatenate([_USUAL[np.abs(_USUAL) < largest], [-largest, largest]])


@cache
def line(dtype: str) -> np.ndarray:
    """The real line as the dtype has it: 0, every power of 2, what lies on both sides of it, and
    the usual numbers, in order."""
    info = jnp.finfo(dtype)
    powers = 2.0 ** np.arange(info.minexp - info.nmant, info.maxexp)
    return np.unique(np.concatenate([few(dtype), *_sides(powers), *_sides(-powers)]))


def points(piece: Piece, *parameters: float) -> np.ndarray | None:
    """The line, every number written in the piece, every number at which a value in it changes its
    sign or two that it compares change their order, and what lies on both sides of each.

    None if there are too many.
    """
    largest = float(jnp.finfo(piece.dtype).max)
    written = np.array([c for c in piece.numbers if abs(c) <= largest])
    x = np.unique(np.concatenate([line(piece.dtype), *_sides(written)]))
    while True:
        bends = _bends(piece, x, *parameters)
        if bends is None:
            return None
        more = np.setdiff1d(np.concatenate(_sides(bends)), x)
        if len(more) == 0:
            return x
        if len(x) + len(more) > len(line(piece.dtype)) + 10 * _MOST_BENDS:
            return None
        x = np.union1d(x, more)


def _sides(x: np.ndarray) -> tuple[np.ndarray, ...]:
    return np.nextafter(x, -np.inf), x, np.nextafter(x, np.inf)


def _bends(piece: Piece, x: np.ndarray, *parameters: float) -> np.ndarray | None:
    """Where something changes its sign between neighbours of x, found by bisection."""
    signs = _signs(piece, x, *parameters)
    row, left = np.nonzero(signs[:, 1:] != signs[:, :-1])
    low, high = x[left], x[left + 1]
    apart = (low + (high - low) / 2 > low) & (low + (high - low) / 2 < high)
    row, low, high = row[apart], low[apart], high[apart]
    if len(row) > _MOST_BENDS:
        return None
    below = signs[row, left[apart]]
    while len(row):
        middle = low + (high - low) / 2
        if not ((middle > low) & (middle < high)).any():
            break
        same = _signs(piece, middle, *parameters)[row, np.arange(len(row))] == below
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return high


def _signs(piece: Piece, x: np.ndarray, *parameters: float) -> np.ndarray:
    """Whether each value in the piece, and each difference of two it compares, is below 0."""
    rows = []
    with np.errstate(all="ignore"):
        for step, (ins, out) in zip(piece.steps, _run(piece, x, *parameters), strict=True):
            if step.name in _COMPARING:
                rows.append(np.less(ins[0], ins[1]))
            elif step.name == "clamp":
                rows += [np.less(ins[1], ins[0]), np.less(ins[1], ins[2])]
            if np.asarray(out).dtype != bool:
                rows.append(np.less(out, 0))
    return np.stack([np.broadcast_to(row, x.shape) for row in rows])
