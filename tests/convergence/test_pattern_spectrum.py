"""Singular values of weights and patterns against plain numpy, in any layout."""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.oracle_spectrum import found, link, random_patterns, ratio

import lrpjax as lrp
from lrpjax.convergence import PatternSpectrum, pattern_spectrum

pytestmark = pytest.mark.usefixtures("quick_compile")

# Two float64 decompositions of matrices with well separated singular values.
close = partial(np.testing.assert_allclose, rtol=1e-9)
MATRICES = ("W", "A", "W*A")


# --- one network in two layouts ------------------------------------------------------------------


SHAPES = {"conv1": (3, 3, 2, 4), "conv2": (2, 2, 4, 5), "fc3": (5, 3, 5, 6), "fc4": (6, 3)}
IMAGE = (12, 8)  # 12 x 8, pooled to 6 x 4, by the unpadded 2 x 2 kernel to 5 x 3


class Nnx(nnx.Module):
    """Channels last."""

    def __init__(self, w):
        conv = partial(nnx.Conv, param_dtype=float, rngs=nnx.Rngs(0))
        self.conv1 = conv(2, 4, (3, 3))
        self.conv2 = conv(4, 5, (2, 2), padding="VALID")
        self.fc3 = nnx.Linear(75, 6, param_dtype=float, rngs=nnx.Rngs(0))
        self.fc4 = nnx.Linear(6, 3, param_dtype=float, rngs=nnx.Rngs(0))
        for name, value in self.layout(w).items():
            getattr(self, name).kernel[...] = value

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.conv1(x)), (2, 2), strides=(2, 2))
        x = nnx.relu(self.conv2(x)).reshape(len(x), -1)
        return self.fc4(nnx.relu(self.fc3(x)))

    @staticmethod
    def layout(w):
        return {**w, "fc3": w["fc3"].reshape(75, 6)}


class Equinox(eqx.Module):
    """Channels first, for one image."""

    conv1: eqx.nn.Conv2d
    conv2: eqx.nn.Conv2d
    fc3: eqx.nn.Linear
    fc4: eqx.nn.Linear

    def __init__(self, w):
        for name, value in self.layout(w).items():
            conv = value.ndim == 4
            outputs, inputs = value.shape[:2]
            options = {"kernel_size": value.shape[2:], "padding": name == "conv1"} if conv else {}
            make = eqx.nn.Conv2d if conv else eqx.nn.Linear
            made = make(inputs, outputs, **options, dtype=float, key=jax.random.key(0))
            setattr(self, name, eqx.tree_at(lambda m: m.weight, made, value))

    def __call__(self, x):
        x = eqx.nn.MaxPool2d(2, 2)(jax.nn.relu(self.conv1(x)))
        return self.fc4(jax.nn.relu(self.fc3(jax.nn.relu(self.conv2(x)).ravel())))

    @staticmethod
    def layout(w):
        convs = {name: w[name].transpose(3, 2, 0, 1) for name in ("conv1", "conv2")}
        fc3 = w["fc3"].transpose(2, 0, 1, 3).reshape(75, 6).T
        return {**convs, "fc3": fc3, "fc4": w["fc4"].T}


@pytest.fixture
def weights(getkey):
    return [{k: jax.random.normal(getkey(), s) for k, s in SHAPES.items()} for _ in "wa"]


def in_a_library(library, weights):
    w, a = weights
    model = library(w)
    shape = (1, *IMAGE, 2) if library is Nnx else (1, 2, *IMAGE)
    patterns = lrp.patterns.Patterns(library.layout(a), library.layout(w), "relu")
    model = model if library is Nnx else jax.vmap(model)
    return pattern_spectrum(model, jnp.ones(shape), patterns)


