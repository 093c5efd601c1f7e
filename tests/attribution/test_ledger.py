"""The ledger of a layer is measured term by term: beside the equations, written out in numpy."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp
from lrpjax import rules
from lrpjax.composites import by_kind, or_else
from lrpjax.planning import ledger
from lrpjax.planning.ledger import TERMS
from lrpjax.propagation.targets import read_for_target
from lrpjax.rules import Account, rule

pytestmark = pytest.mark.usefixtures("quick_compile")

EXACT = 1e-12
RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4))
W, B = RNG.normal(size=(4, 5)), RNG.normal(size=5)
METHODS = (
    "lrp-z lrp-epsilon lrp-gamma lrp-zplus lrp-alpha2-beta1 lrp-alpha5-beta4 lrp-flat lrp-wsquare "
    "lrp-cmp-alpha2-beta1 epsilon-plus-flat"
).split()


def model_of(function, *arrays):
    return jax.tree_util.Partial(lambda arrays, x: function(x, *arrays), arrays)


def rows(model, x, method, target=None):
    checked = lrp.plan(model, x, method).check(x, target=target)
    assert checked.unbalanced == [] and "does not add up" not in str(checked)
    return checked.rows


def only(model, x, method, target=None):
    (row,) = rows(model, x, method, target)
    return row


def terms(row):
    return {term: row[term] for term in TERMS}


def near(expected):
    return pytest.approx(dict.fromkeys(TERMS, 0.0) | expected, abs=EXACT)


# --- one layer, from its equation ----------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [1e-3, 2.0])
def test_epsilon_shares_out_to_the_bias_and_to_epsilon(epsilon):
    z = X @ W + B
    sign = np.where(z >= 0, 1, -1)
    R = np.where(np.arange(5) == 2, z, 0)
    s = R / (z + epsilon * sign)
    found = only(model_of(lambda x, w, b: x @ w + b, W, B), X, lrp.methods.epsilon(epsilon), 2)
    assert found["relevance_in"] == pytest.approx((X * (s @ W.T)).sum(), abs=EXACT)
    assert terms(found) == near({"bias": (s * B).sum(), "stabiliser": (s * epsilon * sign).sum()})


@pytest.mark.parametrize("bias", ["none", "split", "signed"])
@pytest.mark.parametrize(("alpha", "beta"), [(1, 0), (2, 1), (5, 4)])
def test_alpha_beta_shares_out_by_each_sign(alpha, beta, bias):
    c = X[:, :, None] * W
    to_a, to_n = {
        "none": (0 * B, 0 * B),
        "split": (np.maximum(B, 0), np.minimum(B, 0)),
        "signed": (B, B),
    }[bias]
    a, n = np.maximum(c, 0).sum(1) + to_a, np.minimum(c, 0).sum(1) + to_n
    R = np.where(np.arange(5) == 1, X @ W + B, 0)
    s = 1e-3
    d_a, d_n = a + s * np.where(a >= 0, 1, -1), n - s * np.where(-n >= 0, 1, -1)
    method = lrp.methods.get(f"lrp-alpha{alpha}-beta{beta}", bias=bias, stabiliser=s)
    found = only(model_of(lambda x, w, b: x @ w + b, W, B), X, method, 1)
    expected = {
        "bias": (R * (alpha * to_a / d_a - beta * to_n / d_n)).sum(),
        "stabiliser": (R * (alpha * (d_a - a) / d_a - beta * (d_n - n) / d_n)).sum(),
    }
    assert terms(found) == near(expected)


def test_gamma_strengthens_the_bias_too():
    c, z, gamma = X[:, :, None] * W, X @ W + B, 0.5
    up = z >= 0
    agreeing = lambda c, up: np.where(up, np.maximum(c, 0), np.minimum(c, 0))
    share = B + gamma * agreeing(B, up)
    d = (c + gamma * agreeing(c, up[:, None])).sum(1) + share
    R = np.where(np.arange(5) == 3, z, 0)
    method = lrp.methods.get("lrp-gamma", gamma=gamma, stabiliser=1e-14)
    found = only(model_of(lambda x, w, b: x @ w + b, W, B), X, method, 3)
    assert terms(found) == pytest.approx(
        dict.fromkeys(TERMS, 0.0) | {"bias": (R * share / d).sum()}, abs=1e-10
    )


def test_what_has_only_positive_terms_grows_under_alpha_beta():
    """-2.79 comes, the alpha part sends 2 x -2.79, and no negative term takes it back."""
    model = model_of(lambda x, w, b: x @ w + b, np.array([[1.0], [2.0]]), np.array([-5.79]))
    found = only(model, np.ones((1, 2)), "lrp-alpha2-beta1", 0)
    assert found["relevance_out"] == pytest.approx(-2.79)
    assert found["relevance_in"] == pytest.approx(-5.58, rel=1e-6)
    assert found["grown"] == pytest.approx(2.79, rel=1e-6)
    assert found["lost"] == 0


def test_what_has_only_negative_terms_loses_the_alpha_part():
    """R = -3: beta takes R back from the inputs, who get 3; 2 R finds no positive term."""
    model = model_of(lambda x, w: x @ w, np.array([[-1.0], [-2.0]]))
    found = only(model, np.ones((1, 2)), "lrp-alpha2-beta1", 0)
    assert found["relevance_in"] == pytest.approx(3, rel=1e-6)
    assert (found["lost"], found["grown"]) == (pytest.approx(-6), 0)


def test_a_unit_without_any_terms_loses_what_it_has():
    model = model_of(lambda x, w, b: x @ w + b, np.zeros((2, 1)), np.ones(1))
    for method in ("lrp-alpha2-beta1", "lrp-zplus", "lrp-wsquare"):
        found = only(model, np.ones((1, 2)), method, 0)
        assert (found["relevance_in"], found["lost"], found["grown"]) == (0, 1, 0)


# --- constants -----------------------------------------------------------------------------------

JOINED = {
    "concatenate": lambda x: jnp.concatenate([x, jnp.full((3, 1), 2.0)], 1),
    "pad": lambda x: jnp.pad(x, ((0, 0), (0, 1)), constant_values=2.0),
    "update": lambda x: jnp.full((3, 5), 2.0).at[:, :4].set(x),
    "where": lambda x: jnp.where(
        jnp.arange(5) < 4, jnp.concatenate([x, x[:, :1]], 1), jnp.full((3, 5), 2.0)
    ),
}


@pytest.mark.parametrize("join", JOINED.values(), ids=JOINED)
def test_what_is_joined_to_a_value_takes_its_relevance(join):
    """The fifth entry is the constant 2, of which the logit makes 2 w_5."""
    found = rows(model_of(lambda x, w: join(x) @ w, W.T), X, "lrp-z", 2)
    constants = sum(row["constants"] for row in found)
    assert constants == pytest.approx(3 * 2 * W.T[4, 2], rel=1e-6)
    assert all(row["bias"] == 0 for row in found)


def test_position_embeddings_are_constants_and_a_bias_is_none():
    """x + p shares out in proportion under z: p's part of R is that of sum_t p_t w."""
    x, p = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(3, 4))
    w = RNG.normal(size=(4, 2))
    of = lambda added: rows(
        model_of(lambda x, p, w: (jnp.sin(0.0) + x + p).sum(1) @ w, added, w), x, "lrp-z", 1
    )
    table, bias = of(p), of(p[0])
    total = lambda found, term: sum(row[term] for row in found)
    assert total(table, "constants") == pytest.approx(2 * (p.sum(0) @ w[:, 1]), rel=1e-6)
    assert total(bias, "bias") == pytest.approx(2 * 3 * (p[0] @ w[:, 1]), rel=1e-6)
    assert total(table, "bias") == total(bias, "constants") == 0


