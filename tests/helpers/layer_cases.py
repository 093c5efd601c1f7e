"""A network around one layer, small enough to compile hundreds: used by the tests of coverage."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

CLASSES = 3


class Case(NamedTuple):
    """A layer in the network that shows it.

    shape: of one example. build: () -> the layer, a function of a batch. relu: whether the layer
    stands behind a ReLU. single: whether it computes in float32 whatever it is given. keeps:
    whether LRP-epsilon loses nothing in it.
    """

    shape: tuple[int, ...]
    build: Callable[[], Callable]
    relu: bool = True
    single: bool = False
    keeps: bool = True


def network(case: Case) -> tuple[Callable, jax.Array]:
    """(model, x): dense, ReLU, the layer, dense with three classes."""
    dtype = np.float32 if case.single else np.float64
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *case.shape)).astype(dtype)
    width = case.shape[-1]
    kernel = rng.normal(size=(width, width)).astype(dtype)
    bias = rng.uniform(0.1, 0.4, width).astype(dtype)

    def forward(layer, x):
        h = x @ kernel + bias
        y = layer(jax.nn.relu(h) if case.relu else h)
        y = y.reshape(len(y), -1)
        return y @ np.random.default_rng(1).normal(size=(y.shape[1], CLASSES)).astype(dtype)

    return Partial(forward, case.build()), x


def rebuilt(model: Callable) -> Callable:
    """The model made anew from its arrays: inside `jax.vjp`, nnx lets no other change its state."""
    leaves, tree = jax.tree.flatten(model)
    return jax.tree.unflatten(tree, leaves)


def draw(shape: tuple[int, ...], dtype, rng: np.random.Generator) -> jax.Array:
    """Parameters as of a trained layer: vectors positive (as variances), all else of both signs."""
    is_vector = np.prod(shape) == max(shape, default=1)
    signs = 1 if is_vector else rng.choice([-1, 1], shape)
    return jnp.asarray(rng.uniform(0.2, 1.0, shape) * signs, dtype)


def filled(tree):
    """The tree of arrays, or of their shapes, with numbers drawn for every float in it."""
    rng = np.random.default_rng(2)

    def fill(leaf):
        if not hasattr(leaf, "dtype"):
            return leaf
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.broadcast_to(jax.random.key(0), leaf.shape)
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return draw(leaf.shape, leaf.dtype, rng)
        return jnp.zeros(leaf.shape, leaf.dtype)

    return jax.tree.map(fill, tree)
