"""Singular values and Lyapunov exponents against numpy, and against chains with known values."""

from __future__ import annotations

from functools import partial
from itertools import combinations, pairwise

import jax
import numpy as np
import pytest
from helpers import nets_chain, oracle

import lrpjax as lrp
from lrpjax.convergence import spectrum

pytestmark = pytest.mark.usefixtures("quick_compile")

PROMISED = 1e-6  # what the iteration stops at, relative
LOOKED = 2 * 4  # products that look for another copy of a value
SETTLED = 1e-4  # what a logarithm may still change by from one sweep to the next
DENSE = 1e-10  # float64 singular values, relative to the largest
KEY = jax.random.key(0)
ONE = partial(np.ones, dtype=float)

singular_values = partial(lrp.convergence.singular_values, key=KEY)
lyapunov = partial(lrp.convergence.lyapunov, key=KEY)


def orthogonal(size, seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


def with_values(values, shape, seed=0):
    """A matrix of these singular values."""
    n = len(values)
    u, v = orthogonal(shape[0], seed)[:, :n], orthogonal(shape[1], seed + 1)[:, :n]
    return u * values @ v.T


def aligned_chain(sizes, values):
    """Matrices Q_l diag(s_l) Q_{l-1}^T, fc1's first: the product has the products of the values."""
    bases = [orthogonal(n, i) for i, n in enumerate(sizes)]
    k = len(values[0])
    return [
        upper[:, :k] * s @ lower[:, :k].T
        for s, lower, upper in zip(values, bases[:-1], bases[1:], strict=True)
    ]


def compound(matrix, k):
    """All k x k minors: the compound of a product is the product of the compounds (Cauchy-Binet),
    and its largest singular value is the product of the matrix's k largest."""
    rows, columns = (np.array(list(combinations(range(n), k))) for n in matrix.shape)
    return np.linalg.det(matrix[rows[:, None, :, None], columns[None, :, None, :]])


def log_singular_values(matrices, k):
    """Of the product, fc1's matrix first, beyond the range and the precision of float64."""
    sums = [0.0]
    for order in range(1, k + 1):
        product, log = np.eye(1), 0.0
        for i, matrix in enumerate(matrices):
            product = compound(matrix, order) @ product if i else compound(matrix, order)
            size = np.abs(product).max()
            product, log = product / size, log + np.log(size)
        sums.append(log + np.log(np.linalg.norm(product, 2)))
    return np.diff(sums)


def test_the_compounds_are_those_of_numpy():
    a, b = np.random.default_rng(0).normal(size=(2, 4, 4))
    expected = np.log(np.linalg.svd(b @ a)[1])
    np.testing.assert_allclose(log_singular_values([a, b], 4), expected, atol=DENSE)


# --- singular values -----------------------------------------------------------------------------


def one_row(matrix, k=5, dtype="float64", **options):
    model = nets_chain.linear_chain(matrix.astype(dtype))
    (row,) = singular_values(
        model, ONE((1, matrix.shape[1])).astype(dtype), "gradient", k=k, **options
    ).rows
    return row


@pytest.mark.parametrize("method", ["lrp-zplus", "gradient"])
def test_small_matrices_against_numpy(method):
    weights = nets_chain.residual_weights()
    model = jax.tree_util.Partial(nets_chain.residual_net, weights)
    x = np.random.default_rng(5).normal(size=(2, 4, 4, 2))
    rows = singular_values(model, x, method, k=3).rows
    places = ["mean", "add_1", "conv2", "pool", "conv1", "input"]
    assert [(r["layer"], r["image"]) for r in rows] == [(p, i) for i in (0, 1) for p in places]
    for i in (0, 1):
        z = nets_chain.residual_matrices(weights, x[i : i + 1], method)
        downs, to_pool = nets_chain.residual_products(z)
        for place, matrix in (("input", downs["fc"]), ("pool", to_pool)):
            row = rows[6 * i + places.index(place)]
            s = np.linalg.svd(matrix, compute_uv=False)
            np.testing.assert_allclose(row["values"], s[:3], atol=DENSE * s[0])
            assert row["ratio"] == pytest.approx(s[0] / s[1], rel=DENSE)
            assert row["resolved"] and row["products"] == 4  # its shorter side
            assert (row["method"], row["start"]) == (method, "fc")


@pytest.mark.parametrize("shape", [(70, 90), (90, 70)])
def test_large_matrices_are_not_written_down(monkeypatch, shape):
    monkeypatch.setattr(spectrum, "_of_dense", None)
    values = 3 * 0.7 ** np.arange(70)
    row = one_row(with_values(values, shape))
    np.testing.assert_allclose(row["values"], values[:5], rtol=PROMISED)
    assert row["ratio"] == pytest.approx(1 / 0.7, rel=PROMISED)
    assert row["products"] == 2 * 25 + LOOKED


def test_what_does_not_converge_is_made_dense(monkeypatch):
    matrix = with_values(1 + np.arange(40) ** 0.5, (40, 40))
    monkeypatch.setattr(spectrum, "_TOLERANCE", 0.0)
    row = one_row(matrix, k=3)
    np.testing.assert_allclose(row["values"], 1 + np.arange(39, 36, -1) ** 0.5, rtol=PROMISED)
    assert row["products"] == 2 * 15 + 2 * 30 + 40

    def too_large(op, k):
        raise ValueError("takes more")

    monkeypatch.setattr(spectrum, "_of_dense", too_large)
    with pytest.raises(ValueError, match=r"'fc1' to 'input' did not converge.*lyapunov"):
        one_row(matrix, k=3)


def test_which_side_of_twelve_k_is_dense():
    matrix = with_values(0.5 ** np.arange(30), (30, 40))
    assert one_row(matrix, k=3)["products"] == 30
    row = one_row(matrix, k=2)
    assert row["products"] == 2 * 10 + LOOKED
    np.testing.assert_allclose(row["values"], [1, 0.5], rtol=PROMISED)


def test_a_chain_of_large_layers():
    decay = 0.3 ** np.arange(30)
    matrices = [with_values(decay, (40, 30)), with_values(decay, (30, 40), 7)]
    model, x = nets_chain.linear_chain(*matrices), ONE((1, 30))
    rows = singular_values(model, x, "gradient", k=2).rows
    assert [row["layer"] for row in rows] == ["fc1", "input"]
    for row, matrix in zip(rows, [matrices[1], matrices[1] @ matrices[0]], strict=True):
        np.testing.assert_allclose(row["values"], np.linalg.svd(matrix)[1][:2], rtol=PROMISED)
        assert row["products"] == 2 * 10 + LOOKED
    (row,) = singular_values(model, x, "gradient", start="fc1", layers=["input"], k=1).rows
    assert row["values"] == pytest.approx([1], rel=PROMISED) and row["ratio"] is None


@pytest.mark.parametrize("size", [6, 40])  # dense, and matrix-free
@pytest.mark.parametrize("name", ["identity", "permutation", "orthogonal"])
def test_all_values_are_one(size, name):
    matrix = {
        "identity": np.eye(size),
        "permutation": np.random.default_rng(0).permutation(np.eye(size)),
        "orthogonal": orthogonal(size, 0),
    }[name]
    row = one_row(matrix, k=3)
    np.testing.assert_allclose(row["values"], 1, rtol=PROMISED)
    assert row["ratio"] == pytest.approx(1, rel=PROMISED) and row["resolved"]


@pytest.mark.parametrize("size", [6, 40])
def test_rank_one_is_not_resolved(size):
    row = one_row(with_values([5.0], (size, size)), k=2)
    assert row["values"][0] == pytest.approx(5, rel=PROMISED)
    assert row["values"][1] < 1e-14 and not row["resolved"]


@pytest.mark.parametrize("size", [6, 40])
def test_zero_has_no_ratio(size):
    row = one_row(np.zeros((size, size)), k=2)
    assert (row["values"], row["ratio"], row["resolved"]) == ([0, 0], None, False)


def test_a_single_row_has_one_value_and_no_ratio():
    row = one_row(np.array([[3.0, 4.0]]))
    assert row["values"] == pytest.approx([5]) and row["ratio"] is None and not row["resolved"]


def test_a_ratio_beyond_the_precision_is_not_resolved():
    for second, resolved in ((1e-3, True), (1e-9, False)):
        row = one_row(with_values([1, second], (9, 9)), k=2, dtype="float32")
        assert row["resolved"] == resolved
        if resolved:  # float32 moves a value by 1e-7
            assert row["ratio"] == pytest.approx(1e3, rel=1e-3)
    row = one_row(with_values([1, 1e-9], (9, 9)), k=2)
    assert row["resolved"] and row["ratio"] == pytest.approx(1e9, rel=1e-5)


def test_equal_values_are_all_found():
    rest = 3 * np.random.default_rng(0).random(96)
    row = one_row(with_values(np.array([10, 10, 9, 8, *rest]), (100, 100)), k=2)
    np.testing.assert_allclose(row["values"], [10, 10], rtol=PROMISED)


# --- Lyapunov exponents --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "second", "tolerance"), [("float64", 5, 1e-8), ("float32", 3, 0.01)]
)
def test_a_ratio_of_a_googol(dtype, second, tolerance):
    """A link's rounding is 10^second eps of its second value; twenty links add up."""
    ratios = second + np.random.default_rng(0).uniform(-0.5, 0.5, size=20)
    ratios += second - ratios.mean()
    logs = np.stack([0 * ratios + 0.3, -ratios, -ratios - 1], 1) * np.log(10)
    sizes = [9, *([6, 8] * 10)]
    matrices = [m.astype(dtype) for m in aligned_chain(sizes, np.exp(logs))]
    x = ONE((1, 9)).astype(dtype)
    rows = lyapunov(nets_chain.linear_chain(*matrices), x, "gradient").rows
    assert len(rows) == 20
    assert rows[-1]["total_gap"] == pytest.approx((20 * second + 6) * np.log(10), abs=tolerance)
    for row, own, total in zip(rows, logs[::-1], logs[::-1].cumsum(0), strict=True):
        np.testing.assert_allclose(row["growth"], own[:2], atol=tolerance)
        np.testing.assert_allclose(row["total"], total[:2], atol=tolerance)
        assert row["resolved"] == [True, True]


