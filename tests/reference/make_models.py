"""Writes what torch computes on the networks that tests/models/test_imagenet_networks.py loads.

    python tests/reference/make_models.py

needs torch, which the tests do not. The networks are built here from their papers (Simonyan and
Zisserman 2015; He et al. 2016), with the stride of a bottleneck on its 3x3 convolution and under
the names that torchvision's files have. models.npz holds, computed in double precision, by network:
logits, explained classes, glimpses of activations (named as in lrpjax), and relevance, summed over
windows of pixels.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from copy import deepcopy
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import conv2d, linear
from torch.nn.utils.fusion import fuse_conv_bn_eval

sys.path.append(str(Path(__file__).parents[1]))
from helpers import reference_weights as given

FOLDER = Path(__file__).parent
EPSILON, GAMMA, STABILISER = 1e-6, 0.25, 1e-9  # lrpjax's
EXPLAINED = ("vgg16", "resnet18", "resnet50")  # by z+, at full size
METHODS = (
    "gradient",
    "lrp-z",
    "lrp-epsilon",
    "lrp-gamma",
    "lrp-zplus",
    "lrp-alpha2-beta1",
    "deep-taylor",
)
SIDE, TARGET = 64, torch.tensor([3])  # of the small image
Bounds = Sequence[torch.Tensor]


class VGG(nn.Module):
    def __init__(self, stages: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for count, outputs in zip(stages, (64, 128, 256, 512, 512), strict=True):
            for _ in range(count):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        dense = [(7 * 7 * 512, 4096), (4096, 4096)]
        hidden = [m for ends in dense for m in (nn.Linear(*ends), nn.ReLU(), nn.Dropout(0.5))]
        self.classifier = nn.Sequential(*hidden, nn.Linear(4096, 1000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).flatten(1))

    def named_layers(self) -> Iterator[tuple[str, nn.Module]]:
        pools = (layer for layer in self.features if isinstance(layer, nn.MaxPool2d))
        return ((f"pool{i}", pool) for i, pool in enumerate(pools, 1))


class Addition(nn.Module):
    def forward(self, a: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return a + c


class Block(nn.Module):
    """Two 3x3 convolutions, or one of 3x3 between two of 1x1 (a bottleneck), and a shortcut."""

    def __init__(self, inputs: int, inner: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outputs = 4 * inner if bottleneck else inner
        if bottleneck:
            self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(inner)
            self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(inner)
            self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(outputs)
        else:
            self.conv1 = nn.Conv2d(inputs, inner, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(inner)
            self.conv2 = nn.Conv2d(inner, inner, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(inner)
        self.downsample = nn.Sequential()
        if inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))
        self.bottleneck, self.addition = bottleneck, Addition()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        y = self.bn3(self.conv3(y.relu())) if self.bottleneck else y
        return self.addition(self.downsample(x), y).relu()


class ResNet(nn.Module):
    def __init__(self, stages: tuple[int, ...], convs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for stage, (count, inner) in enumerate(zip(stages, (64, 128, 256, 512), strict=True), 1):
            blocks = []
            for block in range(count):
                stride = 2 if block == 0 and stage > 1 else 1
                blocks.append(Block(inputs, inner, stride, convs == 3))
                inputs = 4 * inner if convs == 3 else inner
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))

    def named_layers(self) -> Iterator[tuple[str, nn.Module]]:
        yield "maxpool", self.maxpool
        for stage in (1, 2, 3, 4):
            blocks = getattr(self, f"layer{stage}")
            yield f"block{stage + 1}_{len(blocks)}:relu", blocks


def build(network: str) -> nn.Module:
    net = VGG(given.VGG[network]) if network in given.VGG else ResNet(*given.RESNET[network])
    tensors = {name: torch.as_tensor(value) for name, value in given.weights(network).items()}
    net.load_state_dict(tensors, strict=True)
    return net.eval()


# --- relevance -----------------------------------------------------------------------------------
#
# Autograd does LRP where a layer's output is z with the gradient of part * (z / part), z / part a
# constant: times the input it is sum_i part_ij R_i / part_i.


def stabilised(z: torch.Tensor, epsilon: float) -> torch.Tensor:
    return z + torch.where(z >= 0, epsilon, -epsilon)


def shared(z: torch.Tensor, part: torch.Tensor, epsilon: float = STABILISER) -> torch.Tensor:
    """z, whose relevance is shared in proportion to the terms of `part`."""
    return z.detach() + (part - part.detach()) * (z / stabilised(part, epsilon)).detach()


def by_sign(method: str, z: torch.Tensor, plus: torch.Tensor, minus: torch.Tensor) -> torch.Tensor:
    """plus, minus: the sums of the positive and of the negative terms of z."""
    if method == "lrp-alpha2-beta1":
        return 2 * shared(z, plus) - shared(z, minus)
    return shared(z, plus)


def linear_rule(layer: nn.Module, method: str, box: Bounds, x: torch.Tensor) -> torch.Tensor:
    """box: the bounds of the input, if `layer` is the first and has the rule for them."""
    w, b = layer.weight.detach(), layer.bias.detach()
    if isinstance(layer, nn.Linear):
        product = linear
    else:
        product = lambda x, w: conv2d(x, w, None, layer.stride, layer.padding)
        b = b[:, None, None]
    z, up, down = product(x, w) + b, w.clamp(min=0), w.clamp(max=0)
    if box:
        return shared(z, product(x, w) - product(box[0], up) - product(box[1], down))
    if method in ("lrp-z", "lrp-epsilon"):
        return shared(z, z, STABILISER if method == "lrp-z" else EPSILON)
    plus = product(x.clamp(min=0), up) + product(x.clamp(max=0), down)
    minus = product(x.clamp(min=0), down) + product(x.clamp(max=0), up)
    if method == "lrp-gamma":
        agreeing = torch.where(z >= 0, plus + b.clamp(min=0), minus + b.clamp(max=0))
        return shared(z, z + GAMMA * agreeing)
    return by_sign(method, z, plus, minus)


def addition_rule(method: str, a: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    if method in ("lrp-z", "lrp-epsilon", "lrp-gamma"):
        return shared(a + c, a + c)
    plus, minus = a.clamp(min=0) + c.clamp(min=0), a.clamp(max=0) + c.clamp(max=0)
    return by_sign(method, a + c, plus, minus)


def mean_rule(x: torch.Tensor) -> torch.Tensor:
    """Of numbers that are not negative."""
    mean = x.mean((2, 3), keepdim=True)
    return shared(mean, mean)


def explained(net: nn.Module, method: str, box: Bounds) -> nn.Module:
    """The network with BatchNorm folded into the convolutions, and with the method's rules.

    A ReLU and a max-pool pass relevance on as they pass gradients.
    """
    net, first = deepcopy(net), True
    for parent in list(net.modules()):
        for (name, conv), (norm, layer) in pairwise(list(parent.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(layer, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(conv, layer))
                setattr(parent, norm, nn.Identity())
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.forward = partial(linear_rule, layer, method, box if first else ())
            first = False
        elif isinstance(layer, Addition):
            layer.forward = partial(addition_rule, method)
        elif isinstance(layer, nn.AdaptiveAvgPool2d):
            layer.forward = mean_rule
    return net


def heat_map(net: nn.Module, x: torch.Tensor, target: torch.Tensor, method: str) -> np.ndarray:
    """The relevance of x (channels last) for the target's logit, or the logit's gradient."""
    box: list[torch.Tensor] = []
    if method == "deep-taylor":
        mean, std = (x.new_tensor(values)[:, None, None] for values in (given.MEAN, given.STD))
        box = [((level - mean) / std).expand_as(x) for level in (0, 1)]
    leaves = [value.clone().requires_grad_() for value in (x, *box)]
    if method != "gradient":
        net = explained(net, method, leaves[1:])
    logits = net(leaves[0]).gather(1, target[:, None])
    gradients = torch.autograd.grad(logits.sum(), leaves)
    if method == "gradient":
        return channels_last(gradients[0])
    return channels_last(sum(v * g for v, g in zip(leaves, gradients, strict=True)).detach())


def channels_last(value: torch.Tensor) -> np.ndarray:
    return value.movedim(1, -1).numpy()


# -------------------------------------------------------------------------------------------------


def outputs(net: nn.Module, x: torch.Tensor) -> dict[str, np.ndarray]:
    """The logits, and a glimpse of each named layer."""
    found: dict[str, np.ndarray] = {}

    def keep(name: str, layer: nn.Module, inputs: tuple, out: torch.Tensor) -> None:
        found[name] = given.glimpse(channels_last(out))

    with ExitStack() as hooks, torch.no_grad():
        for name, layer in net.named_layers():
            hooks.enter_context(layer.register_forward_hook(partial(keep, name)))
        return {"logits": net(x).numpy()} | found


def of_network(network: str) -> dict[str, np.ndarray]:
    """At full size, in single precision, of which lrpjax does not have more there."""
    net = build(network)
    x = torch.as_tensor(given.preprocessed()).movedim(-1, 1)
    rounded = outputs(net, x.float())["logits"]
    found = outputs(net.double(), x)
    logits = found["logits"]
    off = abs(rounded - logits).max() / abs(logits).max()
    print(
        f"{network}: logits {logits.min():.2f} to {logits.max():.2f}, in float32 off by {off:.0e}"
    )
    if network in EXPLAINED:
        target = torch.tensor([logits[0].argmax(), logits[1].argmin()])
        zplus = heat_map(net, x, target, "lrp-zplus")
        found |= {"target": target.numpy(), "lrp-zplus": given.windows(zplus, 14)}
    single = lambda value: value.astype("float32") if value.dtype == "float64" else value
    return {name: single(value) for name, value in found.items()}


def of_small_image() -> dict[str, np.ndarray]:
    """In double precision: every method on ResNet-18."""
    net = build("resnet18").double()
    x = torch.as_tensor(given.preprocessed()[:1, :SIDE, :SIDE]).movedim(-1, 1)
    maps = {method: heat_map(net, x, TARGET, method) for method in METHODS}
    found = {method: given.windows(values, 8) for method, values in maps.items()}
    return found | {"target": TARGET.numpy(), "explained": outputs(net, x)["logits"][:, TARGET][0]}


def main() -> None:
    networks = (*given.VGG, *given.RESNET)
    found = {network: of_network(network) for network in networks} | {"small": of_small_image()}
    arrays = {f"{part} {name}": v for part, values in found.items() for name, v in values.items()}
    np.savez_compressed(FOLDER / "models.npz", made_with=f"torch {torch.__version__}", **arrays)


if __name__ == "__main__":
    main()
