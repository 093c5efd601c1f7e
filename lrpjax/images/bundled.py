"""The images that ship with lrpjax."""

from __future__ import annotations

from importlib import resources

import numpy as np

from ..models.cifar import CLASSES
from .loading import Images
from .sizes import Size, fit, with_channels


def bundled_images() -> tuple[np.ndarray, np.ndarray]:
    """The 20 CIFAR-10 test images that ship with lrpjax: uint8 (20, 32, 32, 3), labels (20,)."""
    file = resources.files("lrpjax.models") / "assets" / "cifar10_images.npz"
    with file.open("rb") as stream, np.load(stream) as arrays:
        return arrays["images"], arrays["labels"]


def load_bundled(count: int, *, size: Size | None, channels: int | None) -> Images:
    """So many of them by the names of their classes, in the size and channels that a model takes.
    ValueError for a model that takes other than 1 or 3 channels."""
    pixels, labels = (array[:count] for array in bundled_images())
    if channels not in (None, 1, 3):
        raise ValueError(
            f"The model takes {channels} channels, and the bundled images have 3: give others with "
            "--images."
        )
    fitted = np.stack([fit(with_channels(p, channels or 3), size, crop=False) for p in pixels])
    names = [f"cifar10-{i}-{CLASSES[label]}" for i, label in enumerate(labels)]
    return Images(fitted, names, [], True, [])
