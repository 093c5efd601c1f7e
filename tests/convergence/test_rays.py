"""Widest rays, Birkhoff's coefficient and signs without the matrix, against brute force."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction as F
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import nets_chain, oracle, oracle_cone

import lrpjax as lrp
from lrpjax.convergence import rays
from lrpjax.convergence.signs import Undecided, signed_sums
from lrpjax.layers import blocks
from lrpjax.matrices import one_example

pytestmark = pytest.mark.usefixtures("quick_compile")

EXACT = 1e-10  # float64 angles of some degrees
SUMS = 1e-12  # float64: the same terms in another order


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def check_widest(sets, tolerance):
    found = rays.widest(jnp.asarray(sets))
    for k, own in enumerate(sets):
        expected = oracle_cone.widest(own)
        if np.isnan(expected):
            assert found.one_minus_cos[k] == rays.NO_ANGLE
            continue
        assert float(found.one_minus_cos[k]) == pytest.approx(expected, rel=tolerance)
        first, second = own[int(found.first[k])], own[int(found.second[k])]
        assert oracle_cone.one_minus_cos(first, second) == pytest.approx(expected, rel=tolerance)


# --- the widest pair -----------------------------------------------------------------------------


def test_the_widest_of_random_rays():
    sets = drawn(4, 9, 5)
    sets[1] = np.abs(sets[1])
    sets[2] *= 10.0 ** np.arange(-160, 200, 40)[:, None]  # squares vanish or overflow
    sets[3, 1:] = sets[3, :1] * np.arange(1, 9)[:, None]  # all of one direction, to rounding
    check_widest(sets[:3], EXACT)
    assert float(rays.widest(jnp.asarray(sets[3:])).one_minus_cos[0]) < 1e-30


@pytest.mark.parametrize(
    ("dtype", "size", "tolerance"),
    [
        # A unit vector's rounding is 1e-16 (6e-8 in float32), the distances are `size`.
        ("float64", 1e-10, 1e-5),
        ("float64", 1e-7, 1e-8),
        ("float32", 1e-3, 1e-3),
    ],
)
def test_rays_that_are_nearly_parallel(dtype, size, tolerance):
    base = np.abs(drawn(1, 1, 40)) + 1
    sets = (base * (1 + size * drawn(3, 8, 40, seed=1))).astype(dtype)
    check_widest(sets, tolerance)
    assert oracle_cone.widest(sets[0]) < 10 * size**2


def test_rays_of_zero_have_no_angle():
    sets = np.abs(drawn(4, 6, 3))
    sets[0, ::2] = 0
    sets[1, 1:] = 0
    sets[2] = 0
    check_widest(sets, EXACT)
    assert set(np.asarray(rays.widest(sets).first)[:1]) < {1, 3, 5}


@pytest.mark.parametrize("block", [1, 17, 40, 90, 17 * 17])
def test_blocks_change_nothing(monkeypatch, block):
    monkeypatch.setattr(rays, "_BLOCK", block)
    rays.widest.clear_cache()
    check_widest(drawn(2, 17, 4), EXACT)  # blocks of 1, 1, 2, 5 and 17 rays
    monkeypatch.undo()
    rays.widest.clear_cache()


def test_degrees_are_those_of_the_distance():
    assert rays.degrees([0, 0.5, 1, 2]) == pytest.approx([0, 60, 90, 180])
    assert rays.degrees(5e-21) == pytest.approx(np.degrees(1e-10), rel=1e-12)


# --- Birkhoff ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matrix", "ratio", "contraction"),
    [
        ([[2, 1], [1, 2]], 4, F(1, 3)),  # tanh(log(r) / 4) = (sqrt r - 1) / (sqrt r + 1)
        ([[1, 3], [3, 1]], 9, F(1, 2)),
        ([[9, 1], [4, 1]], F(9, 4), F(1, 5)),
        ([[1, 2, 3], [2, 4, 6]], 1, 0),  # rank 1
    ],
)
def test_the_projective_diameter_by_hand(matrix, ratio, contraction):
    found = float(rays.projective_diameter(jnp.array(matrix, float)))
    assert found == pytest.approx(np.log(float(ratio)), abs=SUMS)
    assert np.tanh(found / 4) == pytest.approx(float(contraction), abs=SUMS)


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (1, 3)])
def test_the_projective_diameter_against_loops(shape):
    matrix = np.exp(drawn(*shape))
    found = float(rays.projective_diameter(jnp.asarray(matrix)))
    assert found == pytest.approx(oracle_cone.projective_diameter(matrix), abs=SUMS)


def test_positive_matrices_contract_hilberts_metric():
    for seed in range(5):
        matrix = np.exp(drawn(5, 4, seed=seed) * (1 + seed) / 3)
        contraction = np.tanh(float(rays.projective_diameter(jnp.asarray(matrix))) / 4)
        u, v = np.exp(3 * drawn(2, 5000, 5, seed=seed + 10))
        v[:2500] = u[:2500] * np.exp(1e-3 * drawn(2500, 5))  # close pairs come near the bound
        before, after = oracle_cone.hilbert(u, v), oracle_cone.hilbert(u @ matrix, v @ matrix)
        assert (after <= contraction * before * (1 + EXACT) + SUMS).all()
        assert 0.3 * contraction < (after / before).max() < 1


# --- signs without the matrix --------------------------------------------------------------------

WEIGHTS = nets_chain.residual_weights()
NET = jax.tree_util.Partial(nets_chain.residual_net, WEIGHTS)
X = drawn(1, 4, 4, 2, seed=5)


def column_sums(z):
    return np.maximum(z, 0).sum(0), np.maximum(-z, 0).sum(0)


def check_exact(op, z):
    found = signed_sums(op.pull)
    for own, expected in zip(found, column_sums(z), strict=True):
        np.testing.assert_allclose(own, expected, atol=SUMS * np.abs(z).sum(0).max())


def check_bounds(op, z):
    """Both bound theirs, and their difference is exact."""
    plus, minus = (np.asarray(a) for a in signed_sums(op.pull))
    up, down = column_sums(z)
    room = SUMS * max(plus.max(), minus.max())
    assert (plus >= up - room).all() and (minus >= down - room).all()
    np.testing.assert_allclose(plus - minus, z.sum(0), atol=room)
    return minus


def test_the_sums_of_zplus_are_exact():
    z = nets_chain.residual_matrices(WEIGHTS, X, "lrp-zplus")
    downs, to_pool = nets_chain.residual_products(z)
    for start, stop, matrix in (
        ("fc", "input", downs["fc"]),
        ("fc", "pool", to_pool),
        ("add_1:relu", "input", downs["add_1"]),
    ):
        op = lrp.chain(NET, X, "lrp-zplus", start=start, stop=stop)
        check_exact(op, matrix)
        assert not np.asarray(signed_sums(op.pull).minus).any()  # not even rounding


@pytest.mark.parametrize("method", ["lrp-alpha2-beta1", "lrp-gamma", "gradient"])
def test_the_sums_of_single_links_are_exact(method):
    z = nets_chain.residual_matrices(WEIGHTS, X, method)
    value = lrp.methods.get(method)
    found = {
        op.start: op for op in nets_chain.links(one_example(NET, X, value), value, "fc", "input")
    }
    assert list(found) == ["fc", "mean", "add_1", "pool", "conv1"]
    check_exact(found["fc"], z["fc"])
    check_exact(found["pool"], z["pool"] @ z["conv1:relu"])
    check_exact(found["conv1"], z["conv1"])
    block = z["add_1"][:, :12] + z["add_1"][:, 12:] @ z["conv2"]
    check_bounds(found["add_1"], block)
    check_bounds(lrp.chain(NET, X, value), nets_chain.residual_products(z)[0]["fc"])


@pytest.mark.parametrize("method", ["lrp-zplus", "lrp-alpha2-beta1", "lrp-wsquare"])
def test_matrices_that_are_read_in_blocks(monkeypatch, method):
    rule = {
        "lrp-zplus": oracle.zplus,
        "lrp-alpha2-beta1": nets_chain.METHODS["lrp-alpha2-beta1"][0],
        "lrp-wsquare": oracle.wsquare,
    }[method]
    for name, least in {"LARGE": 80, "BLOCK": 12, "ROWS": 1}.items():
        monkeypatch.setattr(blocks, name, least)
    kernels, x = (np.eye(13), drawn(13, 12)), np.abs(drawn(1, 13, seed=2))
    op = lrp.chain(nets_chain.relu_chain(*kernels), x, method, stop="fc1")
    assert " scan[" in str(op.pull.func.jaxpr)  # of thirteen blocks of one input each
    layer = oracle.affine(lambda v: v @ kernels[1], (13,))
    z = np.stack([rule(layer, x[0], e) for e in np.eye(12)])
    oracle.assert_close(op.dense(), z)
    check_exact(op, z)


@pytest.mark.parametrize("signs", [-1, 1])
@pytest.mark.parametrize(
    "method",
    [
        *nets_chain.METHODS,
        *("input-x-gradient", "lrp-wsquare", "epsilon-plus-flat", "deeplift-rescale"),
        *("deeplift-reveal-cancel", lrp.methods.deep_taylor(-9.0, 9.0)),
    ],
    ids=str,
)
def test_no_matrix_is_wrongly_called_non_negative(method, signs):
    """signs: of the weights, both or only positive, where all of the methods are."""
    proved = 0
    for seed in range(3):
        kernels = [0.5 + drawn(n, m, seed=seed + n) for n, m in pairwise((5, 6, 4, 3))]
        x = np.abs(drawn(1, 5, seed=seed))
        if signs > 0:
            kernels = [np.abs(w) for w in kernels]
        model = nets_chain.relu_chain(*kernels)
        op = lrp.chain(model, x, method)
        z = np.asarray(op.dense())
        assert z.any()
        if not check_bounds(op, z).any():
            proved += 1
            assert z.min() >= 0
    # Reveal-cancel subtracts one part from another: its bounds are wide.
    assert proved == 3 or (signs < 0 and method != "lrp-zplus") or "reveal" in str(method)


def test_what_cannot_be_followed_is_not_decided():
    op = lrp.chain(nets_chain.relu_chain(drawn(3, 3)), np.ones((1, 3)), "lrp-z")
    squared = jax.make_jaxpr(lambda r: [r * r])(np.ones((1, 3)))
    replacement = replace(op.pull.func, jaxpr=squared.jaxpr)
    changed = replace(op, pull=jax.tree_util.Partial(replacement, squared.consts))
    with pytest.raises(Undecided, match="mul"):
        signed_sums(changed.pull)
