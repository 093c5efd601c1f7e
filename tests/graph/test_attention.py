"""Softmax, normalisation and products of two values: by hand, in numpy, in a transformer."""

from fractions import Fraction
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracle
from helpers.vit import vit

import lrpjax as lrp
from lrpjax.graph.reading import read

pytestmark = pytest.mark.usefixtures("quick_compile")

STABILISED = 1e-7  # where only one side adds 1e-9 (or epsilon) to a denominator
UNIFORM = partial(lrp.methods.get, attention="uniform")


def kinds(model, x):
    return [layer.kind for layer in read(model, x).graph.layers]


def relevance(model, x, method, R):
    return lrp.vjp(model, x, method)[1](R)


# --- by hand -------------------------------------------------------------------------------------


def test_product_of_two_values_by_hand():
    a, c, R = np.array([[2.0, -3.0]]), np.array([[5.0, 1.0]]), np.array([[7.0, -4.0]])
    for method in ("lrp-epsilon", "lrp-alpha1-beta0", "lrp-alpha2-beta1"):
        found = relevance(lambda x: x[0] * x[1], (a, c), method, R)
        np.testing.assert_array_equal(found, (R / 2, R / 2))


def test_matrix_product_of_two_values_by_hand():
    """a = (1, 2), V = (3, 4): y = 1*3 + 2*4 = 11, so R = 22 gives 3 to each 6 and 8 to each 16."""
    a, v, R = np.array([[[1.0, 2.0]]]), np.array([[[3.0], [4.0]]]), np.array([[[22.0]]])
    of_a, of_v = relevance(lambda x: x[0] @ x[1], (a, v), "lrp-z", R)
    np.testing.assert_allclose(of_a, [[[3, 8]]], rtol=STABILISED)
    np.testing.assert_allclose(of_v, [[[3], [8]]], rtol=STABILISED)


def test_signed_matrix_product_by_hand():
    """c = (1*3, -2*4): alpha 1 gives all to the positive part, alpha 2 takes the same again."""
    a, v, R = np.array([[[1.0, -2.0]]]), np.array([[[3.0], [4.0]]]), np.array([[[6.0]]])
    for method, expected in (("lrp-alpha1-beta0", [3, 0]), ("lrp-alpha2-beta1", [6, -3])):
        of_a, of_v = relevance(lambda x: x[0] @ x[1], (a, v), method, R)
        np.testing.assert_allclose(of_a[0, 0], expected, atol=STABILISED)
        np.testing.assert_allclose(of_v[0, :, 0], expected, atol=STABILISED)


def test_softmax_by_hand():
    """exp x = (1, 3), y = (1/4, 3/4), R = (8, 4): R_j = x_j (R_j - y_j 12)."""
    x, R = np.log([[1.0, 3.0]]), np.array([[8.0, 4.0]])
    model = lambda x: jax.nn.softmax(x) @ np.eye(2)
    expected = [0, np.log(3) * float(4 - Fraction(3, 4) * 12)]
    _, pull = lrp.vjp(model, x, UNIFORM("lrp-z"), start="softmax_1")
    found = pull(R)[0]
    np.testing.assert_allclose(found, expected, rtol=STABILISED)


def test_normalisation_passes_relevance_unchanged():
    x, R = np.random.default_rng(0).normal(size=(2, 3, 8, 5))[:, 0], np.ones((2, 8, 5))
    rms = lambda x: x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    for method in ("lrp-epsilon", "lrp-alpha2-beta1", "lrp-flat"):
        np.testing.assert_array_equal(relevance(rms, x, method, R), R)


# --- attention against numpy ---------------------------------------------------------------------

rng = np.random.default_rng(1)
TOKENS, WIDTH = 4, 6
X = rng.normal(size=(2, TOKENS, WIDTH))
R = rng.normal(size=(2, TOKENS, WIDTH))
WQ, WK, WV = rng.normal(size=(3, WIDTH, WIDTH)) / 2
LINEAR = {
    "lrp-epsilon": oracle.epsilon,
    "lrp-z": oracle.z,
    "lrp-alpha1-beta0": oracle.zplus,
    "lrp-alpha2-beta1": partial(oracle.alpha_beta, alpha=2, beta=1, bias="none"),
}


def attention(x):
    q, k, v = x @ WQ, x @ WK, x @ WV
    return jax.nn.softmax(q @ jnp.swapaxes(k, 1, 2) / np.sqrt(WIDTH)) @ v


