"""Straight-through estimators: activations to all that follows values, and to the gradient family
what the model says of their derivative."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import lrpjax as lrp
from lrpjax.graph.known import KNOWN
from lrpjax.graph.reading import read

pytestmark = pytest.mark.usefixtures("quick_compile")

RANDOM = np.random.default_rng(3)
P = {"fc1": RANDOM.normal(size=(5, 6)), "fc2": RANDOM.normal(size=(6, 3))}
X = RANDOM.normal(size=(4, 5))
R = RANDOM.normal(size=(4, 3))
straight = lax.stop_gradient


def in_place(values):
    """values(h), with the derivative of h."""
    return lambda h: h + straight(values(h) - h)


def surrogate(h):
    """A spike, with the derivative that spiking networks are trained with."""
    made = jax.custom_vjp(lambda h: (h > 0.2).astype(h.dtype))
    made.defvjp(lambda h: (made(h), h), lambda h, r: (r / (1 + 4 * abs(h)) ** 2,))
    return made(h)


def within(h):
    """Binary, trained through where it is no larger than 1."""
    clipped = jnp.clip(h, -1, 1)
    return clipped + straight(jnp.sign(h) - clipped)


def quantised(h):
    """To 8 bits, with a zero point."""
    return (jnp.clip(jnp.round(h / 0.05) + 100, 0, 255) - 100) * 0.05


CASES = {  # name in the plan, function, its values
    "sign": ("sign", in_place(jnp.sign), jnp.sign),
    "within": ("sign", within, jnp.sign),
    "binary": ("step", in_place(lambda h: jnp.where(h >= 0, 1.0, -1.0)), jnp.sign),
    "spike": ("step", surrogate, lambda h: 1.0 * (h > 0.2)),
    "rounded": ("quantise", in_place(jnp.round), jnp.round),
    "to 8 bits": ("quantise", in_place(quantised), quantised),
}
NAMES = pytest.mark.parametrize("case", CASES)


def model_of(case):
    middle = CASES[case][1]
    return jax.tree_util.Partial(lambda p, x: middle(x @ p["fc1"]) @ p["fc2"], P)


def shares(x, w, r, epsilon):
    """R_j = sum_i x_j w_ji r_i / (z_i + epsilon sign z_i)."""
    z = x @ w
    return x * (r / (z + epsilon * np.where(z < 0, -1, 1)) @ w.T)


@NAMES
def test_the_plan_names_the_function(case):
    name = CASES[case][0]
    rows = lrp.plan(model_of(case), X, "lrp-epsilon").rows
    assert [row["kind"] for row in rows] == ["dense", name, "dense"]
    assert rows[1]["rule"].startswith("pass")


@NAMES
def test_lrp_passes_relevance_on(case):
    values = np.asarray(CASES[case][2](X @ P["fc1"]))
    out, pull = lrp.vjp(model_of(case), X, "lrp-epsilon")
    np.testing.assert_allclose(out, values @ P["fc2"], rtol=1e-12, atol=1e-12)
    expected = shares(X, P["fc1"], shares(values, P["fc2"], R, 1e-6), 1e-6)
    np.testing.assert_allclose(pull(R), expected, rtol=1e-9)


@NAMES
def test_deeplift_gives_the_known_function_its_difference(case):
    """Against another image, which lies on other stairs."""
    model = model_of(case)
    baseline = RANDOM.normal(size=(5,))
    method = lrp.methods.get("deeplift-rescale", baseline=baseline)
    found = lrp.attribute(model, X, method, target=1)
    difference = model(X) - model(baseline[None])
    np.testing.assert_allclose(found.sum(1), difference[:, 1], rtol=1e-9, atol=1e-12)

    h, h0 = X @ P["fc1"], baseline @ P["fc1"]
    g = CASES[case][2]
    ratio = np.where(h == h0, 0, (g(h) - g(h0)) / (h - h0))
    expected = (X - baseline) * ((ratio * P["fc2"][:, 1]) @ P["fc1"].T)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@NAMES
def test_the_gradient_is_the_models_own(case):
    model = model_of(case)
    _, pull = lrp.vjp(model, X, "gradient")
    (own,) = jax.vjp(model, X)[1](jnp.asarray(R))
    np.testing.assert_allclose(pull(R), own, rtol=1e-12)
    assert np.abs(own).max() > 0
    _, pull = lrp.vjp(model, X, "gradient", layers=["fc1"])  # through the chain of layers
    np.testing.assert_allclose(pull(R)[0], own, rtol=1e-12)


@NAMES
@pytest.mark.parametrize("method", ["pattern-net", "pattern-attribution"])
def test_patterns_are_fitted_and_followed(case, method):
    model = model_of(case)
    patterns = lrp.patterns.fit(model, RANDOM.normal(size=(64, 5)))
    found = lrp.vjp(model, X, lrp.methods.get(method, patterns=patterns))[1](R)
    weights = (
        patterns.a if method == "pattern-net" else {n: a * P[n] for n, a in patterns.a.items()}
    )
    inside = np.abs(X @ P["fc1"]) < 1 if case == "within" else 1
    np.testing.assert_allclose(found, R @ weights["fc2"].T * inside @ weights["fc1"].T, rtol=1e-12)


@NAMES
def test_every_claim_of_the_reading_holds(case):
    lrp.plan(model_of(case), X, "lrp-zplus").check(X)
    lrp.attribute(model_of(case), X.astype(np.float32), "lrp-zplus", check=True)


def test_the_parameters_of_a_quantiser_are_read_off():
    def parameters(function):
        (layer,) = read(function, X).graph.layers
        return layer.detail.parameters

    found = parameters(in_place(lambda h: jnp.clip(jnp.round(h / 0.25), -8, 7) * 0.25))
    assert (*found[:2], *found[-2:]) == (0.25, 0.25, -2, 1.75)
    assert KNOWN["quantise"].function(np.array([0.13]), *found) == 0.25
    assert parameters(in_place(jnp.floor))[:2] == (1, 1)
    assert parameters(in_place(lambda h: jnp.where(h > 0.5, 2.0, -1.0))) == (0.5, -1, 2, -1)
    offset = parameters(in_place(quantised))
    np.testing.assert_allclose((offset[0], *offset[-2:]), (0.05, -5, 7.75), rtol=1e-12)


def test_a_spike_gates_and_is_never_negative():
    (layer,) = read(surrogate, X).graph.layers
    assert layer.detail.gate and layer.detail.never_negative and not layer.detail.cuts
    (layer,) = read(within, X).graph.layers
    assert layer.detail.keeps_sign and not layer.detail.never_negative


BARE = {
    "sign": jnp.sign,
    "round": jnp.round,
    "quantised": quantised,
    "binary": lambda h: jnp.where(h >= 0, 1.0, -1.0),
}


@pytest.mark.parametrize("case", BARE)
def test_a_step_without_another_derivative_is_refused_as_before(case):
    model = lambda x: BARE[case](x @ P["fc1"]) @ P["fc2"]
    with pytest.raises(NotImplementedError):
        lrp.vjp(model, X, "lrp-epsilon")


def test_a_mask_stays_a_mask():
    rows = lrp.plan(lambda x: x * (x > 0.1), X, "lrp-z").rows
    assert rows[-1]["kind"] == "product"


def test_what_lies_beside_the_largest_number_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(lambda x: jnp.nan_to_num(x), X)
