"""ResNet: its layers' names, its size, and Keras' weights giving Keras' logits."""

import re

import h5py
import jax
import keras
import numpy as np
import pytest
from flax import nnx

import lrpjax as lrp
from lrpjax.models import ResNet, resnet

pytestmark = pytest.mark.usefixtures("quick_compile")

PARAMETERS = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160}  # torchvision's
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
X = np.random.default_rng(0).normal(size=(2, 64, 96, 3)).astype("float32")
X[1] = np.linspace(-3, 3, 96)[:, None]  # two images that differ in more than noise
# 50 layers of float32, in two compilations.
FLOAT32 = 1e-4

INJECTED = {
    18: "dense block5_1:relu block4_2:relu block3_2:relu block2_2:relu",
    50: "dense block5_1:relu block4_2:relu block3_4:relu block3_2:relu block2_2:relu",
    101: "dense block5_1:relu block4_2:relu block3_4:relu block3_2:relu block2_2:relu",
}


def small(depth, weights="random", **options):
    return resnet.build(depth, weights, key=jax.random.key(0), **{"width": 2} | options)


def expected_layers(depth):
    """The paper's names, in order; a ReLU is a colon behind what it follows."""
    letters = "ab" if depth < 50 else "abc"
    yield from ("conv1:", "maxpool")
    for stage, count in enumerate(BLOCKS[depth], 2):
        for block in range(1, count + 1):
            here = f"{stage}_{block}"
            yield from (f"conv{here}{letter}:" for letter in letters[:-1])
            yield f"conv{here}{letters[-1]}"
            if block == 1 and (stage > 2 or depth >= 50):
                yield f"conv{stage}_skip"
            yield f"block{here}:"
    yield from ("avgpool", "dense")


@pytest.mark.parametrize(("depth", "injected"), INJECTED.items())
def test_layers_have_the_papers_names_and_no_batch_norm_is_left(depth, injected):
    wanted = []
    for name in expected_layers(depth):
        own = name.rstrip(":")
        wanted += [own, f"{own}:relu"] if name.endswith(":") else [own]
    model = small(depth)
    layers = lrp.plan(model, X, "lrp-epsilon").layers
    assert [layer.name for layer in layers] == wanted
    assert model.injection_layers == tuple(injected.split())
    assert set(model.injection_layers) <= set(wanted)
    kinds = {"conv": "conv", "block": "add", "maxpool": "max_pool", "avgpool": "sum"}
    for layer in layers:
        start = re.match("[a-z]+", layer.name)[0]
        assert layer.kind == ("activation" if ":" in layer.name else kinds.get(start, "dense"))


@pytest.mark.parametrize(("depth", "count"), PARAMETERS.items())
def test_it_has_as_many_parameters_as_torchvisions(depth, count):
    model = nnx.eval_shape(lambda: ResNet(depth, rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == count


def test_the_folded_network_has_the_gradient_of_the_network():
    model = small(18, variant="keras")
    draw = np.random.default_rng(0)
    for _, leaf in nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat))):
        if leaf.ndim == 1:
            leaf[...] = draw.uniform(0.3, 0.9, leaf.shape).astype("float32")
    found = lrp.attribute(model, X, "gradient", target=3)
    wanted = jax.jit(jax.grad(lambda x: model(x)[:, 3].sum()))(X)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=FLOAT32 * abs(wanted).max())


def test_where_the_variants_stride():
    plans = (lrp.plan(small(50, variant=variant), X, "lrp-z") for variant in ("torch", "keras"))
    torch, keras = ({row["layer"]: row["output"] for row in plan.rows} for plan in plans)
    assert (torch["conv3_1a"], keras["conv3_1a"]) == ("2x16x24x4", "2x8x12x4")
    different = {name for name in torch if torch[name] != keras[name]}
    assert different == {f"conv{stage}_1a{relu}" for stage in (3, 4, 5) for relu in ("", ":relu")}


