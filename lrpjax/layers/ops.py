"""Layers as functions of arrays: what rules compute with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..graph.fold import Affine, changes_scale, is_step, shifts
from ..graph.kinds import KINDS
from ..graph.known import OWN_VALUES
from ..graph.layer import Layer
from ..program.program import Eqn, Program, evaluate, run, single, unstopped
from .blocks import Entry, at, of_each_entry
from .convolutions import cheap_form


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a method knows of a layer besides its values; None where it needs nothing.

    reference: (inputs, output) of the layer at the baseline. split: for each input the positive
    and the negative part of its difference from there, (2, *shape). pattern: see `lrpjax.patterns`.
    bounds: from (low, high) of the model's input to those of the layer's own (`graph.Bounds`).
    """

    reference: Any = None
    split: Any = None
    pattern: jax.Array | None = None
    bounds: Callable[..., tuple[jax.Array, jax.Array]] | None = None


@dataclass(frozen=True)
class Op(Given):
    """A layer at work: `op(*inputs)` is its output (a tuple where it has several).

    detail: the function whose derivative an activation has, the pooling equation, what a structure
    does with its values (whatever the model says of their gradient), or the layer's own `detail`.
    non_negative: whether the inputs are known not to be negative.
    """

    layer: Layer
    apply: Callable[..., Any]
    detail: Any = None

    def __call__(self, *inputs: jax.Array) -> Any:
        return self.apply(*inputs)

    @property
    def non_negative(self) -> bool:
        return self.layer.non_negative


@dataclass(frozen=True)
class Core:
    """The convolution or product in a linear layer. side: which operand the weights are.

    before, after: the rearrangements between the layer's input and output and those of `eqn`.
    w_shape, z_like: the shape of its weights; shape and dtype of its output.
    """

    eqn: Eqn
    side: int
    before: Callable[[jax.Array], jax.Array]
    after: Callable[[jax.Array], jax.Array]
    w_shape: tuple[int, ...]
    z_like: jax.ShapeDtypeStruct


@dataclass(frozen=True)
class Linear(Given):
    """A layer z = W x + b, folded: `op(x)` is W x, `op.T(r)` is W^T r.

    Both take other weights in place of W: an array in W's layout, or a function of each entry
    (`positive`), which costs no second copy of a large W. With a function that gives several
    (`signs`), `op(x, signs)` is (W+ x, W- x) and `op.T((r, s), signs)` is W+^T r + W-^T s.
    product(x, w, entry): the linear map with the weights entry(w); every term of its sums is
    one entry of x times one of the weights. w: the weights, in the layer's own layout.
    b: the bias, broadcastable to z, or None. x_like: shape and dtype of x.
    core: the convolution or product itself; None for a layer that only scales.
    to_transpose(x, w): the same map in a form whose transpose is cheaper, or None.
    sums: `op(x, signs)` at the layer's own input, where the forward pass has it; else None.
    """

    layer: Layer
    product: Callable[[jax.Array, jax.Array, Entry | None], Any]
    w: jax.Array
    b: jax.Array | None
    x_like: jax.ShapeDtypeStruct
    core: Core | None = None
    to_transpose: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    sums: tuple[jax.Array, jax.Array] | None = None

    def __call__(self, x: jax.Array, w: jax.Array | Entry | None = None) -> Any:
        if w is None or callable(w):
            return self.product(x, self.w, w)
        return self.product(x, w, None)

    def T(self, r: Any, w: jax.Array | Entry | None = None) -> jax.Array:
        cheap = self.to_transpose
        if cheap is None:
            function = lambda x: self(x, w)
        else:
            entries = self.w if w is None else w(self.w) if callable(w) else w
            function = lambda x: jax.tree.map(partial(cheap, x), entries)
        (out,) = jax.linear_transpose(function, self.x_like)(r)
        return out

    @property
    def non_negative(self) -> bool:
        return self.layer.non_negative


def bare(values: Iterable[Any]) -> Any:
    """What a layer with one value takes and gives bare, and one with several as a tuple."""
    values = tuple(values)
    return values[0] if len(values) == 1 else values


def tupled(value: Any) -> tuple:
    """The inverse of `bare`."""
    return value if isinstance(value, tuple) else (value,)


