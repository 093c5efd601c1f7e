"""A model's parameters by layer, and random ones in their place.

A model's parameters are constants of its program (see `graph.trace`) with a name. They are swapped
as arguments of what is compiled, so no randomised model is ever built or compiled again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from .._base import checks, given
from .._base.results import key_text
from ..graph import Graph
from ..graph.reading import Reading, read_at
from ..program import constants_behind, is_inexact
from ..program.mending import reason

Order = Literal["output", "input", "single"]
ORDERS = ("output", "input", "single")
RANDOMISERS = ("gaussian", "permutation")
ALIGNMENT = 64  # bytes, as XLA's own arrays


def parameters(reading: Reading) -> dict[str, tuple[int, ...]]:
    """The places in `reading.consts` of each layer's parameters, from the input to the output.

    A layer is named as in `lrpjax.plan`; BatchNorm belongs to the product that it is folded into.
    What several layers share (an embedding tied to the output) belongs to the uppermost of them.
    Raises ValueError if none of the model's parameters can be reached.
    """
    found = by_layer(reading)
    if not found:
        raise ValueError(f"None of the model's parameters can be reached, {_why_none(reading)}.")
    return found


def _why_none(reading: Reading) -> str:
    """Why no parameter has a name, and what to do."""
    hidden = unreached(reading)
    if not hidden:
        return "so none can be randomised: it computes with none"
    return (
        f"so none can be randomised: the {hidden} numbers that it computes with are no attributes "
        "of a module, but globals, or arrays of numpy in a closure, which have no name; pass them "
        "as an argument, jax.tree_util.Partial(function, parameters) for a function "
        "(parameters, x), or a module that holds them"
    )


def by_layer(reading: Reading) -> dict[str, tuple[int, ...]]:
    """As `parameters`; empty if none can be reached."""
    uses = _uses(reading)
    uppermost = {place: name for name, own in uses.items() for place in own}
    owned = {
        name: tuple(sorted(i for i in own if uppermost[i] == name)) for name, own in uses.items()
    }
    return {name: own for name, own in owned.items() if own}


def sharing(reading: Reading) -> dict[str, list[str]]:
    """For each layer with parameters those below it that compute with some of them too."""
    uses = _uses(reading)
    return {
        name: [other for other in uses if other != name and not uses[other].isdisjoint(own)]
        for name, own in by_layer(reading).items()
    }


def _uses(reading: Reading) -> dict[str, set[int]]:
    """The places of the parameters that each layer computes with, from the input to the output."""
    graph = reading.graph
    place = {number: i for i, number in enumerate(graph.program.consts)}
    found = {}
    for layer in graph.layers:
        own = {place[v] for v in _constants(graph, layer) if v in graph.paths}
        found[layer.name] = {i for i in own if is_inexact(reading.consts[i])}
    return {name: own for name, own in found.items() if own}


def unreached(reading: Reading) -> int:
    """How many numbers the model computes with that are held by no name: they stay as they are."""
    graph = reading.graph
    used = set().union(*(_constants(graph, layer) for layer in graph.layers))
    sizes = [
        const.size
        for number, const in zip(graph.program.consts, reading.consts, strict=True)
        if number in used and number not in graph.paths and is_inexact(const)
    ]
    return sum(sizes)


def _constants(graph: Graph, layer: Any) -> set[int]:
    """The program's constants on which what a layer does to its inputs depends."""
    program = graph.program
    own = [v for eqn in layer.eqns for v in eqn.inputs if v not in program.active]
    return constants_behind(program, own)


@dataclass(frozen=True)
class Stop:
    """A moment at which maps are taken. randomised: places in `reading.consts`."""

    layer: str
    randomised: frozenset[int]


def stops(reading: Reading, order: Order, names: Sequence[str] | None) -> list[Stop]:
    """The states of a randomisation, in its order; `names`: where maps are taken (default: all).

    "output" goes from the output to the input and "input" the other way: what was passed stays
    random, also where no map is taken. "single" randomises one layer at a time. A parameter of
    several layers is randomised with the uppermost of them, in every order. Raises as `parameters`
    does.
    """
    layers = parameters(reading)
    checks.check_known("order", order, ORDERS)
    checks.check_names("layers", names)
    if names is not None and len(names) == 0:
        raise ValueError("layers is empty: name at least one, or leave it out for all.")
    for name in [] if names is None else names:
        if name not in layers and name in _uses(reading):
            above = [other for other, below in sharing(reading).items() if name in below]
            raise ValueError(
                f"The layer {name!r} shares all of its parameters with {', '.join(above)} above "
                "it, and they are randomised there: name that layer."
            )
        checks.check_known("layer with parameters", name, layers)
    made: list[Stop] = []
    passed: frozenset[int] = frozenset()
    for name in reversed(layers) if order == "output" else layers:
        passed = frozenset(layers[name]) | (frozenset() if order == "single" else passed)
        if names is None or name in names:
            made.append(Stop(name, passed))
    return made


