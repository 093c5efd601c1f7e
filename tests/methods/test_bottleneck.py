"""IBA against plain numpy: the divergence, the loss, the whole fit, and what its map means."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import integrate, stats
from scipy.ndimage import gaussian_filter
from scipy.special import expit

import lrpjax as lrp
from lrpjax import bottleneck
from lrpjax.bottleneck import InformationBottleneck, Statistics, iba, information, smooth
from lrpjax.graph.reading import environment, read
from lrpjax.program.evaluation import resumed

EXACT = 1e-10  # float64 sums of up to a few thousand terms
FITTED = 1e-6  # four Adam steps along central differences, each right to about 1e-9
QUADRATURE = 1e-8  # scipy's quad of a smooth function over 20 standard deviations

ARRAYS = ("relevance", "capacity", "losses")
pytestmark = pytest.mark.usefixtures("quick_compile")


def arrays(found):
    return [getattr(found, name) for name in ARRAYS]


def conv(x, kernel, layout="NHWC"):
    dims, padding = (layout, "HWIO", layout), ((1, 1), (1, 1))
    return lax.conv_general_dilated(x, kernel, (2, 2), padding, dimension_numbers=dims)


def forward(weights, x):
    x = jax.nn.relu(conv(x, weights["conv"]["kernel"]) + weights["conv"]["bias"])
    return x.reshape(len(x), -1) @ weights["fc"]


def nchw(weights, x):
    x = conv(x, weights["conv"]["kernel"], "NCHW") + weights["conv"]["bias"][:, None, None]
    return jax.nn.relu(x).transpose(0, 2, 3, 1).reshape(len(x), -1) @ weights["fc"]


def chwn(weights, x):
    x = conv(x.transpose(3, 1, 2, 0), weights["conv"]["kernel"], "CHWN")
    x = jax.nn.relu(x + weights["conv"]["bias"][:, None, None, None]).transpose(3, 1, 2, 0)
    return x.reshape(len(x), -1) @ weights["fc"]


def one_image(weights, x):
    return jax.vmap(lambda image: forward(weights, image[None])[0])(x)


@pytest.fixture(scope="module")
def weights():
    kernel, bias, fc = (np.random.default_rng(3).normal(size=s) for s in ((3, 3, 2, 3), 3, (36, 5)))
    return {"conv": {"kernel": kernel, "bias": bias}, "fc": fc}


@pytest.fixture(scope="module")
def model(weights):
    return jax.tree_util.Partial(forward, weights)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(4).normal(size=(7, 8, 6, 2))


@pytest.fixture(scope="module")
def fitted(model, images):
    return bottleneck.statistics(model, images, "conv")


@pytest.fixture(scope="module")
def run(model, images, fitted):
    options = {"layer": "conv", "statistics": fitted, "key": jax.random.key(5), "samples": 3}

    def with_changes(x=images[:3], model=model, **changed):
        found = iba(model, x, **(options | changed))
        return replace(found, **dict(zip(ARRAYS, map(np.asarray, arrays(found)), strict=True)))

    return with_changes


# --- plain numpy ----------------------------------------------------------------------------------


def plain_conv(weights, x):
    """The layer "conv", tap by tap."""
    x, kernel = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), weights["conv"]["kernel"]
    taps = [x[:, i : i + 7 : 2, j : j + 5 : 2] @ kernel[i, j] for i, j in np.ndindex(3, 3)]
    return sum(taps) + weights["conv"]["bias"]


def plain_loss(weights, r, statistics, target, beta, noise, alpha, sigma=1.0):
    """Loss and KL (nats) of one image with features r (H, W, C) and noise (samples, H, W, C)."""
    mean, std = statistics
    lam = gaussian_filter(1 / (1 + np.exp(-alpha)), sigma, mode="mirror", radius=2, axes=(0, 1))
    z = lam * r + (1 - lam) * (mean + std * noise)
    logits = np.maximum(z, 0).reshape(len(z), -1) @ weights["fc"]
    entropy = np.log(np.exp(logits).sum(1)) - logits[:, target]
    mu, var = lam * (r - mean) / std, (1 - lam) ** 2
    kl = -0.5 * (1 + np.log(var) - mu**2 - var)
    return entropy.mean() + beta * kl.mean(), kl


def plain_fit(loss, shape, draws, learning_rate):
    """Adam from alpha = 5 along central differences: the losses before each step, and alpha."""
    alpha, first, second, losses = np.full(shape, 5.0), 0, 0, []
    for t, noise in enumerate(draws, 1):
        losses.append(loss(noise, alpha)[0])
        gradient = np.zeros(shape)
        for index in np.ndindex(*shape):
            step = np.zeros(shape)
            step[index] = 1e-5
            gradient[index] = (loss(noise, alpha + step)[0] - loss(noise, alpha - step)[0]) / 2e-5
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        mhat, vhat = first / (1 - 0.9**t), second / (1 - 0.999**t)
        alpha = alpha - learning_rate * mhat / (np.sqrt(vhat) + 1e-8)
    return losses, alpha


@pytest.mark.parametrize("r", [-3.0, 0.0, 0.7])
@pytest.mark.parametrize("kept", [0.01, 0.5, 0.993])
def test_information_is_the_divergence_of_two_gaussians(r, kept):
    p, q = stats.norm(kept * r, 1 - kept), stats.norm(0, 1)
    ends = p.mean() - 10 * p.std(), p.mean() + 10 * p.std()
    expected, _ = integrate.quad(lambda z: p.pdf(z) * (p.logpdf(z) - q.logpdf(z)), *ends)
    found = information(jnp.array(r), jnp.array(1 - kept))
    assert float(found) == pytest.approx(expected, abs=QUADRATURE)


@pytest.mark.parametrize("sigma", [0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("shape", [(2, 6, 5, 3), (1, 1, 2, 1), (2, 9, 4)])
def test_smoothing_agrees_with_scipy(sigma, shape):
    x, axes = np.random.default_rng(0).uniform(size=shape), tuple(range(1, len(shape) - 1))
    expected = gaussian_filter(x, sigma, mode="mirror", radius=round(2 * sigma), axes=axes)
    np.testing.assert_allclose(smooth(jnp.array(x), axes, sigma), expected, atol=EXACT)


@pytest.mark.parametrize("target", [2, (0, 3)])
def test_the_fit_agrees_with_plain_numpy(run, weights, images, fitted, target):
    x, key, steps, beta, rate = images[:2], jax.random.key(6), 4, 7.0, 0.8
    found = run(x, target=target, key=key, steps=steps, beta=beta, learning_rate=rate)
    statistics = np.asarray(fitted.mean), np.asarray(fitted.std)
    for i, r in enumerate(plain_conv(weights, x)):
        keys = [jax.random.fold_in(key, step) for step in range(steps)]
        draws = [np.asarray(jax.random.normal(k, (3, *r.shape))) for k in keys]
        label = np.broadcast_to(target, 2)[i]
        loss = partial(plain_loss, weights, r, statistics, label, beta)
        losses, alpha = plain_fit(loss, r.shape, draws, rate)
        nats = loss(draws[0], alpha)[1]
        assert found.losses[0, i] == pytest.approx(losses[0], rel=EXACT)
        np.testing.assert_allclose(found.losses[:, i], losses, rtol=FITTED)
        np.testing.assert_allclose(found.capacity[i], nats / np.log(2), rtol=FITTED)


def test_without_a_target_the_largest_logit_is_explained(run, model, images):
    logits = np.asarray(model(images[:3]))
    free, largest, least = run(), run(target=logits.argmax(-1)), run(target=logits.argmin(-1))
    np.testing.assert_allclose(free.capacity, largest.capacity, rtol=1e-12)  # two programs
    assert (least.losses[0] > free.losses[0]).all()


def test_a_unit_that_never_varies_has_the_least_deviation(run, fitted):
    dead = np.array(fitted.std) * (np.arange(4) > 1)[:, None, None]
    floored = np.maximum(dead, bottleneck.MIN_STD)
    at = lambda std: run(statistics=Statistics("conv", fitted.mean, std, 7))
    found, expected = at(dead), at(floored)
    assert np.isfinite(found.capacity).all() and float(dead.min()) == 0
    np.testing.assert_array_equal(found.capacity, expected.capacity)


# --- the map --------------------------------------------------------------------------------------


def test_the_map_is_resized_bilinearly_and_keeps_its_bits(run):
    found = run()
    at_layer = found.capacity.sum(-1)
    rows, columns = ((np.arange(2 * n) + 0.5) / 2 - 0.5 for n in (4, 3))  # centres of the pixels
    resized = np.apply_along_axis(lambda a: np.interp(rows, np.arange(4), a), 1, at_layer)
    resized = np.apply_along_axis(lambda a: np.interp(columns, np.arange(3), a), 2, resized)
    np.testing.assert_allclose(found.relevance, resized / 4, rtol=EXACT)  # 2 x 2 pixels a unit
    np.testing.assert_allclose(found.relevance.sum((1, 2)), at_layer.sum((1, 2)), rtol=EXACT)


def test_bits_are_kept_where_the_input_is_no_multiple_of_the_layer(run, images):
    found = run(images[:3, :7, :5])
    assert found.relevance.shape == (3, 7, 5) and found.capacity.shape == (3, 4, 3, 3)
    bits = found.capacity.sum((1, 2, 3))
    np.testing.assert_allclose(found.relevance.sum((1, 2)), bits, rtol=EXACT)


def test_bits_are_where_the_model_looks(run, weights):
    readout = weights["fc"].reshape(4, 3, 3, 5).copy()
    readout[2:], readout[:, 2:] = 0, 0  # only the four units at the top left matter
    model = jax.tree_util.Partial(forward, weights | {"fc": readout.reshape(36, 5)})
    found = run(model=model, beta=1.0, sigma=0.0)  # nothing smooths lambda across
    units = found.capacity.sum(-1)
    assert (units[:, :2, :2].sum((1, 2)) > 0.99 * units.sum((1, 2))).all()
    # Bilinear pixels spread at most an eighth of a unit's bits over the edge, on each axis.
    shown = found.relevance[:, :4, :4].sum((1, 2))
    assert (shown > 0.99 * (7 / 8) ** 2 * units.sum((1, 2))).all()


def test_a_greater_beta_leaves_fewer_bits(run):
    bits = [run(beta=beta).relevance.sum((1, 2)) for beta in (0.0, 1.0, 1e2, 1e6)]
    assert all((more > fewer).all() for more, fewer in pairwise(bits))
    assert (bits[-1] < 1e-3 * bits[0]).all()


SAME, FIRST = (0, 1, 2, 3), (0, 3, 1, 2)  # of the input and of the units: where the channels go


@pytest.mark.parametrize(
    ("forward", "axes", "unit_axes"),
    [(nchw, FIRST, FIRST), (chwn, SAME, FIRST), (one_image, SAME, SAME)],
)
def test_memory_layout_changes_nothing(weights, images, run, forward, axes, unit_axes):
    model, x, expected = jax.tree_util.Partial(forward, weights), images.transpose(axes), run()
    statistics = bottleneck.statistics(model, x, "conv")
    found = run(x[:3], model=model, statistics=statistics)
    np.testing.assert_allclose(found.relevance, expected.relevance, rtol=FITTED)
    capacity = expected.capacity.transpose(unit_axes).reshape(found.capacity.shape)
    np.testing.assert_allclose(found.capacity, capacity, rtol=FITTED)


def test_a_dense_layer_does_not_say_where(run, model, images):
    statistics = bottleneck.statistics(model, images, "fc")
    found = run(layer="fc", statistics=statistics)
    assert found.capacity.shape == (3, 5) and found.relevance.shape == (3, 8, 6)
    bits = found.capacity.sum(1)[:, None, None]
    np.testing.assert_allclose(found.relevance, bits / 48 * np.ones((8, 6)), rtol=EXACT)


def test_the_input_is_a_layer_too(run, model, images):
    found = run(layer="input", statistics=bottleneck.statistics(model, images, "input"))
    assert found.capacity.shape == (3, 8, 6, 2)
    np.testing.assert_allclose(found.relevance, found.capacity.sum(-1), rtol=EXACT)


def test_as_a_method_bits_are_spread_over_channels(run, model, images, fitted):
    method = InformationBottleneck("conv", fitted, jax.random.key(5), samples=3)
    found, expected = lrp.attribute(model, images[:3], method, target=1), run(target=1)
    assert method.name == "iba" and found.shape == (3, 8, 6, 2)
    np.testing.assert_array_equal(found[..., 0], found[..., 1])
    np.testing.assert_allclose(found.sum(-1), expected.relevance, rtol=EXACT)


def test_an_image_does_not_depend_on_the_others(run, images):
    found, other = run(images[:3]), run(np.stack([10 * images[3], images[1], -images[4]]))
    np.testing.assert_allclose(found.relevance[1], other.relevance[1], rtol=EXACT)
    np.testing.assert_allclose(found.losses[:, 1], other.losses[:, 1], rtol=EXACT)
    assert not np.isclose(found.relevance[2], other.relevance[2]).all()


@pytest.mark.parametrize("chunk", [1, 2])
def test_chunks_change_nothing(run, chunk):
    target = np.arange(3)
    found, expected = run(target=target, chunk=chunk), run(target=target)
    for a, b in zip(arrays(found), arrays(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=FITTED)


def test_the_key_decides(run):
    found, again, other = run(), run(), run(key=jax.random.key(99))
    for a, b in zip(arrays(found), arrays(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.isclose(found.capacity, other.capacity).all()


def test_only_what_depends_on_a_value_is_run_again(getkey):
    w = jax.random.normal(getkey(), (4, 4))

    def residual(x):
        return jax.nn.relu(x @ w) + 2 * x

    x, new = jax.random.normal(getkey(), (3, 4)), jax.random.normal(getkey(), (3, 4))
    reading = read(residual, x)
    graph, env = reading.graph, environment(reading.graph, reading.consts, reading.leaves)
    (value,) = (u.outputs[0] for u in graph.layers if u.kind == "dense")
    again, (output,) = resumed(graph.program, env, {value: new}), graph.program.outputs
    np.testing.assert_allclose(again[output], np.maximum(new, 0) + 2 * x, rtol=EXACT)
    np.testing.assert_allclose(env[output], residual(x), rtol=EXACT)
    assert all(again[v] is env[v] for v in graph.program.inputs)


def test_lambda_of_one_is_finite(run, model, weights, images, fitted):
    """sigmoid(-alpha) is 0 after a step of 1000, and so would its logarithm be."""
    found = run(beta=0.0, learning_rate=1e3)
    assert all(np.isfinite(leaf).all() for leaf in arrays(found))
    once = run(images[:1], beta=0.0, learning_rate=1e3, steps=1, sigma=0.0)
    (r,), statistics = plain_conv(weights, images[:1]), (fitted.mean, fitted.std)
    target = int(model(images[:1]).argmax())
    loss = partial(plain_loss, weights, r, statistics, target, 0.0, sigma=0)
    draws = jax.random.normal(jax.random.fold_in(jax.random.key(5), 0), (1, 3, *r.shape))
    _, alpha = plain_fit(loss, r.shape, np.asarray(draws), 1e3)
    noise = np.maximum(expit(-alpha), np.finfo(float).tiny)
    assert alpha.max() > 900 and alpha.min() < -900
    nats = (((1 - noise) * (r - fitted.mean) / fitted.std) ** 2 + noise**2 - 1) / 2 - np.log(noise)
    np.testing.assert_allclose(once.capacity[0], nats / np.log(2), rtol=EXACT, atol=EXACT)


def test_half_precision_gives_single(model, images):
    model, x = jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), (model, images))
    statistics = bottleneck.statistics(model, x, "conv")
    found = iba(model, x[:3], layer="conv", statistics=statistics, key=jax.random.key(0))
    assert {a.dtype for a in (*arrays(found), statistics.mean)} == {jnp.dtype("float32")}


# --- refusals -------------------------------------------------------------------------------------

FIT = r"fit them with lrpjax\.bottleneck\.statistics\(model, images, '%s'\)\."
BAD = {
    "no statistics": ({"statistics": None}, TypeError, FIT % "conv"),
    "statistics of another layer": ({"layer": "fc"}, ValueError, "'conv', not 'fc'.*" + FIT % "fc"),
    "unknown layer": ({"layer": "conv7"}, ValueError, "no layer 'conv7'; the nearest are conv"),
    "no steps": ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
    "no samples": ({"samples": 0}, ValueError, "samples must be at least 1, got 0"),
    "no chunk": ({"chunk": 0}, ValueError, "chunk must be at least 1, got 0"),
    "negative beta": ({"beta": -1.0}, ValueError, r"beta must be at least 0, got -1\.0"),
    "beta is nan": ({"beta": float("nan")}, ValueError, "beta must be at least 0, got nan"),
    "negative sigma": ({"sigma": -1}, ValueError, "sigma must be at least 0"),
    "negative rate": ({"learning_rate": -1}, ValueError, "learning_rate must be at least 0"),
    "no such class": ({"target": 5}, ValueError, "target must lie between 0 and 4"),
    "too few targets": ({"target": [1, 2]}, ValueError, "integer or 3 integers"),
    "no images": ({"x": np.ones((0, 8, 6, 2))}, ValueError, "batch of images: one array"),
    "a list": ({"x": [1.0]}, ValueError, "batch of images: one array"),
    "nan in the input": ({"x": np.full((3, 8, 6, 2), np.nan)}, ValueError, "NaN.* the input"),
    "another shape": (
        {"statistics": Statistics("conv", np.ones((2, 2, 3)), np.ones((2, 2, 3)), 7)},
        ValueError,
        r"\(2, 2, 3\).*\(4, 3, 3\).*" + FIT % "conv",
    ),
    "nan in the statistics": (
        {"statistics": Statistics("conv", np.ones((4, 3, 3)), np.full((4, 3, 3), np.nan), 7)},
        ValueError,
        "the std of layer 'conv'",
    ),
}


@pytest.mark.parametrize(("changed", "error", "words"), BAD.values(), ids=BAD)
def test_what_iba_cannot_use_is_named_in_one_sentence(run, changed, error, words):
    with pytest.raises(error, match=words) as caught:
        run(**changed)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_a_model_with_two_outputs_is_refused(run, weights):
    model = jax.tree_util.Partial(lambda w, x: (forward(w, x), forward(w, x)), weights)
    with pytest.raises(ValueError, match=r"needs one output \(N, classes\)"):
        run(model=model)


def test_a_softmax_at_the_end_is_warned_of(run, weights):
    model = jax.tree_util.Partial(lambda w, x: jax.nn.softmax(forward(w, x)), weights)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # before anything is compiled
        with pytest.raises(UserWarning, match=r"ends in softmax.*cross-entropy of logits"):
            run(model=model)
