"""Rules that users have given to primitives which no kind of layer covers.

The one table of this library that is not constant: what is registered holds for the whole process,
as in JAX's own registries. A graph carries the rules of its layers, so compiled work is never
shared between before and after.
"""

from __future__ import annotations

from typing import Any

REGISTERED: dict[str, Any] = {}  # primitive -> rule
