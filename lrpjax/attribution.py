"""Attribution: relevance of the input, as a modified vjp and as a heat map."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._base import checks
from .graph.places import below, find_layer, values_at
from .graph.reading import Model, Reading, Source, source_of
from .methods.lookup import Explainer, resolve, resolve_chain
from .planning.claims import read_as, tested
from .planning.ledger import contributed, explain, substituted_sums, warn_of_what_was_lost
from .propagation import refusals
from .propagation.apart import refuse_what_mixes
from .propagation.empty import is_empty, no_maps, no_vjp
from .propagation.method import Method
from .propagation.propagations import is_vjp, span
from .propagation.pullback import forward, forward_as_it_is
from .propagation.targets import classes_of, read_for, read_for_target


def vjp(
    model: Model,
    x: Any,
    method: str | Method,
    *,
    start: str | None = None,
    layers: Sequence[str] | None = None,
    check: bool = False,
) -> tuple[Any, Callable]:
    """The model's output and the map from relevance of the output to relevance of the input.

    model: a callable from a batch (N, ...) to outputs of any shape. x: its input, any pytree.
    start: inject at the output of this layer instead of at the model's output.
    layers: names of layers ("input" is x itself); the map then returns (R_in, {name: R}) with
    the relevance at each layer's output. check: tests what the reading says of the model at x
    first, as `plan.check` does.
    The map takes relevance of the shape of the output (or of the layer `start`) and returns
    relevance of x's structure, in float32 where the model computes in half precision. Like
    the second result of `jax.vjp` it is a pytree: jit may return it, vmap may batch it.
    With "gradient" it is the model's derivative as JAX has it, custom rules and ties included:
    without start and layers bit for bit `jax.jit` of `jax.vjp`, unless the model computes in half
    precision or x holds integers. Inside of a function with a derivative of its own, of which its
    rule says nothing, the relevance at a layer is that of the function's body.
    Raises NotImplementedError for a layer without a rule, ValueError for unknown names, input
    or weights that are not finite, a model in training mode or one whose examples depend on one
    another (where no table says it: as is seen at x, and not under jit), or with `check` one that
    is not what it was read as; the map raises ValueError for relevance that is not finite, and
    where it gives such (under jit or vmap NaN comes through). It warns of a map that is uniform
    since the rule of a first layer is flat.
    """
    method = resolve_chain(method, model)
    source = source_of(model, x)
    if is_empty(x):
        return no_vjp(lambda x: vjp(source, x, method, start=start, layers=layers), x)
    if check:
        _check(source, x, method)
    reading = read_for(source, x, method)
    graph = reading.graph
    checks.check_names("layers", layers)
    names = tuple(dict.fromkeys(layers or ()))
    values_at(graph, start, names)
    refusals.rules_for(graph, method, below(graph, start))
    refuse_what_mixes(reading)
    inner = tuple(name for name in names if name != "input")
    injected = tuple(graph.program.outputs)
    if start is not None:
        injected = (find_layer(graph, start).outputs[0],)
    captured = (*graph.program.inputs, *values_at(graph, start, inner))
    whole = span(below(graph, start), injected, captured)
    values = reading.consts, reading.leaves
    if start is None and not inner and is_vjp(graph, method):
        outputs, pull = forward_as_it_is(graph, method, whole, *values)
    else:
        outputs, (pull,) = forward(graph, method, (whole,), *values)
    checks.check_finite(outputs, ["the model's output"] * len(outputs))
    out = jax.tree.unflatten(reading.out_tree, outputs)
    shape = RelevanceMap(
        reading.out_tree if start is None else None,
        reading.x_tree,
        None if layers is None else names,
        method.name,
        refusals.flat_first(graph, method),
    )
    return out, jax.tree_util.Partial(shape, pull)


@dataclass(frozen=True)
class RelevanceMap:
    """Puts pytrees around a `Replay`. out_tree is None where relevance enters at one layer.

    names: of the layers whose relevance is returned too, or None for that of the input alone.
    method: the name of the one that propagates. flat: as `refusals.flat_first` says.
    """

    out_tree: Any
    x_tree: Any
    names: tuple[str, ...] | None
    method: str
    flat: str

    def __call__(self, pull: Callable, relevance: Any) -> Any:
        if self.out_tree is None:
            leaves = [relevance]
        else:
            leaves, tree = jax.tree.flatten(relevance)
            if tree != self.out_tree:
                raise ValueError(f"The relevance must be a {self.out_tree}, got a {tree}.")
        pulled = pull(leaves)
        checks.check_maps(self.method, pulled)
        at_input = pulled[: self.x_tree.num_leaves]
        refusals.warn_of_uniform_maps(self.method, self.flat, at_input, stacklevel=2)
        found = iter(pulled)
        result = jax.tree.unflatten(self.x_tree, islice(found, self.x_tree.num_leaves))
        if self.names is None:
            return result
        return result, {name: result if name == "input" else next(found) for name in self.names}


_NOTICED = 0.01  # of the relevance that arrives at a layer: less is not worth a warning


def _warn_of_losses(reading: Reading, method: Method, target: Any) -> None:
    """Warns where the gradient stands in for a rule and does not conserve relevance."""
    graph = reading.graph
    if not any(method.is_substituted(graph, layer) for layer in graph.layers):
        return
    if method.baseline is not None:
        _warn_of_incompleteness(reading, method, target)
        return
    sums = substituted_sums(graph, method, reading.consts, reading.leaves, target)
    shares = {}
    for name, ends in sums.items():
        arrived, sent = (np.abs(np.asarray(end, np.float64)) for end in ends)
        change = np.abs(np.asarray(ends[1], np.float64) - np.asarray(ends[0], np.float64))
        if (change > _NOTICED * arrived).any():
            shares[name] = float(sent.sum() / arrived.sum()) if arrived.any() else np.inf
    if not shares:
        return
    by_name = graph.by_name
    told = ", ".join(
        f"{name!r} ({by_name[name].primitive} at {by_name[name].source}) sends on {share:.3g} times"
        for name, share in shares.items()
    )
    warnings.warn(
        f"With unknown='gradient' {method.name} does not conserve relevance: {told} what arrives "
        "there. Register rules for them (lrpjax.rules.register), or take the plain gradient.",
        stacklevel=4,
    )


def _warn_of_incompleteness(reading: Reading, method: Method, target: Any) -> None:
    found = contributed(reading.graph, method, reading.consts, reading.leaves, target)
    total, rise = (np.asarray(part, np.float64) for part in found)
    if (np.abs(total - rise) <= _NOTICED * np.abs(rise)).all():
        return
    worst = int(np.abs(total - rise).argmax())
    warnings.warn(
        f"With unknown='gradient' the contributions of {method.name} do not add up to f(x) - "
        f"f(baseline): to {total[worst]:.3g} in place of {rise[worst]:.3g} at image {worst}. Take "
        "integrated gradients, which are complete for every function.",
        stacklevel=5,
    )


def attribute(
    model: Model,
    x: Any,
    method: Any,
    *,
    target: Any = None,
    check: bool = False,
) -> Any:
    """The relevance of the input for one class: the heat map, of x's structure and shape.

    model: a callable from (N, ...) to (N, classes). target: a class, N classes, or None for
    each image's largest logit. The method says what propagation starts from: the logit or 1.
    check: as of `vjp`.
    Raises as `vjp` does, and ValueError for outputs of another shape, a target out of range, or a
    map with NaN or infinity (under jit or vmap it comes through).
    Warns where, in one image at least, constants of the model take more than half of the relevance,
    stabilisers a tenth (1 % of one layer's, where they are absolute as epsilon is), less than a
    tenth reaches the input, or alpha-beta makes 1000 times as much: see `lrpjax.planning.ledger`;
    and of a uniform map, as `vjp` does.
    """
    method = resolve(method, model)
    source = source_of(model, x)
    if is_empty(x):
        return no_maps(lambda x, target: attribute(source, x, method, target=target), x, target)
    if check:
        _check(source, x, method)
    reading = read_for_target(source, x, method, target)
    if (chain := method.chain) is not None:
        return jax.tree.unflatten(reading.x_tree, _propagated(reading, chain, target))
    given = classes_of(reading, target) if method.foreign else target
    maps = method.explain(reading, x, given)
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(maps)]
    checks.check_maps(method.name, leaves)
    if method.rules is not None:
        flat = refusals.flat_first(reading.graph, method.rules)
        refusals.warn_of_uniform_maps(method.name, flat, leaves, stacklevel=2)
    return maps


def _propagated(reading: Reading, method: Method, target: Any) -> list[jax.Array]:
    """What a chain of rules explains, with warnings of the relevance that was lost on the way."""
    given = (*reading.leaves, *reading.consts, *jax.tree.leaves((target, method)))
    concrete = all(map(checks.is_concrete, given))
    values = reading.consts, reading.leaves
    logits, maps, told = explain(reading.graph, method, *values, target, told=concrete)
    checks.check_maps(method.name, maps, [logits])
    flat = refusals.flat_first(reading.graph, method)
    refusals.warn_of_uniform_maps(method.name, flat, maps, stacklevel=3)
    if told is not None and checks.is_concrete(logits):
        warn_of_what_was_lost(reading.graph, method, told, stacklevel=3)
    if checks.is_concrete(logits):
        _warn_of_losses(reading, method, target)
    return maps


def _check(source: Source, x: Any, method: Explainer) -> None:
    """Tests the claims of the reading that the method works with. Raises as `tested`."""
    if not all(map(checks.is_concrete, jax.tree.leaves(x))):
        raise TypeError(
            "check=True tests the model at an input, and this one is traced: call it outside of "
            "jit, vmap and grad."
        )
    tested(read_as(source, x, method))
