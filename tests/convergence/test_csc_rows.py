"""Every layer has its row: without relevance, with one channel, and in any layout of the arrays."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

RNG = np.random.default_rng(11)
KEY = jax.random.key(11)
MEASURED = ("median", "one_minus_median", "mean", "quantiles", "one_minus_quantiles")
csc = partial(lrp.convergence.csc, key=KEY, vectors=3)


def draw(**shapes):
    return {name: RNG.normal(size=shape) for name, shape in shapes.items()}


# --- layers without relevance --------------------------------------------------------------------

LSTM = draw(w=(5, 24), u=(6, 24), forget=(5, 6), out=(6, 3))
SEQUENCES = RNG.normal(size=(2, 2, 5))


def lstm(p, x):
    """Two steps from a state of zeros: what the first forget gate lets pass is nothing."""
    c = h = jnp.zeros((len(x), 6))
    for t in range(2):
        i, _, g, o = jnp.split(x[:, t] @ p["w"] + h @ p["u"], 4, -1)
        f = x[:, t] @ p["forget"]
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return h @ p["out"]


RECURRENT = jax.tree_util.Partial(lstm, LSTM)


@pytest.mark.parametrize("over", ["location", "map"])
def test_a_layer_at_which_all_relevance_is_zero_has_a_row_with_count_0(over, tmp_path):
    found = csc(RECURRENT, SEQUENCES, "lrp-epsilon", over=over)
    empty = [row for row in found.rows if row["count"] == 0]
    assert empty and all(row["undirected"] == "no relevance" for row in empty)
    assert all(row[name] is None for row in empty for name in MEASURED)
    assert all(row["dropped"] == 6 for row in empty)  # 3 pairs of 2 images
    assert found.rows[-1]["layer"] == "input" and found.rows[-1]["count"] > 0
    found.save(tmp_path / "csc.json")
    assert lrp.convergence.CSC.load(tmp_path / "csc.json") == found
    json.loads((tmp_path / "csc.json").read_text(), parse_constant=pytest.fail)
    for scale in ("linear", "log"):
        assert found.plot(scale=scale).axes


def test_a_layer_that_is_named_twice_has_one_row():
    rows = csc(RECURRENT, SEQUENCES, "lrp-epsilon", layers=["forget", "input", "forget"]).rows
    assert [row["layer"] for row in rows] == ["forget", "input"]


def test_no_other_measure_is_stopped_by_such_a_layer():
    one = SEQUENCES[:1]
    for measure in (lrp.convergence.singular_values, lrp.convergence.lyapunov):
        assert measure(RECURRENT, one, "lrp-epsilon", key=KEY).rows
    found = lrp.convergence.profile(RECURRENT, one, "lrp-epsilon", key=KEY, vectors=3)
    empty = [row for row in found.rows if row["location_csc"] is None]
    assert empty and all(row["location_ratio"] is row["location_expected"] is None for row in empty)


# --- one channel, and layouts --------------------------------------------------------------------

NET = draw(c1=(3, 3, 1, 3), c2=(3, 3, 3, 2), fc=(32, 3))
IMAGES = RNG.normal(size=(3, 4, 4))


def conv(x, w, layout):
    numbers = (layout, "HWIO", layout)
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers)


def network(layout, reshape=lambda x: x):
    def forward(p, x):
        h = jax.nn.relu(conv(reshape(x), p["c1"], layout))
        h = jax.nn.relu(conv(h, p["c2"], layout))
        h = h if layout == "NHWC" else h.transpose(0, 2, 3, 1)
        return h.reshape(len(h), -1) @ p["fc"]

    return jax.tree_util.Partial(forward, NET)


def vmapped(model):
    return jax.vmap(lambda image: model(image[None])[0])


ONE = lambda x: x.reshape(len(x), 1, 4, 4)
FORMS = {
    "NCHW": (network("NCHW"), IMAGES[:, None]),
    "images without channels, reshaped": (network("NCHW", ONE), IMAGES),
    "images without channels, indexed": (network("NHWC", lambda x: x[..., None]), IMAGES),
    "flat images": (network("NCHW", ONE), IMAGES.reshape(3, 16)),
    "vmapped NHWC": (vmapped(network("NHWC")), IMAGES[..., None]),
    "vmapped NCHW": (vmapped(network("NCHW")), IMAGES[:, None]),
    "vmapped, without channels": (vmapped(network("NCHW", ONE)), IMAGES),
    "vmapped, flat": (vmapped(network("NCHW", ONE)), IMAGES.reshape(3, 16)),
}


@pytest.fixture(scope="module")
def plain():
    return csc(network("NHWC"), IMAGES[..., None], "lrp-zplus").rows


@pytest.mark.parametrize("form", FORMS)
def test_the_same_function_has_the_same_rows_in_every_layout(plain, form):
    rows = csc(*FORMS[form], "lrp-zplus").rows
    assert len(rows) == len(plain) == 4
    for row, wanted in zip(rows, plain, strict=True):
        for name in ("channels", "count", "dropped", "undirected"):
            assert row[name] == wanted[name]
        if wanted["count"]:
            assert row["one_minus_median"] == pytest.approx(wanted["one_minus_median"], rel=1e-6)


def test_one_channel_has_no_direction_and_the_row_says_so(plain):
    row = plain[-1]
    assert row["layer"] == "input" and row["channels"] == 1
    assert row["undirected"] == "one channel" and row["count"] == 0
    assert all(row[name] is None for name in MEASURED)
    assert all(row["undirected"] is None and row["count"] > 0 for row in plain[:-1])


def test_over_the_whole_map_one_channel_has_a_direction():
    row = csc(network("NHWC"), IMAGES[..., None], "lrp-zplus", over="map").rows[-1]
    assert row["channels"] == 16 and row["count"] == 9 and 0 < row["median"] < 1


def test_the_certificate_sees_the_same_locations_in_every_layout():
    found = [
        lrp.convergence.certificate(model, x[:1], "lrp-zplus", key=KEY, start="c2").location
        for model, x in (
            (network("NHWC"), IMAGES[..., None]),
            (network("NCHW", ONE), IMAGES),
            (network("NCHW", ONE), IMAGES.reshape(3, 16)),
        )
    ]
    for row in found[1:]:
        assert (row["places"], row["place"]) == (found[0]["places"], found[0]["place"])
        assert row["angle"] == pytest.approx(found[0]["angle"], abs=1e-9)
    assert found[0]["places"] == 16


def test_relevance_that_is_not_finite_is_refused_and_not_dropped():
    """Each layer multiplies by 1e30: three of them leave float32's range."""
    p = {name: jnp.full((4, 4), 1e30, jnp.float32) for name in "abc"}
    model = jax.tree_util.Partial(
        lambda p, x: x @ p["a"] * 1e-30 @ p["b"] * 1e-30 @ p["c"] * 1e-30, p
    )
    x = jnp.ones((1, 4), jnp.float32)
    method = lrp.methods.Method(
        "thrice", lambda layer: lrp.rules.rule(grown) if layer.kind == "dense" else None
    )
    with pytest.raises(ValueError, match=r"NaN or infinity in the relevance that thrice gives"):
        csc(model, x, method)


