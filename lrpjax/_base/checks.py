"""Refusals: one clear sentence where an answer would be silent nonsense."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from difflib import get_close_matches
from inspect import signature
from numbers import Integral, Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import given
from .compat import outside_traces


def is_concrete(value: Any) -> bool:
    return not isinstance(value, jax.core.Tracer)


@jax.jit
def _all_finite(arrays: list[jax.Array]) -> jax.Array:
    # 0 a is NaN where a is not finite: one pass, of which `isfinite(a).all()` makes several.
    return jnp.stack([(0 * a).sum() == 0 for a in arrays])


def not_finite(values: Sequence[Any]) -> list[int]:
    """The places of the concrete floating-point arrays that hold NaN or infinity."""
    known = [
        (place, value)
        for place, value in enumerate(values)
        if is_concrete(value) and jnp.issubdtype(value.dtype, jnp.floating)
    ]
    away = {place: value for place, value in known if not _is_on_host(value)}
    bad = [p for p, value in known if p not in away and not np.isfinite(value).all()]
    if away:
        with outside_traces():  # also where the call stands inside a jit or a vmap
            fine = np.asarray(_all_finite(list(away.values())))
        bad += [place for place, ok in zip(away, fine, strict=True) if not ok]
    return sorted(bad)


def _is_on_host(value: Any) -> bool:
    """Whether numpy sees the numbers where they are: nothing to compile, nothing to fetch."""
    if not isinstance(value, jax.Array):
        return True
    return value.is_fully_addressable and {d.platform for d in value.devices()} == {"cpu"}


def check_finite(values: Sequence[Any], names: Sequence[str]) -> None:
    """Raises ValueError if a concrete floating-point array holds NaN or infinity."""
    if bad := ", ".join(names[place] for place in not_finite(values)):
        raise ValueError(f"There is NaN or infinity in {bad}: relevance of it would mean nothing.")


def check_maps(method: str, maps: Sequence[Any], outputs: Sequence[Any] = ()) -> None:
    """Raises ValueError if concrete relevance holds NaN or infinity, or what it is relevance of.

    All that is handed out passes here once; what is traced does not.
    """
    bad = not_finite([*outputs, *maps])
    if bad and bad[0] < len(outputs):
        check_finite(outputs, ["the model's output"] * len(outputs))
    if bad:
        raise ValueError(
            f"There is NaN or infinity in the relevance that {method} gives: it leaves the range "
            "of its precision on the way. Compute in float64 (jax_enable_x64), or take a method "
            "whose relevance stays bounded."
        )


def check_images(images: Any) -> None:
    """Raises TypeError for what is no array, ValueError for no batch of at least one image."""
    if given.is_foreign(images) or not hasattr(images, "shape"):
        raise TypeError(
            f"Images are needed as a batch, one array (N, ...), got {given.told('images', images)}."
        )
    if not images.shape or len(images) == 0:
        raise ValueError(
            "Images are needed as a batch, one array (N, ...) with N at least 1, got shape "
            f"{tuple(images.shape)}."
        )


def check_key(key: Any, name: str = "key") -> None:
    """Raises TypeError for anything but one random key of JAX, of `jax.random.key` or, in the old
    style, of `jax.random.PRNGKey`."""
    try:
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        shape = (key if typed else jax.random.wrap_key_data(key)).shape
    except (AttributeError, TypeError, ValueError):
        shape = None
    if shape is None:
        raise TypeError(
            f"{name} must be a random key of JAX, got {given.what(key)}: use jax.random.key(0)."
        )
    if shape:
        raise TypeError(
            f"{name} must be one random key of JAX, got an array {list(shape)} of them: take one, "
            f"as in {name}[0]."
        )


def check_names(option: str, names: Any) -> None:
    """Raises TypeError for anything but a sequence of names, or None."""
    if isinstance(names, str):
        raise TypeError(f"{option} is a list of names: use {option}=[{names!r}].")
    if names is not None and not (
        isinstance(names, Iterable) and all(isinstance(name, str) for name in names)
    ):
        raise TypeError(f"{option} is a list of names, got {given.what(names)}.")


def takes(function: Callable, *arguments: Any, **options: Any) -> bool:
    """Whether a function can be called with these arguments, as far as its signature says."""
    try:
        own = signature(function)
    except (TypeError, ValueError):  # of a builtin nobody can say
        return True
    try:
        own.bind(*arguments, **options)
    except TypeError:
        return False
    return True


def written(function: Any) -> str:
    """A function's parameters as they are written, " with (x, y)", for a message; empty where it
    has none that can be known."""
    try:
        own = signature(function)
    except (TypeError, ValueError):
        return ""
    plain = [p.replace(annotation=p.empty) for p in own.parameters.values()]
    return f" with {own.replace(parameters=plain, return_annotation=own.empty)}"


def check_input(leaves: Sequence[Any]) -> None:
    """Raises TypeError or ValueError if the input is not made of finite numbers."""
    for leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.floating) | jnp.issubdtype(leaf.dtype, jnp.integer):
            raise TypeError(f"The input must be real numbers, got dtype {leaf.dtype}.")
    check_finite(leaves, ["the input"] * len(leaves))


def is_a(number: Any, kind: type) -> bool:
    """Whether a value is a number of that kind; a truth value is none, though Python says so."""
    return isinstance(number, kind) and not isinstance(number, bool)


def check_least(least: float, **numbers: Any) -> None:
    """Raises ValueError for a number, by the name of its argument, that is less, or not finite, and
    TypeError for what is no number."""
    for name, number in numbers.items():
        if not is_a(number, Real):
            raise TypeError(f"{name} is a number, got {given.what(number)}.")
        if not number >= least:
            raise ValueError(f"{name} must be at least {least}, got {number}.")
        if number == float("inf"):
            raise ValueError(f"{name} must be a finite number, got {number}.")


def check_count(least: int, **numbers: Any) -> None:
    """As `check_least`, of whole numbers."""
    for name, number in numbers.items():
        if not is_a(number, Integral):
            raise TypeError(f"{name} is a whole number, got {given.what(number)}.")
    check_least(least, **numbers)


def check_known(what: str, name: Any, known: Collection[str]) -> None:
    """Raises ValueError, with the nearest names, for one that is not among those known, and
    TypeError for what is no name."""
    if not isinstance(name, str):
        raise TypeError(f"A {what} is given by its name here, got {given.what(name)}.")
    if name not in known:
        raise ValueError(f"There is no {what} {name!r}; {nearest(name, known)}.")


def nearest(name: str, known: Collection[str]) -> str:
    """The names most like one that does not exist, or all, for the end of a sentence."""
    spelt = {one.lower().replace("_", "-"): one for one in known}
    near = get_close_matches(name.lower().replace("_", "-"), spelt, 3, 0.4)
    return f"the nearest are {', '.join(spelt[one] for one in near or spelt)}"


def check_target(target: Any, shape: tuple[int, ...]) -> None:
    """Raises ValueError unless `target` names one class for each of the (N, classes) outputs."""
    if len(shape) != 2:
        raise ValueError(
            f"A target needs outputs of shape (N, classes), this model's have shape {shape}: "
            "use lrpjax.vjp, which takes relevance of any shape."
        )
    if target is None or not is_concrete(target):
        return
    target = target_array(target)
    if not np.issubdtype(target.dtype, np.integer) or target.shape not in ((), shape[:1]):
        of_classes = "; take target.argmax(-1) of one number for each class"
        raise ValueError(
            f"The target must be an integer or {shape[0]} integers (one per image), got dtype "
            f"{target.dtype} and shape {target.shape}{of_classes * (target.shape == shape)}."
        )
    wrong = target[(target < 0) | (target >= shape[1])]
    if wrong.size:
        raise ValueError(f"The target must lie between 0 and {shape[1] - 1}, got {wrong.flat[0]}.")


def target_array(target: Any) -> np.ndarray:
    """A concrete target as an array. Raises TypeError or ValueError for what is none."""
    if given.is_foreign(target):
        raise TypeError(f"target is {given.told('target', target)}.")
    try:
        return np.asarray(target)
    except ValueError as error:
        raise ValueError(
            f"The target must be an integer or one for each image, got {given.what(target)}, whose "
            "parts differ in length."
        ) from error
