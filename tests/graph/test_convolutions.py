"""Transposes of convolutions in a cheaper form: the numbers of JAX's own transpose."""

import itertools

import jax
import numpy as np
import pytest
from helpers import oracle
from jax import lax

import lrpjax as lrp

LAYOUTS = {
    "NHWC": (("NHWC", "HWIO", "NHWC"), (2, 13, 11, 3)),
    "NCHW": (("NCHW", "OIHW", "NCHW"), (2, 3, 13, 11)),
    "mixed": (("HWNC", "OHWI", "NCHW"), (13, 11, 2, 3)),
}
PADDINGS = ("SAME", "VALID", ((3, 1), (0, 2)), ((-1, 0), (1, -1)))
CASES = [
    *itertools.product(LAYOUTS, (1, 2, 3, 7), ((2, 2), (3, 1), (4, 4)), PADDINGS),
    *itertools.product(LAYOUTS, (1,), ((1, 1),), PADDINGS),
]


@pytest.mark.usefixtures("quick_compile")
@pytest.mark.parametrize(("layout", "side", "strides", "padding"), CASES)
def test_relevance_of_a_strided_convolution(layout, side, strides, padding):
    """The w-square rule is J^T (R / J 1) with squared weights, J^T by `jax.vjp`."""
    numbers, shape = LAYOUTS[layout]
    rng = np.random.default_rng(side)
    sizes = {"H": side, "W": side, "I": 3, "O": 4}
    x, w = rng.normal(size=shape), rng.normal(size=[sizes[letter] for letter in numbers[1]])
    conv = lambda x, w: lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=numbers)
    z, propagate = lrp.vjp(lambda x: conv(x, w), x, "lrp-wsquare")
    R = rng.normal(size=z.shape)
    total, transpose = jax.vjp(lambda x: conv(x, w**2), np.ones_like(x))
    expected = transpose(R / np.where(total == 0, 1, total))[0]
    oracle.assert_close(propagate(R), expected, 1e-12)
