"""Linear operations, whatever they are made of: under lrp-z R_in = x J^T (R / y), J the Jacobian.

That is the z rule of any linear map. The gradient is J^T R.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

RNG = np.random.default_rng(3)
IMAGE = RNG.normal(size=(2, 4, 4, 3))
TOKENS = RNG.normal(size=(2, 5, 6))
KERNEL = RNG.normal(size=(3, 3, 3, 4))
DEPTHWISE = RNG.normal(size=(3, 3, 1, 6))
WEIGHTS = RNG.normal(size=(6, 4))
HEADS = RNG.normal(size=(6, 2, 3))
ACROSS = RNG.normal(size=(5, 5))
NARROW = RNG.normal(size=(3, 6, 4))
NWC = ("NWC", "WIO", "NWC")
NHWC = ("NHWC", "HWIO", "NHWC")


def conv(x, w, strides=(1, 1), **options):
    return lax.conv_general_dilated(x, w, strides, "SAME", dimension_numbers=NHWC, **options)


OPERATIONS = {
    "dense": (lambda x: x @ WEIGHTS, TOKENS),
    "einsum to heads": (lambda x: jnp.einsum("ntd,dhk->nhtk", x, HEADS), TOKENS),
    "dense across tokens": (lambda x: jnp.einsum("ntd,ts->nsd", x, ACROSS), TOKENS),
    "batched product": (lambda x: jnp.einsum("ntd,tdk->ntk", x, np.stack([WEIGHTS] * 5)), TOKENS),
    "convolution": (lambda x: conv(x, KERNEL), IMAGE),
    "strided convolution": (lambda x: conv(x, KERNEL, (2, 1)), IMAGE),
    "dilated convolution": (lambda x: conv(x, KERNEL, rhs_dilation=(2, 2)), IMAGE),
    "depthwise convolution": (lambda x: conv(x, DEPTHWISE, feature_group_count=3), IMAGE),
    "transposed convolution": (lambda x: lax.conv_transpose(x, KERNEL, (2, 2), "SAME"), IMAGE),
    "one-dimensional convolution": (
        lambda x: lax.conv_general_dilated(x, NARROW, (1,), "VALID", dimension_numbers=NWC),
        TOKENS,
    ),
    "mean": (lambda x: x.mean((1, 2)), IMAGE),
    "average pool": (
        lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4,
        IMAGE,
    ),
    "cumulative sum": (lambda x: jnp.cumsum(x, 1), TOKENS),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_linear_operation_shares_by_its_jacobian(name):
    f, x = OPERATIONS[name]
    y = np.asarray(f(x))
    J = np.asarray(jax.jacobian(f)(x)).reshape(y.size, x.size)
    R = np.random.default_rng(4).normal(size=y.shape)
    back = lambda r: (J.T @ r.ravel()).reshape(x.shape)
    # A sum near 0 would leave the stabiliser to decide.
    R = np.where(np.abs(y) > 1e-2, R, 0)
    for method, wanted in (("gradient", back(R)), ("lrp-z", x * back(R / y))):
        found = lrp.vjp(f, x, method)[1](R)
        np.testing.assert_allclose(found, wanted, atol=1e-6 * np.abs(wanted).max(), err_msg=method)
