"""Arrays in JSON: numpy's own format in base64, which keeps every digit, type and shape.

It is read without pickle, and one file holds all, so that it is there whole or not at all.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from io import BytesIO
from typing import Any

import jax
import numpy as np

from .npy import read_npy

_KEY = "npy"


def encoded(tree: Any) -> Any:
    """Dictionaries, lists and tuples with all arrays in them as JSON takes them."""
    if isinstance(tree, dict):
        return {name: encoded(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [encoded(value) for value in tree]
    return _text(np.asarray(tree)) if isinstance(tree, np.ndarray | jax.Array) else tree


def decoded(tree: Any) -> Any:
    """What `encoded` made, with its arrays. ValueError for an array that is damaged."""
    if isinstance(tree, list):
        return [decoded(value) for value in tree]
    if not isinstance(tree, dict):
        return tree
    if tree.keys() == {_KEY} and isinstance(tree[_KEY], str):
        return read_npy(b64decode(tree[_KEY], validate=True)).copy()
    return {name: decoded(value) for name, value in tree.items()}


def _text(array: np.ndarray) -> dict[str, str]:
    if array.dtype.kind == "V":  # bfloat16 and its like, which the format does not know
        array = array.astype(np.float32)
    stream = BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
    return {_KEY: b64encode(stream.getvalue()).decode()}
