"""Every rule for linear layers against the dense oracle, on every kind of linear layer."""

import zlib
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracle

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

LOW, HIGH = -3.0, 4.0
SEVEN_DIGITS = 1e-7  # where the expected value is a fraction: the stabiliser moves it by 1e-9


def conv(layout, strides, padding, **options):
    spatial = layout.strip("N").replace("C", "")
    kernel = spatial + "IO" if layout[-1] == "C" else "OI" + spatial
    options["dimension_numbers"] = (layout, kernel, layout)
    return lambda x, w: jax.lax.conv_general_dilated(x, w, strides, padding, **options)


def transposed(x, w):
    return jax.lax.conv_transpose(x, w, (2, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


# name: shape of one input, of the kernel and of the bias, and the layer without its bias
LAYERS = {
    "dense": ((7,), (7, 4), (4,), lambda x, w: x @ w),
    "dense-on-the-right": ((7,), (4, 7), (4,), lambda x, w: (w @ x.T).T),
    "dense-per-position": ((3, 5), (5, 2), (2,), lambda x, w: x @ w),
    "dense-per-head": ((2, 5), (2, 5, 3), (2, 3), partial(jnp.einsum, "nhi,hio->nho")),
    "conv1d-same": ((7, 3), (3, 3, 2), (2,), conv("NWC", (1,), "SAME")),
    "conv2d-same": ((5, 4, 3), (3, 3, 3, 2), (2,), conv("NHWC", (1, 1), "SAME")),
    "conv2d-valid-strided": ((5, 5, 3), (3, 2, 3, 2), (2,), conv("NHWC", (2, 1), "VALID")),
    "conv2d-asymmetric": ((4, 5, 2), (3, 3, 2, 2), (2,), conv("NHWC", (1, 2), ((0, 2), (1, 0)))),
    "conv2d-nchw": ((3, 5, 4), (2, 3, 3, 2), (2, 1, 1), conv("NCHW", (2, 1), "SAME")),
    "conv2d-dilated": (
        (5, 4, 2), (3, 2, 2, 2), (2,), conv("NHWC", (1, 1), "SAME", rhs_dilation=(2, 2))
    ),
    "conv2d-grouped": (
        (4, 4, 4), (3, 3, 2, 4), (4,), conv("NHWC", (1, 1), "SAME", feature_group_count=2)
    ),
    "conv2d-depthwise": (
        (4, 4, 3), (3, 3, 1, 6), (6,), conv("NHWC", (1, 1), "SAME", feature_group_count=3)
    ),
    "conv3d": ((3, 4, 3, 2), (2, 3, 2, 2, 2), (2,), conv("NDHWC", (1, 1, 1), "SAME")),
    "conv2d-transposed": ((3, 4, 2), (3, 3, 2, 2), (2,), transposed),
}  # fmt: skip

ZBOX = lrp.composites.by_kind(
    linear=lrp.rules.rule(lrp.rules.zbox, low=LOW, high=HIGH),
    activation=lrp.rules.rule(lrp.rules.pass_),
    structure=lrp.rules.rule(lrp.rules.gradient),
)
RULES = {
    "z": ("lrp-z", oracle.z),
    "epsilon": (lrp.methods.epsilon(0.25), partial(oracle.z, eps=0.25)),
    "gamma": (lrp.methods.gamma(0.5), partial(oracle.gamma, gamma=0.5)),
    "zplus": ("lrp-zplus", oracle.zplus),
    "alpha2-beta1": ("lrp-alpha2-beta1", partial(oracle.alpha_beta, alpha=2, beta=1)),
    "flat": ("lrp-flat", oracle.flat),
    "wsquare": ("lrp-wsquare", oracle.wsquare),
    "zbox": (lrp.methods.Method("zbox", ZBOX), partial(oracle.zbox, low=LOW, high=HIGH)),
} | {
    f"alpha2-beta1-{bias}": (
        lrp.methods.alpha_beta(2, 1, bias=bias),
        partial(oracle.alpha_beta, alpha=2, beta=1, bias=bias),
    )
    for bias in ("signed", "split")
}
NAMED = {
    "lrp-epsilon": partial(oracle.z, eps=1e-6),
    "lrp-gamma": partial(oracle.gamma, gamma=0.25),
    "lrp-alpha1-beta0": oracle.zplus,
    "lrp-alpha5-beta4": partial(oracle.alpha_beta, alpha=5, beta=4),
    "lrp-cmp-alpha2-beta1": partial(oracle.alpha_beta, alpha=2, beta=1),
    "epsilon-plus-flat": oracle.flat,
    "excitation-bp": oracle.zplus,
}


@dataclass(frozen=True, eq=False)
class Setting:
    """A layer with its weights, its matrix, and an input and a relevance of mixed sign."""

    model: Any
    matrix: oracle.Affine
    x: np.ndarray
    R: np.ndarray


@cache
def under_every_rule(setting):
    """The library's relevance, in one compiled program: what takes long is to compile."""

    def found(x, R):
        return {
            name: lrp.vjp(setting.model, x, method)[1](R) for name, (method, _) in RULES.items()
        }

    return jax.jit(found)(setting.x, setting.R)


def assert_agrees(setting, rule):
    expected = oracle.batched(RULES[rule][1], setting.matrix, setting.x, setting.R)
    oracle.assert_close(under_every_rule(setting)[rule], expected)


def random(name):
    """A source of normal numbers that depends on the name alone."""
    return np.random.default_rng(zlib.crc32(name.encode())).normal


@cache
def setting(name, bias=True):
    x_shape, w_shape, b_shape, apply = LAYERS[name]
    normal = random(name)
    w, b, x = normal(size=w_shape), normal(size=b_shape), normal(size=(2, *x_shape))
    w.flat[::5] = 0  # a weight of zero still connects
    model = (lambda x: apply(x, w) + b) if bias else (lambda x: apply(x, w))
    wiring = lambda x: apply(x, np.ones_like(w))
    matrix = oracle.affine(model, x_shape, wiring)
    return Setting(model, matrix, x, normal(size=model(x).shape))


@cache
def behind_relu(name):
    """The layer with an input that the library can tell to be non-negative."""
    known = setting(name)
    model = lambda x: known.model(jax.nn.relu(x))
    return replace(known, model=model, x=np.maximum(known.x, 0))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layer", LAYERS)
def test_rule_on_layer_with_bias(layer, rule):
    assert_agrees(setting(layer), rule)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layer", ["dense", "dense-on-the-right", "conv2d-same"])
def test_rule_on_layer_without_bias(layer, rule):
    assert_agrees(setting(layer, bias=False), rule)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "layer", ["dense", "dense-on-the-right", "conv2d-asymmetric", "conv2d-depthwise", "conv3d"]
)
def test_rule_on_inputs_known_to_be_non_negative(layer, rule):
    """Behind a ReLU the signed parts come from fewer products; relevance passes the ReLU, and the
    box has its bounds."""
    known, of = behind_relu(layer), RULES[rule][1]
    of = partial(oracle.zbox, low=0.0, high=HIGH) if rule == "zbox" else of
    expected = oracle.batched(of, known.matrix, known.x, known.R)
    oracle.assert_close(under_every_rule(known)[rule], expected)


@pytest.mark.parametrize("method", NAMED)
def test_named_method_on_a_convolution(method):
    """The names stand for these parameters."""
    known = setting("conv2d-same")
    _, rel = lrp.vjp(known.model, known.x, method)
    expected = oracle.batched(NAMED[method], known.matrix, known.x, known.R)
    oracle.assert_close(rel(known.R), expected)


def normalise(statistics, h):
    mean, var, scale, shift = statistics
    return (h - mean) * (scale / np.sqrt(var + 1e-3)) + shift


def per_channel(factors, x):
    return x * factors[0] + factors[1]


# name: the layer in the middle, what comes before it and after it, the range of the input
AROUND = {
    "conv-batchnorm": ("conv2d-same", None, normalise, 1),
    "conv-nchw-batchnorm": ("conv2d-nchw", None, normalise, 1),
    "dense-batchnorm": ("dense", None, normalise, 1),
    "scaling-conv": ("conv2d-same", lambda _, x: x / 127.5 - 1, None, 100),
    "affine-conv-batchnorm": ("conv2d-asymmetric", per_channel, normalise, 1),
}


@cache
def composed(name):
    """The setting of the whole, and the parts: what is before, the layer, what is after."""
    layer, before, after, size = AROUND[name]
    inner, normal = setting(layer), random(name)
    x_shape, w_shape, b_shape, apply = LAYERS[layer]
    statistics = np.abs(normal(size=(4, *b_shape)))
    statistics[2] *= np.resize([1, -1], b_shape)  # of the scale: both signs
    factors = normal(size=(2, x_shape[-1]))
    parts = [
        partial(before, factors) if before else None,
        inner.model,
        partial(after, statistics) if after else None,
    ]
    parts = [part for part in parts if part]

    def whole(x, parts=tuple(parts)):
        for part in parts:
            x = part(x)
        return x

    ones = lambda x: apply(x, np.ones(w_shape))
    wired = tuple(ones if part is inner.model else part for part in parts)
    matrix = oracle.affine(whole, x_shape, partial(whole, parts=wired))
    return Setting(whole, matrix, inner.x * size, inner.R), parts


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", AROUND)
def test_constants_around_a_product_are_one_layer_with_it(name, rule):
    """BatchNorm and input scaling fold in: the rule acts on the composed map."""
    assert_agrees(composed(name)[0], rule)


@pytest.mark.parametrize("name", ["conv-batchnorm", "affine-conv-batchnorm"])
@pytest.mark.parametrize("rule", ["lrp-z", "lrp-gamma", "lrp-alpha2-beta1"])
def test_unfolded_batchnorm_is_a_layer_of_its_own(name, rule):
    rules = NAMED | {"lrp-z": oracle.z, "lrp-alpha2-beta1": RULES["alpha2-beta1"][1]}
    whole, parts = composed(name)
    inputs = [whole.x]
    for part in parts:
        inputs.append(np.asarray(part(inputs[-1])))
    expected = whole.R
    for part, x in reversed(list(zip(parts, inputs, strict=False))):
        expected = oracle.batched(rules[rule], oracle.affine(part, x.shape[1:]), x, expected)
    _, rel = lrp.vjp(whole.model, whole.x, lrp.methods.get(rule, fold=False))
    oracle.assert_close(rel(whole.R), expected)


def test_folding_makes_a_difference():
    whole, _ = composed("conv-batchnorm")
    found = [
        lrp.vjp(whole.model, whole.x, lrp.methods.get("lrp-gamma", fold=fold))[1](whole.R)
        for fold in (True, False)
    ]
    assert oracle.error(*found) > 1e-3


absolute = partial(lrp.methods.get, stabiliser=1e-9)

# One unit: weights, bias, input and relevance, and the relevance of the input by hand.
BY_HAND = {
    # c = (1, -1), A = 1, N = -1: (1/1 R, 0) and (2/1 R, -1 (-1/-1) R)
    "negative-bias-alpha1": ((1, -1), -1, (1, 1), -1, "lrp-alpha1-beta0", (-1, 0)),
    "negative-bias-alpha2": ((1, -1), -1, (1, 1), -1, "lrp-alpha2-beta1", (-2, 1)),
    # A = 1 + max(-1, 0) = 1, N = -1 + min(-1, 0) = -2: (2/1 R, -1 (-1/-2) R)
    "negative-bias-split": (
        (1, -1), -1, (1, 1), -1, lrp.methods.alpha_beta(2, 1, bias="split"), (-2, 1 / 2)
    ),
    # A = 1 - 1 = 0, which counts as 1e-9, N = -1 - 1 = -2: (1/1e-9 R, 0) and as above
    "negative-bias-signed-alpha1": (
        (1, -1), -1, (1, 1), -1, absolute("lrp-alpha1-beta0", bias="signed"), (-1e9, 0)
    ),
    "negative-bias-signed-alpha2": (
        (1, -1), -1, (1, 1), -1, absolute("lrp-alpha2-beta1", bias="signed"), (-2e9, 1 / 2)
    ),
    # c = (1, 2), all of it positive though both inputs have another sign than in w+ x
    "zplus-negative-input": ((-1, 1), 0, (-1, 2), 3, "lrp-zplus", (1, 2)),
    # c = (-1, -2): nothing is positive, and relevance ends here
    "zplus-nothing-positive": ((1, -2), 5, (-1, 1), 3, "lrp-zplus", (0, 0)),
    # c = (1, 2), nothing is negative: 2 (1/3, 2/3) R
    "alpha2-nothing-negative": ((1, 2), 0, (1, 1), 3, "lrp-alpha2-beta1", (2, 4)),
    # z = 1 - 1 = 0, which counts as 1e-9 or 1e-6; or as infinite, as all z of the layer are 0
    "z-of-zero": ((1, -1), 0, (1, 1), 1, absolute("lrp-z"), (1e9, -1e9)),
    "z-of-nothing-but-zero": ((1, -1), 0, (1, 1), 1, "lrp-z", (0, 0)),
    "epsilon-of-zero": ((1, -1), 0, (1, 1), 1, "lrp-epsilon", (1e6, -1e6)),
    # at z = 0 the sign is +: (1 + 1/4, -1) / (0 + 1/4)
    "gamma-of-zero": ((1, -1), 0, (1, 1), 1, "lrp-gamma", (5, -4)),
    # z = 1 - 2 - 1 = -2, s = -: (1, -2 - 2/4) / (-2 + (-2 - 1)/4) = (1, -5/2) / (-11/4)
    "gamma-negative": ((1, -2), -1, (1, 1), 11, "lrp-gamma", (-4, 10)),
}  # fmt: skip


@pytest.mark.parametrize("case", BY_HAND)
def test_one_unit_by_hand(case):
    """Among them zennit#107 and innvestigate#273 (negative bias), captum#1234 (negative input)."""
    w, b, x, R, method, expected = BY_HAND[case]
    w, b, x = np.array(w, float), np.array([b], float), np.array([x], float)
    _, rel = lrp.vjp(lambda x: x @ w[:, None] + b, x, method)
    found = np.asarray(rel(np.array([[R]], float)))[0]
    np.testing.assert_allclose(found, expected, rtol=SEVEN_DIGITS, atol=0)


def test_wsquare_shares_all_of_the_relevance_where_weights_are_small():
    """The shares w^2 / sum w^2 do not depend on the size of the weights (as behind x / 127.5)."""
    x, R, w = np.ones((1, 3)), np.array([[2.0]]), 1e-4 * np.array([[1.0], [2.0], [3.0]])
    _, rel = lrp.vjp(lambda x: x @ w, x, "lrp-wsquare")
    np.testing.assert_allclose(rel(R), [[2 / 14, 8 / 14, 18 / 14]], rtol=SEVEN_DIGITS)


def of_positive_weights(layer, x, R):
    """x w+ in place of (x w)+"""
    c = np.maximum(layer.W, 0) * x
    return c.T @ (R / oracle.stabilise(c.sum(1)))


def of_absolute_weights(layer, x, R):
    return np.abs(layer.W).T @ (R / np.abs(layer.W).sum(1))


def everywhere(layer, x, R):
    most = layer.connected.sum(1).max()
    return layer.connected.T @ (R / most)


def always_positive_gamma(layer, x, R):
    c = layer.W * x
    c, z = c + 0.5 * np.maximum(c, 0), c.sum(1) + layer.b
    return c.T @ (R / (z + 0.5 * (np.maximum(layer.W * x, 0).sum(1) + np.maximum(layer.b, 0))))


# rule: an oracle that is wrong in one respect
WRONG = {
    "z without the bias": ("z", lambda layer, x, R: oracle.z(replace(layer, b=0), x, R)),
    "epsilon of another size": ("epsilon", partial(oracle.z, eps=0.2)),
    "gamma for positive outputs only": ("gamma", always_positive_gamma),
    "zplus of x and w+": ("zplus", of_positive_weights),
    "alpha without beta": ("alpha2-beta1", partial(oracle.alpha_beta, alpha=2, beta=0)),
    "no bias for signed": ("alpha2-beta1-signed", RULES["alpha2-beta1"][1]),
    "signed for split": ("alpha2-beta1-split", RULES["alpha2-beta1-signed"][1]),
    "flat that counts padding": ("flat", everywhere),
    "wsquare of |w|": ("wsquare", of_absolute_weights),
    "zbox with its bounds swapped": ("zbox", partial(oracle.zbox, low=HIGH, high=LOW)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_oracle_is_noticed(wrong):
    """The comparisons above can fail."""
    rule, mistaken = WRONG[wrong]
    known = setting("conv2d-same")
    expected = oracle.batched(mistaken, known.matrix, known.x, known.R)
    assert oracle.error(under_every_rule(known)[rule], expected) > 1e-3