def merged(x, p, w, out):
    """Of (N, T, C): a sum of tokens, in which batch and tokens are one axis."""
    h = (x + p).reshape(-1, x.shape[2]) @ w + jnp.tile(p @ w, (len(x), 1))
    return h.reshape(*x.shape[:2], -1).sum(1) @ out


def apart(x, p, w, out):
    return ((x + p) @ w + p @ w).sum(1) @ out


def test_a_batch_that_is_one_axis_with_tokens_has_the_terms_of_the_two_apart():
    """Tables are told from biases, and the worst image is that of the batch."""
    weights = DRAW(3, 4), DRAW(4, 5), DRAW(5, 2)
    x = DRAW(4, 3, 4) * np.array([1e-3, 1.0, 30.0, 1.0])[:, None, None]
    one, other = (
        lrp.plan(model_of(f, *weights), x, "lrp-epsilon").check(x, target=1)
        for f in (merged, apart)
    )
    assert one.grew == pytest.approx(other.grew, rel=1e-9)
    assert one.shares == pytest.approx(other.shares, rel=1e-9)
    of = lambda found, term: sum(row[term] for row in found.rows)
    for term in ("constants", "bias", "stabiliser"):
        assert of(one, term) == pytest.approx(of(other, term), rel=1e-9, abs=1e-12)


