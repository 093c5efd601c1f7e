"""Singular values of patterns: why PatternNet and PatternAttribution converge.

Both push relevance through a chain of matrices, PatternNet through the patterns A_l and
PatternAttribution through W_l * A_l. With M_l = U_l S_l V_l^T for each,

    M_1 M_2 ... M_L = U_1 S_1^{1/2} N_1 N_2 ... N_{L-1} S_L^{1/2} V_L^T,
    N_l = S_l^{1/2} V_l^T U_{l+1} S_{l+1}^{1/2}

so the larger sigma_1 / sigma_2 of the N_l, the faster the chain comes close to rank 1, as in the
power iteration. Sixt et al. 2020, section 4, for VGG-16. It makes convergence plausible and
proves nothing: ReLUs and pooling are left out, and of each kernel all taps but one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import log10, prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.progress import track
from .._base.results import Results
from .._base.tensors import listed, misfits
from ..graph import Graph
from ..graph.reading import Model, environment, read_at
from ..layers import make_linear
from ..patterns.fitting import KINDS, Patterns
from ..patterns.kernels import kernel
from ..patterns.wiring import Wiring, wiring

MATRICES = ("W", "A", "W*A")
LEADING = 10  # singular values that a row holds
_SAME = 1e-4  # of the largest weight: a BatchNorm is folded in another order of rounding


class PatternSpectrum(Results):
    """What was measured. A row has

    part: "layer" for the inputs x outputs matrix of a layer; "full" for all taps of its pattern,
    (taps * inputs) x outputs; "link" for N of two consecutive layers; "chain" for the product of
    the matrices of consecutive layers, from the first to one that no other follows, and
    "chain without first" for the product without the first of them, whose inputs are few.
    matrix: "W", "A" or "W*A". layers: their names, from the input on. shape: of the matrix.
    singular_values: the ten leading ones. ratio: sigma_1 / sigma_2, or None where the second is
    0 up to rounding in double precision, or does not exist.
    """

    required = "part matrix layers shape singular_values ratio".split()
    shown = "part matrix layers shape ratio".split()

    def select(self, part: str, matrix: str) -> list[dict[str, Any]]:
        """The rows of one part and one matrix, in the model's order."""
        return [row for row in self.rows if (row["part"], row["matrix"]) == (part, matrix)]

    @property
    def summary(self) -> list[dict[str, Any]]:
        """For each chain and matrix the logarithms (base 10) of sigma_1 / sigma_2.

        log10_links is that of the product over its links, log10_chain that of the chain's matrix,
        and log10_without_first that without its first layer. None where a ratio is.
        """
        found = []
        for chain in [row for row in self.rows if row["part"] == "chain"]:
            layers, matrix = chain["layers"], chain["matrix"]
            ratios = lambda part, names, matrix=matrix: [
                row["ratio"] for row in self.select(part, matrix) if row["layers"] in names
            ]
            found.append(
                {
                    "matrix": matrix,
                    "layers": layers,
                    "log10_links": _log10(ratios("link", list(map(list, pairwise(layers))))),
                    "log10_chain": _log10([chain["ratio"]]),
                    "log10_without_first": _log10(ratios("chain without first", [layers[1:]])),
                }
            )
        return found


def pattern_spectrum(model: Model, x: Any, patterns: Patterns) -> PatternSpectrum:
    """Singular values of a model's weights W, its patterns A, and W * A.

    x: an input of the model, of any batch size; patterns: of this model, from
    `lrpjax.patterns.fit` or `.load`.
    A layer's matrix has a row for each input feature and a column for each output feature. Of a
    convolution it is the tap in the centre of the kernel, number k // 2 of k along each axis (the
    later of two in the middle), whatever the stride; of a grouped one it is block-diagonal. Of a
    dense layer that reads a flattened map it is the rows that read the position n // 2 of n along
    each axis of the map; of any other dense layer all rows.
    Layers are consecutive where one reads the other through activations, pooling and moved values
    alone. Behind an addition or any other join of paths, a normalisation or a scale of its own, and
    where features are mixed or lost on the way, a new chain starts: in a residual network each
    branch of a block is one.
    Raises ValueError for patterns of another model, or where a layer has none.
    """
    if not isinstance(patterns, Patterns):
        raise TypeError(
            f"The patterns come from lrpjax.patterns.fit or .load, got {type(patterns).__name__}."
        )
    reading = read_at(model, x, fold=True)
    graph = reading.graph
    found = _layers(graph, reading.consts, reading.leaves, patterns)
    layers = {a.name: found[a.name] for a in graph.layers if a.name in found}
    if other := [name for name, layer in layers.items() if layer["changed"]]:
        raise ValueError(
            f"The patterns were fitted on other weights of {listed(other)}: fit them on this very "
            "model with lrpjax.patterns.fit."
        )
    rows_read = {
        name: _rows_read(layer["wiring"], layer["W"].shape[-2]) for name, layer in layers.items()
    }
    before = _consecutive(layers, rows_read)
    rows = []
    for matrix in track(MATRICES, "spectra of patterns"):
        spectra = {}
        for name, layer in layers.items():
            factors = [_centre(layer[m], rows_read[name]) for m in matrix.split("*")]
            spectra[name] = _Spectrum.of(np.prod(factors, axis=0))
        rows += _matrix_rows(matrix, spectra, before)
    for name, layer in layers.items():
        taps = np.asarray(layer["A"], np.float64).reshape(-1, layer["A"].shape[-1])
        values = np.linalg.svd(taps, compute_uv=False)
        rows.append(_row("full", "A", [name], taps.shape, values))
    return PatternSpectrum({"mode": patterns.mode, "layers": list(layers)}, rows)


