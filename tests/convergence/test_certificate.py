"""The certificate against brute force: no relevance is farther apart than it says, one pair is."""

from __future__ import annotations

import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import nets_chain, oracle_cone
from jax import lax

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

EXACT = 1e-9  # float64 angles of some degrees
TWO_DIGITS = 0.06  # of numbers that are printed with two

X = np.random.default_rng(5).normal(size=(1, 4, 4, 2))
WEIGHTS = nets_chain.residual_weights()
NET = jax.tree_util.Partial(nets_chain.residual_net, WEIGHTS)
KEY = jax.random.key(0)
certificate = partial(lrp.convergence.certificate, key=KEY)
of_net = cache(partial(certificate, NET, X))


@cache
def whole_matrix(start, method="lrp-zplus"):
    z = nets_chain.residual_matrices(WEIGHTS, X, method)
    return nets_chain.residual_products(z)[0][start]


def number(name, shape):
    """Which entry of an array (1, *shape) a name such as conv1[0,2,1] stands for."""
    place = [int(i) for i in name[name.index("[") + 1 : -1].split(",")]
    return int(np.ravel_multi_index(place, shape))


def of_positive_layers(kernels, h):
    """Z+ of dense layers whose contributions are all positive: W_ij x_j / z_i, fc1's first."""
    matrices = []
    for kernel in kernels:
        matrices.append(kernel.T * h / (h @ kernel)[:, None])
        h = h @ kernel
    return matrices


def non_negative(n, pairs=10_000, seed=0):
    """Pairs of relevance (2, pairs, n): dense, and with many zeros."""
    rng = np.random.default_rng(seed)
    drawn = rng.exponential(size=(2, pairs, n)) ** rng.integers(1, 6, size=(2, pairs, 1))
    return drawn * (rng.random((2, pairs, n)) < rng.random((2, pairs, 1)))


def of_layer(kernel, method="lrp-zplus"):
    """Of one dense layer of six inputs and four outputs: all tests share what it compiles to."""
    assert kernel.shape == (6, 4)
    return certificate(nets_chain.relu_chain(kernel), np.ones((1, 6)), method)


def by_place(found):
    return {(row["start"], row["layer"]): row for row in found.links}


# --- the angles ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("start", ["pool", "conv1"])
def test_no_pair_is_farther_apart_and_one_is_as_far(start):
    z = whole_matrix(start)
    n, shape = len(z), {"pool": (2, 2, 3), "conv1": (4, 4, 3)}[start]
    found = of_net("lrp-zplus", start=start)
    assert (found.map["method"], found.map["start"], found.map["layer"]) == (
        "lrp-zplus", start, "input",
    )  # fmt: skip
    assert found.map["exact"] and found.map["beyond"] is None
    assert found.map["units"] == z.any(1).sum()

    # Over the whole map.
    u, v = non_negative(n) @ z
    assert oracle_cone.many(u, v).max() <= found.map["one_minus_cos"] * (1 + EXACT)
    assert found.map["one_minus_cos"] == pytest.approx(oracle_cone.widest(z), rel=EXACT)
    first, second = (z[number(name, shape)] for name in found.map["pair"])
    apart = oracle_cone.one_minus_cos(first, second)
    assert found.map["one_minus_cos"] == pytest.approx(apart, rel=EXACT)
    assert found.map["angle"] == pytest.approx(oracle_cone.degrees(apart), rel=EXACT)

    # At each location.
    rays, local = z.reshape(n, 16, 2), found.location
    widest = np.array([oracle_cone.widest(rays[:, p]) for p in range(16)])
    assert local["places"] == (~np.isnan(widest)).sum()
    angles = oracle_cone.degrees(widest[~np.isnan(widest)])
    for percent, angle in local["quantiles"].items():
        assert angle == pytest.approx(np.percentile(angles, float(percent)), rel=EXACT)
    assert local["angle"] == pytest.approx(angles.max(), rel=EXACT)
    worst = np.ravel_multi_index(local["place"], (4, 4))
    assert worst == np.nanargmax(widest)
    first, second = (rays[number(name, shape), worst] for name in local["pair"])
    apart = oracle_cone.one_minus_cos(first, second)
    assert local["one_minus_cos"] == pytest.approx(apart, rel=EXACT)
    for p in np.flatnonzero(~np.isnan(widest)):
        u, v = non_negative(n, seed=p) @ rays[:, p]
        far = oracle_cone.many(u, v)
        assert (far <= widest[p] * (1 + EXACT) + 1e-15).all()
        assert (far <= local["one_minus_cos"] * (1 + EXACT)).all()


@pytest.mark.slow
def test_an_angle_that_cosines_do_not_show():
    rng = np.random.default_rng(0)
    kernels = [rng.uniform(0.999, 1.001, size=s) for s in ((4, 6), (6, 3))]
    found = certificate(nets_chain.relu_chain(*kernels), np.ones((1, 4)), "lrp-zplus")
    z = np.linalg.multi_dot(of_positive_layers(kernels, np.ones(4))[::-1])
    exact = oracle_cone.widest(z)
    assert exact < 1e-12
    assert found.map["one_minus_cos"] == pytest.approx(exact, rel=1e-6)
    assert found.location["place"] == [] and found.location["places"] == 1
    assert found.map["gaussian_share"] == pytest.approx(found.location["gaussian_share"])


