"""Z: the matrices that relevance is multiplied by, dense and as operators that are never stored.

For one example a method that is linear in relevance is, between two places of a model, a matrix Z
of shape (n_out, n_in): R_in = Z^T R_out. Through several layers it is the product of theirs,
Z = Z_k ... Z_2 Z_1 with layer 1 nearest to the input. Sixt et al. 2020, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp

from ._base import checks
from .graph import COMPUTING, Graph, Layer, places
from .graph.places import below, output_layer, values_at
from .graph.reading import Model, Reading
from .methods.table import resolve_chain
from .propagation import refusals
from .propagation.chain import Piece, piece
from .propagation.explain import read_for
from .propagation.method import Method
from .propagation.pullback import forward

MEMORY = 2 * 10**9  # bytes that a dense matrix may take, unless the caller says more
_BYTES = 128 * 2**20  # of relevance at the largest layer, propagated at once


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["pull"],
    meta_fields=["method", "start", "stop", "out_shape", "in_shapes", "dtype", "chunk"],
)
@dataclass(frozen=True)
class ChainOperator:
    """The matrix Z (n_out, n_in) from `start` down to `stop`, for one example, as products with it.

    Vectors are flat, entries in the order of the layers' own arrays (out_shape, in_shapes: several
    where a layer has several inputs). It is a pytree, and jit, vmap and scipy's `aslinearoperator`
    take it; of two consecutive operators `upper @ lower` is the whole, in scipy's algebra.
    method: the name of the one whose matrix it is. chunk: how many vectors are propagated at once.
    """

    pull: jax.tree_util.Partial
    method: str
    start: str
    stop: str
    out_shape: tuple[int, ...]
    in_shapes: tuple[tuple[int, ...], ...]
    dtype: Any
    chunk: int

    @property
    def shape(self) -> tuple[int, int]:
        return math.prod(self.out_shape), sum(map(math.prod, self.in_shapes))

    @property
    def nbytes(self) -> int:
        """What Z would take, made dense."""
        return math.prod(self.shape) * jnp.dtype(self.dtype).itemsize

    def rmatvec(self, r: Any) -> jax.Array:
        """Z^T r, (n_out,) to (n_in,): propagates relevance of `start` to `stop`."""
        return self.rmatmat(jnp.ravel(r)[:, None])[:, 0]

    def matvec(self, v: Any) -> jax.Array:
        """Z v, (n_in,) to (n_out,): the transpose of the propagation."""
        return self.matmat(jnp.ravel(v)[:, None])[:, 0]

    def rmatmat(self, columns: Any) -> jax.Array:
        """Z^T R, (n_out, k) to (n_in, k). ValueError for another shape, NaN or infinity."""
        return self._product(_many_down, self._checked(columns, 0))

    def matmat(self, columns: Any) -> jax.Array:
        """Z V, (n_in, k) to (n_out, k). ValueError for another shape, NaN or infinity."""
        return self._product(_many_up, self._checked(columns, 1))

    def _product(self, many: Callable, columns: jax.Array) -> jax.Array:
        found = _in_chunks(partial(many, self, columns), columns.shape[1], self.chunk, 1)
        checks.check_maps(self.method, [found])
        return found

    def _checked(self, columns: Any, axis: int) -> jax.Array:
        if jnp.iscomplexobj(columns):
            raise TypeError("The vectors must be real numbers, got complex ones.")
        columns = jnp.asarray(columns, self.dtype)
        if columns.ndim != 2 or len(columns) != self.shape[axis]:
            raise ValueError(
                f"Z from {self.start!r} to {self.stop!r} has shape {self.shape}: it takes "
                f"{self.shape[axis]} entries (k columns of them) here, got shape {columns.shape}."
            )
        checks.check_finite([columns], ["the vectors"])
        return columns

    def dense(self, *, memory_limit: float = MEMORY) -> jax.Array:
        """Z itself, (n_out, n_in), from unit vectors on its shorter side, `chunk` at a time.

        memory_limit: in bytes. ValueError if Z takes more, with what to use instead.
        """
        if self.nbytes > memory_limit:
            n_out, n_in = self.shape
            raise ValueError(
                f"Z from {self.start!r} to {self.stop!r} is {n_out} x {n_in} and takes "
                f"{_bytes(self.nbytes)}, more than the limit of {_bytes(memory_limit)}: use "
                "lrpjax.chain, which multiplies with it without storing it, or give a larger "
                "memory_limit."
            )
        rows = _in_chunks(partial(_unit_rows, self), min(self.shape), self.chunk, 0)
        checks.check_maps(self.method, [rows])
        return rows if _is_wide(self) else rows.T


def matrix(
    model: Model,
    x: Any,
    method: str | Method,
    *,
    layer: str,
    memory_limit: float = MEMORY,
) -> jax.Array:
    """The matrix Z_l (n_out, n_in) of one layer for one example: R_in = Z_l^T R_out.

    x: a batch of one, (1, ...). n_out are the entries of the layer's output and n_in those of its
    input, in the order of their arrays; the inputs of a layer that has several (an addition) follow
    one another. Between layers are activations and reshapes with matrices of their own: the
    product over all rows of `lrpjax.plan` is that of `lrpjax.chain`.
    memory_limit: in bytes. Raises as `lrpjax.vjp` does, and ValueError for a batch of several, a
    method that is not linear in relevance, or a matrix that takes more than the limit.
    """
    method = resolve_chain(method, model)
    reading = one_example(model, x, method)
    found = places.find_layer(reading.graph, layer)
    passed = (found,) if method.baseline is None else below(reading.graph, layer)
    own = piece(passed, found.outputs[:1], found.inputs)
    (operator,) = _operators(reading, method, [(own, layer, f"the input of {layer}")])
    return operator.dense(memory_limit=memory_limit)


def chain(
    model: Model,
    x: Any,
    method: str | Method,
    *,
    start: str | None = None,
    stop: str = "input",
) -> ChainOperator:
    """Z from the output of layer `start` (None: the model's) down to that of `stop`.

    x: a batch of one. `op.rmatvec(R)` is what `lrpjax.vjp` gives for R, `op.dense()` is Z itself,
    (n_out, n_in). Raises as `matrix` does.
    """
    method = resolve_chain(method, model)
    reading = one_example(model, x, method)
    start = start or output_layer(reading.graph)
    return chains(reading, method, start, [stop])[0]


def chains(
    reading: Reading, method: Method, start: str, stops: Sequence[str]
) -> list[ChainOperator]:
    """Z from `start` down to each of `stops`, after one forward pass."""
    return _operators(
        reading, method, [_whole(reading.graph, method, start, stop) for stop in stops]
    )


def links(reading: Reading, method: Method, start: str, stop: str) -> list[ChainOperator]:
    """The chain from `start` to `stop` as consecutive operators, from the upper to the lower.

    It is cut at the outputs of layers that all of the relevance passes: not inside of a residual
    block. Raises ValueError where relevance passes beside `stop`, or where what travels is no
    relevance (DeepLIFT's multipliers).
    """
    return _operators(reading, method, _links(reading.graph, method, start, stop))


def chain_and_links(
    reading: Reading, method: Method, start: str, stop: str
) -> tuple[ChainOperator, list[ChainOperator]]:
    """Z from `start` to `stop` and its `links`, after one forward pass; no links where there are
    none, or one, which is the whole."""
    whole = _whole(reading.graph, method, start, stop)
    try:
        parts = _links(reading.graph, method, start, stop)
    except ValueError:
        parts = []
    op, *found = _operators(reading, method, [whole, *(parts if len(parts) > 1 else [])])
    return op, found


def one_example(model: Any, x: Any, method: Method) -> Reading:
    """Reads a model at a batch of one. ValueError for any other batch."""
    reading = read_for(model, x, method)
    sizes = {leaf.shape[0] if leaf.ndim else None for leaf in reading.leaves}
    if sizes != {1}:
        raise ValueError(
            "Z is the matrix of one example: give a batch of one, as in x[:1] (got shape "
            f"{', '.join(str(leaf.shape) for leaf in reading.leaves)})."
        )
    return reading


# A piece of the chain, and the names of the layers where it starts and stops.
Part = tuple[Piece, str, str]


def _whole(graph: Graph, method: Method, start: str, stop: str) -> Part:
    seed = places.find_layer(graph, start).outputs[0]
    values_at(graph, start, [stop])
    ends = graph.program.inputs if stop == "input" else graph.by_name[stop].outputs[:1]
    passed = _between(graph, start, ends) if method.baseline is None else below(graph, start)
    return piece(passed, (seed,), ends), start, stop


def _links(graph: Graph, method: Method, start: str, stop: str) -> list[Part]:
    if method.baseline is not None:
        raise ValueError(
            f"{method.name} propagates multipliers, which become relevance only where they are "
            "read: it has no matrix for each layer. lrpjax.chain and singular_values take it."
        )
    values_at(graph, start, [stop])
    names = {layer.outputs[0]: layer.name for layer in graph.layers if layer.kind in COMPUTING}
    names |= dict.fromkeys(graph.program.inputs, "input")
    names |= {places.find_layer(graph, n).outputs[0]: n for n in (start, stop) if n != "input"}
    cuts = [(v, names[v]) for v in _passed_by_all(graph, start) if v in names]
    places = [name for _, name in cuts]
    if stop not in places:
        raise ValueError(
            f"Not all relevance from {start!r} passes the output of {stop!r}: use one of "
            f"{', '.join(places)} for stop."
        )
    kept = cuts[: places.index(stop) + 1]
    return [
        (piece(_between(graph, upper, (v,)), (u,), (v,)), upper, lower)
        for (u, upper), (v, lower) in pairwise(kept)
    ]


def _between(graph: Graph, start: str, ends: Sequence[int]) -> list[Layer]:
    """The layers on the ways from the output of `start` down to the values `ends`.

    With a baseline they do not do: a difference from it is known once all layers below are.
    """
    above, kept = set(ends), []
    for layer in below(graph, start):
        if above.intersection(layer.inputs):
            above.update(layer.outputs)
            kept.append(layer)
    return [] if graph.by_name[start].outputs[0] in ends else kept


def _passed_by_all(graph: Graph, start: str) -> list[int]:
    """The values that all relevance from `start` passes, from its output down to the input."""
    seed = graph.by_name[start].outputs[0]
    waiting, passed = {seed}, [seed]
    for layer in reversed(below(graph, start)):
        waiting.difference_update(layer.outputs)
        waiting.update(layer.inputs)
        if len(waiting) == 1:
            passed.extend(waiting.difference(passed[-1:]))
    return passed


def _operators(reading: Reading, method: Method, parts: Sequence[Part]) -> list[ChainOperator]:
    """The operators of (piece, start, stop), after one forward pass."""
    if not parts:
        return []
    graph, program = reading.graph, reading.graph.program
    layers = graph.layers
    refusals.rules_for(graph, method, [layers[n] for part, _, _ in parts for n in part.layers])
    pieces = tuple(part for part, _, _ in parts)
    outputs, pulls = forward(graph, method, pieces, reading.consts, reading.leaves)
    checks.check_finite(outputs, ["the model's output"] * len(outputs))
    operators = []
    for (part, start, stop), pull in zip(parts, pulls, strict=True):
        like = pull.func.like[0]
        largest = max(
            math.prod(program.shape(v))
            for layer in [layers[n] for n in part.layers] or [graph.by_name[start]]
            for v in (*layer.inputs, *layer.outputs)
        )
        in_shapes = tuple(program.shape(v) for v in part.captured)
        chunk = max(1, _BYTES // (largest * like.dtype.itemsize))
        place = (method.name, start, stop)
        made = ChainOperator(pull, *place, like.shape, in_shapes, like.dtype, chunk)
        if not _is_linear(partial(_down, made), jax.ShapeDtypeStruct(made.shape[:1], like.dtype)):
            raise ValueError(_not_linear(reading, method, [layers[n] for n in part.layers]))
        operators.append(made)
    return operators


def _is_linear(pull: Callable, *like: jax.ShapeDtypeStruct) -> bool:
    """Whether JAX can transpose the map, which it can if it is linear."""
    try:
        jax.eval_shape(lambda *r: jax.linear_transpose(pull, *like)(pull(*r)), *like)
    except (NotImplementedError, AssertionError, TypeError, ValueError):
        return False
    return True


def _not_linear(reading: Reading, method: Method, layers: Sequence[Layer]) -> str:
    """The error for a method whose relevance is not linear, with the rule that makes it so."""
    found = zip(layers, refusals.rules_for(reading.graph, method, layers), strict=True)
    culprits = [f"{r} at layer {layer.name!r}" for layer, r in found if not r.facts.linear]
    which = f" ({culprits[0]})" if culprits else ""
    return (
        f"{method.name} is not linear in relevance{which}, so no matrix stands for it: use "
        "lrpjax.vjp or lrpjax.convergence.csc, which take any method."
    )


def _down(op: ChainOperator, r: jax.Array) -> jax.Array:
    """Z^T r of a flat r."""
    return jnp.concatenate([part.ravel() for part in op.pull([r.reshape(op.out_shape)])])


def _up(op: ChainOperator, v: jax.Array) -> jax.Array:
    """Z v of a flat v."""
    like = jax.ShapeDtypeStruct(op.shape[:1], op.dtype)
    down = partial(_down, op)
    (out,) = jax.linear_transpose(down, like)(v.astype(jax.eval_shape(down, like).dtype))
    return out


@partial(jax.jit, static_argnums=3)
def _many_down(op: ChainOperator, columns: jax.Array, first: int, n: int) -> jax.Array:
    some = jax.lax.dynamic_slice_in_dim(columns, first, n, 1)
    return jax.vmap(partial(_down, op), 1, 1)(some)


@partial(jax.jit, static_argnums=3)
def _many_up(op: ChainOperator, columns: jax.Array, first: int, n: int) -> jax.Array:
    some = jax.lax.dynamic_slice_in_dim(columns, first, n, 1)
    return jax.vmap(partial(_up, op), 1, 1)(some)


@partial(jax.jit, static_argnums=2)
def _unit_rows(op: ChainOperator, first: int, n: int) -> jax.Array:
    """The products with n unit vectors, from number `first`, on the shorter side of Z."""
    units = jax.nn.one_hot(first + jnp.arange(n), min(op.shape), dtype=op.dtype)
    return jax.vmap(partial(_down if _is_wide(op) else _up, op))(units)


def _is_wide(op: ChainOperator) -> bool:
    return op.shape[0] <= op.shape[1]


def _in_chunks(apply: Callable[[int, int], jax.Array], n: int, most: int, axis: int) -> jax.Array:
    """apply(first, size) from first = 0 to n, in chunks of one size, joined along an axis.

    The loop is Python's: in one of XLA's own, a processor takes several times as long for a
    convolution whose kernel is not laid out as XLA would choose.
    """
    if n <= most:
        return apply(0, n)
    size = -(-n // -(-n // most))
    starts = [*range(0, n - size, size), n - size]  # the last chunk may overlap the one before
    parts = [apply(first, size) for first in starts]
    parts[-1] = jax.lax.slice_in_dim(parts[-1], size * len(starts) - n, size, axis=axis)
    return jnp.concatenate(parts, axis)


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
