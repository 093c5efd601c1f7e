"""What was measured, with the settings that gave it: printed, drawn, joined, and kept in files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from os import PathLike
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

from .arrays import decoded, encoded
from .checks import check_key
from .files import write_whole
from .reading import Unreadable, reading
from .tables import Cells, as_html, as_image, cells
from .text import columns, words
from .upwards import NoFigure, figure_of


@dataclass(frozen=True, eq=False, repr=False)
class Results:
    """Base class. rows: plain dictionaries; a subclass says what is in them.

    `print` shows them as a table, Jupyter with their figure, if they have one; `a + b` has the rows
    of both (and b's settings where they differ), and `sum` those of many.
    required: the columns without which rows are of something else. shown: the columns of the table;
    none: all that hold no lists.
    """

    settings: dict[str, Any]
    rows: list[dict[str, Any]]

    required: ClassVar[Sequence[str]] = ()
    shown: ClassVar[Sequence[str]] = ()

    def __add__(self, other: Self) -> Self:
        if type(other) is not type(self):
            raise TypeError(
                f"{type(self).__name__} results are joined with others of their class, not with "
                f"{type(other).__name__}."
            )
        return replace(self, **self._joined(other))

    def __radd__(self, other: Any) -> Self:
        """`sum` begins at 0."""
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def _joined(self, other: Self) -> dict[str, Any]:
        """The fields of `self + other`: a class with more of them says what becomes of these."""
        return {"settings": self.settings | other.settings, "rows": self.rows + other.rows}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Results) or type(other) is not type(self):
            return NotImplemented
        return encoded(self.content()) == encoded(other.content())

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self.rows)} rows>"

    def __str__(self) -> str:
        table = self._cells()
        return "\n\n".join([columns(table) if table else "no rows", *self._lines()])

    def _repr_html_(self) -> str:
        return as_html(self._cells(), self._lines()) + self._image()

    def _cells(self) -> Cells:
        """The printed table, as texts."""
        return cells(self.rows, self.shown)

    def _lines(self) -> list[str]:
        """What stands below the table."""
        return ["; ".join(f"{name}: {words(value)}" for name, value in self.settings.items())]

    def _image(self) -> str:
        """The figure as HTML; nothing where there is none, of the class or of these rows."""
        try:
            figure = self.plot()
        except (NoFigure, ValueError):
            return ""
        return as_image(figure._repr_png_(), f"Figure of {type(self).__name__} results")

    def plot(self, **options: Any) -> Any:
        """The figure of these results; the options are those of its function in `lrpjax.plots`."""
        return figure_of(self, **options)

    def content(self) -> dict[str, Any]:
        """All that the results hold, in dictionaries, lists, numbers, texts and arrays."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self:
        """The results with that `content`. Raises ValueError for rows of something else."""
        found = cls(**{field.name: content[field.name] for field in fields(cls)})
        if not isinstance(found.rows, list):
            raise Unreadable("its rows are no list")
        if not all(isinstance(own, dict) for own in (found.settings, *found.rows)):
            raise Unreadable("settings and rows are mappings")
        for row in found.rows:
            if missing := [name for name in cls.required if name not in row]:
                raise Unreadable(f"a row has no {missing[0]!r}")
        return found

    def save(self, path: str | PathLike) -> None:
        """Writes {"settings": ..., "rows": [...], ...} as JSON, whole or not at all; arrays are in
        it as base64."""
        write_whole(path, json.dumps(encoded(self.content()), indent=1, allow_nan=False))

    @classmethod
    def load(cls, path: str | PathLike) -> Self:
        """Reads what `save` wrote. Raises FileNotFoundError for a missing file, and ValueError for
        one that is damaged, of other results, or no file."""
        with reading(path, f"file of {cls.__name__} results") as file:
            return cls.from_content(decoded(json.loads(file.read_text(encoding="utf-8"))))


def key_text(key: jax.Array) -> list[int]:
    """The numbers of a random key. TypeError for what is none."""
    check_key(key)
    data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    return np.asarray(data).tolist()