def make_op(program: Program, layer: Layer, env: dict[int, Any]) -> Op | Linear:
    """The layer as a function, with the constants and activations in `env`."""
    if KINDS[layer.kind].linear:
        return make_linear(program, layer, env)

    def apply(*inputs, by=evaluate):
        inner = {**env, **dict(zip(layer.inputs, inputs, strict=True))}
        outs = run(layer.eqns, inner, by)
        return bare(outs[v] for v in layer.outputs)

    detail = layer.detail
    if layer.kind == "max_pool":
        detail = layer.eqns[-1]
    elif layer.kind in ("structure", "choice") or _has_own_values(layer):
        detail = partial(apply, by=unstopped)
    return Op(layer, apply, detail)


def _has_own_values(layer: Layer) -> bool:
    return layer.kind == "activation" and layer.detail.name in OWN_VALUES


def make_linear(program: Program, layer: Layer, env: dict[int, Any]) -> Linear:
    affine: Affine = layer.detail
    x_like = jax.ShapeDtypeStruct(program.shape(affine.root), _dtype(program, affine.root))
    if affine.core is not None:
        return _folded(program, layer, affine.core, env, x_like)
    only = _steps(env, affine.post, affine.root, layer.outputs[0])
    offset, factor = _offset_and_factor(only, _like(program, affine.root))
    return Linear(layer, scaled, factor, offset if shifts(affine.post) else None, x_like)


def _folded(
    program: Program, layer: Layer, core: Eqn, env: dict[int, Any], x_like: jax.ShapeDtypeStruct
) -> Linear:
    """A product with the factors and shifts before and behind it folded into weights and bias."""
    affine: Affine = layer.detail
    (core_in,), core_out = program.active_inputs(core), core.outputs[0]
    side = _side(program, core)
    weights = w = env[core.inputs[side]]
    b = None

    def product(x, weights, entry=None):
        if entry is None:
            return at(core, side, x, weights)
        return of_each_entry(core, side, x, weights, entry)

    after = _steps(env, affine.post, core_out, layer.outputs[0])
    if affine.pre:
        before = _steps(env, affine.pre, affine.root, core_in)
        shift, factor = _offset_and_factor(before, _like(program, affine.root))
        if any(changes_scale(program, eqn) for eqn in affine.pre):
            w = w * _input_factor(core, factor, w, side)
        if shifts(affine.pre):
            b = after(product(shift, weights))
    if affine.post:
        offset, pull = jax.vjp(after, _like(program, core_out))
        if any(changes_scale(program, eqn) for eqn in affine.post):
            w = w * _output_factor(core, pull(jnp.ones_like(offset))[0], w, side)
        if b is None and shifts(affine.post):
            b = offset
    to_core, from_core = (
        _rearranged([eqn for eqn in eqns if not is_step(eqn)]) for eqns in (affine.pre, affine.post)
    )
    rearranged = lambda x, *weights: jax.tree.map(from_core, product(to_core(x), *weights))
    z_core = jax.ShapeDtypeStruct(program.shape(core_out), x_like.dtype)
    parts = Core(core, side, to_core, from_core, w.shape, z_core)
    form = cheap_form(program, core)
    cheap = None if form is None else lambda x, weights: from_core(form(to_core(x), weights))
    return Linear(layer, rearranged, w, b, x_like, parts, cheap)


def _steps(
    env: dict[int, Any], eqns: Sequence[Eqn], start: int, stop: int
) -> Callable[[jax.Array], jax.Array]:
    """What equations make of the value `start`, at the value `stop`."""
    return lambda value: run(eqns, {**env, start: value})[stop] if eqns else value


def _like(program: Program, value: int) -> jax.Array:
    return jnp.zeros(program.shape(value), _dtype(program, value))


def _side(program: Program, core: Eqn) -> int:
    """Which operand of a convolution or product the weights are."""
    return 1 if core.inputs[0] in program.active else 0


def bare_product(program: Program, layer: Layer) -> Eqn | None:
    """The convolution or product of a layer that reads the layer's own input and weights; None
    if a factor is folded into them."""
    affine = layer.detail
    if not KINDS[layer.kind].linear or affine.core is None:
        return None
    folded = any(is_step(eqn) for eqn in affine.pre) or any(
        changes_scale(program, eqn) for eqn in affine.post
    )
    weighs = affine.core.name in ("conv_general_dilated", "dot_general")
    return None if folded or not weighs else affine.core


