"""`unknown="gradient"` on networks that hold what LRP has no rule for."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

import lrpjax as lrp

from .backward import everywhere, groups, run
from .blocks_special import quotient, threshold, unknown
from .check import TOLERANCE, case, failures, library_method, plain
from .draw import draw
from .program import Style, laid, model, unlaid
from .rewriting import REWRITINGS
from .shares import METHODS

pytestmark = pytest.mark.usefixtures("quick_compile")

LRP = [
    replace(m, options={**m.options, "unknown": "gradient"}) for m in METHODS if m.family == "lrp"
]


@pytest.mark.parametrize("seed", range(6))
def test_where_a_rule_lacks_the_map_is_the_oracles_with_the_jacobian_there(seed):
    assert not list(failures(case(seed, LRP[seed % len(LRP)], holding=unknown)))


@pytest.mark.parametrize("seed", range(3))
def test_what_is_not_conserved_is_told_and_nothing_else(seed):
    """The relevance of one logit, and whether a layer without a rule sends on what arrives."""
    drawn = case(seed, LRP[seed % len(LRP)], REWRITINGS[0], holding=unknown)
    net, target = drawn.net, seed % 3
    (network, x), logits = plain(drawn), run(net, net.x)[-1]
    R = np.eye(3)[[target] * 2] * logits
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = lrp.attribute(network, x, library_method(drawn), target=target)
    rows = [
        everywhere(net, drawn.method, a[None], {len(net.nodes) - 1: r})
        for a, r in zip(net.x, R, strict=True)
    ]
    wanted = np.stack([row[0] for row in rows])
    off = np.abs(unlaid(net, drawn.style, found).reshape(2, -1) - wanted).max()
    assert off <= TOLERANCE * max(np.abs(wanted).max(), 1e-6)
    changes = []
    for group in groups(net):
        if net.nodes[group.last].kind == "unknown":
            (read,) = group.reads
            assert net.readers(read) == [group.last]
            ends = [(row[group.last].sum(), row[read].sum()) for row in rows]
            changes += [abs(sent - arrived) > 0.01 * abs(arrived) for arrived, sent in ends]
    said = [w for w in told if str(w.message).startswith("With unknown='gradient'")]
    assert bool(said) == any(changes)


@pytest.mark.parametrize("seed", range(4))
def test_truth_values_that_would_take_relevance_are_refused(seed):
    net, style, asked = draw(seed, holding=threshold), Style(seed), LRP[seed % len(LRP)]
    method = lrp.methods.get(asked.name, fold=net.fold, **asked.options)
    with pytest.raises(NotImplementedError, match="truth values or integers"):
        lrp.vjp(model(net, style, net.params), laid(net, style, net.x), method)


@pytest.mark.parametrize("seed", range(4))
def test_a_quotient_by_as_many_numbers_is_no_norm(seed):
    """A statistic has a reduced shape: LRP has no rule for what only looks like one."""
    drawn = case(seed, LRP[seed % len(LRP)], holding=quotient)
    assert not list(failures(drawn))
    without = {k: v for k, v in drawn.method.options.items() if k != "unknown"}
    method = lrp.methods.get(drawn.method.name, fold=drawn.net.fold, **without)
    with pytest.raises(NotImplementedError, match=r"no rule for the primitive 'div'"):
        lrp.vjp(*plain(drawn), method)