@partial(jax.jit, static_argnums=0)
def _layers(graph: Graph, consts: list, leaves: list, patterns: Patterns) -> dict[str, dict]:
    """Of each layer with weights the kernels of W and A, what their rows read, and whether its
    weights are not those that the pattern was fitted on."""
    env = environment(graph, consts, leaves)
    ops = {a.name: make_linear(graph.program, a, env) for a in graph.layers if a.kind in KINDS}
    shapes = lambda arrays: {name: array.shape for name, array in arrays.items()}
    if wrong := misfits(shapes(patterns.a), shapes({name: op.w for name, op in ops.items()})):
        raise ValueError(
            f"The patterns do not fit the model: {listed(wrong)}; fit them on this very model with "
            "lrpjax.patterns.fit."
        )
    return {
        name: {
            "W": kernel(op, op.w),
            "A": kernel(op, patterns.a[name]),
            "wiring": wiring(graph, env, op, ops),
            "changed": jnp.abs(op.w - patterns.w[name]).max() > _SAME * jnp.abs(op.w).max(),
        }
        for name, op in ops.items()
    }


def _rows_read(found: Wiring, inputs: int) -> np.ndarray:
    """The rows of a kernel that read the centre of the map, in the order of its features.

    All of them, where they read one feature or none is known.
    """
    feature = np.ones(inputs) if found.feature is None else np.asarray(found.feature)
    central = feature > 0
    if len(np.unique(feature[central])) < 2:
        return np.arange(inputs)
    for place in map(np.asarray, found.places):
        occupied = np.unique(place[central])
        central &= place == occupied[len(occupied) // 2]
    (chosen,) = central.nonzero()
    return chosen[np.argsort(feature[chosen], kind="stable")]


def _centre(kernel: jax.Array, rows: np.ndarray) -> np.ndarray:
    tap = kernel[tuple(n // 2 for n in kernel.shape[:-2])]
    return np.asarray(tap, np.float64)[rows]


def _consecutive(layers: dict[str, dict], rows_read: dict[str, np.ndarray]) -> dict[str, str]:
    """The layer before each that has one whose outputs are its rows, each once."""
    before = {}
    for name, layer in layers.items():
        source = layer["wiring"].before
        if source is not None:
            arrived = np.asarray(layer["wiring"].feature)[rows_read[name]]
            columns = layers[source]["W"].shape[-1]
            if np.array_equal(arrived, np.arange(1, columns + 1)):
                before[name] = source
    return before


@dataclass(frozen=True)
class _Spectrum:
    """A matrix and its singular value decomposition u s vt."""

    matrix: np.ndarray
    u: np.ndarray
    s: np.ndarray
    vt: np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray) -> _Spectrum:
        return cls(matrix, *np.linalg.svd(matrix, full_matrices=False))


def _matrix_rows(
    matrix: str, spectra: dict[str, _Spectrum], before: dict[str, str]
) -> list[dict[str, Any]]:
    rows = [_row("layer", matrix, [name], x.matrix.shape, x.s) for name, x in spectra.items()]
    for name, source in before.items():
        a, b = spectra[source], spectra[name]
        link = np.sqrt(a.s)[:, None] * (a.vt @ b.u) * np.sqrt(b.s)
        values = np.linalg.svd(link, compute_uv=False)
        rows.append(_row("link", matrix, [source, name], link.shape, values, [a.s, b.s], 0.5))
    for chain in _chains(list(spectra), before):
        for part, names in (("chain", chain), ("chain without first", chain[1:])):
            product = spectra[names[-1]].matrix
            for name in reversed(names[:-1]):  # from the side where the matrix is small
                product = spectra[name].matrix @ product
            values = np.linalg.svd(product, compute_uv=False)
            factors = [spectra[name].s for name in names]
            rows.append(_row(part, matrix, names, product.shape, values, factors))
    return rows


def _chains(names: list[str], before: dict[str, str]) -> list[list[str]]:
    """The consecutive layers that end in each layer that no other follows; two at least."""
    chains = []
    for last in names:
        if last in before and last not in before.values():
            chain = [last]
            while chain[0] in before:
                chain.insert(0, before[chain[0]])
            chains.append(chain)
    return chains


def _row(
    part: str,
    matrix: str,
    layers: list[str],
    shape: tuple[int, ...],
    values: np.ndarray,
    factors: list[np.ndarray] | None = None,
    power: float = 1.0,
) -> dict[str, Any]:
    """factors: the singular values of the matrices it is a product of, each to a power."""
    norm = prod(float(s[0]) ** power for s in factors or [values])
    longest = max(*shape, *(len(s) for s in factors or []))
    rounding = longest * float(np.finfo(np.float64).eps) * norm  # that of LAPACK's rank, and more
    resolved = len(values) > 1 and values[1] > rounding
    return {
        "part": part,
        "matrix": matrix,
        "layers": list(layers),
        "shape": list(shape),
        "singular_values": [float(s) for s in values[:LEADING]],
        "ratio": float(values[0] / values[1]) if resolved else None,
    }


def _log10(ratios: list[float | None]) -> float | None:
    known = [log10(ratio) for ratio in ratios if ratio is not None]
    return sum(known) if len(known) == len(ratios) else None
