"""A model that cannot be called: why not, and what would let it run."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .._base import given, text

INFERENCE = (
    "switch the model to inference: model.eval() in nnx, train=False in linen, "
    "eqx.nn.inference_mode(model) in Equinox, is_training=False in Haiku, training=False in Keras."
)


def reason(error: Exception) -> str:
    """An error's first line; Keras' first says only where it was, in bold."""
    lines = re.sub(r"\x1b\[\d*m", "", str(error)).splitlines()
    telling = (line.strip() for line in lines if not line.startswith("Exception encountered"))
    return next(filter(None, telling), type(error).__name__).rstrip(".")


def hint(error: Exception, held: Iterable[tuple[str, Any]], call: Callable, x: Any) -> str:
    """What to do about an error that a model raised at the input x; empty if nobody knows.

    held: the model, and what it holds by the names of its variables. call: the model as a function
    of the input's leaves.
    """
    parts = list(held)
    return (
        _dropout(error)
        or _foreign(parts)
        or _unbound(parts[0][1])
        or _tracing(error)
        or _other_input(call, x)
    )


def _dropout(error: Exception) -> str:
    """What to switch, if the model asks for random numbers."""
    asks = re.search(r"dropout|deterministic|\brngs?\b|PRNG", str(error), re.I)
    return f" Active dropout? Then {INFERENCE}" if asks else ""


def _foreign(held: Sequence[tuple[str, Any]]) -> str:
    """What to do with the arrays and modules of other packages that a model holds."""
    for name, item in held:
        if given.is_foreign(item):
            return f" It holds {name or 'one'}, {given.told(name or 'x', item)}."
        try:
            leaves, _ = jax.tree.flatten_with_path(item)
        except (TypeError, ValueError):  # not every object a function refers to is a sound pytree
            continue
        for path, leaf in leaves:
            if given.is_foreign(leaf):
                where = (name or "parameters") + jax.tree_util.keystr(path)
                return f" It holds {where}, {given.told(where, leaf)}."
    keras: Any = sys.modules.get("keras")
    of_keras = any(
        base.__module__.startswith("keras.") for _, m in held for base in type(m).__mro__
    )
    if of_keras and keras.config.backend() != "jax":
        return (
            " Keras computes with another backend: set os.environ['KERAS_BACKEND'] = 'jax' before "
            "it is imported."
        )
    return ""


# Models that are called in another way, by the module and the name of a base of their class.
_UNBOUND = {
    ("flax.linen.module", "Module"): (
        "a module of linen holds no parameters: pass jax.tree_util.Partial(module.apply, variables)"
    ),
}


def _unbound(model: Any) -> str:
    """How to call a model that is no function of its input alone."""
    bases = {(base.__module__, base.__name__) for base in type(model).__mro__}
    for base, advice in _UNBOUND.items():
        if base in bases and getattr(model, "scope", None) is None:
            return f" It is unbound, {advice}."
    if isinstance(model, type):
        return f" It is a class: pass an object of it, {model.__name__}(...)."
    wanted = _arguments(model)
    if wanted and len(wanted) > 1:
        return (
            f" It takes {', '.join(wanted)}, and a model takes its input alone: pass "
            "jax.tree_util.Partial(function, parameters), for a function (parameters, x)."
        )
    return ""


def _arguments(model: Any) -> list[str]:
    """The arguments without which a model cannot be called; none where nobody can say."""
    try:
        parameters = inspect.signature(model).parameters.values()
    except (TypeError, ValueError):
        return []
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in plain and p.default is p.empty]


# Errors of JAX about what a model does with values that it traces; the first that fits counts.
_TRACING = (
    (
        jax.errors.TracerArrayConversionError,
        "It hands values to numpy, which JAX cannot trace: compute with jax.numpy.",
    ),
    (
        jax.errors.ConcretizationTypeError,
        (
            "It asks for a value while it is traced, as float(x) and `if x` do: compute with "
            "jax.numpy, and choose with jnp.where."
        ),
    ),
)


def _tracing(error: Exception) -> str:
    found = (advice for kind, advice in _TRACING if isinstance(error, kind))
    return "".join(f" {advice}" for advice in list(found)[:1])


# What users forget, and the rank of the input for which they may have.
_MENDED = (
    ("give it channels last, as in x.transpose(0, 2, 3, 1)", 4, lambda x: x.transpose(0, 2, 3, 1)),
    ("give it channels first, as in x.transpose(0, 3, 1, 2)", 4, lambda x: x.transpose(0, 3, 1, 2)),
    ("give it a batch, as in x[None]", None, lambda x: x[None]),
    ("pass jax.vmap(model), for a model of one example", None, lambda x: x[0]),
    *(
        (f"give it that type, as in x.astype({dtype!r})", None, lambda x, d=dtype: x.astype(d))
        for dtype in ("float32", "int32")
    ),
)


def _other_input(call: Callable, x: Any) -> str:
    """What to do to the input, if that is all the model needs to run."""
    shaped = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x)
    leaves = jax.tree.leaves(shaped)
    if isinstance(x, list | tuple) and _runs(call, lambda x: jnp.stack(jax.tree.leaves(x)), shaped):
        return " It can with one array: pass np.stack(x)."
    for advice, rank, mend in _MENDED:
        if len(leaves) != 1 or rank not in (None, len(leaves[0].shape)):
            continue
        if (mended := _runs(call, partial(jax.tree.map, mend), shaped)) is not None:
            return f" It can with {text.arrays(jax.tree.leaves(mended))}: {advice}."
    return ""


def _runs(call: Callable, mend: Callable, shaped: Any) -> Any:
    """The mended input, if the model takes it; else None."""
    try:
        mended = jax.eval_shape(mend, shaped)
        with keras_untouched():
            jax.eval_shape(call, mended)
    except Exception:  # whatever a model raises, this input is no better
        return None
    return mended


def keras_untouched() -> AbstractContextManager:
    """Keras layers in training mode would assign traced values to their variables."""
    keras: Any = sys.modules.get("keras")
    return keras.StatelessScope() if hasattr(keras, "StatelessScope") else nullcontext()
