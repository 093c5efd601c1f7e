"""Refusals: one clear sentence where an answer would be silent nonsense."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
    """Raises ValueError for anything but a batch of at least one image."""
    if not hasattr(images, "shape") or not images.shape or len(images) == 0:
        raise ValueError("Images are needed as a batch: one array (N, ...) with N at least 1.")


def check_input(leaves: Sequence[Any]) -> None:
    """Raises TypeError or ValueError if the input is not made of finite numbers."""
    for leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.floating) | jnp.issubdtype(leaf.dtype, jnp.integer):
            raise TypeError(f"The input must be real numbers, got dtype {leaf.dtype}.")
    check_finite(leaves, ["the input"] * len(leaves))


def check_least(least: float, **numbers: float) -> None:
    """Raises ValueError for a number, by the name of its argument, that is less, or not finite."""
    for name, number in numbers.items():
        if not number >= least:
            raise ValueError(f"{name} must be at least {least}, got {number}.")
        if number == float("inf"):
            raise ValueError(f"{name} must be a finite number, got {number}.")


def check_known(what: str, name: str, known: Collection[str]) -> None:
    """Raises ValueError, with the nearest names, for one that is not among those known."""
    if name not in known:
        near = get_close_matches(name, known, 3, 0.4) or list(known)
        raise ValueError(f"There is no {what} {name!r}; the nearest are {', '.join(near)}.")


def check_target(target: Any, shape: tuple[int, ...]) -> None:
    """Raises ValueError unless `target` names one class for each of the (N, classes) outputs."""
    if len(shape) != 2:
        raise ValueError(
            f"A target needs outputs of shape (N, classes), this model's have shape {shape}: "
            "use lrpjax.vjp, which takes relevance of any shape."
        )
    if target is None or not is_concrete(target):
        return
    target = np.asarray(target)
    if not np.issubdtype(target.dtype, np.integer) or target.shape not in ((), shape[:1]):
        raise ValueError(
            f"The target must be an integer or {shape[0]} integers (one per image), got dtype "
            f"{target.dtype} and shape {target.shape}."
        )
    if target.size and (target.min() < 0 or target.max() >= shape[1]):
        raise ValueError(
            f"The target must lie between 0 and {shape[1] - 1}, got {target.min()} to "
            f"{target.max()}."
        )
