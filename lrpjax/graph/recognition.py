"""Reading a program's equations as layers: from the outputs back to the input, kind by kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from ..program import primitives
from ..program.program import Eqn, Program, constants_behind, is_inexact, is_real
from ..program.varying import find_varying
from .activations import find_activation, is_function_of_one
from .fold import Affine, Context, find_affine, rounds, shifts
from .layer import Layer
from .norms import find_norm
from .products import with_weighing
from .registry import REGISTERED
from .softmax import find_softmax


@dataclass(frozen=True)
class Known(Context):
    """All that is known of a program when it is read.

    fold: whether what stands around a product is folded into it.
    """

    fold: bool


def find_layers(program: Program, uniform: dict[int, Any], *, fold: bool) -> list[Layer]:
    """The layer that computes each value on the way from the input to the outputs, in order."""
    activation = cache(partial(find_activation, program, uniform))
    known = Known(program, find_varying(program), activation, uniform, fold)
    needed = [v for v in program.outputs if v in program.active]
    done = set(program.inputs)
    layers: list[Layer] = []
    while needed:
        value = needed.pop()
        if value in done:
            continue
        layer = next(filter(None, (reader(known, value) for reader in READERS)))
        done.update(layer.outputs)
        layers.append(layer)
        needed.extend(layer.inputs)
    layers.sort(key=lambda layer: max(program.order[v] for v in layer.outputs))
    return with_weighing(program, layers)


def _activation(known: Known, value: int) -> Layer | None:
    found = known.activation(value)
    if found is None:
        return None
    kind, detail = ("structure", None) if found.name == "identity" else ("activation", found)
    return Layer(kind, found.eqns, (found.root,), (value,), detail)


def _affine(known: Known, value: int) -> Layer | None:
    found = find_affine(known, value, fold=known.fold)
    if found is None:
        return None
    return Layer(_affine_kind(known, found), found.eqns, (found.root,), (value,), found)


def _affine_kind(known: Known, affine: Affine) -> str:
    core, program = affine.core, known.program
    changing = [eqn for eqn in affine.eqns if not known.changes_nothing(eqn)]
    if core is None:
        return "scale" if shifts(changing) else "factor"
    role = primitives.of(core.name).role
    if role in ("sum", "scatter"):
        return "sum"
    if role == "dot" and not core.params["dimension_numbers"][0][0]:
        return "scale" if shifts(changing) else "factor"
    weights = [v for v in core.inputs if v not in program.active]
    # Where nothing is a parameter, the weights written in the code are the model's.
    learned = not program.fixed.issuperset(program.consts)
    if learned and program.fixed.issuperset(constants_behind(program, weights)):
        return "fixed"
    return {"conv": "conv", "dot": "dense"}[role]


def _add(known: Known, value: int) -> Layer | None:
    eqn, active = _maker(known, value)
    if not primitives.of(eqn.name).is_addition or len(active) != 2 or not _are_real(known, eqn):
        return None
    signs = (1, -1) if eqn.name == "sub" else (1, 1)
    return Layer("add", (eqn,), active, eqn.outputs, signs)


def _max_pool(known: Known, value: int) -> Layer | None:
    eqn, active = _maker(known, value)
    if primitives.of(eqn.name).role != "max" or not _are_real(known, eqn):
        return None
    return Layer("max_pool", (eqn,), active, eqn.outputs)


def _softmax(known: Known, value: int) -> Layer | None:
    found = find_softmax(known.program, value)
    return Layer("softmax", found.eqns, (found.root,), (value,), found) if found else None


def _norm(known: Known, value: int) -> Layer | None:
    found = find_norm(known.program, known.uniform, known.varying, value)
    return Layer("norm", found.eqns, (found.x, *found.roots), (value,), found) if found else None


def _product(known: Known, value: int) -> Layer | None:
    eqn, active = _maker(known, value)
    row = primitives.of(eqn.name)
    if not row.is_product or row.role == "conv" or len(active) != 2 or not _are_real(known, eqn):
        return None
    return Layer("product", (eqn,), active, eqn.outputs)


def _transform(known: Known, value: int) -> Layer | None:
    """What is linear in all that depends on the input, through complex numbers too: from the real
    values behind it."""
    program = known.program
    if not is_real(program.avals[value]):
        return None
    waiting, roots, eqns = [value], list[int](), set[Eqn]()
    while waiting:
        eqn = program.producer[waiting.pop()]
        if eqn in eqns:
            continue
        if not _is_linear(program, eqn):
            return None
        eqns.add(eqn)
        for before in program.active_inputs(eqn):
            if is_real(program.avals[before]):
                roots.append(before)
            elif before in program.producer and is_inexact(program.avals[before]):
                waiting.append(before)
            else:
                return None
    inputs = tuple(dict.fromkeys(roots))
    in_order = tuple(sorted(eqns, key=lambda eqn: program.order[eqn.outputs[0]]))
    return Layer("transform", in_order, inputs, (value,))


def _is_linear(program: Program, eqn: Eqn) -> bool:
    row = primitives.of(eqn.name)
    active = [k for k, v in enumerate(eqn.inputs) if v in program.active]
    moved = row.values(len(eqn.inputs))
    alone = row.linear == "all" or len(active) == 1
    return (
        len(eqn.outputs) == 1 and alone and all(row.is_linear_in(k) and k in moved for k in active)
    )


def _structure(known: Known, value: int) -> Layer | None:
    """A run of moves of one scope, as far back as nothing else reads it."""
    program = known.program
    last = program.producer[value]
    if not moves_values(program, last):
        return None
    eqns = [last]
    while len(active := program.active_inputs(eqns[-1])) == 1:
        before = program.producer.get(active[0])
        if (
            before is None
            or before.scope != last.scope
            or program.consumers[active[0]] > 1
            or len(before.outputs) > 1
            or not moves_values(program, before)
        ):
            break
        eqns.append(before)
    return Layer("structure", tuple(eqns[::-1]), tuple(active), last.outputs)


def moves_values(program: Program, eqn: Eqn) -> bool:
    """Whether an equation moves entries by indices and predicates that do not depend on the
    input, and computes nothing: complex numbers are computed with."""
    row = primitives.of(eqn.name)
    if not row.is_move or rounds(program, eqn):
        return False
    moved = row.values(len(eqn.inputs))
    chosen = any(v in program.active for k, v in enumerate(eqn.inputs) if k not in moved)
    return not chosen and not any(_is_complex(program, v) for v in (*eqn.inputs, *eqn.outputs))


def _is_complex(program: Program, value: int) -> bool:
    aval = program.avals[value]
    return is_inexact(aval) and not is_real(aval)


def _choice(known: Known, value: int) -> Layer | None:
    """Entries of values, chosen by truth values that depend on the input too: a padding mask that
    is computed from it, and no function of each entry, which an activation would be. What chooses
    has no relevance, and is an input of the layer only where none of the values depends on the
    model's: the numbers are then made of truth values."""
    program, eqn = known.program, known.program.producer[value]
    row = primitives.of(eqn.name)
    if not row.chooses or not is_real(program.avals[value]):
        return None
    if is_function_of_one(program, known.uniform, value):
        return None
    moved = [eqn.inputs[k] for k in sorted(row.values(len(eqn.inputs)))]
    active = dict.fromkeys(v for v in moved if v in program.active)
    return Layer("choice", (eqn,), tuple(active or program.active_inputs(eqn)), eqn.outputs)


def _control(known: Known, value: int) -> Layer | None:
    eqn, active = _maker(known, value)
    if primitives.of(eqn.name).role not in ("branch", "loop"):
        return None
    return Layer("control", (eqn,), active, eqn.outputs)


def _unknown(known: Known, value: int) -> Layer:
    eqn, active = _maker(known, value)
    return Layer("unknown", (eqn,), active, eqn.outputs, REGISTERED.get(eqn.name))


def _maker(known: Known, value: int) -> tuple[Eqn, tuple[int, ...]]:
    eqn = known.program.producer[value]
    return eqn, tuple(known.program.active_inputs(eqn))


def _are_real(known: Known, eqn: Eqn) -> bool:
    return all(is_real(known.program.avals[v]) for v in (*eqn.inputs, *eqn.outputs))


# The kinds in the order in which they are tried.
READERS: tuple[Callable[[Known, int], Layer | None], ...] = (
    _activation,
    _affine,
    _add,
    _max_pool,
    _softmax,
    _norm,
    _product,
    _structure,
    _choice,
    _transform,
    _control,
    _unknown,
)
