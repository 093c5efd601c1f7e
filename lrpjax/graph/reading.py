"""Reading a model: once for each shape of input, and at an input every value that it computes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import RLock
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base import checks, given, text
from ..program import Program, evaluate, is_real, run, single, trace
from ..program.evaluation import as_number, as_single, resumed
from . import REGISTERED, Graph
from .stated_range import check_stated_range


@dataclass(frozen=True, eq=False)
class Reading:
    """A model read at an input: its layers, the arrays that it held then, the input's leaves.

    What takes a model takes a reading of it too, with inputs of the same shape, and does not trace
    it again. See `read`. Called, it is the model.
    """

    graph: Graph
    consts: list[Any]
    leaves: list[Any]
    x_tree: Any
    out_tree: Any
    source: Source

    def at(self, x: Any) -> Reading:
        """The same at another input of the shape. Raises as `read` does."""
        return read_at(self, x, fold=True)

    def holding(self, consts: Sequence[Any]) -> Reading:
        """The same with other values in the place of `consts`, here and wherever it is read."""
        program, paths = self.graph.program, self.graph.paths
        named = _by_name(program, paths, consts)
        return replace(self, consts=list(consts), source=self.source.holding(named))

    @property
    def model(self) -> jax.tree_util.Partial:
        """The model as a function of x, of any shape that it takes: a pytree of its parameters."""
        program, paths = self.graph.program, self.graph.paths
        own = _by_name(program, paths, self.consts)
        return jax.tree_util.Partial(Functional(self.source.bare), own)

    def __call__(self, x: Any) -> Any:
        return self.model(x)

    def __repr__(self) -> str:
        layers = len(self.graph.layers)
        return f"<a model read for an input {text.arrays(self.leaves)}: {layers} layers>"


@dataclass(frozen=True, eq=False)
class Traced:
    """A model's program for one shape of input, with the arrays that it held.

    paths: as `trace` gives them.
    """

    program: Program
    consts: list[Any]
    paths: dict[int, str]
    out_tree: Any


class Source:
    """A model, and what has been read of it, once for each shape of input.

    snapshot: whether arrays of numpy, which may be written to later, are kept as copies.
    """

    def __init__(self, model: Callable, *, snapshot: bool = False):
        _require_model(model)
        self.model, self._snapshot = model, snapshot
        self.bare, self._held = self, dict[str, Any]()
        self._made: dict[Hashable, Any] = {}
        self._lock = RLock()

    def holding(self, named: dict[str, Any]) -> Source:
        """The same model with other parameters, by name: nothing is traced again."""
        made = Source(jax.tree_util.Partial(Functional(self.bare), named))
        made.bare, made._held = self.bare, named
        return made

    def once(self, what: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gives, made when it is first asked for."""
        with self._lock:
            if what not in self._made:
                self._made[what] = make()
            return self._made[what]

    def at(self, x: Any, *, fold: bool) -> Reading:
        """The model read at x. Raises for an input and weights that are not finite, and for other
        constants that are NaN: a mask may hide with infinity."""
        leaves, x_tree = _arrays(x)
        checks.check_input(leaves)
        traced = self.traced(jax.tree.unflatten(x_tree, leaves))
        what = ("layers", traced, fold, tuple(REGISTERED.items()))
        graph = self.bare.once(what, lambda: _layers(traced, fold))
        consts = _replaced(traced, self._held)
        return Reading(graph, consts, leaves, x_tree, traced.out_tree, self)

    def traced(self, x: Any) -> Traced:
        """The model's program for inputs like x, arrays or what has their shape and dtype."""
        shape = _shape(*jax.tree.flatten(x))
        return self.bare.once(("program", shape), lambda: self.bare._trace(x))

    def _trace(self, x: Any) -> Traced:
        program, consts, paths, out_tree = trace(self.model, x)
        if self._snapshot:
            consts = [c.copy() if isinstance(c, np.ndarray) else c for c in consts]
        made = Traced(program, consts, paths, out_tree)
        _require_unchanged(made, self.once("first", lambda: made))
        return made


