"""An image's map is its own: alone or in a batch, with its own baseline, whatever the noise."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import lrpjax as lrp

from . import backward
from .check import SUMS, case, error, plain
from .program import unlaid
from .rewriting import REWRITINGS
from .shares import METHODS
from .test_generated_layers import named_layers

pytestmark = [
    pytest.mark.usefixtures("quick_compile"),
    pytest.mark.filterwarnings("ignore:.*(uniform|epsilon|relevance|constants)"),
]

KEY = jax.random.key(4)
GRADIENT, RESCALE = (
    next(m for m in METHODS if m.name == name) for name in ("gradient", "deeplift-rescale")
)
get = lrp.methods.get


def network(seed, method=GRADIENT):
    """A generated network with two examples of different ranges."""
    drawn = case(seed, method, REWRITINGS[0])
    drawn = replace(drawn, style=replace(drawn.style, outer="jit"))  # parameters with their names
    return drawn, *plain(drawn)


def alone(explain, x):
    return np.concatenate([np.asarray(explain(x[k : k + 1], k)) for k in range(len(x))])


@pytest.mark.parametrize("seed", range(2))
def test_noise_is_the_same_wherever_an_image_stands(seed):
    _, model, x = network(seed)
    x = np.concatenate([x, 3 * x[:1]])
    base = ("gradient", "lrp-epsilon")[seed % 2]
    method = get("smooth-grad", key=KEY, samples=2, base=base)
    explain = lambda x, k=None: lrp.attribute(model, x, method, target=1)
    assert error(explain(x), alone(explain, x)) < SUMS
    assert error(explain(x[::-1]), np.asarray(explain(x))[::-1]) < SUMS


@pytest.mark.parametrize("seed", range(2))
def test_a_bottlenecks_noise_is_the_same_wherever_an_image_stands(seed):
    drawn, model, x = network(seed + 10)
    layer = max(named := named_layers(drawn.net), key=named.get)
    fitted = lrp.bottleneck.statistics(model, np.concatenate([x, 2 * x, -x]), layer)
    explain = lambda x, k=None: (
        lrp.iba(
            model, x, target=1, layer=layer, statistics=fitted, key=KEY, steps=2, samples=2
        ).capacity
    )
    assert error(explain(x), alone(explain, x)) < SUMS


@pytest.mark.parametrize("seed", (0, 3))
def test_a_baseline_for_each_image_is_its_own_and_a_set_is_averaged(seed):
    drawn, model, x = network(seed, RESCALE)
    net = drawn.net
    from_, R = np.random.default_rng(seed).normal(size=x.shape) / 3, np.eye(3)[[seed % 3] * 2]
    named = lambda **given: (
        get("deeplift-rescale", fold=net.fold, **given)
        if seed < 3
        else get("integrated-gradients", steps=3, **given)
    )
    explain = lambda x, **given: lrp.attribute(model, x, named(**given), target=seed % 3)
    each = explain(x, baseline=from_)
    one_by_one = alone(lambda x, k: explain(x, baseline=from_[k]), x)
    assert error(each, one_by_one) < SUMS
    of_a_set = np.mean([explain(x, baseline=b) for b in from_], 0)
    assert error(explain(x, baselines=from_), of_a_set) < SUMS
    if seed < 3:
        wanted = backward.relevance(
            net, RESCALE, net.x, R, baseline=np.asarray(unlaid(net, drawn.style, from_))
        )
        assert error(unlaid(net, drawn.style, each), wanted) < SUMS
