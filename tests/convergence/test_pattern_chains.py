"""Which layers a pattern spectrum takes for consecutive, and which rows of them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.oracle_spectrum import found, link, random_patterns, ratio
from jax import lax

from lrpjax.convergence import pattern_spectrum

pytestmark = pytest.mark.usefixtures("quick_compile")

# Two float64 decompositions of matrices with well separated singular values.
close = partial(np.testing.assert_allclose, rtol=1e-9)


def conv(x, w, **options):
    options = {"window_strides": (1, 1), "padding": "SAME"} | options
    return lax.conv_general_dilated(x, w, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options)


def mean_pool(x):
    return lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4


def shuffled(x, w):
    h = jax.nn.relu(conv(x, w["a"]))
    h = h.reshape(*h.shape[:3], 2, 2).swapaxes(3, 4).reshape(h.shape)  # channels 0 2 1 3
    return conv(h, w["b"])


def normed(x, w):
    h = conv(x, w["a"])
    h = (h - h.mean(-1, keepdims=True)) * lax.rsqrt(h.var(-1, keepdims=True) + 1)
    return conv(h, w["b"])


def residual(x, w):
    h = conv(x, w["a"])
    return (h + conv(jax.nn.relu(conv(h, w["b"])), w["c"])).mean((1, 2)) @ w["d"]


def branched(x, w):
    h = jax.nn.relu(conv(x, w["a"]))
    return conv(h, w["b"]) + conv(h, w["c"])


K, ONE = (3, 3, 4, 4), (1, 1, 4, 4)
MODELS = {
    "average pool, stride and an explicit margin": (
        {"a": K, "b": K},
        lambda x, w: conv(
            jnp.pad(mean_pool(conv(x, w["a"])), [(0, 0), (1, 1), (1, 1), (0, 0)]),
            w["b"],
            window_strides=(2, 2),
            padding="VALID",
        ),
        ["ab"],
    ),
    "1 x 1 and a dense layer at every place": (
        {"a": ONE, "b": (4, 5)},
        lambda x, w: jax.nn.relu(conv(x, w["a"])) @ w["b"],
        ["ab"],
    ),
    "weights on the left": (
        {"a": (4, 5), "b": (3, 5)},
        lambda x, w: jnp.einsum("of,nhwf->nohw", w["b"], jax.nn.relu(x @ w["a"])),
        ["ab"],
    ),
    "global average pool": (
        {"a": K, "b": (4, 3)},
        lambda x, w: jax.nn.relu(conv(x, w["a"])).mean((1, 2)) @ w["b"],
        ["ab"],
    ),
    "maximum over everything": (
        {"a": K, "b": (4, 3)},
        lambda x, w: conv(x, w["a"]).max((1, 2)) @ w["b"],
        ["ab"],
    ),
    "one token of many": (
        {"a": K, "b": (4, 3)},
        lambda x, w: conv(x, w["a"]).reshape(len(x), -1, 4)[:, 3] @ w["b"],
        ["ab"],
    ),
    "channel shuffle": ({"a": K, "b": K}, shuffled, ["ab"]),
    "a path that splits": ({"a": K, "b": K, "c": K}, branched, ["ab", "ac"]),
    "residual": ({"a": K, "b": K, "c": K, "d": (4, 3)}, residual, ["ab", "bc"]),
    "normalisation": ({"a": K, "b": K}, normed, []),
    "features pooled away": (
        {"a": K, "b": (2, 3)},
        lambda x, w: conv(x, w["a"]).reshape(*x.shape[:3], 2, 2).max(-1) @ w["b"],
        [],
    ),
    "a running sum over features": (
        {"a": K, "b": K},
        lambda x, w: conv(jnp.cumsum(conv(x, w["a"]), -1), w["b"]),
        [],
    ),
}


@pytest.mark.parametrize(("shapes", "function", "links"), MODELS.values(), ids=MODELS)
def test_consecutive_layers_are_linked_by_the_rows_that_meet(shapes, function, links, getkey):
    w = {name: jax.random.normal(getkey(), shape) for name, shape in shapes.items()}
    x = jax.random.normal(getkey(), (2, 4, 4, 4))
    model = jax.tree_util.Partial(lambda w, x: function(x, w), w)
    result = pattern_spectrum(model, x, random_patterns(model, x, getkey))
    rows = result.select("link", "W")
    assert [row["layers"] for row in rows] == [list(pair) for pair in links]
    centre = {
        k: np.asarray(v if v.ndim == 2 else v[v.shape[0] // 2, v.shape[1] // 2])
        for k, v in w.items()
    }
    if function is shuffled:
        centre["b"] = centre["b"][[0, 2, 1, 3]]
    if w["b"].shape == (3, 5):
        centre["b"] = centre["b"].T
    for row in rows:
        close(row["ratio"], ratio(link(*(centre[name] for name in row["layers"]))))
    close(found(result, "layer", "W"), [ratio(m) for m in centre.values()])


def test_a_flattened_sum_of_two_paths_still_has_a_centre(getkey):
    w = {"a": jax.random.normal(getkey(), K), "b": jax.random.normal(getkey(), (4 * 4 * 4, 5))}
    model = lambda x: (x + conv(x, w["a"])).reshape(len(x), -1) @ w["b"]
    x = jax.random.normal(getkey(), (2, 4, 4, 4))
    result = pattern_spectrum(model, x, random_patterns(model, x, getkey))
    assert result.select("link", "W") == result.summary == []
    close(found(result, "layer", "W")[1], ratio(w["b"].reshape(4, 4, 4, 5)[2, 2]))


def test_a_flattened_image_of_unknown_axes_is_one_matrix(getkey):
    w = jax.random.normal(getkey(), (36, 5))
    model = lambda x: x.reshape(len(x), -1) @ w
    x = jax.random.normal(getkey(), (2, 6, 6))
    result = pattern_spectrum(model, x, random_patterns(model, x, getkey))
    assert result.select("layer", "W")[0]["shape"] == [36, 5]


def test_heads_are_features_and_not_places(getkey):
    """Multi-head attention: its last product contracts heads and what each holds."""
    attention = nnx.MultiHeadAttention(
        2, 4, decode=False, deterministic=True, param_dtype=float, rngs=nnx.Rngs(0)
    )
    x = jax.random.normal(getkey(), (2, 3, 4))
    result = pattern_spectrum(attention, x, random_patterns(attention, x, getkey))
    shapes = {row["layers"][0]: row["shape"] for row in result.select("layer", "W")}
    assert shapes == {name: [4, 4] for name in ("query", "key", "value", "out")}
    assert result.summary == []


def test_several_output_axes_are_numbered_together(getkey):
    w = {"a": jax.random.normal(getkey(), (4, 2, 3)), "b": jax.random.normal(getkey(), (3, 2, 5))}
    hidden = lambda x: jax.nn.relu(jnp.einsum("ni,ijk->njk", x, w["a"]))
    model = lambda x: jnp.einsum("njk,kjo->no", hidden(x), w["b"])
    x = jax.random.normal(getkey(), (2, 4))
    result = pattern_spectrum(model, x, random_patterns(model, x, getkey))
    a, b = w["a"].reshape(4, 6), w["b"].swapaxes(0, 1).reshape(6, 5)
    close(found(result, "layer", "W"), [ratio(a), ratio(b)])
    close(found(result, "link", "W"), [ratio(link(np.asarray(a), np.asarray(b)))])


def test_a_grouped_convolution_is_block_diagonal(getkey):
    w = {"a": jax.random.normal(getkey(), (2, 2, 2, 6)), "b": jax.random.normal(getkey(), (6, 3))}
    model = lambda x: jax.nn.relu(conv(x, w["a"], feature_group_count=2)) @ w["b"]
    x = jax.random.normal(getkey(), (2, 4, 4, 4))
    result = pattern_spectrum(model, x, random_patterns(model, x, getkey))
    blocks = np.zeros((4, 6))
    blocks[:2, :3], blocks[2:, 3:] = w["a"][1, 1, :, :3], w["a"][1, 1, :, 3:]
    close(found(result, "layer", "W"), [ratio(blocks), ratio(w["b"])])
    close(found(result, "link", "W"), [ratio(link(blocks, np.asarray(w["b"])))])


def test_a_stack_of_products_is_block_diagonal(getkey):
    w = jax.random.normal(getkey(), (4, 3, 2))
    model = lambda x: jnp.einsum("ngi,gio->ngo", x, w)
    x = jax.random.normal(getkey(), (5, 4, 3))
    result = pattern_spectrum(model, x, random_patterns(model, x, getkey))
    full = jax.scipy.linalg.block_diag(*w)
    close(found(result, "layer", "W"), [ratio(full)])