def dense(rule, W, x, R):
    """A rule on z = x W for all tokens, for W constant or given by the other factor."""
    of_all = np.kron(np.eye(len(x)), W.T)
    layer = oracle.Affine(of_all, np.zeros(len(of_all)), of_all != 0)
    return rule(layer, x.ravel(), R.ravel()).reshape(x.shape)


def matmul(rule, a, b, R):
    """Half of what the rule gives to each factor of a @ b."""
    return dense(rule, b, a, R) / 2, dense(rule, a.T, b.T, R.T).T / 2


def attention_oracle(rule, x, R, share):
    q, k, v = x @ WQ, x @ WK, x @ WV
    scores = q @ k.T / np.sqrt(WIDTH)
    e = np.exp(scores)
    A = e / e.sum(-1, keepdims=True)
    if share == "detached":
        return dense(rule, WV, x, dense(rule, A.T, v.T, R.T).T)
    of_A, of_v = matmul(rule, A, v, R)
    of_scores = scores * (of_A - A * of_A.sum(-1, keepdims=True))
    of_q, of_kT = matmul(rule, q, k.T, of_scores)  # a constant factor passes relevance on
    return sum(dense(rule, W, x, r) for W, r in ((WQ, of_q), (WK, of_kT.T), (WV, of_v)))


@pytest.mark.parametrize("share", ["detached", "uniform"])
@pytest.mark.parametrize("method", LINEAR)
def test_attention_against_the_oracle(method, share):
    chosen = lrp.methods.get(method, attention=share)
    expected = [attention_oracle(LINEAR[method], x, r, share) for x, r in zip(X, R, strict=True)]
    oracle.assert_close(relevance(attention, X, chosen, R), np.stack(expected), 1e-9)


def layer_norm(x):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-6)


def test_layer_norm_against_the_oracle():
    """The centring is linear and the deviation constant: z on x - mean x."""
    centring = np.eye(WIDTH) - 1 / WIDTH
    expected = [dense(oracle.z, centring, x, r) for x, r in zip(X, R, strict=True)]
    oracle.assert_close(relevance(layer_norm, X, "lrp-z", R), np.array(expected), STABILISED)


# --- what is recognised --------------------------------------------------------------------------

GATE = rng.normal(size=(WIDTH, WIDTH))
FORMS = {
    "softmax": (jax.nn.softmax, ["softmax"]),
    "softmax over tokens": (lambda x: jax.nn.softmax(x, axis=1), ["softmax"]),
    "softmax, two exp": (lambda x: jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True), ["softmax"]),
    "softmax, one exp": (lambda x: (e := jnp.exp(x)) / e.sum(-1, keepdims=True), ["softmax"]),
    "rms": (lambda x: x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True)), ["norm"]),
    "l2": (lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True), ["norm"]),
    "over its sum": (lambda x: x / x.sum(-1, keepdims=True), ["norm"]),
    "gated": (lambda x: x * jax.nn.sigmoid(x @ GATE), ["dense", "activation", "product"]),
    "squeeze and excite": (
        lambda x: x * jax.nn.sigmoid(x.mean(1, keepdims=True) @ GATE),
        ["sum", "dense", "activation", "product"],
    ),
    "gate of a mean": (
        lambda x: x * jax.nn.sigmoid(x.mean(1, keepdims=True)),
        ["sum", "activation", "product"],
    ),
    "over another value": (lambda x: x / (x @ GATE), ["dense", "unknown"]),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_attention_is_read_as_its_layers(name):
    model, expected = FORMS[name]
    assert kinds(model, X) == expected


def test_a_shift_that_varies_along_the_softmax_is_part_of_the_model():
    shifted = lambda x: (e := jnp.exp(x - x.max(1, keepdims=True))) / e.sum(-1, keepdims=True)
    assert "add" in kinds(shifted, X)
    expected = jax.vjp(shifted, X)[1](R)[0]
    np.testing.assert_allclose(relevance(shifted, X, "gradient", R), expected, atol=1e-12)


def test_exp_over_a_sum_that_stands_elsewhere_is_no_softmax():
    wrong = lambda x: (e := jnp.exp(x[:, :, :TOKENS])) / e.sum(2)[:, None]
    assert "softmax" not in kinds(wrong, X)


