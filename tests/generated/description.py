"""What a generated network is: a list of nodes, which know nothing of JAX.

Shapes are those of one example: (C,) vectors, (T, C) tokens, (H, W, C) images. Values are numpy
arrays with the batch in front. A node of kind "input" comes first, the last node is the output.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

Params = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Node:
    """kind: a key of `forward.FORWARD`. reads: the nodes it is computed from. param: its entry in
    the parameters. options: what the kind wants besides.

    inside: this node is a step of a later one, which spells all of them in one (the centring of a
    LayerNorm); `spelled_from` are the nodes that the whole reads.
    """

    kind: str
    reads: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    param: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    inside: bool = False
    spelled_from: tuple[int, ...] | None = None

    def __getitem__(self, option: str) -> Any:
        return self.options[option]

    def get(self, option: str, default: Any = None) -> Any:
        return self.options.get(option, default)


@dataclass(frozen=True, eq=False)
class Net:
    """nodes, parameters, an input of N examples, and what may be asked of it.

    fold: whether affine maps beside a product are one layer with it. refused: families of methods
    that have no answer here ("deeplift" for products and norms). loops: (first node, nodes in one
    round, rounds) of parts that a scan can run.
    """

    seed: int
    nodes: tuple[Node, ...]
    params: Params
    x: np.ndarray
    fold: bool = True
    refused: frozenset[str] = frozenset()
    loops: tuple[tuple[int, int, int], ...] = ()

    @property
    def biased(self) -> bool:
        """Whether x times s gives anything but the output times s."""
        homogeneous = {"relu", "leaky_relu", "prelu"}
        for node in self.nodes:
            own = self.params.get(node.param, {})
            if "bias" in own or node.kind in (
                "affine",
                "norm",
                "attention",
                "mul",
                "where",
                "own",
                "unknown",
            ):
                return True
            if node.kind == "act" and node["name"] not in homogeneous:
                return True
        return False

    def readers(self, i: int) -> list[int]:
        return [k for k, node in enumerate(self.nodes) if i in node.reads]

    def with_params(self, params: Params) -> Net:
        return replace(self, params=params)

    def __str__(self) -> str:
        rows = []
        for i, node in enumerate(self.nodes):
            own = "".join(f", {k}={v}" for k, v in node.options.items() if np.ndim(v) == 0)
            rows.append(f"{i:3} {node.kind}{list(node.reads)} {node.param} {node.shape}{own}")
        return "\n".join(rows)
