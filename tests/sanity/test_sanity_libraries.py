"""One network, written in five libraries and by hand: all of its parameters are randomised."""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import nets_libraries as libraries
from helpers import oracle_sanity as oracle
from helpers.nets_libraries import BUILDERS, IMAGES, LAYERS, LIBRARIES, WRAPPED
from jax.tree_util import Partial

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

# The network is so small that a random one may be dead: then there is no map, and an image less.
# Absolute, of correlations of float32 maps of equal parameters; the libraries order the arithmetic
# of BatchNorm differently.
SAME = 1e-4
OTHER = 0.98  # below: maps of random and of trained layers are this unlike
KEY = jax.random.key(0)
PARTS = {"conv1": ("conv1", "bn1"), "conv2": ("conv2", "bn2"), "fc1": ("fc1",), "fc2": ("fc2",)}


def images(first):
    return jnp.asarray(IMAGES.transpose(0, 3, 1, 2) if first else IMAGES, jnp.float32)


def run(model, first, **options):
    options = {"key": KEY, "similarity": "pearson", "target": 3, "colour": "none", **options}
    return lrp.sanity.mprt(model, images(first), "gradient", **options).rows


def largest(row):
    """Of the values; 0 where there is none."""
    return max((value for value in row["values"] if value is not None), default=0)


