"""Z: the matrices that relevance is multiplied by, dense and as operators that are never stored.

For one example a method that is linear in relevance is, between two places of a model, a matrix Z
of shape (n_out, n_in): R_in = Z^T R_out. Through several layers it is the product of theirs,
Z = Z_k ... Z_2 Z_1 with layer 1 nearest to the input. Sixt et al. 2020, section 3.
"""

from __future__ import annotations

from typing import Any

import jax

from .graph.places import below, find_layer, output_layer
from .graph.reading import Model, Reading
from .methods.lookup import resolve_chain
from .propagation.descent import descent, operator, propagated, require_linear
from .propagation.method import Method
from .propagation.operators import MEMORY, ChainOperator
from .propagation.propagations import span
from .propagation.targets import read_for


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
    graph = reading.graph
    found = find_layer(graph, layer)
    passed = (found,) if method.baseline is None else below(graph, layer)
    (pull,) = propagated(reading, method, span(passed, found.outputs[:1], found.inputs))
    op = operator(reading, method, pull, passed, found.inputs, layer, f"the input of {layer}")
    require_linear(op, reading, method, passed)
    return op.dense(memory_limit=memory_limit)


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
    return descent(reading, method, start, [stop]).to(stop)


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
