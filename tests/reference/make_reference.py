"""Writes the maps of captum and zennit that tests/rules/test_reference.py compares lrpjax with.

    python tests/reference/make_reference.py

needs torch, captum and zennit, which the tests do not. Each file beside this script holds one
network: its parameters under torch's names, images, targets, baselines, logits and the maps, all
in double precision and channels last (kernels HWIO, dense kernels (inputs, outputs)).
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path

import captum.attr as ca
import numpy as np
import torch
from torch import nn
from zennit.attribution import Gradient
from zennit.composites import (
    EpsilonGammaBox,
    EpsilonPlusFlat,
    LayerMapComposite,
    SpecialFirstLayerMapComposite,
)
from zennit.core import Hook
from zennit.rules import AlphaBeta, Epsilon, Flat, Gamma, Pass, WSquare, ZBox, ZPlus
from zennit.types import Activation, Convolution, Linear

FOLDER = Path(__file__).parent
SHAPE = (3, 10, 9)  # sides that differ, so that no map survives a swap of them
CLASSES = 5
TARGET = torch.tensor([1, 0])  # a positive and a negative logit, in both networks
LOW, HIGH = -3.0, 4.0  # the box of ZBox: every pixel lies in it
STABILISER = 1e-9  # lrpjax's
QUADRATURES = ("gausslegendre", *(f"riemann_{at}" for at in "left right middle trapezoid".split()))
# captum rounds weights to float32: exact for 1/32 and for both weights of Gauss-Legendre with 2.
STEPS = 32


class Copy(nn.Module):
    """Its output is another tensor than its input.

    captum's DeepLift hooks tensors. Where a ReLU's output is the very input of a max-pool, the
    ReLU reads the gradient before the max-pool's hook has replaced it, so the max-pool's rule is
    lost and the sum of the map is not f(x) - f(x0). A copy between the two keeps it.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clone()


def sequential() -> nn.Sequential:
    layers = {
        "conv1": nn.Conv2d(3, 4, 3),
        "relu1": nn.ReLU(),
        "conv2": nn.Conv2d(4, 6, 3, stride=2, padding=1),
        "relu2": nn.ReLU(),
        "copy": Copy(),
        "pool": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(24, 8),
        "relu3": nn.ReLU(),
        "fc2": nn.Linear(8, CLASSES),
    }
    return nn.Sequential(OrderedDict(layers))


class Residual(nn.Module):
    """A stem, one residual block with a projection, a global mean and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.copy, self.pool = Copy(), nn.MaxPool2d(2)  # the last of 9 columns is in no window
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False)
        self.conv3 = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.bn2, self.bn3 = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.conv4, self.bn4 = nn.Conv2d(4, 6, 1, stride=2, bias=False), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, CLASSES)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.pool(self.copy(self.relu1(self.bn1(self.conv1(x)))))
        branch = self.bn3(self.conv3(self.relu2(self.bn2(self.conv2(h)))))
        h = self.relu3(branch + self.bn4(self.conv4(h)))
        return self.fc(h.mean((2, 3)))


def draw(net: nn.Module, rng: np.random.Generator) -> nn.Module:
    """Parameters as training leaves them: kernels of unit gain, statistics that are not 0 and 1."""
    for name, value in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        if value.ndim > 1:
            drawn = rng.normal(size=value.shape) / np.sqrt(value[0].numel() / 2)
        elif "bn" in name and name.endswith(("weight", "running_var")):
            drawn = rng.uniform(0.5, 1.5, value.shape)
        else:
            drawn = rng.normal(size=value.shape) / 4
        value.copy_(torch.tensor(drawn))
    return net.eval()


def draw_images(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Two images and three baselines; in one corner the first of each is 0, so that differences
    and denominators there are exactly 0."""
    images = np.clip(rng.normal(size=(2, *SHAPE)), LOW, HIGH)
    baselines = rng.normal(size=(3, *SHAPE)) / 2
    images[0, :, :5, :5] = baselines[0, :, :5, :5] = 0
    return torch.tensor(images), torch.tensor(baselines)


def without_copy(net: nn.Module) -> nn.Module:
    plain = deepcopy(net)
    plain.copy = nn.Identity()  # hands the same tensor on
    return plain


