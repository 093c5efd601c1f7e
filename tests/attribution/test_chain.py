"""Relevance matrices, dense and as operators, against rules in numpy applied to unit vectors."""

from __future__ import annotations

from fractions import Fraction as F
from functools import cache, partial
from itertools import pairwise, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import nets_chain, oracle
from scipy.sparse.linalg import aslinearoperator, svds

import lrpjax as lrp
from lrpjax.matrices import one_example
from lrpjax.propagation import descent

pytestmark = pytest.mark.usefixtures("quick_compile")

SAME = 1e-12  # float64: the same sums, in another order
FRACTION = 1e-8  # the stabiliser moves a denominator of size 1 by 1e-9
SINGLE = 1e-5  # float32: sums of up to a hundred terms
SHARED = 1e-5  # the stabiliser moves a denominator of size 1e-3 by one part in a million

X = np.random.default_rng(5).normal(size=(1, 4, 4, 2))
WEIGHTS = nets_chain.residual_weights()
NET = jax.tree_util.Partial(nets_chain.residual_net, WEIGHTS)
METHODS = tuple(nets_chain.METHODS)
BIASED = [lrp.methods.alpha_beta(2, 1, bias=b) for b in ("signed", "split")]
close = partial(oracle.assert_close, tolerance=SAME)


@cache
def expected(method):
    return nets_chain.residual_matrices(WEIGHTS, X, method)


def by_vjp(model, x, method, op):
    """Row i of Z is the relevance of unit vector i."""
    options = {} if op.stop == "input" else {"layers": [op.stop]}
    _, pull = lrp.vjp(model, x, method, start=op.start, **options)
    n = op.shape[0]
    found = jax.vmap(pull)(jnp.eye(n, dtype=op.dtype).reshape(n, *op.out_shape))
    leaves = jax.tree.leaves(found if op.stop == "input" else found[1][op.stop])
    return np.concatenate([np.asarray(a).reshape(n, -1) for a in leaves], 1)


# --- one layer -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "layer"),
    [
        *product(METHODS, ["conv1", "add_1", "fc"]),
        *product(["lrp-zplus", "gradient"], ["conv1:relu", "pool", "mean"]),
        ("lrp-z", "mean"),
    ],
)
def test_the_matrix_of_a_layer(method, layer):
    oracle.assert_close(lrp.matrix(NET, X, method, layer=layer), expected(method)[layer])


@pytest.mark.parametrize(
    ("method", "rows"),
    [
        ("lrp-zplus", [[F(1, 3), F(2, 3), 0], [F(2, 5), 0, F(3, 5)]]),
        ("lrp-alpha2-beta1", [[F(2, 3), F(4, 3), -1], [F(4, 5), -1, F(6, 5)]]),
        ("lrp-alpha3-beta2", [[1, 2, -2], [F(6, 5), -2, F(9, 5)]]),
        ("lrp-z", [[F(-1, 1), -2, 4], [F(2, 3), F(-2, 3), 1]]),
        ("lrp-flat", [[F(1, 3)] * 3, [F(1, 3)] * 3]),
        ("lrp-wsquare", [[F(1, 11), F(1, 11), F(9, 11)], [F(4, 6), F(1, 6), F(1, 6)]]),
        ("gradient", [[1, 1, -3], [2, -1, 1]]),
        ("input-x-gradient", [[1, 2, -4], [2, -2, 3]]),
    ],
)
def test_a_dense_layer_worked_by_hand(method, rows):
    weights = np.array([[1, 1, -3], [2, -1, 1]], float)
    x = np.array([[1, 2, 3]], float)
    if method in ("lrp-z", "input-x-gradient"):  # contributions 1, 2, -4: their sum is -1
        x[0, 2] = F(4, 3)
        weights[1, 2] = F(9, 4)  # and 2, -2, 3: their sum is 3
    found = lrp.matrix(nets_chain.linear_chain(weights), x, method, layer="fc1")
    assert found.shape == (2, 3)
    np.testing.assert_allclose(found, np.array(rows, float), atol=FRACTION)


@pytest.mark.parametrize("layer", ["conv1", "add_1", "fc"])
def test_rows_of_zplus_sum_to_one(layer):
    z = np.asarray(lrp.matrix(NET, X, "lrp-alpha1-beta0", layer=layer))
    assert (z >= 0).all()
    reached = z.any(1)  # an output without a positive contribution has none to give
    assert reached.any()
    np.testing.assert_allclose(z.sum(1)[reached], 1, atol=SHARED)


