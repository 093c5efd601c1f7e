"""From a seed to a network."""

from __future__ import annotations

import numpy as np

from .blocks import Block
from .blocks_modern import BLOCKS
from .description import Net
from .draft import Draft

CLASSES = 3


def draw(seed: int, blocks: int = 2, holding: Block | None = None) -> Net:
    """One to `blocks` parts on an image, on tokens or on a vector, and a head. Two examples.

    holding: one more part, at any place among them.
    """
    d = Draft(seed, fold=bool(np.random.default_rng([seed, 1]).random() < 0.75))
    shape = d.choose((4, 4, 2), (4, 3, 4), (3, 4), (4, 4), (5,), (4,))
    i = d.add("input", shape=shape)
    if d.chance():
        i = d.layer(i, 4)
    number = int(d.rng.integers(1, blocks + 1))
    place = int(d.rng.integers(number + 1)) if holding else None
    for k in range(number + 1):
        i = holding(d, i) if holding and k == place else i
        i = d.choose(*BLOCKS[len(d.shape(i))])(d, i) if k < number else i
    i = _head(d, i)
    x = d.rng.normal(size=(2, *shape))
    clips = any(node.get("name") in ("clip", "clip_wide", "minimum") for node in d.nodes)
    x = x * 20 if clips and d.chance() else x  # so that they cut
    return d.net(np.abs(x) if d.chance(0.2) else x)


def _head(d: Draft, i: int) -> int:
    """To a vector by a mean, a maximum, the first token or all of them; then to the logits."""
    rank = len(d.shape(i))
    if rank > 1:
        axes = tuple(range(rank - 1))
        kind = d.choose("mean", "mean", "max_over", "flatten", "first")
        if kind in ("mean", "max_over"):
            i = d.add(kind, i, axes=axes)
        elif kind == "first" and rank == 2:
            i = d.add("take", i, slice=(0, 0))
        else:
            i = d.add("reshape", i, shape=(int(np.prod(d.shape(i))),))
    i = d.layer(i, 4) if d.chance(0.2) else i
    return d.dense(i, CLASSES)
