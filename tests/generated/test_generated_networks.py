"""300 random networks: each under one method and one rewriting, against an oracle in numpy."""

from collections import Counter

import numpy as np
import pytest

from . import backward
from .blocks import constants, one_number
from .check import case, wrong_with
from .draw import draw
from .rewriting import REWRITINGS
from .shares import METHODS

pytestmark = pytest.mark.usefixtures("quick_compile")

SEEDS = range(300)
PART = 10  # seeds in one test: few enough to be told apart, many enough to be quick


@pytest.mark.parametrize("first", SEEDS[::PART])
def test_maps_are_the_oracles_and_no_rewriting_changes_them(first):
    found = {}
    for seed in range(first, first + PART):
        drawn = case(seed)
        if wrong := wrong_with(drawn):
            found[seed] = f"{drawn.method}, {drawn.rewriting}: {'; '.join(wrong)}"
    assert not found


# Pairs, and parts of networks, that the seeds above have not drawn, or once. `one_number` has no
# axes where examples are taken one by one; an input in parts has its baselines as a pytree.
BY_NAME = {str(m): m for m in METHODS}
RARE = [
    ("deeplift-rescale", "input times 1e-06", None),
    ("deeplift-rescale", "input times 1e-30", None),
    *[("lrp-zplus", "another spelling", constants)] * 3,
    *[("lrp-alpha2-beta1", "another spelling", constants)] * 3,
    *[(name, "nothing wrapped", one_number) for name in ("lrp-z", "lrp-zplus", "lrp-flat")],
    *[("lrp-alpha2-beta1", "another spelling", one_number)] * 3,
    *[("deeplift-rescale", "input in parts", None)] * 3,
]


@pytest.mark.parametrize("number", range(len(RARE)))
def test_what_is_rarely_drawn(number):
    method, rewriting, part = RARE[number]
    way = next(r for r in REWRITINGS if r.name == rewriting)
    drawn = case(10_000 + number, BY_NAME[method], way, holding=part)
    assert not wrong_with(drawn)


def test_few_draws_are_rejected_and_all_methods_and_rewritings_are_drawn():
    """A draw is rejected where the oracle's own map hangs on its stabiliser, or is all zeros."""
    cases = [case(seed) for seed in SEEDS]
    assert sum(c.rejected for c in cases) < len(cases) / 5
    assert {str(c.method) for c in cases} == {str(m) for m in METHODS}
    assert {c.rewriting.name for c in cases} == {r.name for r in REWRITINGS}
    kinds = Counter(node.kind for c in cases for node in c.net.nodes)
    assert min(kinds.values()) >= 5, kinds


def test_the_oracle_of_the_gradient_is_the_difference_quotient():
    """The complex steps against plain ones, which share nothing but the forward pass."""
    checked = 0
    for seed in range(33):
        net = draw(seed)
        R = np.random.default_rng(seed).normal(size=(2, net.nodes[-1].shape[0]))
        if backward.determined(net, METHODS[0], net.x, R) is None:
            continue
        checked += 1
        along = np.random.default_rng(seed + 1).normal(size=net.x.shape)
        value = lambda t, net=net, along=along, R=R: (
            backward.run(net, net.x + t * along)[-1] * R
        ).sum()
        slope = (value(1e-6) - value(-1e-6)) / 2e-6
        found = (backward.relevance(net, METHODS[0], net.x, R) * along).sum()
        np.testing.assert_allclose(found, slope, rtol=1e-5, atol=1e-6)
    assert checked >= 30


def test_the_oracle_of_lrp_z_is_input_times_gradient_where_there_are_no_constants():
    """On networks of ReLUs without biases, started from the logits."""
    z, gradient = METHODS[1], METHODS[0]
    checked = 0
    for seed in range(300):
        net = draw(seed)
        acts = {node["name"] for node in net.nodes if node.kind == "act"}
        if net.biased or not acts <= {"relu", "leaky_relu"}:
            continue
        if any(node.kind in ("factor", "offset") for node in net.nodes):
            continue
        out = backward.run(net, net.x)[-1]
        found = backward.determined(net, z, net.x, out)
        if found is not None:
            wanted = net.x * backward.relevance(net, gradient, net.x, 0 * out + 1)
            np.testing.assert_allclose(found, wanted, atol=1e-9 * np.abs(wanted).max())
            checked += 1
    assert checked >= 10
