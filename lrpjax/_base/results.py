"""Measured rows with the settings that gave them, to and from JSON files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from .files import write_whole


@dataclass(frozen=True)
class Results:
    """Base class. rows: plain dictionaries; a subclass says what is in them."""

    settings: dict[str, Any]
    rows: list[dict[str, Any]]

    def save(self, path: str | PathLike) -> None:
        """Writes {"settings": ..., "rows": [...]} as JSON, whole or not at all."""
        content = {"settings": self.settings, "rows": self.rows}
        write_whole(path, json.dumps(content, indent=1, allow_nan=False))

    @classmethod
    def load(cls, path: str | PathLike) -> Self:
        """Reads what `save` wrote. ValueError if the file is something else."""
        try:
            content = json.loads(Path(path).read_text())
            found = cls(content["settings"], content["rows"])
            found._require_columns()
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(
                f"{str(path)!r} is not a file of {cls.__name__} results: {error!r}."
            ) from error
        return found

    def _require_columns(self) -> None:
        """Raises LookupError for rows of something else."""


def key_text(key: jax.Array) -> list[int]:
    data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    return np.asarray(data).tolist()
