"""The relevance at a layer that is asked for by name, and what is injected at one: the oracle's."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

import lrpjax as lrp

from .backward import everywhere, groups
from .blocks import shared
from .blocks_special import tied
from .check import QUICK, SUMS, TOLERANCE, case, library_method
from .program import laid, model
from .rewriting import REWRITINGS
from .shares import COMPOSITES, METHODS

pytestmark = pytest.mark.usefixtures("quick_compile")

TURNS = [m for m in (*METHODS, *COMPOSITES) if m.family in ("lrp", "gradient")]


def named_layers(net):
    """{name: node that the layer writes}: of a parameter's layers the first has its own name."""
    found = {}
    for group in groups(net):
        for i in group.nodes:
            node = net.nodes[i]
            if node.kind in ("dense", "conv"):
                found.setdefault(node.param, group.last)
    return found


def found_everywhere(drawn, x):
    """The oracle's relevance of every node, (N, ...) each."""
    end = len(drawn.net.nodes) - 1
    rows = [
        everywhere(drawn.net, drawn.method, a[None], {end: r})
        for a, r in zip(x, drawn.R, strict=True)
    ]
    return [np.stack(node) for node in zip(*rows, strict=True)]


def is_steady(drawn, layers):
    """Whether rounding decides nothing at these layers: the mean of what was centred is 0 and has
    the sign of its rounding, and a map can be 0 below that."""
    one, other = (found_everywhere(drawn, drawn.net.x * by) for by in (1, 1 + 1e-9))
    return all(np.abs(one[i] - other[i]).max() <= 1e-6 * np.abs(one[i]).max() for i in layers)


@pytest.mark.parametrize("seed", range(12))
def test_relevance_at_layers_is_the_oracles(seed):
    """Names meet: a parameter used again would be numbered as another one is called."""
    part = tied if seed % 2 else shared
    cases = (
        case(seed + 100 * k, TURNS[seed % len(TURNS)], REWRITINGS[0], holding=part)
        for k in range(9)
    )
    drawn = next(c for c in cases if is_steady(c, named_layers(c.net).values()))
    net, method, style = (
        drawn.net,
        library_method(drawn),
        replace(drawn.style, outer="jit", wrapped=0, nchw=False),
    )
    layers = named_layers(net)
    start = min(layers, key=lambda name: layers[name] if layers[name] > 2 else 10**6)

    @partial(jax.jit, compiler_options=QUICK)
    def relevance(params, x, R):
        function = model(net, style, params)
        _, pull = lrp.vjp(function, x, method, layers=list(layers))
        _, below = lrp.vjp(function, x, method, start=start)
        found = pull(R)
        return found, below(found[1][start])

    x = laid(net, style, net.x)
    (at_input, at), below = relevance(net.params, x, drawn.R)
    bound = TOLERANCE if drawn.method.family == "lrp" else SUMS
    size = np.abs(at_input).max()
    wanted = found_everywhere(drawn, net.x)
    for name, node in layers.items():
        own = wanted[node]
        found = as_described(at[name], net, node, style)
        assert np.abs(found - own).max() <= bound * max(np.abs(own).max(), size), name
    from_start = [
        everywhere(net, drawn.method, a[None], {layers[start]: w})[0]
        for a, w in zip(net.x, wanted[layers[start]], strict=True)
    ]
    times = net.x.reshape(2, -1) if drawn.method.name == "input-x-gradient" else 1
    off = as_described(below, net, 0, style) - np.stack(from_start) * times
    assert np.abs(off).max() <= bound * size


def as_described(value, net, node, style):
    """A value of the program as rows of the description."""
    value = np.asarray(value)
    if style.nchw and len(net.nodes[node].shape) == 3:
        value = value.transpose(0, 2, 3, 1)
    return value.reshape(len(value), -1)
