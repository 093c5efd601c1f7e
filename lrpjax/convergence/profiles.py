"""The spectrum of a method's chain beside its CSC, layer by layer: do they tell the same story?

Two Gaussian vectors sent through a matrix with singular values s_1 >= s_2 >= ... come out at the
angle (s_2 / s_1) |a - b|, a and b independent Cauchy variables, if s_2 / s_1 is small and what
follows s_2 smaller yet. Half of the pairs then have 1 - |cos| below

    2 (s_2 / s_1)^2

and many further singular values of one size only add to it. Like is compared with like: over the
whole map the singular values of the whole chain, and at a location those of the block that leads to
its channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base import checks
from .._base.results import Results, key_text
from .._base.work import chunks
from ..graph import Graph
from ..graph.places import output_layer, values_at
from ..graph.reading import Model, Source, source_of
from ..matrices import one_example
from ..methods.lookup import resolve_chain
from ..propagation.baselines import of_images
from ..propagation.descent import descent
from ..propagation.method import Method
from .cosines import Scope, csc, reached_layers
from .locations import locations
from .spectrum import lyapunov, singular_values

_SKETCH = 64  # units of a chain above which blocks are known by as many Gaussian vectors


class Profile(Results):
    """One row for each layer: method, start, layer, and medians over images (and locations) of
    map_ratio and location_ratio (sigma_1 / sigma_2), map_expected and location_expected (the
    1 - |cos| that it leads to), map_csc and location_csc (the one measured: 1 - median |cos|), and
    gap and total_gap (of `lyapunov`: of the link that ends here, and of all down to here; None
    where no link ends). None for a ratio with a sigma_2 that is rounding.
    """

    required = (
        "method start layer map_ratio map_expected map_csc "
        "location_ratio location_expected location_csc gap total_gap"
    ).split()


def profile(
    model: Model,
    images: Any,
    method: str | Method,
    *,
    key: jax.Array,
    start: str | None = None,
    layers: Sequence[str] | None = None,
    vectors: int = 20,
) -> Profile:
    """The singular values of Z from `start` to each layer, the growth by links, and CSC.

    images: a batch (N, ...); the measures are of each, their medians of all. vectors: as in `csc`.
    Methods without links (DeepLIFT) have no gaps. Raises as `csc` and `lrpjax.chain` do.
    """
    method = resolve_chain(method, model)
    checks.check_images(images)
    checks.check_key(key)
    checks.check_names("layers", layers)
    source = source_of(model, images)
    keys = jax.random.split(key, 3)
    first = of_images(method, images, np.arange(1))
    reading = one_example(source, images[:1], first)
    start = start or output_layer(reading.graph)
    names = list(layers or reached_layers(reading, first, start)[1:])
    measure = partial(csc, source, images, method, key=keys[0], start=start, layers=names)
    scopes: tuple[Scope, ...] = ("map", "location")
    cosines = {scope: measure(vectors=vectors, over=scope).rows for scope in scopes}
    whole = singular_values(source, images, method, key=keys[1], start=start, layers=names, k=2)
    blocks = _block_ratios(source, images, method, keys[1], start, names)
    gaps: dict[str, list[dict]] = {}
    if method.baseline is None:
        for row in lyapunov(source, images, method, key=keys[2], start=start).rows:
            gaps.setdefault(row["layer"], []).append(row)
    rows = []
    for name, at_map, at_location in zip(names, cosines["map"], cosines["location"], strict=True):
        ratios = [r["ratio"] if r["resolved"] else np.inf for r in whole.rows if r["layer"] == name]
        found: dict[str, Any] = {"method": method.name, "start": start, "layer": name}
        for scope, values, measured in (
            ("map", np.asarray(ratios), at_map),
            ("location", blocks[name], at_location),
        ):
            ratio = np.median(values) if len(values) else np.inf  # where nothing arrives
            found[f"{scope}_ratio"] = _finite(ratio)
            found[f"{scope}_expected"] = _finite(2 / ratio**2) or None
            found[f"{scope}_csc"] = measured["one_minus_median"]
        for field in ("gap", "total_gap"):
            known = [link[field] for link in gaps.get(name, []) if link[field] is not None]
            found[field] = float(np.median(known)) if known else None
        rows.append(found)
    return Profile({"images": len(images), "vectors": vectors, "key": key_text(key)}, rows)


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _block_ratios(
    source: Source, images: Any, method: Method, key: jax.Array, start: str, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """sigma_1 / sigma_2 of the block of each location, over all images, by layer."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for i, some in enumerate(chunks(len(images), 1, f"blocks, {method.name}")):
        at = of_images(method, images, some.index)
        reading = one_example(source, images[some.slice], at)
        graph = reading.graph
        way = descent(reading, at, start, names)
        for op in map(way.to, names):
            (value,) = values_at(graph, start, [op.stop])
            n = op.shape[0]
            units = jnp.eye(n, dtype=op.dtype)
            if n > _SKETCH:
                units = jax.random.normal(jax.random.fold_in(key, i), (n, _SKETCH), op.dtype)
            maps = op.rmatmat(units).T
            ratios = _ratios(graph, value, op.in_shapes[0], maps)
            found[op.stop].append(ratios[~np.isnan(ratios)])
    return {name: np.concatenate(parts).astype(np.float64) for name, parts in found.items()}


def _ratios(graph: Graph, value: int, shape: tuple[int, ...], maps: jax.Array) -> np.ndarray:
    """sigma_1 / sigma_2 of each location's block, of maps (k, n_in); infinite where sigma_2 is
    rounding, NaN where nothing arrives."""
    blocks = jnp.moveaxis(locations(graph, value, maps.reshape(-1, *shape))[:, 0], 1, 0)
    # numpy: two batched decompositions at once, of two threads, wait for each other in XLA on CPU.
    s = np.linalg.svd(np.asarray(blocks), compute_uv=False)
    if s.shape[1] < 2:
        return np.full(len(s), np.inf)
    first, second = s[:, 0], s[:, 1]
    above = second > 10 * np.finfo(s.dtype).eps * first  # of rounding
    ratio = np.divide(first, second, out=np.full_like(first, np.inf), where=above)
    return np.where(first > 0, ratio, np.nan)
