"""The units of the input: a map of s x is s times that of x, where the network is homogeneous."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracle

import lrpjax as lrp
from lrpjax.methods import get

pytestmark = pytest.mark.usefixtures("quick_compile")

METHODS = {
    "lrp-z": get("lrp-z"),
    "lrp-gamma": get("lrp-gamma"),
    "lrp-zplus": get("lrp-zplus"),
    "lrp-alpha1-beta0": get("lrp-alpha1-beta0"),
    "lrp-alpha2-beta1": get("lrp-alpha2-beta1"),
    "lrp-alpha2-beta1 signed": get("lrp-alpha2-beta1", bias="signed"),
    "lrp-alpha2-beta1 split": get("lrp-alpha2-beta1", bias="split"),
    "lrp-alpha5-beta4": get("lrp-alpha5-beta4"),
    "deeplift-rescale": get("deeplift-rescale"),
    "deeplift-reveal-cancel": get("deeplift-reveal-cancel"),
    "deeplift-ablation": get("deeplift-ablation"),
    "deeplift-ablation text": get("deeplift-ablation", form="text"),
}
PROPORTIONAL = lrp.methods.Method(
    "proportional",
    lrp.composites.or_else(
        lrp.composites.by_kind(max_pool=lrp.rules.rule(lrp.rules.proportional)),
        get("lrp-z").composite,
    ),
)
# Powers of 2 rescale exactly, and thresholds alone can move a map; the others round as well, and
# what is divided by a small z is off by that rounding times its condition, some 1e3 here.
SCALES = {
    "float64": ((2.0**-100, 1e-30, 1e-7, 1e-3, 1e5, 1e30, 2.0**100), 1e-9),
    "float32": ((2.0**-40, 1e-12, 1e-7, 1e-3, 1e5, 1e12, 2.0**40), 1e-4),
}


def network(dtype):
    """Bias-free: convolution, max and average pool, a residual addition, dense layers."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[-2]), dtype)
    weights = {
        "conv1": normal(3, 3, 2, 4),
        "conv2": normal(3, 3, 4, 4),
        "fc1": normal(16, 12),
        "fc2": normal(12, 3),
    }
    dims = ("NHWC", "HWIO", "NHWC")
    conv = lambda x, w: jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=dims)

    def forward(w, x):
        h = jax.nn.relu(conv(x, w["conv1"]))
        h = jax.nn.relu(h + conv(h, w["conv2"]))
        h = jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        h = jax.lax.reduce_window(h, 0.0, jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
        return jax.nn.relu(h.reshape(len(x), -1) @ w["fc1"]) @ w["fc2"]

    x = jnp.asarray(rng.normal(size=(2, 8, 8, 2)), dtype)
    return jax.tree_util.Partial(forward, weights), x


def error(found, expected):
    assert np.isfinite(found).all()
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("dtype", SCALES)
@pytest.mark.parametrize("name", [*METHODS, "proportional"])
def test_the_map_of_s_times_x_is_s_times_the_map_of_x(name, dtype):
    method = PROPORTIONAL if name == "proportional" else METHODS[name]
    model, x = network(dtype)
    scales, tolerance = SCALES[dtype]
    whole = np.asarray(lrp.attribute(model, x, method, target=1), np.float64)
    assert np.abs(whole).max() > 1e-3
    for s in scales:
        scaled = jnp.asarray(s, dtype) * x
        found = np.asarray(lrp.attribute(model, scaled, method, target=1), np.float64)
        assert error(found / s, whole) < tolerance, s


@pytest.mark.parametrize("name", ["lrp-z", "lrp-alpha2-beta1", "deeplift-rescale"])
def test_the_scale_is_that_of_one_image(name):
    """Beside an image 1e12 times as bright, alone, and under vmap: the same map."""
    model, x = network("float64")
    batch = jnp.stack([x[0], 1e12 * x[1]])
    method = METHODS[name]
    alone = [lrp.attribute(model, one[None], method, target=1)[0] for one in batch]
    single = lambda one: model(one[None])[0]
    for mapped in (
        lrp.attribute(model, batch, method, target=1),
        lrp.attribute(jax.vmap(single), batch, method, target=1),
        jax.vmap(lambda one: lrp.attribute(model, one[None], method, target=1)[0])(batch),
    ):
        for one, found in zip(alone, mapped, strict=True):
            assert error(found, one) < 1e-9


@pytest.mark.parametrize("name", ["lrp-z", "lrp-alpha2-beta1", "deeplift-rescale"])
def test_an_example_is_all_of_its_tokens_where_they_are_one_axis_with_the_batch(name):
    """A token 1e10 times as dark as the others of its example weighs nothing, merged or apart."""
    rng = np.random.default_rng(1)
    w, out = jnp.asarray(rng.normal(size=(4, 6))), jnp.asarray(rng.normal(size=(6, 3)))
    x = jnp.asarray(rng.normal(size=(2, 3, 4))) * jnp.array([1.0, 1e-10, 1.0])[:, None]
    apart = lambda x: jax.nn.relu(jax.nn.relu(x @ w) @ w.T).sum(1) @ w @ out

    def merged(x):
        h = jax.nn.relu(jax.nn.relu(x.reshape(-1, 4) @ w) @ w.T)
        return h.reshape(x.shape).sum(1) @ w @ out

    one, other = (lrp.attribute(f, x, METHODS[name], target=1) for f in (merged, apart))
    np.testing.assert_allclose(one[:, 1], other[:, 1], rtol=1e-9, atol=0)


def test_the_default_stabiliser_is_relative_and_a_given_one_absolute():
    """One unit of two: z = (1e-9, 1), of which 1e-9 is the stabiliser."""
    w = np.array([[1e-9, 0.0], [0.0, 1.0]])
    model = lambda x: x @ w
    ones = np.ones((1, 2))
    for scale in (1.0, 1e-20, 1e20):
        _, pull = lrp.vjp(model, scale * ones, "lrp-z")
        np.testing.assert_allclose(pull(ones), [[0.5, 1]], rtol=1e-8)
    absolute = get("lrp-z", stabiliser=1e-9)
    for scale, expected in ((1.0, [[0.5, 1]]), (1e-9, [[1e-9, 0.5]])):
        _, pull = lrp.vjp(model, scale * ones, absolute)
        np.testing.assert_allclose(pull(ones), expected, rtol=1e-8)


@pytest.mark.parametrize("name", ["lrp-z", "lrp-zplus", "lrp-alpha2-beta1", "lrp-gamma"])
def test_a_given_stabiliser_reaches_every_denominator(name):
    """Sums, additions, products and pools too: at 1e30 nothing is left of the relevance."""
    model, x = network("float64")
    given = get(name, stabiliser=1e30)
    assert all("1e+30" in r["rule"] for r in lrp.plan(model, x, given).rows
               if r["kind"] in ("conv", "dense", "sum", "add"))  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it takes all
        assert np.abs(lrp.attribute(model, x, given, target=1)).max() < 1e-20
    attention = lambda x: jax.nn.softmax(x @ x.swapaxes(1, 2)) @ x
    rules = [r["rule"] for r in lrp.plan(attention, x[:, 0], given).rows if r["kind"] == "product"]
    assert rules and all("stabiliser=1e+30" in rule for rule in rules)
    with pytest.raises(ValueError, match="stabiliser must be greater than 0, got 0"):
        get(name, stabiliser=0)


@pytest.mark.parametrize("name", METHODS)
def test_where_a_layer_is_zero_relevance_ends_and_is_a_number(name):
    model, x = network("float64")
    out, pull = lrp.vjp(model, 0 * x, METHODS[name])
    found = np.asarray(pull(100 * np.ones((2, 3))))
    assert (np.asarray(out) == 0).all() and np.isfinite(found).all()
    if not name.startswith("deeplift"):  # where the multipliers are the derivative
        assert (found == 0).all()
    # One dead image changes nothing of its neighbour.
    batch = jnp.stack([0 * x[0], x[1]])
    maps = lrp.attribute(model, batch, METHODS[name], target=1)
    alone = lrp.attribute(model, x[1:], METHODS[name], target=1)
    assert error(maps[1:], alone) < 1e-9 and not np.asarray(maps[0]).any()


def test_smaller_than_what_the_stabiliser_can_follow_nothing_breaks():
    """1e-9 of 1e-300 is no normal number: the floor keeps denominators from 0."""
    w = np.array([[1.0, 1.0], [1.0, -1.0]])
    x = 1e-300 * np.array([[1.0, 1.0]])  # z = (2e-300, 0)
    _, pull = lrp.vjp(lambda x: x @ w, x, "lrp-z")
    np.testing.assert_allclose(pull(np.array([[2.0, 0.0]])), [[1, 1]], rtol=1e-7)
    assert np.isfinite(pull(np.array([[0.0, 1.0]]))).all()


@pytest.mark.parametrize("name", ["deeplift-rescale", "deeplift-ablation"])
def test_a_difference_below_the_rounding_of_its_values_is_none(name):
    """x - x0 = 1e-10 at a ReLU of values of size 1: the derivative at x0, not a ratio of rounding
    errors. A near_zero that is given is absolute."""
    x = np.array([[1e-10, 3.0]])
    for s in (1.0, 1e-8, 1e8):
        scaled = jax.tree_util.Partial(lambda s, x: jax.nn.relu(x + s), s)
        found = lrp.vjp(scaled, s * x, METHODS[name])[1](np.ones((1, 2)))
        np.testing.assert_allclose(found, s * x, rtol=1e-12)
    near = get(name, near_zero=10.0)
    kinked = lambda x: jax.nn.relu(x - 1.0)
    found = lrp.vjp(kinked, np.array([[3.0, 0.0]]), near)[1](np.ones((1, 2)))
    np.testing.assert_allclose(found, 0)  # |x - x0| = 3 < 10: the slope at x0 = 0, which is 0
    exact = get(name, near_zero=1e-300)
    found = lrp.vjp(kinked, np.array([[3.0, 0.0]]), exact)[1](np.ones((1, 2)))
    np.testing.assert_allclose(found, [[2, 0]])
    with pytest.raises(ValueError, match="near_zero must be greater than 0 and finite, got 0"):
        get(name, near_zero=0)


def test_epsilon_is_absolute_and_says_when_it_takes_too_much():
    w = {"fc1": jnp.eye(2), "fc2": jnp.ones((2, 1))}
    model = jax.tree_util.Partial(lambda w, x: jax.nn.relu(x @ w["fc1"]) @ w["fc2"], w)
    ones = jnp.ones((1, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lrp.attribute(model, ones, "lrp-epsilon", target=0)
        lrp.attribute(model, 1e-7 * ones, "lrp-z", target=0)
        lrp.attribute(model, 1e-9 * ones, "gradient", target=0)
        lrp.attribute(model, 1.01e-4 * ones, "lrp-epsilon", target=0)  # 1 / 102 of it
        jax.jit(lambda x: lrp.attribute(model, x, "lrp-epsilon", target=0))(1e-7 * ones)
    # fc1: z = 9e-6 each beside 1e-6, a tenth; fc2: 1.8e-5, a nineteenth
    with pytest.warns(UserWarning, match=r"epsilon=1e-06\) takes 10% .* layer 'fc1'.*lrp-z"):
        found = lrp.attribute(model, 9e-6 * ones, "lrp-epsilon", target=0)
    top = oracle.z(oracle.Affine(np.ones((1, 2)), np.zeros(1), None), np.full(2, 9e-6),
                   np.array([1.8e-5]), 1e-6)  # fmt: skip
    np.testing.assert_allclose(found[0], top * 9e-6 / 1e-5, rtol=1e-6)
    # In one image of two is enough, and the number of any absolute stabiliser counts.
    both = jnp.concatenate([ones, 1e-6 * ones])
    with pytest.warns(UserWarning, match=r"takes 50% .* 'fc1'"):
        lrp.attribute(model, both, "lrp-epsilon", target=0)
    with pytest.warns(UserWarning, match=r"z\(stabiliser=1\) takes 50% .* 'fc1'"):
        lrp.attribute(model, ones, get("lrp-z", stabiliser=1.0), target=0)


@pytest.mark.parametrize("dtype", SCALES)
def test_a_gamma_of_any_size_is_the_limit_of_large_ones(dtype):
    """1 + gamma times a large z leaves the range of single precision, and the shares do not."""
    model, x = network(dtype)
    of = lambda gamma: np.asarray(
        lrp.attribute(model, 100 * x, get("lrp-gamma", gamma=gamma), target=1), np.float64
    )
    limit = of(1e12)
    for gamma in (1e30, 1e37, 1e39, 1e307):
        assert error(of(gamma), limit) < 1e-4
