"""What somebody gave in the place of what is wanted: what it is, and what to give instead.

Other packages are known by the names of their classes' modules, and never imported for it.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from numbers import Number
from os import PathLike
from typing import Any

import jax
import numpy as np

from .text import arrays

_LONG = 60  # letters of a text that is quoted
_FRAMEWORKS = "a function of JAX or a module of nnx, Equinox, Haiku or Keras"


def _has_shape(value: Any) -> bool:
    return hasattr(value, "shape")


def _numpy_of_torch(name: str, value: Any) -> str:
    on_host = getattr(getattr(value, "device", None), "type", "cpu") == "cpu"
    plain = on_host and not getattr(value, "requires_grad", False)
    return f"pass {name}.numpy()" if plain else f"pass {name}.numpy(force=True)"


_TO_NUMPY = "pass {name}.numpy()"
_NO_MODEL = f"lrpjax reads {_FRAMEWORKS}, and its weights can be copied into one as arrays of numpy"
_FROM_FILE = "read it, as with np.asarray(PIL.Image.open({name}))[None] / 255 for a picture"

# Package of a class or of one that it inherits from; which of its objects; what to do: of the name
# under which it was given, and of the object where that matters.
_FOREIGN: tuple[tuple[str, Callable[[Any], bool], str | Callable[[str, Any], str]], ...] = (
    ("torch", _has_shape, _numpy_of_torch),
    ("torch", callable, _NO_MODEL),
    ("tensorflow", _has_shape, _TO_NUMPY),
    ("tensorflow", callable, _NO_MODEL),
    ("keras", lambda value: _has_shape(value) and not hasattr(value, "__jax_array__"), _TO_NUMPY),
    ("cupy", _has_shape, "pass {name}.get()"),
    ("pandas", _has_shape, "pass {name}.to_numpy()"),
    ("polars", _has_shape, "pass {name}.to_numpy()"),
    ("PIL", lambda value: True, "pass np.asarray({name})[None]"),
)

# What any class may be, where no row above is of its package.
_OWN: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (lambda value: isinstance(value, str | PathLike), _FROM_FILE),
    (lambda value: isinstance(value, Iterator), "take a batch of it, next({name})"),
    (lambda value: isinstance(value, list | tuple) and _of_arrays(value), "pass np.stack({name})"),
    (lambda value: isinstance(value, list | tuple), "pass np.asarray({name})"),
)


def what(value: Any) -> str:
    """What an object is, in a few words: a torch.Tensor, an array float32[2, 3], the function f."""
    if isinstance(value, str | PathLike):
        text = repr(str(value))
        return text if len(text) <= _LONG else f"{text[:_LONG]}...'"
    if value is None or isinstance(value, Number):
        return repr(value)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, np.ndarray | jax.Array | jax.ShapeDtypeStruct):
        return f"an array {arrays([value])}"
    if isinstance(value, list | tuple | Mapping):
        return f"a {type(value).__name__} of length {len(value)}"
    if isinstance(value, types.ModuleType):
        return f"the Python module {value.__name__}"
    if callable(value) and hasattr(value, "__name__"):
        return f"the function {value.__name__}"
    return _a(_own_name(value))


def instead(name: str, value: Any) -> str:
    """What to give in the place of an object where an array is wanted; empty if nobody knows.

    name: under which it was given.
    """
    if (row := _row(value)) is not None:
        advice = row[2]
        return advice(name, value) if callable(advice) else advice.format(name=name)
    return next((text.format(name=name) for is_it, text in _OWN if is_it(value)), "")


def told(name: str, value: Any) -> str:
    """What an object is and what to give in its place, for the end of a sentence."""
    return ": ".join(filter(None, (what(value), instead(name, value))))


def is_foreign(value: Any) -> bool:
    """Whether an object is of a package whose arrays and models are none of JAX."""
    return _row(value) is not None


def require_arrays(name: str, tree: Any) -> None:
    """Raises TypeError for a leaf of a pytree that is no number and no array, with its path."""
    leaves, _ = jax.tree.flatten_with_path(tree, is_leaf=_is_list_of_numbers)
    if not leaves:
        raise TypeError(f"{name} is {what(tree)} and holds no array: pass an array.")
    for path, leaf in leaves:
        if not _is_array(leaf):
            where = name + jax.tree_util.keystr(path)
            raise TypeError(
                f"{where} is {told(where, leaf) if instead(where, leaf) else _no(leaf)}."
            )


def _no(value: Any) -> str:
    return f"{what(value)}, which is no array: pass an array of numpy or JAX"


def _is_array(leaf: Any) -> bool:
    if isinstance(leaf, jax.Array | np.ndarray | np.generic | Number):
        return True
    # The shapes of JAX, from which a model is read as well, and what JAX itself takes for an array.
    return "jax" in _packages(leaf) or hasattr(leaf, "__jax_array__")


def _is_list_of_numbers(tree: Any) -> bool:
    numbers = jax.tree.leaves(tree) if isinstance(tree, list) else []
    return bool(numbers) and all(isinstance(v, Number) for v in numbers)


def _of_arrays(value: Any) -> bool:
    return bool(value) and all(isinstance(v, np.ndarray | jax.Array) for v in value)


def _packages(value: Any) -> set[str]:
    """The packages of an object's class, or of a class, and of all those that it inherits from."""
    own = value if isinstance(value, type) else type(value)
    return {base.__module__.partition(".")[0] for base in own.__mro__}


def _row(value: Any) -> tuple | None:
    found = _packages(value)
    return next((row for row in _FOREIGN if row[0] in found and row[1](value)), None)


def _own_name(value: Any) -> str:
    """A class' name, after its package where that is not Python's, this one or the user's own."""
    row = _row(value)
    return type(value).__name__ if row is None else f"{row[0]}.{type(value).__name__}"


def _a(name: str) -> str:
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
