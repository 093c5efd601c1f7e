"""Weight files: formats, names and layouts, what does not fit, and where files come from."""

import hashlib
import os
import re
import sys
from pathlib import Path
from types import ModuleType

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

import lrpjax as lrp
from lrpjax.models import resnet, vgg
from lrpjax.models.checkpoint import open_checkpoint

pytestmark = pytest.mark.usefixtures("quick_compile")

KEY = jax.random.key(0)


def opened(path):
    with open_checkpoint(path) as file:
        return list(file.tensors)


def refused(words, call, *arguments):
    """Wants a ValueError in one sentence with these words."""
    with pytest.raises(ValueError, match=words) as caught:
        call(*arguments)
    message = str(caught.value)
    assert caught.type is ValueError
    assert "\n" not in message and ". " not in message and message.endswith("."), message


def parameters(model):
    return {
        ".".join(keys): np.asarray(leaf[...])
        for keys, leaf in nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    }


def small_resnet(depth, weights="random", **options):
    return resnet.build(depth, weights, key=KEY, width=2, **options)


def small_vgg(depth, weights="random", **options):
    return vgg.build(depth, weights, key=KEY, width=2, hidden=4, **options)


def drawn(model):
    """The model with every parameter random, those of BatchNorm too."""
    draw = np.random.default_rng(0)
    for _, leaf in nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat))):
        leaf[...] = jnp.asarray(draw.normal(size=leaf.shape), leaf.dtype)
    return model


# --- other formats -------------------------------------------------------------------------------

DAMAGED = {
    "safetensors": b"no tensors",
    "bin": b"\x80\x02no pickle",
    "pth": b"PK\x03\x04 and no more",
    "h5": b"\x89HDF\r\n\x1a\n and no more",
    "keras": b"no archive",
}


@pytest.mark.parametrize(("suffix", "content"), DAMAGED.items())
def test_damaged_files_are_refused(suffix, content, tmp_path):
    path = tmp_path / f"net.{suffix}"
    path.write_bytes(content)
    refused("damaged or of another kind", lrp.models.resnet18, path)


def test_a_file_of_hdf5_without_layers_is_refused(tmp_path):
    with h5py.File(tmp_path / "net.h5", "w") as file:
        file["numbers"] = np.ones(3)
    refused("names no layers.*again", opened, tmp_path / "net.h5")


EXTRAS = {"h5py": ("net.h5", "hdf5"), "huggingface_hub": ("timm/resnet18.tv_in1k", "hub")}


