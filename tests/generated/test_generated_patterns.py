"""Patterns of generated networks, whatever their scale: finite and the oracle's, or refused where
they are fitted, saved and loaded."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import lrpjax as lrp

from .backward import _function, groups, jacobian, run
from .draw import draw
from .program import Style, laid, model

pytestmark = pytest.mark.usefixtures("quick_compile")

EXACT, HALF = 1e-6, 2e-3  # of two orders of the same sums; of float16's eleven bits
RESPONDS = 1e-3  # of |w| |c|, and c of the means it is a difference of: below it is rounding


def networks(scale):
    """Generated networks with 16 examples, whose dense layers' weights are of that size each."""
    for seed in range(10**4):
        net = replace(draw(seed), fold=True)
        found = dense_layers(net)
        if found and not any(net.nodes[i].kind == "own" for i in range(len(net.nodes))):
            own = {
                k: {n: v * (scale if n == "kernel" else 1) for n, v in p.items()}
                if k in found
                else p
                for k, p in net.params.items()
            }
            x = np.random.default_rng(seed).normal(size=(16, *net.x.shape[1:]))
            yield replace(net, params=own, x=x)


def dense_layers(net):
    """{name: group} of the dense layers whose parameter is used once."""
    uses = [node.param for node in net.nodes]
    return {
        net.nodes[i].param: group
        for group in groups(net)
        for i in group.nodes
        if net.nodes[i].kind == "dense" and uses.count(net.nodes[i].param) == 1
    }


def expected(net):
    """{name: (pattern, whether each neuron responds)} by the covariances of all rows, in numpy."""
    values = run(net, net.x)
    found = {}
    for name, group in dense_layers(net).items():
        rows = values[group.reads[0]].reshape(-1, values[group.reads[0]].shape[-1])
        f = _function(net, group)
        w = jacobian(f, [rows[:1]], 0).T
        y = rows @ w
        products = rows.T @ y / len(rows)
        c = products - rows.mean(0)[:, None] * y.mean(0)
        response = (w * c).sum(0)
        size = np.linalg.norm(w, axis=0) * np.linalg.norm(c, axis=0)
        varies = np.abs(c).max(0) > RESPONDS * np.abs(products).max(0)
        responds = (np.abs(response) > RESPONDS * size) & varies
        found[name] = c / np.where(response == 0, 1, response), responds
    return found


def fitted(net, dtype="float64"):
    style = Style(net.seed, wrapped=0)
    cast = lambda tree: jax.tree.map(lambda a: np.asarray(a, dtype), tree)
    network = model(net, style, cast(net.params))
    x = laid(net, style, cast(net.x))
    return network, x, lambda: lrp.patterns.fit(network, x, mode="linear", patches=None)


def assert_alike(found, wanted, bound):
    for name, (a, responds) in wanted.items():
        assert np.isfinite(found[name]).all()
        off = np.abs(np.asarray(found[name], float) - a) / np.abs(a).max(0, initial=1e-300)
        assert (off[:, responds] < bound).all(), name


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("power", [-8, -4, 0, 4, 8])
def test_patterns_are_the_oracles_and_a_file_holds_them_or_is_refused(power, seed, tmp_path):
    nets = networks(10.0**power)
    net = [next(nets) for _ in range(seed + 1)][-1]
    network, x, fit = fitted(net)
    wanted, found = expected(net), fit()
    assert_alike(found.a, wanted, EXACT)
    for dtype, bound in (("float32", EXACT), ("float16", HALF)):
        file = tmp_path / dtype
        try:
            found.save(file, dtype=dtype)
        except ValueError as refused:
            assert "range of float16" in str(refused) and not file.exists()
            continue
        assert_alike(lrp.patterns.load(file, network, x).a, wanted, bound)
        broken = load_file(file)
        name = sorted(broken)[seed % len(broken)]
        broken[name].flat[seed % broken[name].size] = (np.nan, np.inf)[seed % 2]
        save_file(broken, file, {"mode": "linear"})
        with pytest.raises(ValueError, match=f"pattern of {name} is not finite"):
            lrp.patterns.load(file, network, x)
        bad = replace(found, a={**found.a, name: found.a[name] * np.nan})
        with pytest.raises(ValueError, match=f"patterns of {name}: they are not to be saved"):
            bad.save(file, dtype=dtype)


@pytest.mark.parametrize("power", [0, 6, 12, 18, 25])
def test_in_single_precision_a_fit_is_finite_or_refused(power):
    """Means of products of two values leave float32 where these are of order 1e19 each."""
    net = next(networks(10.0**power))
    _, _, fit = fitted(net, "float32")
    try:
        found = fit()
    except ValueError as refused:
        assert power > 6 and "patterns of" in str(refused)
        return
    assert power < 18
    assert_alike(found.a, expected(net), 1e-2)
