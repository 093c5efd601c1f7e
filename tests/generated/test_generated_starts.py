"""`attribute` of generated networks: what each method starts from, also at a negative logit."""

import numpy as np
import pytest

import lrpjax as lrp

from . import backward
from .check import SUMS, TOLERANCE, case, error, library_method, plain
from .draw import draw
from .program import Style, laid, model, unlaid
from .rewriting import REWRITINGS
from .shares import METHODS, Undetermined

pytestmark = [
    pytest.mark.usefixtures("quick_compile"),
    pytest.mark.filterwarnings("ignore:.*(uniform|epsilon|relevance|constants)"),
]


@pytest.mark.parametrize("method", METHODS[::2] + METHODS[-3::2], ids=str)
def test_the_map_of_the_lowest_logit_is_the_oracles(method):
    """LRP starts from the logit, everything else from 1: the gradient, DeepLIFT's multipliers, and
    what takes only positive relevance on (all of a negative logit would end there)."""
    for seed in range(50):
        drawn = case(seed + sum(map(ord, str(method))), method, REWRITINGS[0])
        logits = backward.run(drawn.net, drawn.net.x)[-1]
        target = logits.argmin(1)
        R = np.eye(3)[target] * (logits if method.family == "lrp" else 1)
        try:
            wanted = backward.determined(drawn.net, method, drawn.net.x, R)
        except Undetermined:
            continue
        if wanted is not None and (logits.min(1) < 0).all():
            break
    network, x = plain(drawn)
    found = lrp.attribute(network, x, library_method(drawn), target=target)
    bound = TOLERANCE if method.family == "lrp" else SUMS
    assert error(unlaid(drawn.net, drawn.style, found), wanted) < bound


@pytest.mark.parametrize("name", [m.name for m in METHODS if m.family == "cuts"])
def test_what_differs_from_the_gradient_at_cuts_alone_is_refused_without_any(name):
    corners = {*backward.CUTS, "hard_tanh", "hard_sigmoid"}
    nets = (draw(seed) for seed in range(2000))
    acts = lambda net: {node["name"] for node in net.nodes if node.kind == "act"}
    smooth = (net for net in nets if acts(net) and not acts(net) & corners)
    for _, net in zip(range(3), smooth, strict=False):
        style = Style(net.seed)
        with pytest.raises(NotImplementedError, match="smooth"):
            lrp.vjp(model(net, style, net.params), laid(net, style, net.x), name)