def test_gaussian_relevance_of_one_direction_is_inside():
    one = np.outer(np.arange(1.0, 7), np.arange(1.0, 5))  # every map is a multiple of one
    found = of_layer(one)
    assert found.map["angle"] < 1e-5
    wide = of_net("lrp-zplus", start="conv1")
    assert wide.map["angle"] == pytest.approx(90)
    assert wide.map["gaussian_share"] == 1  # no two lines are farther apart than 90 degrees


@pytest.mark.parametrize("units", [3, 20])
def test_a_sample_of_units(units):
    exact = of_net("lrp-zplus", start="conv1")
    found = certificate(NET, X, "lrp-zplus", start="conv1", memory_limit=units * 32 * 8 + 7)
    assert exact.map["exact"] and not found.map["exact"] and not found.location["exact"]
    own = found.map["units"]
    assert 2 <= own <= units
    # The chance that none of own // 2 pairs is among the share `beyond` is 1 %.
    assert (1 - found.map["beyond"]) ** (own // 2) == pytest.approx(0.01)
    for name in ("map", "location"):
        assert getattr(found, name)["angle"] <= getattr(exact, name)["angle"] * (1 + EXACT)
    assert f"of {own} units drawn at random" in found.sentence and "99 %" in found.sentence
    assert "drawn at random" not in exact.sentence


# --- what theorem 1 leaves out -------------------------------------------------------------------


def test_two_disjoint_branches_are_orthogonal():
    branches = np.kron(np.eye(2), np.ones((3, 2)))
    rng = np.random.default_rng(0)
    found = of_layer(branches * rng.uniform(1, 2, (6, 4)))
    (row,) = found.links
    a, b = re.match(r"fc1\[(\d)\] and fc1\[(\d)\]$", row["orthogonal"]).groups()
    assert int(a) // 2 != int(b) // 2
    assert found.map["angle"] == pytest.approx(90, abs=1e-6)
    assert row["birkhoff"] == 1 and row["overlap"] == pytest.approx(1 / 3)
    assert "within 90 degrees" in found.sentence
    assert row["orthogonal"] in str(found)


@pytest.mark.slow
def test_pointwise_convolutions_converge_at_each_location_only():
    rng = np.random.default_rng(1)
    kernels = [rng.uniform(0.5, 1.5, size=(3, 3)) for _ in range(2)]

    def forward(p, x):
        for i in range(2):
            numbers = ("NHWC", "HWIO", "NHWC")
            x = lax.conv_general_dilated(x, p[f"c{i}"], (1, 1), "SAME", dimension_numbers=numbers)
            x = jax.nn.relu(x)
        return x

    model = jax.tree_util.Partial(forward, {f"c{i}": w[None, None] for i, w in enumerate(kernels)})
    found = certificate(model, np.ones((1, 2, 3, 3)), "lrp-zplus", start="c1")
    assert found.map["angle"] == pytest.approx(90, abs=1e-6) and found.map["units"] == 18
    z = np.linalg.multi_dot(of_positive_layers(kernels, np.ones(3))[::-1])
    local = float(oracle_cone.degrees(oracle_cone.widest(z)))
    assert found.location["quantiles"]["5"] == pytest.approx(local, rel=1e-5)
    assert found.location["angle"] == pytest.approx(local, rel=1e-5) and local < 10
    assert found.location["places"] == 6
    assert all(row["orthogonal"] for row in found.links)


def test_a_unit_without_a_positive_contribution():
    kernel = np.random.default_rng(2).uniform(0.5, 1, size=(6, 4))
    kernel[:, 2] *= -1
    found = of_layer(kernel)
    (row,) = found.links
    assert (row["zero_columns"], row["zero_units"]) == (1, ["fc1[2]"])
    assert found.map["units"] == 3 and found.map["exact"]
    assert row["birkhoff"] < 1 and row["overlap"] == 1 and row["orthogonal"] is None
    assert "1 (fc1[2], ...)" in str(found)


def test_birkhoffs_coefficient_of_each_link():
    rng = np.random.default_rng(3)
    kernels, x = [rng.uniform(0.2, 2, size=s) for s in ((4, 6), (6, 3))], np.ones((1, 4))
    links = by_place(certificate(nets_chain.relu_chain(*kernels), x, "lrp-zplus"))
    lower, upper = of_positive_layers(kernels, np.ones(4))
    expected = {
        ("fc2", "fc1"): upper,
        ("fc1", "input"): lower,
        ("fc2", "input"): upper @ lower,
    }
    assert list(links) == list(expected)
    for place, z in expected.items():
        coefficient = np.tanh(oracle_cone.projective_diameter(z) / 4)
        assert links[place]["birkhoff"] == pytest.approx(coefficient, rel=1e-7)
        assert links[place]["non_negative"] == "yes" and links[place]["negative"] is None
    product = links["fc2", "fc1"]["birkhoff"] * links["fc1", "input"]["birkhoff"]
    assert links["fc2", "input"]["birkhoff"] <= product


def test_a_negative_entry_is_named():
    links = by_place(of_net("lrp-alpha2-beta1", start="pool"))
    assert list(links) == [("pool", "conv1"), ("conv1", "input"), ("pool", "input")]
    assert links["pool", "conv1"]["non_negative"] == "yes"
    for start, shape in (("pool", (2, 2, 3)), ("conv1", (4, 4, 3))):
        row, z = links[start, "input"], whole_matrix(start, "lrp-alpha2-beta1")
        assert row["non_negative"] == "no" and row["birkhoff"] is None
        value, sender, receiver = re.match(r"(\S+) from (\S+) to (\S+)$", row["negative"]).groups()
        assert sender.startswith(start) and receiver.startswith("input")
        entry = z[number(sender, shape), number(receiver, (4, 4, 2))]
        assert entry < 0 and float(value) == pytest.approx(entry, rel=TWO_DIGITS)


def test_the_gradient_has_no_bound():
    z = np.random.default_rng(4).normal(size=(4, 6))
    found = of_layer(z.T, "gradient")
    apart = oracle_cone.widest(z)
    assert apart > 1 and found.map["one_minus_cos"] == pytest.approx(apart, rel=EXACT)
    assert not found.map["exact"]
    a, b = found.map["pair"]
    angle = f"{oracle_cone.degrees(apart):.0f} degrees apart"
    assert found.sentence.startswith(f"There is no bound over the whole map: what {a} and {b} send")
    assert angle in found.sentence and "Whatever" not in found.sentence
    u, v = non_negative(4) @ z
    # Nor would it bound anything: combinations are farther apart than any two of the rays.
    rays = np.array([[1, 0.2], [-1, 0.2], [0, -1]])
    assert oracle_cone.many(np.array([[0, 0.4]]), rays[2:]) > oracle_cone.widest(rays)
    assert oracle_cone.many(u, v).max() <= 2


def test_overlap_is_of_pairs_of_different_units():
    found = of_layer(np.eye(6, 4))
    assert found.links[0]["overlap"] == 0


def test_a_place_beside_the_chain_has_no_links():
    found = certificate(NET, X, "lrp-zplus", start="add_1", stop="conv2")
    (row,) = found.links
    assert (row["start"], row["layer"], row["non_negative"]) == ("add_1", "conv2", "yes")
    assert found.map["layer"] == "conv2" and found.location["places"] <= 4


# --- results and errors --------------------------------------------------------------------------


def test_a_certificate_is_saved_and_read_again(tmp_path):
    found = of_net("lrp-alpha2-beta1", start="pool")
    found.save(tmp_path / "c.json")
    again = lrp.convergence.Certificate.load(tmp_path / "c.json")
    assert again == found and again.sentence == found.sentence and str(again) == str(found)
    assert found.settings == {"vectors": 40, "key": np.asarray(jax.random.key_data(KEY)).tolist()}
    scopes = [row["scope"] for row in found.rows]
    assert scopes == ["map", "location", *["link"] * (len(scopes) - 2)]


def test_a_certificate_needs_two_units_one_image_and_a_linear_method():
    with pytest.raises(ValueError, match="at least 2, got 1"):
        certificate(NET, X, "lrp-zplus", vectors=1)
    with pytest.raises(ValueError, match="batch of one"):
        certificate(NET, np.concatenate([X, X]), "lrp-zplus")
    with pytest.raises(ValueError, match="guided-bp is not linear"):
        certificate(NET, X, "guided-bp")
    with pytest.raises(ValueError, match="does not reach 'fc'"):
        certificate(NET, X, "lrp-zplus", start="conv1", stop="fc")
    one = nets_chain.relu_chain(np.ones((3, 4)), np.ones((4, 1)))
    with pytest.raises(
        ValueError, match=r"Fewer than two units of 'fc2' send relevance to 'input'"
    ):
        certificate(one, np.ones((1, 3)), "lrp-zplus")
    apart = nets_chain.relu_chain(-np.ones((3, 4)), np.ones((4, 4)))
    with pytest.raises(ValueError, match="Fewer than two units"):
        certificate(apart, np.ones((1, 3)), "lrp-zplus")


@pytest.mark.parametrize("size", [3, 2])  # of the second; a sum of both is no error by itself
def test_a_model_of_two_inputs_is_refused(size):
    model = lambda w, x: x["a"] @ w[0] + x["b"] @ w[1]
    weights = [jnp.ones((3, 4)), jnp.ones((size, 4))]
    x = {"a": np.ones((1, 3)), "b": np.ones((1, size))}
    with pytest.raises(ValueError, match="input"):
        certificate(jax.tree_util.Partial(model, weights), x, "lrp-zplus")
