"""IBA: how many bits of a layer's output does the prediction need, and where?

Noise replaces as much of the layer's output R as the prediction can spare:
Z = lambda R + (1 - lambda) e, e ~ N(mean, std^2) with mean and std of each unit over many images.
For each image lambda is fitted to make the target's cross-entropy + beta * mean(KL) small, where
KL = KL(P(Z|R) || N(mean, std^2)) bounds the information that still passes a unit. Information
that goes past the layer (a residual connection) is not restricted. Schulz et al. 2020, "Restricting
the Flow"; defaults and details as in the authors' code (IBA/pytorch.py), except where said.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from ._base import checks
from ._base.results import Results, key_text
from ._base.work import chunks
from .graph import Graph, ending
from .graph.ends import ends_in
from .graph.reading import Model, Reading, Source, environment, source_of
from .program.evaluation import resumed
from .propagation.explainer import Explainer
from .propagation.layer_statistics import Statistics as Statistics
from .propagation.layer_statistics import layer_value
from .propagation.layer_statistics import statistics as statistics

__all__ = ["Bottleneck", "InformationBottleneck", "Statistics", "iba", "statistics"]
ALPHA = 5.0  # lambda starts at sigmoid(5) = 0.993: next to no noise
MIN_STD = 0.01
_CHUNK = 16


@dataclass(frozen=True, eq=False, repr=False)
class Bottleneck(Results):
    """What was fitted, for N images: a row for each has image, bits, and loss, the last one below.

    relevance: (N, H, W) bits at each place of the input, that is along all its axes but batch
    and channels. An image's bits sum to those of its capacity.
    capacity: bits that pass each unit of the layer, (N, *the layer's shape without the batch).
    losses: (steps, N), cross-entropy + beta * mean(KL) in nats before each step.
    """

    relevance: jax.Array
    capacity: jax.Array
    losses: jax.Array

    required = "image bits loss".split()

    def _joined(self, other: Self) -> dict[str, Any]:
        """Of other images."""
        shape = lambda one: (one.relevance.shape[1:], one.capacity.shape[1:])
        if self.settings != other.settings or shape(self) != shape(other):
            raise ValueError(
                "Bottlenecks of other settings, or of images of another size, cannot be joined."
            )
        rows = [*self.rows, *({**r, "image": r["image"] + len(self.rows)} for r in other.rows)]
        both = lambda name, axis: jnp.concatenate([getattr(self, name), getattr(other, name)], axis)
        arrays = {"relevance": both("relevance", 0), "capacity": both("capacity", 0)}
        return {"settings": self.settings, "rows": rows, **arrays, "losses": both("losses", 1)}

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self:
        arrays = {name: jnp.asarray(content[name]) for name in ("relevance", "capacity", "losses")}
        return super().from_content({**content, **arrays})


def iba(
    model: Model,
    x: Any,
    *,
    target: Any = None,
    layer: str,
    statistics: Statistics,
    key: jax.Array,
    beta: float = 10.0,
    steps: int = 10,
    samples: int = 10,
    learning_rate: float = 1.0,
    sigma: float = 1.0,
    chunk: int | None = None,
) -> Bottleneck:
    """The bits of a layer's output that each image's prediction needs, as a map of the input.

    model: a callable from (N, ...) to logits (N, classes). target: a class, N classes, or None
    for each image's largest logit. layer: a name that `lrpjax.plan` prints, or "input".
    statistics: of that layer, from `statistics`, over a thousand images or more (the authors take
    10,000). beta: the cost of one nat per unit in nats of cross-entropy: the greater, the fewer
    bits. steps: of Adam on alpha, lambda = sigmoid(alpha). samples: draws of e for a step's mean
    cross-entropy. sigma: of the Gaussian that smooths lambda over space, in units of the layer;
    0 for none. chunk: images fitted at once (default: at most 16).

    std below MIN_STD counts as MIN_STD: for a unit that never varies (a dead ReLU) the KL would
    be undefined. The authors' code also switches units off that are zero in 99 % of the images;
    here they stay. It reports the bits before the last step, here they are those after it.

    The layer's bits, summed over channels, are resized to the input bilinearly (edges repeated)
    and multiplied by one factor per image that keeps their sum: the ratio of the areas, where the
    sides of the input are multiples of the layer's. A layer without spatial axes, or with more or
    fewer than the input (dense layers, tokens), does not say where: its bits are spread evenly,
    and lambda is smoothed over nothing.

    All images see the same draws, so an image's map depends neither on the others nor on its place
    among them, nor on `chunk`.
    Raises ValueError for an unknown layer, statistics of another layer or shape, a target or a
    number out of range, or input, weights or results that are not finite; TypeError for
    statistics that are none.
    """
    if not hasattr(x, "shape") or len(x) == 0:
        raise ValueError("IBA needs a batch of images: one array (N, ...) with N at least 1.")
    method = InformationBottleneck(
        layer, statistics, key, beta, steps, samples, learning_rate, sigma, chunk
    )
    source = source_of(model, x)
    _check_output(source.at(x[: method.at_once(len(x))], fold=True), target, len(x))
    return _fitted(method, source, x, target)


def _fitted(method: InformationBottleneck, source: Source, x: Any, target: Any) -> Bottleneck:
    """Fits the images of a batch, chunk by chunk."""
    statistics, chunk = method.statistics, method.at_once(len(x))
    checks.check_input([x])
    reading = source.at(x[:chunk], fold=True)
    value = layer_value(reading.graph, method.layer)
    _check_statistics(statistics, method.layer, reading.graph, value)
    numbers = (statistics.mean, statistics.std, method.beta, method.learning_rate)
    settings = (method.steps, method.samples, method.sigma)
    if target is not None:
        target = np.broadcast_to(target, len(x))
    parts = []
    for some in chunks(len(x), chunk, "iba"):
        at = None if target is None else target[some.index]
        fitted = _fit(
            reading.graph, value, settings, reading.consts, x[some.index], at, method.key, numbers
        )
        parts.append([np.asarray(a)[: some.own] for a in fitted])
    relevance, capacity, losses = (np.concatenate(p) for p in zip(*parts, strict=True))
    checks.check_maps("iba", [relevance, losses, capacity])
    rows = [
        {"image": i, "bits": float(bits.sum()), "loss": float(own[-1])}
        for i, (bits, own) in enumerate(zip(relevance, losses, strict=True))
    ]
    options = ("layer", "beta", "steps", "samples", "learning_rate", "sigma")
    chosen = {option: getattr(method, option) for option in options}
    chosen["key"] = key_text(method.key)
    return Bottleneck(chosen, rows, *map(jnp.asarray, (relevance, capacity, losses.T)))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _fit(graph, value, settings, consts, images, target, key, numbers):
    """Relevance, capacity and losses of a chunk, each with the batch as first axis."""
    import optax  # takes as long as JAX, and nothing else here needs it

    steps, samples, sigma = settings
    mean, std, beta, learning_rate = numbers
    env = environment(graph, consts, [images])
    batch, output = graph.axes.batch[value], graph.program.outputs[0]
    target = env[output].argmax(-1) if target is None else target
    order, spatial = _order(graph, value)  # noise and map do not depend on the memory layout
    features, back = env[value].transpose(order), np.argsort(order)
    unit = lambda a: jnp.expand_dims(jnp.asarray(a, features.dtype), batch).transpose(order)
    mean, std = unit(mean), jnp.maximum(unit(std), MIN_STD)
    normalised = (features - mean) / std

    def noise_share(alpha):  # 1 - lambda, which keeps its digits where lambda rounds to 1
        smoothed = range(1, 1 + spatial) if graph.axes.feature[value] is not None else ()
        return smooth(jax.nn.sigmoid(-alpha), smoothed, sigma)

    def loss(alpha, draws):
        noise = noise_share(alpha)

        def cross_entropy(draw):
            z = (1 - noise) * features + noise * (mean + std * draw)
            logits = resumed(graph.program, env, {value: z.transpose(back)})[output]
            return optax.softmax_cross_entropy_with_integer_labels(logits, target)

        nats = information(normalised, noise).reshape(len(alpha), -1).mean(1)
        losses = jax.vmap(cross_entropy)(draws).mean(0) + beta * nats
        return losses.sum(), losses  # the sum: no image's gradient depends on another image

    optimiser = optax.adam(learning_rate)
    shape = (samples, 1, *features.shape[1:])  # one draw for all images

    def step(carry, i):
        alpha, state = carry
        draws = jax.random.normal(jax.random.fold_in(key, i), shape, alpha.dtype)
        gradient, losses = jax.grad(loss, has_aux=True)(alpha, draws)
        with jax.numpy_dtype_promotion("standard"):  # optax's powers of an integer count
            updates, state = optimiser.update(gradient, state)
        return (optax.apply_updates(alpha, updates), state), losses

    alpha = jnp.full_like(features, ALPHA)
    (alpha, _), losses = jax.lax.scan(step, (alpha, optimiser.init(alpha)), jnp.arange(steps))
    nats = jnp.maximum(information(normalised, noise_share(alpha)), 0)  # 0 can round to below 0
    bits = nats / math.log(2)
    capacity = jnp.moveaxis(bits.transpose(back), batch, 0)
    return _on_input(graph, bits, spatial), capacity, losses.T


def information(r: jax.Array, noise: jax.Array) -> jax.Array:
    """KL(N((1 - noise) r, noise^2) || N(0, 1)) of each unit, in nats.

    (((1 - noise) r)^2 + noise^2 - 1) / 2 - log(noise), with r = (R - mean) / std and
    noise = 1 - lambda.
    """
    noise = jnp.maximum(noise, jnp.finfo(noise.dtype).tiny)  # a sigmoid underflows to 0
    return (((1 - noise) * r) ** 2 + noise**2 - 1) / 2 - jnp.log(noise)


def smooth(x: jax.Array, axes: Sequence[int], sigma: float) -> jax.Array:
    """The convolution with a Gaussian of 2 round(2 sigma) + 1 taps along each of these axes.

    The taps sum to 1; edges are mirrored about the outermost unit, which is not repeated.
    """
    radius = round(2 * sigma)
    if radius == 0:
        return x
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps = (weights / weights.sum()).tolist()
    for axis in axes:
        width = [(radius, radius) if i == axis else (0, 0) for i in range(x.ndim)]
        padded, size = jnp.pad(x, width, mode="reflect"), x.shape[axis]
        parts = (jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(len(taps)))
        x = sum((tap * part for tap, part in zip(taps, parts, strict=True)), jnp.zeros_like(x))
    return x


def _order(graph: Graph, value: int) -> tuple[list, int]:
    """The axes of a value: batch, spatial, others, channels if known; and how many are spatial.

    Axes are spatial if the input has as many. One of size 1 may be too many: vmap adds such.
    """
    batch, channel = graph.axes.batch[value], graph.axes.feature[value]
    shape, wanted = graph.program.shape(value), len(_pixels(graph))
    places = [i for i in range(len(shape)) if i not in (batch, channel)]
    candidates = (places, [i for i in places if shape[i] > 1])
    spatial = next((found for found in candidates if len(found) == wanted), [])
    others = [i for i in places if i not in spatial]
    return [batch, *spatial, *others, *([] if channel is None else [channel])], len(spatial)


def _pixels(graph: Graph) -> list[int]:
    """The input's shape without batch and channels."""
    source = graph.program.inputs[0]
    axes = (graph.axes.batch[source], graph.axes.feature[source])
    return [size for i, size in enumerate(graph.program.shape(source)) if i not in axes]


def _on_input(graph: Graph, bits: jax.Array, spatial: int) -> jax.Array:
    """Bits of the units (N, *places, channels) as bits at the places of the input."""
    found, sizes = bits.sum(range(1 + spatial, bits.ndim)), _pixels(graph)
    if not spatial:
        found = found.reshape(-1, *[1] * len(sizes))
    resized = jax.image.resize(found, (len(bits), *sizes), "linear")
    axes = tuple(range(1, found.ndim))
    before, after = (a.sum(axes, keepdims=True) for a in (found, resized))
    return resized * jnp.where(after > 0, before / after, 0)


def _check_statistics(given: Any, layer: str, graph: Graph, value: int) -> None:
    sizes, batch = graph.program.shape(value), graph.axes.batch[value]
    shape = tuple(size for i, size in enumerate(sizes) if i != batch)
    advice = f"fit them with lrpjax.bottleneck.statistics(model, images, {layer!r})."
    if not isinstance(given, Statistics):
        raise TypeError(f"IBA needs the statistics of layer {layer!r}, got {given!r}: {advice}")
    if given.layer != layer:
        raise ValueError(f"The statistics are of layer {given.layer!r}, not {layer!r}: {advice}")
    if not jnp.shape(given.mean) == jnp.shape(given.std) == shape:
        raise ValueError(
            f"The statistics of layer {layer!r} have shape {jnp.shape(given.mean)}, but its output "
            f"has {shape} here: {advice}"
        )
    names = [f"the {part} of layer {layer!r}'s statistics" for part in ("mean", "std")]
    checks.check_finite([jnp.asarray(given.mean), jnp.asarray(given.std)], names)


def _check_output(reading: Reading, target: Any, count: int) -> None:
    if reading.out_tree.num_leaves != 1:
        raise ValueError(
            f"A target needs one output (N, classes), this model returns {reading.out_tree}."
        )
    program = reading.graph.program
    checks.check_target(target, (count, *program.shape(program.outputs[0])[1:]))
    if ends := ending(reading.graph):
        warnings.warn(
            f"{ends_in(ends[-1])}, but IBA takes the cross-entropy of logits: pass the "
            "model without its last activation.",
            stacklevel=3,
        )


@dataclass(frozen=True, eq=False)
class InformationBottleneck(Explainer):
    """IBA as a method: `iba` with all chosen but the model and its input."""

    layer: str
    statistics: Statistics
    key: jax.Array
    beta: float = 10.0
    steps: int = 10
    samples: int = 10
    learning_rate: float = 1.0
    sigma: float = 1.0
    chunk: int | None = None
    name: str = "iba"

    def __post_init__(self) -> None:
        checks.check_key(self.key)
        checks.check_count(1, steps=self.steps, samples=self.samples, chunk=self.at_once(1))
        checks.check_least(0, beta=self.beta, learning_rate=self.learning_rate, sigma=self.sigma)

    def at_once(self, count: int) -> int:
        """How many of `count` images are fitted at once."""
        return min(_CHUNK if self.chunk is None else self.chunk, count)

    def explain(self, reading: Reading, x: Any, target: Any) -> jax.Array:
        """Bits, of x's shape. IBA knows places, no channels: the bits of a place are spread
        evenly over the input's channels, so that their sum is `iba`'s relevance."""
        relevance = _fitted(self, reading.source, x, target).relevance
        graph = reading.graph
        channel = graph.axes.feature[graph.program.inputs[0]]
        if channel is None:
            return relevance
        spread = jnp.expand_dims(relevance, channel) / x.shape[channel]
        return jnp.broadcast_to(spread, x.shape)


def __dir__() -> list[str]:
    return __all__