@pytest.mark.parametrize("randomiser", ["gaussian", "permutation"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_every_layer_of_every_library_is_randomised(library, randomiser):
    model, first = LIBRARIES[library]("float32")
    before = np.asarray(model(images(first)))
    rows = run(model, first, order="single", randomiser=randomiser)
    assert sorted(row["layer"] for row in rows) == sorted(LAYERS)
    for row in rows:
        assert row["dropped"] < 2  # variances stay positive
        assert largest(row) < OTHER
    assert (np.asarray(model(images(first))) == before).all()


@pytest.mark.parametrize(("library", "wrap"), WRAPPED.values(), ids=WRAPPED)
def test_every_way_to_pass_a_model(library, wrap):
    model, first = LIBRARIES[library]("float32")
    rows = run(wrap(model), first)
    assert [row["layer"] for row in rows] == list(LAYERS[::-1])
    assert largest(rows[0]) < OTHER and rows[0]["dropped"] == 0
    assert largest(rows[-1]) < OTHER


def built(library, parameters, monkeypatch):
    monkeypatch.setattr(libraries, "PARAMETERS", parameters)
    return BUILDERS[library]("float32")


def other_parameters():
    rng = np.random.default_rng(11)
    change = lambda name, value: (
        rng.permutation(value.ravel()).reshape(value.shape) * rng.uniform(0.5, 1.5, value.shape)
    )
    return {
        layer: {name: change(name, value) for name, value in values.items()}
        for layer, values in libraries.draw().items()
    }


@pytest.mark.parametrize("order", ["output", "input"])
@pytest.mark.parametrize("library", BUILDERS)
def test_parameters_come_from_init(library, order, monkeypatch):
    """BatchNorm goes with the convolution it is folded into."""
    trained, random = libraries.draw(), other_parameters()

    def shown(parameters):
        model, _ = built("lax NHWC", parameters, monkeypatch)
        return np.asarray(lrp.attribute(model, images(False), "gradient", target=3))

    expected, mixed = {}, dict(trained)
    for layer in LAYERS[::-1] if order == "output" else LAYERS:
        mixed |= {part: random[part] for part in PARTS[layer]}
        expected[layer] = oracle.similarities("pearson", shown(trained), shown(mixed))
    model, first = built(library, trained, monkeypatch)
    other, _ = built(library, random, monkeypatch)
    rows = run(model, first, order=order, init=lambda key: other)
    assert [row["layer"] for row in rows] == list(expected)
    for row in rows:
        values = oracle.known(row["values"])
        np.testing.assert_allclose(values, expected[row["layer"]], rtol=0, atol=SAME)


def test_without_folding_batch_norm_is_a_layer():
    model, first = LIBRARIES["nnx"]("float32")
    method = lrp.methods.get("lrp-epsilon", fold=False)
    rows = lrp.sanity.mprt(
        model, images(first), method, key=KEY, order="single", similarity="pearson"
    ).rows
    assert sorted(row["layer"] for row in rows) == sorted((*LAYERS, "bn1", "bn2"))
    assert all(max(row["values"]) < 1 - SAME for row in rows)


def test_a_users_own_method_gets_a_model_of_every_library():
    """Which it calls and differentiates as it likes."""

    def method(model, x, target):
        return jax.grad(lambda x: model(x)[:, 3].sum())(x)

    for library in LIBRARIES:
        model, first = LIBRARIES[library]("float32")
        x, options = images(first), {"key": KEY, "similarity": "pearson", "colour": "none"}
        own = lrp.sanity.mprt(model, x, method, **options).rows
        named = lrp.sanity.mprt(model, x, "gradient", target=3, **options).rows
        for row, expected in zip(own, named, strict=True):
            values = oracle.known(expected["values"])
            np.testing.assert_allclose(oracle.known(row["values"]), values, rtol=0, atol=SAME)


class Dense(eqx.Module):
    """An Equinox module that takes batches: its hash is that of its arrays, which have none."""

    weight: jax.Array

    def __call__(self, x):
        return jnp.tanh(x.reshape(len(x), -1) @ self.weight)


@pytest.mark.parametrize("library", [*LIBRARIES, "equinox module"])
def test_a_users_own_method_may_be_compiled(library):
    """The model it gets is a pytree of parameters: one compilation for all of them."""
    traced = []

    @jax.jit
    def method(model, x, target):
        traced.append(target)
        return jax.grad(lambda x: model(x)[:, 3].sum())(x)

    if library == "equinox module":
        model, first = Dense(jax.random.normal(KEY, (192, 5), jnp.float32)), False
    else:
        model, first = LIBRARIES[library]("float32")
    options = {"key": KEY, "similarity": "pearson", "colour": "none", "draws": 2}
    own = lrp.sanity.mprt(model, images(first), method, **options).rows
    assert len(traced) == 1
    named = lrp.sanity.mprt(model, images(first), "gradient", target=3, **options).rows
    for row, expected in zip(own, named, strict=True):
        values = oracle.known(expected["values"])
        np.testing.assert_allclose(oracle.known(row["values"]), values, rtol=0, atol=SAME)


@pytest.mark.parametrize("library", [name for name in LIBRARIES if name != "keras"])
def test_a_users_own_method_takes_models_of_half_precision(library):
    """Keras computes in single precision whatever it is given."""
    method = lambda model, x, target: jax.grad(lambda x: model(x)[:, 3].sum())(x)
    model, first = LIBRARIES[library](jnp.bfloat16)
    x = jnp.asarray(images(first), jnp.bfloat16)
    rows = lrp.sanity.mprt(
        model, x, method, key=KEY, similarity="pearson", colour="none", order="single"
    ).rows
    assert [row["layer"] for row in rows] == list(LAYERS)
    assert max(map(largest, rows)) < OTHER


def test_smoothing_a_users_own_method_keeps_the_precision():
    """Also where JAX draws in double precision unless it is told otherwise, as here."""
    seen = set()

    def method(model, x, target):
        seen.add(str(x.dtype))
        return jax.grad(lambda x: model(x)[:, 3].sum())(x)

    model, first = LIBRARIES["lax NHWC"]("float32")
    options = {"key": KEY, "samples": 2, "similarity": "pearson", "colour": "none"}
    rows = lrp.sanity.smooth_mprt(model, images(first), method, **options).rows
    assert seen == {"float32"}
    assert len(rows) == 4 and largest(rows[0]) < OTHER


ONE = jax.random.normal(jax.random.key(1), (192, 8), jnp.float32) / 14
TWO = jax.random.normal(jax.random.key(2), (8, 4), jnp.float32)
PAIR = [ONE, TWO]


def two_layers(one, two, x):
    return jnp.tanh(x.reshape(len(x), -1) @ one) @ two


BARE = {
    "one": (Partial(lambda w, x: jnp.tanh(x.reshape(len(x), -1) @ w), ONE), 1),
    "two": (Partial(two_layers, ONE, TWO), 2),
    "a tuple": (Partial(lambda w, x: two_layers(*w, x), (ONE, TWO)), 2),
    "a list in a closure": (lambda x: two_layers(*PAIR, x), 2),
    "by keyword": (partial(lambda x, w: two_layers(*w, x), w=[ONE, TWO]), 2),
    "by position": (partial(two_layers, ONE, TWO), 2),
}


@pytest.mark.parametrize(("model", "number"), BARE.values(), ids=BARE)
def test_parameters_need_no_names_of_their_own(model, number):
    rows = run(model, False, order="single")
    names = [layer.name for layer in lrp.plan(model, images(False), "gradient").layers]
    assert len(rows) == number
    for row in rows:
        assert row["layer"] in names and largest(row) < OTHER


def test_arrays_of_jax_in_a_closure_are_found_and_those_of_numpy_are_refused():
    kernel = np.random.default_rng(0).normal(size=(192, 4)).astype(np.float32)
    array = jnp.asarray(kernel)
    (row,) = run(lambda x: x.reshape(len(x), -1) @ array, False)
    assert row["layer"] == "array" and max(row["values"]) < OTHER
    with pytest.raises(ValueError, match="parameter"):
        run(lambda x: x.reshape(len(x), -1) @ kernel, False)


def test_the_other_checks_take_every_library():
    for library in LIBRARIES:
        model, first = LIBRARIES[library]("float32")
        options = {"key": KEY, "colour": "none"}
        smooth = lrp.sanity.smooth_mprt(
            model, images(first), "gradient", samples=2, similarity="pearson", **options
        )
        assert largest(smooth.rows[0]) < OTHER and smooth.rows[0]["dropped"] == 0
        efficient = lrp.sanity.efficient_mprt(model, images(first), "gradient", **options)
        assert all(value is None or abs(value) > 1e-3 for value in efficient.rows[0]["values"])
        logit = lrp.sanity.random_logit(
            model, images(first), "gradient", similarity="pearson", **options
        )
        assert max(logit.rows[0]["values"]) < OTHER


def test_what_is_hidden_beside_named_parameters_is_counted(getkey):
    shown, hidden = jax.random.normal(getkey(), (12, 5)), np.ones((5, 3))
    model = jax.tree_util.Partial(
        lambda w, x: jax.nn.relu(x.reshape(len(x), -1) @ w) @ hidden, shown
    )
    images = jax.random.normal(getkey(), (4, 12))
    found = lrp.sanity.mprt(model, images, "gradient", key=getkey(), similarity="cosine")
    assert found.settings["unreached"] == 15 and len(found.rows) == 1
    whole = Partial(lambda w, x: x @ w[0] @ w[1], [shown, jnp.asarray(hidden)])
    found = lrp.sanity.mprt(whole, images, "gradient", key=getkey(), similarity="cosine")
    assert found.settings["unreached"] == 0
