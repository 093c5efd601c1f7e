"""Patterns: the direction in its input that each neuron of a model responds to.

A weight vector w filters its input x: it must also cancel what distracts. The pattern a estimates
the signal instead: the part of x that varies with the neuron's output. Kindermans et al. 2018.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save as to_bytes

from .._base import checks
from .._base.files import write_whole
from .._base.reading import reading
from .._base.tensors import check_names, listed, misfits
from .._base.work import chunks
from ..graph import Graph, Layer
from ..graph.reading import Model, environment, read_at, source_of
from ..layers import make_linear
from .means import means
from .patches import fan_in, grid, neuron_sums, on_grid, patch_sums

MODES = ("relu", "linear")
KINDS = ("conv", "dense")


@partial(jax.tree_util.register_dataclass, data_fields=["a", "w"], meta_fields=["mode"])
@dataclass(frozen=True)
class Patterns:
    """a: a pattern for every layer with weights, by name, in the layout of its weights w (folded: a
    BatchNorm behind the layer included). w: these weights, as they were. Each neuron's w^T a is 1.
    mode: "relu" or "linear"; see `fit`.
    """

    a: dict[str, jax.Array]
    w: dict[str, jax.Array]
    mode: str

    def save(self, path: str | PathLike, *, dtype: str = "float16") -> None:
        """Writes the patterns (not the weights) as safetensors. ValueError for patterns that are
        not finite, or leave the range of that dtype: float16 holds 6e-5 to 65504 in full."""
        _require_finite(self.a, "they are not to be saved")
        with np.errstate(over="ignore"):
            tensors = {name: np.asarray(a).astype(dtype) for name, a in self.a.items()}
        _require_finite(tensors, f'they leave the range of {dtype}: save them with dtype="float32"')
        least = jnp.finfo(dtype).tiny
        largest = {name: np.abs(np.asarray(a)).max(initial=0) for name, a in self.a.items()}
        if small := [name for name, size in largest.items() if 0 < size < least]:
            raise ValueError(
                f"The patterns of {', '.join(small)} are too small for the range of {dtype}, which "
                'would round them away: save them with dtype="float32".'
            )
        write_whole(path, to_bytes(tensors, {"mode": self.mode}))


def load(path: str | PathLike, model: Model, x: Any) -> Patterns:
    """Patterns that `Patterns.save` wrote, for the model they were fitted on.

    x: an input of the model, of any batch size. Rounding in the file is mended: w^T a is made 1
    again. Raises FileNotFoundError for a missing file, ValueError for a damaged one or for patterns
    that do not fit the model's layers, with a list of what is wrong.
    """
    tensors, mode = stored(path)
    read = read_at(model, x, fold=True)
    w, axes = _weights(read.graph, read.consts, read.leaves)
    shapes = lambda arrays: {name: array.shape for name, array in arrays.items()}
    wrong = misfits(shapes(tensors), shapes(w))
    complex_ones = [name for name, tensor in tensors.items() if np.iscomplexobj(tensor)]
    wrong += [f"the pattern of {name} is of complex numbers" for name in complex_ones]
    wrong += [f"the pattern of {name} is not finite" for name in _not_finite(tensors)]
    if mode not in MODES:
        wrong.append("it does not say how its patterns were fitted")
    if wrong:
        raise ValueError(f"The pattern file {str(path)!r} does not fit the model: {listed(wrong)}.")
    a = {
        name: _unit_response(jnp.asarray(tensors[name], w[name].dtype), w[name], axes[name])
        for name in w
    }
    _require_finite(a, "the file fits other weights")
    return Patterns(a, w, str(mode))


def stored(path: str | PathLike) -> tuple[dict[str, np.ndarray], str | None]:
    """What a file of patterns holds, and how it says they were fitted. Raises as `reading` does."""
    with reading(path, "pattern file"), safe_open(path, "numpy") as file:
        check_names(file.keys())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, (file.metadata() or {}).get("mode")


def _not_finite(patterns: dict[str, Any]) -> list[str]:
    bad = checks.not_finite(list(map(jnp.asarray, patterns.values())))
    return [list(patterns)[place] for place in bad]


def _require_finite(patterns: dict[str, Any], reason: str) -> None:
    if bad := _not_finite(patterns):
        raise ValueError(f"There is NaN or infinity in the patterns of {', '.join(bad)}: {reason}.")


def fit(
    model: Model,
    images: Any,
    *,
    mode: str = "relu",
    chunk: int = 64,
    patches: int | None = 9,
    out: str | PathLike | None = None,
) -> Patterns:
    """Fits a pattern for every neuron of every convolution and dense layer of a model.

    images: inputs (N, ...), taken `chunk` at a time, or an iterable of batches; what is kept are
    running means, whose size does not depend on the number of images. A neuron is an output
    feature, and its examples are the patches x that it sees, with y = w^T x:

        a = c / (w^T c),   c = E+[x y] - E+[x] E[y]

    mode "relu": E+ is the mean over the patches where the neuron fires, in layers below a ReLU;
    elsewhere, and everywhere for "linear", it is the mean over all. E is the mean over all.
    patches: on how many patches of an image a convolution is fitted, a regular grid that moves on
    with every batch; None for all. Neighbouring patches say much the same, and all of them take
    four times as long.
    out: a folder where the means so far are written every second or so: a second call with the
    same model, settings and images goes on from there, and ends as one that was not interrupted.
    Raises ValueError for a model without such layers, no images, or input that is not finite, and
    where `out` holds the means of another model, of other settings, or of other images;
    BlockingIOError where another process is at work there.
    """
    if mode not in MODES:
        raise ValueError(f"The mode is {' or '.join(map(repr, MODES))}, got {mode!r}.")
    checks.check_count(1, chunk=chunk)
    if patches is not None:
        checks.check_count(1, patches=patches)
    whole = hasattr(images, "shape")
    batches = _batches(images, chunk) if whole else images
    settings = {"mode": mode, "patches": patches}
    source = reading = state = store = None
    with ExitStack() as stack:
        for turn, x in enumerate(batches):
            source = source or source_of(model, images if whole else x)
            reading = source.at(x, fold=True)
            if store is None:
                if not (names := [layer.name for layer in _layers(reading.graph)]):
                    raise ValueError(
                        "The model has no convolution and no dense layer: nothing to fit."
                    )
                store = stack.enter_context(means(out, reading, names, settings))
                state = store.state
            if not store.have(x):
                how, arrays = (mode, patches), (reading.consts, reading.leaves)
                state = _add(reading.graph, how, *arrays, state, jnp.int32(turn))
                store.keep(state)
        if reading is None or state is None or store is None:
            raise ValueError("Patterns need at least one image.")
        store.keep(state, last=True)
    w, axes = _weights(reading.graph, reading.consts, reading.leaves)
    a = {}
    for name, (_, _, product, patch, output) in state.items():
        a[name] = _unit_response(product - patch * output, w[name], axes[name])
    _require_finite(a, "their neurons' responses leave the range of the precision; fit in float64")
    return Patterns(a, w, mode)


def _batches(images: Any, chunk: int) -> Iterator[Any]:
    return (images[some.slice] for some in chunks(len(images), chunk, "patterns"))


def _unit_response(c: jax.Array, w: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """c / (w^T c) for each neuron; c itself where that is 0."""
    response = (w * c).sum(axes, keepdims=True)
    return c / jnp.where(response == 0, 1, response)


def _layers(graph: Graph) -> list[Layer]:
    return [layer for layer in graph.layers if layer.kind in KINDS]


def _weights(graph: Graph, consts: list, leaves: list) -> tuple[dict, dict]:
    """Each layer's weights, and the axes that its neurons sum over."""
    axes = {}

    def weights(consts, leaves):
        env = environment(graph, consts, leaves)
        ops = {layer.name: make_linear(graph.program, layer, env) for layer in _layers(graph)}
        axes.update({name: fan_in(op) for name, op in ops.items()})
        return {name: op.w for name, op in ops.items()}

    return jax.jit(weights)(consts, leaves), axes


