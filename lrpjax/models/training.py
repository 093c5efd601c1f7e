"""Training of the CIFAR-10 network: what `lrpjax train` runs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import partial
from itertools import count
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from rich.progress import Progress
from safetensors import safe_open
from safetensors.numpy import save

from .._base.fingerprint import digest, environment
from .._base.progress import seen
from .._base.reading import Unreadable, reading
from .._base.results import key_text
from .._base.resuming import kept, versions
from .cifar import Cifar10, cifar10
from .weights import save_weights

MAX_SHIFT = 3  # 10 % of 32 pixels


def augment(key: jax.Array, images: jax.Array) -> jax.Array:
    """Random shifts of up to 10 % filled with the nearest pixel, and horizontal flips.

    images (N, H, W, C) to the same shape. Source: the paper's CIFAR-10 training.
    """
    height, width, channels = images.shape[1:]
    padded = jnp.pad(images, ((0, 0), (MAX_SHIFT,) * 2, (MAX_SHIFT,) * 2, (0, 0)), mode="edge")
    shift_key, flip_key = jax.random.split(key)
    shifts = jax.random.randint(shift_key, (len(images), 2), 0, 2 * MAX_SHIFT + 1)
    shifted = jax.vmap(
        lambda image, shift: jax.lax.dynamic_slice(
            image, (shift[0], shift[1], 0), (height, width, channels)
        )
    )(padded, shifts)
    flip = jax.random.bernoulli(flip_key, shape=(len(images), 1, 1, 1))
    return jnp.where(flip, shifted[:, :, ::-1], shifted)


def _plain_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@jax.custom_vjp
def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A stride-1 convolution with zero padding whose kernel gradient is quick on processors.

    XLA's own takes 2.5 to 5 times as long there (64 images): summing small blocks of images
    keeps the patches in the cache. A training step takes about a quarter less time.
    """
    return _plain_conv(x, kernel)


def _conv_forward(x, kernel):
    return conv(x, kernel), (x, kernel)


