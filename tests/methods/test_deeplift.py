"""DeepLIFT and its ablation against the oracle at every layer, and worked by hand."""

from __future__ import annotations

from functools import cache

import jax
import numpy as np
import pytest
from helpers import oracle
from helpers import oracle_deeplift as deeplift
from helpers.deeplift_nets import (
    FOUR,
    METHODS,
    NETS,
    NONE,
    RELU,
    Net,
    Part,
    assert_complete,
    assert_same,
    data,
    expected,
    linear,
    max_pool,
    method,
    normal,
)

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

EXACT = 1e-12  # the same few operations in another order


@cache
def under_every_method(name):
    """The contributions at all layers, in one compiled program: what takes long is to compile."""
    net = NETS[name]
    x, ref, m = data(net)

    def found(x, m):
        return {
            case: lrp.vjp(net, x, method(case, baseline=ref, fold=net.fold), layers=net.names)[1](m)
            for case in cases_of(name)
        }

    return jax.jit(found)(x, m)


def cases_of(name):
    return METHODS if name == "max-pool of tiles" else FOUR


CASES = [(name, case) for name in NETS for case in cases_of(name)]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_contributions_at_every_layer(name, case):
    net = NETS[name]
    x, ref, m = data(net)
    found, at = under_every_method(name)[case]
    wanted = expected(net, METHODS[case][1], x, [ref], m)
    assert found.shape == x.shape and set(at) == set(net.names)
    np.testing.assert_array_equal(found, at["input"])
    for layer in net.names:
        assert_same(at[layer], wanted[layer])


@pytest.mark.parametrize("case", ["rescale", "reveal-cancel"])
@pytest.mark.parametrize("name", NETS)
def test_contributions_sum_to_the_difference_of_the_output(name, case):
    """At the input, and at each layer that all paths pass."""
    net = NETS[name]
    x, ref, m = data(net)
    difference = (m * (net(x) - net(ref[None]))).sum(1)
    _, at = under_every_method(name)[case]
    for layer in net.names if net.is_chain else ("input", net.names[-2]):
        assert_complete(at[layer], difference)


@pytest.mark.parametrize("case", METHODS)
def test_an_oracle_of_another_method_is_noticed(case):
    """The comparisons above can fail."""
    name = "max-pool of tiles"
    x, ref, m = data(NETS[name])
    found, _ = under_every_method(name)[case]
    for other, (_, plain) in METHODS.items():
        wanted = expected(NETS[name], plain, x, [ref], m)["input"]
        assert (oracle.error(np.reshape(found, wanted.shape), wanted) > 1e-3) == (other != case)


STARTS = [
    ("strided and padded conv", "conv1:relu", "reveal-cancel"),
    ("strided and padded conv", "conv1:relu", "ablation-code"),
    ("overlapping max-pool", "pool", "reveal-cancel"),
    ("norm kept apart", "norm", "rescale"),
    ("norm kept apart", "norm", "ablation-text"),
    ("sum and difference of branches", "add", "reveal-cancel"),
]


@pytest.mark.parametrize(("name", "start", "case"), STARTS)
def test_multipliers_injected_at_an_inner_layer(name, start, case):
    net = NETS[name]
    x, ref, _ = data(net)
    m = normal(start)(size=(len(x), *net.shapes[start]))
    below = [*net.names[: net.names.index(start) + 1], "input"]
    own = method(case, baseline=ref, fold=net.fold)
    _, at = lrp.vjp(net, x, own, start=start, layers=below)[1](m)
    wanted = expected(net, METHODS[case][1], x, [ref], m, start)
    for layer in below:
        assert_same(at[layer], wanted[layer])


# --- units without a difference, and dead ones ---------------------------------------------------

