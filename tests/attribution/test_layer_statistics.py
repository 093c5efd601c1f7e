"""Statistics of a layer's units, batch by batch, against numpy over all images at once."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrpjax.propagation.layer_statistics import Statistics, statistics

EXACT = 1e-10  # float64 sums of a few terms
# The features are near 1e5, of which float64 rounds 1e-11; their deviations are near 3.
SHIFTED = 1e-9

pytestmark = pytest.mark.usefixtures("quick_compile")


def batch_first(w, x):
    return jax.nn.relu(x @ w["fc1"]) @ w["fc2"]


def batch_last(w, x):
    return jax.nn.relu(w["fc1"].T @ x.T).T @ w["fc2"]


@pytest.fixture(scope="module")
def weights():
    keys = jax.random.split(jax.random.key(3))
    return {"fc1": jax.random.normal(keys[0], (6, 5)), "fc2": jax.random.normal(keys[1], (5, 2))}


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(4), (7, 6))


@pytest.fixture(scope="module")
def fitted(weights, images):
    return statistics(jax.tree_util.Partial(batch_first, weights), images, "fc1")


@pytest.mark.parametrize("forward", [batch_first, batch_last])
@pytest.mark.parametrize("batch", [1, 3, 50])
def test_statistics_are_those_of_numpy_whatever_the_batch(weights, images, forward, batch):
    model, x = jax.tree_util.Partial(forward, weights), np.asarray(images) + 1e4
    found = statistics(model, x, "fc1", chunk=batch)
    features = x @ np.asarray(weights["fc1"])
    assert found.count == 7 and found.layer == "fc1"
    np.testing.assert_allclose(found.mean, features.mean(0), rtol=EXACT)
    np.testing.assert_allclose(found.std, features.std(0, ddof=1), rtol=SHIFTED)


def test_statistics_are_a_pytree(fitted):
    doubled = jax.jit(lambda s: jax.tree.map(lambda a: 2 * a, s))(fitted)
    assert doubled.layer == "fc1" and doubled.count == 14
    np.testing.assert_array_equal(doubled.mean, 2 * fitted.mean)


def test_statistics_are_saved_whole_and_read_again(fitted, tmp_path):
    fitted.save(tmp_path / "s")
    assert [file.name for file in tmp_path.iterdir()] == ["s"]
    again = Statistics.load(tmp_path / "s")
    assert (again.layer, again.count) == (fitted.layer, fitted.count)
    np.testing.assert_array_equal(again.mean, fitted.mean)
    np.testing.assert_array_equal(again.std, fitted.std)


def test_what_is_no_file_of_statistics_is_refused(fitted, tmp_path):
    fitted.save(tmp_path / "s.npz")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("no numbers")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "s.npz").read_bytes()[:200])
    np.save(tmp_path / "array.npy", np.ones(3))
    np.savez(tmp_path / "other.npz", images=np.ones(3))
    for name in ("empty", "text", "cut.npz", "array.npy", "other.npz"):
        words = f"The file of a layer's statistics '.*{name}' is damaged or of another kind"
        with pytest.raises(ValueError, match=words):
            Statistics.load(tmp_path / name)
    words = r"no file of a layer's statistics '.*missing\.npz'"
    with pytest.raises(FileNotFoundError, match=words):
        Statistics.load(tmp_path / "missing.npz")


def test_statistics_need_two_finite_images_and_a_layer(weights, images):
    fit = partial(statistics, jax.tree_util.Partial(batch_first, weights), layer="fc1")
    for few in (images[:1], [1.0, 2.0]):
        with pytest.raises(ValueError, match="at least 2 images"):
            fit(few)
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        fit(images, chunk=0)
    with pytest.raises(ValueError, match="no layer 'fc7'; the nearest are fc"):
        fit(images, layer="fc7")
    with pytest.raises(ValueError, match="NaN or infinity in the input"):
        fit(images.at[-1, 0].set(jnp.nan), chunk=3)  # in the last batch


def test_a_layer_that_mixes_the_images_is_refused(weights, images):
    def merged(w, x):
        return jax.nn.relu(x.reshape(-1, 1) @ w["fc1"][:1]).reshape(len(x), -1)[:, :5] @ w["fc2"]

    with pytest.raises(ValueError, match=r"\(42, 5\) and no axis for the images"):
        statistics(jax.tree_util.Partial(merged, weights), images, "fc1")
