"""Trained networks, and small ones of their form, in six libraries: one relevance in all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import nets_data as data
from helpers import nets_resnet, nets_squeezenet

import lrpjax as lrp
from lrpjax.planning.plans import Plan

pytestmark = pytest.mark.usefixtures("quick_compile")

# Of the largest entry of a map. What is compared with is the network in jax.lax and float64. In
# float32 the arithmetic itself moves a map, whoever writes the network: in jax.lax by 3e-6, and by
# 2e-5 under deeplift-rescale, which divides by differences. Ten times that is allowed.
EXACT = 1e-9
METHODS = {
    **dict.fromkeys(("gradient", "lrp-z", "lrp-zplus", "lrp-alpha2-beta1", "guided-bp"), 3e-5),
    "deeplift-rescale": 2e-4,
}
FEW = ("gradient", "lrp-z", "lrp-alpha2-beta1", "deeplift-rescale")
# These images keep away from what no rounding survives. A ReLU whose input is rounded to the other
# side of 0 moves a gradient by up to 3e-2 of its largest entry, and z below the stabiliser, 1e-9,
# moves lrp-z by 1e-3. Here the input of every ReLU, and the lead of every max-pool's winner, is at
# least 9 times the rounding of its channel (root mean square), and |z| of the ResNets is above
# 2e-6. A whole photograph of 227 pixels has one ReLU too near to 0, hence the smaller side.
CIFAR10 = (10, 28)
IMAGENET, SIDE = (2, 23), 71
FIRE = "conv activation " * 3
BLOCK = "conv activation conv add activation "


@dataclass(frozen=True)
class Net:
    """libraries: from a library to the function that builds the network in it.
    kinds: of its layers, but for those that only move values."""

    libraries: Mapping[str, Callable[[data.Weights, str], data.Port]]
    weights: Callable[[], data.Weights]
    images: Callable[[], np.ndarray]
    kinds: str


def resnet(weights: Callable, images: Callable, blocks: int) -> Net:
    kinds = f"conv activation {BLOCK * blocks}sum dense"
    return Net(nets_resnet.LIBRARIES, cache(weights), images, kinds)


def squeezenet(weights: Callable, images: Callable, side: int, *fires: int) -> Net:
    """fires: how many fire modules there are before each of the max-pools but the first."""
    keras = partial(nets_squeezenet.in_keras, side=side)
    between = "max_pool ".join(FIRE * number for number in fires)
    kinds = f"conv activation max_pool {between}conv activation sum"
    return Net(nets_squeezenet.LIBRARIES | {"keras": keras}, cache(weights), images, kinds)


def noise(side: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(2, side, side, 3))


NETS = {
    "small resnet": resnet(data.small_resnet, partial(noise, 8), 2),
    "small squeezenet": squeezenet(data.small_squeezenet, partial(noise, 29), 29, 1, 0),
    "resnet20": resnet(
        partial(data.trained, "cifar10_resnet20_akamaster"), lambda: data.cifar10(CIFAR10)[0], 9
    ),
    "resnet56": resnet(
        partial(data.trained, "cifar10_resnet56_akamaster"), lambda: data.cifar10(CIFAR10)[0], 27
    ),
    "squeezenet": squeezenet(
        partial(data.trained, "imagenet_squeezenet1_0_deepcompression"),
        lambda: data.imagenet(IMAGENET, SIDE)[0],
        SIDE,
        *(3, 4, 1),
    ),
}
LIBRARIES = tuple(nets_resnet.LIBRARIES)


@cache
def port(net: str, library: str, dtype: str) -> data.Port:
    return NETS[net].libraries[library](NETS[net].weights(), dtype)


def given(port: data.Port, images: np.ndarray, dtype: str) -> jax.Array:
    return jnp.asarray(images.transpose(0, 3, 1, 2) if port.first else images, dtype)


@cache
def plan(net: str, library: str) -> Plan:
    here = port(net, library, "float32")
    return lrp.plan(here.model, given(here, NETS[net].images(), "float32"), "gradient")


def weighted(net: str, library: str) -> list[str]:
    """The names of the convolutions and dense layers, in order."""
    return [layer.name for layer in plan(net, library).layers if layer.kind in ("conv", "dense")]


def relevance(
    here: data.Port, images: np.ndarray, names: list[str], method: str, dtype: str
) -> list[np.ndarray]:
    """The output and R, started from the largest logit, of the layers, channels last."""
    out, pull = lrp.vjp(here.model, given(here, images, dtype), method, layers=names)
    _, found = pull(out * jax.nn.one_hot(out.argmax(1), out.shape[1], dtype=out.dtype))
    last = lambda a: np.moveaxis(a, 1, -1) if here.first and a.ndim == 4 else np.asarray(a)
    return [np.asarray(out), *(last(found[name]) for name in names)]


@cache
def maps(net: str, library: str, method: str, dtype: str) -> dict[str, np.ndarray]:
    """The output, R of the input and R of every convolution and dense layer."""
    names = ["input", *weighted(net, library)]
    found = relevance(port(net, library, dtype), NETS[net].images(), names, method, dtype)
    layers = ("output", "input", *data.layers_of(NETS[net].weights()))
    return dict(zip(layers, found, strict=True))


def marks(net: str) -> list:
    return [] if net.startswith("small") else [pytest.mark.slow]


def nets(*names: str) -> list:
    return [pytest.param(net, marks=marks(net)) for net in names]


# Which libraries, methods and precisions a network runs in.
IN_DOUBLE = tuple(library for library in LIBRARIES if library not in ("lax", "keras"))
DEEP = ("lax", "equinox", "keras")
RUNS = {
    # Keras computes BatchNorm and means in single precision whatever it is given.
    "small resnet": [(IN_DOUBLE, METHODS, "float64"), (["keras"], FEW, "float32")],
    "small squeezenet": [(IN_DOUBLE, FEW, "float64"), (["keras"], FEW, "float32")],
    "resnet20": [(LIBRARIES, METHODS, "float32")],
    # To save time; what is left out runs in the small network and in resnet20.
    "squeezenet": [(LIBRARIES, FEW[:3], "float32")],
    "resnet56": [(DEEP, ("lrp-zplus",), "float32")],
}
CASES = [
    pytest.param(net, library, method, dtype, marks=marks(net))
    for net, runs in RUNS.items()
    for libraries, methods, dtype in runs
    for method in methods
    for library in libraries
]


@pytest.mark.parametrize(("net", "library", "method", "dtype"), CASES)
def test_every_library_gives_the_same_relevance(net, library, method, dtype):
    expected = maps(net, "lax", method, "float64")
    found = maps(net, library, method, dtype)
    tolerance = EXACT if dtype == "float64" else METHODS[method]
    for name, wanted in expected.items():
        assert found[name].dtype == dtype
        atol = tolerance * np.abs(wanted).max()
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("net", nets(*NETS))
def test_every_library_is_read_as_the_same_layers(net, library):
    layers = plan(net, library).layers
    kinds = [layer.kind for layer in layers if layer.kind != "structure"]
    assert kinds == NETS[net].kinds.split()
    assert len({layer.name for layer in layers}) == len(layers)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("net", nets("small resnet", "small squeezenet", "resnet20", "squeezenet"))
def test_layers_are_named_as_their_parameters_are(net, library):
    named = port(net, library, "float32").named
    expected = [named(layer) for layer in data.layers_of(NETS[net].weights())]
    assert weighted(net, library) == expected


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("net", nets("small resnet", "small squeezenet", "resnet20"))
def test_folded_layers_compute_what_the_network_does(net, library):
    here = port(net, library, "float32")
    x = given(here, NETS[net].images(), "float32")
    assert plan(net, library).check(x).forward_difference < 1e-5


@pytest.mark.parametrize("method", FEW)
def test_another_epsilon_of_batch_norm_is_noticed(method):
    """The comparisons above can fail: here at 1e-3, which is Keras' own, for 1e-5."""
    net = NETS["small resnet"]
    more = {k: v + 1e-3 - 1e-5 for k, v in net.weights().items() if k.endswith("running_var")}
    wrong = nets_resnet.in_lax(net.weights() | more, "float64")
    _, found = relevance(wrong, net.images(), ["input"], method, "float64")
    expected = maps("small resnet", "lax", method, "float64")["input"]
    assert np.abs(found - expected).max() > METHODS[method] * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize("net", ["resnet20", "resnet56"])