@pytest.mark.parametrize("method", BIASED, ids=str)
def test_bias_modes_of_alpha_beta(method):
    mode = str(method).split("bias ")[1].strip(")")
    rule = partial(oracle.alpha_beta, alpha=2, beta=1, bias=mode)
    p, h = WEIGHTS["fc"], np.abs(np.random.default_rng(1).normal(size=(1, 3)))
    model = jax.tree_util.Partial(lambda p, h: h @ p["kernel"] + p["bias"], {**p})
    rows = np.stack([rule(oracle.affine(model, (3,)), h[0], e) for e in np.eye(4)])
    oracle.assert_close(lrp.chain(model, h, method).dense(), rows)


# --- chains --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("lrp-z", "lrp-epsilon")])
def test_a_chain_is_the_product_of_its_layers(method):
    downs, to_pool = nets_chain.residual_products(expected(method))
    op = lrp.chain(NET, X, method)
    assert op.shape == (4, 32) and op.out_shape == (1, 4) and op.in_shapes == (X.shape,)
    oracle.assert_close(op.dense(), downs["fc"])
    oracle.assert_close(lrp.chain(NET, X, method, stop="pool").dense(), to_pool)


BASELINES = 0.1 * np.random.default_rng(7).normal(size=(2, 4, 4, 2))
OTHERS = [
    ("input-x-gradient", None, "input"),
    ("input-x-gradient", "fc", "conv2"),  # beside which relevance passes
    ("deeplift-reveal-cancel", None, "input"),
    (lrp.methods.deeplift_rescale(baselines=BASELINES), "add_1", "conv1"),
    ("epsilon-plus-flat", None, "input"),
    (lrp.methods.deep_taylor(-4.0, 4.0), "pool", "input"),
    ("pattern-attribution", "fc", "conv1"),
]


@pytest.mark.parametrize(("method", "start", "stop"), OTHERS, ids=str)
def test_chains_against_vjp(method, start, stop):
    if method == "pattern-attribution":
        fitted = lrp.patterns.fit(NET, np.random.default_rng(0).normal(size=(8, 4, 4, 2)))
        method = lrp.methods.pattern_attribution(fitted)
    op = lrp.chain(NET, X, method, start=start, stop=stop)
    rows = by_vjp(NET, X, method, op)
    close(op.dense(), rows)
    close(op.matvec(np.arange(op.shape[1])), rows @ np.arange(op.shape[1]))


@pytest.mark.parametrize("method", ["lrp-zplus", "deeplift-rescale"])
def test_a_model_of_two_inputs(method):
    def forward(p, x):
        h = jax.nn.relu(x["a"] @ p["left"]["w"] + x["b"][0] @ p["right"]["w"])
        return h @ p["out"]["w"]

    draw = np.random.default_rng(2).normal
    sizes = {"left": (3, 5), "right": (4, 5), "out": (5, 2)}
    model = jax.tree_util.Partial(forward, {k: {"w": draw(size=s)} for k, s in sizes.items()})
    x = {"a": draw(size=(1, 3)), "b": [draw(size=(1, 4))]}
    op = lrp.chain(model, x, method)
    assert op.shape == (2, 7) and op.in_shapes == ((1, 3), (1, 4))
    close(op.dense(), by_vjp(model, x, method, op))
    close(op.matvec(np.arange(7)), op.dense() @ np.arange(7))


