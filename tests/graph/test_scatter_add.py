"""Sums into places that constants say: a linear map like a sum, whose batch is followed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import relu

import lrpjax as lrp
from lrpjax.graph.reading import read

pytestmark = pytest.mark.usefixtures("quick_compile")

RANDOM = np.random.default_rng(5)
TO = np.array([0, 2, 2, 1, 0])
FROM = np.array([1, 0, 3, 4, 4])
M = np.zeros((3, 5))
M[TO, np.arange(5)] = 1
X = RANDOM.normal(size=(4, 5))
NODES = RANDOM.normal(size=(4, 5, 2))
W = RANDOM.normal(size=(2, 3))
V = RANDOM.normal(size=(3, 3))

MAPS = {  # the same linear map of (4, 5), spelled
    "segment_sum": jax.vmap(lambda h: jax.ops.segment_sum(h, TO, 3)),
    "transposed": lambda x: jax.ops.segment_sum(x.T, TO, 3).T,
    "at add": lambda x: jnp.zeros((len(x), 3)).at[:, TO].add(x),
    "at subtract": lambda x: -jnp.zeros((len(x), 3)).at[:, TO].subtract(x),
    "onto constants": lambda x: jnp.full((len(x), 3), 0.5).at[:, TO].add(x) - 0.5,
    "mode drop": lambda x: (
        jnp.zeros((len(x), 3))
        .at[:, np.r_[TO, 9]]
        .add(jnp.concatenate([x, x[:, :1]], 1), mode="drop")
    ),
}


@pytest.mark.parametrize("name", MAPS)
def test_it_is_the_matrix_of_ones_for_every_method(name):
    for method in ("gradient", "lrp-z", "lrp-epsilon", "lrp-zplus", "lrp-alpha2-beta1"):
        found, expected = (
            lrp.vjp(lambda x, f=f: relu(f(x)) @ V, np.abs(X), method)[1](X[:, :3])
            for f in (MAPS[name], lambda x: jnp.stack([x[:, k == TO].sum(1) for k in range(3)], 1))
        )
        np.testing.assert_allclose(found, expected, rtol=1e-7, err_msg=method)


def test_terms_get_their_share_and_positive_ones_all_of_it():
    model, R = MAPS["segment_sum"], X[:, :3]
    found = lrp.vjp(model, X, "lrp-z")[1](R)
    np.testing.assert_allclose(found, X * ((R / (X @ M.T)) @ M), rtol=1e-6)
    up = np.maximum(X, 0)
    total = up @ M.T
    expected = up * (np.where(total > 0, R / np.where(total > 0, total, 1), 0) @ M)
    np.testing.assert_allclose(lrp.vjp(model, X, "lrp-zplus")[1](R), expected, rtol=1e-6)
    (layer,) = [layer for layer in read(model, X).graph.layers if layer.kind == "sum"]
    assert layer.primitive == "scatter-add"


def test_signs_and_deeplift_go_through():
    model = lambda x: MAPS["segment_sum"](relu(x)) @ V
    last = read(model, X).graph.layers[-1]
    assert last.kind == "dense" and last.non_negative
    found = lrp.attribute(model, X, "deeplift-rescale", target=1)
    np.testing.assert_allclose(found.sum(1), model(X)[:, 1], rtol=1e-9)


def test_added_to_a_value_both_get_their_share():
    model = lambda x: jnp.stack([x, 2 * x], 1)[:, 0, :3].at[:, TO].add(x * 3)
    found = lrp.vjp(model, X, "lrp-z")[1](np.ones((4, 3)))
    parts = np.eye(3, 5) + 3 * M
    np.testing.assert_allclose(found, X * ((1 / (X @ parts.T)) @ parts), rtol=1e-6)


def graph_conv(h, w):
    """(nodes, C): the messages of the edges, summed up at the nodes they go to."""
    return jax.ops.segment_sum((h @ w)[FROM], TO, 5)


@pytest.mark.parametrize(
    "method", ["gradient", "lrp-epsilon", "lrp-zplus", "guided-bp", "rect-grad"]
)
def test_a_graph_convolution_is_that_of_the_adjacency_matrix(method):
    a = np.zeros((5, 5))
    np.add.at(a, (TO, FROM), 1)
    one = lambda h: (relu(graph_conv(h, W)) @ V).mean(0)
    dense = lambda x: (relu(jnp.stack([sum(
        (x @ W)[:, f] for t, f in zip(TO, FROM, strict=True) if t == k
    ) + 0 * (x @ W)[:, 0] for k in range(5)], 1)) @ V).mean(1)  # fmt: skip
    found = lrp.attribute(jax.vmap(one), NODES, method, target=0)
    if method in ("gradient", "guided-bp", "lrp-epsilon"):
        np.testing.assert_allclose(found, lrp.attribute(dense, NODES, method, target=0), rtol=1e-6)
    if method != "rect-grad":
        alone = [lrp.attribute(jax.vmap(one), x[None], method, target=0)[0] for x in NODES]
        np.testing.assert_allclose(found, alone, rtol=1e-9)
    lrp.plan(jax.vmap(one), NODES, method).check(NODES)


FAMILIES = [
    "gradient",
    "lrp-z",
    "deeplift-rescale",
    "guided-bp",
    "integrated-gradients",
    "occlusion",
]
IDS = np.array([0, 0, 1, 2])
SUMMED = {
    "segment_sum": lambda x: jax.ops.segment_sum(x, IDS, 4) @ np.ones((5, 3)),
    "at add": lambda x: x.at[IDS].add(x[:, ::-1]) @ np.ones((5, 3)),
    "at subtract": lambda x: x.at[IDS].subtract(x[:, ::-1]) @ np.ones((5, 3)),
}


@pytest.mark.parametrize("method", FAMILIES)
@pytest.mark.parametrize("name", SUMMED)
def test_what_is_summed_over_the_batch_is_refused_in_every_family(name, method):
    with pytest.raises(ValueError, match=r"depend on others: scatter-\w+ at .*test_scatter_add"):
        lrp.attribute(SUMMED[name], X, method, target=0)


def test_each_example_may_have_a_place_of_its_own():
    model = lambda x: jnp.zeros((4, 5)).at[jnp.arange(4), jnp.array([0, 2, 1, 4])].add(x[:, 0])
    axes = read(lambda x: model(x) + x, X).graph.axes
    assert axes.mixes is None


UNKNOWN = {  # no row says how they treat a batch: whether they mix it here
    "the maximum of a group": (
        True, lambda x: jnp.zeros((4, 5)).at[IDS].max(x) @ np.ones((5, 3))
    ),
    "the maximum of a group, added": (True, lambda x: (x + x.at[IDS].max(x)) @ np.ones((5, 3))),
    "a product of the last two": (True, lambda x: x.at[np.array([2])].mul(x[3:]) @ np.ones((5, 3))),
    "the maximum within": (False, lambda x: x.at[:, TO].max(x) @ np.ones((5, 3))),
    "cholesky": (False, lambda x: jnp.linalg.cholesky(
        x[:, :2, None] * x[:, None, :2] + np.eye(2)
    ).reshape(4, 4)),
}  # fmt: skip


@pytest.mark.parametrize("method", ["gradient", "occlusion", "integrated-gradients"])
@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_to_keep_examples_apart_is_tried(name, method):
    mixes, model = UNKNOWN[name]
    if not mixes:
        lrp.attribute(model, X, method, target=0)
        return
    with pytest.raises(
        ValueError, match=r"depend on others, as is seen .*not known how (scatter|sel)"
    ):
        lrp.attribute(model, X, method, target=0)


def test_the_claims_try_it_from_one_example():
    model = lambda x: jnp.zeros((len(x), 5)).at[np.arange(len(x)) // 2].max(x) @ np.ones((5, 3))
    with pytest.raises(ValueError, match="an example by itself"):
        lrp.attribute(model, np.abs(X[:1]), "gradient", target=0, check=True)
