"""What the paper did to ResNet-50: BatchNorm by itself, additions by alpha-beta, the clip."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracle
from jax import lax

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

PAPER = partial(lrp.methods.get, bias="signed", fold=False, residual_clip=(0, 1000))


def test_batchnorm_by_itself_by_hand():
    """y = 2 x + 1, R = 35. x = 3: 2 * 6/(6 + 1) * 35 = 60. x = -3: -1 * -6/(-6 + 1) * 35 = -42."""
    conv = lambda x: x @ jnp.array([[1.0, 0.0], [0.0, 1.0]])
    model = lambda x: (conv(x) - jnp.array([1.0, 1.0])) * jnp.array([2.0, 2.0]) + 3.0
    x, R = np.array([[3.0, -3.0]]), np.array([[35.0, 35.0]])
    out, propagate = lrp.vjp(model, x, PAPER("lrp-alpha2-beta1"), layers=["dense_1"])
    np.testing.assert_array_equal(out, [[7, -5]])
    np.testing.assert_allclose(propagate(R)[1]["dense_1"], [[60, -42]], rtol=1e-8)


@pytest.mark.parametrize(("alpha", "beta"), [(1, 0), (2, 1), (5, 4)])
def test_additions_are_clipped_behind_the_rule(alpha, beta):
    rng = np.random.default_rng(0)
    a, c, R = rng.normal(size=(2, 50)), rng.normal(size=(2, 50)), 800 * rng.normal(size=(2, 50))
    _, propagate = lrp.vjp(lambda x: x[0] + x[1], (a, c), PAPER(f"lrp-alpha{alpha}-beta{beta}"))
    expected = oracle.add_alpha_beta(a, c, R, alpha, beta)
    for found, share in zip(propagate(R), expected, strict=True):
        oracle.assert_close(found, np.clip(share, 0, 1000))
        assert (share < 0).any() and (share > 1000).any()


def test_the_clip_deletes_negative_relevance_of_a_residual_net():
    rng = np.random.default_rng(1)
    w1, w2, w3 = rng.normal(size=(3, 3, 3, 4, 4)) / 4
    numbers = ("NHWC", "HWIO", "NHWC")
    conv = lambda x, w: lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers)
    model = lambda x: conv(jnp.maximum(x + conv(jnp.maximum(conv(x, w1), 0), w2), 0), w3)
    x, R = rng.uniform(size=(2, 2, 5, 5, 4))
    for method in ("lrp-alpha5-beta4", "lrp-cmp-alpha2-beta1"):
        free, clipped = (
            lrp.vjp(model, x, lrp.methods.get(method, residual_clip=clip), layers=["add_1"])[1](R)
            for clip in (None, (0, 1000))
        )
        np.testing.assert_array_equal(clipped[1]["add_1"], free[1]["add_1"])
        assert free[0].min() < 0 and np.abs(clipped[0] - free[0]).max() > 1e-3


def test_methods_tell_themselves_apart():
    names = {PAPER("lrp-alpha5-beta4").name, lrp.methods.get("lrp-alpha5-beta4").name}
    assert names == {"lrp-alpha5-beta4 (bias signed, clip 0 to 1000)", "lrp-alpha5-beta4"}
    with pytest.raises(ValueError, match="low < high"):
        lrp.methods.get("lrp-alpha2-beta1", residual_clip=(5, 1))
