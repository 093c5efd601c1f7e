"""One network, written in five libraries and by hand: all of its parameters are randomised."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracle_sanity as oracle
import pytest
import test_libraries as libraries
from test_libraries import BUILDERS, IMAGES, LAYERS, LIBRARIES, WRAPPED

import lrpjax as lrp

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


@pytest.mark.parametrize("randomiser", ["gaussian", "permutation"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_every_layer_of_every_library_is_randomised(library, randomiser):
    model, first = LIBRARIES[library]("float32")
    before = np.asarray(model(images(first)))
    rows = run(model, first, order="single", randomiser=randomiser, draws=3)
    assert sorted(row["layer"] for row in rows) == sorted(LAYERS)
    for row in rows:
        assert row["dropped"] == 0  # variances stay positive
        assert max(row["values"]) < OTHER
    assert (np.asarray(model(images(first))) == before).all()


@pytest.mark.parametrize(("library", "wrap"), WRAPPED.values(), ids=WRAPPED)
def test_every_way_to_pass_a_model(library, wrap):
    model, first = LIBRARIES[library]("float32")
    rows = run(wrap(model), first)
    assert [row["layer"] for row in rows] == list(LAYERS[::-1])
    assert all(row["dropped"] == 0 for row in rows)
    assert max(rows[-1]["values"]) < OTHER


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
        np.testing.assert_allclose(row["values"], expected[row["layer"]], rtol=0, atol=SAME)


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
            np.testing.assert_allclose(row["values"], expected["values"], rtol=0, atol=SAME)


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
        assert max(smooth.rows[-1]["values"]) < OTHER
        efficient = lrp.sanity.efficient_mprt(model, images(first), "gradient", **options)
        assert all(abs(value) > 1e-3 for value in efficient.rows[0]["values"])
        logit = lrp.sanity.random_logit(
            model, images(first), "gradient", similarity="pearson", **options
        )
        assert max(logit.rows[0]["values"]) < OTHER
