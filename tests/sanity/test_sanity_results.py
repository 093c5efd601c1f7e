"""Rows, intervals, what is dropped, files, and requests that are refused."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from helpers import oracle_sanity as oracle
from helpers.nets_sanity import close, model
from jax.tree_util import Partial
from scipy.stats import bootstrap

import lrpjax as lrp
from lrpjax._base.results import key_text
from lrpjax.sanity import result

EXACT = 1e-9
KEY = jax.random.key(0)
TRAINED, RANDOM = oracle.parameters(0), oracle.parameters(1)
X = oracle.images(9)
TARGET = oracle.logits(TRAINED, X).argmax(1)
MODEL = model(TRAINED)
INIT = lambda key: model(RANDOM)
CHECKS = ("mprt", "smooth_mprt", "efficient_mprt", "random_logit")
pytestmark = pytest.mark.usefixtures("quick_compile")


def run(check, method="gradient", images=X, network=MODEL, **options):
    if check == "smooth_mprt":
        options = {"samples": 2, **options}
    return getattr(lrp.sanity, check)(network, images, method, **{"key": KEY, **options})


# --- intervals --------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS)
def test_intervals_of_nine_images_are_known(check):
    """A median of nine resampled is the least with probability 0.0013 and at most the second with
    0.025: the percentiles 0.5 and 99.5 are the second and the eighth value."""
    for row in run(check).rows:
        values = np.sort(row["values"])
        assert len(values) == 9 and row["dropped"] == 0
        assert row["median"] == pytest.approx(values[4], abs=EXACT)
        assert row["low"] == pytest.approx(values[1], abs=EXACT)
        assert row["high"] == pytest.approx(values[7], abs=EXACT)


def test_intervals_are_those_of_a_bootstrap():
    (row,) = run("mprt", images=oracle.images(60), layers=["conv1"], similarity="pearson").rows
    values = np.array(row["values"])
    # 10,000 resamples place a percentile of 0.5 within a few tenths of a percent.
    near = lambda share: np.percentile(
        np.median(np.random.default_rng(1).choice(values, (100_000, 60)), axis=1), share
    )
    assert near(0.25) <= row["low"] <= near(0.85)
    assert near(99.15) <= row["high"] <= near(99.75)


def test_one_image_has_no_interval():
    for row in run("mprt", images=X[:1]).rows:
        assert row["median"] == row["values"][0]
        assert row["low"] is row["high"] is None


def test_rows_are_summarised_as_if_each_were_alone():
    rng, nan = np.random.default_rng(4), np.nan
    values = rng.normal(size=(7, 12))
    values[1, 3] = values[2, 3] = values[3, 5] = nan  # an odd number is left of some rows
    values[4, 1:], values[5, 2:], values[6] = nan, nan, nan
    found = result.summary(values, KEY)
    for row, own in zip(values, found, strict=True):
        assert own == result.summary(row[None], KEY)[0]
        kept = row[np.isfinite(row)]
        assert own["dropped"] == 12 - len(kept)
        assert own["median"] == (np.median(kept) if len(kept) else None)
        if len(kept) < 2:
            assert own["low"] is own["high"] is None
            continue
        options = {"n_resamples": 10_000, "confidence_level": 0.99, "method": "percentile"}
        seeded = np.random.default_rng(np.ravel(key_text(KEY)).tolist())
        ends = bootstrap((kept,), np.median, rng=seeded, **options).confidence_interval
        assert (own["low"], own["high"]) == (ends.low, ends.high)


# --- dropped ----------------------------------------------------------------------------------

# Images whose maps have no structure, for a model that multiplies by the image.
EMPTY = X.copy()
EMPTY[[0, 5]] = 0
NONE = [0, 5]


@pytest.mark.parametrize("check", CHECKS)
def test_images_without_structure_are_dropped_and_counted(check):
    """Gradient times input of a black image is zero; noise is a share of its range, 0."""
    for row in run(check, "input-x-gradient", EMPTY).rows:
        assert row["dropped"] == 2
        assert [i for i, value in enumerate(row["values"]) if value is None] == NONE
        kept = oracle.known(row["values"])
        assert row["median"] == pytest.approx(np.nanmedian(kept), abs=EXACT)
        values = np.sort(kept[~np.isnan(kept)])
        assert values[0] <= row["low"] <= row["median"] <= row["high"] <= values[-1]


@pytest.mark.parametrize("check", CHECKS)
def test_where_no_image_is_left_there_is_no_median(check):
    for row in run(check, "input-x-gradient", np.zeros((2, *X.shape[1:]))).rows:
        assert row["dropped"] == 2 and row["values"] == [None, None]
        assert row["median"] is row["low"] is row["high"] is None


def test_dead_random_networks_are_no_similarity():
    """A random bias that kills every unit leaves maps of zeros: not 1 and not 0, but nothing."""
    dead = {**RANDOM, "conv2": {**RANDOM["conv2"], "bias": np.full(4, -1e6)}}
    rows = run("mprt", init=lambda key: model(dead)).rows
    assert [row["dropped"] for row in rows] == [0, 9, 9]
    assert rows[0]["median"] is not None and rows[1]["median"] is None


def test_dead_random_networks_have_no_entropy():
    """Nor has it fallen by 100 %: there is no map."""
    dead = {**RANDOM, "conv2": {**RANDOM["conv2"], "bias": np.full(4, -1e6)}}
    (row,) = run("efficient_mprt", init=lambda key: model(dead)).rows
    assert row["dropped"] == 9 and row["median"] is None


# --- files and figures ------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS)
def test_results_are_saved_whole_and_read_again(check, tmp_path):
    result = run(check, "input-x-gradient", EMPTY)
    result.save(tmp_path / "r.json")
    again = type(result).load(tmp_path / "r.json")
    assert again.rows == result.rows and again.settings == result.settings
    assert isinstance(result, lrp.sanity.Sanity)
    json.dumps({"settings": result.settings, "rows": result.rows}, allow_nan=False)
    (tmp_path / "bad.json").write_text('{"rows": []}')
    with pytest.raises(ValueError, match=r"bad\.json"):
        lrp.sanity.Sanity.load(tmp_path / "bad.json")


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("images", [X, EMPTY[:1]], ids=["all", "none left"])
def test_results_are_plotted(check, images):
    figure = run(check, "input-x-gradient", images).plot()
    assert isinstance(figure, matplotlib.figure.Figure) and figure.axes
    figure.savefig("/dev/null", format="png")


# --- refusals ---------------------------------------------------------------------------------


def pooled(p, x):
    return x.reshape(len(x), -1)[:, :4] ** 2


REFUSED = {
    "unknown layer": ({"layers": ["conv11"]}, r"conv11.*conv1\b"),
    "without parameters": ({"layers": ["conv1:relu"]}, r"parameters.*conv1:relu.*conv1"),
    "input has none": ({"layers": ["input"]}, r"input"),
    "similarity": ({"similarity": "sim"}, r"sim.*ssim"),
    "one of several": ({"similarity": ("ssim", "kendall")}, r"kendall"),
    "order": ({"order": "sideways"}, r"sideways"),
    "randomiser": ({"randomiser": "uniform"}, r"uniform"),
    "colour": ({"colour": "mean"}, r"mean"),
    "multiplier": ({"multiplier": "plus"}, r"plus"),
    "draws": ({"draws": 0}, r"draws.*0"),
    "both": ({"randomiser": "permutation", "init": INIT}, r"init.*permutation|permutation.*init"),
    "target": ({"target": 6}, r"target"),
    "unknown method": ({"method": "lrp-zzz"}, r"lrp-zzz"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_mprt_cannot_use_is_named_in_one_sentence(options, message):
    with pytest.raises(ValueError, match=message) as error:
        run("mprt", **options)
    one_sentence(error)


def one_sentence(error):
    text = str(error.value)
    assert text.endswith(".") and "\n" not in text


@pytest.mark.parametrize("check", CHECKS)
def test_a_single_image_is_no_batch(check):
    with pytest.raises(ValueError, match="batch"):
        run(check, images=X[0])
    with pytest.raises(ValueError, match="batch"):
        run(check, images=X[:0])


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    "options", [{"colour": "mean"}, {"similarity": "sim"}, {"randomiser": "uniform"}], ids=str
)
def test_every_check_refuses_what_it_does_not_know(check, options):
    (name,) = options
    takes = {"efficient_mprt": {"colour", "randomiser"}, "random_logit": {"colour", "similarity"}}
    if name in takes.get(check, {"colour", "similarity", "randomiser"}):
        with pytest.raises(ValueError, match=options[name]):
            run(check, **options)
    else:
        with pytest.raises(TypeError):
            run(check, **options)


@pytest.mark.parametrize("check", ["mprt", "efficient_mprt", "smooth_mprt"])
def test_models_without_parameters(check):
    """Numbers that tracing does not see, and none at all."""
    kernel = np.random.default_rng(0).normal(size=(X[0].size, 4))

    def hidden(x):
        return x.reshape(len(x), -1) @ kernel

    for network, words in (
        (hidden, f"{kernel.size} numbers .*Partial"),
        (Partial(pooled, {}), "it computes with none"),
    ):
        with pytest.raises(ValueError, match=f"parameters can be reached.*{words}") as error:
            run(check, network=network)
        one_sentence(error)


MISFITS = {
    "another shape": model({**RANDOM, "fc": {"kernel": np.ones((2304, 7)), "bias": np.ones(7)}}),
    "a leaf too few": Partial(lambda p, x: x.reshape(len(x), -1) @ p, jnp.ones((X[0].size, 6))),
    "a layer too many": model({**RANDOM, "fc2": RANDOM["fc"]}),
    "no parameters": lambda x: pooled({}, x),
}


@pytest.mark.parametrize("other", MISFITS.values(), ids=MISFITS)
def test_an_init_that_does_not_fit(other):
    for check in ("mprt", "efficient_mprt"):
        with pytest.raises(ValueError, match="init") as error:
            run(check, init=lambda key: other)
        one_sentence(error)


@pytest.mark.parametrize("classes", [6, 7, 0, -1])
def test_as_many_classes_as_there_are_is_too_many(classes):
    with pytest.raises(ValueError, match=f"classes.*{classes}|{classes}.*classes"):
        run("random_logit", classes=classes)


@pytest.mark.parametrize(("option", "value"), [("sample", 0), ("noise", -0.1)])
def test_smooth_mprt_needs_a_sample_and_noise_from_0(option, value):
    with pytest.raises(ValueError, match=option):
        run("smooth_mprt", **{{"sample": "samples"}.get(option, option): value})


@pytest.mark.parametrize("bins", [0, 1])
def test_entropy_needs_bins(bins):
    with pytest.raises(ValueError, match="bins"):
        run("efficient_mprt", bins=bins)


@pytest.mark.parametrize("chunk", [0, -2])
@pytest.mark.parametrize("check", CHECKS)
def test_an_empty_chunk(check, chunk):
    with pytest.raises(ValueError, match="chunk"):
        run(check, chunk=chunk)


def test_a_map_of_another_shape():
    method = lambda model, x, target: x.sum(-1)
    with pytest.raises(ValueError, match=r"shape"):
        run("mprt", method)


@pytest.mark.parametrize("similarity", ["ssim", "ssim-standard", "hog"])
def test_windows_need_images(similarity):
    """Vectors and tiny images have no window of that size."""
    p = {"fc": {"kernel": np.random.default_rng(0).normal(size=(12, 3))}}
    dense = model(p, function=lambda p, x: x.reshape(len(x), -1) @ p["fc"]["kernel"])
    for shape in ((3, 12), (3, 2, 2, 3)):
        x = np.random.default_rng(1).normal(size=shape)
        with pytest.raises(ValueError, match=r"(SSIM|HOG).*pixels.*spearman"):
            run("mprt", network=dense, images=x, similarity=similarity)


def test_vectors_have_no_colour():
    """Their only axis is the one that correlations run over."""
    p = [{"fc": {"kernel": np.random.default_rng(s).normal(size=(12, 3))}} for s in (0, 1)]
    dense = lambda p: model(p, function=lambda p, x: x @ p["fc"]["kernel"])
    x = np.random.default_rng(1).normal(size=(3, 12))
    (row,) = run(
        "mprt", network=dense(p[0]), images=x, similarity="pearson", target=1,
        init=lambda key: dense(p[1]),
    ).rows  # fmt: skip
    maps = [np.broadcast_to(q["fc"]["kernel"][:, 1], x.shape) for q in p]
    close(row, oracle.similarities("pearson", *maps), EXACT)


def test_maps_that_are_not_finite_are_dropped():
    method = lambda model, x, target: jnp.where(x == X[3].max(), jnp.nan, x)
    for name in oracle.SIMILARITIES:
        for row in run("mprt", method, similarity=name, colour="none").rows:
            assert row["dropped"] == 1 and row["values"][3] is None
    (row,) = run("efficient_mprt", method).rows
    assert row["dropped"] == 1 and row["values"][3] is None
