"""Smooth and efficient randomisation, and the random-logit test, against the formulas."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracle_sanity as oracle
from helpers.nets_sanity import Recorder, close, gradient_times_input, model
from scipy.stats import chisquare, kstest

import lrpjax as lrp

EXACT = 1e-9  # absolute, of similarities of maps that differ by rounding
FAIR = 1e-5
KEY = jax.random.key(0)
TRAINED, RANDOM = oracle.parameters(0), oracle.parameters(1)
X = oracle.images(4)
TARGET = oracle.logits(TRAINED, X).argmax(1)
MODEL = model(TRAINED)
INIT = lambda key: model(RANDOM)
pytestmark = pytest.mark.usefixtures("quick_compile")


def shown(p, x=X, target=TARGET, method="gradient", colour="max-abs"):
    start = lrp.methods.get(method).start
    return oracle.reduced(oracle.maps(p, x, target, method, start), colour, 3)


# --- smooth -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["gradient", "rect-grad", "lrp-alpha2-beta1"])
@pytest.mark.parametrize("order", ["output", "input", "single"])
def test_without_noise_smooth_mprt_is_mprt(method, order):
    options = {"key": KEY, "order": order, "similarity": ("ssim", "spearman"), "init": INIT}
    plain = lrp.sanity.mprt(MODEL, X, method, **options).rows
    smooth = lrp.sanity.smooth_mprt(MODEL, X, method, noise=0, samples=3, **options).rows
    for row, expected in zip(smooth, plain, strict=True):
        assert row["check"] == "smooth-mprt"
        for name in ("order", "layer", "similarity"):
            assert row[name] == expected[name]
        assert row["method"].startswith(method)
        close(row, oracle.known(expected["values"]), EXACT)


def test_smooth_maps_are_means_over_the_recorded_noise():
    """A user's own method sees the noisy images, and the mean of its maps is what is compared."""
    samples = 6
    recorder = Recorder(gradient_times_input)
    rows = lrp.sanity.smooth_mprt(
        MODEL, X, recorder.method,
        key=KEY, samples=samples, noise=0.3, layers=["conv1"], init=INIT, similarity="pearson",
    ).rows  # fmt: skip
    noisy = {"trained": {}, "random": {}}
    for x, out, target in zip(
        recorder.inputs, *zip(*[call[1:] for call in recorder.calls], strict=True), strict=True
    ):
        assert (np.broadcast_to(target, len(X)) == TARGET).all()  # that of the clean image
        for which, p in (("trained", TRAINED), ("random", RANDOM)):
            if np.allclose(out, oracle.logits(p, x)):
                noisy[which].setdefault(x.tobytes(), x)
    assert [len(found) for found in noisy.values()] == [samples, samples]
    maps = [
        np.mean([shown(p, x, TARGET, "input-x-gradient", "sum") for x in found.values()], axis=0)
        for p, found in zip((TRAINED, RANDOM), noisy.values(), strict=True)
    ]
    close(rows[0], oracle.similarities("pearson", *maps), EXACT)


def test_noise_is_normal_with_the_range_of_each_image():
    x = X * np.array([1, 4, 0.1, 30])[:, None, None, None] - 7
    recorder = Recorder()
    lrp.sanity.smooth_mprt(
        MODEL, x, recorder.method,
        key=KEY, samples=5, noise=0.2, layers=["fc"], init=INIT, similarity="cosine",
    )  # fmt: skip
    seen = {noisy.tobytes(): noisy for noisy in recorder.inputs}
    sigma = 0.2 * np.ptp(x, axis=(1, 2, 3), keepdims=True)
    noise = np.stack([(noisy - x) / sigma for noisy in seen.values()])
    assert len(noise) >= 5
    np.testing.assert_allclose(noise, np.broadcast_to(noise[:, :1], noise.shape), atol=1e-4)
    drawn = noise[:, 0].reshape(len(noise), -1)  # one for all images, but for sigma
    for values in drawn:
        assert kstest(values, "norm").pvalue > FAIR
    between = np.corrcoef(drawn)
    assert np.abs(between[np.triu_indices(len(between), 1)]).max() < 5 / np.sqrt(drawn.shape[1])


def test_smoothing_a_named_method_converges_to_its_expectation():
    """The gradient of x^T H x / 2 at x + n has the mean H x: as many samples as wanted."""
    rng = np.random.default_rng(2)
    p, other = ({"fc": {"kernel": rng.normal(size=(12, 3))}} for _ in range(2))
    quadratic = lambda p, x: (x @ p["fc"]["kernel"]) ** 2
    x = rng.normal(size=(3, 12))
    (row,) = lrp.sanity.smooth_mprt(
        model(p, function=quadratic), x, "gradient",
        key=KEY, samples=4000, noise=0.2, init=lambda key: model(other, function=quadratic),
        target=1, similarity="cosine", colour="none",
    ).rows  # fmt: skip
    mean = lambda p: 2 * (x @ p["fc"]["kernel"])[:, 1:2] * p["fc"]["kernel"][:, 1]
    expected = oracle.similarities("cosine", mean(p), mean(other))
    np.testing.assert_allclose(row["values"], expected, rtol=0, atol=0.05)


