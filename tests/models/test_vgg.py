"""VGG: its layers' names, its size, and Keras' weights giving Keras' logits."""

import jax
import keras
import numpy as np
import pytest
from flax import nnx

import lrpjax as lrp
from lrpjax.models import VGG, vgg

pytestmark = pytest.mark.usefixtures("quick_compile")

SMALL = {"width": 2, "hidden": 4}
PARAMETERS = {11: 132_863_336, 13: 133_047_848, 16: 138_357_544, 19: 143_667_240}  # torchvision's
X = np.random.default_rng(0).normal(size=(2, 224, 224, 3)).astype("float32")
# 16 layers of float32, in two compilations.
FLOAT32 = 1e-4

LAYERS = {
    11: "conv1_1 pool1 conv2_1 pool2 conv3_1 conv3_2 pool3 conv4_1 conv4_2 pool4 conv5_1 conv5_2 "
    "pool5 flatten fc1 fc2 fc3",
    16: "conv1_1 conv1_2 pool1 conv2_1 conv2_2 pool2 conv3_1 conv3_2 conv3_3 pool3 "
    "conv4_1 conv4_2 conv4_3 pool4 conv5_1 conv5_2 conv5_3 pool5 flatten fc1 fc2 fc3",
}
INJECTED = {
    11: ("fc3", "fc1:relu"),
    13: ("fc3", "fc1:relu", "conv2_2:relu"),
    16: ("fc3", "fc1:relu", "conv4_3:relu", "conv3_3:relu", "conv2_2:relu"),
    19: ("fc3", "fc1:relu", "conv4_3:relu", "conv3_3:relu", "conv2_2:relu"),
}


def small(depth=11, weights="random", key=None, **options):
    return vgg.build(
        depth, weights, key=jax.random.key(0) if key is None else key, **SMALL, **options
    )


@pytest.mark.parametrize("depth", LAYERS)
def test_layers_have_the_papers_names(depth):
    layers = lrp.plan(small(depth), X, "lrp-epsilon").layers
    relus = [layer.name for layer in layers if layer.kind == "activation"]
    others = [layer.name for layer in layers if layer.kind != "activation"]
    assert others == LAYERS[depth].split()
    assert relus == [f"{name}:relu" for name in others[:-1] if name.startswith(("conv", "fc"))]


@pytest.mark.parametrize(("depth", "count"), PARAMETERS.items())
def test_it_has_as_many_parameters_as_torchvisions(depth, count):
    model = nnx.eval_shape(lambda: VGG(depth, rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == count


@pytest.mark.parametrize(("depth", "names"), INJECTED.items())
def test_injection_layers_exist(depth, names):
    model = small(depth)
    assert model.injection_layers == names
    assert set(names) <= {layer.name for layer in lrp.plan(model, X, "lrp-z").layers}


def test_random_weights_are_he_normal_and_follow_the_key():
    model = vgg.build(11, "random", key=jax.random.key(0), width=8, hidden=64)
    same = vgg.build(11, "random", key=jax.random.key(0), width=8, hidden=64)
    other = vgg.build(11, "random", key=jax.random.key(1), width=8, hidden=64)
    kernel = model.fc1.kernel[...]
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (49 * 64)), rtol=0.01)
    np.testing.assert_array_equal(kernel, same.fc1.kernel[...])
    assert abs(kernel - other.fc1.kernel[...]).max() > 0.01
    assert not model.fc1.bias[...].any()


def test_it_comes_ready_for_inference():
    model = small()
    np.testing.assert_array_equal(model(X), model(X))
    assert small(outputs=1000).classes[340] == "zebra" and small(outputs=7).classes == ()
    assert model.image_size == (224, 224)


def test_preprocessing_is_static():
    model = small(preprocess="caffe")
    images = np.full((1, 224, 224, 3), 255, np.uint8)
    out = jax.jit(lambda model, images: model(model.preprocess(images)))(model, images)
    assert model.input_range[1] == pytest.approx((255 - 103.939, 255 - 116.779, 255 - 123.68))
    np.testing.assert_allclose(out, model(model.preprocess(images)), rtol=FLOAT32)


def test_deep_taylor_takes_the_range_of_the_input():
    model = small()
    x = model.preprocess(np.random.default_rng(0).integers(0, 256, X.shape, dtype=np.uint8))
    found = lrp.methods.resolve("deep-taylor", model)
    assert found.input_range == model.input_range
    relevance = np.asarray(lrp.attribute(model, x, "deep-taylor"))
    np.testing.assert_allclose(relevance.sum((1, 2, 3)), model(x).max(1), rtol=FLOAT32)


REFUSED = {
    "no key": (lambda: lrp.models.vgg16("random"), r"vgg16\(weights=\"random\"\).*key=jax"),
    "preprocess": (lambda: small(preprocess="rgb"), "'torch' or 'caffe' or 'tf', got 'rgb'"),
    "depth": (lambda: VGG(12, rngs=nnx.Rngs(0)), "11, 13, 16, 19 layers, got 12"),
    "another size": (lambda: small()(X[:, :32, :32]), r"\(N, 224, 224, 3\).*\(2, 32, 32, 3\)"),
}


@pytest.mark.parametrize(("call", "words"), REFUSED.values(), ids=REFUSED)
def test_what_no_vgg_is_built_of_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.fixture(scope="module")
def in_keras():
    """VGG-16 as keras.applications builds and names it, narrow, with 7 classes."""
    net = keras.Sequential([keras.Input((224, 224, 3))])
    for stage, (width, count) in enumerate(((2, 2), (4, 2), (8, 3), (16, 3), (16, 3)), 1):
        for i in range(1, count + 1):
            options = {"padding": "same", "activation": "relu", "name": f"block{stage}_conv{i}"}
            net.add(keras.layers.Conv2D(width, 3, **options))
        net.add(keras.layers.MaxPooling2D(name=f"block{stage}_pool"))
    net.add(keras.layers.Flatten(name="flatten"))
    net.add(keras.layers.Dense(4, activation="relu", name="fc1"))
    net.add(keras.layers.Dense(4, activation="relu", name="fc2"))
    net.add(keras.layers.Dense(7, name="predictions"))
    draw = np.random.default_rng(0)
    net.set_weights([draw.normal(0.02, 0.2, w.shape) for w in net.get_weights()])
    return net


SAVED = {"weights.h5": "save_weights", "h5": "save", "keras": "save"}


@pytest.mark.parametrize(("suffix", "save"), SAVED.items())
def test_weights_of_keras_give_its_logits(suffix, save, in_keras, tmp_path):
    path = tmp_path / f"net.{suffix}"
    getattr(in_keras, save)(path)
    model = small(16, path)
    wanted = np.asarray(in_keras(X))
    np.testing.assert_allclose(model(X), wanted, rtol=0, atol=FLOAT32 * abs(wanted).max())
    assert abs(wanted).max() > 0.01 and wanted.std(0).min() > 0
    assert model.preprocess.name == "caffe"
    assert small(16, path, preprocess="tf").preprocess.name == "tf"


def test_it_is_a_pytree_of_its_parameters():
    model = small()
    doubled = jax.tree.map(lambda leaf: 2 * leaf, model)
    np.testing.assert_array_equal(doubled.fc3.kernel[...], 2 * model.fc3.kernel[...])
    # No bias: 11 layers of twice the weights give 2 to the 11th times the logits.
    np.testing.assert_allclose(doubled(X), 2**11 * model(X), rtol=FLOAT32)
