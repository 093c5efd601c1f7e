"""What is a statistic and what is a value; which factor of a product only weighs the other."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")
RANDOM = np.random.default_rng(1)
A, B = RANDOM.normal(size=(2, 2, 4))
W = RANDOM.normal(size=(4, 4))
EXACT = 1e-9


def l2(a):
    return a / jnp.linalg.norm(a, axis=-1, keepdims=True)


def layer_norm(a):
    centred = a - a.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)


def rms_norm(a):
    return a / jnp.sqrt((a * a).mean(-1, keepdims=True) + 1e-6)


def maps(function, *inputs, method="lrp-epsilon"):
    """The relevance of each input, started with ones."""
    out, pull = lrp.vjp(lambda x: function(*x), inputs, method)
    return pull(jnp.ones_like(out))


GATES = {"sigmoid": jax.nn.sigmoid, "silu": jax.nn.silu, "tanh": jnp.tanh, "relu": jax.nn.relu}


@pytest.mark.parametrize("order", ["the gate last", "the gate first"])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("norm", [l2, rms_norm])
def test_a_normalised_value_behind_a_gate_keeps_all_relevance(norm, gate, order):
    def product(a, b):
        n, g = norm(a), GATES[gate](b)
        return n * g if order == "the gate last" else g * n

    to_a, to_b = maps(product, A, B)
    np.testing.assert_allclose(to_a, np.ones_like(A), atol=EXACT)
    np.testing.assert_array_equal(to_b, 0)


def test_a_layer_norm_behind_a_gate_conserves_and_gives_the_gate_nothing():
    to_a, to_b = maps(lambda a, b: layer_norm(a) * jax.nn.sigmoid(b), A, B)
    np.testing.assert_allclose(np.asarray(to_a).sum(-1), 4, rtol=1e-3)  # epsilon takes the rest
    np.testing.assert_array_equal(to_b, 0)


def test_adaptive_layer_norm_is_shared_half_and_half_between_value_and_scale():
    adaptive = lambda v, c: layer_norm(v) * (1 + c @ W)
    to_v, to_c = maps(adaptive, A, B, method="lrp-z")
    np.testing.assert_allclose(np.asarray(to_v).sum(-1), 2, rtol=1e-6)
    # The scale's half is shared by the terms of 1 + c W, of which the 1 keeps its own.
    z = 1 + B @ W
    expected = B * ((0.5 / z) @ W.T)
    np.testing.assert_allclose(to_c, expected, rtol=1e-6)


def test_two_normalised_values_have_half_each():
    to_a, to_b = maps(lambda a, b: rms_norm(a) * rms_norm(b), A, B, method="lrp-z")
    np.testing.assert_allclose(to_a, np.full_like(A, 0.5), rtol=EXACT)
    np.testing.assert_allclose(to_b, np.full_like(B, 0.5), rtol=EXACT)


def dot(a, b):
    return (a * b).sum(-1)


COSINES = {
    "of unit vectors": lambda a, b: (l2(a) * l2(b)).sum(-1),
    "by einsum": lambda a, b: jnp.einsum("nd,nd->n", l2(a), l2(b)),
    "over both norms": lambda a, b: (
        dot(a, b) / (jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1))
    ),
    "einsum over both norms": lambda a, b: (
        jnp.einsum("nd,nd->n", a, b) / (jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1))
    ),
    "over one norm after the other": lambda a, b: (
        dot(a, b) / jnp.linalg.norm(a, axis=-1) / jnp.linalg.norm(b, axis=-1)
    ),
    "over the root of a product": lambda a, b: dot(a, b) / jnp.sqrt(dot(a, a) * dot(b, b)),
    "times two inverse roots": lambda a, b: (
        dot(a, b) * jax.lax.rsqrt(dot(a, a)) * jax.lax.rsqrt(dot(b, b))
    ),
    "times their product": lambda a, b: (
        dot(a, b) * (jax.lax.rsqrt(dot(a, a)) * jax.lax.rsqrt(dot(b, b)))
    ),
    "optax": optax.cosine_similarity,
}


@pytest.mark.parametrize("cosine", COSINES.values(), ids=COSINES)
def test_each_input_of_a_cosine_gets_half_of_it(cosine):
    to_a, to_b = maps(cosine, A, B, method="lrp-z")
    terms = A * B / dot(A, B)[:, None] / 2  # relevance 1, shared by the terms of the sum
    np.testing.assert_allclose(to_a, terms, rtol=1e-6)
    np.testing.assert_allclose(to_b, terms, rtol=1e-6)
    swapped_b, swapped_a = maps(lambda b, a: cosine(a, b), B, A, method="lrp-z")
    np.testing.assert_allclose(swapped_a, to_a, rtol=EXACT)
    np.testing.assert_allclose(swapped_b, to_b, rtol=EXACT)


def keras_layer_norm(x):
    mean = x.mean(-1, keepdims=True)
    variance = (x * x).mean(-1, keepdims=True) - mean * mean
    inverse = jax.lax.rsqrt(variance + 1e-3) * jnp.asarray([1.0, 2.0, 0.5, 1.5])
    return x * inverse + (jnp.asarray([0.1, 0.0, -0.2, 0.3]) - mean * inverse)


def test_the_layer_norm_of_keras_stays_a_norm():
    plan = lrp.plan(lambda x: keras_layer_norm(x) @ W, A, "lrp-z")
    kinds = [layer.kind for layer in plan.layers]
    assert kinds.count("norm") == 2 and "product" not in kinds and "unknown" not in kinds


def test_squeeze_and_excitation_behind_a_norm_weighs():
    def block(x, _):
        n = (x - x.mean((1, 2), keepdims=True)) / (x.std((1, 2), keepdims=True) + 1e-3)
        weights = jax.nn.sigmoid(jax.nn.relu(n.max((1, 2)) @ W) @ W.T)
        return n * weights[:, None, None, :]

    x = RANDOM.normal(size=(1, 3, 3, 4))
    plan = lrp.plan(lambda v: block(v, None), x, "lrp-z")
    (product,) = [row for row in plan.rows if row["kind"] == "product"]
    assert product["decision"].endswith("weighs (gate)")


TOKENS = RANDOM.normal(size=(2, 3, 4))
HEADS = {
    "plain": lambda a: a,
    "times 1": lambda a: a * 1.0,
    "a mask": lambda a: a * jnp.asarray([1.0, 1.0, 0.0]),
    "masked and renormalised": lambda a: (
        (a * jnp.asarray([1.0, 0.5, 0.0]))
        / (a * jnp.asarray([1.0, 0.5, 0.0])).sum(-1, keepdims=True)
    ),
    "a mask by einsum": lambda a: jnp.einsum("nts,s->nts", a, jnp.asarray([1.0, 1.0, 0.0])),
    "a cast and back": lambda a: a.astype(jnp.float32).astype(a.dtype),
    "dropout's identity": lambda a: jnp.where(True, a, 0.0),
    "halved with itself": lambda a: 0.5 * a + 0.5 * a,
    "one map less another": lambda a: a - 0.3 * jax.nn.softmax(a),
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_attention_stays_attention(head):
    def model(x):
        weights = head(jax.nn.softmax(jnp.einsum("ntd,nsd->nts", x @ W, x)))
        return weights @ x

    plan = lrp.plan(model, TOKENS, "lrp-epsilon")
    last = [row for row in plan.rows if row["kind"] == "product"][-1]
    assert "weighs (attention)" in last["decision"]
    out, pull = lrp.vjp(model, TOKENS, lrp.methods.epsilon(1e-12))
    np.testing.assert_allclose(float(pull(out).sum()), float(out.sum()), rtol=1e-6)
    _, pull = lrp.vjp(model, TOKENS, "lrp-zplus")
    assert float(pull(jnp.abs(out)).min()) >= 0


RESIZE = partial(jax.image.resize, shape=(2, 6, 1), method="linear")
SUM = partial(jnp.sum, axis=-1, keepdims=True)
POOLED = {"keepdims": True, "axis": 1}
WEIGHTS = {  # of (2, 3, 4) tokens, what weighs a value of the tokens
    "a gate that is resized": lambda b: RESIZE(jax.nn.sigmoid(b @ W[:, :1]))[:, ::2],
    "the largest gate": lambda b: jax.nn.sigmoid(b @ W).max(**POOLED),
    "gates over their sum": lambda b: (s := jax.nn.sigmoid(b @ W)) / SUM(s),
    "gates over their sum and a little": lambda b: (s := jax.nn.sigmoid(b)) / (SUM(s) + 1e-6),
    "activations over their mean": lambda b: (s := jax.nn.relu(b) + 0.1) / s.mean(**POOLED),
    "a gate times a gate": lambda b: jax.nn.sigmoid(b) * jax.nn.sigmoid(b @ W),
    "an activation behind a gate": lambda b: jax.nn.sigmoid(b) * jnp.tanh(b @ W),
    "a squared activation": lambda b: (s := jax.nn.relu(b @ W)) * s,
}


@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
def test_what_is_made_of_gates_weighs_as_they_do(weight):
    """a * weight(b), epsilon: what a's entry adds to the sum, and b gets nothing."""
    a, b = TOKENS, RANDOM.normal(size=TOKENS.shape)
    out, pull = lrp.vjp(lambda x: (x[0] @ W) * weight(x[1]), (a, b), "lrp-z")
    to_a, to_b = pull(jnp.ones_like(out))
    share = a[..., :, None] * W / (a @ W)[..., None, :]
    np.testing.assert_allclose(to_a, share.sum(-1), rtol=1e-6)
    np.testing.assert_array_equal(to_b, 0)