def test_an_nnx_module():
    layer = partial(nnx.Linear, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
    model = nnx.Sequential(layer(6, 5), nnx.relu, layer(5, 3))
    x = X[:, :3, 0].reshape(1, 6)
    op = lrp.chain(model, x, "lrp-epsilon")
    close(op.dense(), by_vjp(model, x, "lrp-epsilon", op))


@pytest.mark.parametrize("start", ["fc", "conv1"])  # fewer rows than columns, and more
def test_products_with_the_operator(start):
    z = nets_chain.residual_products(expected("lrp-alpha2-beta1"))[0][start]
    op = lrp.chain(NET, X, "lrp-alpha2-beta1", start=start)
    draw = np.random.default_rng(3).normal
    v, r, many, back = (draw(size=s) for s in (z.shape[1], len(z), (z.shape[1], 3), (len(z), 2)))
    oracle.assert_close(op.matvec(v), z @ v)
    oracle.assert_close(op.rmatvec(r), z.T @ r)
    oracle.assert_close(op.matmat(many), z @ many)
    oracle.assert_close(op.rmatmat(back), z.T @ back)
    oracle.assert_close(op.rmatvec(r.reshape(op.out_shape)), z.T @ r)
    scale = np.linalg.norm(z @ v) * np.linalg.norm(r)
    assert abs(op.matvec(v) @ r - op.rmatvec(r) @ v) < SAME * scale


def test_a_place_is_joined_to_itself_by_the_identity():
    op = lrp.chain(NET, X, "lrp-z", start="pool", stop="pool")
    np.testing.assert_array_equal(op.dense(), np.eye(12))


@pytest.mark.parametrize("start", ["fc", "conv1"])
@pytest.mark.parametrize("at_once", [1, 5])
def test_chunks_change_nothing(monkeypatch, start, at_once):
    whole = lrp.chain(NET, X, "lrp-zplus", start=start).dense()
    # conv1's output is the largest.
    monkeypatch.setattr(descent, "BYTES", at_once * 48 * 8)
    op = lrp.chain(NET, X, "lrp-zplus", start=start)
    assert op.at_once == at_once
    close(op.dense(), np.asarray(whole))


# --- links ---------------------------------------------------------------------------------------


def test_links_multiply_to_the_chain():
    method = "input-x-gradient"  # whose last link alone multiplies by the input
    value = lrp.methods.get(method)
    parts = nets_chain.links(one_example(NET, X, value), value, "fc", "input")
    places = ["fc", "mean", "add_1", "pool", "conv1", "input"]
    assert [(op.start, op.stop) for op in parts] == list(pairwise(places))
    whole = by_vjp(NET, X, method, lrp.chain(NET, X, method))
    close(np.linalg.multi_dot([op.dense() for op in parts]), whole)
    down = np.arange(4.0)
    for op in parts:
        down = op.rmatvec(down)
    close(down, np.arange(4.0) @ whole)


def test_links_do_not_end_inside_a_residual_block():
    z = lrp.methods.z()
    reading = one_example(NET, X, z)
    with pytest.raises(ValueError, match=r"passes the output of 'conv2'.*fc, mean, add_1, pool"):
        nets_chain.links(reading, z, "fc", "conv2")
    assert [op.stop for op in nets_chain.links(reading, z, "conv2", "input")] == [
        "pool",
        "conv1",
        "input",
    ]
    rescale = lrp.methods.deeplift_rescale()
    with pytest.raises(ValueError, match="multipliers"):
        nets_chain.links(one_example(NET, X, rescale), rescale, "fc", "input")


def test_scipy_takes_operators():
    upper = lrp.chain(NET, X, "lrp-zplus", stop="pool")
    lower = lrp.chain(NET, X, "lrp-zplus", start="pool")
    downs, to_pool = nets_chain.residual_products(expected("lrp-zplus"))
    both = aslinearoperator(upper) @ aslinearoperator(lower)
    oracle.assert_close(both @ np.eye(32), downs["fc"])
    oracle.assert_close(both.H @ np.eye(4), downs["fc"].T)
    values = np.sort(svds(aslinearoperator(upper), k=2, return_singular_vectors=False))[::-1]
    exact = np.linalg.svd(to_pool)[1][:2]
    np.testing.assert_allclose(values, exact, rtol=1e-8)  # svds stops at machine precision


# --- transformations and precision ---------------------------------------------------------------


def test_a_chain_is_compiled_and_mapped_like_a_function():
    op = lrp.chain(NET, X, "lrp-gamma")
    rows, columns = np.eye(4), np.eye(32)
    close(jax.jit(lambda op, r: op.rmatvec(r))(op, rows[1]), np.asarray(op.dense())[1])
    close(jax.vmap(op.rmatvec)(rows), np.asarray(op.dense()))
    close(jax.jit(jax.vmap(op.matvec))(columns).T, np.asarray(op.dense()))
    close(jax.jit(lambda x: lrp.chain(NET, x, "lrp-gamma").dense())(X), np.asarray(op.dense()))
    made = jax.jit(lambda x: lrp.chain(NET, x, "lrp-gamma"))(X)
    assert made.shape == op.shape and made.in_shapes == op.in_shapes
    close(made.dense(), np.asarray(op.dense()))


def test_one_operator_for_each_example_of_a_batch():
    xs = np.random.default_rng(1).normal(size=(3, *X.shape))
    make = lambda x: lrp.chain(NET, x, "lrp-epsilon", start="conv1:relu")
    r = np.arange(48.0)
    wanted = np.stack([make(x).rmatvec(r) for x in xs])
    close(jax.vmap(lambda x: make(x).rmatvec(r))(xs), wanted)
    close(jax.vmap(lambda op: op.rmatvec(r))(jax.vmap(make)(xs)), wanted)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_single_and_half_precision(dtype):
    draw = np.random.default_rng(4).normal
    kernels = [jnp.asarray(draw(size=s), dtype) for s in ((6, 9), (9, 4))]
    model, x = nets_chain.relu_chain(*kernels), jnp.asarray(draw(size=(1, 6)), dtype)
    op = lrp.chain(model, x, "lrp-alpha2-beta1")
    z = op.dense()
    assert z.dtype == op.dtype == op.matvec(np.ones(6)).dtype == "float32"
    h, rows = np.asarray(x, float)[0], np.eye(6)
    for kernel in kernels:  # half precision is replayed in single, so its weights are what counts
        layer = oracle.affine(lambda v, k=kernel: v @ np.asarray(k, float), h.shape)
        rule = partial(oracle.alpha_beta, layer, h, alpha=2, beta=1)
        rows = np.stack([rule(e) for e in np.eye(kernel.shape[1])]) @ rows
        h = np.maximum(layer.W @ h, 0)
    np.testing.assert_allclose(z, rows, atol=SINGLE * np.abs(rows).max())
    np.testing.assert_allclose(op.rmatvec(np.ones(4)), rows.sum(0), atol=SINGLE * rows.max())


# --- errors --------------------------------------------------------------------------------------

CLIPPED = lrp.methods.alpha_beta(1, 0, residual_clip=(0, 1000))
chain = partial(lrp.chain, NET, X)


@pytest.mark.parametrize(
    ("method", "culprit"),
    [
        ("guided-bp", r"guided at layer 'conv1:relu'"),
        ("deconv", r"deconv at layer 'conv1:relu'"),
        ("rect-grad", r"rect\(percentile=98\) at layer 'conv1:relu'"),
        (CLIPPED, r"clip=\(0, 1000\)\) at layer 'add_1'"),
    ],
)
def test_methods_that_are_not_linear(method, culprit):
    culprit = rf"not linear in relevance \(.*{culprit}\).*lrpjax\.vjp"
    with pytest.raises(ValueError, match=culprit):
        chain(method, stop="conv1" if method is CLIPPED else "input")
    with pytest.raises(ValueError, match=culprit):
        lrp.matrix(NET, X, method, layer="add_1" if method is CLIPPED else "conv1:relu")
    assert lrp.chain(NET, X, method, stop="mean").shape == (4, 3)  # which that rule is not in


def test_no_chain_is_made_of_other_places_batches_and_methods():
    with pytest.raises(ValueError, match=r"batch of one.*\(3, 4, 4, 2\)"):
        lrp.chain(NET, np.concatenate([X] * 3), "lrp-z")
    for place in ({"start": "conv9"}, {"stop": "conv9"}):
        with pytest.raises(ValueError, match=r"no layer 'conv9'.*conv1"):
            chain("lrp-z", **place)
    with pytest.raises(ValueError, match=r"no layer 'conv9'.*conv1"):
        lrp.matrix(NET, X, "lrp-z", layer="conv9")
    with pytest.raises(ValueError, match=r"at 'conv1' does not reach 'fc'"):
        chain("lrp-z", start="conv1", stop="fc")
    with pytest.raises(ValueError, match="not a chain of rules"):
        chain("integrated-gradients")
    with pytest.raises(ValueError, match="NaN or infinity in the input"):
        lrp.chain(NET, X * np.nan, "lrp-z")


def test_a_matrix_that_is_too_large():
    size = 48 * 32 * 8
    assert lrp.matrix(NET, X, "lrp-z", layer="conv1", memory_limit=size).nbytes == size
    message = r"48 x 32 and takes 12\.3 kB, more than the limit of 12\.3 kB: use lrpjax\.chain"
    with pytest.raises(ValueError, match=message):
        lrp.matrix(NET, X, "lrp-z", layer="conv1", memory_limit=size - 1)
    op = chain("lrp-z", start="conv1")
    with pytest.raises(ValueError, match=r"limit of 100 bytes.*or give a larger memory_limit"):
        op.dense(memory_limit=100)


def test_vectors_of_another_size_and_nan_are_refused():
    op = chain("lrp-z")
    for multiply, size in ((op.matvec, 32), (op.rmatvec, 4)):
        with pytest.raises(ValueError, match=rf"\(4, 32\): it takes {size} entries.*\(5, 1\)"):
            multiply(np.ones(5))
        for bad in (np.nan, np.inf):
            with pytest.raises(ValueError, match="NaN or infinity in the vectors"):
                multiply(np.full(size, bad))
    for multiply in (op.matmat, op.rmatmat):
        with pytest.raises(ValueError, match=r"k columns.*\(32, 4, 1\)"):
            multiply(np.ones((32, 4, 1)))


def test_complex_vectors_are_refused():
    with pytest.raises(TypeError, match="real numbers"):
        chain("lrp-z").matvec(np.ones(32) * 1j)


def test_matrices_are_made_together_where_they_are_asked_for_and_fit(monkeypatch):
    value = lrp.methods.z()
    way = descent.descent(one_example(NET, X, value), value, "fc", ["pool", "input"])
    made, dense = [], descent.ChainOperator.dense
    record = lambda op, **options: made.append(op.shape) or dense(op, **options)
    monkeypatch.setattr(descent.ChainOperator, "dense", record)
    assert way.dense([]) == [] and made == []
    pool, pixels = way.dense(["pool", "input"])
    assert len(made) == 1
    whole = way.to("input")
    (alone,) = way.dense(["input"], memory_limit=whole.nbytes)
    assert made[1:] == [whole.shape]
    oracle.assert_close(pixels, alone)
    oracle.assert_close(pool, dense(way.to("pool")))
