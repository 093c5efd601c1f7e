"""A reading stands for a model: it is traced once for each shape of input, whatever is measured."""

from collections import Counter
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp
from lrpjax import convergence, sanity

pytestmark = pytest.mark.usefixtures("quick_compile")

KEY = jax.random.key(0)
DRAWN = np.random.default_rng(0)
X = DRAWN.normal(size=(3, 8, 8, 2))
PARAMETERS = {
    "conv": {"kernel": DRAWN.normal(size=(3, 3, 2, 4))},
    "fc": {"kernel": DRAWN.normal(size=(4 * 64, 5)) / 8},
    "out": {"kernel": DRAWN.normal(size=(5, 3))},
}


def network(parameters=None):
    """A small network that counts how often it is traced, by shape."""
    p = parameters or jax.tree.map(jnp.asarray, PARAMETERS)

    def model(x):
        model.traced[x.shape] += 1
        h = jax.lax.conv_general_dilated(
            x, p["conv"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        h = jax.nn.relu(jax.nn.relu(h).reshape(len(x), -1) @ p["fc"]["kernel"])
        return h @ p["out"]["kernel"]

    model.traced, model.parameters = Counter(), p
    return model


def bits(model):
    return lrp.methods.get(
        "iba", layer="conv", statistics=lrp.bottleneck.statistics(NETWORK, X, "conv"), key=KEY
    )


NETWORK = network()
SETS = {"concepts": {"up": DRAWN.normal(1, size=(10, 8, 8, 2))}}
SETS["random"] = list(DRAWN.normal(size=(2, 10, 8, 8, 2)))
MEASURES = {
    "vjp": lambda m: lrp.vjp(m, X, "lrp-z", check=True)[0],
    "attribute": lambda m: lrp.attribute(m, X, "lrp-alpha2-beta1", target=0, check=True),
    "plan": lambda m: str(lrp.plan(m, X, "lrp-z").check(X)),
    "integrated gradients": lambda m: lrp.attribute(m, X, "integrated-gradients", target=0),
    "iba": lambda m: lrp.attribute(m, X, bits(m), target=0),
    "matrix": lambda m: lrp.matrix(m, X[:1], "lrp-z", layer="fc"),
    "statistics": lambda m: lrp.bottleneck.statistics(m, X, "conv").mean,
    "patterns": lambda m: lrp.patterns.fit(m, X, chunk=2).a["fc"],
    "csc": lambda m: convergence.csc(m, X, "lrp-zplus", key=KEY).rows,
    "singular values": lambda m: convergence.singular_values(m, X, "lrp-z", key=KEY, k=2).rows,
    "growth": lambda m: convergence.lyapunov(m, X, "lrp-z", key=KEY).rows,
    "profile": lambda m: convergence.profile(m, X, "lrp-zplus", key=KEY).rows,
    "certificate": lambda m: convergence.certificate(m, X[:1], "lrp-zplus", key=KEY).rows,
    "mprt": lambda m: sanity.mprt(m, X, "lrp-z", key=KEY, similarity="spearman").rows,
    "random logit": lambda m: (
        sanity.random_logit(m, X, "lrp-z", key=KEY, similarity="spearman").rows
    ),
    "conservation": lambda m: sanity.conservation(m, X, "lrp-z", key=KEY).rows,
    "tcav": lambda m: lrp.tcav(m, X, target=0, layer="fc", **SETS).rows,
    "audit": lambda m: lrp.audit(m, X, ["lrp-z", "lrp-alpha2-beta1"], key=KEY).rows,
}


@pytest.mark.parametrize("measure", MEASURES)
def test_a_measure_traces_a_model_once_for_each_shape_and_a_reading_is_as_good(measure):
    model, read = network(), network()
    reading = lrp.read(read, X[:1] if measure in ("matrix", "certificate") else X)
    pair = MEASURES[measure](model), MEASURES[measure](reading)
    assert set(model.traced.values()) == set(read.traced.values()) == {1}
    np.testing.assert_equal(*jax.device_get(pair))


def test_measures_of_one_reading_share_what_is_traced():
    model = network()
    reading = lrp.read(model, X)
    for measure in ("attribute", "integrated gradients", "csc", "mprt", "profile"):
        MEASURES[measure](reading)
    assert set(model.traced.values()) == {1}
    # The three images, one, and that beside another: the test of whether examples are kept apart.
    assert model.traced.keys() == {(n, *X.shape[1:]) for n in (1, 2, 3)}


def test_a_method_is_asked_once_for_the_rule_of_each_layer():
    asked = Counter()
    z = lrp.methods.get("lrp-z")

    def counting(layer):
        asked[layer.name, layer.layout.shape[0]] += 1
        return z.composite(layer)

    lrp.audit(network(), X, [replace(z, name="counted", composite=counting)], key=KEY)
    assert set(asked.values()) == {1}
    assert len(asked) == 2 * 6  # layers of readings at one and three images


def test_a_reading_of_another_shape_is_refused_with_both():
    reading = lrp.read(NETWORK, X)
    for measure in ("vjp", "attribute", "csc", "mprt", "conservation", "audit", "iba"):
        with pytest.raises(
            ValueError, match=r"read for an input float64\[2, 8, 8, 2\], .*float64\[3, 8"
        ):
            MEASURES[measure](lrp.read(NETWORK, X[:2]))
    with pytest.raises(ValueError, match=r"this one is float32\[3, 8, 8, 2\]: read it"):
        reading.at(X.astype("float32"))
    with pytest.raises(ValueError, match="NaN or infinity in the input"):
        reading.at(np.full_like(X, np.nan))
    np.testing.assert_array_equal(reading.at(X + 1).leaves[0], X + 1)


def test_a_reading_is_a_snapshot():
    weights = jax.tree.map(np.copy, PARAMETERS)
    model = network(weights)
    reading = lrp.read(model, X)
    before = lrp.attribute(reading, X, "lrp-z", target=0)
    weights["fc"]["kernel"] *= 2  # the very array that the model was read with
    np.testing.assert_array_equal(lrp.attribute(reading, X, "lrp-z", target=0), before)
    assert np.abs(lrp.attribute(model, X, "lrp-z", target=0) - before).max() > 0.1


def test_a_model_that_changed_after_it_was_read_is_not_read_for_other_batches():
    model = network()
    reading = lrp.read(model, X)
    model.parameters["fc"]["kernel"] += 0  # another array that holds the same
    lrp.convergence.csc(reading, X, "lrp-zplus", key=KEY)
    reading = lrp.read(model, X)
    model.parameters["fc"]["kernel"] *= 2
    with pytest.raises(ValueError, match=r"changed since it was read \(fc.kernel\): read it again"):
        lrp.convergence.csc(reading, X, "lrp-zplus", key=KEY)


def test_a_reading_says_what_it_is_of():
    assert repr(lrp.read(NETWORK, X)) == (
        "<a model read for an input float64[3, 8, 8, 2]: 6 layers>"
    )


def test_a_rule_registered_later_holds_for_a_reading():
    model = lambda x: jnp.cumprod(x @ jnp.asarray(PARAMETERS["out"]["kernel"]), 1)
    x = np.abs(DRAWN.normal(size=(2, 5)))
    reading = lrp.read(model, x)
    with pytest.raises(NotImplementedError, match="cumprod"):
        lrp.vjp(reading, x, "lrp-z")
    lrp.rules.register("cumprod", lrp.rules.gradient)
    try:
        lrp.vjp(reading, x, "lrp-z")
    finally:
        lrp.rules.register("cumprod", None)
