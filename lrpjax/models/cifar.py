"""The paper's CIFAR-10 network: four convolutions, two pools, two dense layers."""

from __future__ import annotations

from functools import cache
from importlib import resources
from os import PathLike

import jax
import jax.numpy as jnp
from flax import nnx

from .._base import checks
from .._base.compat import outside_traces
from ..patterns.fitting import Patterns
from ..patterns.fitting import load as load_patterns
from .weights import load_weights

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


class Cifar10(nnx.Module):
    """Images (N, 32, 32, 3) in [0, 1] to logits (N, 10).

    conv1 32, conv2 64, pool2, conv3 128, conv4 128, pool4, flatten 8192, fc5 1024, fc6 10;
    3x3 kernels with zero padding, a ReLU behind each layer but the last, dropout .5 before
    fc5 and fc6. 8,640,714 parameters. Source: Sixt et al. 2020, appendix D.
    """

    classes = CLASSES
    image_size = (32, 32)
    input_range = (0.0, 1.0)

    def __init__(self, *, rngs: nnx.Rngs):
        conv = lambda inputs, outputs: nnx.Conv(
            inputs, outputs, (3, 3), kernel_init=nnx.initializers.glorot_uniform(), rngs=rngs
        )
        dense = lambda inputs, outputs: nnx.Linear(
            inputs, outputs, kernel_init=nnx.initializers.glorot_uniform(), rngs=rngs
        )
        self.conv1 = conv(3, 32)
        self.conv2 = conv(32, 64)
        self.conv3 = conv(64, 128)
        self.conv4 = conv(128, 128)
        self.fc5 = dense(8 * 8 * 128, 1024)
        self.fc6 = dense(1024, 10)
        self.dropout = nnx.Dropout(0.5)
        self.shipped = False

    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        x = nnx.relu(self.conv1(x))
        x = nnx.relu(self.conv2(x))
        with jax.named_scope("pool2"):
            x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        x = nnx.relu(self.conv3(x))
        x = nnx.relu(self.conv4(x))
        with jax.named_scope("pool4"):
            x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        with jax.named_scope("flatten"):
            x = x.reshape(x.shape[0], -1)
        x = nnx.relu(self.fc5(self.dropout(x, rngs=rngs)))
        return self.fc6(self.dropout(x, rngs=rngs))

    @property
    def patterns(self) -> Patterns | None:
        """The shipped patterns, for the shipped weights; None for others."""
        return _shipped_patterns() if self.shipped else None

    @staticmethod
    def preprocess(images: jax.Array) -> jax.Array:
        """uint8 images (N, 32, 32, 3) to the float32 range [0, 1] the network was trained on."""
        return jnp.asarray(images, jnp.float32) / 255


def cifar10(weights: str | PathLike = "trained", *, key: jax.Array | None = None) -> Cifar10:
    """The CIFAR-10 network in inference mode.

    weights: "trained" (the file shipped with lrpjax), "random" (Glorot-uniform kernels drawn
    with `key`), or the path of a safetensors file.
    Raises ValueError or FileNotFoundError where the file is missing, damaged or does not fit.
    """
    if weights == "random" and key is None:
        raise ValueError('cifar10(weights="random") draws its weights: pass key=jax.random.key(0).')
    if key is not None:
        checks.check_key(key)
    model = Cifar10(rngs=nnx.Rngs(jax.random.key(0) if key is None else key))
    model.eval()
    if weights == "trained":
        model.shipped = True
        weights = _asset("cifar10.safetensors")
    if weights != "random":
        load_weights(model, weights)
    return model


def _asset(name: str) -> str:
    return str(resources.files(__package__) / "assets" / name)


@cache
def _shipped_patterns() -> Patterns:
    with outside_traces():  # what is kept must not belong to a trace
        file, x = _asset("cifar10_patterns.safetensors"), jnp.zeros((1, 32, 32, 3))
        return load_patterns(file, cifar10(), x)
