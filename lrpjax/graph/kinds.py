"""What is known of each kind of layer: one row for each, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A row of the table.

    what: what a layer of that kind is. detail: the name of the type of `Layer.detail`.
    lrp: what LRP does there.
    linear: whether its op is a `graph.Linear`, with weights and a transpose.
    parameters: whether it is a map with parameters of the model: what "first" and "last" count.
    computes: whether it changes relevance, and so has a direction of its own for CSC.
    passes: whether it hands features on one by one.
    named_after: what its name is taken from: its "parameter", the "value" before it, or "scope".
    """

    what: str
    detail: str
    lrp: str
    linear: bool
    parameters: bool
    computes: bool
    passes: bool
    named_after: str


_OWN = "the method's own rule, with bias and BatchNorm folded in"

KINDS: dict[str, Kind] = {
    "conv": Kind(
        "a convolution with parameters", "Affine", _OWN,
        linear=True, parameters=True, computes=True, passes=False, named_after="parameter",
    ),
    "dense": Kind(
        "a matrix product with parameters", "Affine", _OWN,
        linear=True, parameters=True, computes=True, passes=False, named_after="parameter",
    ),
    "scale": Kind(
        "times and plus constants, with a shift", "Affine", "the method's own rule",
        linear=True, parameters=True, computes=True, passes=False, named_after="parameter",
    ),
    "factor": Kind(
        "times constants, each output made of one input", "Affine",
        "unchanged, and 0 where the factor is 0",
        linear=True, parameters=False, computes=False, passes=False, named_after="parameter",
    ),
    "fixed": Kind(
        "a linear map whose weights are no parameters of the model", "Affine",
        "in proportion to the terms (z)",
        linear=True, parameters=False, computes=True, passes=False, named_after="scope",
    ),
    "transform": Kind(
        "any other linear map, as a Fourier transform", "NoneType",
        "in proportion to the terms (z)",
        linear=False, parameters=False, computes=True, passes=False, named_after="scope",
    ),
    "sum": Kind(
        "a sum, a mean or an average pool", "Affine",
        "in proportion to the terms, or to their positive parts (z+)",
        linear=False, parameters=False, computes=True, passes=True, named_after="scope",
    ),
    "max_pool": Kind(
        "a maximum over axes or windows", "NoneType", "all to the first maximum of a window",
        linear=False, parameters=False, computes=True, passes=True, named_after="scope",
    ),
    "add": Kind(
        "the sum or difference of two values that depend on the input", "tuple",
        "in proportion to the terms (z), or to their positive and negative parts (alpha-beta)",
        linear=False, parameters=False, computes=True, passes=False, named_after="scope",
    ),
    "activation": Kind(
        "a known function of each entry", "Activation", "unchanged",
        linear=False, parameters=False, computes=False, passes=True, named_after="value",
    ),
    "norm": Kind(
        "a value times or over a statistic", "Norm", "unchanged; statistics are constants",
        linear=False, parameters=False, computes=False, passes=False, named_after="scope",
    ),
    "softmax": Kind(
        "exp over its sum", "Softmax", "Taylor, where relevance arrives (uniform attention)",
        linear=False, parameters=False, computes=False, passes=False, named_after="scope",
    ),
    "product": Kind(
        "the product of two values that depend on the input", "Product",
        "the value gets all, attention and gates none; or half and half (uniform)",
        linear=False, parameters=False, computes=False, passes=False, named_after="scope",
    ),
    "structure": Kind(
        "moves values without computing", "NoneType", "moved with the values",
        linear=False, parameters=False, computes=False, passes=True, named_after="scope",
    ),
    "choice": Kind(
        "takes each entry from one of several values, as the input says", "NoneType",
        "moved to the value that was taken",
        linear=False, parameters=False, computes=False, passes=False, named_after="scope",
    ),
    "control": Kind(
        "a branch or a loop that depends on the input", "NoneType", "none: it is refused",
        linear=False, parameters=False, computes=False, passes=False, named_after="scope",
    ),
    "unknown": Kind(
        "what no other kind covers", "object", "the rule registered for its primitive, or refused",
        linear=False, parameters=False, computes=False, passes=False, named_after="scope",
    ),
}  # fmt: skip

LINEAR = tuple(name for name, kind in KINDS.items() if kind.linear)
COMPUTING = tuple(name for name, kind in KINDS.items() if kind.computes)
