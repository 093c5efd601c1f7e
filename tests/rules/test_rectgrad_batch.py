"""RectGrad ranks the units of one example, wherever the batch is."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import relu

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

SAME = 1e-12  # the same equations in float64, in another order
PERCENTILE = 60
METHOD = lrp.methods.get("rect-grad", percentile=PERCENTILE, start="logit")
RANDOM = np.random.default_rng(3)
W1, W2, HEAD = (RANDOM.normal(size=shape) for shape in ((5, 7), (7, 7), (7, 2)))
X = RANDOM.normal(size=(3, 5))
STEPS = RANDOM.normal(size=(3, 4, 5))


def kept(x, z, r):
    """1[z > 0] 1[a r > tau] r, tau the percentile of a r over all units of one example."""
    score = np.maximum(z, 0) * r
    return (z > 0) * (score > np.percentile(score, PERCENTILE, method="nearest")) * r


def expected(x, pool=1):
    """The map of one example (units along the last axis, the mean over the others)."""
    z1 = x @ W1
    z2 = np.maximum(z1, 0) @ W2
    logits = np.maximum(z2, 0) @ HEAD
    logits = logits.reshape(-1, 2).mean(0)
    start = np.where(np.arange(2) == logits.argmax(), logits, 0)
    r = kept(x, z2, np.broadcast_to(start / pool @ HEAD.T, z2.shape))
    return kept(x, z1, r @ W2.T) @ W1.T


def net(x):
    return relu(relu(x @ W1) @ W2) @ HEAD


def columns(x):
    """The batch as last axis."""
    return (HEAD.T @ relu(W2.T @ relu(W1.T @ x.T))).T


def equinox_net():
    mlp = eqx.nn.MLP(5, 2, 7, 2, use_bias=False, use_final_bias=False, key=jax.random.key(0))
    weights = [w.T for w in (W1, W2, HEAD)]
    where = lambda m: [layer.weight for layer in m.layers]
    return jax.vmap(eqx.tree_at(where, mlp, list(map(jnp.asarray, weights))))


VECTORS = {
    "batch first": net,
    "vmapped": jax.vmap(net),
    "equinox": equinox_net(),
    "batch last": columns,
    "vmapped onto the last axis": lambda x: jax.vmap(net, out_axes=1)(x).T,
    "one by one": lambda x: jnp.stack([net(row) for row in x]),
}
TOKENS = {
    "batch first": lambda x: net(x).mean(1),
    "time first": lambda x: net(x.swapaxes(0, 1)).mean(0),
    "merged": lambda x: net(x.reshape(-1, 5)).reshape(-1, 4, 2).mean(1),
    "time first and merged": lambda x: (
        net(x.swapaxes(0, 1).reshape(-1, 5)).reshape(4, -1, 2).mean(0)
    ),
}


@pytest.mark.parametrize("model", VECTORS.values(), ids=VECTORS)
def test_the_percentile_is_of_one_example_in_every_layout(model):
    found = lrp.attribute(model, X, METHOD)
    assert np.abs(found).max(1).min() > 0
    np.testing.assert_allclose(found, [expected(x) for x in X], atol=SAME)


@pytest.mark.parametrize("model", TOKENS.values(), ids=TOKENS)
def test_the_percentile_is_of_all_tokens_of_one_example(model):
    found = lrp.attribute(model, STEPS, METHOD)
    np.testing.assert_allclose(found, [expected(x, 4) for x in STEPS], atol=SAME)


def test_a_single_example_without_a_batch_has_its_own_percentile():
    _, relevance = lrp.vjp(net, X[0], METHOD)
    logits = np.asarray(net(X[0]))
    start = np.where(np.arange(2) == logits.argmax(), logits, 0)
    np.testing.assert_allclose(relevance(start), expected(X[0]), atol=SAME)


def test_where_the_examples_are_not_known_it_is_refused():
    method = lrp.methods.get("rect-grad", unknown="gradient")
    square = lambda x: jnp.einsum("ni,nj->nij", x, x) + np.eye(5)
    model = lambda x: relu(jnp.linalg.cholesky(square(x)))[:, 4]
    with pytest.raises(ValueError, match=r"at layer 'cholesky_1:relu' .*is not known"):
        lrp.attribute(model, X, method)
