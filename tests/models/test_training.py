"""Training: the convolution's own gradient, augmentation, and a resumed run."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from safetensors import safe_open
from safetensors.numpy import save_file

import lrpjax as lrp
from lrpjax.images import bundled_images
from lrpjax.models.training import accuracy, augment, conv, history, train
from lrpjax.models.weights import load_weights

pytestmark = pytest.mark.usefixtures("quick_compile")

EXACT = 1e-11  # float64 sums of at most a thousand products


@pytest.mark.parametrize("images", [16, 3])
def test_conv_has_the_gradient_of_lax(getkey, images):
    x = jax.random.normal(getkey(), (images, 6, 5, 4))
    kernel = jax.random.normal(getkey(), (3, 3, 4, 7))
    plain = lambda x, kernel: lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    out, pull = jax.vjp(conv, x, kernel)
    expected, expected_pull = jax.vjp(plain, x, kernel)
    assert jnp.abs(out - expected).max() < EXACT
    r = jax.random.normal(getkey(), out.shape)
    for found, wanted in zip(pull(r), expected_pull(r), strict=True):
        assert jnp.abs(found - wanted).max() < EXACT


def test_augment_shifts_by_at_most_a_tenth_and_flips(getkey):
    image = jnp.arange(32 * 32 * 1.0).reshape(1, 32, 32, 1)
    padded = np.pad(np.asarray(image[0, ..., 0]), 3, mode="edge")
    windows = [padded[i : i + 32, j : j + 32] for i in range(7) for j in range(7)]
    allowed = {w.tobytes() for w in windows} | {w[:, ::-1].tobytes() for w in windows}
    made = np.asarray(augment(getkey(), image.repeat(300, 0))[..., 0])
    seen = {m.tobytes() for m in made}
    assert seen <= allowed and len(seen) > 80  # of 98


@pytest.mark.slow
def test_a_resumed_run_ends_like_an_uninterrupted_one(tmp_path):
    images, labels = bundled_images()
    options = {"key": jax.random.key(1), "epochs": 2, "batch": 10}
    *_, (_, whole) = train(images, labels, out=tmp_path / "a", **options)
    next(train(images, labels, out=tmp_path / "b", **options))  # stopped after one epoch
    resumed = list(train(images, labels, out=tmp_path / "b", **options))
    assert [epoch for epoch, _ in resumed] == [1]
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed[0][1]), strict=True):
        assert np.array_equal(a, b)
    saved = lrp.models.cifar10(tmp_path / "b" / "cifar10.safetensors")
    for a, b in zip(jax.tree.leaves(saved), jax.tree.leaves(whole), strict=True):
        assert np.array_equal(a, np.float16(b).astype(np.float32))


def test_the_shipped_weights_know_the_shipped_images():
    model = lrp.models.cifar10()
    images, labels = bundled_images()
    assert accuracy(model, images, labels) >= 0.7  # 14 of 20; the data set's figure is in README.md
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model)))
    assert parameters == 8_640_714


def test_random_weights_need_a_key_and_differ_by_it():
    with pytest.raises(ValueError, match="key"):
        lrp.models.cifar10("random")
    a, b = (lrp.models.cifar10("random", key=jax.random.key(i)) for i in (0, 1))
    assert not np.array_equal(a.fc6.kernel[...], b.fc6.kernel[...])


def test_too_few_images(tmp_path):
    images, labels = bundled_images()
    with pytest.raises(ValueError, match="at least one batch of 64"):
        next(train(images, labels, out=tmp_path, key=jax.random.key(0)))


def write_half(file):
    file.write_bytes(file.read_bytes()[:1000])


def write_rubbish(file):
    file.write_bytes(b"rubbish")


@pytest.fixture(scope="module")
def small():
    """The bundled images, and a network with few channels in the place of the trained one."""
    from helpers.crash_toys import Small

    images, labels = bundled_images()
    return images, labels, lambda _, key: Small(rngs=nnx.Rngs(key))


@pytest.fixture
def trained(small, tmp_path, monkeypatch):
    """`trained(**options)` trains for one epoch in one folder; returns its rows."""
    from lrpjax.models import training

    images, labels, network = small
    monkeypatch.setattr(training, "cifar10", network)

    def call(images=images, labels=labels, **options):
        options = {"key": jax.random.key(1), "epochs": 1, "batch": 10, **options}
        list(train(images, labels, out=tmp_path, **options))
        return history(tmp_path)

    return call


def test_the_history_has_the_accuracy_of_each_epoch(trained, small, tmp_path):
    assert history(tmp_path) == []
    assert trained() == [{"epoch": 1, "test_accuracy": None}]
    (row,) = trained(test=small[:2], overwrite=True)
    model = small[2](None, jax.random.key(0))
    load_weights(model, tmp_path / "cifar10.safetensors")
    model.eval()
    assert row == {"epoch": 1, "test_accuracy": accuracy(model, *small[:2])}


CHANGES = {
    "seed": ({"key": jax.random.key(2)}, r"key: \[0, 1\], now \[0, 2\]"),
    "epochs": ({"epochs": 2}, "epochs: 1, now 2"),
    "batch": ({"batch": 20}, "batch: 10, now 20"),
    "rate": ({"learning_rate": 0.1}, "learning_rate: 0.001, now 0.1"),
    "images": ({"images": bundled_images()[0][::-1]}, "images: another"),
    "labels": ({"labels": bundled_images()[1][::-1]}, "labels: another"),
    "test": ({"test": bundled_images()}, "test: another"),
}


def test_a_training_with_anything_else_is_refused(trained, tmp_path):
    trained()
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    for changed, said in CHANGES.values():
        with pytest.raises(ValueError, match=rf"other settings \({said}\)"):
            trained(**changed)
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before
    trained()
    trained(**CHANGES["seed"][0], overwrite=True)
    assert (tmp_path / "cifar10.safetensors").read_bytes() != before["cifar10.safetensors"]


@pytest.mark.parametrize("damage", [write_half, write_rubbish])
def test_a_damaged_checkpoint_is_one_sentence_and_can_be_overwritten(trained, tmp_path, damage):
    trained()
    damage(tmp_path / "checkpoint.safetensors")
    with pytest.raises(ValueError, match=r"The checkpoint .*checkpoint.safetensors' is damaged"):
        trained()
    (tmp_path / "checkpoint.safetensors").unlink()
    trained()


def test_overwriting_removes_a_training_and_nothing_else(trained, tmp_path):
    save_file({"x": np.zeros(1)}, tmp_path / "cifar10.safetensors")
    save_file({"x": np.zeros(1)}, tmp_path / "of_mine.safetensors")
    with pytest.raises(ValueError, match=r"pieces of a training, but no settings.json"):
        trained()
    trained(overwrite=True)
    assert (tmp_path / "of_mine.safetensors").exists()


@pytest.mark.parametrize(
    "rows",
    [
        *("[1]", "{}", '"abc"', '[{"epoch": 2}]', "[", '[{"epoch": 1}]'),
        '[{"epoch": 1, "test_accuracy": "half"}]',
    ],
)
def test_a_checkpoint_that_says_nothing_of_its_epochs_is_refused(tmp_path, rows):
    save_file({"x": np.zeros(1)}, tmp_path / "checkpoint.safetensors", {"rows": rows})
    with pytest.raises(ValueError, match=r"The checkpoint .* is damaged or of another kind \("):
        history(tmp_path)


def test_a_checkpoint_of_another_network_is_refused(trained, tmp_path):
    trained()
    file = tmp_path / "checkpoint.safetensors"
    with safe_open(file, "numpy") as found:
        about, names = found.metadata(), list(found.keys())
        tensors = {name: found.get_tensor(name) for name in names}
    del tensors[names[0]]
    save_file(tensors, file, about)
    with pytest.raises(ValueError, match=r"of another kind \(it holds other arrays"):
        trained()
