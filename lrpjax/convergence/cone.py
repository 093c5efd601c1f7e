"""A certificate: by how much relevance of the later layers can change the map at all.

For one example, with its activations and switches fixed, the maps of all non-negative relevance at
a layer form a cone, and its widest angle is that of two extreme rays, the maps of single units. It
is computed, not sampled, where these fit in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._base import checks
from .._base.compat import FOR_ONE_RUN
from .._base.progress import track
from .._base.results import Results, key_text
from .._base.tables import Cells
from ..graph import Graph
from ..graph.places import output_layer, values_at
from ..graph.reading import Model, source_of
from ..matrices import one_example
from ..methods.lookup import resolve_chain
from ..planning.claims import require
from ..propagation.descent import Descent, descent
from ..propagation.method import Method
from ..propagation.operators import MEMORY, ChainOperator
from .cosines import one_minus_cosines
from .locations import locations, place
from .rays import NO_ANGLE, Widest, degrees, widest
from .theorem import conditions, unit_name

_PAIRS = 1e10  # of rays, over all locations, that are compared at most
_CONFIDENCE = 0.99
_ROUNDING = 1e-4  # of the two angles that are compared
QUANTILES = (5, 25, 50, 75, 95, 99, 100)


class Certificate(Results):
    """Two rows, scope "map" and scope "location", and one of scope "link" for each link.

    A row has method, start and layer. Those of the first two have angle (the widest, in degrees, of
    the maps of any two non-negative relevances; over the locations the worst), one_minus_cos (of
    it), pair (the units it belongs to), place (the location), units (that send anything), exact
    (whether all of them were compared; else angle holds for all but a share `beyond` of their
    pairs, with 99 % confidence), quantiles (of the widest angle over the locations) and
    gaussian_share (of pairs of Gaussian relevance, which has both signs, whose maps are no farther
    apart, up to sign). For the links see `theorem.conditions`; the last of them is the whole chain.
    `sentence` says it in words. Of several, joined by `+`, `each` are the certificates one by one.
    """

    required = "scope method start layer".split()

    @property
    def each(self) -> list[Certificate]:
        begins = [i for i, row in enumerate(self.rows) if row["scope"] == "map"]
        ends = pairwise([*begins, len(self.rows)])
        return [Certificate(self.settings, self.rows[i:j]) for i, j in ends]

    @property
    def map(self) -> dict[str, Any]:
        return self._only("map")

    @property
    def location(self) -> dict[str, Any]:
        return self._only("location")

    @property
    def links(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["scope"] == "link"]

    @property
    def sentence(self) -> str:
        return _sentence(self.map, self.location)

    def _only(self, scope: str) -> dict[str, Any]:
        found = [row for row in self.rows if row["scope"] == scope]
        if len(found) != 1:
            raise ValueError(f"There are {len(found)} certificates: take one of `each`.")
        return found[0]

    def _cells(self) -> Cells:
        several = len(self.each) > 1
        method = lambda row: {"method": row["method"]} if several else {}
        return [method(row) | _shown(row) for row in self.links]

    def _lines(self) -> list[str]:
        several = len(self.each) > 1
        name = lambda one: f"{one.map['method']}: " if several else ""
        return [*(name(one) + one.sentence for one in self.each), *super()._lines()]


def certificate(
    model: Model,
    x: Any,
    method: str | Method,
    *,
    key: jax.Array,
    start: str | None = None,
    stop: str = "input",
    vectors: int = 40,
    memory_limit: float = MEMORY,
) -> Certificate:
    """The widest angle between the maps at `stop` of any two non-negative relevances at `start`.

    x: a batch of one. start: a layer (default: the model's output). Over the whole map, and at each
    location over the channels, as `csc` measures it. vectors: how many Gaussian ones are drawn.
    memory_limit: in bytes, of the matrix of rays; above, as many units as fit are drawn at random.
    It holds for this example, with its activations as they are. Raises as `lrpjax.chain` does, and
    ValueError where fewer than two units send anything to `stop`.
    """
    method = resolve_chain(method, model)
    checks.check_key(key)
    checks.check_count(2, vectors=vectors)  # angles are of pairs
    source = source_of(model, x)
    reading = one_example(source, x, method)
    require(source, x, method)
    start = start or output_layer(reading.graph)
    way = descent(reading, method, start, [stop])
    op, links = way.to(stop), _links(way, stop)
    if len(op.in_shapes) > 1:
        raise ValueError(
            f"The model has {len(op.in_shapes)} inputs, whose maps are of different kinds: give an "
            "inner layer for stop."
        )
    (value,) = values_at(reading.graph, start, [stop])
    draw, probe, drawn = _drawn(key, (op.shape[0], vectors), op.dtype)
    places = _places(reading.graph, value, op.in_shapes[0])
    rays = _rays(op, partial(way.dense, [stop]), places, memory_limit, draw)
    if rays.sending < 2:
        raise ValueError(
            f"Fewer than two units of {start!r} send relevance to {stop!r}: there is no angle."
        )
    whole = rays.maps if rays.complete else None
    mixed = op.rmatmat(drawn).T if whole is None else np.asarray(drawn).T @ whole
    rows = _angles(reading.graph, op, value, rays, mixed)
    for row in rows:
        row |= {"method": method.name, "start": start, "layer": stop}
    told = track(links, f"certificate, {method.name}")
    found = [conditions(link, probe, memory_limit) for link in told]
    proved = bool(found) and all(row["non_negative"] == "yes" for row in found)
    found.append(conditions(op, probe, memory_limit, dense=whole, proved=proved))
    rows += [{"scope": "link", "method": method.name, **row} for row in found]
    return Certificate({"vectors": vectors, "key": key_text(key)}, rows)


@partial(jax.jit, static_argnums=(1, 2), compiler_options=FOR_ONE_RUN)
def _drawn(key: jax.Array, shape: tuple[int, int], dtype: Any) -> tuple[jax.Array, ...]:
    """A key for units, one for the links, and Gaussian relevance in columns."""
    draw, gaussian, probe = jax.random.split(key, 3)
    return draw, probe, jax.random.normal(gaussian, shape, dtype)


def _links(way: Descent, stop: str) -> list[ChainOperator]:
    """None where there are none, or one, which is the whole."""
    try:
        found = way.links(stop)
    except ValueError:
        return []
    return found if len(found) > 1 else []


class Rays(NamedTuple):
    """The maps (units, n_in) of single units of a layer, how many of these send anything, and
    whether all units of the layer are there."""

    units: np.ndarray
    maps: Any
    sending: int
    complete: bool


def _rays(
    op: ChainOperator, dense: Callable, places: int, memory_limit: float, key: jax.Array
) -> Rays:
    """Of all units, or of as many as can be held and compared, drawn at random. dense: makes Z."""
    n_out, n_in = op.shape
    fits = int(memory_limit // (n_in * jnp.dtype(op.dtype).itemsize))
    most = max(2, min(n_out, fits, int((_PAIRS / places) ** 0.5)))
    if most < n_out:
        units = np.sort(np.asarray(jax.random.permutation(key, n_out))[:most])
        maps = op.rmatmat(jax.nn.one_hot(units, n_out, axis=0, dtype=op.dtype)).T
    else:
        (maps,) = dense(memory_limit=memory_limit)
        units = np.arange(n_out)
    return Rays(units, maps, int(np.asarray(maps).any(1).sum()), most >= n_out)


def _angles(
    graph: Graph, op: ChainOperator, value: int, rays: Rays, mixed: Any
) -> list[dict[str, Any]]:
    """The rows of the whole map and of the locations. mixed (vectors, n_in): maps of Gaussians."""
    rows = []
    measured = jax.device_get(_measured(graph, value, op.in_shapes[0], rays.maps, mixed))
    for scope, (found, distances) in zip(("map", "location"), measured, strict=True):
        apart, drawn = (np.asarray(a, np.float64) for a in (found.one_minus_cos, distances))
        directed = apart != NO_ANGLE
        if not directed.any():
            raise ValueError(f"At no location of {op.stop!r} do two units of {op.start!r} meet.")
        worst = int(apart.argmax())
        pair = [rays.units[int(p[worst])] for p in (found.first, found.second)]
        counted = (drawn != NO_ANGLE) & directed
        inside = (drawn <= apart * (1 + _ROUNDING))[counted]
        angles = degrees(apart[directed])
        quantiles = zip(QUANTILES, np.percentile(angles, QUANTILES), strict=True)
        rows.append(
            {
                "scope": scope,
                "angle": float(angles.max()),
                "one_minus_cos": float(apart[worst]),
                "pair": [unit_name(op.start, unit, op.out_shape) for unit in pair],
                "place": place(graph, value, worst) if scope == "location" else None,
                "places": len(angles),
                "units": rays.sending,
                "exact": rays.complete and _is_bound(float(apart[worst])),
                "beyond": None if rays.complete else _beyond(rays.sending),
                "quantiles": {str(q): float(angle) for q, angle in quantiles},
                "gaussian_share": float(inside.mean()) if inside.size else None,
            }
        )
    return rows


@partial(jax.jit, static_argnums=(0, 1, 2))
def _measured(
    graph: Graph, value: int, shape: tuple[int, ...], maps: jax.Array, mixed: jax.Array
) -> list[tuple[Widest, jax.Array]]:
    """Over the whole map and at the locations (sets): the widest pairs of maps (units, n_in), and
    1 - |cos| of all pairs of mixed ones (pairs, sets)."""
    at_places = lambda maps: locations(graph, value, maps.reshape(-1, *shape))[:, 0]
    whole, local = (maps[None], mixed[:, None]), (at_places(maps), at_places(mixed))
    sets = [whole, (jnp.moveaxis(local[0], 1, 0), local[1])]
    return [(widest(own), one_minus_cosines(drawn)) for own, drawn in sets]


def _is_bound(one_minus_cos: float) -> bool:
    """Whether the widest pair bounds the cone: up to 90 degrees (see `rays`)."""
    return one_minus_cos <= 1 + _ROUNDING


def _beyond(units: int) -> float:
    """The share of pairs that may be farther apart than the widest of units // 2 drawn ones: a
    larger share p would have left none among them with probability (1 - p)^(units // 2) < 1 %."""
    return 1 - (1 - _CONFIDENCE) ** (1 / (units // 2))


def _places(graph: Graph, value: int, shape: tuple[int, ...]) -> int:
    like = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return jax.eval_shape(partial(locations, graph, value), like).shape[2]


def _sentence(whole: dict[str, Any], local: dict[str, Any]) -> str:
    start, stop = whole["start"], whole["layer"]
    scopes = [whole] if local["places"] == 1 else [whole, local]
    bounds, claims = [], []
    for row in scopes:
        if _is_bound(row["one_minus_cos"]):
            bounds.append(_bound(row))
        else:
            a, b = row["pair"]
            where = "over the whole map" if row is whole else f"at location {row['place']}"
            claims.append(
                f"There is no bound {where}: what {a} and {b} send to {stop} is "
                f"{row['angle']:.0f} degrees apart."
            )
    if bounds:
        held = f"Whatever non-negative relevance {start} holds, at {stop} {' and '.join(bounds)}"
        if whole["beyond"] is not None:
            held += (
                f" (of {whole['units']} units drawn at random: with 99 % confidence at most "
                f"{100 * whole['beyond']:.2g} % of the pairs of units are farther apart)"
            )
        claims.insert(0, held + ".")
    mixed = [
        f"{100 * row['gaussian_share']:.0f} % "
        + ("over the whole map" if row is whole else "at a location")
        for row in scopes
        if row["gaussian_share"] is not None and _is_bound(row["one_minus_cos"])
    ]
    if mixed:
        claims.append(
            "Of pairs of Gaussian relevance, which has both signs, "
            f"{' and '.join(mixed)} are no farther apart than that, up to sign."
        )
    return " ".join(claims)


def _bound(row: dict[str, Any]) -> str:
    if row["scope"] == "map":
        return f"the whole map keeps its direction within {row['angle']:.2g} degrees"
    half = row["quantiles"]["50"]
    return f"each location its own within {row['angle']:.2g} (half of them within {half:.2g})"


def _shown(row: dict[str, Any]) -> dict[str, str]:
    zero = f"{row['zero_columns']}" + (
        f" ({row['zero_units'][0]}, ...)" if row["zero_units"] else ""
    )
    share = "" if row["overlap"] is None else f"{100 * row['overlap']:.0f} %"
    number = lambda value: "" if value is None else f"{value:.4f}"
    return {
        "link": f"{row['start']} -> {row['layer']}",
        "non-negative": row["non_negative"] + (f" ({row['negative']})" if row["negative"] else ""),
        "zero columns": zero,
        "overlapping": share + (f" (not {row['orthogonal']})" if row["orthogonal"] else ""),
        "Birkhoff": number(row["birkhoff"]),
    }
