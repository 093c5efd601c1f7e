"""Whole numbers and truth values computed from the input: the gradient takes them as jax.vjp does,
LRP says where they are made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

RNG = np.random.default_rng(0)
W, X = RNG.normal(size=(4, 4)), RNG.normal(size=(2, 4))
EXACT = 1e-12  # the same equations in float64, in another order
largest = lambda x: x.argmax(1)
TABLE = jnp.asarray(W)
WAVES = lambda x: jnp.sin(x), lambda x: jnp.cos(x)

# What the model does behind x W, and the primitive that LRP refuses.
MODELS = {
    "taken in order": (lambda h: jnp.take_along_axis(h, jnp.argsort(h, 1), 1), "sort"),
    "taken by a rank": (lambda h: h[jnp.arange(2), jnp.argsort(h, 1)[:, -2]][:, None], "sort"),
    "sorted with places": (
        lambda h: lax.sort((h, lax.iota(int, 4) + 0 * h), num_keys=1)[0],
        "sort",
    ),
    "the largest two": (lambda h: lax.top_k(h, 2)[0], "top_k"),
    "routed": (lambda h: h * jax.nn.one_hot(largest(h), 4), "argmax"),
    "looked up": (lambda h: h + TABLE[largest(h)], "gather"),
    "counted": (lambda h: h * (h > 0).sum(1, keepdims=True), "gt"),
    "masked": (lambda h: h * ~(jnp.roll(h, 1, 1) > 0), "gt"),
    "masked by a number": (lambda h: h * (1 - (h > 0).astype(int)), "gt"),
    "rounded": (lambda h: h + (4 * h).astype(int), "convert_element_type"),
    "rounded bits": (lambda h: h * ((4 * h).astype(int) & 3), "convert_element_type"),
    "rounded and clipped": (
        lambda h: h + jnp.maximum((4 * h).astype(int), 0).astype(float),
        "convert_element_type",
    ),
    "branching": (lambda h: lax.switch(largest(h)[0] % 2, WAVES, h), "argmax"),
}
STRAIGHT = {name: layer for name, (layer, _) in MODELS.items() if name != "branching"}
CASES = pytest.mark.parametrize(("layer", "primitive"), MODELS.values(), ids=MODELS)


def around(layer):
    return lambda x: jnp.tanh(layer(x @ W))


@pytest.mark.parametrize(("method", "times"), [("gradient", 1), ("input-x-gradient", X)])
@CASES
def test_the_gradient_is_that_of_jax(layer, primitive, method, times):
    model = around(layer)
    # Of several examples the first one's branch would be that of all, which is refused.
    x = X[:1] if layer is MODELS["branching"][0] else X
    out, pull = jax.vjp(model, x)
    (expected,) = pull(jnp.ones_like(out))
    found = lrp.vjp(model, x, method)[1](jnp.ones_like(out))
    factor = times if isinstance(times, int) else times[: len(x)]
    np.testing.assert_allclose(found, factor * expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize("method", ["guided-bp", "deconv", "rect-grad"])
@pytest.mark.parametrize("layer", STRAIGHT.values(), ids=STRAIGHT)
def test_its_relatives_are_the_gradient_but_at_a_relu(layer, method):
    # Without any they are refused; this one gets no relevance.
    model = lambda x: around(layer)(x) + 0.0 * jax.nn.relu(x[:, :1])
    out, pull = jax.vjp(model, X)
    found = lrp.vjp(model, X, method)[1](jnp.ones_like(out))
    np.testing.assert_allclose(found, pull(jnp.ones_like(out))[0], rtol=0, atol=EXACT)


@CASES
def test_the_plan_of_the_gradient_is_checked(layer, primitive):
    model = around(layer)
    checked = lrp.plan(model, X, "gradient").check(X)
    assert checked.forward_difference < EXACT


# What only shows or hides a value has no relevance; all others would be given some.
SHOWN = {"routed", "masked"}
SORTED = {"taken in order", "taken by a rank", "sorted with places", "the largest two"}


@pytest.mark.parametrize("layer", [MODELS[n][0] for n in sorted(SHOWN)], ids=sorted(SHOWN))
@pytest.mark.parametrize("method", ["lrp-epsilon", "lrp-zplus"])
def test_relevance_passes_what_is_shown_and_none_goes_to_what_shows_it(layer, method):
    h = np.asarray(X @ W)
    shown = np.asarray(layer(jnp.asarray(h))) != 0
    model = lambda x: layer(x @ W)
    names = [a.name for a in lrp.plan(model, X, method).layers]
    _, pull = lrp.vjp(model, X, method, layers=[names[0]])
    _, at = pull(np.ones_like(h))
    np.testing.assert_allclose(at[names[0]], shown, atol=EXACT)


@pytest.mark.parametrize("layer", [MODELS[n][0] for n in sorted(SORTED)], ids=sorted(SORTED))
def test_deeplift_takes_its_gradient_if_asked(layer):
    model = around(layer)
    method = lrp.methods.get("deeplift-rescale", unknown="gradient")
    assert np.isfinite(lrp.vjp(model, X, method)[1](np.ones_like(model(X)))).all()
    for row in lrp.plan(model, X, method).check(X).rows:
        assert np.isfinite([row["relevance_out"], row["relevance_in"]]).all()


@pytest.mark.parametrize("method", ["lrp-epsilon", "lrp-zplus", "deeplift-rescale"])
@CASES
def test_relevance_is_refused_where_they_are_made(layer, primitive, method):
    if layer in [MODELS[name][0] for name in SHOWN] and method != "deeplift-rescale":
        return  # as above
    words = rf"{primitive}' at .*\.py:\d+|control flow|reaches truth values or integers|'mul' at"
    with pytest.raises(NotImplementedError, match=words):
        lrp.vjp(around(layer), X, method)


@pytest.mark.parametrize("name", sorted(MODELS.keys() - SORTED - SHOWN - {"branching"}))
def test_deeplift_is_refused_where_a_difference_would_be_lost_in_them(name):
    method = lrp.methods.get("deeplift-rescale", unknown="gradient")
    with pytest.raises(NotImplementedError, match="reaches truth values or integers"):
        lrp.vjp(around(MODELS[name][0]), X, method)


def test_where_the_gradient_is_asked_for_none_goes_to_a_place():
    """y_k = h_s(k), s the order: LRP-z hands R_k back to h_s(k)."""
    method = lrp.methods.get("lrp-z", unknown="gradient")
    model = lambda x: jnp.take_along_axis(x, jnp.argsort(x, 1), 1)
    relevance = RNG.normal(size=X.shape)
    expected = np.zeros_like(X)
    np.put_along_axis(expected, np.argsort(X, 1), relevance, 1)
    np.testing.assert_array_equal(lrp.vjp(model, X, method)[1](relevance), expected)
