"""Every LRP method on a residual network with BatchNorm, against dense matrices in numpy."""

from functools import cache, partial

import numpy as np
import pytest
from helpers import nets_data as data
from helpers import nets_resnet, oracle
from jax import lax

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

WEIGHTS = data.small_resnet()
BLOCKS = nets_resnet.blocks_of(WEIGHTS)
MODEL = nets_resnet.in_lax(WEIGHTS, "float64").model
RNG = np.random.default_rng(4)
IMAGES, R = RNG.normal(size=(2, 3, 8, 8)), RNG.normal(size=(2, 5))
BIASES = ("none", "signed", "split")
BOX = {"low": -4.0, "high": 5.0}  # every pixel lies in it


def folded(name, stride=1):
    """A convolution and the BatchNorm behind it as one affine map, folded by hand."""
    norm = name.replace("conv", "bn")
    fields = ("weight", "bias", "running_mean", "running_var")
    scale, shift, mean, variance = (WEIGHTS[f"{norm}.{field}"] for field in fields)
    factor = scale / np.sqrt(variance + 1e-5)
    kernel = WEIGHTS[f"{name}.weight"] * factor[:, None, None, None]
    bias = (shift - mean * factor)[:, None, None]
    steps, padding = (stride, stride), [(1, 1), (1, 1)]
    return lambda x: lax.conv_general_dilated(x, kernel, steps, padding) + bias


def mean(h):
    return h.mean((2, 3))


def dense(h):
    return h @ WEIGHTS["linear.weight"].T + WEIGHTS["linear.bias"]


AFFINE = {
    "conv1": folded("conv1"),
    "mean": mean,
    "linear": dense,
    **{f"{b.name}.conv1": folded(f"{b.name}.conv1", b.stride) for b in BLOCKS},
    **{f"{b.name}.conv2": folded(f"{b.name}.conv2") for b in BLOCKS},
}


def shortcut(h, block):
    if block.stride == 1:
        return h
    more = (block.more, block.more)
    return np.pad(h[:, :, ::2, ::2], ((0, 0), more, (0, 0), (0, 0)))


@cache
def matrix(name, shape):
    return oracle.affine(AFFINE[name], shape)


def back(rule, name, x, R):
    return oracle.batched(rule, matrix(name, x.shape[1:]), x, R)


def backward(x, R, first, conv, last, add):
    """The oracle's rules along the network: forward, then from its end to its start."""
    relu = lambda z: np.maximum(z, 0)
    run = lambda name, x: np.asarray(AFFINE[name](x))
    h, trail = relu(run("conv1", x)), []
    for block in BLOCKS:
        one, two = f"{block.name}.conv1", f"{block.name}.conv2"
        inner = relu(run(one, h))
        branches = run(two, inner), shortcut(h, block)
        trail.append((block, h, inner, branches))
        h = relu(sum(branches))
    R = back(last, "linear", mean(h), R)
    R = back(oracle.z, "mean", h, R)
    for block, h, inner, branches in reversed(trail):
        R_branch, R_shortcut = add(*branches, R)
        R_inner = back(conv, f"{block.name}.conv2", inner, R_branch)
        R = back(conv, f"{block.name}.conv1", h, R_inner)
        R = R + oracle.moved(partial(shortcut, block=block), h, R_shortcut)
    return back(first, "conv1", x, R)


SIGNED = oracle.add_signed
EPSILON = partial(oracle.z, eps=1e-6)
EPSILON_CMP = partial(oracle.z, eps=1e-10)
ZBOX = partial(oracle.zbox, **BOX)


def everywhere(rule, add):
    return rule, rule, rule, add


def shares(alpha, beta):
    return partial(oracle.add_alpha_beta, alpha=alpha, beta=beta)


def alpha_beta(alpha, beta, bias):
    return partial(oracle.alpha_beta, alpha=alpha, beta=beta, bias=bias)


# name and options of a method: the rules of the first convolution, of the others, of the dense
# layer and of the sum of both branches
METHODS = {
    ("lrp-z",): everywhere(oracle.z, SIGNED),
    ("lrp-epsilon",): everywhere(EPSILON, SIGNED),
    ("lrp-gamma",): everywhere(oracle.gamma, SIGNED),
    ("lrp-zplus",): everywhere(oracle.zplus, shares(1, 0)),
    ("lrp-flat",): everywhere(oracle.flat, SIGNED),
    ("lrp-wsquare",): everywhere(oracle.wsquare, SIGNED),
    ("excitation-bp",): everywhere(oracle.zplus, shares(1, 0)),
    ("epsilon-plus-flat",): (oracle.flat, oracle.zplus, EPSILON, shares(1, 0)),
    ("epsilon-gamma-box", *BOX.items()): (ZBOX, oracle.gamma, EPSILON, SIGNED),
    ("deep-taylor", *BOX.items()): (ZBOX, oracle.zplus, oracle.zplus, shares(1, 0)),
    ("deep-taylor", ("first", "wsquare")): (
        *(oracle.wsquare, oracle.zplus, oracle.zplus), shares(1, 0)
    ),
    **{
        (f"lrp-alpha{a}-beta{b}", ("bias", bias)): everywhere(alpha_beta(a, b, bias), shares(a, b))
        for a, b in ((1, 0), (2, 1), (5, 4))
        for bias in BIASES
    },
    **{
        (f"lrp-cmp-alpha{a}-beta{b}", ("bias", bias)): (
            *[alpha_beta(a, b, bias)] * 2, EPSILON_CMP, shares(a, b)
        )
        for a, b in ((1, 0), (2, 1))
        for bias in BIASES
    },
}  # fmt: skip


def relevance(name, *options):
    _, rel = lrp.vjp(MODEL, IMAGES, lrp.methods.get(name, **dict(options)))
    return rel(R)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: " ".join(map(str, m)))
def test_every_method_is_the_oracles(method):
    oracle.assert_close(relevance(*method), backward(IMAGES, R, *METHODS[method]))


def copied(a, c, R):
    return R, R


WRONG = {  # method: the network's rules with one of them wrong
    "lrp-z": everywhere(oracle.z, copied),
    "lrp-zplus": everywhere(oracle.zplus, SIGNED),
    "epsilon-plus-flat": (oracle.zplus, oracle.zplus, EPSILON, shares(1, 0)),
    "lrp-alpha2-beta1": everywhere(alpha_beta(2, 1, "split"), shares(2, 1)),
}


@pytest.mark.parametrize("method", WRONG)
def test_a_wrong_oracle_is_noticed(method):
    assert oracle.error(relevance(method), backward(IMAGES, R, *WRONG[method])) > 1e-3