@pytest.mark.parametrize("k", [1, 3])
def test_layers_that_are_not_aligned(k):
    draw = np.random.default_rng(2)
    sizes = [5, 6, 7, 5, 6, 5, 7, 6, 5]
    # Positive ones, whose first direction leads, and the ratio is near 1e8.
    matrices = [draw.uniform(0.2, 1, size=s[::-1]) for s in pairwise(sizes)]
    rows = lyapunov(nets_chain.linear_chain(*matrices), ONE((1, 5)), "gradient", k=k).rows
    expected = log_singular_values(matrices, k)
    np.testing.assert_allclose(rows[-1]["total"], expected, atol=SETTLED)
    assert k == 1 or rows[-1]["total_gap"] > 10
    assert rows[-1]["resolved"] == [True] * k


def test_zplus_on_a_deep_network_beyond_float64():
    draw = np.random.default_rng(3)
    kernels = [draw.uniform(0.9, 1.1, size=(6, 6)) for _ in range(11)]
    x = draw.uniform(size=(1, 6))
    h, matrices = x[0], []
    for kernel in kernels:
        layer = oracle.affine(lambda v, w=kernel: v @ w, (6,))
        matrices.append(np.stack([oracle.zplus(layer, h, e) for e in np.eye(6)]))
        h = np.maximum(layer.W @ h, 0)
    rows = lyapunov(nets_chain.relu_chain(*kernels), x, "lrp-zplus").rows
    expected = log_singular_values(matrices, 2)
    assert expected[0] - expected[1] > 37  # a ratio beyond 1e16
    np.testing.assert_allclose(rows[-1]["total"], expected, atol=SETTLED)


