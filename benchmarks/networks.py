"""The two ImageNet networks of the benchmarks, He-initialised, and their twins in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import lrpjax as lrp
from lrpjax.models.resnet import DEPTHS as RESNET
from lrpjax.models.vgg import DEPTHS as VGG

NETWORKS: dict[str, Callable] = {"vgg16": lrp.models.vgg16, "resnet50": lrp.models.resnet50}


def network(name: str) -> Any:
    return NETWORKS[name]("random", key=jax.random.key(0))


def _conv(layer: Any, norm: Any = None) -> Any:
    """A torch convolution with an nnx convolution's weights; `norm` is merged into them."""
    import torch

    w = np.asarray(layer.kernel[...]).transpose(3, 2, 0, 1)
    b = np.zeros(len(w), "float32") if layer.bias is None else np.asarray(layer.bias[...])
    if norm is not None:
        factor = norm.scale[...] / np.sqrt(norm.var[...] + norm.epsilon)
        b = np.asarray((b - norm.mean[...]) * factor + norm.bias[...])
        w = w * np.asarray(factor)[:, None, None, None]
    side = w.shape[2]
    stride = layer.strides if isinstance(layer.strides, int) else layer.strides[0]
    made = torch.nn.Conv2d(w.shape[1], len(w), side, stride=stride, padding=side // 2)
    made.weight.data, made.bias.data = torch.tensor(w), torch.tensor(b)
    return made


def _dense(layer: Any, kernel: np.ndarray | None = None) -> Any:
    import torch

    kernel = np.asarray(layer.kernel[...]) if kernel is None else kernel
    made = torch.nn.Linear(*kernel.shape)
    made.weight.data = torch.tensor(kernel.T.copy())
    made.bias.data = torch.tensor(np.asarray(layer.bias[...]))
    return made


def torch_cifar10(model: Any) -> Any:
    from torch import nn

    kernel = np.asarray(model.fc5.kernel[...])
    first = kernel.reshape(8, 8, 128, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
    return nn.Sequential(
        *(_conv(model.conv1), nn.ReLU(), _conv(model.conv2), nn.ReLU(), nn.MaxPool2d(2)),
        *(_conv(model.conv3), nn.ReLU(), _conv(model.conv4), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), _dense(model.fc5, first), nn.ReLU(), _dense(model.fc6)),
    ).eval()


def torch_vgg16(model: Any) -> Any:
    from torch import nn

    parts: list[Any] = []
    for stage, count in enumerate(VGG[16], 1):
        for i in range(1, count + 1):
            parts += [_conv(getattr(model, f"conv{stage}_{i}")), nn.ReLU()]
        parts.append(nn.MaxPool2d(2))
    kernel = np.asarray(model.fc1.kernel[...])  # its features in NHWC's order, torch's in NCHW's
    first = kernel.reshape(7, 7, 512, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
    parts += [nn.Flatten(), _dense(model.fc1, first), nn.ReLU(), _dense(model.fc2), nn.ReLU()]
    return nn.Sequential(*parts, _dense(model.fc3)).eval()


def torch_resnet50(model: Any) -> Any:
    """With BatchNorm merged into the convolutions, and zennit's Sum at the additions."""
    import torch
    from torch import nn
    from zennit.layer import Sum

    conv = lambda name: _conv(getattr(model, f"conv{name}"), getattr(model, f"bn{name}"))

    class Block(nn.Module):
        def __init__(self, stage: int, block: int):
            super().__init__()
            a, b, c = (conv(f"{stage}_{block}{letter}") for letter in "abc")
            self.branch = nn.Sequential(a, nn.ReLU(), b, nn.ReLU(), c)
            self.skip = conv(f"{stage}_skip") if block == 1 else nn.Identity()
            self.sum, self.relu = Sum(), nn.ReLU()

        def forward(self, x):
            return self.relu(self.sum(torch.stack([self.branch(x), self.skip(x)], dim=-1)))

    blocks = [
        Block(stage, block)
        for stage, count in enumerate(RESNET[50][0], 2)
        for block in range(1, count + 1)
    ]
    pool = [nn.MaxPool2d(3, 2, 1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(conv("1"), nn.ReLU(), *pool, _dense(model.dense)).eval()


TORCH = {"vgg16": torch_vgg16, "resnet50": torch_resnet50}
