"""An image's map does not depend on where it stands in the batch, nor on what stands beside it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

RNG = np.random.default_rng(3)
KEY = jax.random.key(3)
SHAPE = (5, 5, 2)
W, V = RNG.normal(size=(3, 3, 2, 4)), RNG.normal(size=(100, 3))
X = RNG.normal(size=(4, *SHAPE))
ALIKE = 1e-9  # sums over the batch's rows may be made in another order


def network(p, x):
    numbers = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(x, p["conv"], (1, 1), "SAME", dimension_numbers=numbers)
    return jax.nn.relu(x).reshape(len(x), -1) @ p["fc"]


MODEL = jax.tree_util.Partial(network, {"conv": W, "fc": V})
get = lrp.methods.get


def statistics():
    return lrp.bottleneck.statistics(MODEL, RNG.normal(size=(20, *SHAPE)), "conv")


METHODS = {
    "smooth-grad": lambda: get("smooth-grad", key=KEY, samples=3),
    "smooth-grad over z+": lambda: get("smooth-grad", key=KEY, samples=3, base="lrp-zplus"),
    "smooth-grad over integrated gradients": lambda: get(
        "smooth-grad", key=KEY, samples=2, base=get("integrated-gradients", steps=2)
    ),
    "iba": lambda: get("iba", layer="conv", statistics=statistics(), key=KEY, steps=3),
    "iba in chunks": lambda: get(
        "iba", layer="conv", statistics=statistics(), key=KEY, steps=3, chunk=2
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_an_image_has_the_same_map_wherever_it_stands_in_the_batch(name):
    method = METHODS[name]()
    explain = lambda x: np.asarray(lrp.attribute(MODEL, x, method, target=1))
    whole = explain(X)
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(explain(X[order]), whole[order], atol=ALIKE)
    np.testing.assert_allclose(explain(X[2:3]), whole[2:3], atol=ALIKE)
    assert np.abs(whole[0] - whole[1]).max() > 1e-3


def test_a_smoothed_function_of_the_users_sees_the_same_noise_at_every_place():
    seen = []

    def function(model, x, target):
        seen.append(np.asarray(x))
        return jnp.zeros_like(x) + jnp.arange(x[0].size).reshape(x.shape[1:])

    options = {"key": KEY, "samples": 2, "noise": 0.3, "similarity": "pearson"}
    for images in (X, X[::-1]):
        lrp.sanity.smooth_mprt(MODEL, images, function, **options)
    half = len(seen) // 2
    for one, other in zip(seen[:half], seen[half:], strict=True):
        np.testing.assert_array_equal(one, other[::-1])
