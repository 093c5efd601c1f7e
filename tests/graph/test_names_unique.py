"""No two layers have one name, whatever the parameters and scopes are called."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")
RANDOM = np.random.default_rng(0)


def parameters(*names):
    return {name: jnp.asarray(RANDOM.normal(size=(3, 3)) + 0.7) for name in names}


def in_order(p, x, uses):
    for use in uses[:-1]:
        x = jax.nn.relu(x @ p[use])
    return x @ p[uses[-1]]


def model(p, uses):
    return Partial(lambda p, x: in_order(p, x, uses), p)


def copies(p, uses):
    """The same function with a parameter of its own for each use, under a name of its own."""
    own = {f"layer{i}": jnp.array(p[use]) for i, use in enumerate(uses)}
    return model(own, list(own))


X = np.abs(RANDOM.normal(size=(2, 3)))
COLLIDING = {
    "a second use takes the name of another": ["fc", "fc", "fc_2", "out"],
    "of Keras": ["dense", "dense", "dense_2", "dense", "dense_3"],
    "twice the same": ["fc", "fc_2", "fc", "fc_2"],
    "before it": ["fc_2", "fc", "fc", "out"],
    "of the input": ["input", "input", "input_2", "out"],
}


@pytest.mark.parametrize("uses", COLLIDING.values(), ids=COLLIDING)
def test_a_parameters_own_name_wins_and_all_names_differ(uses):
    p = parameters(*dict.fromkeys(uses))
    plan = lrp.plan(model(p, uses), X, "lrp-z")
    names = [layer.name for layer in plan.layers]
    assert len(set(names)) == len(names) and "input" not in names
    linear = [layer.name for layer in plan.layers if layer.kind == "dense"]
    for use, name in zip(uses, linear, strict=True):
        first_use = uses.index(use) == linear.index(name)
        if first_use and use != "input":
            assert name == use
        else:
            assert name.startswith(f"{use}_")


def test_todays_names_stay_where_they_are_unambiguous():
    p = parameters("conv1", "fc", "out")
    plan = lrp.plan(model(p, ["conv1", "fc", "fc", "out"]), X, "lrp-z")
    names = [layer.name for layer in plan.layers]
    assert names == ["conv1", "conv1:relu", "fc", "fc:relu", "fc_2", "fc_2:relu", "out"]


@pytest.mark.parametrize("method", ["lrp-z", "lrp-alpha2-beta1", "lrp-gamma", "gradient"])
@pytest.mark.parametrize("uses", COLLIDING.values(), ids=COLLIDING)
def test_a_parameter_used_twice_gives_the_maps_of_two_copies_of_it(uses, method):
    p = parameters(*dict.fromkeys(uses))
    shared, apart = model(p, uses), copies(p, uses)
    found = lrp.attribute(shared, X, method, target=1)
    np.testing.assert_allclose(found, lrp.attribute(apart, X, method, target=1), rtol=1e-9)
    out, pull = lrp.vjp(shared, X, method)
    other, pull_other = lrp.vjp(apart, X, method)
    np.testing.assert_allclose(pull(jnp.ones_like(out)), pull_other(jnp.ones_like(other)), 1e-9)
    assert np.abs(pull(jnp.ones_like(out))).max() > 0


def test_relevance_enters_and_leaves_at_the_use_that_is_named():
    uses = ["fc", "fc", "fc_2", "out"]
    p = parameters(*dict.fromkeys(uses))
    plan = lrp.plan(model(p, uses), X, "lrp-z")
    second = [layer.name for layer in plan.layers if layer.kind == "dense"][1]
    r = np.asarray(RANDOM.normal(size=(2, 3)))
    _, pull = lrp.vjp(model(p, uses), X, "lrp-z", start=second, layers=["fc"])
    _, expected = lrp.vjp(copies(p, uses), X, "lrp-z", start="layer1", layers=["layer0"])
    (found, at), (wanted, at_wanted) = pull(r), expected(r)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    np.testing.assert_allclose(at["fc"], at_wanted["layer0"], rtol=1e-9)
