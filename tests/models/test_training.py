"""Training: the convolution's own gradient, augmentation, and a resumed run."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import lrpjax as lrp
from lrpjax.images import bundled_images
from lrpjax.models.training import accuracy, augment, conv, train

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
