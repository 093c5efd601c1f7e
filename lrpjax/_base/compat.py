"""All that differs between JAX versions, and the only place that reads JAX's internals by name."""

from __future__ import annotations

from os.path import dirname, join
from typing import Any

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

# For `jax.jit`, of what is compiled to run once: it takes less time to compile than it would save.
FOR_ONE_RUN = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

# Evaluates at once, also inside jit and vmap; `ensure_compile_time_eval` leaves vmap's trace on.
outside_traces = jax.core.eval_context

# Of the calls that stand for their body, those that have a derivative of their own.
CUSTOM = {"custom_jvp_call", "custom_vjp_call"}

# Calls that stand for their body. "remat2" is jax.checkpoint's. From JAX 0.12 on "eval_jaxpr"
# takes the place of "call" and "closed_call".
CALLS = {"jit", "call", "closed_call", "eval_jaxpr", "remat2"} | CUSTOM

# Calls that say how their body is run (memory, a loop) and are not merely another way to write it.
RUNS = {"remat2", "scan"}

_STATELESS = ("nn", "numpy", "scipy", join("lax", "other"))
_OF_JAX = tuple(join(dirname(jax.__file__), "_src", part) for part in _STATELESS)
_OWN = tuple(join(dirname(dirname(__file__)), room) for room in ("program", "graph"))


def call_body(eqn) -> ClosedJaxpr:
    """The body of a call equation; its parameter is named differently from call to call."""
    body = next(eqn.params[k] for k in ("jaxpr", "call_jaxpr") if eqn.params.get(k) is not None)
    return body if isinstance(body, ClosedJaxpr) else ClosedJaxpr(body, ())


def without_values(closed: ClosedJaxpr) -> Jaxpr:
    """The program of a closed jaxpr, which must not keep the values of its constants: under jit
    they are tracers. From JAX 0.11 on a closed jaxpr is a Jaxpr that does."""
    return closed.jaxpr.replace(constvars=closed.jaxpr.constvars)


def scan_counts(eqn) -> tuple[int, int]:
    """How many of a scan's operands are constants, and how many are carried on."""
    if "ft_in" in eqn.params:  # JAX 0.11 and later
        constants, carried, _ = eqn.params["ft_in"].unpack()
        return len(list(constants.vals)), len(list(carried.vals))
    return eqn.params["num_consts"], eqn.params["num_carry"]


def bind(primitive: Any, values: Any, params: dict[str, Any]) -> Any:
    """Applies an equation's primitive, with the equation's own parameters, to values."""
    return primitive.bind(*values, **primitive.get_bind_params(params))


def is_of_jax_itself(eqn: Any) -> bool:
    """Whether a call is of a function that JAX defines, such as jax.nn.relu: it has no state."""
    about = getattr(call_body(eqn).jaxpr, "debug_info", None)
    return str(getattr(about, "func_filename", None)).startswith(_OF_JAX)


def primitive_names() -> set[str]:
    """The names of all primitives that JAX offers, or knows a derivative of (also users' own)."""
    offered = [*vars(core.primitives).values(), *vars(jax.lax).values(), *ad.primitive_jvps]
    return {p.name for p in offered if isinstance(p, core.Primitive)}


# What a model is written with, not where it is written.
_FRAMEWORKS = tuple(
    f"site-packages/{name}/" for name in ("jax", "jaxlib", "flax", "haiku", "equinox", "keras")
)


def users_line(eqn) -> str | None:
    """Where an equation was written: the innermost frame outside installed packages and, for a
    model that comes from a library, before it the innermost frame there."""
    frames = source_info_util.summarize(eqn.source_info, num_frames=60).splitlines()[::-1]
    frames = [f for f in frames if f and not f.startswith(_OWN)]
    users = next((f for f in frames if "site-packages" not in f), None)
    models = next((f for f in frames if not any(name in f for name in _FRAMEWORKS)), None)
    if users and models and users != models:
        return f"{models.rpartition('site-packages/')[2]}, from {users}"
    return users or models or next(iter(frames), None)


def scope(eqn) -> str:
    """The `jax.named_scope` path of an equation, without the marks of vmap and jvp."""
    parts = str(eqn.source_info.name_stack).split("/")
    return "/".join(p for p in parts if p and not p.endswith(")"))
