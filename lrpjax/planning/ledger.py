"""Where relevance goes: of each layer what came in, what it sent on, and what became of the rest,
each from the rule's own numerators, and what of a whole map is told to its reader.

Per layer: relevance_out = relevance_in + bias + stabiliser + constants + lost + grown, measured
term by term (`rules.Account`). What is left over is an error of the rule, or of rounding.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..graph import Graph, Layer
from ..graph.reading import Reading, environment
from ..layers import bare, tupled
from ..program import is_inexact
from ..propagation import refusals
from ..propagation.baselines import rows_of
from ..propagation.chain import Chain, Stage
from ..propagation.derivative import Relevance
from ..propagation.method import Method
from ..propagation.multipliers import over_baselines
from ..propagation.propagations import propagations, span
from ..propagation.targets import explained, one_hot, start_relevance
from ..propagation.travelling import AsRelevance
from ..rules import Account

TERMS = Account._fields
QUANTITIES = ("relevance_out", "relevance_in", *TERMS)
RESIDUAL = 1e-4  # of the absolute relevance that arrives at a layer: more is no rounding

# `attribute` tells where, in an image:
TAKEN = 0.01  # of a layer's relevance an absolute stabiliser takes more,
CONSTANTS = 0.5  # of all relevance constants of the model take more (see `shares`),
STABILISERS = 0.1  # or all stabilisers do,
REACHED = 0.1  # less reaches the input; biases take a half in an ordinary CNN under gamma,
# or alpha-beta makes more of it: sum |R| of the input is so many times that of the output. In the
# CNNs of the paper alpha2-beta1 makes 3 times as much, alpha5-beta4 700 times, in transformers 1e5.
GREW = 1000

_WORDS = {
    "bias": "ends in biases",
    "stabiliser": "ends in stabilisers",
    "constants": "ends in constants of the model (tokens, position embeddings, fills)",
    "lost": "finds no contribution to go to, or a rule that does not conserve it",
}


class Book:
    """What a chain's `watch` writes down: `entries[place]` of a layer's place are its quantities,
    (2, quantities, images): their sums over an image, and those of their absolute values.

    images: how many there are.
    """

    def __init__(self, graph: Graph, images: int):
        self.graph, self.images = graph, images
        self.entries: dict[int, jax.Array] = {}

    def watch(
        self, links: Chain, stage: Stage, arrived: Sequence[jax.Array], pulled: Sequence[Any]
    ) -> None:
        layer, account = stage.layer, stage.rule.account
        out = links.travels.read_out
        read = lambda values, maps: [
            m if m is None else out(v, m) for v, m in zip(values, maps, strict=True)
        ]
        terms = []
        if account is not None and any(map(is_inexact, arrived)):
            inputs = (links.env[v] for v in layer.inputs)
            output = bare(links.env[v] for v in layer.outputs)
            told = account(stage.op, *inputs, output, bare(arrived))
            nothing = (None,) * len(layer.outputs)
            terms = [nothing if term is None else tupled(term) for term in told]
        self.enter(layer, read(layer.outputs, arrived), read(layer.inputs, pulled), terms)

    def enter(
        self, layer: Layer, outs: Sequence[Any], ins: Sequence[Any], terms: Sequence[Any] = ()
    ) -> None:
        """The maps of a layer's outputs and inputs, and the terms as maps of its outputs."""
        maps = [(layer.outputs, outs), (layer.inputs, ins)]
        maps += [(layer.outputs, term) for term in terms]
        none = [jnp.zeros(self.images)] * (len(QUANTITIES) - len(maps))
        sums = lambda by: jnp.stack([*(self.of_images(*m, by) for m in maps), *none])
        self.entries[layer.place] = jnp.stack([sums(jnp.asarray), sums(jnp.abs)])

    def of_images(self, values: Sequence[int], maps: Sequence[Any], by: Callable) -> jax.Array:
        """The sums over each image. What holds them in no order is spread evenly."""
        total = jnp.zeros(self.images)
        for v, m in zip(values, maps, strict=True):
            if m is None or not is_inexact(m):
                continue
            layout = self.graph.axes.layout[v]
            if layout is not None and layout.sizes(layout.batch) == self.images:
                sums = layout.by_example(by(m)).sum(1)
            else:
                sums = jnp.broadcast_to(by(m).sum() / max(self.images, 1), self.images)
            total += sums.astype(total.dtype)
        return total

    def of_inputs(self, found: Relevance) -> jax.Array:
        """The absolute relevance of each image's input."""
        inputs = self.graph.program.inputs
        return self.of_images(inputs, [found.get(v) for v in inputs], jnp.abs)

    def whole(self) -> jax.Array:
        """The entries of all layers, (layers, 2, quantities, images): zeros where none arrives."""
        nothing = jnp.zeros((2, len(QUANTITIES), self.images))
        return jnp.stack([self.entries.get(a.place, nothing) for a in self.graph.layers])


