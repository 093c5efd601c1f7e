"""Weights under torchvision's names, and images, for the networks of ImageNet: drawn by numpy.

Each tensor is drawn by a generator seeded with its name, so that reference/make_models.py and the
tests have the same numbers without a file of 500 MB between them.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

Weights = dict[str, np.ndarray]

VGG = {  # the convolutions in front of each pool
    "vgg11": (1, 1, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
}
RESNET = {  # the blocks of each stage; the convolutions of a block
    "resnet18": ((2, 2, 2, 2), 2),
    "resnet50": ((3, 4, 6, 3), 3),
}
CLASSES = 1000
_HEADER = 1 << 16  # bytes of a safetensors file for names, shapes and places
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's, for levels from 0 to 1


def images() -> np.ndarray:
    """Two images (2, 224, 224, 3) in uint8: coloured squares, and a ramp, under noise."""
    rng = np.random.default_rng(0)
    squares = rng.integers(0, 256, (14, 14, 3)).repeat(16, 0).repeat(16, 1)
    ramp = np.linspace((0, 50, 200), (255, 100, 0), 224)[:, None].repeat(224, 1)
    noise = rng.normal(0, 20, (2, 224, 224, 3))
    return np.clip(np.stack([squares, ramp]) + noise, 0, 255).astype(np.uint8)


def preprocessed() -> np.ndarray:
    """The same images as torchvision's networks take them, but channels last, in float64."""
    return (images() / 255 - MEAN) / STD


def glimpse(value: np.ndarray) -> np.ndarray:
    """The corners and the mean (N, 5, 4) of the first 4 channels of an activation (N, H, W, C)."""
    value = value[..., :4]
    corners = value[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    return np.concatenate([corners, value.mean((1, 2))[:, None]], 1)


def windows(heat_map: np.ndarray, side: int) -> np.ndarray:
    """The sums of a map (N, H, W, C) over windows of side x side pixels."""
    n, h, w, c = heat_map.shape
    return heat_map.reshape(n, h // side, side, w // side, side, c).sum((2, 4))


def weights(network: str) -> Weights:
    """Every tensor of torchvision's file of that network, in its layout (OIHW)."""
    return dict(_tensors(network))


def _tensors(network: str) -> Iterable[tuple[str, np.ndarray]]:
    return _vgg(VGG[network]) if network in VGG else _resnet(*RESNET[network])


def write(network: str, path: Path) -> None:
    """The same tensors to a safetensors file, each written as soon as it is drawn.

    The header stands before them: it is written last, into the room that it is left.
    """
    header, end = {}, 0
    with path.open("wb") as file:
        file.seek(8 + _HEADER)
        for name, tensor in _tensors(network):
            kind = {"float32": "F32", "int64": "I64"}[tensor.dtype.name]
            header[name] = {"dtype": kind, "shape": tensor.shape}
            header[name]["data_offsets"] = (end, end := end + tensor.nbytes)
            file.write(np.ascontiguousarray(tensor).data)
        text = json.dumps(header).encode().ljust(_HEADER)
        assert len(text) == _HEADER
        file.seek(0)
        file.write(_HEADER.to_bytes(8, "little") + text)


def _vgg(stages: tuple[int, ...]) -> Iterable[tuple[str, np.ndarray]]:
    inputs, index = 3, 0
    for count, features in zip(stages, (64, 128, 256, 512, 512), strict=True):
        for _ in range(count):
            yield from _with_bias(f"features.{index}", features, inputs, 3, 3)
            inputs = features
            index += 2  # a ReLU behind it
        index += 1  # the pool
    yield from _with_bias("classifier.0", 4096, 7 * 7 * inputs)
    yield from _with_bias("classifier.3", 4096, 4096)
    yield from _with_bias("classifier.6", CLASSES, 4096)


def _resnet(stages: tuple[int, ...], convs: int) -> Iterable[tuple[str, np.ndarray]]:
    yield from _with_norm("conv1", "bn1", 64, 3, 7)
    inputs = 64
    for stage, count in enumerate(stages, 1):
        inner = 32 * 2**stage
        features = 4 * inner if convs == 3 else inner
        sides = (1, 3, 1) if convs == 3 else (3, 3)
        for block in range(count):
            here = f"layer{stage}.{block}"
            wide = [inputs, *[inner] * (convs - 1), features]
            for k, side in enumerate(sides, 1):
                # A small last scale keeps activations moderate through 50 layers.
                size = 0.3 if k == convs else 1
                names = f"{here}.conv{k}", f"{here}.bn{k}"
                yield from _with_norm(*names, wide[k], wide[k - 1], side, size)
            if inputs != features:
                names = f"{here}.downsample.0", f"{here}.downsample.1"
                yield from _with_norm(*names, features, inputs, 1)
            inputs = features
    yield from _with_bias("fc", CLASSES, inputs)


def _with_bias(layer: str, *shape: int) -> Iterable[tuple[str, np.ndarray]]:
    yield _kernel(f"{layer}.weight", shape)
    yield _drawn(f"{layer}.bias", -0.2, 0.2, shape[0])


def _with_norm(
    conv: str, norm: str, features: int, inputs: int, side: int, size: float = 1
) -> Iterable[tuple[str, np.ndarray]]:
    """size: of BatchNorm's scale."""
    yield _kernel(f"{conv}.weight", (features, inputs, side, side))
    yield _drawn(f"{norm}.weight", 0.1 * size, 0.3 * size, features)
    yield _drawn(f"{norm}.bias", -0.2, 0.2, features)
    yield _drawn(f"{norm}.running_mean", -0.2, 0.2, features)
    # So small that BatchNorm's epsilon counts.
    yield _drawn(f"{norm}.running_var", 0.02, 0.08, features)
    yield f"{norm}.num_batches_tracked", np.array(450_000)


def _kernel(name: str, shape: tuple[int, ...]) -> tuple[str, np.ndarray]:
    """He-normal."""
    kernel = _rng(name).standard_normal(shape, np.float32)
    kernel *= np.float32(np.sqrt(2 / np.prod(shape[1:])))  # in place: VGG's largest has 400 MB
    return name, kernel


def _drawn(name: str, low: float, high: float, size: int) -> tuple[str, np.ndarray]:
    return name, _rng(name).uniform(low, high, size).astype(np.float32)


def _rng(name: str) -> np.random.Generator:
    return np.random.default_rng(list(name.encode()))
