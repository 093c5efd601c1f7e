"""Rewritings of networks that were not generated: their own program, with identities put in.

There is no oracle for them, and none is needed: the maps of both programs must be equal.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import lrpjax as lrp

from .check import error
from .rewriting import TOUCHES
from .shares import METHODS, Method

HERE = Path(__file__).parents[1]
os.environ["KERAS_BACKEND"] = "jax"  # as conftest does, for networks that import Keras
ROUNDING = 1e-9
SHARE = 0.3  # of the equations behind which an identity is put


def helper(name: str) -> Any:
    """A module of networks, wherever under tests/ it is."""
    found = next(HERE.rglob(f"{name}.py"))
    if str(found.parent) not in sys.path:
        sys.path.insert(0, str(found.parent))
    return importlib.import_module(name)


def architectures() -> Iterator[tuple[str, Callable, np.ndarray, frozenset[str]]]:
    """(name, model, two images, families of methods that it has no answer for)."""
    rng = np.random.default_rng(0)
    images = lambda *shape: rng.normal(size=(2, *shape))
    data, modern = helper("nets_data"), frozenset({"deeplift", "cuts"})
    chain = helper("nets_chain")
    residual = jax.tree_util.Partial(chain.residual_net, chain.residual_weights())
    resnet = helper("nets_resnet").in_lax(data.small_resnet(), "float64")
    squeezenet = helper("nets_squeezenet").in_lax(data.small_squeezenet(), "float64")
    vit = helper("vit").vit
    yield "residual", residual, images(4, 4, 2), frozenset()
    yield "resnet", resnet.model, images(3, 8, 8), frozenset()
    yield "squeezenet", squeezenet.model, images(3, 33, 33), frozenset()
    yield "vit", vit(constants=False), images(16, 16, 3), modern
    yield "vit with constants", vit(constants=True), images(16, 16, 3), modern


def touched(model: Callable, x: Any, touch: Callable, seed: int) -> Callable:
    """The model's program with `touch` behind some of its values that hold one row an example."""
    closed, rng = jax.make_jaxpr(model)(x), np.random.default_rng(seed)
    jaxpr, kind = closed.jaxpr, jax.extend.core.Literal
    chosen = [rng.random() < SHARE for _ in jaxpr.eqns]

    def fits(v):
        return v.ndim > 1 and len(v) == len(x) and jnp.issubdtype(v.dtype, jnp.floating)

    def run(x):
        values = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        values[jaxpr.invars[0]] = touch(x)
        read = lambda v: v.val if isinstance(v, kind) else values[v]
        for equation, here in zip(jaxpr.eqns, chosen, strict=True):
            parameters = equation.primitive.get_bind_params(equation.params)
            outs = equation.primitive.bind(*map(read, equation.invars), **parameters)
            outs = outs if equation.primitive.multiple_results else [outs]
            for v, out in zip(equation.outvars, outs, strict=True):
                values[v] = touch(out) if here and fits(out) else out
        return read(jaxpr.outvars[0])

    return run


WHOLE: dict[str, Callable[[Callable], Callable]] = {
    "jit": jax.jit,
    "checkpoint": lambda model: jax.checkpoint(lambda x: model(x)),
    "vmap": lambda model: jax.vmap(lambda one: model(one[None])[0]),
}


def difference(model: Callable, x: Any, method: Method, rewriting: str, seed: int) -> float:
    """How far the maps of the model and of its rewriting are apart, for random relevance."""
    chosen = lrp.methods.get(method.name, **method.options)
    touches = {f.__name__: f for f in TOUCHES}
    if rewriting in WHOLE:
        other = WHOLE[rewriting](model)
    elif rewriting == "alone":
        other = model
    else:
        other = touched(model, x, touches[rewriting], seed)
    number = 1 if rewriting == "alone" else len(x)

    @jax.jit
    def both(x, R):
        one = lrp.vjp(model, x, chosen)[1](R)
        return one[:number], lrp.vjp(other, x[:number], chosen)[1](R[:number])

    R = np.random.default_rng(seed).normal(size=jax.eval_shape(model, x).shape)
    one, two = both(x, R)
    return error(two, one)


def rewritings() -> list[str]:
    return [*WHOLE, "alone", *(f.__name__ for f in TOUCHES)]


def pairs(seed: int) -> Iterator[tuple[str, str]]:
    """(what was asked, what is wrong with it or "") of each architecture, in turn."""
    ways = rewritings()
    for k, (name, model, x, refused) in enumerate(architectures()):
        able = [m for m in METHODS if m.family not in refused]
        method, way = able[(seed + k) % len(able)], ways[(seed * 7 + k) % len(ways)]
        try:
            worst = difference(model, x, method, way, seed)
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
        else:
            wrong = f"the maps differ by {worst:.2g}" if worst > ROUNDING else ""
        yield f"seed {seed}, {name}, {method}, {way}", wrong
