"""Pieces of a program that map one number to one, and what they give on the whole real line.

A piece is evaluated by numpy in double precision, whatever the model's precision is: it is the
function that is asked for, not its rounding, and no spelling overflows earlier than it must. The
numbers in it are those of the model, rounded as the model has rounded them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..program import primitives
from ..program.program import Eqn

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

    @property
    def rounds(self) -> bool:
        """Whether numbers are rounded in it: it may then jump between any two points."""
        return any(step.name in _WHOLE for step in self.steps)

    @property
    def climbs(self) -> bool:
        """Whether it is made of steps, each of one value, that only climb or only fall, from one
        number: it can do nothing between two points that is not seen at them."""
        result = self.result
        while not isinstance(result, str) and result > 0:
            step = self.steps[result - 1]
            values = [v for v in step.operands if not isinstance(v, str)]
            falls_apart = step.name == "div" and isinstance(step.operands[0], str)
            if step.name not in _CLIMBING or len(values) != 1 or falls_apart:
                return False
            (result,) = values
        return True


def piece_of(
    eqns: Sequence[Eqn], given: Sequence[int], numbers: Mapping[int, Any], dtype: Any
) -> Piece | None:
    """The equations as a piece; None if one of them is not known here.

    given: the value it is a function of, and its parameters. numbers: the constants.
    """
    place: dict[int, Operand] = {v: k for k, v in enumerate(given)}
    steps: list[Step] = []
    terms: dict[Operand, Terms] = {}
    result: Operand = 0
    for eqn in eqns:
        name = _step_name(eqn)
        if name is None or any(v not in place and np.iscomplexobj(numbers[v]) for v in eqn.inputs):
            return None
        operands = tuple(place[v] if v in place else _text(numbers[v]) for v in eqn.inputs)
        step = Step(name, operands, eqn.params.get("y", 1))
        if step not in steps:  # what is computed twice is one
            steps.append(step)
        made = len(given) + steps.index(step)
        terms[made] = _terms(step, made, terms)
        (out,) = eqn.outputs
        result = place[out] = _alone(terms[made], made)
    return Piece(*_needed(steps, result, len(given)), np.dtype(dtype).name)


def _needed(steps: Sequence[Step], result: Operand, given: int) -> tuple[tuple[Step, ...], Operand]:
    """The steps that a result is made of, and its number among them."""
    needed, waiting = set[int](), [result]
    while waiting:
        v = waiting.pop()
        if not isinstance(v, str) and v >= given and v not in needed:
            needed.add(v)
            waiting += steps[v - given].operands
    number: dict[Operand, Operand] = {v: given + k for k, v in enumerate(sorted(needed))}
    kept = (steps[v - given] for v in sorted(needed))
    renamed = lambda step: tuple(number.get(v, v) for v in step.operands)
    return tuple(replace(s, operands=renamed(s)) for s in kept), number.get(result, result)


def _step_name(eqn: Eqn) -> str | None:
    """The name of an equation's step, if it can be one."""
    name = eqn.name
    if name == "convert_element_type" and eqn.params["new_dtype"] == np.dtype(bool):
        return _TO_TRUTH
    if name == "round":
        return _ROUNDING[int(eqn.params["rounding_method"])]
    if name in _NUMPY:
        return name
    row = primitives.of(name)
    return _SAME if row.moves == "0" and row.is_entrywise else None


Terms = dict[Operand, int]  # of a sum: how often each value is in it


def _terms(step: Step, made: int, known: Mapping[Operand, Terms]) -> Terms:
    """The values that a step sums up. Numbers are not looked into."""
    signs = _SIGNS.get(step.name, ())
    summed = _unchanged(step) or tuple(zip(signs, step.operands, strict=False))
    if not summed or any(isinstance(v, str) for _, v in summed):
        return {made: 1}
    found: Terms = {}
    for sign, v in summed:
        for term, count in known.get(v, {v: 1}).items():
            found[term] = found.get(term, 0) + sign * count
    return {term: count for term, count in found.items() if count}


def _unchanged(step: Step) -> tuple[tuple[int, Operand], ...]:
    """The operand that a step leaves as it is: it adds 0, or multiplies by 1."""
    neutral = {"add": _text(0), "sub": _text(0), "mul": _text(1), "div": _text(1)}.get(step.name)
    if neutral is not None and step.operands[1] == neutral:
        return ((1, step.operands[0]),)
    if step.name in ("add", "mul") and step.operands[0] == neutral:
        return ((1, step.operands[1]),)
    return ()


def _alone(terms: Terms, made: int) -> Operand:
    """What is left of x + (g - x), or of any such sum: g, exactly, where numbers would round it."""
    (alone, *others) = terms.items() or [(made, 1)]
    return alone[0] if not others and alone[1] == 1 else made


_TRUTH = {"True": True, "False": False}
_SAME, _TO_TRUTH = "same", "to truth"
_SIGNS = {_SAME: (1,), "add": (1, 1), "add_any": (1, 1), "sub": (1, -1)}  # of what is summed up
_ROUNDING = {0: "round away from 0", 1: "round to even"}  # by JAX's rounding_method
_WHOLE = {*_ROUNDING.values(), "floor", "ceil"}


def _text(number: Any) -> str:
    number = np.asarray(number)
    return str(bool(number)) if number.dtype == bool else float(number).hex()


def _read(operand: str) -> float | bool:
    return _TRUTH[operand] if operand in _TRUTH else float.fromhex(operand)


def _select(which: Any, *cases: Any) -> Any:
    return np.where(which, cases[-1], cases[0])


def _away_from_0(x: Any) -> Any:
    whole = np.trunc(x)
    return whole + np.sign(x) * (np.abs(x - whole) >= 0.5)


# How numpy says each primitive that a known activation may be spelled with.
_NUMPY: dict[str, Callable] = {
    "abs": np.abs,
    "add": np.add,
    "add_any": np.add,
    "and": np.logical_and,
    "ceil": np.ceil,
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
    "cosh": np.cosh,
    "div": np.divide,
    "eq": np.equal,
    "erf": np.vectorize(math.erf, otypes=[float]),
    "erfc": np.vectorize(math.erfc, otypes=[float]),
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "floor": np.floor,
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
    "round away from 0": _away_from_0,
    "round to even": np.rint,
}
_CLIMBING = {"add", "add_any", "clamp", "div", "max", "min", "mul", "neg", "sub", _SAME, *_WHOLE}
COMPARING = {"eq", "ge", "gt", "le", "lt", "max", "min", "ne"}


def values(piece: Piece, x: np.ndarray, *parameters: float) -> np.ndarray:
    """The piece at each of the numbers x, in double precision."""
    if isinstance(piece.result, str):
        return np.full_like(x, _read(piece.result))
    env = [x, *parameters, *(value for _, value in run(piece, x, *parameters))]
    return np.asarray(env[piece.result], np.float64)


def numpy_value(name: str, *operands: Any) -> Any:
    """A primitive of numbers, without an opinion on infinities."""
    with np.errstate(all="ignore"):
        return _NUMPY[name](*operands)


def run(piece: Piece, x: np.ndarray, *parameters: float) -> list[tuple[list, Any]]:
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
