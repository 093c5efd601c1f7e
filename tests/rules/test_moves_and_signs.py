"""What moves relevance where the model stops the gradient, and what negative constants change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")
RANDOM = np.random.default_rng(4)
W = jnp.asarray(RANDOM.normal(size=(3, 3)))
V = jnp.asarray(RANDOM.normal(size=(3, 2)))
X = np.abs(RANDOM.normal(size=(2, 3)))
MASK = jnp.asarray([True, True, False])
TO_ONE = jnp.asarray([[1.0], [2.0], [1.0]])


def ones(model, x, method):
    out, pull = lrp.vjp(model, x, method)
    return np.asarray(pull(jnp.ones_like(out)))


NEGATIVE = {
    "where": lambda h: jnp.where(MASK, h, -5.0),
    "dynamic_update_slice": lambda h: jax.lax.dynamic_update_slice(
        h, jnp.full((1, 1), -5.0), (0, 2)
    ),
    "at[].set": lambda h: h.at[:, 2].set(-5.0),
    "gather with a fill": lambda h: jnp.take(
        h, jnp.asarray([0, 1, 7]), axis=1, mode="fill", fill_value=-5.0
    ),
    "concatenate": lambda h: jnp.concatenate([h[:, :2], jnp.full((1, 1), -5.0)], 1),
    "pad": lambda h: jnp.pad(h[:, :2], ((0, 0), (0, 1)), constant_values=-5.0),
}
# h = (1, 1, -5) and weights (1, 2, 1): the terms are 1, 2 and -5, their sum -2.
EXPECTED = {
    "lrp-zplus": [1 / 3, 2 / 3, 0],
    "lrp-alpha1-beta0": [1 / 3, 2 / 3, 0],
    "lrp-alpha2-beta1": [2 / 3, 4 / 3, 0],
    "lrp-z": [-0.5, -1, 0],
    "lrp-epsilon": [-0.5, -1, 0],
}


@pytest.mark.parametrize("method", EXPECTED)
@pytest.mark.parametrize("join", NEGATIVE.values(), ids=NEGATIVE)
def test_a_negative_constant_among_the_inputs_is_a_negative_contribution(join, method):
    model = lambda x: join(jax.nn.relu(x)) @ TO_ONE
    np.testing.assert_allclose(ones(model, np.ones((1, 3)), method)[0], EXPECTED[method], rtol=1e-5)


def test_a_constant_that_is_not_negative_keeps_the_inputs_so():
    model = lambda x: jnp.where(MASK, jax.nn.relu(x), 5.0) @ TO_ONE
    last = lrp.plan(model, np.ones((1, 3)), "lrp-z").layers[-1]
    assert last.non_negative
    np.testing.assert_allclose(
        ones(model, np.ones((1, 3)), "lrp-zplus")[0], [1 / 8, 2 / 8, 0], rtol=1e-5
    )


FROZEN = {
    "stopped": lambda x: jax.lax.stop_gradient(jax.nn.relu(x @ W)) @ V,
    "stopped and moved": lambda x: jax.lax.stop_gradient(jax.nn.relu(x @ W).T).T @ V,
    "stopped input": lambda x: jax.nn.relu(jax.lax.stop_gradient(x) @ W) @ V,
}
AS_IT_IS = lambda x: jax.nn.relu(x @ W) @ V


@pytest.mark.parametrize(
    "method",
    [
        "lrp-z", "lrp-epsilon", "lrp-gamma", "lrp-zplus", "lrp-alpha2-beta1", "lrp-flat",
        "excitation-bp", "deeplift-rescale", "deeplift-reveal-cancel", "deeplift-ablation",
    ],
)  # fmt: skip
@pytest.mark.parametrize("model", FROZEN.values(), ids=FROZEN)
def test_relevance_passes_where_the_gradient_is_stopped(model, method):
    expected = ones(AS_IT_IS, X, method)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(ones(model, X, method), expected, rtol=1e-9)


@pytest.mark.parametrize("model", FROZEN.values(), ids=FROZEN)
def test_patterns_pass_where_the_gradient_is_stopped(model):
    images = np.abs(RANDOM.normal(size=(16, 3)))
    patterns = lrp.patterns.fit(AS_IT_IS, images)
    method = lrp.methods.get("pattern-net", patterns=patterns)
    np.testing.assert_allclose(ones(model, X, method), ones(AS_IT_IS, X, method), rtol=1e-9)


@pytest.mark.parametrize(
    "method", ["gradient", "input-x-gradient", "guided-bp", "deconv", "rect-grad"]
)
@pytest.mark.parametrize("model", FROZEN.values(), ids=FROZEN)
def test_a_stopped_gradient_is_stopped(model, method):
    np.testing.assert_array_equal(ones(model, X, method), 0)


def straight_through(g):
    def model(x):
        h = x @ W
        return (h + jax.lax.stop_gradient(g(h) - h)) @ V

    return model


@pytest.mark.parametrize("method", ["lrp-z", "lrp-gamma", "deeplift-rescale"])
def test_the_straight_through_spelling_is_the_activation(method):
    expected = ones(lambda x: jnp.tanh(x @ W) @ V, X, method)
    np.testing.assert_allclose(ones(straight_through(jnp.tanh), X, method), expected, rtol=1e-6)


def test_the_straight_through_spelling_of_what_has_no_rule_is_refused():
    with pytest.raises(NotImplementedError, match="no rule for the primitive 'sin'"):
        ones(straight_through(jnp.sin), X, "lrp-z")


def test_relevance_passes_through_steps_that_a_model_trains_straight_through():
    """y = round(x W) V: what each rounded unit has is shared out by x W, unrounded."""
    z = X @ W
    h = np.round(z)
    to_units = (h[:, :, None] * V / (h @ V)[:, None, :]).sum(2)
    expected = (X[:, :, None] * W * (to_units / z)[:, None, :]).sum(2)
    np.testing.assert_allclose(ones(straight_through(jnp.round), X, "lrp-z"), expected, rtol=1e-6)


MIX = np.random.default_rng(5).normal(size=(4, 4))
twice_negated = lambda h: jnp.negative(-h)
CENTRED = {  # one difference, spelled twice
    "a product": (
        lambda h: h - h @ MIX,
        lambda h: h + (-(h @ MIX)),
        lambda h: h + (h @ MIX) * -1.0,
        lambda h: (-(h @ MIX)) + h,
        lambda h: h - jnp.negative(-(h @ MIX)),
        lambda h: h + (-(h @ MIX)).reshape(2, 2, 2).reshape(2, 4),
    ),
    "a mean": (
        lambda h: h - h.mean(1, keepdims=True),
        lambda h: h + (-h.mean(1, keepdims=True)),
        lambda h: (-h.mean(1, keepdims=True)) + h,
    ),
    "an activation that begins with a sign": (
        lambda h: h - jax.nn.log_sigmoid(h @ MIX),
        lambda h: h + (-jax.nn.log_sigmoid(h @ MIX)),
        lambda h: jax.nn.log_sigmoid(h @ MIX) * -1.0 + h,
        lambda h: h + (-jax.nn.log_sigmoid(h @ MIX).reshape(2, 2, 2)).reshape(2, 4),
        lambda h: h + (-jax.nn.log_sigmoid(twice_negated(h @ MIX))),
        lambda h: h - twice_negated(jax.nn.log_sigmoid(h @ MIX)),
    ),
    "an activation between signs": (
        lambda h: h + jax.nn.softplus(h @ MIX),
        lambda h: h + twice_negated(jax.nn.softplus(h @ MIX)),
        lambda h: h + twice_negated(jax.nn.softplus(twice_negated(h @ MIX))),
    ),
}


@pytest.mark.parametrize("method", ["lrp-zplus", "lrp-alpha2-beta1", "lrp-gamma"])
@pytest.mark.parametrize("spellings", CENTRED.values(), ids=CENTRED)
def test_the_sum_with_what_is_negated_is_the_difference(spellings, method):
    x = np.random.default_rng(6).normal(size=(2, 4))
    maps = [
        lrp.attribute(lambda x, f=f: f(jnp.tanh(x)) @ MIX, x, method, target=0) for f in spellings
    ]
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], rtol=1e-12, atol=1e-14)


def test_a_negated_layer_is_one_with_negative_weights():
    """relu(-(W x)) is relu((-W) x): what makes it active has the relevance."""
    x = np.random.default_rng(6).normal(size=(2, 4))
    one, other = (
        lrp.attribute(lambda x, f=f: jax.nn.relu(f(x)) @ MIX, x, "lrp-zplus", target=0)
        for f in (lambda x: -(x @ MIX), lambda x: x @ -MIX)
    )
    np.testing.assert_allclose(one, other, rtol=1e-12)


def test_a_mask_of_infinity_is_no_bad_weight():
    hidden = jnp.where(jnp.tril(jnp.ones((3, 3), bool)), 0.0, -jnp.inf)

    def model(x):
        scores = jnp.einsum("ntd,nsd->nts", x @ W, x) + hidden
        return (jax.nn.softmax(scores) @ x).mean(1) @ V

    tokens = RANDOM.normal(size=(2, 3, 3))
    for method in (lrp.methods.epsilon(1e-12), lrp.methods.get("lrp-z", attention="uniform")):
        found = np.asarray(lrp.attribute(model, tokens, method, target=0))
        assert np.isfinite(found).all() and np.abs(found).max() > 0
    found = lrp.attribute(model, tokens, lrp.methods.epsilon(1e-12), target=0)
    np.testing.assert_allclose(np.asarray(found).sum((1, 2)), model(tokens)[:, 0], rtol=1e-6)


def test_an_infinite_weight_is_refused():
    bad = W.at[0, 0].set(jnp.inf)
    with pytest.raises(ValueError, match="NaN or infinity in the weights bad"):
        lrp.attribute(lambda x: x @ bad, X, "lrp-z", target=0)


NEXT_TO_A_SIGN = {
    "a minimum": lambda h: jnp.minimum(jax.nn.log_sigmoid(h), -0.5),
    "relu": lambda h: jax.nn.relu(-h),
    "leaky_relu": lambda h: jax.nn.leaky_relu(-h, 0.3),
    "tanh": lambda h: jax.nn.relu(jnp.tanh(-h)),
}
SIGNS = {  # before the activation, and behind it
    "before": (twice_negated, lambda h: h),
    "behind": (lambda h: h, twice_negated),
    "both": (lambda h: -1.0 * (h * -1.0), lambda h: twice_negated(twice_negated(h))),
}


@pytest.mark.parametrize("method", ["deconv", "guided-bp", "deeplift-rescale", "lrp-zplus"])
@pytest.mark.parametrize("f", NEXT_TO_A_SIGN.values(), ids=NEXT_TO_A_SIGN)
def test_two_signs_are_none_wherever_they_stand(f, method):
    """-f(-h) is another activation of h, and may not be read in -(-f(-h))."""
    x = RANDOM.normal(size=(4, 3))
    model = lambda before, behind: lambda x: behind(f(before(x @ W))) @ V
    itself = lambda h: h
    expected = ones(model(itself, itself), x, method)
    assert np.abs(expected).max() > 0
    for places in SIGNS.values():
        np.testing.assert_allclose(ones(model(*places), x, method), expected, rtol=1e-9, atol=1e-12)