def test_zplus_conserves_relevance(net):
    """But for the relevance of units that are driven by their bias alone: 6e-5 of it."""
    found = maps(net, "lax", "lrp-zplus", "float64")
    total, logit = found["input"].sum((1, 2, 3)), found["output"].max(1)
    np.testing.assert_allclose(total, logit, rtol=1e-4)


ACCURACY = {"resnet20": 0.88, "resnet56": 0.88, "squeezenet": 0.6}


@cache
def labelled(net: str) -> tuple[np.ndarray, np.ndarray]:
    """Fewer for SqueezeNet, whose photographs are large."""
    return data.imagenet(range(10), 227) if net == "squeezenet" else data.cifar10(range(100))


@cache
def logits(net: str, library: str) -> np.ndarray:
    """In single precision. Keras builds its SqueezeNet anew, for photographs of full size."""
    if (net, library) == ("squeezenet", "keras"):
        here = nets_squeezenet.in_keras(NETS[net].weights(), "float32")
    else:
        here = port(net, library, "float32")
    x = given(here, labelled(net)[0], "float32")
    return np.asarray(jax.jit(lambda x: here.model(x))(x))


@pytest.mark.slow
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("net", ACCURACY)
def test_trained_networks_are_right_and_agree(net, library):
    found, expected = logits(net, library), logits(net, "lax")
    assert (found.argmax(1) == labelled(net)[1]).mean() >= ACCURACY[net]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
