"""What the commands run on in the tests of crashes: small networks, a few images, and seams."""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lrpjax.models.cifar import Cifar10

LOG = "begun.txt"  # a line for each batch that is asked for, with the time
IMAGES = 400
BATCH = 4  # of the fit of patterns
EPOCHS = 12


def _apply(weights, x):
    return jax.nn.relu(x.reshape(len(x), -1) @ weights["hidden"]) @ weights["out"]


def net():
    """Two layers, drawn when it is called: nothing of JAX may run before the process is forked."""
    hidden = jnp.sin(jnp.arange(192 * 6.0)).reshape(192, 6)
    return jax.tree_util.Partial(
        _apply, {"hidden": hidden, "out": jnp.cos(jnp.arange(18.0)).reshape(6, 3)}
    )


class Slow:
    """The same; each batch takes some time, and leaves a line."""

    def __init__(self):
        self.net = net()

    def __call__(self, x):
        return self.net(x)

    def preprocess(self, images):
        with open(LOG, "a") as log:
            print(time.monotonic(), file=log)
        time.sleep(0.01)
        return jnp.asarray(images[:, :8, :8], jnp.float32) / 255


class Small(nnx.Module):
    """As the network that `train` trains, with few channels, on one pixel in 16."""

    preprocess = staticmethod(Cifar10.preprocess)

    def __init__(self, *, rngs):
        conv = lambda inputs, outputs: nnx.Conv(inputs, outputs, (3, 3), rngs=rngs)
        self.conv1, self.conv2 = conv(3, 2), conv(2, 2)
        self.conv3, self.conv4 = conv(2, 2), conv(2, 2)
        self.fc6 = nnx.Linear(2, 10, rngs=rngs)
        self.dropout = nnx.Dropout(0.5)

    def __call__(self, x, *, rngs=None):
        x = x[:, ::4, ::4]
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = nnx.relu(layer(x))
        return self.fc6(self.dropout(x.mean((1, 2)), rngs=rngs))


def slow():
    return Slow()


def write_images(folder: Path) -> None:
    generator = np.random.default_rng(0)
    few = generator.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    np.savez(folder / "images.npz", images=few)
    many = generator.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    np.savez(folder / "data.npz", images=many, labels=np.arange(IMAGES) % 10)


def nothing() -> None:
    pass


def small_batches() -> None:
    """Many batches, and means that are written more often."""
    from lrpjax.cli import patterns
    from lrpjax.patterns import means

    patterns.BATCH, means._EVERY = BATCH, 0.1


def small_network() -> None:
    from lrpjax.models import training

    training.cifar10 = lambda _, key: Small(rngs=nnx.Rngs(key))


def folder_goes() -> None:
    """The folder of the pieces is removed when the third piece is to be written."""
    from lrpjax.auditing.store import Store

    write, count = Store.write, iter(range(100))

    def removing(self, *arguments):
        if next(count) == 2:
            shutil.rmtree("run")
        write(self, *arguments)

    Store.write = removing


def computes_for_ever() -> None:
    """The first piece is a computation that holds the main thread, and never comes to its end."""
    from lrpjax.cli import audit

    def computing(*_, **__):
        Path("computing").touch()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # like XLA, it lets other threads run

    audit.load = computing


def threads_compute_for_ever() -> None:
    """As above, but on the threads that pieces are computed on."""
    from lrpjax.auditing import tasks

    def computing(*_, **__):
        Path("computing").touch()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

    tasks.MEASURES["mprt"] = tasks.Measure(computing)


def imports_for_ever() -> None:
    """A module of the user's is still being imported."""
    Path("slow_module.py").write_text(
        "import pathlib, time\npathlib.Path('computing').touch()\ntime.sleep(600)\n"
    )
