"""Attention whose mask is a number or minus infinity: what is masked gets exactly nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

RNG = np.random.default_rng(5)
T, C = 4, 6
X, R = RNG.normal(size=(2, T, C)), RNG.normal(size=(2, T, C))
Q, K, V = RNG.normal(size=(3, C, C)) / 2
CAUSAL = np.tril(np.ones((T, T), bool))
MASKS = {
    "where -1e9": lambda s: jnp.where(CAUSAL, s, -1e9),
    "plus -1e9": lambda s: s + np.where(CAUSAL, 0.0, -1e9),
    "where -inf": lambda s: jnp.where(CAUSAL, s, -jnp.inf),
    "the lowest number": lambda s: jnp.where(CAUSAL, s, jnp.finfo(s.dtype).min),
    "where= of softmax": None,
}


def attention(name):
    def model(x):
        scores = (x @ Q) @ jnp.swapaxes(x @ K, 1, 2) / np.sqrt(C)
        if MASKS[name] is None:
            weights = jax.nn.softmax(scores, where=CAUSAL)
        else:
            weights = jax.nn.softmax(MASKS[name](scores))
        return weights @ (x @ V)

    return model


PADDED = np.array([[False, False, False, True], [False, False, True, True]])
FROM_THE_INPUT = {  # what a token of zeros is told by: as constants, and computed in the model
    "where": lambda s, pad: jnp.where(pad[:, None, :], -1e9, s),
    "where -inf": lambda s, pad: jnp.where(pad[:, None, :], -jnp.inf, s),
    "plus": lambda s, pad: s + jnp.where(pad, -1e9, 0.0)[:, None, :],
    "plus, cast": lambda s, pad: s + -1e9 * pad[:, None, :].astype(s.dtype),
}


def padded(x, mask, pad):
    weights = jax.nn.softmax(mask((x @ Q) @ jnp.swapaxes(x @ K, 1, 2), pad))
    shown = ~pad[..., None]
    return ((weights @ (x @ V)) * shown).sum(1) / shown.sum(1)


@pytest.mark.parametrize("method", ["lrp-epsilon", "lrp-zplus", "lrp-alpha2-beta1", "gradient"])
@pytest.mark.parametrize("mask", FROM_THE_INPUT.values(), ids=FROM_THE_INPUT)
def test_a_mask_that_is_computed_from_the_input_is_as_one_of_constants(mask, method):
    x = X * ~PADDED[..., None]
    one, other = (
        lrp.attribute(model, x, method, target=1)
        for model in (
            lambda x: padded(x, mask, jnp.asarray(PADDED)),
            lambda x: padded(x, mask, (x == 0).all(-1)),
        )
    )
    np.testing.assert_allclose(other, one, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(other[PADDED], 0)


def test_what_is_taken_of_two_values_keeps_its_relevance():
    """where(a > b, a W, b V): each entry's relevance goes to the one it was taken from."""
    a, b = RNG.normal(size=(2, 2, C))
    model = lambda x: jnp.where(x[0] > x[1], x[0] @ Q, x[1] @ V)
    out, pull = lrp.vjp(model, (a, b), "lrp-z")
    to_a, to_b = pull(out)
    np.testing.assert_allclose(to_a.sum(1), (out * (a > b)).sum(1), rtol=1e-6)
    np.testing.assert_allclose(to_b.sum(1), (out * (a <= b)).sum(1), rtol=1e-6)


def test_numbers_that_truth_values_choose_take_no_relevance_but_are_refused():
    model = lambda x: (jnp.where(x > 0, 2.0, -1.0) + x) @ Q
    with pytest.raises(NotImplementedError, match="no rule for the primitive 'select_n'"):
        lrp.attribute(model, X[0], "lrp-z", target=0)
    model = lambda x: (jnp.where((x > 0).any(1, keepdims=True), 2.0, -1.0) + x) @ Q
    with pytest.raises(NotImplementedError, match="reaches truth values or integers"):
        lrp.attribute(model, X[0], "lrp-z", target=0)


def test_deeplift_is_refused_where_another_input_chooses_otherwise():
    with pytest.raises(NotImplementedError, match="deeplift-rescale has no rule for the primitive"):
        lrp.attribute(lambda x: jnp.where(x > x[:, :1], x, x @ Q), X[0], "deeplift-rescale")


def by_hand(x, R):
    """lrp-epsilon, epsilon 1e-6: attention is constant weights A, so that y = A (x V)."""
    scores = np.where(CAUSAL, (x @ Q) @ (x @ K).T / np.sqrt(C), -np.inf)
    e = np.exp(scores - scores.max(1, keepdims=True))
    A, v = e / e.sum(1, keepdims=True), x @ V
    stable = lambda z: z + 1e-6 * np.where(z < 0, -1, 1)
    of_v = v * (A.T @ (R / stable(A @ v)))
    return x * ((of_v / stable(v)) @ V.T)


@pytest.mark.parametrize("name", MASKS)
def test_a_masked_token_gets_no_relevance_and_the_others_theirs(name):
    found = lrp.vjp(attention(name), X, "lrp-epsilon")[1](R)
    wanted = np.stack([by_hand(x, r) for x, r in zip(X, R, strict=True)])
    np.testing.assert_allclose(found, wanted, atol=1e-10 * np.abs(wanted).max())
    first = np.zeros_like(R)
    first[:, 0] = R[:, 0]  # the first token sees itself alone
    of_first = np.asarray(lrp.vjp(attention(name), X, "lrp-epsilon")[1](first))
    assert (of_first[:, 1:] == 0).all()
    assert (of_first[:, 0] != 0).all()


@pytest.mark.parametrize("name", MASKS)
def test_the_gradient_of_masked_attention_is_that_of_jax(name):
    model = attention(name)
    wanted = jax.vjp(model, X)[1](R)[0]
    np.testing.assert_allclose(lrp.vjp(model, X, "gradient")[1](R), wanted, atol=1e-12)
