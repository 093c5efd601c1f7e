"""What tells one reading from another: all that decides about its maps, and no more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp
from lrpjax._base.fingerprint import Unstable
from lrpjax.graph.fingerprint import fingerprint

W = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
X = jnp.asarray(np.random.default_rng(1).normal(size=(2, 4)))


def program(model, x=X):
    return fingerprint(lrp.read(model, x))["program_sha256"]


def with_derivative(factor):
    """relu, with a derivative of its own."""

    @jax.custom_vjp
    def function(x):
        return jax.nn.relu(x)

    function.defvjp(lambda x: (function(x), x), lambda x, g: (factor * g * (x > 0),))
    return function


def cased(one, other):
    return lambda x: jax.lax.cond(W.sum() > 0, one, other, x @ W)


def named(name):
    return jax.tree_util.Partial(lambda held, x: jax.nn.relu(x @ held[name]), {name: W})


def then(function):
    return lambda x: function(x @ W)


PROGRAMS = {
    "activations": lambda: map(then, (jax.nn.relu, jnp.tanh, jax.nn.gelu)),
    "numbers in the code": lambda: [lambda x: x @ W * 2.0, lambda x: x @ W * 2.000001],
    "derivatives": lambda: map(then, (jax.nn.relu, with_derivative(1.0), with_derivative(2.0))),
    "cases": lambda: [cased(jnp.sin, jnp.cos), cased(jnp.cos, jnp.sin), cased(jnp.sin, jnp.tanh)],
    "names of layers": lambda: [named("one"), named("two")],
    "parameters": lambda: [
        then(lambda y, r=r: jax.lax.cumsum(y, 1, reverse=r)) for r in (False, True)
    ],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_that_differ_have_other_fingerprints(name):
    once, again = ([program(model) for model in PROGRAMS[name]()] for _ in range(2))
    assert once == again and len(set(once)) == len(once)


def test_where_it_is_written_and_what_it_is_called_does_not_count():
    def one(x):
        return jax.nn.relu(x @ W)

    def other(y):
        hidden = y @ W

        return jax.nn.relu(hidden)

    assert program(one) == program(other)


def test_the_arrays_are_told_apart_from_the_program():
    model = jax.tree_util.Partial(lambda w, x: jax.nn.relu(x @ w), W)
    one = fingerprint(lrp.read(model, X))
    for changed, name in (
        (fingerprint(lrp.read(jax.tree.map(lambda w: w * 2, model), X)), "parameters_sha256"),
        (fingerprint(lrp.read(model, X * 2)), "images_sha256"),
    ):
        assert {n for n in one if one[n] != changed[n]} == {name}


def test_the_number_of_images_is_another_program_and_other_images():
    model = jax.tree_util.Partial(lambda w, x: jax.nn.relu(x @ w), W)
    one, other = (fingerprint(lrp.read(model, x)) for x in (X, X[:1]))
    assert {n for n in one if one[n] != other[n]} == {"program_sha256", "images_sha256"}


@pytest.fixture
def registered():
    def one(op, x, y):
        return lambda r: r

    def other(op, x, y):
        return lambda r: 2 * r

    yield one, other
    lrp.rules.register("sort", None)


def test_the_rule_that_is_registered_for_a_layer_counts(registered):
    model = lambda x: jnp.sort(x @ W, 1)
    found = [program(model)]
    for rule in registered:
        lrp.rules.register("sort", rule)
        found.append(program(model))
    assert len(set(found)) == 3


def calling(function):
    """Two of these print alike: their functions have one name."""
    shape = jax.ShapeDtypeStruct((), X.dtype)
    return lambda x: x @ W * jax.pure_callback(function, shape)


@pytest.mark.parametrize("value", [1.0, 2.0])
def test_a_program_that_calls_python_has_no_fingerprint(value):
    with pytest.raises(Unstable, match="pure_callback calls Python"):
        program(calling(lambda: np.float64(value)))


def test_a_derivative_of_its_own_inside_of_a_case_has_no_fingerprint():
    with pytest.raises(Unstable, match="inside of a loop or a case"):
        program(cased(with_derivative(1.0), jnp.sin))
