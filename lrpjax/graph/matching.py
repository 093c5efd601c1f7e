"""Which known function a piece of a program is: found by their values on the whole real line."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from .._base.compat import outside_traces
from ..program.flatten import flatten
from ..program.uniform import uniform_values
from .known import KNOWN, Known, Parameters
from .line import few, points
from .pieces import Piece, piece_of, values

_CACHED = 4096  # pieces
_SLOPES = (0.3, 0.7)  # at which a function with one trained parameter is tried
_SAME = 1e-5  # relative: numbers in the code may be written to so many digits
_ROUNDING = 16 * np.finfo(np.float64).eps
_EQUAL = 1e-3  # distances below it are one
_BLUR = 1e-9  # of the width of a stair
_ENOUGH = 0.25  # of the points on each side of 0: so many must be finite to prove anything


@lru_cache(_CACHED)
def recognise(piece: Piece, straight_through: bool) -> tuple[str, Parameters, bool] | None:
    """(name, parameters, never_negative) of the known function that is closest to the piece and
    equal to it wherever the model's own value is finite."""
    rows = [name for name, row in KNOWN.items() if _may_be(row, piece, straight_through)]
    candidates = _fitting(piece, few(piece.dtype), _candidates(piece, rows))
    x = points(piece) if candidates else None
    if x is None:
        return None
    x = np.union1d(x, _by_the_jumps(candidates, x))
    best = min(_fitting(piece, x, candidates), key=lambda c: c[0], default=None)
    if best is None:
        return None
    _, name, parameters = best
    own = values(piece, x)
    low, _ = KNOWN[name].range(*parameters)
    return name, parameters, low >= 0 and not (own < 0).any()


def _may_be(row: Known, piece: Piece, straight_through: bool) -> bool:
    """Whether a piece may be of a row. What rounds jumps between points, and is a step function of
    which all jumps are tried, or nothing."""
    if row.is_step:
        return straight_through and (piece.climbs or not piece.rounds)
    return not piece.rounds


Candidate = tuple[float, str, Parameters]  # its distance, its name, its parameters


def _candidates(piece: Piece, rows: Sequence[str]) -> list[Candidate]:
    """The known functions with the parameters that the piece's values give."""
    function = lambda x: float(values(piece, np.array([x]))[0])
    largest = float(jnp.finfo(piece.dtype).max)
    read = ((name, KNOWN[name].read_off(function, largest)) for name in rows)
    return [(0.0, name, parameters) for name, parameters in read if parameters is not None]


def _by_the_jumps(candidates: Sequence[Candidate], x: np.ndarray) -> np.ndarray:
    """What lies on both sides of each jump of the candidates, and half-way to the next."""
    found = [np.zeros(0)]
    for _, name, parameters in candidates:
        if (at := KNOWN[name].jumps) is not None:
            jumps = at(*parameters)
            found += [*_blurred(name, parameters, jumps, by=2), (jumps[1:] + jumps[:-1]) / 2]
    return np.clip(np.concatenate(found), x[0], x[-1])


def _blurred(
    name: str, parameters: Parameters, x: np.ndarray, by: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """The numbers below and above x between which a step function may jump as if at x: one of
    several stairs, of which a model computes the place in its own way."""
    at = KNOWN[name].jumps
    if at is None:
        return x, x
    width = np.diff(at(*parameters)).min(initial=np.inf)
    blur = by * ((_BLUR * width if width < np.inf else 0) + _ROUNDING * np.abs(x))
    with np.errstate(over="ignore"):
        return x - blur, x + blur


def _fitting(piece: Piece, x: np.ndarray, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those of the candidates that the piece equals at the points x."""
    own = values(piece, x)
    found = []
    for _, name, parameters in candidates:
        known = partial(values, _traced(name, len(parameters), piece.dtype))
        expected = known(x, *parameters)
        if KNOWN[name].is_step:
            below, above = _blurred(name, parameters, x)
            expected = np.clip(own, known(below, *parameters), known(above, *parameters))
        distance = _distance(x, own, expected, piece.dtype)
        if distance <= 1:
            found.append((max(distance, _EQUAL), name, parameters))
    return found


@lru_cache(_CACHED)
def _traced(name: str, parameters: int, dtype: str) -> Piece:
    """A known function as a piece: at the model's dtype, to which its own numbers are rounded."""
    dtype = dtype if jnp.finfo(dtype).bits > 8 else "float32"  # JAX computes nothing in float8
    like = jax.ShapeDtypeStruct((), dtype)
    with outside_traces():
        closed = jax.make_jaxpr(KNOWN[name].function)(*[like] * (1 + parameters))
        program, _ = flatten(closed, 1 + parameters)
        piece = piece_of(program.eqns, program.inputs, uniform_values(program), dtype)
    assert piece is not None, f"{name} is made of steps that are not known"
    return piece


def _distance(x: np.ndarray, own: np.ndarray, known: np.ndarray, dtype: str) -> float:
    """The largest difference, 1 being what differently rounded numbers in the code make of it.

    Near 0 it is relative to x, so that no bend is too close to 0 to be seen, and elsewhere
    to the function. A number that cancels another leaves its rounding error.
    """
    finite = np.isfinite(own)
    if min(finite[x < 0].mean(), finite[x > 0].mean()) < _ENOUGH:
        return np.inf
    x, own, known = x[finite], own[finite], known[finite]
    if not np.isfinite(known).all():
        return np.inf
    rounded = max(_SAME, float(jnp.finfo(dtype).eps)) if jnp.finfo(dtype).bits < 32 else _SAME
    allowed = rounded * (np.abs(known) + np.minimum(np.abs(x), 1))
    with np.errstate(over="ignore"):
        return float(np.max(np.abs(own - known) / (allowed + _ROUNDING * (1 + np.abs(x)))))


@lru_cache(_CACHED)
def is_prelu(piece: Piece) -> bool:
    """Whether it is x for x > 0 and the trained parameter times x below (or minus it)."""
    return all(_has_slope(piece, slope) for slope in _SLOPES)


def _has_slope(piece: Piece, slope: float) -> bool:
    x = points(piece, slope)
    if x is None:
        return False
    own = values(piece, x, slope)
    leaky = (np.where(x > 0, x, sign * slope * x) for sign in (1, -1))
    return any(_distance(x, own, expected, piece.dtype) <= 1 for expected in leaky)
