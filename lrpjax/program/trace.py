"""From a callable to a flat program whose parameters are arguments with names."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from .._base import text
from .contractions import contracted
from .flatten import flatten
from .mending import INFERENCE, hint, keras_untouched, reason
from .program import Program, is_inexact

# Parts of a parameter's path that name how it is stored, not where it belongs.
_STORAGE = {"params", "raw_value", "_fun"}

_DEPTH = 4  # how many wrappers (partial, vmap, jit, a method, a closure) a model may wear


def trace(model: Callable, x: Any) -> tuple[Program, list[Any], dict[int, str], Any]:
    """Traces `model` at the input `x` (arrays or anything with shape and dtype, any pytree).

    Returns the program, the values of its constants (in the order of `program.consts`), the
    path of each constant that is a known parameter ("conv1.kernel", or "" for one that is held
    under no name), by number, and the
    tree structure of the output.
    """
    leaves, tree = jax.tree.flatten(model)
    is_tree = any(_is_array(leaf) for leaf in leaves)
    slots = [i for i, leaf in enumerate(leaves) if is_tree and _is_array(leaf)]
    structure: list[Any] = []

    def run(arrays, x):
        filled = dict(zip(slots, arrays, strict=True))
        rebuilt = [filled.get(i, leaf) for i, leaf in enumerate(leaves)]
        return (jax.tree.unflatten(tree, rebuilt) if is_tree else model)(x)

    def call(arrays, *inputs):
        out = run(arrays, jax.tree.unflatten(x_tree, inputs))
        structure.append(jax.tree.structure(out))
        return out

    x_leaves, x_tree = jax.tree.flatten(x)
    arrays = [leaves[i] for i in slots]
    shaped = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in x_leaves]
    try:
        with keras_untouched():
            closed = jax.make_jaxpr(call)(arrays, *shaped)
    except _error_of_flax("TraceContextError") as error:
        raise ValueError(
            "The model changes its own state when it is called (training-mode BatchNorm or "
            f"dropout?): {INFERENCE}"
        ) from error
    except (TypeError, ValueError, *_error_of_flax("FlaxError")) as error:  # type: ignore[misc]
        raise ValueError(
            f"The model cannot be called with input {text.arrays(shaped)}: {reason(error)}."
            + hint(error, _containers(model), partial(run, arrays), x)
        ) from error
    program, closed_over = flatten(closed, len(x_leaves))
    values = arrays + closed_over
    held = _Held(model)
    paths = {
        number: held.names[id(value)]
        for number, value in zip(program.consts, values, strict=True)
        if id(value) in held.names
    }
    # Named numbers beside: the model has parameters, and an array of numpy is none of them.
    weighs = any(is_inexact(v) for n, v in zip(program.consts, values, strict=True) if n in paths)
    closed_numbers = dict(zip(program.consts[len(arrays) :], closed_over, strict=True))
    program.fixed = {
        n for n, value in closed_numbers.items() if held.is_fixed(value, is_tree, weighs)
    }
    program = contracted(program, lambda n: n in closed_numbers and _is_mask(closed_numbers[n]))
    return program, values, paths, structure[-1]


def _is_mask(value: Any) -> bool:
    """Whether an array holds nothing but 0 and 1, and both: what is left out, and what is not."""
    if isinstance(value, jax.core.Tracer):
        return False
    value = np.asarray(value)
    return bool(((value == 0) | (value == 1)).all() and value.any() and not value.all())


class _Held:
    """The arrays that a model holds, and what is known of those that it does not.

    names: the path of each array, by its identity.
    """

    def __init__(self, model: Callable):
        self.names: dict[int, str] = {}
        self._declares = self._has_plain = False
        for name, container in _containers(model):
            self._declares |= bool(_keras_variables(container))
            for path, leaf in _named_arrays(name, container):
                self.names.setdefault(id(leaf), path)
                self._has_plain |= isinstance(leaf, np.ndarray) and leaf is not container

    def is_fixed(self, value: Any, is_tree: bool, has_parameters: bool) -> bool:
        """Whether a constant that the model closes over is no parameter of it.

        That is what a module that declares its parameters does not hold, or an array of numpy
        beside parameters of JAX. Whatever else has no name may be a parameter.
        """
        if id(value) in self.names:
            return False
        if is_tree or self._declares:
            return True
        return has_parameters and not isinstance(value, jax.Array) and not self._has_plain


def _error_of_flax(name: str) -> tuple[type[Exception], ...]:
    """One of the errors of Flax, to be caught; none where it is not loaded and none is raised."""
    errors = sys.modules.get("flax.errors")
    return (getattr(errors, name),) if errors is not None else ()


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray)


def _containers(model: Any) -> Iterator[tuple[str, Any]]:
    """The model and what its wrappers (partial, vmap, jit, methods, closures) hold, with the
    names of the variables that hold it."""
    queue, seen = [("", model, 0)], set()
    while queue:
        name, item, depth = queue.pop(0)
        if id(item) in seen or depth > _DEPTH or inspect.ismodule(item):
            continue
        seen.add(id(item))
        yield name, item
        queue += [(name, held, depth + 1) for name, held in _held(item)]


def _held(item: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(item, partial):
        yield from (("", held) for held in (item.func, *item.args, *item.keywords.values()))
    yield from (("", getattr(item, n)) for n in ("__wrapped__", "__self__") if hasattr(item, n))
    code = getattr(item, "__code__", None)
    if code is None:
        return
    for name, cell in zip(code.co_freevars, item.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # a cell that its function has not filled yet
            continue
    yield from ((n, item.__globals__[n]) for n in code.co_names if n in item.__globals__)


def _named_arrays(name: str, container: Any) -> Iterator[tuple[str, Any]]:
    """The arrays in a container with their paths; without a parent, after their variable."""
    if isinstance(container, type):
        return
    keras = _keras_variables(container)
    if keras is not None:
        own = f"{getattr(container, 'name', '')}/"  # a model that made its layers itself
        for variable in keras:
            yield variable.path.removeprefix(own).replace("/", "."), variable.value
        return
    variables = _variables(container)
    try:
        leaves, _ = jax.tree.flatten_with_path(container if variables is None else variables)
    except (TypeError, ValueError):  # not every object a function refers to is a sound pytree
        return
    for path, leaf in leaves:
        if _is_array(leaf):
            own = _path(path)
            yield own if "." in own else ".".join(filter(None, (name, own))), leaf


def _variables(container: Any) -> Any:
    try:
        return getattr(container, "variables", None)
    except ValueError:  # an unbound linen module has none
        return None


def _keras_variables(container: Any) -> list | None:
    """The variables of a Keras model or layer; None for anything else."""
    variables = None if isinstance(container, type) else _variables(container)
    is_keras = isinstance(variables, list) and all(hasattr(v, "path") for v in variables)
    return variables if is_keras else None


def _path(keys: tuple) -> str:
    """(conv1, kernel, value) to "conv1.kernel"."""
    if keys and isinstance(keys[0], jax.tree_util.FlattenedIndexKey):  # the arguments of a Partial
        keys = keys[2:]
    parts = [str(getattr(k, "name", getattr(k, "key", getattr(k, "idx", k)))) for k in keys]
    if parts and parts[-1] == "value":  # how nnx stores; further up it is a layer's name
        parts.pop()
    return ".".join(part for part in parts if part not in _STORAGE)