@pytest.mark.parametrize(("module", "weights", "extra"), [(m, *e) for m, e in EXTRAS.items()])
def test_a_missing_package_is_named(module, weights, extra, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.h5").touch()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'pip install "lrpjax\[{extra}\]"'):
        lrp.models.resnet18(weights)


TEXTS = {"lines": "a\nb", "a terminal's": "\x1b[31m", "length": "x" * 400, "sentences": "One. Two"}


@pytest.mark.parametrize("name", TEXTS.values(), ids=TEXTS)
def test_a_name_that_is_a_text_is_not_shown(name, tmp_path):
    save_file({name: np.ones(3)}, tmp_path / "net.safetensors")
    refused("name of a tensor in it is no name", lrp.models.resnet18, tmp_path / "net.safetensors")


# --- names and layouts ---------------------------------------------------------------------------

LEAVES = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
FEATURES = {  # where torchvision's and timm's VGG have convolutions
    11: (0, 3, 6, 8, 11, 13, 16, 18),
    16: (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
}
STAGES = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}


def resnet_in_torch(own):
    """Our parameters under the names and in the layouts of torchvision, which are timm's too."""
    found = {}
    for path, value in own.items():
        layer, leaf = path.split(".")
        kind = re.match("conv|bn|dense", layer)[0]
        if kind == "dense":
            name = "fc"
        elif layer in ("conv1", "bn1"):
            name = layer
        elif layer.endswith("_skip"):
            stage = int(layer.removeprefix(kind)[0])
            name = f"layer{stage - 1}.0.downsample.{0 if kind == 'conv' else 1}"
        else:
            stage, block, letter = re.fullmatch(r"(\d)_(\d+)([abc])", layer[len(kind) :]).groups()
            name = f"layer{int(stage) - 1}.{int(block) - 1}.{kind}{'abc'.index(letter) + 1}"
        if leaf == "kernel":
            axes = (3, 2, 0, 1) if value.ndim == 4 else (1, 0)
            found[f"{name}.weight"] = value.transpose(axes)
        else:
            theirs = next(t for t, ours in LEAVES.items() if ours == leaf)
            found[f"{name}.{theirs}"] = value
        if leaf == "mean":
            found[f"{name}.num_batches_tracked"] = np.int64(3)
    return found


def vgg_in_torch(own, depth, *, timm):
    layers = [f"conv{s}_{i}" for s, n in enumerate(STAGES[depth], 1) for i in range(1, n + 1)]
    names = dict(zip(layers, (f"features.{i}" for i in FEATURES[depth]), strict=True))
    heads = ("pre_logits.fc1", "pre_logits.fc2", "head.fc")
    heads = heads if timm else ("classifier.0", "classifier.3", "classifier.6")
    names |= dict(zip(("fc1", "fc2", "fc3"), heads, strict=True))
    found = {}
    for layer, name in names.items():
        kernel = own[f"{layer}.kernel"]
        if layer == "fc1":  # (height, width, channels) is read in our order
            kernel = kernel.reshape(7, 7, -1, kernel.shape[1])
        elif layer == "fc2" and timm:
            kernel = kernel[None, None]
        kernel = kernel.transpose((3, 2, 0, 1) if kernel.ndim == 4 else (1, 0))
        if layer == "fc1" and not timm:
            kernel = kernel.reshape(kernel.shape[0], -1)
        found |= {f"{name}.weight": kernel, f"{name}.bias": own[f"{layer}.bias"]}
    return found


NETWORKS = {
    "resnet18": (lambda **o: small_resnet(18, **o), resnet_in_torch),
    "resnet50": (lambda **o: small_resnet(50, **o), resnet_in_torch),
    "vgg11, torchvision": (
        lambda **o: small_vgg(11, **o),
        lambda own: vgg_in_torch(own, 11, timm=False),
    ),
    "vgg16, torchvision": (
        lambda **o: small_vgg(16, **o),
        lambda own: vgg_in_torch(own, 16, timm=False),
    ),
    "vgg16, timm": (
        lambda **o: small_vgg(16, **o),
        lambda own: vgg_in_torch(own, 16, timm=True),
    ),
}


def save(tensors, path):
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path)
    return path


@pytest.mark.parametrize(("build", "rename"), NETWORKS.values(), ids=NETWORKS)
def test_torchs_names_and_layouts(build, rename, tmp_path):
    own = parameters(drawn(build(outputs=7)))
    model = build(weights=save(rename(own), tmp_path / "net.safetensors"))
    found = parameters(model)
    assert found.keys() == own.keys()
    for name, value in own.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name, strict=True)
    assert (model.preprocess.name, model.outputs) == ("torch", 7)


def test_half_precision_is_read_as_single(tmp_path):
    own = parameters(drawn(small_resnet(18)))
    half = {n: v.astype(jnp.bfloat16) for n, v in resnet_in_torch(own).items()}
    found = parameters(small_resnet(18, save(half, tmp_path / "net.safetensors")))
    rounded = own["conv4_1a.kernel"].astype(jnp.bfloat16).astype("float32")
    np.testing.assert_array_equal(found["conv4_1a.kernel"], rounded, strict=True)


SETTINGS = {"variant": "keras-1.0", "preprocess": "caffe"}


