"""Cosine similarity convergence against a plain numpy version of the paper's protocol."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import lrpjax as lrp
from lrpjax._base import work
from lrpjax.convergence.cosines import one_minus_cosines, random_baseline
from lrpjax.images import bundled_images

pytestmark = pytest.mark.usefixtures("quick_compile")

EXACT = 1e-10  # float64 cosines of vectors with up to a few hundred entries
SINGLE = 1e-11  # 1 - |cos| of float32 unit vectors: the square of their rounding, times 1000


def conv(x, w):
    return lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.fixture(scope="module")
def net():
    keys = jax.random.split(jax.random.key(3), 4)
    weights = {
        "conv1": jax.random.normal(keys[0], (3, 3, 3, 5)),
        "conv2": jax.random.normal(keys[1], (3, 3, 5, 4)),
        "fc": jax.random.normal(keys[2], (6 * 6 * 4, 7)),
    }

    def forward(weights, x):
        x = jax.nn.relu(conv(x, weights["conv1"]))
        x = jax.nn.relu(conv(x, weights["conv2"]))
        return x.reshape(len(x), -1) @ weights["fc"]

    return jax.tree_util.Partial(forward, weights), jax.random.normal(keys[3], (3, 6, 6, 3))


def plain_csc(model, x, method, start, layer, key, vectors):
    """|cos| of all pairs, locations and images, one at a time in numpy; nan where undefined."""
    values = []
    at = lambda x: lrp.vjp(model, x, method, layers=[start])[1](jnp.ones_like(model(x)))[1][start]
    like = jax.eval_shape(at, x)
    for i in range(len(x)):
        _, relevance = lrp.vjp(model, x[i : i + 1], method, start=start, layers=[layer])
        drawn = jax.random.normal(jax.random.fold_in(key, i), (vectors, *like.shape[1:]), x.dtype)
        maps = [np.asarray(relevance(v[None])[1][layer], np.float64)[0] for v in drawn]
        rows = [m.reshape(-1, m.shape[-1]) if m.ndim == 3 else m.reshape(1, -1) for m in maps]
        for a in range(vectors):
            for b in range(a):
                with np.errstate(invalid="ignore", divide="ignore"):
                    dots = (rows[a] * rows[b]).sum(-1)
                    norms = np.linalg.norm(rows[a], axis=-1) * np.linalg.norm(rows[b], axis=-1)
                    values.append(np.abs(dots / norms))
    return np.concatenate(values)


@pytest.mark.parametrize("method", ["lrp-alpha2-beta1", "gradient", "guided-bp"])
@pytest.mark.parametrize("start", ["fc", "conv2"])
def test_agrees_with_plain_numpy(net, method, start):
    model, x = net
    key = jax.random.key(7)
    result = lrp.convergence.csc(model, x, method, start=start, vectors=3, key=key)
    assert result.rows[0]["layer"] == start and result.rows[-1]["layer"] == "input"
    for row in result.rows:
        values = plain_csc(model, x, method, start, row["layer"], key, 3)
        kept = values[~np.isnan(values)]
        assert row["count"] == len(kept) and row["dropped"] == np.isnan(values).sum()
        for p, quantile in row["quantiles"].items():
            assert quantile == pytest.approx(np.percentile(kept, float(p)), abs=EXACT)
        assert row["mean"] == pytest.approx(kept.mean(), abs=EXACT)


def test_rank_one_chain_gives_one():
    column, row = jnp.arange(1.0, 7.0), jnp.linspace(1, 2, 5)
    weights = {"fc1": jnp.outer(column, row), "fc2": jnp.ones((5, 4))}
    model = jax.tree_util.Partial(lambda w, x: (x @ w["fc1"]) @ w["fc2"], weights)
    x = jnp.ones((2, 6))
    result = lrp.convergence.csc(model, x, "lrp-zplus", key=jax.random.key(0))
    at = {r["layer"]: r["one_minus_median"] for r in result.rows}
    assert at["input"] < 1e-25 and at["fc2"] > 0.1


def test_permutation_chain_stays_at_the_baseline():
    size = 40
    first, second = (np.random.default_rng(i).permutation(np.eye(size)) for i in (0, 1))
    weights = {"fc1": jnp.array(first), "fc2": jnp.array(second)}
    model = jax.tree_util.Partial(lambda w, x: (x @ w["fc1"]) @ w["fc2"], weights)
    result = lrp.convergence.csc(
        model, jnp.ones((60, size)), "lrp-zplus", vectors=10, key=jax.random.key(1)
    )
    start, *below = result.rows
    for row in below:
        assert row["median"] == pytest.approx(start["median"], abs=EXACT)
        # 2,700 pairs: the standard error of the median is near 0.002.
        assert row["median"] == pytest.approx(row["baseline"], abs=0.01)


def test_zero_vectors_are_dropped_and_counted():
    dead = jnp.array([[1.0, -1.0], [1.0, -1.0]])
    model = jax.tree_util.Partial(
        lambda w, x: jax.nn.relu(x @ w["fc1"]) @ w["fc2"], {"fc1": dead, "fc2": jnp.eye(2)}
    )
    x = jnp.array([[1.0, 1.0], [-1.0, -1.0]])
    result = lrp.convergence.csc(model, x, "deconv", vectors=4, key=jax.random.key(0))
    (row,) = [r for r in result.rows if r["layer"] == "fc1"]
    assert row["count"] + row["dropped"] == 12
    assert row["dropped"] > 0


def test_where_all_relevance_is_zero_nothing_is_counted():
    model = jax.tree_util.Partial(lambda w, x: x @ w, jnp.zeros((3, 2)))
    found = lrp.convergence.csc(model, jnp.ones((1, 3)), "gradient", key=jax.random.key(0))
    assert (found.rows[-1]["layer"], found.rows[-1]["count"]) == ("input", 0)


@pytest.mark.parametrize(
    ("channels", "median"), [(3, 0.500), (10, 0.228), (64, 0.085), (512, 0.030)]
)
def test_baseline_is_the_median_of_gaussian_vectors(channels, median):
    assert random_baseline(channels) == pytest.approx(median, abs=5e-4)


def test_small_angles_are_resolved_in_float32():
    base = np.random.default_rng(0).normal(size=500)
    other = np.random.default_rng(1).normal(size=500)
    for size in (1e-3, 1e-5):
        pair = np.stack([base, -(base + size * other)])
        unit = pair / np.linalg.norm(pair, axis=1, keepdims=True)
        exact = ((unit[0] + unit[1]) ** 2).sum() / 2
        found = one_minus_cosines(jnp.array(pair, jnp.float32))[0]
        assert float(found) == pytest.approx(exact, abs=SINGLE)


def test_tiny_relevance_keeps_its_angle():
    vectors = jnp.array([[3e-30, 4e-30], [4e-30, 3e-30]], jnp.float32)  # squares underflow
    assert float(one_minus_cosines(vectors)[0]) == pytest.approx(1 - 24 / 25, rel=1e-5)


def test_chunks_change_nothing_and_keys_decide(net, monkeypatch):
    model, x = net
    run = lambda key, **options: lrp.convergence.csc(model, x, "lrp-zplus", key=key, **options)
    whole = run(jax.random.key(0))
    assert run(jax.random.key(0)).rows == whole.rows  # bit for bit
    assert run(jax.random.key(1)).rows[-1]["median"] != whole.rows[-1]["median"]
    parts = [run(jax.random.key(0), chunk=chunk) for chunk in (1, 2, 7)]
    monkeypatch.setattr(work, "BYTES", 1)  # one image, and one vector, at a time
    for found in (*parts, run(jax.random.key(0))):
        for a, b in zip(found.rows, whole.rows, strict=True):
            assert a["median"] == pytest.approx(b["median"], abs=EXACT)
            assert a["count"] == b["count"]


def test_channels_are_found_in_every_layout(net):
    model, x = net
    channels_first = lambda x: model(x.transpose(0, 2, 3, 1))
    one_image = jax.vmap(lambda image: model(image[None])[0])
    key = jax.random.key(0)
    expected = lrp.convergence.csc(model, x, "lrp-zplus", key=key).rows
    for other, inputs in ((channels_first, x.transpose(0, 3, 1, 2)), (one_image, x)):
        rows = lrp.convergence.csc(other, inputs, "lrp-zplus", key=key).rows
        for a, b in zip(rows, expected, strict=True):
            assert a["channels"] == b["channels"]
            assert a["median"] == pytest.approx(b["median"], abs=EXACT)


def test_results_are_saved_whole_and_read_again(net, tmp_path):
    model, x = net
    result = lrp.convergence.csc(model, x, "gradient", key=jax.random.key(0))
    result.save(tmp_path / "r.json")
    assert lrp.convergence.CSC.load(tmp_path / "r.json") == result
    assert [file.name for file in tmp_path.iterdir()] == ["r.json"]
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.json"):
        lrp.convergence.CSC.load(tmp_path / "bad.json")


def test_csc_needs_two_vectors_an_image_and_a_layer_that_is_reached(net):
    model, x = net
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="at least 2"):
        lrp.convergence.csc(model, x, "gradient", key=key, vectors=1)
    with pytest.raises(ValueError, match="does not reach 'fc'"):
        lrp.convergence.csc(model, x, "gradient", key=key, start="conv1", layers=["fc"])
    with pytest.raises(ValueError, match="one array"):
        lrp.convergence.csc(model, x[:0], "gradient", key=key)


@pytest.mark.slow
def test_the_bundled_network_shows_the_papers_result():
    model = lrp.models.cifar10()
    images = model.preprocess(bundled_images()[0])
    at_input = {
        method: lrp.convergence.csc(model, images, method, key=jax.random.key(0)).rows[-1]
        for method in ("lrp-alpha1-beta0", "lrp-z", "gradient")
    }
    assert at_input["lrp-alpha1-beta0"]["one_minus_median"] < 1e-4
    assert at_input["lrp-z"]["median"] < 0.98 and at_input["gradient"]["median"] < 0.98