def test_smooth_mprt_takes_all_options_of_mprt():
    options = {"key": KEY, "draws": 2, "samples": 4, "layers": ["conv2"], "multiplier": "times"}
    options |= {"randomiser": "permutation", "colour": "sum", "target": 2, "similarity": "pearson"}
    whole = lrp.sanity.smooth_mprt(MODEL, X, "lrp-epsilon", **options).rows
    assert lrp.sanity.smooth_mprt(MODEL, X, "lrp-epsilon", **options).rows == whole
    for chunk in (1, 3):
        rows = lrp.sanity.smooth_mprt(MODEL, X, "lrp-epsilon", chunk=chunk, **options).rows
        close(rows[0], oracle.known(whole[0]["values"]), EXACT)


# --- efficient --------------------------------------------------------------------------------


@pytest.mark.parametrize("bins", [100, 10])
@pytest.mark.parametrize("method", ["gradient", "input-x-gradient", "guided-bp"])
def test_efficient_mprt_is_the_relative_rise_of_entropy(method, bins):
    (row,) = lrp.sanity.efficient_mprt(MODEL, X, method, key=KEY, bins=bins, init=INIT).rows
    assert row["check"] == "efficient-mprt" and row["method"] == method
    colour = "max-abs" if method in oracle.MAX_ABS else "sum"
    maps = [shown(p, method=method, colour=colour) for p in (TRAINED, RANDOM)]
    close(row, oracle.relative_rise(*maps, bins), EXACT)


def test_efficient_mprt_defaults_and_colours():
    (row,) = lrp.sanity.efficient_mprt(MODEL, X, "gradient", key=KEY, init=INIT, colour="none").rows
    maps = [shown(p, colour="none") for p in (TRAINED, RANDOM)]
    close(row, oracle.relative_rise(*maps, 100), EXACT)


