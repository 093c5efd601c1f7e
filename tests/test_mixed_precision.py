"""Models that change their precision on the way: relevance follows them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp

RNG = np.random.default_rng(0)
W, X = RNG.normal(size=(3, 4)), RNG.normal(size=(2, 3))
R = np.ones((2, 4))
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
