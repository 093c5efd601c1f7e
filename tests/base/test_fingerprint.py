"""A fingerprint is the same in every process, and another for whatever computes another thing."""

import enum
import functools
import math
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrpjax._base.fingerprint import Unstable, digest

SCALE = 2.0


def scaled(x):
    return SCALE * helped(x)


def helped(x):
    return x + 1


def rebuilt(**names):
    """`scaled` and what it calls, as they are in a module with other globals."""
    return type(scaled)(scaled.__code__, {**globals(), **names}, "scaled")


@dataclass(frozen=True)
class Point:
    x: object
    y: object = 0


class Plain:
    factor = 1

    def __init__(self, x):
        self.x = x

    def __call__(self, y):
        return self.factor * y


class Cached:
    def __init__(self, x):
        self.x = x

    @functools.cached_property
    def twice(self):
        return 2 * self.x


class Other:
    factor = 1

    def __init__(self, x):
        self.x = x

    def __call__(self, y):
        return self.factor * y + 1


class Colour(enum.Enum):
    RED = 1
    BLUE = 1.5


def closing(value):
    return lambda x: x * value


def adding(value):
    return lambda x: x + value


def _array(**changed):
    array = np.arange(6.0)
    array[0] = changed.get("first", 0)
    return array.reshape(changed.get("shape", (6,))).astype(changed.get("dtype", float))


DIFFERENT = {
    "nothing": lambda: [None, 0, False, 0.0, "", b"", "0", "None", ..., (), [], {}, set()],
    "zeros": lambda: [0.0, -0.0, math.nan],
    "kinds of one": lambda: [1, 1.0, True, 1j, "1", b"1", np.float32(1), np.float64(1)],
    "containers": lambda: [(1, 2), [1, 2], (1, (2,)), ((1,), 2), (12,), {1: 2}, {2: 1}, {1, 2}],
    "where texts end": lambda: [("ab", "c"), ("a", "bc"), ("abc",), ("ab", "c", "")],
    "shapes": lambda: [_array(), *(_array(shape=s) for s in ((2, 3), (3, 2), (1, 6)))],
    "dtypes": lambda: [_array(), *(_array(dtype=d) for d in ("f4", ">f8", "i8", "f2"))],
    "dtypes of one width": lambda: [jnp.zeros(2, d) for d in ("bfloat16", "float16", "int16")],
    "bytes": lambda: [_array(), _array(first=1e-300), _array(first=-0.0)],
    "keys": lambda: [jax.random.key(0), jax.random.key(1), jax.random.PRNGKey(0)],
    "fields": lambda: [Point(1), Point(2), Point(1, 1), (1, 0), Point(np.ones(2)), Point([1, 1])],
    "attributes": lambda: [Plain(1), Plain(2), Other(1), Plain(Plain(1)), Cached(1)],
    "members": lambda: [Colour.RED, Colour.BLUE, 1],
    "classes": lambda: [Plain, Other, Point],
    "closures": lambda: [closing(2), closing(3), adding(2), closing(np.ones(2)), closing([1, 1])],
    "defaults": lambda: [lambda x, y=1: x, lambda x, y=2: x, lambda x, *, y=1: x],
    "constants": lambda: [lambda x: x * 2, lambda x: x * 3, lambda x: x + 2],
    "names": lambda: [jnp.sin, jnp.cos, lambda x: jnp.sin(x), lambda x: jnp.cos(x)],
    "inner functions": lambda: [lambda x: [i * 1 for i in x], lambda x: [i + 1 for i in x]],
    "partials": lambda: [functools.partial(helped, 1), functools.partial(helped, 2), helped],
    "methods": lambda: [Plain(1).__call__, Plain(2).__call__, Plain.__call__],
    "wrapped": lambda: [jax.jit(helped), jax.jit(scaled), jax.vmap(helped), jax.vmap(helped, 1)],
    "globals": lambda: [scaled, rebuilt(SCALE=3.0), rebuilt(helped=lambda x: x + 2)],
    "drawers": lambda: [np.random.default_rng(0), np.random.default_rng(1)],
    "installed": lambda: [np.sum, np.prod, np.add, jax.nn.relu, jax.nn.silu, len, math.sin],
    "bodies": lambda: [jax.make_jaxpr(f)(1.0) for f in (jnp.sin, jnp.cos, closing(2), closing(3))],
    "arrays of bodies": lambda: [
        jax.make_jaxpr(closing(jnp.asarray(a)))(1.0) for a in (_array(), _array(first=1))
    ],
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_whatever_differs_has_another_fingerprint(name):
    values = DIFFERENT[name]()
    assert len({digest(value) for value in values}) == len(values)


@pytest.mark.parametrize("name", DIFFERENT)
def test_the_same_made_again_has_the_same_fingerprint(name):
    once, again = (list(map(digest, DIFFERENT[name]())) for _ in range(2))
    if name in ("closures", "bodies", "arrays of bodies", "globals"):
        assert once == again
    else:
        assert sorted(once) == sorted(again)


def test_the_order_of_a_dictionary_and_of_a_set_does_not_count():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"ab", "cd", "ef"}) == digest({"ef", "cd", "ab"})


