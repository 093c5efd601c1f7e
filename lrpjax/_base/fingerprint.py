"""One text for what a value is, the same in every process: by it a run knows what it goes on with.

Arrays are told by shape, dtype and bytes; functions by their code, what they close over and, for
those that are not of an installed package, the globals that they read; other objects by their class
and what pickle would write of them. What has no such text (a lock, a generator, an array that is
traced) raises `Unstable`: two of them would pass for one another.
"""

from __future__ import annotations

import dis
import enum
import functools
import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

import jax
import numpy as np

from .compat import CUSTOM, ClosedJaxpr, Jaxpr, Literal, Primitive, is_of_jax_itself

LENGTH = 16  # of the digits that are kept
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), type(NotImplemented))
# What Python itself writes into a class: where it stands, or what its other attributes say.
_OF_CLASSES = {
    "__module__", "__doc__", "__annotations__", "__annotate__", "__annotate_func__",
    "__annotations_cache__", "__firstlineno__", "__static_attributes__", "__abstractmethods__",
    "_abc_impl", "__orig_bases__", "__parameters__", "__dataclass_fields__",
    "__dataclass_params__", "__classcell__",
}  # fmt: skip
_ROOT = Path(__file__).parents[1]
_INSTALLED = (_ROOT, *{Path(sysconfig.get_path(of)) for of in ("stdlib", "purelib", "platlib")})


class Unstable(ValueError):
    """What has no text that would be the same in another process."""


def digest(value: Any) -> str:
    """Hexadecimal digits that two values have in common if they are the same. Raises `Unstable`."""
    return _Reader().read(value).hex()[:LENGTH]


def environment() -> dict[str, Any]:
    """What else decides about the last digits: precision, random bits, and where it is computed."""
    settings = ("enable_x64", "default_matmul_precision", "threefry_partitionable")
    found = {name: getattr(jax.config, f"jax_{name}") for name in settings}
    return {**found, "platform": jax.default_backend()}


def _joined(tag: str, *parts: bytes | memoryview) -> bytes:
    made = hashlib.sha256(tag.encode())
    for part in parts:
        made.update(b"%d:" % len(part))
        made.update(part)
    return made.digest()


