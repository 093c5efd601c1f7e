"""Which primitives each kind of layer is read from."""

from __future__ import annotations

from . import attention, fold, known, layers


def covered() -> dict[str, tuple[str, ...]]:
    """Kind of layer -> primitives (for activations the functions recognised), in order.

    scale: by constants. add, product: of two values that depend on the input. norm: of a value and
    a statistic; softmax: behind exp and its sum.
    """
    found = {
        "conv": {"conv_general_dilated"},
        "dense": {"dot_general"},
        "scale": fold.STEPS,
        "sum": fold.SUMS,
        "max_pool": layers.MAXIMA,
        "add": layers.ADDITIONS,
        "activation": set(known.KNOWN) - {"identity"},
        "product": attention.PRODUCTS,
        "norm": attention.NORMALISING,
        "softmax": {"div"},
        "structure": layers.STRUCTURAL,
    }
    return {kind: tuple(sorted(names)) for kind, names in found.items()}