@dataclass(frozen=True)
class Functional:
    """A model that was read, as a function of its parameters, by name, and its input.

    What takes a model knows it by this, and does not trace it again.
    """

    source: Source

    def __call__(self, named: dict[str, Any], x: Any) -> Any:
        traced = self.source.traced(x)
        values, leaves = _replaced(traced, named), jax.tree.leaves(x)
        return jax.tree.unflatten(traced.out_tree, _outputs(traced.program, values, leaves))


@partial(jax.jit, static_argnums=0)
def _outputs(program: Program, consts: list[Any], leaves: list[Any]) -> list[Any]:
    env: dict[int, Any] = {v: as_single(value) for v, value in program.literals.items()}
    env |= {v: as_single(value) for v, value in zip(program.consts, consts, strict=True)}
    env |= dict(zip(program.inputs, map(as_number, leaves), strict=True))
    env = resumed(program, env, {})  # layers without parameters are named after their scopes
    return [env[v] for v in program.outputs]


def _names(program: Program, paths: dict[int, str]) -> list[str | None]:
    """A unique name for each constant that has a path; None for the others."""
    taken = set[str]()
    names: list[str | None] = []
    for i, number in enumerate(program.consts):
        path = paths.get(number)
        names.append(f"{path}_{i}" if path in taken else path)
        taken.update([] if path is None else [path])
    return names


def _by_name(program: Program, paths: dict[int, str], consts: Sequence[Any]) -> dict[str, Any]:
    named = zip(_names(program, paths), consts, strict=True)
    return {name: value for name, value in named if name is not None}


def _replaced(traced: Traced, named: dict[str, Any]) -> list[Any]:
    """The constants of a program, those of the names in the place of its own."""
    names = _names(traced.program, traced.paths)
    return [
        own if name is None else named.get(name, own)
        for name, own in zip(names, traced.consts, strict=True)
    ]


def _require_model(model: Any) -> None:
    """Raises TypeError for what is no function, and for the models of other frameworks."""
    if callable(model):
        if given.is_foreign(model):
            raise TypeError(f"The model is {given.told('model', model)}.")
        return
    advice = next((text for is_it, text in _NO_MODELS if is_it(model)), "")
    raise TypeError(
        f"The model must be a function of a batch of inputs, got {given.what(model)}"
        f"{advice and ': ' + advice}."
    )


_PARTIAL = "pass jax.tree_util.Partial(function, parameters), for a function (parameters, x)"
_NO_MODELS: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (lambda model: hasattr(model, "apply"), "pass jax.tree_util.Partial(model.apply, parameters)"),
    (lambda model: isinstance(model, Mapping | list | tuple), _PARTIAL),
    (lambda model: hasattr(model, "shape"), "the model comes first, and then its input"),
    (
        lambda model: isinstance(model, str),
        "names are for the command line, here it is lrpjax.models.resnet50() or the like",
    ),
)


# What every measure takes: a model, or what was read of it.
Model = Callable[..., Any] | Reading | Source


def read(model: Model, x: Any) -> Reading:
    """The model read once, for inputs of the shape of x: give it wherever a model is wanted.

    x: an input of the model, any pytree of arrays. A reading is a snapshot: no change of the model
    changes it. Where a measure needs other batches (single images) the model is read for these too,
    once for each shape; ValueError if it has changed in between.
    Raises ValueError for a model that does not run at x, does not depend on it, is in training mode
    or lets examples depend on one another, for an input or weights that are not finite, and for an
    input far from the model's own `input_range`.
    """
    found = _source(model)
    callable_: Any = model if found is None else found.model
    check_stated_range(model_of(model), x)
    return Source(callable_, snapshot=True).at(x, fold=True)


def source_of(model: Model, x: Any) -> Source:
    """What a measure of the inputs x reads a model from, at batches of its own.

    Raises ValueError where x has not the shape that a reading is for, or is far from the range that
    the model states.
    """
    found = _source(model)
    if isinstance(model, Reading):
        leaves, tree = _arrays(x)
        checks.check_input(leaves)
        if _shape(leaves, tree) != _shape(model.leaves, model.x_tree):
            raise ValueError(
                f"The model was read for an input {text.arrays(model.leaves)}, and this one is "
                f"{text.arrays(leaves)}: read it for this shape, with lrpjax.read(model, x)."
            )
    if model is not found:  # else it is what was made here, and its input was tested
        check_stated_range(model_of(model), x)
    given: Any = model
    return Source(given) if found is None else found


