"""JAX programs as bytes: `pickle`, but for primitives, which are looked up by the module that holds
them, the numbers in the code, and where equations were written, which is left out."""

from __future__ import annotations

import io
import pickle
import sys
from importlib import import_module
from typing import Any

import numpy as np

from .compat import JaxprEqn, Literal, Primitive, Traceback, call_body, closed_call_p

# Functions with derivatives of their own, which are functions of Python: what they compute is kept.
CUSTOM = {"custom_jvp_call", "custom_vjp_call"}


class _Pickler(pickle.Pickler):
    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, Primitive):
            return _named, _name(thing)
        if isinstance(thing, Traceback):
            return _nowhere, ()
        if isinstance(thing, Literal):  # JAX's own numbers lose their type on the way
            aval: Any = thing.aval
            return Literal, (np.asarray(thing.val, aval.dtype)[()], aval)
        if isinstance(thing, JaxprEqn) and thing.primitive.name in CUSTOM:
            body = {"call_jaxpr": call_body(thing)}
            opened = thing.replace(primitive=closed_call_p, params=body)
            return opened.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        return NotImplemented


def dumps(thing: Any) -> bytes:
    """Raises pickle.PicklingError for a primitive that no module holds under a name."""
    stream = io.BytesIO()
    _Pickler(stream, pickle.HIGHEST_PROTOCOL).dump(thing)
    return stream.getvalue()


def _name(primitive: Primitive) -> tuple[str, str]:
    for module_name, module in list(sys.modules.items()):
        for attribute, value in list(vars(module).items()) if hasattr(module, "__dict__") else ():
            if value is primitive:
                return module_name, attribute
    raise pickle.PicklingError(
        f"The primitive {primitive.name!r} cannot be pickled: assign it to a name in a module."
    )


def _named(module: str, attribute: str) -> Any:
    return getattr(import_module(module), attribute)


def _nowhere() -> None:
    return None
