"""What explains: what every method has, and how one of a user's becomes one of these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import jax
import numpy as np

from .._base.checks import takes, written
from .._base.given import is_foreign, what
from ..graph.reading import Reading
from ..rules import Rule

_ARRAYS = np.ndarray | np.generic | jax.Array
Colour = Literal["sum", "max-abs"]


class Explainer:
    """What explains an output of a model: the base of all methods.

    An object of yours with a `name` and explain(reading, x, target), which gives a map of x's shape
    (a pytree of maps, for one of inputs), is taken wherever a method is; so is a function (model,
    x, target). Its target is N classes, one for each image. Of what is said here yours may have
    `colour` and `sparse`.

    base: the method that it is over. baseline: what inputs are compared with.
    colour: how a map is reduced to one value for each pixel before maps are compared: what the
    paper takes (appendix). sparse: whether all but a few entries of a map are zero.
    nests: whether its maps can be taken by a method over it. foreign: whether it is a user's.
    """

    name: str
    base: Any = None
    baseline: Any = None
    nests: bool = False

    @property
    def colour(self) -> Colour:
        return "sum"

    @property
    def sparse(self) -> bool:
        return False

    @property
    def foreign(self) -> bool:
        return False

    def explain(self, reading: Reading, x: Any, target: Any) -> Any:
        """The maps, of x's structure and shapes, for a target: a class, N classes, or None for each
        image's largest logit. The reading is for inputs of x's shape."""
        raise NotImplementedError

    @property
    def chain(self) -> Any:
        """The chain of rules that it is; None for another method."""
        return None

    @property
    def rules(self) -> Any:
        """The chain of rules that it is, or is over; None where there is none."""
        return None if self.base is None else self.base.rules

    def started(self, start: Any) -> Self:
        """The same, but with what the chain of rules that it is over starts from."""
        of: Any = self  # a dataclass, where it is over another
        return self if self.base is None else replace(of, base=self.base.started(start))

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Own(Explainer):
    """A user's object or function as a method. call: (reading, x, target) to a map of x's shape."""

    name: str
    call: Callable[[Reading, Any, Any], Any]
    colour: Colour = "sum"
    sparse: bool = False
    foreign = True

    def explain(self, reading: Reading, x: Any, target: Any) -> Any:
        found = self.call(reading, x, target)
        if not all(isinstance(leaf, _ARRAYS) for leaf in jax.tree.leaves(found)):
            raise ValueError(
                f"{self.name} gives {what(found)} in the place of a map: it must give an array of "
                "numpy or JAX, of the images' shape."
            )
        shapes, wanted = (list(map(np.shape, jax.tree.leaves(own))) for own in (found, x))
        tree: Any = jax.tree.structure(x)
        if jax.tree.structure(found) != tree or shapes != wanted:
            given, like = (", ".join(map(str, s)) or "none" for s in (shapes, wanted))
            raise ValueError(
                f"{self.name} gives a map of shape {given} for images of shape {like}: it must "
                "have the images' shape."
            )
        return found


def explainer(given: Any) -> Explainer:
    """A method that is given as a value: one of this package, or what a user made."""
    if isinstance(given, Explainer):
        return given
    own = getattr(given, "explain", None)
    function, wanted = (given, "model") if own is None else (own, "reading")
    if not callable(function) or isinstance(given, type | Rule) or is_foreign(given):
        raise TypeError(
            "A method is a name, an lrpjax.methods.Method, an object with a name and "
            "explain(reading, x, target), or a function (model, x, target) to a map, got "
            f"{what(given)}."
        )
    if not takes(function, None, None, None):
        raise TypeError(
            f"What explains is called with ({wanted}, x, target), got {what(given)}"
            f"{written(function)}{_unmade(given)}."
        )
    call = own or (lambda reading, x, target: given(reading.model, x, target))
    name = getattr(given, "name", getattr(given, "__name__", type(given).__name__))
    facts = {fact: getattr(given, fact) for fact in ("colour", "sparse") if hasattr(given, fact)}
    return Own(str(name), call, **facts)


def _unmade(given: Any) -> str:
    """What to do with a function of the table, which makes a method."""
    made = getattr(given, "unchecked", None)
    return "" if made is None else f", which makes a method: call it, {made.__name__}()"
