"""Pickles from outside, read without finding, calling or changing anything by its name.

A pickle is a program. This is a machine of our own for the few of its instructions of which
tensors, arrays and plain values are made: a name in it is a stand-in from a table, or an error.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from io import BytesIO
from itertools import chain
from typing import Any, NamedTuple

from .._base.reading import Unreadable

INSTRUCTIONS = 10**6  # of one pickle; a state dict of 10,000 tensors has 300,000
USES = 4  # of each byte of a pickle, on average, by what it calls
LEVELS = 32  # of values in each other
KEYS = 2**20  # numbers below it, as the keys of a dictionary, cannot be chosen to collide


class Standin:
    """What a pickle may build: a subclass says how it takes a state."""

    def build(self, state: Any) -> None:
        raise NotImplementedError


class Ordered(dict, Standin):
    """Stands for collections.OrderedDict."""

    def __init__(self, items: Any = ()):
        if type(items) not in (list, tuple) or any(len(item) != 2 for item in items):
            raise Unreadable("a dictionary in it is not made of pairs")
        super().__init__()
        for key, value in items:
            self[_key(key)] = value

    def build(self, state: Any) -> None:
        """Attributes ("_metadata") say nothing of the tensors, and are left out."""
        if not isinstance(state, dict):
            raise Unreadable("a dictionary in it has attributes without names")


class Name(NamedTuple):
    """Stands for a class or function of the table, which a pickle can neither call nor change."""

    path: str


# From "module.name" to what its call makes; None for what is named and not called.
Table = Mapping[str, Callable[..., Any] | None]


def unpickled(
    stream: BytesIO,
    table: Table,
    *,
    only: str,
    text: Callable[[bytes], Any],
    refer: Callable[[Any], Any] | None = None,
) -> Any:
    """What the next pickle of a stream in memory holds, of any protocol.

    only: what is read, for the message of a name that is not in the table. text: what a text of
    Python 2 becomes. refer: from a reference to something outside the pickle to what it means.
    Raises Unreadable, or what a damaged number or text raises.
    """
    machine = _Machine(table, only, text, refer)
    machine.left = USES * stream.getbuffer().nbytes + INSTRUCTIONS
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count == INSTRUCTIONS:
            raise Unreadable(f"its pickle has more than {INSTRUCTIONS:,} instructions")
        step = STEPS.get(opcode.name)
        if step is None:
            raise Unreadable(f"its pickle uses {opcode.name} {argument or ''}".rstrip())
        step(machine, argument)
    found = machine.pop()
    if machine.stack or machine.below:
        raise Unreadable("its pickle leaves more than one thing")
    _require_flat(found)
    return found


class _Machine:
    """stack: what was made since the last mark. below: the stacks before each mark."""

    def __init__(self, table: Table, only: str, text: Callable, refer: Callable | None):
        self.table, self.only, self.text, self.refer = table, only, text, refer
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.left = 0  # of what may be gone through

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise Unreadable("its pickle takes more than it made")
        return self.stack.pop()

    def top(self, *kinds: type) -> Any:
        value = self.pop()
        if type(value) not in kinds:
            raise Unreadable(f"its pickle fills a {type(value).__name__}")
        self.push(value)
        return value

    def take(self, count: int) -> tuple:
        return tuple([self.pop() for _ in range(count)][::-1])

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def marked(self) -> list[Any]:
        """All since the last mark."""
        if not self.below:
            raise Unreadable("its pickle takes more than it made")
        found, self.stack = self.stack, self.below.pop()
        return found

    def name(self, path: str) -> None:
        if path not in self.table:
            raise Unreadable(f"it asks for {path}, and only {self.only} is read")
        self.push(Name(path))

    def stacked_name(self) -> None:
        parts = self.take(2)
        if not all(type(part) is str for part in parts):
            raise Unreadable("its pickle asks for something without a name")
        self.name(".".join(parts))

    def call(self) -> None:
        named, arguments = self.take(2)
        make = self.table[named.path] if type(named) is Name else None
        if make is None or type(arguments) is not tuple:
            said = named.path if type(named) is Name else f"a {type(named).__name__}"
            raise Unreadable(f"its pickle calls {said}, which is nothing to be called")
        self.use(arguments)
        self.push(make(*arguments))

    def use(self, values: Any) -> None:
        """What a call goes through: a few instructions could ask for all that there is, again and
        again."""
        parts = values if type(values) is tuple else (values,)
        self.left -= sum(len(part) for part in parts if isinstance(part, SIZED))
        if self.left < 0:
            raise Unreadable("its pickle uses what it holds too often")

    def build(self) -> None:
        state = self.pop()
        thing = self.pop()
        if not isinstance(thing, Standin):
            raise Unreadable(f"its pickle changes a {type(thing).__name__}")
        self.use(state)
        thing.build(state)
        self.push(thing)

    def reference(self) -> None:
        if self.refer is None:
            raise Unreadable("its pickle refers to something outside")
        self.push(self.refer(self.pop()))

    def extend(self, items: list[Any]) -> None:
        self.top(list).extend(items)

    def update(self, items: list[Any]) -> None:
        into = self.top(dict, Ordered)
        if len(items) % 2:
            raise Unreadable("a dictionary in it has a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            into[_key(key)] = value

    def made_of(self, kind: type, items: list[Any]) -> None:
        self.push(kind())
        (self.extend if kind is list else self.update)(items)

    def keep(self, place: int) -> None:
        value = self.pop()
        self.push(value)
        self.memo[place] = value

    def kept(self, place: int) -> None:
        if place not in self.memo:
            raise Unreadable("its pickle takes what it never kept")
        self.push(self.memo[place])


def _key(key: Any) -> str | bytes | int:
    """Of plain types: a tuple of tuples would take for ever to be found again."""
    if type(key) in (str, bytes) or (type(key) is int and 0 <= key < KEYS):
        return key
    raise Unreadable(f"a dictionary in it has a {type(key).__name__} for a key")


def _require_flat(value: Any) -> None:
    """Raises Unreadable for values in each other on more levels than data have."""
    level, seen = [value], {id(value)}
    for _ in range(LEVELS):
        inner = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, HOLDING)]
        level = []
        for each in chain.from_iterable(inner):
            if id(each) not in seen:
                seen.add(id(each))
                level.append(each)
    if level:
        raise Unreadable(f"it is nested on more than {LEVELS} levels")


HOLDING = (dict, list, tuple)
SIZED = (*HOLDING, str, bytes)
_Step = Callable[[_Machine, Any], None]
_VALUES = (
    "INT LONG LONG1 BININT BININT1 BININT2 FLOAT BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE "
    "BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8"
)
STEPS: dict[str, _Step] = {
    **dict.fromkeys("PROTO FRAME STOP".split(), lambda machine, _: None),
    **dict.fromkeys(_VALUES.split(), _Machine.push),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    **dict.fromkeys(
        "STRING BINSTRING SHORT_BINSTRING".split(),
        lambda machine, said: machine.push(machine.text(said.encode("latin-1"))),
    ),
    "BYTEARRAY8": lambda machine, data: machine.push(bytes(data)),
    "MARK": lambda machine, _: machine.mark(),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.marked())),
    "TUPLE1": lambda machine, _: machine.push(machine.take(1)),
    "TUPLE2": lambda machine, _: machine.push(machine.take(2)),
    "TUPLE3": lambda machine, _: machine.push(machine.take(3)),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "LIST": lambda machine, _: machine.made_of(list, machine.marked()),
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.marked()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "DICT": lambda machine, _: machine.made_of(dict, machine.marked()),
    "SETITEM": lambda machine, _: machine.update(list(machine.take(2))),
    "SETITEMS": lambda machine, _: machine.update(machine.marked()),
    "GLOBAL": lambda machine, path: machine.name(path.replace(" ", ".")),
    "STACK_GLOBAL": lambda machine, _: machine.stacked_name(),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.reference(),
    **dict.fromkeys("PUT BINPUT LONG_BINPUT".split(), _Machine.keep),
    "MEMOIZE": lambda machine, _: machine.keep(len(machine.memo)),
    **dict.fromkeys("GET BINGET LONG_BINGET".split(), _Machine.kept),
}