@pytest.mark.parametrize("dtype", ["int32", "uint8"])
def test_a_mask_that_is_an_input_weighs_whatever_its_numbers(dtype):
    x = {"a": A, "m": jnp.asarray([[1, 0, 1, 1], [0, 1, 1, 0]], dtype)}
    out, pull = lrp.vjp(lambda x: (jax.nn.relu(x["a"] @ W) * x["m"]) @ W, x, "lrp-z")
    found = pull(out)
    np.testing.assert_allclose(np.sum(found["a"], -1), np.sum(out, -1), rtol=1e-6)
    np.testing.assert_array_equal(found["m"], 0)


def test_an_image_of_bytes_is_the_signal_that_a_gate_weighs():
    image = jnp.asarray([[10, 200, 30, 4]], "uint8")

    def model(x):
        x = x.astype("float64") / 255
        return (x * jax.nn.sigmoid(x.mean(1, keepdims=True))) @ W

    out, pull = lrp.vjp(model, image, "lrp-z")
    np.testing.assert_allclose(np.sum(pull(out)), np.sum(out), rtol=1e-6)


def test_attention_to_attention_is_attention():
    """(A A) v: relevance goes to what is attended to, all of it."""
    attend = lambda x: jax.nn.softmax(x[0] @ x[0].swapaxes(1, 2))
    v = RANDOM.normal(size=TOKENS.shape)
    out, pull = lrp.vjp(lambda x: (attend(x) @ attend(x)) @ x[1], (TOKENS, v), "lrp-z")
    to_q, to_v = pull(out)
    np.testing.assert_array_equal(to_q, 0)
    np.testing.assert_allclose(to_v.sum(), out.sum(), rtol=1e-6)