@pytest.mark.parametrize("name", FORMS)
def test_the_gradient_is_that_of_jax(name):
    model, _ = FORMS[name]
    expected = jax.vjp(model, X)[1](np.ones_like(model(X)))[0]
    found = relevance(model, X, "gradient", np.ones_like(model(X)))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("swap", [False, True])
def test_a_gate_takes_no_relevance_and_uniform_shares_it(swap):
    def gated(x):
        value, gate = x[0], jax.nn.silu(x[1] @ GATE)
        return gate * value if swap else value * gate

    of_value, of_gate = relevance(gated, (X, X), "lrp-epsilon", R)
    np.testing.assert_array_equal(of_value, R)
    np.testing.assert_array_equal(of_gate, np.zeros_like(X))
    of_value, of_gate = relevance(gated, (X, X), UNIFORM("lrp-epsilon"), R)
    np.testing.assert_array_equal(of_value, R / 2)
    assert np.abs(of_gate).max() > 0


sigmoid, hard_sigmoid = jax.nn.sigmoid, jax.nn.hard_sigmoid
WEIGHING = {  # a product of two values, and the number of the one that only weighs the other
    "sigmoid, linear": (lambda a, b: sigmoid(a) * b, 0),
    "sigmoid, tanh": (lambda a, b: sigmoid(a) * jnp.tanh(b), 0),
    "relu, sigmoid": (lambda a, b: jax.nn.relu(a) * sigmoid(b), 1),
    "hard_sigmoid, tanh": (lambda a, b: hard_sigmoid(a) * jnp.tanh(b), 0),
    "1 - sigmoid, tanh": (lambda a, b: (1 - sigmoid(a)) * jnp.tanh(b), 0),
    "linear, 2 sigmoid": (lambda a, b: a * (2 * sigmoid(b)), 1),
    "sigmoid moved, tanh": (lambda a, b: sigmoid(a)[:, ::-1] * jnp.tanh(b), 0),
    "silu, linear": (lambda a, b: jax.nn.silu(a) * b, 0),
    "silu, sigmoid": (lambda a, b: jax.nn.silu(a) * sigmoid(b), 1),
    "linear, tanh": (lambda a, b: a * jnp.tanh(b), 1),
    "softmax, sigmoid": (lambda a, b: jax.nn.softmax(a) * sigmoid(b), 0),
    "sigmoid, sigmoid": (lambda a, b: sigmoid(a) * sigmoid(b), None),
    "tanh, tanh": (lambda a, b: jnp.tanh(a) * jnp.tanh(b), None),
    "linear, linear": (lambda a, b: a * b, None),
}


@pytest.mark.parametrize(("model", "weighing"), WEIGHING.values(), ids=WEIGHING)
def test_which_of_two_values_is_the_weight(model, weighing):
    below = lambda x: model(*x) @ np.eye(WIDTH)  # what ends in a sigmoid is refused
    inputs = X, X[::-1]
    layers = lrp.plan(below, inputs, "gradient").layers
    (product,) = [layer.name for layer in layers if layer.kind == "product"]
    found = lrp.vjp(below, inputs, "lrp-epsilon", start=product)[1](R)
    for k, of_one in enumerate(found):
        share = {None: 0.5, k: 0}.get(weighing, 1)
        np.testing.assert_array_equal(of_one, share * R)


def test_an_lstm_cell_against_the_oracle():
    """c = f c0 + i g, h = o tanh c: the gates f, i and o are weights, Arras et al. 2017."""
    weights = rng.normal(size=(4, WIDTH, WIDTH))

    def cell(x):
        before, given = x
        f, i, o, g = (given @ w for w in weights)
        return sigmoid(o) * jnp.tanh(sigmoid(f) * before + sigmoid(i) * jnp.tanh(g))

    def by_hand(before, given, r):
        f, i, _, g = (given @ w for w in weights)
        s = lambda v: 1 / (1 + np.exp(-v))
        terms = (s(f) * before, s(i) * np.tanh(g), r)
        (of_before,), (of_g,) = oracle.add_signed(*(v[None] for v in terms))
        return of_before, dense(oracle.epsilon, weights[3], given, of_g)

    expected = zip(*map(by_hand, X, X[::-1], R), strict=True)
    found = relevance(cell, (X, X[::-1]), "lrp-epsilon", R)
    for one, other in zip(found, expected, strict=True):
        oracle.assert_close(one, np.stack(other), 1e-9)


