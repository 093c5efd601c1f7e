"""Integrated gradients and SmoothGrad: against integrals, sums by hand and expectations."""

from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracle
from helpers import oracle_estimators as by_hand
from scipy.stats import kstest

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

SAME = 1e-12  # float64: the same sums in another order, relative to the largest entry
ERRORS = 5  # standard errors that a mean may be off: a fair one is in less than 1 case in 10^6
FAIR = 1e-3  # a smaller p-value is not believed to be chance

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 4, 3, 2))
KERNELS = [RNG.normal(size=s) for s in ((3, 3, 2, 2), (24, 9), (9, 3))]
get = lrp.methods.get
close = partial(oracle.assert_close, tolerance=SAME)


def network(x):
    numbers = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(x, KERNELS[0], (1, 1), "SAME", dimension_numbers=numbers)
    x = jax.nn.relu(x + 0.5).reshape(len(x), -1)
    return jax.nn.relu(x @ KERNELS[1]) @ KERNELS[2]


def attribute(x, name, target=1, model=network, **options):
    return np.asarray(lrp.attribute(model, x, get(name, **options), target=target))


def table(argument, cases):
    """Parametrises a test over a dictionary from readable names to values."""
    return pytest.mark.parametrize(argument, cases.values(), ids=cases)


# --- integrated gradients ------------------------------------------------------------------------

INPUT = (2, 3, 1)
SMOOTH = by_hand.TanhNet(RNG.normal(size=(6, 5)), RNG.normal(size=5), RNG.normal(size=(5, 3)))
TINY = RNG.normal(size=(2, *INPUT))
BASELINES = {
    "number": 0.25,
    "image": RNG.normal(size=INPUT),
    "set": RNG.normal(size=(3, *INPUT)),
    "set as large as the images": RNG.normal(size=(2, *INPUT)),
}


def smooth_model(x):
    return jnp.tanh(x.reshape(len(x), -1) @ SMOOTH.W + SMOOTH.b) @ SMOOTH.V


def images(baseline):
    """The baseline as a list of single images."""
    return np.broadcast_to(baseline, (1, *INPUT)) if np.ndim(baseline) < 4 else baseline


def gain(baseline, target):
    """f(x) - f(x0) of each image, the mean over the baselines."""
    return (SMOOTH.logits(TINY) - SMOOTH.logits(images(baseline)).mean(0))[:, target]


def option(baseline):
    return {"baseline" if np.ndim(baseline) < 4 else "baselines": baseline}


def with_delta(baseline, **options):
    method = get("integrated-gradients", **option(baseline), **options)
    found, delta = method.attribute_with_delta(smooth_model, TINY, target=2)
    return np.asarray(found), np.asarray(delta)


@table("baseline", BASELINES)
def test_integrated_gradients_are_the_integral(baseline):
    integral = [SMOOTH.integrated(TINY, x0, 2) for x0 in images(baseline)]
    found, delta = with_delta(baseline)
    oracle.assert_close(found, np.mean(integral, axis=0))
    np.testing.assert_allclose(found.sum((1, 2, 3)), gain(baseline, 2), rtol=oracle.TOLERANCE)
    np.testing.assert_allclose(delta, np.zeros(len(TINY)), atol=oracle.TOLERANCE)


@pytest.mark.parametrize("quadrature", by_hand.QUADRATURES)
def test_quadratures_and_delta(quadrature):
    baseline = BASELINES["set"]
    found, delta = with_delta(baseline, steps=4, quadrature=quadrature)
    m = partial(SMOOTH.gradient, target=2)
    rule = by_hand.quadrature(quadrature, 4)
    close(found, np.mean([by_hand.path_integral(m, TINY, x0, *rule) for x0 in baseline], axis=0))
    options = {"steps": 4, "quadrature": quadrature, **option(baseline)}
    close(attribute(TINY, "integrated-gradients", 2, smooth_model, **options), found)
    expected = found.sum((1, 2, 3)) - gain(baseline, 2)
    np.testing.assert_allclose(delta, expected, atol=SAME)
    assert np.abs(expected).min() > 1000 * SAME  # four steps do not integrate exactly