WHOLE = {  # integers, so that differences cancel exactly
    "fc1": np.array([[1, -1, 2, 0, 1], [-1, 2, 1, 1, 0], [2, 1, -2, -1, -1], [1, 0, 1, 2, 1]]),
    "fc2": np.array([[1, -1, 2], [2, 1, -1], [-1, 1, 1], [1, 2, -2], [2, -2, 1]]),
    "fc3": np.array([[1, -2], [-1, 1], [2, 1]]),
}
HALVES = {"fc1": np.array([0.5, -1.5, 0.5, 1.5, -20.5]), "fc2": 0.5, "fc3": 0.5}
INTEGERS = Net(
    (4,),
    {
        "fc1": linear(lambda x: x @ WHOLE["fc1"] + HALVES["fc1"]),
        "fc1:relu": RELU,
        "fc2": linear(lambda x: x @ WHOLE["fc2"] + HALVES["fc2"]),
        "fc2:relu": RELU,
        "fc3": linear(lambda x: x @ WHOLE["fc3"] + HALVES["fc3"]),
    },
)


@pytest.mark.parametrize("case", FOUR)
def test_units_without_a_difference_and_dead_ones(case):
    rng = np.random.default_rng(0)
    x, ref = rng.integers(-2, 3, (12, 4)).astype(float), np.array([1.0, 0.0, -1.0, 1.0])
    x[0] = ref
    hidden = [deeplift.values(INTEGERS.layers, deeplift.Method(), row, ref)["fc1"] for row in x]
    z, D, plus, z0 = (
        np.stack([getattr(v, a) for v in hidden]) for a in ("x", "difference", "plus", "ref")
    )
    occur = {
        "parts that cancel": (D == 0) & (plus > 0),
        "dead at both": (z < 0) & (z0 < 0) & (D != 0),
        "dead at the input": (z < 0) & (z0 > 0),
        "dead at the reference": (z > 0) & (z0 < 0),
    }
    assert all(mask.any() for mask in occur.values()), occur
    m = rng.integers(-2, 3, (12, 2)).astype(float)
    _, at = lrp.vjp(INTEGERS, x, method(case, baseline=ref), layers=INTEGERS.names)[1](m)
    wanted = expected(INTEGERS, METHODS[case][1], x, [ref], m)
    for layer in INTEGERS.names:
        assert_same(at[layer], wanted[layer])


POOLS = {
    "tiles": max_pool((2, 2), (2, 2), (NONE, NONE)),
    "overlapping": max_pool((3, 3), (1, 2), ((1, 0), (1, 1))),
    "global": Part(
        lambda x: x.max((1, 2)),
        lambda shape: deeplift.MaxPool(
            oracle.windows(shape, (*shape[:2], 1), (1, 1, 1), (NONE, NONE, NONE))
        ),
    ),
}


@pytest.mark.parametrize("case", ["reveal-cancel", "rescale, pools by gradient"])
@pytest.mark.parametrize("pool", POOLS)
def test_ties_in_a_max_pool_go_to_the_first(pool, case):
    net = Net((4, 6, 2), {"pool": POOLS[pool]})
    x, ref = np.round(data(net)[0]), np.round(data(net)[1])
    m = data(net)[2]
    found = lrp.vjp(net, x, method(case, baseline=ref))[1](m)
    assert_same(found, expected(net, METHODS[case][1], x, [ref], m)["input"])


# --- worked by hand ------------------------------------------------------------------------------


def minimum(x):
    """min(a, b) = a - relu(a - b). The case for RevealCancel of Shrikumar et al. 2017."""
    h = jax.nn.relu(x @ np.array([[1.0], [-1.0]]))
    return x[:, :1] - h


def minimum_by_subtraction(x):
    return x[:, :1] - jax.nn.relu(x[:, :1] - x[:, 1:])


def saturated(x):
    """1 - relu(1 - a - b), flat where a + b > 1: where gradients fail in Shrikumar et al. 2017."""
    return 1 - jax.nn.relu(1 - x @ np.ones((2, 1)))