@partial(jax.jit, static_argnums=0, static_argnames="told")
def explain(
    graph: Graph,
    method: Method,
    consts: Sequence[Any],
    leaves: Sequence[Any],
    target: Any,
    *,
    told: bool,
) -> tuple[jax.Array, list[jax.Array], tuple[jax.Array, jax.Array] | None]:
    """The logits, the relevance of each input, and if it is to be `told` the absolute relevance
    (layers, quantities, images) of each layer and that of the input (images)."""
    images = graph.program.shape(graph.program.outputs[0])[0]
    book = Book(graph, images)
    logits, maps = explained(graph, method, consts, leaves, target, book.watch if told else None)
    if not book.entries:  # a method that takes no steps, or none of relevance
        return logits, maps, None
    at_input = book.of_inputs(dict(zip(graph.program.inputs, maps, strict=True)))
    return logits, maps, (book.whole()[:, 1], at_input)


@partial(jax.jit, static_argnums=0)
def substituted_sums(
    graph: Graph, method: Method, consts: Sequence[Any], leaves: Sequence[Any], target: Any
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """For each layer for which the gradient stands in: the relevance of each image (N,) that
    arrives there, and what is sent on."""
    book = Book(graph, graph.program.shape(graph.program.outputs[0])[0])
    explained(graph, method, consts, leaves, target, book.watch)
    layers = [
        a for a in graph.layers if method.is_substituted(graph, a) and a.place in book.entries
    ]
    return {a.name: tuple(book.entries[a.place][0, :2]) for a in layers}


@partial(jax.jit, static_argnums=0)
def contributed(
    graph: Graph, method: Method, consts: Sequence[Any], leaves: Sequence[Any], target: Any
) -> tuple[jax.Array, jax.Array]:
    """Of each image (N,) what its contributions add up to, and what its logit is more than that
    of the method's baselines, on average."""
    logits, maps = explained(graph, method, consts, leaves, target)
    rows = rows_of(method.baseline, list(leaves))
    output, seed = graph.program.outputs[0], one_hot(target, logits)
    of = lambda values: environment(graph, consts, values)[output]
    starts = jax.lax.map(lambda x0: ((logits - of(x0)) * seed).sum(-1), rows).mean(0)
    book = Book(graph, len(logits))
    return book.of_images(graph.program.inputs, maps, jnp.asarray), starts


@dataclass(frozen=True)
class Ledger:
    """rows: of each layer its quantities summed over the batch, their residual and whether that
    is small (None where the rule does not conserve). shares, grew: see the functions."""

    rows: list[dict[str, Any]]
    shares: dict[str, float]
    grew: float


def measured(reading: Reading, method: Method, target: Any) -> Ledger:
    """The ledger of one attribution, of a method of any kind."""
    graph = reading.graph
    found = _measured(graph, method, reading.consts, reading.leaves, target)
    book, at_input = (np.asarray(part, np.float64).sum(-1) for part in found)
    rules = refusals.rules_for(graph, method, graph.layers)
    conserving = [r.account is not None and not method.derivative for r in rules]
    rows = [
        _row(entry[0], entry[1], conserves)
        for entry, conserves in zip(book, conserving, strict=True)
    ]
    each = np.asarray(found[0], np.float64)[:, 1], np.asarray(found[1], np.float64)
    sizes = with_unaccounted(graph, method, book[:, 1, :, None])
    ended = shares(sizes, at_input[None]) if any(conserving) else {}
    return Ledger(
        rows,
        {name: float(part[0]) for name, part in ended.items()},
        float(growth(graph, *each).max(initial=0)),
    )


def _row(net: np.ndarray, size: np.ndarray, conserves: bool) -> dict[str, Any]:
    row: dict[str, Any] = dict(zip(QUANTITIES, map(float, net), strict=True))
    if not conserves:
        return row | dict.fromkeys((*TERMS, "residual", "balanced"))
    residual = float(net[0] - net[1:].sum())
    return row | {"residual": residual, "balanced": abs(residual) <= RESIDUAL * float(size[0])}


@partial(jax.jit, static_argnums=0)
def _measured(
    graph: Graph, method: Method, consts: Sequence[Any], leaves: Sequence[Any], target: Any
) -> tuple[jax.Array, jax.Array]:
    """The entries of all layers, and the absolute relevance of each image's input."""
    env = environment(graph, consts, leaves)
    output = graph.program.outputs[0]
    seed = {output: start_relevance(method, env[output], one_hot(target, env[output]))}
    if method.derivative:
        values = dict.fromkeys(v for a in graph.layers for v in (*a.outputs, *a.inputs))
        whole = span(graph.layers, [output], tuple(values))
        _, (propagate,) = propagations(graph, method, consts, leaves, [whole])
        return _arrived(graph, propagate(seed), len(env[output]))

    def told(travels: AsRelevance) -> tuple[jax.Array, jax.Array]:
        book = Book(graph, len(env[output]))
        found = Chain(travels, graph.layers, watch=book.watch)(seed)
        return book.whole(), book.of_inputs(found)

    return over_baselines(graph, method, env, told)


def _arrived(graph: Graph, found: Relevance, images: int) -> tuple[jax.Array, jax.Array]:
    """What has arrived at each layer's outputs and inputs: a derivative is not taken in steps."""
    book = Book(graph, images)
    for layer in graph.layers:
        book.enter(layer, *([found[v] for v in values] for values in (layer.outputs, layer.inputs)))
    return book.whole(), book.of_inputs(found)


def shares(book: np.ndarray, at_input: np.ndarray) -> dict[str, np.ndarray]:
    """Where the relevance of each image ended, as parts of the whole: in the "input", and in what
    an `Account` names. All of it counts with its size, so that nothing cancels.

    book, at_input: as told by `explain`.
    """
    ended = {"input": at_input}
    ended |= {t: book[:, QUANTITIES.index(t)].sum(0) for t in TERMS if t != "grown"}
    total = sum(ended.values())
    return {name: part / np.where(total == 0, 1, total) for name, part in ended.items()}


def with_unaccounted(graph: Graph, method: Method, book: np.ndarray) -> np.ndarray:
    """The book in which a layer whose rule does not conserve, among others that do, has lost what
    it took in more than it sent on: a softmax between two layers, by its Taylor expansion."""
    rules = [method.rule_for(graph, layer) for layer in graph.layers]
    accounts = [rule is not None and rule.account is not None for rule in rules]
    if method.derivative or not any(accounts):
        return book
    silent = np.array([rule is not None for rule in rules]) & ~np.array(accounts)
    shrunk = np.maximum(book[:, 0] - book[:, 1], 0) * silent[:, None]
    place = QUANTITIES.index("lost")
    return np.concatenate(
        [book[:, :place], (book[:, place] + shrunk)[:, None], book[:, place + 1 :]], axis=1
    )


def growth(graph: Graph, book: np.ndarray, at_input: np.ndarray) -> np.ndarray:
    """sum |R| of each image's input, by that of its output."""
    output = graph.program.outputs[0]
    last = next(layer.place for layer in graph.layers if output in layer.outputs)
    start = book[last, 0]
    return at_input / np.where(start == 0, np.inf, start)


def warn_of_what_was_lost(
    graph: Graph, method: Method, told: tuple[jax.Array, jax.Array], stacklevel: int
) -> None:
    """One warning of all that an image has too much of. told: as of `explain`."""
    book, at_input = (np.asarray(part, np.float64) for part in jax.device_get(told))
    if not book.size:
        return
    book = with_unaccounted(graph, method, book)
    found = [
        _of_absolute_stabilisers(graph, method, book),
        _of_ends(graph, book, at_input),
        _of_growth(graph, method, book, at_input),
    ]
    if text := "; ".join(clause for clause in found if clause):
        warnings.warn(f"{method.name}: {text}.", stacklevel=stacklevel + 1)


def _of_absolute_stabilisers(graph: Graph, method: Method, book: np.ndarray) -> str:
    rules = [method.rule_for(graph, layer) for layer in graph.layers]
    absolute = np.array([r is not None and r.absolute is not None for r in rules])
    part = _by(book[:, QUANTITIES.index("stabiliser")], book[:, 0]).max(1) * absolute
    worst = int(part.argmax())
    if not part[worst] > TAKEN:
        return ""
    return (
        f"{rules[worst]} takes {part[worst]:.0%} of the relevance at "
        f"the layer {graph.layers[worst].name!r}, whose outputs are small beside the number that "
        "it adds to them in one image at least: give a smaller one, or take lrp-z, which follows "
        "their size"
    )


def _of_ends(graph: Graph, book: np.ndarray, at_input: np.ndarray) -> str:
    found = shares(book, at_input)
    ended = sum(found.values()) > 0
    excess = {
        "constants": found["constants"] - CONSTANTS,
        "stabiliser": found["stabiliser"] - STABILISERS,
        "input": np.where(ended, REACHED - found["input"], -1),
    }
    image = int(max(excess.values(), key=np.max).argmax())
    if not max(over[image] for over in excess.values()) > 0:
        return ""
    told = []
    for name, words in sorted(_WORDS.items(), key=lambda item: -found[item[0]][image]):
        if found[name][image] > TAKEN:
            worst = graph.layers[int(book[:, QUANTITIES.index(name), image].argmax())].name
            told.append(f"{found[name][image]:.0%} {words}, most of it at the layer {worst!r}")
    return (
        f"in one image at least {found['input'][image]:.0%} of the relevance reaches the input: "
        + "; ".join(told)
    )


def _of_growth(graph: Graph, method: Method, book: np.ndarray, at_input: np.ndarray) -> str:
    facts = [r.facts for layer in graph.layers if (r := method.rule_for(graph, layer)) is not None]
    grew = growth(graph, book, at_input)
    image = int(grew.argmax())
    apart = any(f.takes_apart and not f.stabilises for f in facts)
    if not (apart and grew[image] > GREW):
        return ""
    worst = int(_by(book[:, 1, image], book[:, 0, image]).argmax())
    return (
        f"the input gets {grew[image]:.1g} times the relevance of the output in one image at least "
        "(positive and negative relevance that the rule makes of nothing); most of it grows at "
        f"the layer {graph.layers[worst].name!r}"
    )


def _by(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return part / np.where(whole == 0, np.inf, whole)
