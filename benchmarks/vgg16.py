"""VGG-16 in its ImageNet shape with He-initialised weights: what the benchmarks run on."""

from __future__ import annotations

import jax
from flax import nnx

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(nnx.Module):
    """Images (N, 224, 224, 3) to logits (N, 1000). 138,357,544 parameters."""

    def __init__(self, *, rngs: nnx.Rngs):
        he = nnx.initializers.he_normal()
        channels, convs = 3, []
        for width in (width for stage in STAGES for width in stage):
            convs.append(nnx.Conv(channels, width, (3, 3), kernel_init=he, rngs=rngs))
            channels = width
        self.convs = nnx.List(convs)
        self.fc1 = nnx.Linear(7 * 7 * 512, 4096, kernel_init=he, rngs=rngs)
        self.fc2 = nnx.Linear(4096, 4096, kernel_init=he, rngs=rngs)
        self.fc3 = nnx.Linear(4096, 1000, kernel_init=he, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        convs = iter(self.convs)
        for stage in STAGES:
            for _ in stage:
                x = nnx.relu(next(convs)(x))
            x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        x = nnx.relu(self.fc1(x.reshape(x.shape[0], -1)))
        return self.fc3(nnx.relu(self.fc2(x)))