@pytest.mark.parametrize("library", [Nnx, Equinox])
def test_every_number_is_its_definition(library, weights):
    result = in_a_library(library, weights)
    w, a = [{k: np.asarray(v) for k, v in kernels.items()} for kernels in weights]
    kernels = {"W": w, "A": a, "W*A": {k: w[k] * a[k] for k in w}}
    close(found(result, "full", "A"), [ratio(v.reshape(-1, v.shape[-1])) for v in a.values()])
    for matrix, kernel in kernels.items():
        centre = [kernel["conv1"][1, 1], kernel["conv2"][1, 1], kernel["fc3"][2, 1], kernel["fc4"]]
        pairs = list(pairwise(centre))
        close(found(result, "layer", matrix), [ratio(m) for m in centre])
        for row, m in zip(result.select("layer", matrix), centre, strict=True):
            assert row["shape"] == list(m.shape)
            close(row["singular_values"], np.linalg.svd(m, compute_uv=False)[:10])
        close(found(result, "link", matrix), [ratio(link(*pair)) for pair in pairs])
        (summary,) = (row for row in result.summary if row["matrix"] == matrix)
        assert summary["layers"] == list(SHAPES)
        close(10 ** summary["log10_links"], np.prod([ratio(link(*pair)) for pair in pairs]))
        close(10 ** summary["log10_chain"], ratio(np.linalg.multi_dot(centre)))
        close(10 ** summary["log10_without_first"], ratio(np.linalg.multi_dot(centre[1:])))


def test_rows_are_complete_and_survive_a_file(weights, tmp_path):
    result = in_a_library(Nnx, weights)
    columns = {"part", "matrix", "layers", "shape", "singular_values", "ratio"}
    assert all(set(row) == columns for row in result.rows)
    assert len(result.rows) == 3 * (4 + 3 + 2) + 4
    result.save(tmp_path / "s.json")
    assert PatternSpectrum.load(tmp_path / "s.json") == result
    (tmp_path / "other.json").write_text('{"settings": {}, "rows": [{"layer": "a"}]}')
    with pytest.raises(ValueError, match=r"file of PatternSpectrum results .* of another kind"):
        PatternSpectrum.load(tmp_path / "other.json")


# --- worked by hand ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("second", "link_ratio", "chain_ratio"),
    [
        # diag(4, 1) times it is [[0, 36], [1, 0]]; N is diag(2, 1) diag(3, 1).
        ([[0.0, 9], [1, 0]], 6, 36),
        # The strong input of the second is the weak output of the first:
        # the product is [[0, 4], [9, 0]]; N is [[0, 2], [3, 0]].
        ([[0.0, 1], [9, 0]], 3 / 2, 9 / 4),
    ],
)
def test_two_by_two(second, link_ratio, chain_ratio):
    w = {"a": jnp.diag(jnp.array([4.0, 1])), "b": jnp.array(second)}
    ones = {name: jnp.ones((2, 2)) for name in w}
    model = jax.tree_util.Partial(lambda w, x: jax.nn.relu(x @ w["a"]) @ w["b"], w)
    result = pattern_spectrum(model, jnp.ones((1, 2)), lrp.patterns.Patterns(ones, w, "relu"))
    for matrix in ("W", "W*A"):
        close(found(result, "layer", matrix), [4, 9])
        close(found(result, "link", matrix), [link_ratio])
        close(found(result, "chain", matrix), [chain_ratio])
        close(found(result, "chain without first", matrix), [9])
    assert found(result, "layer", "A") == [None, None]  # rank 1
    assert [row["log10_links"] for row in result.summary if row["matrix"] == "A"] == [None]


def test_with_common_singular_vectors_the_links_are_the_chain(getkey):
    """The chain's ratio is the product of its layers'; the links lack half of both ends."""
    q = [np.linalg.qr(jax.random.normal(getkey(), (5, 5)))[0] for _ in range(5)]
    s = np.sort(np.random.default_rng(0).uniform(1, 3, (4, 5)))[:, ::-1]
    w = {str(i): jnp.array(q[i] @ np.diag(s[i]) @ q[i + 1].T) for i in range(4)}

    def model(x):
        for name in w:
            x = jax.nn.relu(x @ w[name])
        return x

    result = pattern_spectrum(
        model, jnp.ones((1, 5)), random_patterns(model, jnp.ones((2, 5)), getkey)
    )
    ratios = s[:, 0] / s[:, 1]
    (row,) = (row for row in result.summary if row["matrix"] == "W")
    close(10 ** row["log10_chain"], ratios.prod())
    close(10 ** row["log10_links"], ratios.prod() / np.sqrt(ratios[0] * ratios[-1]))


