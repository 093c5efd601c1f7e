"""The oracle: relevance from the output to the input of one network, one example at a time.

Linear layers are dense matrices, derivatives are complex steps of `forward`. What LRP does with
each kind: an affine map and a product with weights have the method's linear rule, activations and
norms (their statistics are constants) pass relevance on, a factor passes it on where it is not 0,
sums share by their terms, maxima give all to the first of the largest, moves move, attention is a
linear layer of its values whose weights are the attention, and a product of two values gives all to
the factor that does not only weigh, or half to each. Maps that hold no parameters share by z, what
has no rule is differentiated, and a derivative of its own is taken as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .description import Net, Node
from .forward import FORWARD, OWN, attention_weights
from .shares import Layer, Method, Undetermined, z

Array = np.ndarray
STEP = 1e-100
MOVES = ("spread", "where", "take", "concat", "reshape", "transpose")
LINEAR = ("dense", "conv", "fixed")
SCALES = ("affine", "factor", "offset")
CUTS = ("relu", "relu6", "leaky_relu", "clip", "clip_wide", "minimum")
NEAR = 1e-7  # DeepLIFT: below this difference the ratio is the slope


@dataclass(frozen=True)
class Group:
    """Nodes that are one layer: `last` is its output, `reads` what it is computed from."""

    nodes: tuple[int, ...]
    reads: tuple[int, ...]

    @property
    def last(self) -> int:
        return self.nodes[-1]


def groups(net: Net) -> list[Group]:
    """Affine maps and factors join the product in front of them, else the dense layer behind."""
    owner: dict[int, list[int]] = {}
    nodes, joined = net.nodes, []
    foldable = lambda i: nodes[i].kind in SCALES and np.ndim(nodes[i].get("by")) < 2
    for i, node in enumerate(nodes):
        if node.kind == "input":
            continue
        before = owner.get(node.reads[0]) if len(node.reads) == 1 else None
        alone = before is not None and net.readers(node.reads[0]) == [i]
        behind = alone and foldable(i) and nodes[before[0]].kind in LINEAR
        in_front = alone and node.kind in ("dense", "fixed") and all(foldable(k) for k in before)
        run = alone and foldable(i) and all(foldable(k) for k in before)
        if net.fold and (behind or in_front or run):
            before.append(i)
            owner[i] = before
        else:
            owner[i] = [i]
            joined.append(owner[i])
    # A run of affine maps that met no product: each is a layer of its own.
    has_product = lambda group: any(nodes[i].kind in LINEAR for i in group)
    parted = ([group] if has_product(group) else [[i] for i in group] for group in joined)
    split = [part for parts in parted for part in parts]
    return [Group(tuple(g), nodes[g[0]].reads) for g in split]


def run(net: Net, x: Array) -> list[Array]:
    """The value of every node."""
    values: list[Array] = []
    for node in net.nodes:
        own = net.params.get(node.param, {})
        reads = (values[i] for i in node.reads)
        values.append(x if node.kind == "input" else FORWARD[node.kind](node, own, *reads))
    return values


def _function(net: Net, group: Group) -> Callable[..., Array]:
    def f(*xs):
        for i in group.nodes:
            node = net.nodes[i]
            xs = (FORWARD[node.kind](node, net.params.get(node.param, {}), *xs),)
        return xs[0]

    return f


def jacobian(f: Callable[..., Array], xs: list[Array], k: int) -> Array:
    """(out, in) of f at one example, in its k-th argument; all f here work on batches."""
    n = xs[k].size
    along = STEP * 1j * np.eye(n).reshape(n, *xs[k].shape[1:])
    at = [np.repeat(v, n, 0) + (along if i == k else 0) for i, v in enumerate(xs)]
    return f(*at).imag.reshape(n, -1).T / STEP


def _linear(net: Net, group: Group, x: Array) -> Layer:
    f = _function(net, group)
    W = jacobian(f, [x], 0)
    return Layer(W, f(np.zeros_like(x)).ravel(), W != 0)


def _attention(node: Node, values: list[Array]) -> Layer:
    """Of v (S, D) to (T, D): the weights of its head for each channel."""
    a = attention_weights(node, *values[:2], *values[3:])[0]
    (_, t, s), d = a.shape, node.shape[-1]
    W, connected = np.zeros((t, d, s, d)), np.zeros((t, d, s, d), bool)
    for channel in range(d):
        W[:, channel, :, channel] = a[channel // (d // len(a))]
        connected[:, channel, :, channel] = True
    return Layer(W.reshape(t * d, -1), np.zeros(t * d), connected.reshape(t * d, -1))


def _lrp(
    net: Net, group: Group, method: Method, xs: list[Array], R: Array, s: float, first: list[Group]
):
    node = net.nodes[group.nodes[-1]]
    kinds = {net.nodes[i].kind for i in group.nodes}
    f, x = _function(net, group), xs[0]
    if kinds & {"fixed", "spectral"}:  # not the model's to explain: z, whatever the method
        return [z(_linear(net, group, x), x.ravel(), R, s)]
    if kinds & set(LINEAR) or node.kind in ("affine", "offset"):
        linear = (method.dense if "dense" in kinds else None) or method.linear
        linear = (method.first if group in first else None) or linear
        return [linear(_linear(net, group, x), x.ravel(), R, s)]
    if node.kind == "attention":
        to_value = method.linear(_attention(node, xs), xs[2].ravel(), R, s)
        return [to_value if k == 2 else None for k in range(len(xs))]
    if node.kind in ("mean", "sum", "avg_pool"):
        return [method.sums(_linear(net, group, x), x.ravel(), R, s)]
    if node.kind == "add":
        return method.add([xs[0].ravel(), node["sign"] * xs[1].ravel()], R, s)
    if node.kind == "mul":
        shares = {None: (0.5, 0.5), 0: (0, 1), 1: (1, 0)}[node["weighs"]]
        return [share * R for share in shares]
    if node.kind == "unknown":
        return [jacobian(f, xs, k).T @ R for k in range(len(xs))]
    if node.kind in ("act", "norm"):
        return [R]
    if node.kind == "factor":
        return [np.where(jacobian(f, xs, 0).diagonal() != 0, R, 0)]
    assert node.kind in ("max_pool", "max_over", *MOVES), node.kind
    return [jacobian(f, xs, k).T @ R for k in range(len(xs))]


def first_of(net: Net, layers: list[Group]) -> list[Group]:
    """The layers with parameters that read what no such layer has made."""
    untouched, found = {0}, []
    for group in layers:
        if untouched.issuperset(group.reads):
            if any(net.nodes[i].param for i in group.nodes):
                found.append(group)
            else:
                untouched.add(group.last)
    return found


def _multipliers(
    net: Net, group: Group, xs: list[Array], x0s: list[Array], m: Array, near_zero: float
):
    """DeepLIFT's rescale rule: multipliers of the inputs from those of the output."""
    node, f = net.nodes[group.last], _function(net, group)
    x, x0 = xs[0].ravel(), x0s[0].ravel()
    if node.kind == "act":
        rise, near = (f(*xs) - f(*x0s)).ravel(), np.abs(x - x0) < near_zero
        slope = jacobian(f, x0s, 0).diagonal()
        return [m * np.where(near, slope, rise / np.where(near, 1, x - x0))]
    if node.kind in ("max_pool", "max_over"):
        y, y0 = f(*xs).ravel(), f(*x0s).ravel()
        top, D = np.maximum(y, y0), x - x0
        to, to0 = jacobian(f, xs, 0).T, jacobian(f, x0s, 0).T
        return [(to @ (m * (top - y0)) + to0 @ (m * (y - top))) / np.where(D == 0, np.inf, D)]
    return [jacobian(f, xs, k).T @ m for k in range(len(xs))]