def _conv_backward(saved, cotangent):
    x, kernel = saved
    (x_bar,) = jax.linear_transpose(lambda x: _plain_conv(x, kernel), x)(cotangent)
    taps_down, taps_right, channels, features = kernel.shape
    height, width = x.shape[1:3]
    block = math.gcd(len(x), 8)

    def add_block(total, block):
        x, cotangent = block
        shifted = [
            x[:, i : i + height, j : j + width] for i in range(taps_down) for j in range(taps_right)
        ]
        return total + jnp.einsum("nhwi,nhwo->io", jnp.concatenate(shifted, -1), cotangent), None

    padding = [(0, 0), (taps_down // 2,) * 2, (taps_right // 2,) * 2, (0, 0)]
    blocks = [a.reshape(-1, block, *a.shape[1:]) for a in (jnp.pad(x, padding), cotangent)]
    zero = jnp.zeros((taps_down * taps_right * channels, features), x.dtype)
    kernel_bar, _ = jax.lax.scan(add_block, zero, blocks)
    return x_bar, kernel_bar.reshape(kernel.shape)


conv.defvjp(_conv_forward, _conv_backward)


def accuracy(model: Cifar10, images: np.ndarray, labels: np.ndarray, *, batch: int = 500) -> float:
    """Share of uint8 images (N, 32, 32, 3) whose largest logit is their label."""
    predict = jax.jit(lambda model, x: model(model.preprocess(x)).argmax(-1))
    starts = range(0, len(images), batch)
    guesses = [np.asarray(predict(model, images[i : i + batch])) for i in starts]
    return float((np.concatenate(guesses) == labels).mean())


def train(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    out: str | PathLike,
    key: jax.Array,
    epochs: int = 16,
    batch: int = 64,
    learning_rate: float = 1e-3,
    test: tuple[np.ndarray, np.ndarray] | None = None,
    overwrite: bool = False,
) -> Iterator[tuple[int, Cifar10]]:
    """Trains the network on uint8 images (N, 32, 32, 3) and yields (epoch, model) after each.

    Adam with a cosine decay to zero, cross-entropy, dropout .5 and `augment`. A checkpoint is
    written in `out` after each epoch, with the accuracy on the images and labels of `test`
    (`history` reads it), and a second start goes on from the last; every draw depends on (key,
    epoch, step) alone, so an interrupted run ends as an uninterrupted one. After the last epoch the
    weights are in `out`/cifar10.safetensors.
    Raises ValueError, with what differs, where `out` holds a run with other images, labels or
    settings (overwrite: removes that), and BlockingIOError where another process is at work there.
    """
    steps = len(images) // batch
    if steps == 0:
        raise ValueError(f"Training needs at least one batch of {batch} images, got {len(images)}.")
    settings = {
        "images_sha256": digest(images),
        "labels_sha256": digest(np.asarray(labels)),
        "test_sha256": digest(test),
        "key": key_text(key),
        "epochs": epochs,
        "batch": batch,
        "learning_rate": learning_rate,
        "versions": versions("flax", "optax"),
        "precision": environment(),
    }
    model = cifar10("random", key=key)
    for layer in (model.conv1, model.conv2, model.conv3, model.conv4):
        layer.conv_general_dilated = lambda x, kernel, *_, **__: conv(x, kernel)
    graph, params = nnx.split(model)
    optimiser = optax.adam(optax.cosine_decay_schedule(learning_rate, epochs * steps))
    state = {
        "params": nnx.to_pure_dict(params),
        "optimiser": optimiser.init(nnx.to_pure_dict(params)),
    }

    def model_of(weights: dict, *, training: bool) -> Cifar10:
        filled = jax.tree.map(lambda leaf: leaf, params)
        nnx.replace_by_pure_dict(filled, weights)
        model = nnx.merge(graph, filled)
        model.train() if training else model.eval()
        return model

    @partial(jax.jit, donate_argnums=0)
    def step(state: dict, key: jax.Array, images: jax.Array, labels: jax.Array):
        augment_key, dropout_key = jax.random.split(key)
        x = augment(augment_key, Cifar10.preprocess(images))

        def loss_of(weights):
            logits = model_of(weights, training=True)(x, rngs=nnx.Rngs(dropout=dropout_key))
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        loss, gradient = jax.value_and_grad(loss_of)(state["params"])
        updates, moments = optimiser.update(gradient, state["optimiser"])
        return {"params": optax.apply_updates(state["params"], updates), "optimiser": moments}, loss

    with (
        kept(
            out, settings, what="a training", pieces=[_CHECKPOINT, _WEIGHTS], overwrite=overwrite
        ) as folder,
        Progress(disable=not seen()) as bar,
    ):
        rows = history(out)
        if rows:
            state = _restored(folder.folder / _CHECKPOINT, state)
        for epoch in range(len(rows), epochs):
            task = bar.add_task(f"epoch {epoch + 1}/{epochs}", total=steps)
            epoch_key = jax.random.fold_in(key, epoch)
            order = np.asarray(jax.random.permutation(epoch_key, len(images)))
            for i in range(steps):
                pick = order[i * batch : (i + 1) * batch]
                state, loss = step(
                    state, jax.random.fold_in(epoch_key, i), images[pick], labels[pick]
                )
                bar.update(
                    task, advance=1, description=f"epoch {epoch + 1}/{epochs} loss {loss:.3f}"
                )
            trained = model_of(state["params"], training=False)
            reached = None if test is None else accuracy(trained, *test)
            rows = [*rows, {"epoch": epoch + 1, "test_accuracy": reached}]
            about = {_ROWS: json.dumps(rows)}
            folder.write(_CHECKPOINT, save(_named(state), about))
            yield epoch, trained
        save_weights(model_of(state["params"], training=False), Path(out) / _WEIGHTS)


_CHECKPOINT, _WEIGHTS, _ROWS = "checkpoint.safetensors", "cifar10.safetensors", "rows"


def history(out: str | PathLike) -> list[dict[str, Any]]:
    """A row (epoch, test_accuracy) of each epoch that is finished in a folder of `train`.

    Raises ValueError where its checkpoint is damaged.
    """
    file = Path(out) / _CHECKPOINT
    return _rows(file) if file.exists() else []


def _rows(file: Path) -> list[dict[str, Any]]:
    with reading(file, "checkpoint") as path, safe_open(path, "numpy") as tensors:
        rows = json.loads((tensors.metadata() or {}).get(_ROWS, "[]"))
        if not (isinstance(rows, list) and rows and all(map(_is_row, rows, count(1)))):
            raise Unreadable("it does not say which epochs are finished")
        return rows


def _is_row(row: Any, epoch: int) -> bool:
    named = isinstance(row, dict) and row.keys() == {"epoch", "test_accuracy"}
    return named and row["epoch"] == epoch and isinstance(row["test_accuracy"], float | None)


def _restored(file: Path, like: dict) -> dict:
    """The state in a checkpoint. Raises ValueError for a file that holds something else."""
    shapes = lambda arrays: {name: (a.shape, str(a.dtype)) for name, a in arrays.items()}
    with reading(file, "checkpoint") as path, safe_open(path, "numpy") as tensors:
        found = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
        if shapes(found) != shapes(_named(like)):
            raise Unreadable("it holds other arrays")
    ordered = iter([found[name] for name in _named(like)])
    return jax.tree.map(lambda _: jnp.asarray(next(ordered)), like)


def _named(state: dict) -> dict[str, np.ndarray]:
    leaves, _ = jax.tree.flatten_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
