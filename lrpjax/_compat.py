"""All that differs between JAX versions, and the only place that reads JAX's internals by name."""

from __future__ import annotations

from os.path import dirname, join

import jax
from jax.extend import core, source_info_util
from jax.interpreters import ad

ClosedJaxpr = core.ClosedJaxpr
Jaxpr = core.Jaxpr
JaxprEqn = core.JaxprEqn
Literal = core.Literal
Primitive = core.Primitive
Traceback = type(source_info_util.current().traceback)
Var = core.Var
jaxpr_as_fun = core.jaxpr_as_fun
closed_call_p = core.primitives.closed_call_p

# Evaluates at once, also inside jit and vmap; `ensure_compile_time_eval` leaves vmap's trace on.
outside_traces = getattr(jax.core, "eval_context", jax.ensure_compile_time_eval)

# Calls that stand for their body. "pjit" is "jit" and "custom_vjp_call_jaxpr" is
# "custom_vjp_call" in JAX before 0.7; "checkpoint" is the name of remat's primitive.
CALLS = {
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "checkpoint",
    "remat",
    "remat2",
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vjp_call_jaxpr",
}

_OWN = (join(dirname(__file__), "graph"), join(dirname(__file__), "reading.py"))


def call_body(eqn) -> ClosedJaxpr:
    """The body of a call equation; its parameter is named differently from call to call."""
    body = next(
        eqn.params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if eqn.params.get(k) is not None
    )
    return body if isinstance(body, ClosedJaxpr) else ClosedJaxpr(body, ())


def primitive_names() -> set[str]:
    """The names of all primitives that JAX offers, or knows a derivative of (also users' own)."""
    offered = [*vars(core.primitives).values(), *vars(jax.lax).values(), *ad.primitive_jvps]
    return {p.name for p in offered if isinstance(p, core.Primitive)}


def users_line(eqn) -> str | None:
    """Where the user wrote this equation: the innermost frame outside installed packages."""
    frames = source_info_util.summarize(eqn.source_info, num_frames=60).splitlines()[::-1]
    users = (f for f in frames if f and "site-packages" not in f and not f.startswith(_OWN))
    return next(users, frames[0] if frames and frames[0] else None)


def scope(eqn) -> str:
    """The `jax.named_scope` path of an equation, without the marks of vmap and jvp."""
    parts = str(eqn.source_info.name_stack).split("/")
    return "/".join(p for p in parts if p and not p.endswith(")"))