def _source(model: Any) -> Source | None:
    """What has been read of a model; None where it is none that was read."""
    if isinstance(model, Source):
        return model
    if isinstance(model, Reading):
        return model.source
    if isinstance(model, jax.tree_util.Partial) and isinstance(model.func, Functional):
        return model.func.source.holding(*model.args)
    return None


def read_at(model: Model, x: Any, *, fold: bool) -> Reading:
    """A model, or the reading or source of one, read at an input. Raises as `read` does."""
    return source_of(model, x).at(x, fold=fold)


def model_of(model: Any) -> Any:
    """The callable that was given, of a model or of what was read of it."""
    found = _source(model)
    return model if found is None else found.bare.model


def _layers(traced: Traced, fold: bool) -> Graph:
    program, consts, paths = traced.program, traced.consts, traced.paths
    if not program.active.intersection(program.outputs):
        raise ValueError("The model's output does not depend on its input: nothing to explain.")
    # Functions are recognised by trying others, on numbers where these may be NaN.
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.debug_nans(False),
    ):
        graph = Graph(program, paths, fold=fold)
    names = [paths.get(number) or "a constant of the model" for number in program.consts]
    weights = graph.weights
    arrays = [c if isinstance(c, np.ndarray) else jnp.asarray(c) for c in consts]
    numbers = [
        c if v in weights else _without_infinity(c)
        for v, c in zip(program.consts, arrays, strict=True)
    ]
    checks.check_finite(numbers, [f"the weights {n}" for n in names])
    return graph


def _require_unchanged(now: Traced, first: Traced) -> None:
    """Raises ValueError if a model holds other arrays than when it was read first."""
    before, after = (
        {t.paths[n]: c for n, c in zip(t.program.consts, t.consts, strict=True) if n in t.paths}
        for t in (first, now)
    )
    for path in before.keys() & after.keys():
        a, b = before[path], after[path]
        if a is not b and not (checks.is_concrete(a) and checks.is_concrete(b) and _equal(a, b)):
            raise ValueError(
                f"The model has changed since it was read ({path or 'an array without a name'}): "
                "read it again, with lrpjax.read(model, x)."
            )


def _equal(a: Any, b: Any) -> bool:
    return a.shape == b.shape and bool((np.asarray(a) == np.asarray(b)).all())


def _arrays(x: Any) -> tuple[list[Any], Any]:
    """The leaves of an input as arrays, and its structure."""
    given.require_arrays("x", x)
    leaves, tree = jax.tree.flatten(x)
    return [leaf if _is_plain(leaf) else jnp.asarray(leaf) for leaf in leaves], tree


def _is_plain(leaf: Any) -> bool:
    """Whether a leaf is an array, or what says the shape of one; a number or a variable is not."""
    if isinstance(leaf, jax.Array | np.ndarray | np.generic):
        return True
    return hasattr(leaf, "dtype") and not hasattr(leaf, "__jax_array__")


def _shape(leaves: Sequence[Any], tree: Any) -> Hashable:
    return tree, tuple((leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype)) for leaf in leaves)


def _without_infinity(constant: Any) -> Any:
    if not is_real(constant) or (checks.is_concrete(constant) and not np.isinf(constant).any()):
        return constant
    return jnp.where(jnp.isinf(constant), 0, constant)


def environment(
    graph: Graph, consts: Sequence[Any], leaves: Sequence[Any], by: Callable = evaluate
) -> dict[int, Any]:
    """Every value of the program by number, half precision and integer inputs as float32.

    by: how each equation is evaluated, as by `graph.evaluate`.
    """
    program = graph.program
    numbers = [as_number(leaf) for leaf in leaves]
    env = {v: jnp.asarray(value, single(value.dtype)) for v, value in program.literals.items()}
    env |= {v: as_single(c) for v, c in zip(program.consts, consts, strict=True)}
    env |= dict(zip(program.inputs, numbers, strict=True))
    return run(program.eqns, env, by)