# --- a transformer -------------------------------------------------------------------------------

IMAGES = jax.random.normal(jax.random.key(2), (2, 16, 16, 3), jnp.float64)
model = cache(lambda constants: vit(constants=constants))


def test_epsilon_conserves_in_a_transformer():
    logits = model(False)(IMAGES)[:, 3]
    total = lrp.attribute(model(False), IMAGES, "lrp-epsilon", target=3).sum((1, 2, 3))
    np.testing.assert_allclose(total, logits, rtol=1e-3)


def test_the_ledger_names_what_a_transformer_keeps():
    """The class token, position embeddings and biases take what does not reach the input."""
    check = lrp.plan(model(True), IMAGES, "lrp-epsilon").check(IMAGES, target=3)
    parts = ("bias", "stabiliser", "constants", "lost")
    kept = sum(row[part] or 0 for row in check.rows for part in parts)
    total = lrp.attribute(model(True), IMAGES, "lrp-epsilon", target=3).sum()
    np.testing.assert_allclose(total + kept, model(True)(IMAGES)[:, 3].sum(), rtol=1e-3)
    taking = {row["layer"] for row in check.rows if abs(row["constants"] or 0) > 1e-3}
    assert taking == {"concatenate_1", "position"}


def test_it_is_told_how_little_of_a_transformers_relevance_reaches_the_input_under_zplus():
    words = (
        r"^lrp-zplus: in one image at least \d% of the relevance reaches the input: .*% ends in "
        r"constants of the model \(tokens, .*\), most of it at the layer 'concatenate_1'.*\.$"
    )
    with pytest.warns(UserWarning, match=words) as warned:
        lrp.attribute(model(True), IMAGES, "lrp-zplus", target=3)
    assert len(warned) == 1


def test_the_gradient_of_a_transformer():
    expected = jax.grad(lambda x: model(True)(x)[:, 3].sum())(IMAGES)
    found = lrp.attribute(model(True), IMAGES, "gradient", target=3)
    np.testing.assert_allclose(found, expected, atol=1e-7 * np.abs(expected).max())


def test_a_transformer_is_read_by_its_parameters():
    layers = {layer.name: layer.kind for layer in read(model(True), IMAGES).graph.layers}
    wanted = [f"blocks.1.attention.{part}" for part in ("query", "key", "value", "out")]
    assert all(layers[name] == "dense" for name in (*wanted, "blocks.0.up", "head"))
    assert list(layers.values()).count("softmax") == 2
    assert list(layers.values()).count("product") == 4
    assert list(layers.values()).count("norm") == 5
    assert "unknown" not in layers.values()


@pytest.mark.parametrize("share", ["detached", "uniform"])
@pytest.mark.parametrize("method", ["lrp-epsilon", "lrp-alpha1-beta0"])
def test_csc_of_a_transformer(method, share):
    chosen = lrp.methods.get(method, attention=share)
    found = lrp.convergence.csc(model(True), IMAGES, chosen, key=jax.random.key(0))
    measured = [row["layer"] for row in found.rows]
    assert measured[0] == "head" and measured[-1] == "input"
    assert ("blocks.0.attention.query" in measured) == (share == "uniform")
    assert all(0 <= row["one_minus_median"] <= 1 for row in found.rows)


def test_alpha1_stays_non_negative_through_attention():
    """Theorem 1 needs it: attention is a non-negative weight, the value's positive part counts."""
    pull = lrp.vjp(model(True), IMAGES, "lrp-alpha1-beta0")[1]
    assert (pull(jnp.eye(5)[:2]) >= 0).all()


def test_where_no_relevance_arrives_is_zero_and_has_no_cosine():
    name = "blocks.1.attention.query"
    _, pull = lrp.vjp(model(True), IMAGES, "lrp-epsilon", layers=[name])
    assert not pull(jnp.ones((2, 5)))[1][name].any()
    with pytest.raises(ValueError, match=rf"no relevance reaches the layer '{name}'"):
        lrp.convergence.csc(
            model(True), IMAGES, "lrp-epsilon", key=jax.random.key(0), layers=[name]
        )


def test_an_attention_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match='attention is "detached" or "uniform"'):
        lrp.methods.get("lrp-epsilon", attention="half")
    with pytest.raises(TypeError, match=r"no option 'attention'.*base method"):
        lrp.methods.get("occlusion", attention="uniform")
