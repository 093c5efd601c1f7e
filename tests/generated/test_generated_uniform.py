"""Maps that have one number everywhere in an image: a warning says so there, and nowhere else."""

import warnings
from itertools import islice

import numpy as np
import pytest

import lrpjax as lrp

from . import backward
from .draw import draw
from .program import Style, laid, model
from .shares import COMPOSITES, METHODS

pytestmark = pytest.mark.usefixtures("quick_compile")

ASKED = {m.name: m for m in (*METHODS, *COMPOSITES)}


def is_uniform(maps):
    rows = maps.reshape(len(maps), -1)
    return bool((np.ptp(rows, 1) <= 1e-6 * np.abs(rows).max(1)).all())


def asked(method, wanted):
    """Generated networks, with what is injected, whose maps by the oracle are uniform, or are not:
    behind a mean, a residual or a gate a dense first layer of whole examples makes none uniform."""
    for seed in range(10**4):
        net = draw(seed)
        R = np.random.default_rng(seed).normal(size=(2, 3))
        expected = None if "lrp" in net.refused else backward.determined(net, method, net.x, R)
        if expected is not None and is_uniform(expected) == wanted:
            yield net, R


def says_so(net, R, method):
    style, chosen = Style(net.seed), lrp.methods.get(method.name, fold=net.fold)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        lrp.vjp(model(net, style, net.params), laid(net, style, net.x), chosen)[1](R)
    return any("is uniform" in str(w.message) for w in told)


@pytest.mark.parametrize("name", ["epsilon-plus-flat", "lrp-flat"])
def test_a_map_that_is_one_number_everywhere_says_so(name):
    for net, R in islice(asked(ASKED[name], wanted=True), 6):
        assert says_so(net, R, ASKED[name]), net


@pytest.mark.parametrize("name", ["epsilon-plus-flat", "lrp-flat", "lrp-zplus"])
def test_nothing_is_said_of_any_other_map(name):
    for net, R in islice(asked(ASKED[name], wanted=False), 8):
        assert not says_so(net, R, ASKED[name]), net
