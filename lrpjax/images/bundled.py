"""The images that ship with lrpjax."""

from __future__ import annotations

from importlib import resources

import numpy as np


def bundled_images() -> tuple[np.ndarray, np.ndarray]:
    """The 20 CIFAR-10 test images that ship with lrpjax: uint8 (20, 32, 32, 3), labels (20,)."""
    file = resources.files("lrpjax.models") / "assets" / "cifar10_images.npz"
    with file.open("rb") as stream, np.load(stream) as arrays:
        return arrays["images"], arrays["labels"]
