"""Baselines: the inputs that an image is compared with, by DeepLIFT, along a path, or as a cover.

    baseline=   a number, one input, or one for each of the N images, (N, ...)
    baselines=  a set (K, ...) of inputs: what they give is averaged

For a model whose input is a pytree each of them is a pytree like it, or one number for all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .._base import checks


@partial(jax.tree_util.register_dataclass, data_fields=["inputs"], meta_fields=["averaged"])
@dataclass(frozen=True, eq=False)
class Baseline:
    """inputs: a pytree of arrays. averaged: whether it is a set (K, ...) to average over."""

    inputs: Any
    averaged: bool = False


def baseline_of(baseline: Any = 0.0, baselines: Any = None) -> Baseline:
    """The options of these names as one value, of arrays that are copies.

    Raises TypeError or ValueError for what is no baseline, and for both at once.
    """
    if baselines is None:
        return Baseline(_arrays("baseline", baseline))
    if not (isinstance(baseline, float) and baseline == 0):
        raise ValueError("Give baseline= or baselines=, a set to average over, and not both.")
    inputs = _arrays("baselines", baselines)
    sizes = {a.shape[:1] for a in jax.tree.leaves(inputs)}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(
            f"baselines= is a set of K inputs, (K, ...) everywhere, got shape {_shapes(inputs)}: a "
            "number or one input is a baseline=."
        )
    if (0,) in sizes:
        raise ValueError("The set of baselines is empty: it needs at least one.")
    return Baseline(inputs, averaged=True)


def _arrays(option: str, given: Any) -> Any:
    def array(leaf):
        try:
            made = jnp.array(leaf)
        except (TypeError, ValueError):
            made = None
        if made is None or not jnp.isrealobj(made) or made.dtype == bool:
            raise TypeError(
                f"{option}= takes numbers or arrays of real numbers, in a pytree like the model's "
                f"input, got {leaf!r}."
            )
        return made

    found = jax.tree.map(array, given, is_leaf=lambda leaf: leaf is None)
    leaves = jax.tree.leaves(found)
    if not leaves:
        raise TypeError(f"{option}= takes numbers or arrays of real numbers, got {given!r}.")
    checks.check_finite(leaves, [f"the {option}"] * len(leaves))
    return found


def rows_of(given: Baseline, inputs: Sequence[Any], tree: Any = None) -> list[jax.Array]:
    """The baselines (K, N, ...) of each of a model's inputs (N, ...); K is 1 but for a set.

    tree: the structure of the input, where it is known. Raises ValueError for what does not fit.
    """
    leaves, own = jax.tree.flatten(given.inputs)
    if len(leaves) == 1 and leaves[0].ndim == 0:
        leaves = leaves * len(inputs)
    elif len(leaves) != len(inputs) or (tree is not None and own != tree):
        wanted = f"{len(inputs)} arrays" if tree is None else str(tree)
        raise ValueError(
            f"The baseline must be a pytree like the model's input ({wanted}), or one number for "
            f"all of it, got {own}."
        )
    read = _averaged if given.averaged else _of_each
    return [read(jnp.asarray(b), x) for b, x in zip(leaves, inputs, strict=True)]


def _averaged(b: jax.Array, x: Any) -> jax.Array:
    one = x.shape[1:]
    if b.shape[1:] != one:
        raise ValueError(
            f"The baselines must be a set (K, ...) of inputs of shape {one}, got shape {b.shape}."
        )
    return jnp.broadcast_to(b.astype(x.dtype)[:, None], (len(b), *x.shape))


def _of_each(b: jax.Array, x: Any) -> jax.Array:
    one, count = x.shape[1:], x.shape[0]
    if b.shape not in ((), one) and b.shape[1:] != one:
        raise ValueError(
            f"The baseline must be a number, one input of shape {one}, or one for each image "
            f"(N, ...), got shape {b.shape}; a set to average over is baselines=."
        )
    if b.ndim == x.ndim and len(b) not in (1, count):
        raise ValueError(
            f"A baseline of shape {b.shape} is {len(b)} inputs for {count} images: give one for "
            "each image, or baselines= to average over a set."
        )
    lead = (1,) * (x.ndim - b.ndim) if b.ndim else (1,) * x.ndim
    return jnp.broadcast_to(b.astype(x.dtype).reshape(*lead, *b.shape), x.shape)[None]


def _shapes(inputs: Any) -> str:
    return ", ".join(str(a.shape) for a in jax.tree.leaves(inputs))


def check_baselines(method: Any, inputs: Sequence[Any], tree: Any) -> None:
    """Raises ValueError where a baseline of the method, or of one it is over, does not fit."""
    while method is not None:
        given = method.baseline
        if given is not None:
            like = [jax.ShapeDtypeStruct(x.shape, jnp.float32) for x in inputs]
            jax.eval_shape(partial(rows_of, inputs=like, tree=tree), given)
        method = method.base


def of_images(method: Any, images: Any, index: Any) -> Any:
    """The method at some of the images (N, ...), by their numbers: with the baselines of these."""
    check_baselines(method, [images], None)
    return _at(method, images.ndim, index)


def _at(method: Any, ndim: int, index: Any) -> Any:
    changed: dict[str, Any] = {}
    if method.base is not None:
        changed["base"] = _at(method.base, ndim, index)
    given = method.baseline
    if given is not None and not given.averaged:
        each = lambda b: b[index] if b.ndim == ndim and len(b) > 1 else b
        changed["baseline"] = Baseline(jax.tree.map(each, given.inputs))
    return replace(method, **changed) if changed else method