def _cut(net: Net, group: Group, method: Method, x: Array, R: Array) -> Array:
    """At an activation that cuts: guided f'(x) max(R, 0), deconv max(R, 0), RectGrad those R for
    which y R is above its percentile, where x > 0; at any other the gradient."""
    f = _function(net, group)
    slope, y, x = jacobian(f, [x], 0).diagonal(), f(x).ravel(), x.ravel()
    if net.nodes[group.last]["name"] not in CUTS:
        if (R[x == 0] != 0).any():  # where each spelling has a derivative of its own
            raise Undetermined
        return slope * R
    if method.name == "rect-grad":
        score = np.sort(y * R)
        tau = score[round((len(score) - 1) * method.options["percentile"] / 100)]
        return np.where((y * R > tau) & (x > 0), R, 0)
    return np.maximum(R, 0) * (slope if method.name == "guided-bp" else 1)


def relevance(
    net: Net, method: Method, x: Array, R: Array, *, s: float = 0.0, baseline: Any = 0.0
) -> Array:
    """The map of one batch: of DeepLIFT from `baseline` (a number, one input, or one for each),
    times the difference from it."""
    from_ = np.broadcast_to(baseline, x.shape)
    each = zip(x, R, from_, strict=True)
    maps = [_one(net, method, a[None], r, s, b[None]) for a, r, b in each]
    return np.stack(maps).reshape(x.shape)


