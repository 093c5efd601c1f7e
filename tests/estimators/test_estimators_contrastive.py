"""Contrastive relevance against two chains of the dense oracle, one with the last layer negated."""

from functools import partial

import jax
import numpy as np
import pytest
from flax import nnx
from helpers import oracle
from helpers import oracle_estimators as by_hand

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

SAME = 1e-12  # two maps of sum 1 that differ by rounding alone
TARGET = 2
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 4, 3, 2))
P = {
    "conv": {"kernel": RNG.normal(size=(3, 3, 2, 2)), "bias": RNG.normal(size=2)},
    "fc1": {"kernel": RNG.normal(size=(24, 16)), "bias": RNG.normal(size=16)},
    "fc2": {"kernel": RNG.normal(size=(16, 4)), "bias": RNG.normal(size=4)},
}
get = lrp.methods.get
every_dual = pytest.mark.parametrize("dual", ["classes", "weights"])


def conv(x):
    numbers = ("NHWC", "HWIO", "NHWC")
    out = jax.lax.conv_general_dilated(
        x, P["conv"]["kernel"], (1, 1), "SAME", dimension_numbers=numbers
    )
    return (out + P["conv"]["bias"]).reshape(len(x), -1)


def network(x):
    x = jax.nn.relu(conv(x))
    x = jax.nn.relu(x @ P["fc1"]["kernel"] + P["fc1"]["bias"])
    return x @ P["fc2"]["kernel"] + P["fc2"]["bias"]


def dense(kernel, bias=0.0):
    return oracle.Affine(kernel.T, np.broadcast_to(bias, kernel.shape[1]), kernel.T != 0)


LAYERS = [oracle.affine(conv, X.shape[1:]), dense(**P["fc1"]), dense(**P["fc2"])]


def by_oracle(rule, combine, dual, x=X, layers=LAYERS, **options):
    pairs = [by_hand.target_and_dual(rule, layers, one, TARGET, dual, **options) for one in x]
    return np.stack([combine(*pair) for pair in pairs]).reshape(x.shape)


def attribute(name, model=network, x=X, **options):
    return np.asarray(lrp.attribute(model, x, get(name, **options), target=TARGET))


BASES = {
    "lrp-alpha1-beta0": ("lrp-alpha1-beta0", oracle.zplus),
    "lrp-alpha2-beta1": ("lrp-alpha2-beta1", partial(oracle.alpha_beta, alpha=2, beta=1)),
} | {
    f"lrp-alpha2-beta1-{bias}": (
        lrp.methods.alpha_beta(2, 1, bias=bias),
        partial(oracle.alpha_beta, alpha=2, beta=1, bias=bias),
    )
    for bias in ("signed", "split")
}


@every_dual
@pytest.mark.parametrize("base, rule", BASES.values(), ids=BASES)
def test_contrastive_lrp_is_the_oracles_for_every_base(base, rule, dual):
    expected = by_oracle(rule, by_hand.contrastive, dual)
    oracle.assert_close(attribute("contrastive-lrp", base=base, dual=dual), expected)


@every_dual
def test_contrastive_excitation_bp(dual):
    found = attribute("contrastive-excitation-bp", dual=dual)
    expected = by_oracle(oracle.zplus, np.subtract, dual, others=1 / 3)
    oracle.assert_close(found, expected)
    assert found.min() < 0 < found.max()  # not clipped


def test_contrast_of_gradients():
    """Negated weights of the last layer negate the gradient; the other classes share it."""
    gradients = [np.asarray(lrp.attribute(network, X, "gradient", target=t)) for t in range(4)]
    others = np.mean([g for t, g in enumerate(gradients) if t != TARGET], axis=0)
    found = partial(attribute, "contrastive-excitation-bp", base="gradient")
    oracle.assert_close(found(dual="weights"), 2 * gradients[TARGET])
    oracle.assert_close(found(dual="classes"), gradients[TARGET] - others)


# The signed rules divide c by z, which both change their sign; flat does not look at weights.
EQUAL = [("lrp-z", "weights"), ("lrp-gamma", "weights"), ("lrp-flat", "weights")]


@pytest.mark.parametrize("base, dual", [*EQUAL, ("lrp-flat", "classes")])
def test_equal_maps_give_zero(base, dual):
    found = attribute("contrastive-lrp", base=base, dual=dual)
    np.testing.assert_allclose(found, 0, atol=SAME)


def test_only_the_last_use_of_a_shared_weight_is_negated():
    kernel, x = RNG.normal(size=(9, 9)), RNG.normal(size=(2, 9))
    expected = by_oracle(oracle.zplus, by_hand.contrastive, "weights", x, [dense(kernel)] * 2)
    model = lambda x: jax.nn.relu(x @ kernel) @ kernel
    oracle.assert_close(attribute("contrastive-lrp", model, x, dual="weights"), expected)


@pytest.mark.parametrize("name", ["contrastive-lrp", "contrastive-excitation-bp"])
def test_the_last_layer_of_a_module_is_negated_and_stays_as_it_is(name):
    layer = partial(nnx.Linear, rngs=nnx.Rngs(0), param_dtype=float)
    module = nnx.Sequential(layer(4, 9), nnx.relu, layer(9, 3))
    x = RNG.normal(size=(2, 4))
    before, kernels = module(x), [np.asarray(module.layers[i].kernel[...]) for i in (0, 2)]
    combine = by_hand.contrastive if name == "contrastive-lrp" else np.subtract
    expected = by_oracle(oracle.zplus, combine, "weights", x, [dense(k) for k in kernels])
    oracle.assert_close(attribute(name, module, x, dual="weights"), expected)
    np.testing.assert_array_equal(module(x), before)


def test_the_scale_of_relevance_cancels():
    """Gradients of a model that is 10^9 times smaller are, too; shares of their sum are not."""
    found = partial(attribute, "contrastive-lrp", base="gradient")
    oracle.assert_close(found(lambda x: 1e-9 * network(x)), found())


@every_dual
def test_an_image_without_relevance_gives_zero(dual):
    """Nothing contributes where the image is 0: there is no sum to divide by."""
    x = X * np.reshape([0, 1], (2, 1, 1, 1))
    found = attribute("contrastive-lrp", x=x, dual=dual)
    np.testing.assert_array_equal(found[0], 0)
    assert found[1].max() > 0


def test_without_a_dual_the_map_is_the_normalised_relevance():
    """Where all weights are positive, no contribution is left when they are negated."""
    kernel, x = RNG.uniform(1, 2, size=(6, 3)), RNG.uniform(1, 2, size=(2, 6))
    found = attribute("contrastive-lrp", lambda x: x @ kernel, x, dual="weights")
    relevance = x * kernel[:, TARGET]
    oracle.assert_close(found, relevance / relevance.sum(1, keepdims=True))


def test_a_wrapped_base_starts_from_one_too():
    """SmoothGrad without noise is its base."""
    base = get("smooth-grad", base="lrp-alpha1-beta0", samples=1, noise=0.0, key=jax.random.key(0))
    found = attribute("contrastive-lrp", base=base, dual="classes")
    oracle.assert_close(found, attribute("contrastive-lrp", dual="classes"))