# With reference 0 and f = relu. min at (3, 1): D+ = 3, D- = -1 into f, of which f makes
#   Dy+ = (f(3) - f(0))/2 + (f(2) - f(-1))/2 = 5/2,
#   Dy- = (f(-1) - f(0))/2 + (f(2) - f(3))/2 = -1/2,
#   so a has the multiplier 1 - (5/2)/3 = 1/6 and b has (1/2)/1 = 1/2: both contribute 1/2.
#   Rescale: Dy/D = 2/2 = 1, so a has 1 - 1 = 0 and b has 1.
# min at (1, 3): D+ = 1, D- = -3, Dy+ = 1/2, Dy- = -1/2: a has 1 - 1/2, b has (1/2)/3 = 1/6.
#   Rescale: Dy/D = 0/(-2), so a has 1 and b has 0.
# min at (2, -1): D+ = 3, D- = 0, Dy+ = 3, Dy- = 0: a has 1 - 1 and b, through W-, has 1.
#   In the ablation W- takes no part (code) or only in the chain of m- (text).
# Saturated at (1, 1): f falls from 1 to 0 as its input does from 1 to -1: -1 * 1/2 * -1 each.
BY_HAND = {
    (minimum, "rescale"): {(3, 1): (0, 1), (1, 3): (1, 0), (2, -1): (0, -1)},
    (minimum, "reveal-cancel"): {(3, 1): (0.5, 0.5), (1, 3): (0.5, 0.5), (2, -1): (0, -1)},
    (minimum, "ablation-code"): {(3, 1): (0, 0), (1, 3): (1, 0), (2, -1): (0, 0)},
    (minimum, "ablation-text"): {(3, 1): (0, 0), (1, 3): (1, 0), (2, -1): (0, -1)},
    (minimum_by_subtraction, "rescale"): {(3, 1): (0, 1), (1, 3): (1, 0), (2, -1): (0, -1)},
    (minimum_by_subtraction, "reveal-cancel"): {(3, 1): (0.5, 0.5), (1, 3): (0.5, 0.5)},
    (saturated, "gradient"): {(1, 1): (0, 0)},
    (saturated, "rescale"): {(1, 1): (0.5, 0.5), (1, 0): (1, 0)},
    (saturated, "reveal-cancel"): {(1, 1): (0.5, 0.5), (1, 0): (1, 0)},
    # Read as min(a + b, 1), in one: no weight of it is negative.
    (saturated, "ablation-code"): {(1, 1): (0.5, 0.5)},
}


@pytest.mark.parametrize(("model", "case"), BY_HAND, ids=lambda v: getattr(v, "__name__", v))
def test_fractions_worked_by_hand(model, case):
    table = BY_HAND[model, case]
    x = np.array(list(table), float)
    own = method(case) if case in METHODS else case
    np.testing.assert_allclose(
        lrp.attribute(model, x, own, target=0), list(table.values()), atol=EXACT
    )


@pytest.mark.parametrize(
    ("x", "ref", "complete", "by_gradient"),
    [
        ((3, 1), (0, 2), (1, 0), (3, 0)),  # 2 to 3: what was gained goes to the new winner
        ((1, 0), (0, 4), (0, -3), (1, 0)),  # 4 to 1: what was lost, to the old one
        ((5, 1), (2, 0), (3, 0), (3, 0)),  # the same winner
        ((2, 1), (1, 2), (0, 0), (1, 0)),  # no difference to share
    ],
)
def test_max_pool_is_complete_unless_it_follows_the_gradient(x, ref, complete, by_gradient):
    model = lambda x: x.max(1, keepdims=True)
    x, ref = np.array([x], float), np.array(ref, float)
    for case in ("rescale", "reveal-cancel"):
        own = method(case, baseline=ref)
        np.testing.assert_allclose(lrp.attribute(model, x, own, target=0), [complete])
        own = method(f"{case}, pools by gradient", baseline=ref)
        np.testing.assert_allclose(lrp.attribute(model, x, own, target=0), [by_gradient])
    assert sum(complete) == x.max() - ref.max()
