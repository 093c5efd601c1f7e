"""Activations in front of a dense layer: read whole, whatever number they end in."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from flax import nnx
from helpers import oracle

import lrpjax as lrp
from lrpjax.graph.reading import read

pytestmark = pytest.mark.usefixtures("quick_compile")

RNG = np.random.default_rng(0)
X, R = RNG.normal(size=(2, 4)), RNG.normal(size=(2, 3))
A, B = RNG.normal(size=(4, 5)), RNG.normal(size=(5, 3))
A_BIAS, B_BIAS = RNG.normal(size=5), RNG.normal(size=3)

relu6_of_numpy = lambda x: np.clip(x, 0, 6)
ELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
IN_NUMPY = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": relu6_of_numpy,
    "hard_sigmoid": lambda x: relu6_of_numpy(x + 3) / 6,
    "hard_swish": lambda x: x * relu6_of_numpy(x + 3) / 6,
    "log_sigmoid": lambda x: -np.log(1 + np.exp(-x)),
    "selu": lambda x: SELU_SCALE * np.where(x > 0, x, ELU_ALPHA * (np.exp(x) - 1)),
    "tanh": np.tanh,
}
in_haiku = lambda f: lambda x: hk.transform(lambda x: f(x)).apply({}, None, x)
relu6 = jax.nn.relu6
SPELLINGS = {
    "hard_sigmoid": {
        "jax": jax.nn.hard_sigmoid,
        "nnx": nnx.hard_sigmoid,
        "linen": nn.hard_sigmoid,
        "equinox": eqx.nn.Lambda(jax.nn.hard_sigmoid),
        "haiku": in_haiku(jax.nn.hard_sigmoid),
        "keras": keras.activations.hard_sigmoid,
        "times": lambda x: relu6(x + 3) * (1 / 6),
        "clip": lambda x: jnp.clip(x / 6 + 0.5, 0, 1),
    },
    "hard_swish": {
        "jax": jax.nn.hard_swish,
        "nnx": nnx.hard_silu,
        "linen": nn.hard_silu,
        "equinox": eqx.nn.Lambda(jax.nn.hard_swish),
        "haiku": in_haiku(jax.nn.hard_swish),
        "keras": keras.activations.hard_silu,
        "over six at the end": lambda x: x * relu6(x + 3) / 6,
        "over six in the middle": lambda x: x * (relu6(x + 3) / 6),
    },
    "relu6": {
        "jax": relu6,
        "nnx": nnx.relu6,
        "linen": nn.relu6,
        "equinox": eqx.nn.Lambda(relu6),
        "haiku": in_haiku(relu6),
        "keras": keras.activations.relu6,
        "keras layer": keras.layers.ReLU(6.0, dtype="float64"),
    },
    "log_sigmoid": {
        "jax": jax.nn.log_sigmoid,
        "nnx": nnx.log_sigmoid,
        "linen": nn.log_sigmoid,
        "keras": keras.activations.log_sigmoid,
        "open": lambda x: -jnp.log1p(jnp.exp(-x)),
    },
    "selu": {"jax": jax.nn.selu, "keras": keras.activations.selu},
    "tanh": {"of a sigmoid": lambda x: 2 * jax.nn.sigmoid(2 * x) - 1},
    "relu": {"of the modulus": lambda x: (x + jnp.abs(x)) / 2},
}
CASES = {f"{name}, {how}": (name, f) for name, fs in SPELLINGS.items() for how, f in fs.items()}


def found(model):
    layers = read(model, X).graph.layers
    return [layer.detail.name if layer.kind == "activation" else layer.kind for layer in layers]


@pytest.mark.parametrize(("method", "rule"), [("lrp-z", oracle.z), ("lrp-zplus", oracle.zplus)])
@pytest.mark.parametrize(("name", "function"), CASES.values(), ids=CASES)
def test_it_passes_relevance_between_two_dense_layers(name, function, method, rule):
    model = lambda x: function(x @ A + A_BIAS) @ B + B_BIAS
    assert found(model) == ["dense", name, "dense"]
    first, second = (oracle.Affine(W.T, b, W.T != 0) for W, b in ((A, A_BIAS), (B, B_BIAS)))
    expected = [
        rule(first, x, rule(second, IN_NUMPY[name](A.T @ x + A_BIAS), r))
        for x, r in zip(X, R, strict=True)
    ]
    oracle.assert_close(lrp.vjp(model, X, method)[1](R), np.array(expected))


NOT_ITS_OWN = {  # what stands behind an activation and is none of it
    "a number": (lambda h: jax.nn.relu(h) / 6, ["relu"]),
    "a number for each feature": (lambda h: jax.nn.relu(h) * np.arange(1.0, 6), ["relu"]),
    "an offset": (lambda h: jax.nn.softplus(h) - np.log(2), ["softplus"]),
    "itself": (lambda h: jax.nn.relu(jax.nn.relu(h)), ["relu", "relu"]),
    "another": (lambda h: jax.nn.relu(relu6(h)), ["relu6", "relu"]),
}


@pytest.mark.parametrize(("function", "names"), NOT_ITS_OWN.values(), ids=NOT_ITS_OWN)
def test_what_stands_behind_an_activation_stays_apart(function, names):
    assert found(lambda x: function(x @ A) @ B) == ["dense", *names, "dense"]