@pytest.mark.slow
def test_growth_adds_up_to_the_values_of_a_residual_network():
    weights = nets_chain.residual_weights()
    model = jax.tree_util.Partial(nets_chain.residual_net, weights)
    x = np.random.default_rng(5).normal(size=(2, 4, 4, 2))
    result = lyapunov(model, x, "lrp-alpha2-beta1", k=3)
    places = ["mean", "add_1", "pool", "conv1", "input"]
    assert [(r["layer"], r["image"]) for r in result.rows] == [
        (p, i) for i in (0, 1) for p in places
    ]
    for i in (0, 1):
        rows = [row for row in result.rows if row["image"] == i]
        growth = np.array([row["growth"] for row in rows])
        np.testing.assert_allclose([r["total"] for r in rows], growth.cumsum(0), atol=DENSE)
        for row in rows:
            assert row["gap"] == pytest.approx(row["growth"][0] - row["growth"][1])
            assert row["total_gap"] == pytest.approx(row["total"][0] - row["total"][1])
        z = nets_chain.residual_matrices(weights, x[i : i + 1], "lrp-alpha2-beta1")
        values = np.linalg.svd(nets_chain.residual_products(z)[0]["fc"])[1]
        np.testing.assert_allclose(rows[-1]["total"], np.log(values[:3]), atol=SETTLED)
    part = lyapunov(model, x[:1], "lrp-alpha2-beta1", start="add_1", stop="conv1").rows
    assert [r["layer"] for r in part] == ["pool", "conv1"]