def test_the_layout_of_an_array_in_memory_does_not_count():
    array = np.arange(24.0).reshape(4, 6)
    assert digest(array[:, ::2]) == digest(array[:, ::2].copy()) != digest(array[:, 1::2])
    assert digest(array.T) == digest(np.ascontiguousarray(array.T))


def test_what_holds_itself_is_read_to_its_end():
    loop = [1]
    loop.append(loop)
    other = [2]
    other.append(other)
    assert digest(loop) != digest(other)

    def recursive(n):
        return recursive(n - 1) if n else 0

    def differently(n):
        return differently(n - 1) if n else 1

    assert digest(recursive) != digest(differently)


def test_a_changed_field_of_a_method_is_seen():
    import lrpjax as lrp

    method = lrp.methods.get("lrp-epsilon")
    assert digest(method) == digest(lrp.methods.get("lrp-epsilon"))
    assert digest(method) != digest(lrp.methods.get("lrp-epsilon", epsilon=1e-3))
    assert digest(method) != digest(replace(method, fold=False))


def lock():
    held = threading.Lock()
    return lambda x: held and x


def generator():
    return (i for i in range(3))


def deep():
    nested = []
    for _ in range(5000):
        nested = [nested]
    return nested


def calling_python():
    shape = jax.ShapeDtypeStruct((), jnp.float32)
    return jax.make_jaxpr(lambda x: jax.pure_callback(lambda x: x, shape, x))(jnp.float32(1))


@pytest.mark.parametrize("make", [lock, generator, deep, calling_python], ids=lambda f: f.__name__)
def test_what_has_no_text_of_its_own_is_refused(make):
    with pytest.raises(Unstable):
        digest(make())


def test_what_is_traced_is_refused():
    with pytest.raises(Unstable, match="traced"):
        jax.jit(digest)(1.0)


SCRIPT = """
import sys
sys.path[:0] = sys.argv[1:]
import jax
jax.config.update("jax_enable_x64", True)
from test_fingerprint import DIFFERENT, digest
print(*(digest(value) for name in sorted(DIFFERENT) for value in DIFFERENT[name]()))
"""


def test_another_process_finds_the_same(tmp_path):
    """With other addresses, and texts that are hashed differently."""
    command = [sys.executable, "-c", SCRIPT, os.path.dirname(__file__)]
    found = [
        subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"PYTHONHASHSEED": seed}
        )
        for seed in ("1", "2")
    ]
    assert found[0].stdout == found[1].stdout, found[0].stderr
    assert len(found[0].stdout.split()) == sum(len(make()) for make in DIFFERENT.values())
