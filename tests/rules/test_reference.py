"""lrpjax against captum and zennit on the same weights, map by map.

reference/make_reference.py made the arrays and says with which options.
"""

from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import lrpjax as lrp
from lrpjax.composites import by_kind, first_layer, or_else
from lrpjax.rules import rule

pytestmark = pytest.mark.usefixtures("quick_compile")

# Of the largest entry. Both sides compute one formula in double precision.
EXACT = 1e-12
# zennit adds its stabiliser, 1e-9, also to Flat's counts of 27; lrpjax adds nothing to them.
STABILISED = 1e-10
# captum rounds the weights of a quadrature, and the sums of Occlusion, to float32.
FLOAT32 = 1e-7
STEPS = 32
LOW, HIGH = -3.0, 4.0

FOLDER = Path(__file__).parents[1] / "reference"
FILES = {name: dict(np.load(FOLDER / f"{name}.npz")) for name in ("sequential", "residual")}
IMAGE, BASELINES = FILES["sequential"]["baselines"][0], FILES["sequential"]["baselines"]


def conv(p, name, x, stride=1, padding=0):
    y = lax.conv_general_dilated(
        x,
        p[f"{name}.weight"],
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def dense(p, name, x):
    return x @ p[f"{name}.weight"] + p[f"{name}.bias"]


def batch_norm(p, name, x):
    mean, var, scale, shift = (
        p[f"{name}.{field}"] for field in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / jnp.sqrt(var + 1e-5) * scale + shift


def max_pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def sequential(p, x):
    h = jax.nn.relu(conv(p, "conv1", x))
    h = max_pool(jax.nn.relu(conv(p, "conv2", h, stride=2, padding=1)))
    h = h.transpose(0, 3, 1, 2).reshape(len(h), -1)  # torch flattens channels first
    return dense(p, "fc2", jax.nn.relu(dense(p, "fc1", h)))


def residual(p, x):
    h = max_pool(jax.nn.relu(batch_norm(p, "bn1", conv(p, "conv1", x, padding=1))))
    branch = jax.nn.relu(batch_norm(p, "bn2", conv(p, "conv2", h, stride=2, padding=1)))
    branch = batch_norm(p, "bn3", conv(p, "conv3", branch, padding=1))
    h = jax.nn.relu(branch + batch_norm(p, "bn4", conv(p, "conv4", h, stride=2)))
    return dense(p, "fc", h.mean((1, 2)))


@cache
def model(net):
    prefix = "parameter "
    parameters = {
        key.removeprefix(prefix): jnp.asarray(value)
        for key, value in FILES[net].items()
        if key.startswith(prefix)
    }
    return partial({"sequential": sequential, "residual": residual}[net], parameters)


def deeplift(**options):
    return "deeplift-rescale", options, EXACT


def integrated(quadrature, steps=STEPS, tolerance=EXACT, baseline=IMAGE):
    return (
        "integrated-gradients",
        {"quadrature": quadrature, "steps": steps, "baseline": baseline},
        tolerance,
    )


def occlusion(window, stride, baseline):
    return "occlusion", {"window": window, "stride": stride, "baseline": baseline}, FLOAT32


# map: name and options of the method, and the tolerance
CAPTUM = {
    "DeepLift zero": deeplift(baseline=0.0),
    "DeepLift image": deeplift(baseline=IMAGE),
    "DeepLift without copy": deeplift(baseline=IMAGE, max_pool="gradient"),
    "DeepLiftShap": deeplift(baselines=BASELINES),
    "InputXGradient": ("input-x-gradient", {}, EXACT),
    "GuidedBackprop": ("guided-bp", {}, EXACT),
    "Deconvolution": ("deconv", {}, EXACT),
    "IntegratedGradients zero": integrated("gauss-legendre", STEPS, FLOAT32, 0.0),
    "IntegratedGradients gausslegendre": integrated("gauss-legendre", STEPS, FLOAT32),
    "IntegratedGradients gausslegendre 2": integrated("gauss-legendre", 2),
    "IntegratedGradients riemann_left": integrated("left"),
    "IntegratedGradients riemann_right": integrated("right"),
    "IntegratedGradients riemann_middle": integrated("middle"),
    "Occlusion zero": occlusion((4, 4), (4, 3), 0.0),
    "Occlusion image": occlusion((4, 4), (4, 3), IMAGE),
    "Occlusion dense": occlusion((2, 3), (1, 1), 0.0),
}
TRAPEZOID = "IntegratedGradients riemann_trapezoid"

ADDED = {"stabiliser": 1e-9}  # by zennit to each denominator, whatever its size
get = partial(lrp.methods.get, **ADDED)
ZBOX = or_else(
    first_layer(rule(lrp.rules.zbox, low=LOW, high=HIGH, **ADDED)), get("lrp-epsilon").composite
)
# zennit's EpsilonPlusFlat as it stands keeps the positive part of the bias in z+'s denominator.
EPSILON_PLUS_SPLIT_FLAT = or_else(
    by_kind(conv=rule(lrp.rules.alpha_beta, alpha=1, beta=0, bias="split", **ADDED)),
    get("lrp-epsilon").composite,
)
ZENNIT = {
    "Epsilon": (get("lrp-epsilon"), EXACT),
    "Epsilon 0.25": (get("lrp-epsilon", epsilon=0.25), EXACT),
    "Epsilon stabiliser": (get("lrp-z"), EXACT),
    "Gamma": (get("lrp-gamma"), EXACT),
    "ZPlus": (get("lrp-zplus"), EXACT),
    "ZPlus split": (get("lrp-alpha1-beta0", bias="split"), EXACT),
    "AlphaBeta": (get("lrp-alpha2-beta1"), EXACT),
    "AlphaBeta split": (get("lrp-alpha2-beta1", bias="split"), EXACT),
    "Flat": (get("lrp-flat"), EXACT),
    "WSquare": (get("lrp-wsquare"), EXACT),
    "ZBox": (lrp.methods.Method("zbox", ZBOX), EXACT),
    "EpsilonPlusFlat": (
        lrp.methods.Method(
            "epsilon-plus-split-flat",
            or_else(first_layer(rule(lrp.rules.flat)), EPSILON_PLUS_SPLIT_FLAT),
        ),
        STABILISED,
    ),
    "EpsilonPlusFlat unbiased": (get("epsilon-plus-flat"), STABILISED),
    "EpsilonGammaBox": (get("epsilon-gamma-box", low=LOW, high=HIGH), EXACT),
}


def check(net, name, method, tolerance, *, scale=1.0):
    file = FILES[net]
    expected = scale * file[f"map {name}"]
    found = lrp.attribute(model(net), file["images"], method, target=file["target"])
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * abs(expected).max())


@pytest.mark.parametrize("net", FILES)
def test_the_networks_compute_what_torch_computes(net):
    found = model(net)(FILES[net]["images"])
    np.testing.assert_allclose(found, FILES[net]["logits"], rtol=0, atol=EXACT)


@pytest.mark.parametrize("net", FILES)
@pytest.mark.parametrize("name", CAPTUM)
def test_maps_are_those_of_captum(net, name):
    method, options, tolerance = CAPTUM[name]
    check(net, f"captum {name}", lrp.methods.get(method, **options), tolerance)


@pytest.mark.parametrize("net", FILES)
def test_the_trapezoid_is_captums_with_weights_that_sum_to_1(net):
    """captum gives n nodes the weights 1/n, halved at both ends: their sum is 1 - 1/n, not 1."""
    method, options, tolerance = integrated("trapezoid")
    method = lrp.methods.get(method, **options)
    check(net, f"captum {TRAPEZOID}", method, tolerance, scale=STEPS / (STEPS - 1))


@pytest.mark.parametrize("name", ZENNIT)
def test_maps_are_those_of_zennit(name):
    check("sequential", f"zennit {name}", *ZENNIT[name])


def test_every_stored_map_is_compared():
    stored = {(net, key) for net, file in FILES.items() for key in file if key.startswith("map ")}
    compared = {(net, f"map captum {name}") for net in FILES for name in (*CAPTUM, TRAPEZOID)}
    assert stored == compared | {("sequential", f"map zennit {name}") for name in ZENNIT}
