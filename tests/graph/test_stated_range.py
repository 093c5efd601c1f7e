"""An input far from the range that a model states is refused, whatever the method."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp
from lrpjax.images import bundled_images

LEVELS = bundled_images()[0][:1]
KEY = jax.random.key(0)

pytestmark = pytest.mark.usefixtures("quick_compile")


def dense(weights, x):
    return jax.nn.relu(x.reshape(len(x), -1) @ weights) @ jnp.eye(4, 3)


def model(partial=functools.partial, **stated):
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(12, 4)))
    made = partial(dense, weights)
    for name, value in stated.items():
        setattr(made, name, value)
    return made


CALLS = {
    "attribute": lambda model, x: lrp.attribute(model, x, "gradient", target=0),
    "vjp": lambda model, x: lrp.vjp(model, x, "lrp-epsilon"),
    "plan": lambda model, x: lrp.plan(model, x, "lrp-zplus"),
    "read": lrp.read,
    "csc": lambda model, x: lrp.convergence.csc(model, x, "lrp-z", key=KEY),
    "audit": lambda model, x: lrp.audit(model, x, ["lrp-z"], key=KEY),
    "conservation": lambda model, x: lrp.sanity.conservation(model, x, "lrp-z", key=KEY),
}


@pytest.mark.parametrize("name", CALLS)
def test_bytes_are_refused_by_the_bundled_network(name):
    said = r"from 0 to 1 \(its `input_range`\), and x, of uint8, holds .* pass model.preprocess"
    with pytest.raises(ValueError, match=said):
        CALLS[name](lrp.models.cifar10(), LEVELS)


@pytest.mark.parametrize("partial", [functools.partial, jax.tree_util.Partial])
def test_a_range_stated_on_a_partial_counts(partial):
    stated = model(partial, input_range=(0, 1))
    x = np.zeros((1, 2, 2, 3))
    reading = lrp.read(stated, x)
    for given in (stated, reading):
        with pytest.raises(ValueError, match="holds 0 to 255: pass x scaled to it"):
            lrp.attribute(given, x + np.linspace(0, 255, 12).reshape(x.shape), "lrp-z", target=0)


def test_what_lies_near_the_range_is_taken():
    stated = model(input_range=((-1, -2, 0), (1, 2, 1)))  # of each channel: from -2 to 2
    at = lambda low, high, dtype=np.float32: (
        np.linspace(low, high, 12).reshape(1, 2, 2, 3).astype(dtype)
    )
    for x in (at(-2, 2), at(-42, 42), at(-2, 2, int)):  # floats by ten times 4
        lrp.attribute(stated, x, "gradient", target=0)
    for x in (at(-42.1, 2), at(-2, 42.1), at(-3, 2, int), at(0, 255, np.uint8)):
        with pytest.raises(ValueError, match="from -2 to 2"):
            lrp.attribute(stated, x, "gradient", target=0)


@pytest.mark.parametrize("other", [None, "wide", (0,), ("a", "b"), 3.0])
def test_a_model_that_states_none_takes_bytes(other):
    x = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    found = lrp.attribute(model(input_range=other), x, "gradient", target=0)
    assert np.array_equal(found, lrp.attribute(model(), x, "gradient", target=0))


def test_nothing_is_tested_under_jit():
    stated = model(input_range=(0, 1))
    maps = jax.jit(lambda x: lrp.attribute(stated, x, "gradient", target=0))
    assert maps(jnp.full((1, 2, 2, 3), 255.0)).shape == (1, 2, 2, 3)