# --- networks ------------------------------------------------------------------------------------


def convolutional(x, k, b, k2, w, c):
    conv = partial(jax.lax.conv_general_dilated, window_strides=(1, 1), padding="SAME")
    layout = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    h = jax.nn.relu(conv(x, k, **layout) + b)
    h = h + jax.nn.relu(conv(h, k2, **layout) - b)
    h = jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    h = h * jnp.array([1.0, 0.0, 2.0])
    h = h / jnp.sqrt((h * h).mean((1, 2, 3), keepdims=True) + 1e-3)
    return h.mean((1, 2)) @ w + c


def attending(x, q, k, v, token, position, w):
    h = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, 4)), x], 1) + position
    weights = jax.nn.softmax((h @ q) @ (h @ k).swapaxes(1, 2))
    return (h + jax.nn.relu(weights @ (h @ v)))[:, 0] @ w


DRAW = lambda *shape: RNG.normal(size=shape)
NETS = {
    "convolutions": (
        model_of(convolutional, DRAW(3, 3, 2, 3), DRAW(3), DRAW(3, 3, 3, 3), DRAW(3, 2), DRAW(2)),
        DRAW(2, 4, 4, 2),
    ),
    "attention": (
        model_of(attending, DRAW(4, 4), DRAW(4, 4), DRAW(4, 4), DRAW(4), DRAW(4, 4), DRAW(4, 2)),
        DRAW(2, 3, 4),
    ),
}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("method", METHODS)
def test_every_layer_of_a_network_adds_up(net, method):
    model, x = NETS[net]
    for row in rows(model, x, method):
        if row["residual"] is not None:
            spent = row["relevance_in"] + sum(row[term] for term in TERMS)
            assert spent + row["residual"] == pytest.approx(row["relevance_out"], abs=1e-9)
            assert abs(row["residual"]) < 1e-7 * max(1, abs(row["relevance_out"]))


def test_an_account_that_is_wrong_is_seen():
    """A rule that says it conserves, and hands on half of what comes without a word of it."""
    facts = dict.fromkeys(("stabilises", "takes_apart", "inside_only"), False)

    @rules.known(linear=True, conserves=True, account=lambda op, x, y, r: Account(), **facts)
    def halves(op, x, y):
        return lambda r: r / 2

    mine = or_else(by_kind(activation=rule(halves)), lrp.methods.get("lrp-z").composite)
    model = model_of(lambda x, w: jax.nn.relu(x @ w) @ jnp.ones((5, 2)), W)
    checked = lrp.plan(model, X, lrp.methods.Method("mine", mine)).check(X)
    (name,) = checked.unbalanced
    row = next(row for row in checked.rows if row["layer"] == name)
    assert row["rule"] == "halves"
    assert row["residual"] == pytest.approx(row["relevance_out"] / 2)
    assert f"does not add up (residual above 1e-04 of the relevance) at {name}" in str(checked)


# --- what is told --------------------------------------------------------------------------------


def told(recwarn):
    return [str(warning.message) for warning in recwarn if warning.category is UserWarning]


def with_token(x, token, w):
    return jnp.concatenate([x, jnp.broadcast_to(token, (len(x), 1))], 1) @ w


def test_constants_that_take_more_than_half_are_told_with_their_layer(recwarn):
    """z+ of x = 1 and a token of 3: the token has 3 / 4."""
    model = model_of(with_token, np.array([3.0]), np.ones((2, 1)))
    x = np.ones((2, 1))
    lrp.attribute(model, x, "lrp-zplus", target=0)
    (text,) = told(recwarn)
    assert "25% of the relevance reaches the input: 75% ends in constants of the model" in text
    assert "most of it at the layer 'concatenate_1'" in text
    shares = lrp.plan(model, x, "lrp-zplus").check(x, target=0).shares
    assert shares["constants"] == pytest.approx(3 / 4) and shares["input"] == pytest.approx(1 / 4)


def test_one_image_is_enough_and_the_worst_is_told(recwarn):
    model = model_of(with_token, np.array([3.0]), np.ones((2, 1)))
    lrp.attribute(model, np.array([[9.0], [1.0], [27.0]]), "lrp-zplus", target=0)
    (text,) = told(recwarn)
    assert "75% ends in constants" in text


