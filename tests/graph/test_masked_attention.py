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