def test_own_files_come_back_with_their_settings(tmp_path):
    model = drawn(small_resnet(18, variant="keras-1.0", preprocess="caffe"))
    lrp.models.save_weights(model, tmp_path / "net.safetensors", dtype="float32")
    again = small_resnet(18, tmp_path / "net.safetensors")
    assert again.settings == SETTINGS
    jax.tree.map(np.testing.assert_array_equal, parameters(again), parameters(model))
    other = small_resnet(18, variant="keras-1.0")
    lrp.models.load_weights(other, tmp_path / "net.safetensors")
    jax.tree.map(np.testing.assert_array_equal, parameters(other), parameters(model))


def test_a_layer_is_a_module_too(tmp_path):
    layer, other = (nnx.Linear(3, 2, rngs=nnx.Rngs(seed)) for seed in (0, 1))
    lrp.models.save_weights(layer, tmp_path / "layer.safetensors", dtype="float32")
    assert opened(tmp_path / "layer.safetensors") == ["bias", "kernel"]
    lrp.models.load_weights(other, tmp_path / "layer.safetensors")
    np.testing.assert_array_equal(other.kernel[...], layer.kernel[...])


# --- files that do not fit -----------------------------------------------------------------------

NAN = np.full((2, 2, 3, 3), np.nan, "float32")
MISFITS = {  # what is changed in a file of ResNet-18, and the complaint
    "missing": ({"layer2.0.bn1.running_var": None}, r"layer2\.0\.bn1\.running_var is missing"),
    "surplus": ({"layer2.0.conv9.weight": NAN}, r"layer2\.0\.conv9\.weight is not in the model"),
    "shape": (
        {"layer1.0.conv1.weight": NAN[:, :1]},
        r"layer1\.0\.conv1\.weight has shape \(2, 1, 3, 3\), the model needs \(2, 2, 3, 3\)",
    ),
    "complex": (
        {"layer1.0.conv1.weight": NAN * 1j},
        r"layer1\.0\.conv1\.weight is of complex numbers",
    ),
    "NaN": ({"layer1.0.conv1.weight": NAN}, r"layer1\.0\.conv1\.weight holds NaN or infinity"),
    "all at once": (
        {"conv1.weight": None, "x.bias": np.ones(2), "layer1.0.conv1.weight": NAN},
        r"conv1\.weight is missing; x\.bias is not in the model; layer1.*NaN",
    ),
    "no head": ({"fc.weight": None, "fc.bias": None}, r"fc\.bias is missing; fc\.weight is miss"),
}


@pytest.mark.parametrize(("change", "words"), MISFITS.values(), ids=MISFITS)
def test_every_misfit_is_named(change, words, tmp_path):
    content = resnet_in_torch(parameters(small_resnet(18))) | change
    content = {name: value for name, value in content.items() if value is not None}
    path = save(content, tmp_path / "net.safetensors")
    refused(f"net.safetensors' does not fit resnet18: {words}", small_resnet, 18, path)


def test_the_depth_that_fits_is_named(tmp_path):
    path = save(resnet_in_torch(parameters(small_resnet(34))), tmp_path / "net.safetensors")
    words = r"resnet50 \(its layers are those of resnet34\): .*; and \d+ more\.$"
    refused(words, small_resnet, 50, path)
    path = save(vgg_in_torch(parameters(small_vgg(16)), 16, timm=True), path)
    refused("vgg11 .*those of vgg16", small_vgg, 11, path)


def test_a_file_of_something_else_is_refused(tmp_path):
    path = save({"blocks.0.attn.weight": np.ones(3)}, tmp_path / "net.safetensors")
    refused(r"no layer of resnet50.*it holds blocks\.0\.attn\.weight", lrp.models.resnet50, path)