def grown(op, x, y):
    return lambda r: 1e30 * jnp.ones_like(x) * r.sum()


TOKENS = draw(w=(5, 4), out=(4, 3))


def tokens_apart(p, x):
    return jnp.mean(jax.nn.relu(x @ p["w"]), 1) @ p["out"]


def tokens_merged_with_the_batch(p, x):
    h = jax.nn.relu(x.reshape(-1, 5) @ p["w"])
    return h.reshape(*x.shape[:2], 4).mean(1) @ p["out"]


@pytest.mark.parametrize("over", ["location", "map"])
def test_a_batch_that_is_one_axis_with_tokens_gives_the_rows_of_the_two_apart(over):
    x = RNG.normal(size=(3, 4, 5))
    apart, merged = (
        csc(jax.tree_util.Partial(f, TOKENS), x, "lrp-epsilon", over=over).rows
        for f in (tokens_apart, tokens_merged_with_the_batch)
    )
    of_w = lambda rows: next(row for row in rows if row["layer"] == "w")
    assert of_w(merged)["count"] == of_w(apart)["count"]
    assert of_w(merged)["median"] == pytest.approx(of_w(apart)["median"], rel=1e-9)


@pytest.mark.parametrize("over", ["location", "map"])
def test_relevance_may_be_injected_where_the_batch_is_one_axis_with_tokens(over):
    x = RNG.normal(size=(3, 4, 5))
    apart, merged = (
        csc(jax.tree_util.Partial(f, TOKENS), x, "lrp-epsilon", start="w", over=over).rows
        for f in (tokens_apart, tokens_merged_with_the_batch)
    )
    for one, other in zip(merged, apart, strict=True):
        assert one["layer"] == other["layer"] and one["count"] == other["count"]
        assert one["median"] == pytest.approx(other["median"], rel=1e-9)