class _Reader:
    """Reads a value from the leaves up; what it has read it knows by identity."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[Any, bytes]] = {}  # with the object, so that it stays
        self.around: dict[int, int] = {}  # what is being read, and how deep

    def read(self, value: Any) -> bytes:
        if isinstance(value, _PLAIN):
            return _joined(f"{type(value).__name__} {value!r}")
        if id(value) in self.known:
            return self.known[id(value)][1]
        if id(value) in self.around:  # a function that calls itself, a list in itself
            return _joined(f"around {len(self.around) - self.around[id(value)]}")
        self.around[id(value)] = len(self.around)
        try:
            found = self._read(value)
        except RecursionError as error:
            raise Unstable(
                f"a {type(value).__name__} is nested too deeply to be told from another"
            ) from error
        finally:
            del self.around[id(value)]
        self.known[id(value)] = (value, found)
        return found

    def all(self, tag: str, *values: Any) -> bytes:
        return _joined(tag, *map(self.read, values))

    def _read(self, value: Any) -> bytes:
        for kinds, read in _KINDS:
            if isinstance(value, kinds):
                return read(self, value)
        if is_dataclass(value):
            named = [(f.name, getattr(value, f.name, None)) for f in fields(value)]
            return self.all("fields", type(value), *named)
        if (wrapped := getattr(value, "__wrapped__", None)) is not None:  # of jax.jit
            return self.all("wrapped", type(value), wrapped)
        return self._pickled(value)

    def array(self, value: Any) -> bytes:
        if isinstance(value, jax.core.Tracer):
            raise Unstable(f"{value} has no value yet: it is traced")
        if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            return self.all("key", str(jax.random.key_impl(value)), jax.random.key_data(value))
        if getattr(value.dtype, "hasobject", False):
            return self.all("objects", value.shape, value.tolist())
        whole = np.ascontiguousarray(value)
        about = f"array {whole.dtype} {np.shape(value)}"
        return _joined(about, whole.reshape(-1).view(np.uint8).data if whole.size else b"")

    def sequence(self, value: Any) -> bytes:
        return self.all("sequence", type(value), *value)

    def mapping(self, value: dict) -> bytes:
        pairs = sorted(_joined("", self.read(k), self.read(v)) for k, v in value.items())
        return _joined("mapping", self.read(type(value)), *pairs)

    def set(self, value: Any) -> bytes:
        return _joined("set", *sorted(map(self.read, value)))

    def member(self, value: enum.Enum) -> bytes:
        return self.all("member", type(value), value.name)

    def dtype(self, value: np.dtype) -> bytes:
        return _joined(f"dtype {value.str} {value.name}")

    def module(self, value: ModuleType) -> bytes:
        file = getattr(value, "__file__", None)
        own = file is not None and not _is_installed(file) and Path(file).is_file()
        return _joined(f"module {value.__name__}", Path(file).read_bytes() if own and file else b"")

    def type(self, value: type) -> bytes:
        name = f"type {value.__module__}.{value.__qualname__}"
        if _of_package(value):
            return _joined(name)
        slots = (MemberDescriptorType, GetSetDescriptorType)
        own = {k: v for k, v in vars(value).items() if not isinstance(v, slots)}
        return self.all(name, value.__bases__, {k: own[k] for k in own.keys() - _OF_CLASSES})

    def method(self, value: MethodType) -> bytes:
        return self.all("method", value.__self__, value.__func__)

    def builtin(self, value: Any) -> bytes:
        of = getattr(value, "__self__", None)
        called = getattr(value, "__qualname__", value.__name__)  # numpy 2.0's ufuncs have but one
        name = f"builtin {getattr(value, '__module__', '')} {called}"
        return _joined(name) if of is None or isinstance(of, ModuleType) else self.all(name, of)

    def partial(self, value: functools.partial) -> bytes:
        return self.all("partial", type(value), value.func, value.args, value.keywords)

    def part(self, value: Any) -> bytes:
        """A function in a class, or a property; a cached one has a lock beside its function."""
        names = ("__func__", "fget", "fset", "fdel", "func")
        return self.all("part", type(value), *(getattr(value, name, None) for name in names))

    def function(self, value: FunctionType) -> bytes:
        name = f"function {value.__module__}.{value.__qualname__}"
        if _of_package(value) and _is_named(value):
            return _joined(name)
        cells = [_content(cell) for cell in value.__closure__ or ()]
        rest = (value.__code__, value.__defaults__, value.__kwdefaults__, cells)
        used = {} if _of_package(value) else dict(_globals_read(value))
        return self.all(name, *rest, used)

    def code(self, value: CodeType) -> bytes:
        names = (value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars)
        counts = (value.co_argcount, value.co_kwonlyargcount, value.co_flags)
        return self.all("code", value.co_code, value.co_consts, names, counts)

    def primitive(self, value: Any) -> bytes:
        if "callback" in value.name:
            raise Unstable(f"{value.name} calls Python, and what that does cannot be seen")
        return _joined(f"primitive {value.name}")

    def jaxpr(self, value: Any) -> bytes:
        """A body inside of an equation, with its values numbered as they come."""
        open_, consts = getattr(value, "jaxpr", value), getattr(value, "consts", ())
        numbers: dict[Any, int] = {}
        number = lambda var: (numbers.setdefault(var, len(numbers)), str(var.aval))
        atom = lambda a: ("literal", str(a.aval), a.val) if isinstance(a, Literal) else number(a)
        begin = [*map(number, open_.constvars), *map(number, open_.invars)]
        eqns = [
            (e.primitive, [*map(atom, e.invars)], _params(e), [*map(number, e.outvars)])
            for e in open_.eqns
        ]
        return self.all("jaxpr", begin, eqns, [*map(atom, open_.outvars)], list(consts))

    def _pickled(self, value: Any) -> bytes:
        kind = type(value)
        try:
            reduced = value.__reduce_ex__(4)
        except Exception as error:
            # What JAX has in C++ (a sharding, the structure of a tree) prints itself in full.
            text = repr(value)
            if kind.__module__.split(".")[0] in ("jax", "jaxlib") and " at 0x" not in text:
                return _joined(f"{kind.__module__}.{kind.__qualname__} {text}")
            raise Unstable(
                f"{_shown(value)} has nothing by which it could be told from another"
            ) from error
        if isinstance(reduced, str):
            return _joined(f"global {kind.__module__} {reduced}")
        make, arguments, *rest = reduced
        parts = [list(part) if isinstance(part, Iterator) else part for part in rest]
        return self.all("object", kind, make, arguments, *parts)


def _params(eqn: Any) -> dict[str, Any]:
    """The parameters of an equation of a body; a derivative of JAX's own is what its name says."""
    if eqn.primitive.name not in CUSTOM:
        return dict(eqn.params)
    if not is_of_jax_itself(eqn):
        raise Unstable("a function with a derivative of its own stands inside of a loop or a case")
    bodies = (Jaxpr, ClosedJaxpr)
    return {name: body for name, body in eqn.params.items() if isinstance(body, bodies)}


_KINDS: list[tuple[Any, Callable[[_Reader, Any], bytes]]] = [
    ((np.ndarray, np.generic, jax.Array), _Reader.array),
    (enum.Enum, _Reader.member),
    ((tuple, list), _Reader.sequence),
    (dict, _Reader.mapping),
    ((set, frozenset), _Reader.set),
    (np.dtype, _Reader.dtype),
    (type, _Reader.type),
    (ModuleType, _Reader.module),
    (functools.partial, _Reader.partial),
    (MethodType, _Reader.method),
    (FunctionType, _Reader.function),
    ((classmethod, staticmethod, property, functools.cached_property), _Reader.part),
    ((BuiltinFunctionType, np.ufunc, type(str.join), type(int.__add__)), _Reader.builtin),
    (CodeType, _Reader.code),
    (Primitive, _Reader.primitive),
    ((Jaxpr, ClosedJaxpr), _Reader.jaxpr),
]


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_installed(file: str) -> bool:
    """Whether a file is of Python, of a package that was installed, or of this one: its version is
    what it is told by."""
    path = Path(file)
    return str(file).startswith("<frozen") or any(path.is_relative_to(own) for own in _INSTALLED)


def _of_package(value: Any) -> bool:
    module = sys.modules.get(value.__module__ or "")
    file = getattr(module, "__file__", None)
    if module is None or value.__module__ == "__main__":
        return False
    return module.__name__ in sys.builtin_module_names or bool(file and _is_installed(file))


def _is_named(value: Any) -> bool:
    """Whether it is what its module has under its name."""
    found: Any = sys.modules[value.__module__]
    with suppress(AttributeError):
        for part in value.__qualname__.split("."):
            found = getattr(found, part)
        return inspect.unwrap(found) is inspect.unwrap(value)
    return False


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # one that its function has not filled yet
        return None


def _globals_read(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function finds in its module, by name, in its own code and in functions inside it."""
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        codes += [const for const in code.co_consts if isinstance(const, CodeType)]
        for step in dis.get_instructions(code):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and step.argval in function.__globals__:
                yield step.argval, function.__globals__[step.argval]