def captum_maps(
    net: nn.Module, x: torch.Tensor, baselines: torch.Tensor
) -> dict[str, torch.Tensor]:
    first = baselines[:1]
    path = {"baselines": first.expand_as(x), "target": TARGET}
    gradients = ca.IntegratedGradients(net).attribute
    occlusion = ca.Occlusion(net).attribute
    maps = {
        "DeepLift zero": ca.DeepLift(net).attribute(x, 0.0, target=TARGET),
        "DeepLift image": ca.DeepLift(net).attribute(x, **path),
        "DeepLift without copy": ca.DeepLift(without_copy(net)).attribute(x, **path),
        "DeepLiftShap": ca.DeepLiftShap(net).attribute(x, baselines, target=TARGET),
        "InputXGradient": ca.InputXGradient(net).attribute(x, TARGET),
        "GuidedBackprop": ca.GuidedBackprop(net).attribute(x, TARGET),
        "Deconvolution": ca.Deconvolution(net).attribute(x, TARGET),
        "IntegratedGradients gausslegendre 2": gradients(x, n_steps=2, **path),
        "IntegratedGradients zero": gradients(x, 0.0, TARGET, n_steps=STEPS),
        # The last windows of each row and column reach over the border.
        "Occlusion zero": occlusion(x, (3, 4, 4), (3, 4, 3), 0.0, TARGET),
        "Occlusion image": occlusion(x, (3, 4, 4), (3, 4, 3), first, TARGET),
        "Occlusion dense": occlusion(x, (3, 2, 3), (3, 1, 1), 0.0, TARGET),
    }
    return maps | {
        f"IntegratedGradients {name}": gradients(x, n_steps=STEPS, method=name, **path)
        for name in QUADRATURES
    }


def zennit_maps(net: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Relevance starts from the logit. zero_params="bias" takes the bias out of a denominator."""
    options = {"stabilizer": STABILISER}
    unbiased = {**options, "zero_params": "bias"}
    rules = {
        "Epsilon": Epsilon(1e-6),
        "Epsilon 0.25": Epsilon(0.25),
        "Epsilon stabiliser": Epsilon(STABILISER),
        "Gamma": Gamma(0.25, **options),
        "ZPlus": ZPlus(**unbiased),
        "ZPlus split": ZPlus(**options),
        "AlphaBeta": AlphaBeta(2.0, 1.0, **unbiased),
        "AlphaBeta split": AlphaBeta(2.0, 1.0, **options),
        "Flat": Flat(stabilizer=0.0),  # lrpjax adds nothing to a sum that cannot be 0
        "WSquare": WSquare(stabilizer=0.0, zero_params="bias"),
    }
    everywhere: Callable[[Hook], list] = lambda rule: [(Activation, Pass()), (Linear, rule)]
    composites = {name: LayerMapComposite(everywhere(rule)) for name, rule in rules.items()}
    composites |= {
        "ZBox": SpecialFirstLayerMapComposite(
            everywhere(Epsilon(1e-6)), [(Linear, ZBox(LOW, HIGH, **options))]
        ),
        "EpsilonPlusFlat": EpsilonPlusFlat(**options),
        "EpsilonPlusFlat unbiased": EpsilonPlusFlat(
            **options, layer_map=[(Convolution, ZPlus(**unbiased))]
        ),
        "EpsilonGammaBox": EpsilonGammaBox(LOW, HIGH, **options),
    }
    logits = net(x).detach()
    start = nn.functional.one_hot(TARGET, CLASSES) * logits
    return {name: Gradient(net, made)(x, start)[1] for name, made in composites.items()}


def channels_last(value: torch.Tensor) -> np.ndarray:
    return value.detach().movedim(1, -1).numpy()


def kernel(value: torch.Tensor) -> np.ndarray:
    """HWIO, or (inputs, outputs), of torch's OIHW and (outputs, inputs)."""
    return value.movedim((0, 1), (-1, -2)).numpy() if value.ndim > 1 else value.numpy()


def save(file: str, net: nn.Module, x: torch.Tensor, baselines: torch.Tensor, maps: dict) -> None:
    arrays = {f"parameter {name}": kernel(value) for name, value in net.state_dict().items()}
    arrays |= {f"map {name}": channels_last(value) for name, value in maps.items()}
    arrays |= {"images": channels_last(x), "baselines": channels_last(baselines)}
    arrays |= {"logits": net(x).detach().numpy(), "target": TARGET.numpy()}
    made_with = [f"{name} {version(name)}" for name in ("torch", "captum", "zennit")]
    np.savez_compressed(FOLDER / file, made_with=made_with, **arrays)


def main() -> None:
    warnings.filterwarnings("ignore", module="captum")  # it announces its hooks
    torch.set_default_dtype(torch.float64)  # captum's nodes are made in the default precision
    rng = np.random.default_rng(20)
    x, baselines = draw_images(rng)
    nets = {"sequential": draw(sequential(), rng), "residual": draw(Residual(), rng)}
    for name, net in nets.items():
        maps = {f"captum {k}": m for k, m in captum_maps(net, x, baselines).items()}
        if name == "sequential":
            maps |= {f"zennit {k}": m for k, m in zennit_maps(net, x).items()}
        save(f"{name}.npz", net, x, baselines, maps)


if __name__ == "__main__":
    main()
