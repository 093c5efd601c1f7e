"""A network of a family, in inference mode: with weights from a file, or random ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod, sqrt
from os import PathLike
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from .._base import checks
from . import imagenet
from .checkpoint import Checkpoint, open_checkpoint
from .hub import local_file
from .naming import Naming
from .weights import KEPT, fill

Network = TypeVar("Network", bound=nnx.Module)


def pretrained(
    make: Callable[..., Network],
    name: str,
    namings: Mapping[str, Sequence[Naming]],
    weights: str | PathLike,
    *,
    key: jax.Array | None,
    preprocess: str | None,
) -> Network:
    """The network `name` of a family.

    make: from rngs, outputs and a naming's settings to the network. namings: for each network of
    the family the names that files may use. weights, key, preprocess: as in `vgg.vgg16`.
    """
    if preprocess is not None:
        imagenet.preprocessing(preprocess)
    chosen = {} if preprocess is None else {"preprocess": preprocess}
    if key is not None:
        checks.check_key(key)
    if weights == "random":
        if key is None:
            raise ValueError(
                f'{name}(weights="random") draws its weights: pass key=jax.random.key(0).'
            )
        model = _abstract(partial(make, **chosen))
        _draw(model, key)
    else:
        with open_checkpoint(local_file(weights)) as file:
            found = _naming(file, name, namings)
            shapes = {n: tensor.shape for n, tensor in file.tensors.items()}
            settings = {s: file.metadata.get(s, given) for s, given in found.settings.items()}
            model = _abstract(partial(make, outputs=found.outputs(shapes), **(settings | chosen)))
            fill(model, file, found.stored, _described(file, name, namings), ignored=found.ignored)
    model.eval()
    return model


def _abstract(make: Callable[..., Network]) -> Network:
    """The network with shapes in the place of parameters: what is replaced need not be drawn."""
    return nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))


def _draw(model: nnx.Module, key: jax.Array) -> None:
    """He-normal kernels, zero biases, BatchNorm at its start. Source: He et al. 2015.

    numpy draws: JAX would compile its sampler for each of the 20 shapes of kernels, which takes
    ten seconds.
    """
    draw = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())

    def start(path: str, shape: tuple[int, ...]) -> Any:
        if path == "kernel":
            deviation = np.float32(sqrt(2 / prod(shape[:-1])))
            return draw.standard_normal(shape, np.float32) * deviation
        return (np.ones if path in ("scale", "var") else np.zeros)(shape, np.float32)

    leaves = nnx.to_flat_state(nnx.state(model, KEPT))
    drawn = [
        (keys, leaf.replace(jnp.asarray(start(str(keys[-1]), leaf.shape)))) for keys, leaf in leaves
    ]
    nnx.update(model, nnx.from_flat_state(drawn))


def _naming(file: Checkpoint, name: str, namings: Mapping[str, Sequence[Naming]]) -> Naming:
    """The naming with the most layers in the file."""
    found = max(namings[name], key=lambda naming: len(naming.known(file.tensors)))
    if not found.known(file.tensors):
        some = ", ".join(list(file.tensors)[:3]) or "nothing"
        raise ValueError(
            f"The weight file {str(file.path)!r} has no layer of {name} under the names of torch, "
            f"Keras or lrpjax: it holds {some}."
        )
    return found


def _described(file: Checkpoint, name: str, namings: Mapping[str, Sequence[Naming]]) -> str:
    """The network's name, and that of its sibling which has exactly the file's layers."""
    fitting = (n for n, each in namings.items() if any(x.fits(file.tensors) for x in each))
    sibling = next(fitting, name)
    return name if sibling == name else f"{name} (its layers are those of {sibling})"