def test_no_more_directions_than_the_narrowest_layer_has():
    draw = np.random.default_rng(0).normal
    matrices = [draw(size=s) for s in ((3, 6), (5, 3))]
    rows = lyapunov(nets_chain.linear_chain(*matrices), ONE((1, 6)), "gradient", k=9).rows
    values = np.linalg.svd(matrices[1] @ matrices[0])[1][:3]
    np.testing.assert_allclose(rows[-1]["total"], np.log(values), atol=SETTLED)
    assert all(len(row["growth"]) == len(row["resolved"]) == 3 for row in rows)
    (row,) = lyapunov(nets_chain.linear_chain(ONE((1, 4))), ONE((1, 4)), "gradient").rows
    assert row["growth"] == pytest.approx([np.log(2)]) and row["gap"] is row["total_gap"] is None


def test_a_link_of_zeros_is_not_resolved():
    matrices = [np.eye(4), np.zeros((4, 4)), np.eye(4)]
    rows = lyapunov(nets_chain.linear_chain(*matrices), ONE((1, 4)), "gradient").rows
    assert [row["resolved"] for row in rows] == [[True] * 2, [False] * 2, [False] * 2]
    least = np.log(np.finfo(float).tiny)  # what a growth of 0 counts as
    np.testing.assert_allclose([row["total"] for row in rows], [[0, 0], *[[least] * 2] * 2])


@pytest.mark.parametrize("values", [[5.0], [1.0, 1e-20]])
def test_a_link_of_rank_one_is_not_resolved(values):
    draw = np.random.default_rng(0).normal
    one = with_values(values, (12, 12))
    for place in range(3):
        matrices = [draw(size=(12, 12)), draw(size=(12, 12))]
        matrices.insert(place, one)
        rows = lyapunov(nets_chain.linear_chain(*matrices), ONE((1, 12)), "gradient").rows
        assert rows[-1]["resolved"] == [True, False]


def test_a_link_of_rank_one_keeps_the_first_direction():
    draw = np.random.default_rng(0).normal
    matrices = [draw(size=(12, 12)), with_values([5.0], (12, 12)), draw(size=(12, 12))]
    rows = lyapunov(nets_chain.linear_chain(*matrices), ONE((1, 12)), "gradient").rows
    first = np.linalg.svd(matrices[2] @ matrices[1] @ matrices[0])[1][0]
    assert rows[-1]["total"][0] == pytest.approx(np.log(first), abs=SETTLED)
    assert rows[-1]["total_gap"] > 30  # what is left of the second is rounding


# --- results and errors --------------------------------------------------------------------------


def test_results_are_saved_read_and_joined(tmp_path):
    model, x = nets_chain.linear_chain(np.eye(4), np.diag([4.0, 2, 1, 0.5])), ONE((1, 4))
    for made, kind in ((singular_values, "SingularValues"), (lyapunov, "Lyapunov")):
        result = made(model, x, "gradient", k=2)
        result.save(tmp_path / "r.json")
        assert getattr(lrp.convergence, kind).load(tmp_path / "r.json") == result
        assert (result + result).rows == result.rows * 2
        assert result.settings["k"] == 2 and result.settings["images"] == 1


def test_a_spectrum_needs_a_direction_a_linear_method_and_a_link():
    model, x = nets_chain.relu_chain(np.eye(4), np.eye(4)), ONE((1, 4))
    for measure in (singular_values, lyapunov):
        with pytest.raises(ValueError, match="k must be at least 1, got 0"):
            measure(model, x, "gradient", k=0)
        with pytest.raises(ValueError, match=r"guided-bp is not linear.*layer 'fc1:relu'"):
            measure(model, x, "guided-bp")
        with pytest.raises(ValueError, match="no layer 'fc9'"):
            measure(model, x, "gradient", start="fc9")
    with pytest.raises(ValueError, match="'fc1' and 'fc1' there is nothing to multiply"):
        lyapunov(model, x, "gradient", start="fc1", stop="fc1")
    assert singular_values(model, x, "deeplift-rescale").rows[-1]["values"] == pytest.approx(
        [1] * 4
    )
    with pytest.raises(ValueError, match="propagates multipliers"):
        lyapunov(model, x, "deeplift-rescale")
    net = jax.tree_util.Partial(nets_chain.residual_net, nets_chain.residual_weights())
    with pytest.raises(ValueError, match=r"passes the output of 'conv2'.*add_1, pool"):
        lyapunov(net, ONE((1, 4, 4, 2)), "gradient", stop="conv2")
