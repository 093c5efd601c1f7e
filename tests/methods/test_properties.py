"""What holds for every network: linearity, conservation, signs and composition."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jax import lax

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

SUMS = 1e-10  # float64, relative to the largest entry: the same sums in another order
STABILISED = 1e-5  # the stabiliser moves a denominator of size 1e-3 by one part in a million

CHANNELS, CLASSES = 4, 5
LRP = (
    *("lrp-z", "lrp-epsilon", "lrp-gamma", "lrp-zplus", "lrp-alpha2-beta1", "lrp-flat"),
    *("lrp-wsquare", "lrp-cmp-alpha2-beta1", "epsilon-plus-flat"),
)

# Every example compiles a network of its own, so a few must do.
few = settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@dataclass(frozen=True)
class Net:
    """A random network on images of 4 x 4 x 2: its parts, and whether it has biases."""

    parts: tuple[str, ...]
    bias: bool
    seed: int

    @property
    def weights(self):
        rng = np.random.default_rng(self.seed)
        draw = lambda *shape: rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]) / 2)
        offset = lambda size: {"bias": rng.normal(size=size) / 3} if self.bias else {}
        layer = lambda *shape: {"kernel": draw(*shape)} | offset(shape[-1])
        weights = {"first": layer(3, 3, 2, CHANNELS), "last": layer(CHANNELS, CLASSES)}
        for i, part in enumerate(self.parts):
            if part in ("conv", "residual"):
                weights[f"{part}{i}"] = layer(3, 3, CHANNELS, CHANNELS)
            elif part == "dense":
                weights[f"{part}{i}"] = layer(CHANNELS, CHANNELS)
        return weights

    def __call__(self, weights, x):
        x = jax.nn.relu(conv(weights["first"], x))
        for i, part in enumerate(self.parts):
            own = weights.get(f"{part}{i}")
            if part == "conv":
                x = jax.nn.relu(conv(own, x))
            elif part == "dense":
                x = jax.nn.relu(affine(own, x @ own["kernel"]))
            elif part == "residual":
                x = jax.nn.relu(x + conv(own, x))
            elif part == "max":
                x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "VALID")
            else:
                x = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 1, 1, 1), "SAME") / 4
        return affine(weights["last"], x.mean((1, 2)) @ weights["last"]["kernel"])

    @property
    def model(self):
        return jax.tree_util.Partial(self, self.weights)

    @property
    def images(self):
        return np.random.default_rng(self.seed + 1).normal(size=(2, 4, 4, 2))

    def relevance(self, seed=2):
        return np.random.default_rng(self.seed + seed).normal(size=(2, CLASSES))


def affine(p, product):
    return product + p["bias"] if "bias" in p else product


def conv(p, x):
    numbers = ("NHWC", "HWIO", "NHWC")
    product = lax.conv_general_dilated(x, p["kernel"], (1, 1), "SAME", dimension_numbers=numbers)
    return affine(p, product)


def nets(**fixed):
    bias = st.just(fixed["bias"]) if fixed else st.booleans()
    part = st.sampled_from(["conv", "dense", "residual", "max", "mean"])
    parts = st.lists(part, min_size=1, max_size=3).map(tuple)
    return st.builds(Net, parts, bias, st.integers(0, 10**6))


def close(found, wanted, tolerance=SUMS):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


@few
@given(nets(), st.sampled_from(LRP), st.floats(-3, 3), st.floats(-3, 3))
def test_lrp_is_linear_in_relevance(net, method, a, b):
    pull = lrp.vjp(net.model, net.images, method)[1]
    one, two = net.relevance(), net.relevance(3)
    expected = a * pull(one) + b * pull(two)
    np.testing.assert_allclose(
        pull(a * one + b * two), expected, atol=SUMS * np.abs(pull(one)).max()
    )


@few
@given(nets(), st.sampled_from(["guided-bp", "deconv", "rect-grad"]), st.floats(0.1, 10))
def test_rectifying_methods_are_homogeneous(net, method, factor):
    pull = lrp.vjp(net.model, net.images, method)[1]
    close(pull(factor * net.relevance()), factor * pull(net.relevance()))


@few
@given(nets(), st.integers(0, CLASSES - 1))
def test_lrp_z_from_the_logit_is_input_times_gradient(net, target):
    found = lrp.attribute(net.model, net.images, "lrp-z", target=target)
    gradient = jax.grad(lambda x: net(net.weights, x)[:, target].sum())(net.images)
    close(found, net.images * gradient, STABILISED)


@few
@given(nets())
def test_the_gradient_is_that_of_jax(net):
    r = net.relevance()
    expected = jax.vjp(net.model, net.images)[1](r)[0]
    close(lrp.vjp(net.model, net.images, "gradient")[1](r), expected)


@few
@given(nets(), st.sampled_from(["lrp-zplus", "lrp-alpha1-beta0", "excitation-bp"]))
def test_zplus_keeps_relevance_non_negative(net, method):
    x, r = np.abs(net.images), np.abs(net.relevance())
    assert (lrp.vjp(net.model, x, method)[1](r) >= 0).all()


@few
@given(nets(bias=False))
def test_zplus_without_biases_conserves_relevance(net):
    out, pull = lrp.vjp(net.model, net.images, "lrp-zplus")
    # An output has positive contributions to share among if it is positive.
    r = np.abs(net.relevance()) * (out > 0)
    close(pull(r).sum((1, 2, 3)), r.sum(1), STABILISED)


@few
@given(nets(), st.sampled_from(LRP), st.integers(0, 3))
def test_relevance_is_the_composition_of_its_parts(net, method, place):
    own = list(net.weights)
    names = [own[place % len(own)], "first:relu"]
    whole, at = lrp.vjp(net.model, net.images, method, layers=names)[1](net.relevance())
    for name in names:
        if "residual" in name:  # relevance also runs beside this layer
            continue
        close(lrp.vjp(net.model, net.images, method, start=name)[1](at[name]), whole)
