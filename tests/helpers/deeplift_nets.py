"""Networks that the library and the DeepLIFT oracle read alike, and the methods of both."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import lrpjax as lrp
from helpers import oracle
from helpers import oracle_deeplift as deeplift

COMPLETE = 1e-10  # float64 sums of a few hundred contributions, relative to their absolute sum

METHODS = {
    "rescale": (("deeplift-rescale", {}), deeplift.Method()),
    "reveal-cancel": (("deeplift-reveal-cancel", {}), deeplift.Method("reveal-cancel")),
    "ablation-code": (("deeplift-ablation", {"form": "code"}), deeplift.Method(linear="code")),
    "ablation-text": (("deeplift-ablation", {"form": "text"}), deeplift.Method(linear="text")),
}
FOUR = list(METHODS)
METHODS |= {
    f"{name}, pools by gradient": (
        (method, options | {"max_pool": "gradient"}),
        replace(plain, max_pool="gradient"),
    )
    for name, ((method, options), plain) in METHODS.items()
}


def method(name, **options):
    named, own = METHODS[name][0]
    return lrp.methods.get(named, **own, **options)


@dataclass(frozen=True)
class Part:
    """One layer: a function of batches, the oracle's layer for inputs of given shapes, and the
    names of what it reads (default: the part before)."""

    apply: Callable
    oracle: Callable[..., Any]
    reads: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Net:
    """Parts by name, for inputs of one shape; calling it runs them in JAX."""

    shape: tuple[int, ...]
    parts: dict[str, Part]
    fold: bool = True

    def __call__(self, x):
        return self._values(x)[next(reversed(self.parts))]

    def _values(self, x):
        values = {"input": x}
        for name, part in self.parts.items():
            with jax.named_scope(name):
                values[name] = part.apply(*(values[v] for v in self._reads(name)))
        return values

    def _reads(self, name):
        names = ["input", *self.parts]
        return self.parts[name].reads or (names[names.index(name) - 1],)

    @property
    def names(self):
        return [*self.parts, "input"]

    @property
    def is_chain(self):
        return not any(part.reads for part in self.parts.values())

    @cached_property
    def shapes(self):
        like = jax.eval_shape(self._values, np.zeros((1, *self.shape)))
        return {name: value.shape[1:] for name, value in like.items()}

    @cached_property
    def layers(self):
        """The network as the oracle takes it."""
        reads = {name: self._reads(name) for name in self.parts}
        return {
            name: (part.oracle(*(self.shapes[v] for v in reads[name])), reads[name])
            for name, part in self.parts.items()
        }


def normal(name):
    """A source of normal numbers that depends on the name alone."""
    return np.random.default_rng(zlib.crc32(name.encode())).normal


def linear(f, *reads):
    def make(shape):
        matrix = oracle.affine(f, shape)
        return deeplift.Linear(matrix.W, matrix.b)

    return Part(f, make, reads)


def dense(outputs, seed, *reads, bias=True):
    def apply(x):
        draw = normal(f"dense {seed}")
        w = draw(size=(x.shape[-1], outputs)) / np.sqrt(x.shape[-1])
        return x @ w + draw(size=outputs) if bias else x @ w

    return linear(apply, *reads)


def conv(outputs, seed, *reads, strides=(1, 1), padding="SAME", then=lambda z: z):
    product = partial(lax.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def apply(x):
        draw = normal(f"conv {seed}")
        w = draw(size=(3, 3, x.shape[-1], outputs)) / np.sqrt(5 * x.shape[-1])
        return then(product(x, w, strides, padding) + draw(size=outputs))

    return linear(apply, *reads)


GAMMA, MEAN = np.array([1.5, -0.7, 0.4]), np.array([0.2, -0.3, 0.1])


def batch_norm(z):
    return (z - MEAN) * GAMMA + 0.25


def norm_alone(shape):
    g, c = (np.broadcast_to(v, shape).ravel() for v in (GAMMA, 0.25 - MEAN * GAMMA))
    return deeplift.Scale(g, c)


def fixed(f, *reads):
    """A mean or a move, of any number of inputs."""

    def make(*shapes):
        def along(k):
            zeros = lambda x: [np.zeros((len(x), *shape)) for shape in shapes]
            return lambda x: f(*zeros(x)[:k], x, *zeros(x)[k + 1 :])

        found = [oracle.affine(along(k), shape) for k, shape in enumerate(shapes)]
        return deeplift.Fixed([matrix.W for matrix in found], found[0].b)

    return Part(f, make, reads)


def max_pool(size, strides, padding):
    geometry = ((*size, 1), (*strides, 1), (*padding, (0, 0)))
    window, step, pad = ((1, *geometry[0]), (1, *geometry[1]), ((0, 0), *geometry[2]))
    return Part(
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, window, step, pad),
        lambda shape: deeplift.MaxPool(oracle.windows(shape, *geometry)),
    )


def average_pool(x):
    total = partial(lax.reduce_window, init_value=0.0, computation=lax.add)
    return total(x, window_dimensions=(1, 2, 2, 1), window_strides=(1, 1, 2, 1), padding="SAME") / 4


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# name: in JAX, in numpy, and the slope
ACTIVATIONS = {
    "relu": (jax.nn.relu, lambda x: np.maximum(x, 0), lambda x: 1.0 * (x > 0)),
    "tanh": (jnp.tanh, np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "logistic": (jax.nn.sigmoid, sigmoid, lambda x: sigmoid(x) * sigmoid(-x)),
    "softplus": (jax.nn.softplus, lambda x: np.log1p(np.exp(x)), sigmoid),
}


def activation(name, *reads):
    f, *plain = ACTIVATIONS[name]
    return Part(f, lambda shape: deeplift.Activation(*plain), reads)


def add(*reads, sign=1):
    def make(*shapes):
        full = np.broadcast_shapes(*shapes)
        number = lambda shape: np.arange(np.prod(shape)).reshape(shape)
        places = [np.broadcast_to(number(shape), full).ravel() for shape in shapes]
        return deeplift.Add((1, sign), places)

    return Part((lambda a, c: a + c) if sign > 0 else (lambda a, c: a - c), make, reads)


RELU = activation("relu")
NORM = Part(batch_norm, norm_alone)
FLATTEN = fixed(lambda x: x.reshape(len(x), -1))
NONE = (0, 0)


def behind_conv(parts, shape=(5, 4, 2)):
    """Some parts, such as a pool, between a convolution and a dense layer."""
    return Net(shape, {"conv": conv(3, 3), **parts, "flatten": FLATTEN, "fc": dense(3, 4)})


NETS = {
    "dense": Net(
        (6,),
        {"fc1": dense(5, 0), "fc1:relu": RELU, "fc2": dense(4, 1, bias=False), "fc2:relu": RELU}
        | {"fc3": dense(3, 2)},
    ),
    "every activation": Net(
        (6,),
        {"fc1": dense(3, 3)}
        | {f"fc1:{name}": activation(name, "fc1") for name in ACTIVATIONS}
        | {
            "all": fixed(
                lambda *hs: jnp.concatenate(hs, 1), *(f"fc1:{name}" for name in ACTIVATIONS)
            ),
            "fc2": dense(4, 4),
            "fc2:tanh": activation("tanh"),
            "fc3": dense(3, 5),
        },
    ),
    "strided and padded conv": Net(
        (7, 6, 2),
        {
            "conv1": conv(3, 0, strides=(2, 1), padding="VALID"),
            "conv1:relu": RELU,
            "conv2": conv(4, 1, strides=(1, 2), padding=((0, 2), (1, 0))),
            "conv2:relu": RELU,
            "flatten": FLATTEN,
            "fc": dense(3, 2),
        },
    ),
    "max-pool of tiles": behind_conv(
        {"conv:relu": RELU, "pool": max_pool((2, 2), (2, 2), (NONE, NONE))}, shape=(4, 4, 2)
    ),
    "overlapping max-pool": behind_conv(
        {"pool": max_pool((3, 2), (1, 2), ((1, 1), (0, 1))), "pool:relu": RELU}
    ),
    "average pool": behind_conv(
        {"conv:relu": RELU, "pool": fixed(average_pool), "pool:tanh": activation("tanh")}
    ),
    "folded norm, and one between activations": behind_conv(
        {
            "conv2": conv(3, 7, then=batch_norm),
            "conv2:relu": RELU,
            "norm": NORM,
            "norm:tanh": activation("tanh"),
        },
        shape=(4, 3, 2),
    ),
    "norm kept apart": Net(
        (4, 3, 2),
        {"conv": conv(3, 7), "norm": NORM, "norm:relu": RELU, "flatten": FLATTEN}
        | {"fc": dense(3, 8)},
        fold=False,
    ),
    "sum and difference of branches": behind_conv(
        {
            "conv:relu": RELU,
            "conv2": conv(3, 1),
            "add": add("conv:relu", "conv2"),
            "add:relu": RELU,
            "sub": add("add:relu", "conv:relu", sign=-1),
            "sub:relu": RELU,
        },
        shape=(4, 3, 2),
    ),
    "broadcast branch": behind_conv(
        {
            "conv:relu": RELU,
            "mean": fixed(lambda x: x.mean((1, 2), keepdims=True)),
            "add": add("conv", "mean"),
            "add:relu": RELU,
        }
    ),
    "concatenation": Net(
        (5,),
        {
            "a": dense(4, 0, "input"),
            "a:relu": activation("relu", "a"),
            "b": dense(3, 1, "input"),
            "both": fixed(lambda a, b: jnp.concatenate([a, b, a], 1), "a:relu", "b"),
            "both:relu": RELU,
            "c": dense(3, 2),
        },
    ),
    "moves": Net(
        (4, 3, 2),
        {
            "pad": fixed(lambda x: jnp.pad(x, ((0, 0), (1, 0), (0, 2), (0, 0)))),
            "conv": conv(3, 9),
            "turned": fixed(lambda x: x.transpose(0, 3, 1, 2)),
            "conv:relu": RELU,
            "cut": fixed(lambda x: x[:, ::-1, 1:4, ::2]),
            "flatten": FLATTEN,
            "fc": dense(3, 9),
        },
    ),
}


def data(net, count=2):
    """Inputs, a reference and multipliers; a third of the first input is as in the reference."""
    draw = normal(" ".join(net.names))
    x, ref = draw(size=(count, *net.shape)), draw(size=net.shape)
    x[0].flat[::3] = ref.flat[::3]
    return x, ref, draw(size=(count, *net.shapes[net.names[-2]]))


def expected(net, plain, x, refs, m, start=None):
    """The oracle's contributions (N, units) by layer: the mean over the references."""

    def of_one(a, b):
        each = [
            deeplift.contributions(net.layers, plain, a.ravel(), ref.ravel(), b.ravel(), start)
            for ref in refs
        ]
        return {name: np.mean([found[name] for found in each], 0) for name in each[0]}

    rows = [of_one(a, b) for a, b in zip(x, m, strict=True)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def assert_same(found, wanted, tolerance=oracle.TOLERANCE):
    oracle.assert_close(np.reshape(found, wanted.shape), wanted, tolerance)


def assert_complete(contributions, difference):
    """The contributions to each output of a batch sum to its difference from the reference."""
    rows = np.reshape(contributions, (len(difference), -1))
    slack = COMPLETE * np.abs(rows).sum(1)
    assert (np.abs(rows.sum(1) - difference) <= slack).all()
