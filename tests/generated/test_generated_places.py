"""An image's map is its own: alone or in a batch, with its own baseline, whatever the noise."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import lrpjax as lrp

from . import backward
from .check import SUMS, case, error, plain
from .program import laid, unlaid
from .program import model as written
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


def integrated(net, R, baseline, steps):
    """The oracle's gradients on the way, which Gauss and Legendre weigh."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    gain = net.x - baseline
    at = lambda a: backward.relevance(net, GRADIENT, baseline + (a + 1) / 2 * gain, R)
    return gain * sum(w / 2 * at(a) for a, w in zip(nodes, weights, strict=True))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["deeplift-rescale", "integrated-gradients"])
def test_parts_of_an_input_have_the_maps_of_the_whole_from_baselines_in_parts(name, seed):
    """One baseline or one for each image, or a set, as a pytree like the input's."""
    drawn, _, _ = network(seed + 20, RESCALE)
    net, style = drawn.net, replace(drawn.style, parts=True)
    rng, R = np.random.default_rng(seed), np.eye(3)[[seed % 3] * 2]
    given = rng.normal(size=net.x.shape) / 3
    rows, x = laid(net, style, given), laid(net, style, net.x)
    one = jax.tree.map(lambda leaf: leaf[0], rows)
    option, wanted_from = (
        ({"baseline": rows}, [given]),
        ({"baseline": one}, [given[:1]]),
        ({"baselines": rows}, [given[:1], given[1:]]),
        ({"baseline": 0.25}, [np.full_like(given, 0.25)]),
    )[seed]
    fold, steps = ({"fold": net.fold}, {}) if name == "deeplift-rescale" else ({}, {"steps": 3})
    method = get(name, **option, **fold, **steps)
    found = lrp.attribute(written(net, style, net.params), x, method, target=seed % 3)
    assert jax.tree.structure(found) == jax.tree.structure(x)
    each = [
        integrated(net, R, b, 3)
        if steps
        else backward.relevance(net, RESCALE, net.x, R, baseline=b)
        for b in wanted_from
    ]
    assert error(unlaid(net, style, found), np.mean(each, 0)) < SUMS