def test_constants_that_take_less_than_half_are_no_warning(recwarn):
    model = model_of(with_token, np.array([3.0]), np.ones((2, 1)))
    lrp.attribute(model, np.full((2, 1), 4.0), "lrp-zplus", target=0)
    assert told(recwarn) == []


def test_biases_that_leave_less_than_a_tenth_are_told(recwarn):
    model = model_of(lambda x, w, b: x @ w + b, np.ones((1, 1)), np.array([19.0]))
    lrp.attribute(model, np.full((1, 1), 3.0), "lrp-z", target=0)  # 3 of 22
    assert told(recwarn) == []
    lrp.attribute(model, np.ones((1, 1)), "lrp-z", target=0)
    (text,) = told(recwarn)
    assert "5% of the relevance reaches the input: 95% ends in biases, most of it at" in text


def test_growth_is_told_with_its_layer(recwarn):
    """Each layer of positive terms alone doubles relevance under alpha2-beta1."""
    layers = [np.ones((1, 1))] * 11

    def deep(x, *layers):
        for w in layers:
            x = x @ w
        return x

    x = np.ones((1, 1))
    lrp.attribute(model_of(deep, *layers[:9]), x, "lrp-alpha2-beta1", target=0)
    assert told(recwarn) == []
    lrp.attribute(model_of(deep, *layers), x, "lrp-alpha2-beta1", target=0)
    (text,) = told(recwarn)
    assert "the input gets 2e+03 times the relevance of the output" in text
    checked = lrp.plan(model_of(deep, *layers), x, "lrp-alpha2-beta1").check(x, target=0)
    assert checked.grew == pytest.approx(2.0**11, rel=1e-6)
    assert all(row["grown"] == pytest.approx(-row["relevance_out"]) for row in checked.rows)


@pytest.mark.parametrize("method", METHODS)
def test_an_ordinary_network_is_no_warning(recwarn, method):
    keys = jax.random.split(jax.random.key(0), 8)
    draw = lambda k, *shape: np.asarray(jax.random.normal(keys[k], shape))
    model = model_of(
        lambda x, w, b, v, c: jax.nn.relu(x @ w + b) @ v + c,
        draw(0, 8, 16),
        draw(1, 16) / 4,
        draw(2, 16, 4),
        draw(3, 4) / 4,
    )
    lrp.attribute(model, abs(draw(4, 4, 8)), method)
    assert [t for t in told(recwarn) if "uniform" not in t] == []


def test_nothing_is_told_of_what_is_traced(recwarn):
    model = model_of(with_token, np.array([3.0]), np.ones((2, 1)))
    attribute = jax.jit(lambda x: lrp.attribute(model, x, "lrp-zplus", target=0))
    assert attribute(np.ones((2, 1))).shape == (2, 1)
    assert told(recwarn) == []


@pytest.mark.parametrize("method", ["lrp-alpha2-beta1", "lrp-zplus", "lrp-gamma", "lrp-epsilon"])
def test_what_is_told_costs_no_product(method):
    """Each product of the account is one that the rule has made already."""
    model = model_of(
        lambda x, w, v: jax.nn.relu(x @ w) @ v, W.astype("float32"), W.T.astype("float32")
    )
    method = lrp.methods.get(method)
    reading = read_for_target(model, X.astype("float32"), method, 0)
    arguments = reading.graph, method, reading.consts, reading.leaves, 0
    count = lambda told: (
        ledger.explain.lower(*arguments, told=told).compile().as_text().count(" dot(")
    )
    assert count(True) == count(False) > 0


def test_what_a_softmax_between_two_layers_loses_is_told():
    """Its Taylor expansion hands on less the more one entry has: almost nothing of a sure one."""
    w, v = np.random.default_rng(0).normal(size=(4, 5)), np.ones((5, 2))
    model = lambda x: jax.nn.softmax(x @ w) @ v
    with pytest.warns(UserWarning, match="a rule that does not conserve it, most of it at the lay"):
        lrp.attribute(model, 300 * np.ones((1, 4)), "lrp-epsilon", target=0)
    found = lrp.plan(model, np.ones((1, 4)), "lrp-epsilon").check(np.ones((1, 4)), target=0).shares
    assert sum(found.values()) == pytest.approx(1, rel=1e-9)
    assert found["lost"] > 0