def randomised(
    reading: Reading,
    layers: dict[str, tuple[int, ...]],
    key: jax.Array,
    *,
    randomiser: str = "gaussian",
    init: Callable[[jax.Array], Callable] | None = None,
    like: Any = None,
) -> Callable[[Iterable[int]], dict[int, Any]]:
    """From places in `reading.consts` to random arrays for them, each drawn when first asked for.

    "gaussian": N(mean, std^2) of each array's own entries; an array without negative entries stays
    so (log-normal, same moments): a BatchNorm variance has to, a scale is one. An array with one
    value stays as it is. "permutation": its entries in another order. init: from a key to a model
    of the same structure, whose parameters are taken; it is read at an input like `like`.
    Each array has a key of its own.
    """
    checks.check_known("randomiser", randomiser, RANDOMISERS)
    if init is not None:
        made = _initialised(reading, layers, _initial(init, key), like)
        return lambda places: {i: made[i] for i in places}
    draw = _gaussian if randomiser == "gaussian" else np.random.Generator.permuted
    seed = np.ravel(key_text(key)).tolist()

    @cache
    def drawn(place: int) -> jax.Array:
        given = reading.consts[place]
        # numpy draws: JAX would compile its sampler for each of a network's shapes.
        dtype = np.float64 if given.dtype == np.float64 else np.float32
        values = np.asarray(given).astype(dtype, copy=False)
        made = draw(np.random.default_rng([*seed, place]), values, out=_empty(values))
        return jax.device_put(made).astype(given.dtype)

    return lambda places: {i: drawn(i) for i in places}


def _gaussian(rng: np.random.Generator, values: np.ndarray, out: np.ndarray) -> np.ndarray:
    low = values.min()
    if low == values.max():
        return values
    mean = float(values.mean())
    variance = float(np.square(np.subtract(values, mean, out=out), out=out).mean())
    if low >= 0:
        variance = np.log1p(variance / mean**2)
        mean = np.log(mean) - variance / 2
    rng.standard_normal(dtype=values.dtype, out=out)
    out *= values.dtype.type(np.sqrt(variance))
    out += values.dtype.type(mean)
    return np.exp(out, out=out) if low >= 0 else out


def _empty(like: np.ndarray) -> np.ndarray:
    """An array of the same shape and dtype that JAX takes over on a CPU: it copies others."""
    room = np.empty(like.nbytes + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + like.nbytes].view(like.dtype).reshape(like.shape)


def _initial(init: Any, key: jax.Array) -> Any:
    """What a user's initialiser gives. TypeError for what is none."""
    wanted = "init is a function of a random key that gives a model, got"
    if not callable(init) or not checks.takes(init, key):
        raise TypeError(f"{wanted} {given.what(init)}{checks.written(init)}.")
    try:
        return init(key)
    except (TypeError, ValueError) as error:  # a model, say, in the place of what makes one
        raise type(error)(f"{wanted} {given.what(init)}, which raises: {reason(error)}.") from error


def _initialised(
    reading: Reading, layers: dict[str, tuple[int, ...]], model: Callable, like: Any
) -> dict[int, Any]:
    """The parameters of another model of the same structure."""
    try:
        other = read_at(model, like, fold=True)
    except (ValueError, TypeError) as error:
        raise type(error)(f"init(key) gives a model that does not run here: {error}") from error
    paths, others = (_paths(r.graph) for r in (reading, other))
    shapes = [[getattr(c, "shape", None) for c in r.consts] for r in (reading, other)]
    if paths != others or shapes[0] != shapes[1]:
        odd = next(
            (f"{a or b} {s} against {b or 'nothing'} {t}"
             for a, b, s, t in zip(paths, others, *shapes, strict=False) if (a, s) != (b, t)),
            f"{len(paths)} parameters against {len(others)}",
        )  # fmt: skip
        raise ValueError(
            f"init(key) gives a model of another structure ({odd}): it has to return one like the "
            "model that is tested."
        )
    places = {i for own in layers.values() for i in own}
    return {i: jnp.asarray(other.consts[i], reading.consts[i].dtype) for i in places}


def _paths(graph: Graph) -> list[str | None]:
    return [graph.paths.get(number) for number in graph.program.consts]