# The integral of 3 a^2 is 1; by four nodes it is one of these sums, worked out by hand.
CUBIC = {
    "left": Fraction(3 * (0 + 1 + 4 + 9), 64),
    "right": Fraction(3 * (1 + 4 + 9 + 16), 64),
    "middle": Fraction(3 * (1 + 9 + 25 + 49), 256),
    "trapezoid": Fraction(3 * (1 + 4), 27) + Fraction(3, 6),
    "gauss-legendre": Fraction(1),
}


@pytest.mark.parametrize("quadrature", CUBIC)
def test_quadratures_of_a_cubic_function(quadrature):
    w = RNG.normal(size=(4, 3))
    x = RNG.normal(size=(2, 4))
    found = attribute(
        x, "integrated-gradients", 1, lambda x: x**3 @ w, steps=4, quadrature=quadrature
    )
    close(found, float(CUBIC[quadrature]) * x**3 * w[:, 1])


@pytest.mark.parametrize("degree", range(2, 7))
def test_gauss_legendre_is_exact_for_polynomials(degree):
    """n nodes integrate a derivative of degree 2 n - 1 exactly, and none of degree 2 n."""
    x, x0 = np.array([[2.0, -1.5]]), 0.5
    model = lambda x: x**degree @ np.ones((2, 1))
    found = partial(attribute, x, "integrated-gradients", 0, model, baseline=x0)
    steps = -(-degree // 2)
    close(found(steps=steps), x**degree - x0**degree)
    if degree > 2:
        assert oracle.error(found(steps=steps - 1), x**degree - x0**degree) > 1e-3


def test_the_target_is_the_largest_logit_at_the_image_itself():
    x = np.array([[2.0]])  # x^3 is the larger here, x on the path below 1
    model = lambda x: jnp.concatenate([x, x**3], axis=-1)
    method = get("integrated-gradients", steps=2)
    found, delta = method.attribute_with_delta(model, x)
    close(found, np.array([[8.0]]))
    np.testing.assert_allclose(delta, 0, atol=8 * SAME)


OTHERS = {
    "input-x-gradient": "input-x-gradient",
    "lrp-epsilon": "lrp-epsilon",
    "a value": lrp.methods.alpha_beta(2, 1, bias="split"),
    "smooth-grad": get("smooth-grad", samples=2, key=KEY),
    "integrated-gradients": get("integrated-gradients", steps=2, baseline=0.5),
    "occlusion": get("occlusion", window=3),
    "contrastive-lrp": "contrastive-lrp",
}


@table("base", OTHERS)
def test_integrated_gradients_over_other_methods(base):
    found = attribute(X, "integrated-gradients", base=base, steps=3, baseline=0.5)
    m = lambda x: lrp.attribute(network, x, base, target=1)
    close(found, by_hand.path_integral(m, X, 0.5, *by_hand.quadrature("gauss-legendre", 3)))


# --- smooth-grad ---------------------------------------------------------------------------------


def half_square(x):
    return (x**2).reshape(len(x), -1).sum(1, keepdims=True) / 2


def noise(x, samples, **options):
    """The noise of each sample: the gradient of half the square of x + n is x + n itself."""
    means = [
        k * attribute(x, "smooth-grad", 0, half_square, samples=k, **options)
        for k in range(1, samples + 1)
    ]
    return np.diff(means, axis=0, prepend=0) - x


def test_noise_is_normal_with_the_range_of_each_image():
    x = RNG.uniform(size=(2, 20, 20, 3)) * np.reshape([1, 30], (2, 1, 1, 1)) - 7
    sigma = 0.2 * (x.max((1, 2, 3)) - x.min((1, 2, 3)))
    drawn = noise(x, 2, key=KEY, noise=0.2).reshape(2, 2, -1) / sigma[:, None]
    # Taking x from x + n leaves the rounding of x + n, here up to 30 x 2 / 0.2 of the noise.
    np.testing.assert_allclose(drawn[:, 0], drawn[:, 1], atol=1000 * SAME)
    for values in drawn[:, 0]:
        assert kstest(values, "norm").pvalue > FAIR
    between = np.corrcoef(drawn[:, 0])[0, 1]  # of two samples
    assert np.abs(between) < ERRORS / np.sqrt(drawn.shape[-1])


def test_noise_depends_on_the_key_and_not_on_the_place_in_the_batch():
    first, other = noise(X, 1, key=KEY)[0]
    assert np.abs(first - noise(X, 1, key=jax.random.key(1))[0, 0]).max() > 0.1
    alone = noise(X[1:], 1, key=KEY)[0, 0]
    turned = noise(X[::-1], 1, key=KEY)[0]
    # Taking x from x + n leaves the rounding of x + n.
    np.testing.assert_allclose(alone, other, atol=SAME)
    np.testing.assert_allclose(turned, [other, first], atol=SAME)


FORMS = {
    "mean": lambda maps: maps.mean(0),
    "square": lambda maps: (maps**2).mean(0),
    "variance": lambda maps: maps.var(0),
}


SMOOTHED = {f"gradient-{form}": ("gradient", form) for form in FORMS} | {
    name: (base, "mean") for name, base in OTHERS.items()
}


@table(("base", "form"), SMOOTHED)
def test_smooth_grad_over_methods(base, form):
    options = {"samples": 3, "key": KEY}
    found = attribute(X, "smooth-grad", base=base, form=form, **options)
    at = [lrp.attribute(network, X + n, base, target=1) for n in noise(X, **options)]
    # The noise is recovered up to rounding, which the loop over the samples does not see.
    oracle.assert_close(found, FORMS[form](np.stack(at)))


def test_smooth_grad_of_a_linear_model_is_its_gradient():
    w = RNG.normal(size=(6, 3))
    found = lambda form: attribute(
        TINY, "smooth-grad", 1, lambda x: x.reshape(len(x), -1) @ w, key=KEY, form=form
    )
    expected = np.broadcast_to(w[:, 1].reshape(INPUT), TINY.shape)
    close(found("mean"), expected)
    close(found("square"), expected**2)
    np.testing.assert_allclose(found("variance"), 0, atol=SAME)


def test_smooth_grad_of_a_quadratic_model_is_its_expectation():
    """The gradient of x^T H x / 2 + g x at x + n is H x + g + H n: normal, known mean and size."""
    samples, (A, v, g) = 4000, (RNG.normal(size=s) for s in ((6, 4), 4, 6))
    model = lambda x: ((x @ A) ** 2 @ v / 2 + x @ g)[:, None]
    x = np.stack([RNG.normal(size=6), 5 * RNG.normal(size=6)])
    found = lambda form: attribute(
        x, "smooth-grad", 0, model, samples=samples, key=KEY, form=form, noise=0.1
    )
    H = (A * v) @ A.T
    sigma = 0.1 * np.ptp(x, axis=1, keepdims=True)
    mean, variance = x @ H + g, sigma**2 * (H**2).sum(1)
    # The standard deviations of g, g^2 and (g - its mean)^2 for a normal g.
    spread = {
        "mean": np.sqrt(variance),
        "square": np.sqrt(2 * variance**2 + 4 * mean**2 * variance),
        "variance": np.sqrt(2) * variance,
    }
    expected = {"mean": mean, "square": mean**2 + variance, "variance": variance}
    for form in FORMS:
        off = np.abs(found(form) - expected[form]) / (spread[form] / np.sqrt(samples))
        assert off.max() < ERRORS, form