@pytest.mark.parametrize("norm", [l2, rms_norm, layer_norm])
def test_a_normalised_gate_is_a_value_where_squares_normalise_it(norm):
    model = lambda x: (x[0] * norm(jax.nn.sigmoid(x[1]))) @ W
    product = next(a for a in lrp.plan(model, (A, B), "lrp-z").layers if a.kind == "product")
    assert product.detail.weighs is None and product.detail.why == "half"


def test_what_is_made_of_truth_values_weighs():
    to_a, to_b = maps(lambda a, b: (a * (b > 0)) @ W, A, B, method="lrp-z")
    np.testing.assert_array_equal(to_b, 0)
    shown = np.where(B > 0, A, 0)
    z = shown @ W
    np.testing.assert_allclose(to_a, shown * ((1 / z) @ W.T), rtol=1e-6)


def test_the_plan_says_of_each_product_and_norm_how_it_was_read():
    model = lambda x: (l2(x[0]) * jax.nn.sigmoid(x[1])) * x[2]
    plan = lrp.plan(model, (A, B, A), "lrp-z")
    told = {row["layer"]: row["decision"] for row in plan.rows if row["decision"]}
    assert list(told.values()) == [
        "of input along 1, by input",
        "input:logistic weighs (gate)",
        "half each",
    ]
    assert "half each" in str(plan)