def _below_relu(graph: Graph) -> set[str]:
    """The layers whose output reaches a ReLU through nothing but structure and pooling."""
    gated = {
        v
        for a in graph.layers
        if a.kind == "activation" and a.detail.name == "relu"
        for v in a.inputs
    }
    for layer in reversed(graph.layers):
        if layer.kind in ("structure", "max_pool") and gated.intersection(layer.outputs):
            gated.update(layer.inputs)
    return {layer.name for layer in _layers(graph) if gated.intersection(layer.outputs)}


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=4)
def _add(
    graph: Graph, how: tuple, consts: list, leaves: list, state: dict | None, turn: jax.Array
) -> dict:
    """The state after a batch. For each neuron of each layer: the number of its patches and of
    those where it fires; the means E+[x y], E+[x] and E[y]."""
    mode, patches = how
    env = environment(graph, consts, leaves)
    gated = _below_relu(graph) if mode == "relu" else set()
    after = {}
    for layer in _layers(graph):
        op = make_linear(graph.program, layer, env)
        x, z = env[layer.inputs[0]], env[layer.outputs[0]]
        y = z if op.b is None else z - op.b
        fires = (z > 0).astype(y.dtype) if layer.name in gated else jnp.ones_like(y)
        seen = grid(op, patches, turn)
        signal, active = on_grid(op, y * fires, seen), on_grid(op, fires, seen)
        sums = [
            neuron_sums(op, on_grid(op, jnp.ones_like(y), None)),
            neuron_sums(op, active),
            *patch_sums(op, x, [signal, active], seen),
            neuron_sums(op, on_grid(op, y, None)),
        ]
        before = [jnp.zeros_like(s) for s in sums] if state is None else state[layer.name]
        after[layer.name] = _joined(before, sums)
    return after


def _joined(before: list, sums: list) -> list:
    """Counts are added; a mean moves towards the new batch's by its share."""
    counts, new_counts = before[:2], sums[:2]
    totals = [old + new for old, new in zip(counts, new_counts, strict=True)]
    of = (1, 1, 0)  # the count that belongs to each mean
    means = [
        mean + (s - mean * new_counts[k]) / jnp.maximum(totals[k], 1)
        for mean, s, k in zip(before[2:], sums[2:], of, strict=True)
    ]
    return [*totals, *means]