def test_entropy_by_hand():
    """A trained map of two equal halves, log 2; a random one of four quarters, log 4."""
    steps = np.arange(16.0).reshape(1, 16)
    maps = {1.0: steps // 8, 2.0: steps // 4}
    table = jnp.asarray(np.stack([maps[1.0][0], maps[2.0][0]]))

    def method(model, x, target):
        return x * table[(model(jnp.ones_like(x))[0, 0] > 16.5).astype(int)]

    network = lambda value: model({"fc": {"kernel": np.full((16, 2), value)}}, function=dense)
    (row,) = lrp.sanity.efficient_mprt(
        network(1.0), np.ones((1, 16)), method,
        key=KEY, bins=4, init=lambda key: network(2.0), colour="none",
    ).rows  # fmt: skip
    assert row["values"] == pytest.approx([1.0], abs=EXACT)


def dense(p, x):
    return x @ p["fc"]["kernel"]


def test_efficient_mprt_averages_draws():
    trained = shown(TRAINED)
    seen = []

    def init(key):
        drawn = jax.random.normal(key, TRAINED["conv1"]["kernel"].shape)
        jax.debug.callback(lambda kernel: seen.append(np.array(kernel)), drawn)
        return model({**RANDOM, "conv1": {**RANDOM["conv1"], "kernel": drawn}})

    (row,) = lrp.sanity.efficient_mprt(MODEL, X, "gradient", key=KEY, init=init, draws=3).rows
    jax.effects_barrier()
    kernels = {kernel.tobytes(): kernel for kernel in seen}.values()
    assert len(kernels) == 3
    rises = [
        oracle.relative_rise(
            trained, shown({**RANDOM, "conv1": {**RANDOM["conv1"], "kernel": kernel}}), 100
        )
        for kernel in kernels
    ]
    close(row, np.mean(rises, axis=0), EXACT)


# --- random logit -----------------------------------------------------------------------------


def logit(method="gradient", x=X, **options):
    return lrp.sanity.random_logit(MODEL, x, method, **{"key": KEY, **options})


@pytest.mark.parametrize("target", [None, 3, np.array([0, 5, 2, 2])], ids=str)
@pytest.mark.parametrize("method", ["gradient", "input-x-gradient", "deconv"])
def test_all_other_classes(method, target):
    """As many as there are: then it is known which ones they are."""
    others = oracle.CLASSES - 1
    explained = np.broadcast_to(TARGET if target is None else target, len(X))
    colour = "max-abs" if method in oracle.MAX_ABS else "sum"
    names = ("ssim", "ssim-standard", "spearman")
    rows = logit(method, target=target, classes=others, similarity=names).rows
    maps = lambda t: shown(TRAINED, X, t, method, colour)
    for row, name in zip(rows, names, strict=True):
        assert row["check"] == "random-logit" and row["similarity"] == name
        each = [
            oracle.similarities(name, maps(explained), maps((explained + k) % oracle.CLASSES))
            for k in range(1, oracle.CLASSES)
        ]
        close(row, np.mean(each, axis=0), EXACT)


@pytest.mark.parametrize("name", ["rect-grad", "lrp-alpha2-beta1"])
def test_random_logit_scales_as_the_paper(name):
    """Between the extremes for rect-grad, else the percentiles 0.5 and 99.5."""
    (row,) = logit(name, classes=oracle.CLASSES - 1).rows
    colour = "max-abs" if name in oracle.MAX_ABS else "sum"

    def maps(t):
        found = np.asarray(lrp.attribute(MODEL, jnp.asarray(X), name, target=t))
        return oracle.reduced(found, colour, 3)

    percentile = 100 if name == "rect-grad" else 99.5
    each = [
        oracle.similarities(
            "ssim", maps(TARGET), maps((TARGET + k) % oracle.CLASSES), percentile=percentile
        )
        for k in range(1, oracle.CLASSES)
    ]
    close(row, np.mean(each, axis=0), 1e-7)


def drawn_classes(x, key=KEY, **options):
    """The other class that each image was compared with, by its similarity."""
    target = oracle.logits(TRAINED, x).argmax(1)
    (row,) = logit(x=x, key=key, similarity="pearson", **options).rows
    each = np.stack(
        [
            oracle.similarities("pearson", shown(TRAINED, x, target), shown(TRAINED, x, t * one))
            for one in [np.ones(len(x), int)]
            for t in range(oracle.CLASSES)
        ]
    )
    distance = np.abs(each - np.array(row["values"]))
    assert distance.min(0).max() < EXACT
    return distance.argmin(0), target


def test_the_other_class_is_uniform_and_never_the_target():
    x = np.concatenate([oracle.images(60, seed=7), np.repeat(X[:1], 60, axis=0)])
    drawn, target = drawn_classes(x)
    assert (drawn != target).all()
    step = (drawn - target) % oracle.CLASSES
    assert chisquare(np.bincount(step, minlength=oracle.CLASSES)[1:]).pvalue > FAIR
    # Equal images are compared with classes of their own.
    assert chisquare(np.bincount(step[60:], minlength=oracle.CLASSES)[1:]).pvalue > FAIR


def test_the_other_class_of_an_image_depends_on_its_key_and_place_alone():
    x = oracle.images(12, seed=8)
    whole, _ = drawn_classes(x)
    for chunk in (1, 5):
        assert (drawn_classes(x, chunk=chunk)[0] == whole).all()
    assert (drawn_classes(x[:7])[0] == whole[:7]).all()
    assert (drawn_classes(x, key=jax.random.key(1))[0] != whole).any()


def test_other_classes_are_drawn_without_repetition():
    x = np.repeat(X[:1], 40, axis=0)
    recorder = Recorder(gradient_times_input)
    logit(recorder.method, x=x, classes=3, similarity="pearson")
    base = shown(TRAINED, X[:1], TARGET[:1], "input-x-gradient", "sum")
    one = lambda t: shown(TRAINED, X[:1], np.array([t]), "input-x-gradient", "sum")
    of = [oracle.similarities("pearson", base, one(t))[0] for t in range(oracle.CLASSES)]
    others = [t for t in range(oracle.CLASSES) if t != TARGET[0]]
    sets = [
        np.mean([of[t] for t in others if t not in (a, b)])
        for i, a in enumerate(others)
        for b in others[i + 1 :]
    ]
    (row,) = logit(gradient_times_input, x=x, classes=3, similarity="pearson").rows
    distance = np.abs(np.array(row["values"])[:, None] - np.array(sets))
    assert distance.min(1).max() < EXACT
    assert len(set(distance.argmin(1))) == len(sets)  # each of the ten sets comes up
    for target in recorder.targets:
        assert ((target >= 0) & (target < oracle.CLASSES)).all()


@pytest.mark.parametrize("multiplier", ["times", "divided"])
def test_random_logit_with_multipliers(multiplier):
    (row,) = logit(
        classes=oracle.CLASSES - 1, multiplier=multiplier, colour="sum", similarity="cosine"
    ).rows
    maps = lambda t: oracle.multiplied(shown(TRAINED, X, t, colour="none"), X, multiplier).sum(3)
    each = [
        oracle.similarities("cosine", maps(TARGET), maps((TARGET + k) % oracle.CLASSES))
        for k in range(1, oracle.CLASSES)
    ]
    close(row, np.mean(each, axis=0), EXACT)
