"""Activations, recognised by what they compute and not by how they are spelled.

An activation is a piece of the program that maps one value to one of the same shape,
elementwise and with numbers written in the code (or, for PReLU, with one trained parameter). Its
name is found by evaluating it on the whole real line.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._compat import outside_traces
from . import primitives
from .flatten import flatten
from .known import CLIP, KNOWN, PRELU, Parameters
from .pieces import Piece, few, piece_of, points, values
from .program import Eqn, Program, evaluate, single

_LARGEST = 32  # equations in an activation
_SLOPES = (0.3, 0.7)  # at which a function with one trained parameter is tried
_CACHED = 4096  # pieces


@dataclass(frozen=True)
class Activation:
    """The activation of that name with these parameters (the slope of leaky_relu, the alpha of elu,
    the bounds of clip), from the value `root`.

    never_negative: the model's own values are >= 0 everywhere, and its function's range says so.
    """

    name: str
    parameters: Parameters
    never_negative: bool
    root: int
    eqns: tuple[Eqn, ...]

    def __call__(self, x: jax.Array) -> jax.Array:
        """The known function; PReLU has none without the model's parameters."""
        return KNOWN[self.name].function(x, *self.parameters)

    @property
    def range(self) -> tuple[float, float]:
        """Bounds of the known function."""
        return KNOWN[self.name].range(*self.parameters)

    @property
    def gate(self) -> bool:
        """Whether it lies between 0 and 1, so that it may weigh another value."""
        low, high = self.range
        return low >= 0 and high <= 1

    @property
    def cuts(self) -> bool:
        """Whether it is piecewise linear."""
        return KNOWN[self.name].cuts

    @property
    def keeps_sign(self) -> bool:
        """Whether f(x) x >= 0 for all x."""
        return KNOWN[self.name].keeps_sign(*self.parameters)

    @property
    def bounds(self) -> int:
        """How many bounds it cuts at: 1 for a ReLU, 2 for a ReLU6."""
        return sum(map(math.isfinite, self.range)) if self.cuts else 0

    @property
    def stops_gradient(self) -> bool:
        """Whether its derivative is not that of the function that its values are (the
        straight-through spelling)."""
        return any(eqn.name == "stop_gradient" for eqn in self.eqns)


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


def find_activation(
    program: Program, uniform: dict[int, np.ndarray], value: int
) -> Activation | None:
    """The activation that ends in `value`: the smallest known piece of the program.

    What cuts at one bound takes in what cuts at the other (relu6 is a minimum of a maximum), and a
    clip the affine map that makes it a hard sigmoid.
    """
    known = partial(_known, program, uniform, value)
    pieces = _pieces(program, value, uniform)
    found = next(filter(None, (known(*piece) for piece in pieces)), None)
    if found is not None and found.bounds == 1:
        inner = find_activation(program, uniform, found.root)
        if inner is not None and inner.bounds == 1:
            both = known(inner.root, inner.eqns + found.eqns, set())
            found = both if both is not None and both.bounds == 2 else found
    if found is not None and found.name == CLIP:
        for root, eqns, trained in _pieces(program, found.root, uniform):
            if trained or not all(map(_is_affine, eqns)):
                break
            if larger := known(root, eqns + found.eqns, set()):
                return larger
    return found


def _known(
    program: Program,
    uniform: dict[int, np.ndarray],
    value: int,
    root: int,
    eqns: tuple[Eqn, ...],
    trained: set[int],
) -> Activation | None:
    """The equations from root to value as an activation, if they are one that is known."""
    if all(map(_is_affine, eqns)):
        return None
    piece = piece_of(eqns, (root, *trained), uniform, _dtype(program, root, value))
    if piece is None:
        return None
    if trained:
        return Activation(PRELU, (), False, root, eqns) if _is_prelu(piece) else None
    found = _recognise(piece)
    return found and Activation(*found, root, eqns)