def test_what_a_product_cannot_resolve_is_none():
    """Ratios of 1e6 three times are 1e18: beyond double precision."""
    w = {name: jnp.diag(jnp.array([1.0, 1e-6])) for name in "abc"}
    model = jax.tree_util.Partial(lambda w, x: x @ w["a"] @ w["b"] @ w["c"], w)
    result = pattern_spectrum(model, jnp.ones((1, 2)), lrp.patterns.Patterns(w, w, "relu"))
    assert found(result, "chain", "W") == [None]
    close(found(result, "chain without first", "W"), [1e12])
    (row,) = (row for row in result.summary if row["matrix"] == "W")
    close(row["log10_links"], 12)


# --- the shipped network, the figure, mistakes ---------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    model = lrp.models.cifar10()
    return pattern_spectrum(model, jnp.zeros((1, 32, 32, 3)), model.patterns)


def test_the_shipped_network(shipped):
    names = ["conv1", "conv2", "conv3", "conv4", "fc5", "fc6"]
    for matrix in MATRICES:
        rows = shipped.select("layer", matrix)
        assert [row["layers"] for row in rows] == [[name] for name in names]
        assert [row["shape"] for row in rows] == [
            [3, 32], [32, 64], [64, 128], [128, 128], [128, 1024], [1024, 10]
        ]  # fmt: skip
        links = [row["layers"] for row in shipped.select("link", matrix)]
        assert links == [list(pair) for pair in pairwise(names)]
    assert [row["shape"] for row in shipped.select("full", "A")][4] == [8192, 1024]
    assert all(row["ratio"] >= 1 for row in shipped.rows)
    assert [row["layers"] for row in shipped.summary] == [names] * 3


def test_the_figure_shows_the_rows(shipped):
    left, right = shipped.plot().axes
    lines = {line.get_label().split(" (")[0]: line.get_ydata() for line in left.lines}
    np.testing.assert_array_equal(lines["W * A"], found(shipped, "layer", "W*A"))
    np.testing.assert_array_equal(lines["A, all taps"], found(shipped, "full", "A"))
    assert left.get_xticklabels()[0].get_text() == "conv1"
    assert right.get_xticklabels()[0].get_text() == "conv1 \u2192 conv2"
    np.testing.assert_array_equal(right.lines[0].get_ydata(), found(shipped, "link", "W"))
    total = np.prod(found(shipped, "link", "W*A"))
    assert right.lines[1].get_label() == f"W * A: product of all {total:.3g}"


def test_the_figure_breaks_between_chains_and_where_nothing_is_resolved():
    row = {"part": "link", "shape": [2, 2], "singular_values": [1.0, 0.5]}
    links = [("a", "b", 2.0), ("c", "d", 3.0), ("d", "e", None)]
    rows = [
        row | {"matrix": matrix, "layers": [a, b], "ratio": ratio}
        for matrix in ("W", "W*A")
        for a, b, ratio in links
    ]
    _, right = lrp.plots.pattern_spectrum(PatternSpectrum({"layers": []}, rows)).axes
    np.testing.assert_array_equal(right.lines[0].get_ydata(), [2, np.nan, 3, np.nan])


def test_patterns_of_another_model_are_refused(getkey):
    w = {"a": jax.random.normal(getkey(), (5, 4)), "b": jax.random.normal(getkey(), (4, 3))}
    model = lambda w: jax.tree_util.Partial(lambda w, x: jax.nn.relu(x @ w["a"]) @ w["b"], w)
    x = jax.random.normal(getkey(), (9, 5))
    fitted = lrp.patterns.fit(model(w), x)
    one = replace(fitted, a={"a": fitted.a["a"]})
    wider = replace(fitted, a=fitted.a | {"b": jnp.ones((4, 7))})
    cases = [
        (TypeError, "patterns.fit or .load, got dict", model(w), fitted.a),
        (ValueError, r"do not fit the model: b is missing; .*patterns.fit", model(w), one),
        (ValueError, r"b has shape \(4, 7\), the model needs \(4, 3\)", model(w), wider),
        (ValueError, "b is not in the model", lambda x: jax.nn.relu(x @ w["a"]), fitted),
        (ValueError, "other weights of b: fit", model(w | {"b": w["b"] + 1}), fitted),
    ]
    for error, message, function, patterns in cases:
        with pytest.raises(error, match=message):
            pattern_spectrum(function, x, patterns)
