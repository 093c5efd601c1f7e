"""The options of a method's function: those that there are, and what each of them may be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, wraps
from inspect import signature
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import jax
import numpy as np

from .._base import checks, given

# What an annotation asks for: the words, and what is it. Of other annotations nothing is asked.
_KINDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    bool: ("True or False", lambda value: isinstance(value, bool | np.bool_)),
    int: ("a whole number", lambda value: checks.is_a(value, Integral)),
    float: ("a number", lambda value: checks.is_a(value, Real)),
    str: ("a text", lambda value: isinstance(value, str)),
    NoneType: ("None", lambda value: value is None),
}


def checked(make: Callable) -> Callable:
    """The function of a method, so that it says what is wrong with what it is called with.

    It raises TypeError for an option that it has not, and for one that is not what its annotation
    says. What is checked already stays as it is: a family's function stands in several rows.
    """
    if hasattr(make, "unchecked"):
        return make

    @wraps(make)
    def call(*arguments: Any, **options: Any) -> Any:
        name = make.__name__
        require_known(name, make, options)
        if not checks.takes(make, *arguments, **options):
            listed = [*map(given.what, arguments), *(f"{option}=..." for option in options)]
            takes = f"{name}{checks.written(make)}"
            raise TypeError(f"{name} cannot take {', '.join(listed) or 'nothing'}: it is {takes}.")
        for option, value in signature(make).bind(*arguments, **options).arguments.items():
            if wanted := _wanted(_hints(make).get(option), value):
                raise TypeError(f"{option} of {name} is {wanted}, got {given.what(value)}.")
        return make(*arguments, **options)

    call.unchecked = make  # type: ignore[attr-defined]
    return call


def require_known(
    name: str, make: Callable, options: Iterable[str], common: Sequence[str] = ()
) -> None:
    """Raises TypeError, with all that there are, for an option that a method has not.

    common: those that every chain of rules has.
    """
    known = [*signature(make).parameters, *common]
    for option in options:
        if option not in known:
            all_known = f"its options are {', '.join(known)}" if known else "nor any other"
            raise TypeError(f"{name} has no option {option!r}: {all_known}.")


@cache
def _hints(make: Callable) -> dict[str, Any]:
    return get_type_hints(make)


def _wanted(hint: Any, value: Any) -> str:
    """What a value should be, in words, where it is not; empty where it is or nobody can say."""
    parts = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    several = [_KINDS.get(get_args(part)[0]) for part in parts if get_origin(part) is tuple]
    plain = [_KINDS.get(part) for part in parts if get_origin(part) is not tuple]
    kinds = [kind for kind in (*plain, *several) if kind is not None]
    if len(kinds) < len(parts):
        return ""
    if any(kind[1](value) for kind in plain if kind is not None):
        return ""
    if several and isinstance(value, list | tuple | np.ndarray | jax.Array):
        values = np.asarray(value).ravel().tolist()
        if all(kind[1](one) for kind in several if kind is not None for one in values):
            return ""
    return " or ".join(dict.fromkeys(words for words, _ in kinds))
