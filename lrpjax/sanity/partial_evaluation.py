"""A computation repeated with some of its arguments swapped: what no swap reaches is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from .._base.compat import ClosedJaxpr, Literal, Var, jaxpr_as_fun
from .._base.jaxprs import needed, variables


@dataclass(frozen=True)
class Part:
    """Equations that swaps of the same groups reach, from the values of `reads` to `writes`."""

    reach: frozenset[int]
    reads: list[Var]
    writes: list[Var]
    run: Callable[..., list[jax.Array]]


class Incremental:
    """The function of a jaxpr in parts, each of which is compiled once, and run if it has to be.

    data: the places of the arguments on which kept values depend. What depends on the others alone
    (the positive part of some weights) is made again: it is as large as they are, and cheap.
    groups: the places of arguments that are swapped together; others stay what they are.
    """

    def __init__(self, closed: ClosedJaxpr, data: Iterable[int], groups: Sequence[frozenset[int]]):
        jaxpr, self.consts = closed.jaxpr, list(closed.consts)
        self.inputs, self.outputs = [*jaxpr.constvars, *jaxpr.invars], list(jaxpr.outvars)
        reach = dict.fromkeys(jaxpr.constvars, frozenset[int]())
        for place, var in enumerate(jaxpr.invars):
            reach[var] = frozenset(i for i, group in enumerate(groups) if place in group)
        kept = {jaxpr.invars[place] for place in data}
        for eqn in jaxpr.eqns:
            read = variables(eqn.invars)
            reach |= dict.fromkeys(eqn.outvars, frozenset[int]().union(*(reach[v] for v in read)))
            if not kept.isdisjoint(read):
                kept.update(eqn.outvars)
        kept = kept.union(variables(self.outputs)).difference(self.inputs)
        wanted = set(variables(self.outputs))
        self.parts: list[Part] = []
        # A value's readers are reached by what reaches it, or by more: they come first here.
        for own in sorted({reach[v] for v in kept}, key=len, reverse=True):
            mine = {v for v in kept if reach[v] == own}
            asked = mine & wanted
            if not asked:
                continue
            writes = [v for eqn in jaxpr.eqns for v in eqn.outvars if v in asked]
            known = kept.difference(mine).union(self.inputs)
            eqns, reads = needed(jaxpr.eqns, writes, known)
            wanted.update(reads)
            body = jaxpr.replace(constvars=[], invars=reads, outvars=writes, eqns=eqns)
            run = jax.jit(jaxpr_as_fun(ClosedJaxpr(body, ())))
            self.parts.insert(0, Part(own, reads, writes, run))

    def __call__(
        self,
        arguments: Sequence[Any],
        kept: Mapping[Var, jax.Array] | None = None,
        swapped: Iterable[int] = (),
    ) -> tuple[list[Any], dict[Var, jax.Array]]:
        """The outputs, and the values to keep.

        kept: the values of a call whose arguments differ from these in some groups alone, those
        that are `swapped` (by number); without, all parts run.
        """
        values = dict(kept or {})
        values.update(zip(self.inputs, [*self.consts, *arguments], strict=True))
        for part in self.parts:
            if kept is None or not part.reach.isdisjoint(swapped):
                found = part.run(*(values[v] for v in part.reads))
                values.update(zip(part.writes, found, strict=True))
        outputs = [v.val if isinstance(v, Literal) else values[v] for v in self.outputs]
        return outputs, {v: values[v] for part in self.parts for v in part.writes}