def _one(net: Net, method: Method, x: Array, R: Array, s: float, baseline: Array) -> Array:
    found = everywhere(net, method, x, {len(net.nodes) - 1: R}, s, baseline)
    by_input = method.family == "deeplift" or method.name == "input-x-gradient"
    return found[0] * ((x - baseline).ravel() if by_input else 1)


def everywhere(
    net: Net,
    method: Method,
    x: Array,
    seeds: dict[int, Array],
    s: float = 0.0,
    baseline: Array | float = 0.0,
) -> list[Array]:
    """The relevance of every node's value (of DeepLIFT: its multipliers) for what is injected at
    some, of one example."""
    values = run(net, x)
    reference = run(net, baseline + 0 * x) if method.family == "deeplift" else values
    found = [np.zeros(v.size) for v in values]
    for i, r in seeds.items():
        found[i] = r
    layers = groups(net)
    first = first_of(net, layers)
    for group in reversed(layers):
        xs, r = [values[i] for i in group.reads], found[group.last]
        if net.nodes[group.last].kind in ("max_pool", "max_over"):
            _check_maxima(_function(net, group), xs, r)
        if method.family == "lrp":
            pulled = _lrp(net, group, method, xs, r, s, first)
        elif method.family == "deeplift":
            x0s, near = [reference[i] for i in group.reads], method.options.get("near_zero", NEAR)
            pulled = _multipliers(net, group, xs, x0s, r, near)
        elif method.family == "cuts" and net.nodes[group.last].kind == "act":
            pulled = [_cut(net, group, method, xs[0], r)]
        elif net.nodes[group.last].kind == "own":
            pulled = [OWN[net.nodes[group.last]["name"]][1](xs[0].ravel(), r)]
        else:
            f = _function(net, group)
            pulled = [jacobian(f, xs, k).T @ r for k in range(len(xs))]
        for i, part in zip(group.reads, pulled, strict=True):
            if part is not None:
                found[i] = found[i] + part
    return found


NEAR_TIE = 1e-12  # relative to the largest value


def _check_maxima(f: Callable, xs: list[Array], r: Array) -> None:
    """Undetermined where two are the largest but for rounding and relevance arrives: each library's
    rounding then says which of them it is, and each spelling of a maximum who gets how much."""
    (x,) = xs
    tied = np.zeros(r.size, bool)
    slope = NEAR_TIE * np.abs(x).max() * np.linspace(0, 1, x.size).reshape(x.shape)
    for moved in (x + slope, x - slope):
        tied |= (jacobian(f, xs, 0) != jacobian(f, [moved], 0)).any(1)
    if (r[tied] != 0).any():
        raise Undetermined


SENSITIVE = 1e-7  # a stabiliser a hundred times the library's
MOVED = 1e-4  # by that much at most, so that the library's own moves a map by 1e-6


def determined(net: Net, method: Method, x: Array, R: Array, baseline: Any = 0.0) -> Array | None:
    """The map, or None where it hangs on the stabiliser: the draw says nothing then."""
    try:
        plain = relevance(net, method, x, R, baseline=baseline)
    except Undetermined:
        return None
    moved = relevance(net, method, x, R, s=SENSITIVE) if method.family == "lrp" else plain
    size = np.abs(plain).max()
    fits = np.isfinite(plain).all() and size > 1e-6 and np.abs(moved - plain).max() <= MOVED * size
    return plain if fits else None