def weighed(program: Program, core: Eqn, inputs: Sequence[Any], entry: Entry) -> Any:
    """What a convolution or product gives with entry(w) for its weights w, as a layer would."""
    side = _side(program, core)
    return of_each_entry(core, side, inputs[1 - side], inputs[side], entry)


def factor(op: Op, values: Sequence[jax.Array], k: int) -> Linear:
    """A matrix product of two values as a linear layer in number k, with the other as weights."""
    eqn, like = op.layer.eqns[-1], values[k]

    def apply(x, weights, entry=None):
        w = weights if entry is None else entry(weights)
        return jax.tree.map(partial(at, eqn, 1 - k, x), w)

    x_like = jax.ShapeDtypeStruct(like.shape, like.dtype)
    return Linear(op.layer, apply, values[1 - k], None, x_like)


def scaled(x: jax.Array, weights: jax.Array, entry: Entry | None) -> Any:
    """The product of a layer that only scales."""
    return jax.tree.map(lambda w: x * w, weights if entry is None else entry(weights))


def _dtype(program: Program, value: int) -> Any:
    dtype = single(program.avals[value].dtype)
    return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.dtype(jnp.float32)


def _offset_and_factor(function, zeros: jax.Array) -> tuple[jax.Array, jax.Array]:
    """f(x) = offset + factor * x, elementwise up to rearrangement: exact, with no subtraction."""
    return jax.jvp(function, (zeros,), (jnp.ones_like(zeros),))


def _rearranged(eqns: list[Eqn]) -> Callable[[jax.Array], jax.Array]:
    """Only the structural equations of a run, applied in order."""

    def apply(value):
        for eqn in eqns:
            (value,) = evaluate(eqn, [value])
        return value

    return apply


def _first_of(array: jax.Array, axes: set[int]) -> jax.Array:
    """The array without the axes along which it is known not to vary."""
    return array[tuple(0 if i in axes else slice(None) for i in range(array.ndim))]


def _place(array: jax.Array, onto: list[int], rank: int) -> jax.Array:
    """Axis k of the array becomes axis onto[k] of an array of the given rank."""
    missing = [i for i in range(rank) if i not in onto]
    full = jnp.expand_dims(array, tuple(range(array.ndim, rank)))
    return full.transpose(np.argsort([*onto, *missing]))


def _output_factor(core: Eqn, factor: jax.Array, w: jax.Array, side: int) -> jax.Array:
    """A factor on the core's output, per feature, as a factor on its weights."""
    if core.name == "conv_general_dilated":
        dims = core.params["dimension_numbers"]
        feature = dims.out_spec[1]
        vector = _first_of(factor, set(range(factor.ndim)) - {feature})
        return _place(vector, [dims.rhs_spec[0]], w.ndim)
    (contract, batch) = core.params["dimension_numbers"]
    own = 1 if side == 1 else 0
    free = [i for i in range(w.ndim) if i not in (*contract[own], *batch[own])]
    kept = factor.ndim - len(batch[0]) - len(free)
    start = len(batch[0]) if side == 1 else len(batch[0]) + len(free)
    reduced = _first_of(factor, set(range(start, start + kept)))
    return _place(reduced, [*batch[own], *free], w.ndim)


def _input_factor(core: Eqn, factor: jax.Array, w: jax.Array, side: int) -> jax.Array:
    """A factor on the core's input, per feature, as a factor on its weights."""
    if core.name == "conv_general_dilated":
        dims, groups = core.params["dimension_numbers"], core.params["feature_group_count"]
        vector = _first_of(factor, set(range(factor.ndim)) - {dims.lhs_spec[1]})
        features = w.shape[dims.rhs_spec[0]]
        per_group = vector.reshape(groups, 1, -1)
        full = jnp.broadcast_to(per_group, (groups, features // groups, per_group.shape[-1]))
        return _place(full.reshape(features, -1), list(dims.rhs_spec[:2]), w.ndim)
    (contract, batch) = core.params["dimension_numbers"]
    other = 1 - side
    onto = dict(
        zip([*contract[other], *batch[other]], [*contract[side], *batch[side]], strict=True)
    )
    kept = sorted(onto)
    reduced = _first_of(factor, set(range(factor.ndim)) - set(kept))
    return _place(reduced, [onto[i] for i in kept], w.ndim)
