"""The gradient family on networks with derivatives of their own and with ties, at any layer."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp

from .backward import everywhere, groups
from .blocks_special import own_derivative, rounded
from .check import QUICK, case, error, failures
from .draw import draw
from .program import Style, model
from .shares import METHODS, Undetermined

pytestmark = pytest.mark.usefixtures("quick_compile")

EXACT = 1e-12  # two orders of the same sums


@pytest.mark.parametrize("seed", range(10))
def test_a_derivative_of_its_own_is_the_oracles_under_every_rewriting(seed):
    gradients = [m for m in METHODS if m.family in ("gradient", "cuts")]
    method = gradients[seed % len(gradients)] if seed % 2 else gradients[seed // 2 % 2]
    assert not list(failures(case(seed, method, holding=own_derivative)))


def layer_of_its_own(net):
    """(name, node) of a parameter's layer that relevance passes on its way, and what it writes."""
    uses = [node.param for node in net.nodes]
    for group in groups(net)[:-1]:
        for i in group.nodes:
            if net.nodes[i].kind in ("dense", "conv") and uses.count(uses[i]) == 1:
                return uses[i], group.last
    return None


def arrives(net, node, r):
    """Whether a cotangent may; where it is for ties to say, too."""
    try:
        return everywhere(net, METHODS[0], net.x[:1], {len(net.nodes) - 1: r})[node].any()
    except Undetermined:
        return True


@pytest.mark.parametrize("seed", (0, 1, 3, 4, 5))
def test_ties_are_shared_as_jax_shares_them_from_any_layer_to_any_layer(seed):
    """Beside `jax.vjp` of the model in the input and in something added behind a layer."""
    nets = (draw(seed + 1000 * k, holding=rounded) for k in range(100))
    R = np.random.default_rng(seed).normal(size=(2, 3))
    found = ((n, named) for n in nets if (named := layer_of_its_own(n)))
    net, (name, node) = next((n, named) for n, named in found if arrives(n, named[1], R[0]))
    style = Style(seed, wrapped=0)

    @partial(jax.jit, compiler_options=QUICK)
    def both(params, x, R):
        function = model(net, style, params)
        added = jnp.zeros((2, *net.nodes[node].shape))

        def shifted(x, more):
            return model(net, replace(style, touches={node: lambda y: y + more}), params)(x)

        wanted = jax.vjp(shifted, x, added)[1](R)
        _, whole = lrp.vjp(function, x, "gradient")
        _, pull = lrp.vjp(function, x, "gradient", layers=[name])
        at_input, at = pull(R)
        _, below = lrp.vjp(function, x, "gradient", start=name)
        return wanted, (at_input, at[name]), whole(R), below(at[name])

    wanted, found, whole, below = both(net.params, net.x, R)
    assert np.abs(wanted[1]).max() > 0
    for one, other in zip(found, wanted, strict=True):
        assert error(one, other) < EXACT
    assert error(whole, wanted[0]) < EXACT
    if all(len(net.readers(k)) == 1 for k in range(node)):  # all of it passes the layer
        assert error(below, wanted[0]) < EXACT
