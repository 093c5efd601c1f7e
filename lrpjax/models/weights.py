"""Weight files: safetensors to and from `flax.nnx` modules, all or nothing."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file


def _name(path: tuple) -> str:
    return ".".join(str(part) for part in path)


def save_weights(model: nnx.Module, path: str | PathLike, *, dtype: str = "float16") -> None:
    """Writes every parameter of `model` to a safetensors file, named "conv1.kernel" and so on."""
    params = nnx.to_flat_state(nnx.state(model, nnx.Param))
    tensors = {_name(keys): np.asarray(leaf[...]).astype(dtype) for keys, leaf in params}
    save_file(tensors, path)


def load_weights(model: nnx.Module, path: str | PathLike) -> None:
    """Fills `model` in place from a safetensors file; nothing is changed unless everything fits.

    Raises FileNotFoundError for a missing file, and ValueError for a damaged one or for one
    whose tensors do not match the model: the message lists every mismatch.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no weight file {str(path)!r}: check the path.")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"The weight file {str(path)!r} is damaged or not in safetensors format ({error}): "
            "fetch or write it again."
        ) from error
    state = nnx.state(model, nnx.Param)
    params = {_name(keys): leaf for keys, leaf in nnx.to_flat_state(state)}
    wrong = [f"{name} is missing" for name in sorted(params.keys() - tensors.keys())]
    wrong += [f"{name} is not in the model" for name in sorted(tensors.keys() - params.keys())]
    for name in sorted(params.keys() & tensors.keys()):
        have, want = tensors[name].shape, params[name].shape
        if have != want:
            wrong.append(f"{name} has shape {have}, the model needs {want}")
        elif not np.isfinite(tensors[name]).all():
            wrong.append(f"{name} holds NaN or infinity")
    if wrong:
        raise ValueError(
            f"The weight file {str(path)!r} does not fit {type(model).__name__}: "
            + "; ".join(wrong)
            + "."
        )
    for name, leaf in params.items():
        leaf[...] = jnp.asarray(tensors[name], leaf.dtype)
    nnx.update(model, state)
