"""Models that change their precision on the way: relevance follows them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import lrpjax as lrp

RNG = np.random.default_rng(0)
W, X = RNG.normal(size=(3, 4)), RNG.normal(size=(2, 3))
V, R = RNG.normal(size=(4, 4)), np.ones((2, 4))
W32, V32 = W.astype(np.float32), V.astype(np.float32)
MODELS = {
    "to single": lambda x: jax.nn.relu(x @ W).astype(jnp.float32) @ jnp.ones((4, 4), jnp.float32),
    "through single": lambda x: jax.nn.relu((x @ W).astype(jnp.float32)).astype(jnp.float64) * 2.0,
    "a branch": lambda x: jax.nn.relu(x @ W).astype(jnp.float32).astype(jnp.float64) + x @ W,
}


@pytest.mark.parametrize("method", ["lrp-z", "lrp-zplus", "guided-bp", "deeplift-rescale"])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_relevance_has_the_inputs_precision(model, method):
    _, propagate = lrp.vjp(model, X, method)
    found = propagate(R)
    assert found.dtype == np.float64 and np.isfinite(found).all() and np.abs(found).max() > 0


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_gradient_is_that_of_jax(model):
    out, expected = jax.vjp(model, X)
    found = lrp.vjp(model, X, "gradient")[1](R)
    np.testing.assert_allclose(found, expected(R.astype(out.dtype))[0], rtol=1e-6)


LESS = ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz", "float8_e3m4"]
ROUNDED = {name: lambda x, name=name: x.astype(name).astype("float32") for name in LESS} | {
    "reduce_precision to half": lambda x: lax.reduce_precision(x, 8, 7),
    "reduce_precision to float8": lambda x: lax.reduce_precision(x, 4, 3),
}
SINGLE = 1e-5  # a few float32 sums, relative to the largest entry


@pytest.mark.parametrize("method", ["lrp-z", "gradient", "input-x-gradient"])
@pytest.mark.parametrize("rounded", ROUNDED.values(), ids=ROUNDED)
def test_relevance_is_not_rounded_where_the_model_is(rounded, method):
    """LRP-0 without biases is input times gradient: of the network without its casts, by hand."""
    model = lambda x: jax.nn.relu(rounded(x @ W32)) @ V32
    x = X.astype(np.float32)
    h = X @ W
    expected = ((h > 0) * (R @ V.T)) @ W.T * (1 if method == "gradient" else X)
    of_output = R * (np.maximum(h, 0) @ V) if method == "lrp-z" else R
    found = lrp.vjp(model, x, method)[1](of_output.astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=SINGLE * np.abs(expected).max())


def test_a_reduced_precision_of_single_stays():
    model = lambda x: lax.reduce_precision(x, 8, 23) * 1.0
    third = np.full((1, 1), 1 / 3)
    assert lrp.vjp(model, third, "lrp-z")[1](third)[0, 0] == np.float32(1 / 3)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_a_model_in_float8(dtype):
    """Its input and weights are the rounded ones, its relevance is exact."""
    x, w = jnp.asarray(X, dtype), jnp.asarray(W, dtype)
    product = lambda x: lax.dot_general(x, w, (((1,), (0,)), ((), ())))
    out, propagate = lrp.vjp(product, x, "lrp-z")
    assert out.dtype == x.dtype
    found = propagate(jnp.asarray(R, jnp.float32))
    assert found.dtype == np.float32
    x, w = np.asarray(x, float), np.asarray(w, float)
    expected = x * ((R / (x @ w)) @ w.T)
    np.testing.assert_allclose(found, expected, rtol=0, atol=SINGLE * np.abs(expected).max())