@pytest.fixture(scope="module")
def in_keras():
    with pytest.MonkeyPatch.context() as patch:  # what is replaced below need not be drawn
        zeros = lambda self, shape, dtype: np.zeros(shape, dtype)
        patch.setattr(keras.initializers.GlorotUniform, "__call__", zeros)
        net = keras.applications.ResNet50(
            weights=None, input_shape=X.shape[1:], classes=7, classifier_activation=None
        )
    draw = np.random.default_rng(0)
    for layer in net.layers:
        if len(weights := layer.get_weights()) == 4:
            # A variance so small that BatchNorm's epsilon counts.
            ranges = [(0.2, 0.3), (-0.1, 0.1), (-0.1, 0.1), (0.01, 0.03)]
            pairs = zip(ranges, weights, strict=True)
            layer.set_weights([draw.uniform(*ends, w.shape) for ends, w in pairs])
        elif weights:
            kernel, bias = (w.shape for w in weights)
            scale = np.prod(kernel[:-1]) ** -0.5
            layer.set_weights([draw.normal(0, scale, kernel), draw.normal(0, 0.1, bias)])
    return net


def assert_same_logits(model, net):
    wanted = np.asarray(net(X))
    np.testing.assert_allclose(model(X), wanted, rtol=0, atol=FLOAT32 * abs(wanted).max())
    # The logits depend on the image by far more than that.
    assert np.median(wanted.std(0)) > 100 * FLOAT32 * abs(wanted).max()


SAVED = {"weights.h5": "save_weights", "h5": "save", "keras": "save"}


@pytest.mark.parametrize(("suffix", "save"), SAVED.items())
def test_weights_of_keras_give_its_logits(suffix, save, in_keras, tmp_path):
    path = tmp_path / f"net.{suffix}"
    getattr(in_keras, save)(path)
    model = lrp.models.resnet50(path)
    assert_same_logits(model, in_keras)
    assert (model.variant, model.preprocess.name) == ("keras", "caffe")


def name_in_2015(name):
    """conv3_block2_1_conv to res3b_branch2a, the names of keras-applications' resnet50.py."""
    if "_block" not in name:
        return {"conv1_conv": "conv1", "conv1_bn": "bn_conv1", "predictions": "fc1000"}[name]
    conv, block, number, kind = name.split("_")
    branch = "1" if number == "0" else "2" + "abc"[int(number) - 1]
    kind = "res" if kind == "conv" else "bn"
    return f"{kind}{conv[-1]}{'abcdef'[int(block[-1]) - 1]}_branch{branch}"


@pytest.mark.parametrize("top", ["", "model_weights"])
def test_weights_under_the_old_names_mean_the_old_epsilon(top, in_keras, tmp_path):
    roles = {2: ("W", "b"), 4: ("gamma", "beta", "running_mean", "running_std")}
    norms = [layer for layer in in_keras.layers if len(layer.get_weights()) == 4]
    with h5py.File(tmp_path / "net.h5", "w") as file:
        root = file.create_group(top) if top else file
        weighted = [layer for layer in in_keras.layers if layer.get_weights()]
        names = [name_in_2015(layer.name) for layer in weighted]
        root.attrs["layer_names"] = [n.encode() for n in ["input_1", *names]]
        root.create_group("input_1").attrs["weight_names"] = []
        for name, layer in zip(names, weighted, strict=True):
            group, values = root.create_group(name), layer.get_weights()
            inside = [f"{name}_{role}_1:0" for role in roles[len(values)]]
            group.attrs["weight_names"] = [n.encode() for n in inside]
            for n, value in zip(inside, values, strict=True):
                group[n] = value
    model = lrp.models.resnet50(tmp_path / "net.h5")
    try:
        for layer in norms:
            layer.epsilon = 1e-3  # the default of Keras, which resnet50.py left as it was
        assert_same_logits(model, in_keras)
    finally:
        for layer in norms:
            layer.epsilon = 1.001e-5


REFUSED = {
    "no key": (lambda: lrp.models.resnet18("random"), r"resnet18\(weights=\"random\"\).*key=jax"),
    "depth": (lambda: ResNet(12, rngs=nnx.Rngs(0)), "depth.*18, 34, 50, 101, got 12"),
    "variant": (lambda: small(18, variant="tf"), "variant.*torch, keras, keras-1.0, got 'tf'"),
}


@pytest.mark.parametrize(("call", "words"), REFUSED.values(), ids=REFUSED)
def test_what_no_resnet_is_built_of_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
