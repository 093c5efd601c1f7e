"""The table of methods: names, identities between them, behaviour on the trained network."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp
from lrpjax.images import bundled_images
from lrpjax.methods.lookup import TABLE

pytestmark = pytest.mark.usefixtures("quick_compile")

# One formula in two orders of summation, in float32 sums of up to 8192 terms.
SAME = 1e-4


def test_the_table_is_complete():
    names = (
        "gradient input-x-gradient lrp-z lrp-epsilon lrp-gamma lrp-zplus lrp-alpha1-beta0 "
        "lrp-alpha2-beta1 lrp-alpha5-beta4 lrp-flat lrp-wsquare lrp-cmp-alpha1-beta0 "
        "lrp-cmp-alpha2-beta1 epsilon-plus-flat epsilon-gamma-box deep-taylor excitation-bp "
        "guided-bp deconv rect-grad pattern-net pattern-attribution deeplift-rescale "
        "deeplift-reveal-cancel deeplift-ablation contrastive-lrp contrastive-excitation-bp "
        "integrated-gradients smooth-grad occlusion iba"
    )
    assert set(names.split()) == set(TABLE)


def test_what_gives_no_map_or_needs_more_says_so():
    with pytest.raises(ValueError, match=r"call lrpjax\.tcav"):
        lrp.methods.get("tcav")
    with pytest.raises(ValueError, match="iba needs statistics, key"):
        lrp.methods.get("iba", layer="conv4")
    with pytest.raises(ValueError, match="not a chain of rules"):
        lrp.vjp(jnp.tanh, jnp.ones((1, 2)), "occlusion")


def test_iba_is_a_method_of_attribute():
    model = lrp.models.cifar10()
    x = model.preprocess(bundled_images()[0])
    fitted = lrp.bottleneck.statistics(model, x, "conv4")
    options = {"layer": "conv4", "statistics": fitted, "key": jax.random.key(0)}
    relevance = lrp.attribute(model, x[:2], lrp.methods.get("iba", **options), target=3)
    bits = lrp.iba(model, x[:2], target=3, **options).relevance
    np.testing.assert_allclose(relevance.sum(-1), bits, rtol=SAME)


# --- Deep Taylor ---------------------------------------------------------------------------------


def two_convolutions(key, layout):
    k1, k2, k3 = jax.random.split(key, 3)
    dims = (layout, "HWIO", layout)
    conv = lambda x, w: jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=dims)
    w1, w2 = jax.random.normal(k1, (3, 3, 3, 4)), jax.random.normal(k2, (3, 3, 4, 2))
    w3 = jax.random.normal(k3, (72, 3))
    return lambda x: jax.nn.relu(conv(jax.nn.relu(conv(x, w1)), w2)).reshape(len(x), -1) @ w3


def test_deep_taylor_is_alpha1_beta0_but_for_the_first_layer(getkey):
    model = two_convolutions(getkey(), "NHWC")
    x = jax.random.uniform(getkey(), (2, 6, 6, 3), minval=-1, maxval=2)
    r = jax.random.normal(getkey(), (2, 3))
    read = {}
    for method in (lrp.methods.get("deep-taylor", low=-1, high=2), "lrp-alpha1-beta0"):
        _, pull = lrp.vjp(model, x, method, layers=["w1", "w2"])
        read[str(method)] = pull(r)
    taylor, lrp_maps = read.values()
    for layer in ("w1", "w2"):
        np.testing.assert_array_equal(taylor[1][layer], lrp_maps[1][layer])
    assert jnp.abs(taylor[0] - lrp_maps[0]).max() > 1e-3


def test_deep_taylor_with_wsquare_needs_no_range(getkey):
    model = two_convolutions(getkey(), "NHWC")
    x = jax.random.normal(getkey(), (2, 6, 6, 3))
    method = lrp.methods.get("deep-taylor", first="wsquare")
    rules = {row["layer"]: row["rule"] for row in lrp.plan(model, x, method).rows}
    assert (rules["w1"], rules["w2"]) == ("wsquare", "zplus")
    assert lrp.attribute(model, x, method, target=0).shape == x.shape


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_bounds_per_channel(layout, getkey):
    """One layer, z-box written out: c = W x - W+ l - W- u, with l and u from the channel."""
    model = two_convolutions(getkey(), layout)
    shape = (1, 6, 6, 3) if layout == "NHWC" else (1, 3, 6, 6)
    x = jax.random.uniform(getkey(), shape, minval=-1, maxval=1)
    low, high = (-1.0, -2.0, -3.0), (1.0, 2.5, 4.0)
    place = (1, 1, 1, 3) if layout == "NHWC" else (1, 3, 1, 1)
    l, u = (np.broadcast_to(np.reshape(b, place), shape).ravel() for b in (low, high))
    method = lrp.methods.get("deep-taylor", low=low, high=high)
    _, pull = lrp.vjp(model, x, method, start="w1")
    first = lambda x: lrp.vjp(model, x, "gradient", start="w1")[1]
    out = jax.eval_shape(lambda x: lrp.vjp(model, x, "gradient", layers=["w1"])[1](
        jnp.zeros((1, 3)))[1]["w1"], x)  # fmt: skip
    units = jnp.eye(out.size).reshape(-1, *out.shape)
    W = np.asarray(jax.vmap(first(x))(units)).reshape(out.size, -1)
    r = np.random.default_rng(0).normal(size=out.size)
    c = W * np.asarray(x).ravel() - np.maximum(W, 0) * l - np.minimum(W, 0) * u
    want = c.T @ (r / c.sum(1))
    np.testing.assert_allclose(np.ravel(pull(r.reshape(out.shape))), want, rtol=1e-6, atol=1e-8)


def test_a_range_that_does_not_fit_is_refused(getkey):
    model = two_convolutions(getkey(), "NHWC")
    x = jax.random.uniform(getkey(), (1, 6, 6, 3))
    get = lrp.methods.get
    for name in ("deep-taylor", "epsilon-gamma-box"):
        cases = {
            "needs the range": lambda name=name: lrp.attribute(model, x, name, target=0),
            "low < high": lambda name=name: get(name, low=1, high=1),
            "one for each channel": lambda name=name: get(name, low=(0, 0), high=(1, 1, 1)),
            "do not fit": lambda name=name: lrp.attribute(
                model, x, get(name, low=(0, 0), high=(1, 1)), target=0
            ),
            "holds": lambda name=name: lrp.attribute(
                model, 255 * x, get(name, low=0, high=1), target=0
            ),
        }
        for message, call in cases.items():
            with pytest.raises(ValueError, match=message):
                call()


# --- the trained network -------------------------------------------------------------------------


@cache
def trained():
    """The network and two images for it, as they come, and in double precision."""
    model, images = lrp.models.cifar10(), bundled_images()[0][:2]
    double = jax.tree.map(lambda leaf: leaf.astype(float), model)
    return (model, model.preprocess(images)), (double, images / 255)


GIVEN = {  # what a name takes from the network
    "input_range": lambda model: {"low": 0, "high": 1},
    "patterns": lambda model: {"patterns": model.patterns},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, e in TABLE.items() if e.needs not in ("key", "layer")])
def test_every_method_explains_the_trained_network_by_its_name(name):
    """As in double precision, with what the name takes from the network given by hand."""
    (model, x), (double, x64) = trained()
    relevance = lrp.attribute(model, x, name, target=jnp.array([1, 2]))
    assert relevance.shape == x.shape and relevance.dtype == jnp.float32
    options = GIVEN.get(TABLE[name].needs, lambda model: {})(model)
    method = lrp.methods.get(name, **options)
    wanted = np.asarray(lrp.attribute(double, x64, method, target=jnp.array([1, 2])))
    assert wanted.dtype == np.float64 and np.abs(wanted).max() > 0
    np.testing.assert_allclose(relevance, wanted, rtol=0, atol=SAME * np.abs(wanted).max())


def test_excitation_bp_is_zplus_started_from_one():
    model, x = trained()[0]
    logits = model(x)[:, 4]
    maps = [lrp.attribute(model, x, name, target=4) for name in ("lrp-zplus", "excitation-bp")]
    np.testing.assert_allclose(maps[0], logits[:, None, None, None] * maps[1], rtol=SAME, atol=1e-9)
