"""A large weight matrix is read block by block, and the numbers are those of the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp
from lrpjax.layers import blocks

# Sums of a few hundred float64 terms in another order.
CLOSE = 1e-12

SIDES = {
    "x @ w": lambda w: lambda x: x @ w,
    "w on the left": lambda w: lambda x: (w.T @ x.T).T,
    "output axis first": lambda w: lambda x: jnp.einsum("ni,oi->no", x, w.T),
    "folded behind BatchNorm": lambda w: lambda x: (2 * x + 1) @ w * 0.5 + 3,
}


@pytest.fixture
def splits(monkeypatch):
    """A threshold that splits small matrices; counts the splits it has made."""
    made = []
    count = blocks._blocks
    for name, least in {"LARGE": 600, "BLOCK": 300, "ROWS": 8}.items():
        monkeypatch.setattr(blocks, name, least)
    monkeypatch.setattr(blocks, "_blocks", lambda *a: made.append(count(*a)) or made[-1])
    return made


@pytest.mark.parametrize("model", SIDES.values(), ids=SIDES)
@pytest.mark.parametrize("method", ["lrp-zplus", "lrp-alpha2-beta1", "lrp-flat", "lrp-wsquare"])
def test_blocks_give_what_the_whole_matrix_gives(model, method, splits, getkey):
    w = jax.random.normal(getkey(), (96, 20))
    f = lambda x: model(w)(jnp.maximum(x, 0))
    x, r = jax.random.normal(getkey(), (2, 96)), jax.random.normal(getkey(), (2, 20))
    split = lrp.vjp(f, x, method)[1](r)
    assert max(splits) > 1
    splits.clear()
    blocks.LARGE = 10**9
    jax.clear_caches()
    whole = lrp.vjp(f, x, method)[1](r)
    assert set(splits) <= {1}
    np.testing.assert_allclose(split, whole, rtol=CLOSE, atol=CLOSE)


def test_a_length_that_does_not_divide_is_not_split(splits, getkey):
    w = jax.random.normal(getkey(), (97, 20))
    x = jax.random.normal(getkey(), (2, 97))
    out, pull = lrp.vjp(lambda x: jnp.maximum(x, 0) @ w, x, "lrp-zplus")
    assert set(splits) == {1}
    np.testing.assert_allclose(pull(out).sum(), out.sum(), rtol=1e-6)


@pytest.mark.parametrize("method", ["lrp-zplus", "lrp-alpha2-beta1", "lrp-wsquare"])
def test_no_pass_writes_a_second_copy_of_the_matrix(method, monkeypatch, getkey):
    """Neither does the way back, for which JAX would store what it makes of each block."""
    for name, least in {"LARGE": 2**13, "BLOCK": 2**12}.items():
        monkeypatch.setattr(blocks, name, least)
    w = jax.random.normal(getkey(), (1024, 64))
    x, r = jax.random.normal(getkey(), (2, 1024)), jax.random.normal(getkey(), (2, 64))

    def relevance(w, x, r):
        return lrp.vjp(lambda x: jnp.maximum(x, 0) @ w, x, method)[1](r)

    memory = jax.jit(relevance).lower(w, x, r).compile().memory_analysis()
    assert memory.temp_size_in_bytes < w.nbytes / 2


@pytest.mark.parametrize("method", ["lrp-zplus", "lrp-alpha2-beta1", "lrp-gamma"])
def test_the_matrix_is_read_once_each_way(method, splits, getkey):
    """For both signs together; where a rule sums both, the forward pass has the sums."""
    w = jax.random.normal(getkey(), (96, 20))
    x, r = jax.random.normal(getkey(), (2, 96)), jax.random.normal(getkey(), (2, 20))

    def relevance(w, x, r):
        return lrp.vjp(lambda x: jnp.maximum(x, 0) @ w, x, method)[1](r)

    text = str(jax.make_jaxpr(relevance)(w, x, r))
    assert max(splits) > 1
    assert text.count("scan[") == 2
