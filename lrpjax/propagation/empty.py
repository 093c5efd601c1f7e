"""A batch of no images has maps of no images: the model is read at one image, and at two to see
which axes number them, and nothing is computed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .pullback import Checked


def is_empty(x: Any) -> bool:
    """Whether an input is a batch of no images."""
    return any(getattr(leaf, "shape", ())[:1] == (0,) for leaf in jax.tree.leaves(x))


def no_maps(attribute: Callable, x: Any, target: Any) -> Any:
    """What attribute(x, target) gives for no images. Raises as it does for one."""
    target = _of(1, target)
    found = _shapes(lambda x: attribute(x, target), _of(1, x))
    return jax.tree.map(lambda leaf, like: jnp.zeros(jnp.shape(leaf), like.dtype), x, found)


def no_vjp(vjp: Callable, x: Any) -> tuple[Any, Callable]:
    """What vjp(x) gives for no images. Raises as it does for one."""
    outer = []

    def shapes(x: Any) -> tuple[Any, Any, Any]:
        out, pull = vjp(x)
        (inner,) = pull.args
        relevance = [jnp.zeros(like.shape, like.dtype) for like in inner.func.like]
        outer.append(pull.func)
        return out, relevance, inner(relevance)

    one, two = (_shapes(shapes, _of(n, x)) for n in (1, 2))
    out, relevance, found = jax.tree.map(_before, one, two)
    pull = jax.tree_util.Partial(Nothing(tuple(relevance), tuple(found)), ())
    return jax.tree.map(_zeros, out), jax.tree_util.Partial(outer[0], pull)


@dataclass(frozen=True)
class Nothing(Checked):
    """The map from relevance of no images to that of their inputs.

    found: shape and dtype of what it gives.
    """

    like: tuple[jax.ShapeDtypeStruct, ...]
    found: tuple[jax.ShapeDtypeStruct, ...]

    def run(self, values: tuple, relevance: list[jax.Array]) -> list[jax.Array]:
        return [_zeros(like) for like in self.found]


def _shapes(function: Callable, x: Any) -> Any:
    """Shapes and dtypes of function(x). There is no map to warn of."""
    with warnings.catch_warnings(action="ignore"):
        return jax.eval_shape(function, x)


def _of(images: int, x: Any) -> Any:
    """A pytree of arrays with so many images in the place of none."""

    def filled(leaf: Any) -> Any:
        empty = jnp.shape(leaf)[:1] == (0,)
        return jnp.zeros((images, *leaf.shape[1:]), leaf.dtype) if empty else leaf

    return jax.tree.map(filled, x)


def _before(one: Any, two: Any) -> jax.ShapeDtypeStruct:
    """The shape that comes before those of one image and of two."""
    shape = (2 * n - m for n, m in zip(one.shape, two.shape, strict=True))
    return jax.ShapeDtypeStruct(tuple(shape), one.dtype)


def _zeros(like: Any) -> jax.Array:
    return jnp.zeros(like.shape, like.dtype)
