"""The spectrum beside the cosines: the law that joins them, and the command that shows both."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp
from lrpjax.images import bundled_images

pytestmark = pytest.mark.usefixtures("quick_compile")


def with_values(singular_values, n, seed=0):
    """A dense layer without bias whose matrix has these singular values (n, n)."""
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.normal(size=(n, n)))[0] for _ in range(2))
    full = np.zeros(n)
    full[: len(singular_values)] = singular_values
    w = jnp.asarray(u * full @ v)
    return lambda x: x @ w


def column(result, field):
    return [row[field] for row in result.rows]


@pytest.mark.parametrize("ratio", [10.0, 1e3])
def test_two_singular_values_decide_the_cosines(ratio):
    model = with_values([1, 1 / ratio], 30)
    found = lrp.convergence.profile(
        model, jnp.ones((4, 30)), "gradient", key=jax.random.key(0), vectors=60
    )
    (row,) = found.rows
    assert row["map_ratio"] == pytest.approx(ratio, rel=1e-6)
    assert row["total_gap"] == pytest.approx(np.log(ratio), rel=1e-6)
    assert row["map_expected"] == pytest.approx(2 / ratio**2, rel=1e-6)
    # A median of 4 x 1770 dependent pairs of 240 vectors: good to some 20 %.
    assert row["map_csc"] == pytest.approx(2 / ratio**2, rel=0.3)
    assert row["location_csc"] == row["map_csc"]  # a dense layer is one location


def test_many_further_values_only_add():
    model = with_values([1, *[0.05] * 29], 30)
    key = jax.random.key(0)
    (row,) = lrp.convergence.profile(model, jnp.ones((2, 30)), "gradient", key=key).rows
    assert row["map_csc"] > 3 * row["map_expected"]


def test_a_second_value_that_is_rounding_has_no_ratio():
    model = with_values([1.0], 20)
    key = jax.random.key(0)
    (row,) = lrp.convergence.profile(model, jnp.ones((1, 20)), "gradient", key=key).rows
    assert row["map_ratio"] is None and row["location_ratio"] is None
    assert row["map_expected"] is None
    assert row["total_gap"] > 30  # at least: the double precision's last digit


def test_over_the_map_all_places_count_as_one_vector():
    model = lambda x: jax.lax.conv_general_dilated(
        x, jnp.ones((1, 1, 2, 2)), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x, key = jnp.ones((1, 3, 3, 2)), jax.random.key(0)
    csc = lambda over: lrp.convergence.csc(
        model, x, "gradient", key=key, layers=["input"], vectors=40, over=over
    )
    (local,), (whole,) = csc("location").rows, csc("map").rows
    assert local["one_minus_median"] < 1e-12  # a rank-1 block: one direction at every location
    assert (local["channels"], whole["channels"]) == (2, 18)
    # The nine locations keep independent sizes: the cosine of Gaussian vectors of 9 dimensions.
    assert whole["median"] == pytest.approx(0.23, abs=0.04)
    with pytest.raises(ValueError, match="over='pixel'"):
        csc("pixel")


@pytest.mark.slow
def test_spectrum_and_cosines_tell_one_story_on_the_bundled_network():
    model = lrp.models.cifar10()
    x = model.preprocess(bundled_images()[0])[:2]
    found = lrp.convergence.profile(model, x, "lrp-alpha1-beta0", key=jax.random.key(0))
    assert column(found, "layer")[-1] == "input"
    for row in found.rows:
        for scope in ("map", "location"):
            assert 0.1 < row[f"{scope}_csc"] / row[f"{scope}_expected"] < 10, (row["layer"], scope)
    assert found.rows[-1]["location_ratio"] > 100 * found.rows[0]["location_ratio"]
    # Down the whole chain the links' growth is the chain's own ratio.
    ratio = np.exp(found.rows[-1]["total_gap"])
    assert ratio == pytest.approx(found.rows[-1]["map_ratio"], rel=1e-2)  # medians of two images


def test_methods_without_links_have_no_gaps():
    model = with_values([1, 0.5, 0.2], 6)
    found = lrp.convergence.profile(
        model, jnp.ones((1, 6)), "deeplift-rescale", key=jax.random.key(0)
    )
    assert column(found, "gap") == [None] and found.rows[0]["map_ratio"] > 1


TINY = """
import jax, jax.numpy as jnp

def net():
    w = jnp.sin(jnp.arange(108 * 8.0)).reshape(108, 8)
    v = jnp.cos(jnp.arange(24.0)).reshape(8, 3)
    return lambda x: jax.nn.relu(x.reshape(len(x), -1) @ w) @ v
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny_net.py").write_text(TINY)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=pixels)
    return tmp_path


@pytest.mark.slow
def test_the_command_writes_rows_of_both_kinds_and_their_figure(here, command_line):
    chosen = ["--method", "lrp-zplus", "--method", "gradient", "--model", "tiny_net:net"]
    code, out, _ = command_line("spectrum", *chosen, "--images", "images.npz", "--json", "r.json")
    assert code == 0 and "Whatever non-negative relevance v holds, at input the whole" in out
    assert (here / "lrpjax-spectrum" / "spectrum.png").stat().st_size > 1000
    content = json.loads((here / "r.json").read_text())
    assert content["settings"]["methods"] == ["lrp-zplus", "gradient"]
    layers = [row for row in content["rows"] if "scope" not in row]
    assert {"method", "start", "layer", "map_ratio", "location_csc", "gap"} <= layers[0].keys()
    scopes = [row["scope"] for row in content["rows"] if "scope" in row]
    assert scopes == 2 * ["map", "location", *["link"] * 3]
    reloaded = lrp.convergence.Profile.load(here / "lrpjax-spectrum" / "results.json")
    assert reloaded.rows == layers


def test_a_method_that_is_not_linear_is_left_out(here, command_line):
    chosen = ["--method", "guided-bp", "--model", "tiny_net:net", "--images", "images.npz"]
    code, _, error = command_line("spectrum", *chosen)
    assert code == 1 and "guided-bp is not linear in relevance" in error
