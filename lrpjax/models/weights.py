"""Parameters to and from weight files, all or nothing."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike

import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import save

from .._base.files import write_whole
from .._base.tensors import listed, misfits
from . import naming
from .checkpoint import Checkpoint, open_checkpoint
from .naming import Shape, Stored

KEPT = (nnx.Param, nnx.BatchStat)  # what a weight file holds of a module


def save_weights(model: nnx.Module, path: str | PathLike, *, dtype: str = "float16") -> None:
    """Writes every parameter of `model` to a safetensors file, named "conv1.kernel" and so on,
    and the statistics of BatchNorm ("bn1.mean").

    A model's `settings`, where it has them, are written beside the tensors.
    """
    params = nnx.to_flat_state(nnx.state(model, KEPT))
    tensors = {
        ".".join(map(str, keys)): np.asarray(leaf[...]).astype(dtype) for keys, leaf in params
    }
    write_whole(path, save(tensors, getattr(model, "settings", None)))


def load_weights(model: nnx.Module, path: str | PathLike) -> None:
    """Fills `model` in place from a file of `save_weights`; nothing is changed unless everything
    fits.

    Raises FileNotFoundError for a missing file, and ValueError for a damaged one or for one
    whose tensors do not match the model: the message lists every mismatch.
    """
    with open_checkpoint(path) as file:
        fill(model, file, naming.own, type(model).__name__)


def fill(
    model: nnx.Module,
    file: Checkpoint,
    stored: Callable[[str, str, Shape], Stored],
    name: str,
    *,
    ignored: tuple[str, ...] = (),
) -> None:
    """Fills `model`, abstract or not, in place from an open file.

    stored: from a layer, the parameter's name in it and its shape to how the file holds it.
    name: the model's, for the message. ignored: the ends of names that may be in the file.
    Raises ValueError with every tensor that is missing, surplus, misshapen or not finite.
    """
    leaves = dict(nnx.to_flat_state(nnx.state(model, KEPT)))
    wanted = {
        keys: stored(".".join(map(str, keys[:-1])), str(keys[-1]), leaf.shape)
        for keys, leaf in leaves.items()
    }
    shapes = {n: t.shape for n, t in file.tensors.items() if not (ignored and n.endswith(ignored))}
    wrong = misfits(shapes, {entry.name: entry.shape for entry in wanted.values()})
    filled = {}
    for keys, entry in wanted.items():
        if shapes.get(entry.name) != entry.shape:
            continue
        read = file.tensors[entry.name].read()
        if np.iscomplexobj(read):
            wrong.append(f"{entry.name} is of complex numbers")
            continue
        values = entry.to_own(read).astype(leaves[keys].dtype, copy=False)
        if not np.isfinite(values).all():
            wrong.append(f"{entry.name} holds NaN or infinity")
        filled[keys] = leaves[keys].replace(jnp.asarray(values))
    if wrong:
        raise ValueError(
            f"The weight file {str(file.path)!r} does not fit {name}: {listed(wrong)}."
        )
    nnx.update(model, nnx.from_flat_state(filled))