def test_nothing_is_loaded_of_a_file_that_does_not_fit(tmp_path):
    path, model = tmp_path / "net.safetensors", small_resnet(18)
    lrp.models.save_weights(drawn(small_resnet(18)), path, dtype="float32")
    save(load_file(path) | {"bn1.var": np.full(2, np.inf, "float32")}, path)
    before = parameters(model)
    refused(r"bn1\.var holds NaN or infinity", lrp.models.load_weights, model, path)
    jax.tree.map(np.testing.assert_array_equal, parameters(model), before)


# --- where files come from -----------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A stand-in for huggingface_hub with its cache: `hub.content` is what is fetched, `hub.name`
    the name of its blob."""
    found = ModuleType("huggingface_hub")
    path = save(resnet_in_torch(parameters(small_resnet(18))), tmp_path / "fetched")
    found.content = path.read_bytes()
    found.name = hashlib.sha256(found.content).hexdigest()

    def hf_hub_download(repository, file):
        found.asked = (repository, file)
        cache = tmp_path / f"models--{repository.replace('/', '--')}"
        blob, link = cache / "blobs" / found.name, cache / "snapshots" / "0123abcd" / file
        for each in (blob, link):
            each.parent.mkdir(parents=True)
        blob.write_bytes(found.content)
        link.symlink_to(blob)
        return str(link)

    found.hf_hub_download = hf_hub_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", found)
    return found


def test_a_repository_is_fetched(hub):
    model = small_resnet(18, "timm/resnet18.tv_in1k")
    assert hub.asked == ("timm/resnet18.tv_in1k", "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, parameters(model), parameters(small_resnet(18)))


def test_a_damaged_download_is_refused(hub):
    hub.content = hub.content[:-1] + b"\x01"
    refused("damaged: its sha256.*fetch it again", small_resnet, 18, "timm/resnet18.tv_in1k")


def test_a_blob_without_a_sha256_is_taken_as_it_is(hub):
    hub.name = "0" * 40  # small files are named by git's digest
    small_resnet(18, "timm/resnet18.tv_in1k")


def test_a_missing_connection_is_told_with_its_cause(hub):
    def offline(*_):
        raise OSError("Cannot connect. Please check.")

    hub.hf_hub_download = offline
    with pytest.raises(OSError, match=r"timm/x.*\(OSError: Cannot connect\): check the name"):
        lrp.models.resnet18("timm/x")


def test_what_is_no_file_is_not_opened(tmp_path):
    for name in ("resnet18-0123abcd.pth", "net.safetensors", "net.h5"):
        os.mkfifo(tmp_path / name)
        refused(f"{name}.*it is a pipe, no file", lrp.models.resnet18, tmp_path / name)
    refused("it is a folder, no file", lrp.models.resnet18, tmp_path)


DEFAULTS = "vgg11 vgg13 vgg16 vgg19 resnet18 resnet34 resnet50 resnet101".split()


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_default_is_torchvisions_training(name, hub):
    def missing(repository, file):
        raise OSError(f"no {file} in {repository}")

    hub.hf_hub_download = missing
    with pytest.raises(OSError, match=rf"no model\.safetensors in timm/{name}\.tv_in1k\)"):
        getattr(lrp.models, name)()


def test_the_digits_in_torchvisions_names_are_checked(tmp_path):
    content = (Path(__file__).parents[1] / "reference" / "torch_module.pth").read_bytes()
    digits = hashlib.sha256(content).hexdigest()[:8]
    for name, words in (
        ("resnet18-0123abcd.pth", f"damaged.*0123abcd.*{digits}"),
        (f"resnet18-{digits}.pth", "no layer of resnet18"),
        ("mine-0123abcd.pth", "no layer of resnet18"),
    ):
        (tmp_path / name).write_bytes(content)
        refused(words, lrp.models.resnet18, tmp_path / name)


@pytest.mark.parametrize("name", ["gone.pth", "folder/gone.safetensors", "gone", Path("timm/x")])
def test_a_missing_file(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FileNotFoundError, match=r"no weight file .*(gone|timm)"):
        lrp.models.resnet50(name)