def _pieces(
    program: Program, value: int, uniform: dict[int, np.ndarray]
) -> Iterator[tuple[int, tuple[Eqn, ...], set[int]]]:
    """What ends in `value` and is a function of one other of its shape, from small to large: that
    other, the equations in order, and the trained parameter in them, if there is one."""
    frontier, eqns, trained = {value}, list[Eqn](), set[int]()
    if not jnp.issubdtype(program.avals[value].dtype, jnp.floating):
        return
    while len(eqns) < _LARGEST:
        eqn = program.producer.get(max(frontier, key=lambda v: program.order.get(v, -1)))
        if eqn is None:
            return
        constants = [v for v in eqn.inputs if v not in program.active and v not in uniform]
        trained.update(constants)
        numbers = all(jnp.issubdtype(program.avals[v].dtype, jnp.floating) for v in constants)
        row = primitives.of(eqn.name)
        if not row.is_entrywise or len(trained) > 1 or not numbers:
            return
        if not all(_is_real(program.avals[v].dtype) for v in eqn.outputs):
            return
        if not eqns and eqn.name == "stop_gradient":  # it moves what is another layer's
            return
        eqns.append(eqn)
        frontier = (frontier - set(eqn.outputs)) | set(program.active_inputs(eqn))
        if len(frontier) > 1:
            continue
        (root,) = frontier
        kind = program.avals[root].dtype.kind
        if program.shape(root) != program.shape(value) or kind in "bc":
            return
        yield root, tuple(eqns[::-1]), set(trained)


def _is_real(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) or dtype.kind == "b"


def _is_affine(eqn: Eqn) -> bool:
    """Whether it is a step of an affine run or moves values, if one operand is no constant."""
    row = primitives.of(eqn.name)
    return row.is_step or row.is_move


def _dtype(program: Program, root: int, value: int) -> Any:
    """Whose numbers go into the piece: of whole numbers, those that it makes of them."""
    dtypes = (program.avals[v].dtype for v in (root, value))
    return next(dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating))


# --- which function it is ------------------------------------------------------------------------

_SAME = 1e-5  # relative: numbers in the code may be written to so many digits
_ROUNDING = 16 * np.finfo(np.float64).eps
_EQUAL = 1e-3  # distances below it are one
_ENOUGH = 0.25  # of the points on each side of 0: so many must be finite to prove anything


@lru_cache(_CACHED)
def _recognise(piece: Piece) -> tuple[str, Parameters, bool] | None:
    """(name, parameters, never_negative) of the known function that is closest to the piece and
    equal to it wherever the model's own value is finite."""
    candidates = _fitting(piece, few(piece.dtype), _candidates(piece))
    x = points(piece) if candidates else None
    if x is None:
        return None
    best = min(_fitting(piece, x, candidates), key=lambda c: c[0], default=None)
    if best is None:
        return None
    _, name, parameters = best
    own = values(piece, x)
    low, _ = KNOWN[name].range(*parameters)
    return name, parameters, low >= 0 and not (own < 0).any()


Candidate = tuple[float, str, Parameters]  # its distance, its name, its parameters


def _candidates(piece: Piece) -> list[Candidate]:
    """The known functions with the parameters that the piece's values give."""
    function = lambda x: float(values(piece, np.array([x]))[0])
    largest = float(jnp.finfo(piece.dtype).max)
    read = ((name, known.read_off(function, largest)) for name, known in KNOWN.items())
    return [(0.0, name, parameters) for name, parameters in read if parameters is not None]


def _fitting(piece: Piece, x: np.ndarray, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those of the candidates that the piece equals at the points x."""
    own = values(piece, x)
    found = []
    for _, name, parameters in candidates:
        known = _traced(name, len(parameters), piece.dtype)
        distance = _distance(x, own, values(known, x, *parameters), piece.dtype)
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
def _is_prelu(piece: Piece) -> bool:
    """Whether it is x for x > 0 and the trained parameter times x below (or minus it)."""
    return all(_has_slope(piece, slope) for slope in _SLOPES)


def _has_slope(piece: Piece, slope: float) -> bool:
    x = points(piece, slope)
    if x is None:
        return False
    own = values(piece, x, slope)
    leaky = (np.where(x > 0, x, sign * slope * x) for sign in (1, -1))
    return any(_distance(x, own, expected, piece.dtype) <= 1 for expected in leaky)
