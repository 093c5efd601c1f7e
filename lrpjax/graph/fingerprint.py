"""What tells one reading of a model from another: its program, its arrays, its input."""

from __future__ import annotations

from typing import Any

from .._base.fingerprint import Unstable, digest
from ..program import Call, Program, Step
from .reading import Reading


def fingerprint(reading: Reading) -> dict[str, str]:
    """A digest of each: the program with the names of its layers, the parameters, the images.

    Raises `Unstable`, with what it is, for a program that has no text of its own: one that calls
    Python, or has a derivative that cannot be traced.
    """
    graph = reading.graph
    layers = [(layer.name, layer.kind) for layer in graph.layers]
    rules = [layer.detail for layer in graph.layers if layer.kind == "unknown"]
    program = (_program(graph.program), layers, rules, str(reading.out_tree))
    return {"program_sha256": digest(program), **parameters_and_images(reading)}


def parameters_and_images(reading: Reading) -> dict[str, str]:
    """A digest of the arrays that a model holds, and one of its input."""
    images = (str(reading.x_tree), reading.leaves)
    return {"images_sha256": digest(images), "parameters_sha256": digest(reading.consts)}


def _program(program: Program) -> Any:
    """All that decides about its values and derivatives: not the lines where it is written."""
    eqns = [(e.primitive, e.inputs, e.outputs, e.params) for e in program.eqns]
    avals = [(a.shape, str(a.dtype)) for a in program.avals]
    ends = (program.consts, program.inputs, program.outputs, program.fixed)
    return (eqns, avals, program.literals, ends, _calls(program.steps))


def _calls(steps: list[Step] | tuple[Step, ...]) -> list[Any]:
    """The calls that are told from their bodies, with the derivatives that they bring."""
    found = []
    for step in steps:
        if isinstance(step, Call):
            own = step.own
            if own is None and step.is_custom:
                raise Unstable(
                    f"the derivative that the model gives {step.name} at {step.eqn.source} cannot "
                    "be traced"
                )
            rule: Any = own and (_program(own.forward), _program(own.backward), own.arrays)
            found.append((step.name, step.inputs, step.outputs, rule, _calls(step.body)))
    return found
