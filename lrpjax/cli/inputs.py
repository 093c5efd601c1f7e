"""What the commands that take images share: their options, and the images as a model takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .._base.text import arrays
from .common import class_number, say
from .factories import IMAGENET, Stated, model_named, stated_by, told
from .image_options import BUNDLED, Chosen

_NAMED = 10  # files, of those that are skipped


@dataclass(frozen=True)
class Inputs:
    """pixels: to draw, (N, H, W, 3) or (N, H, W, 1), uint8 or in [0, 1]. names: one per image.
    x: the images as the model takes them. labels: of each, None where none are given.
    settings: which model and which images, for the results."""

    pixels: Any
    names: list[str]
    x: Any
    labels: list[str] | None
    settings: dict[str, Any]

    def targets(self, network: Any) -> Any:
        """The class numbers of the labels (N,); None where there are none."""
        if self.labels is None:
            return None
        import jax
        import numpy as np

        shape: tuple[int, ...] = getattr(jax.eval_shape(network, self.x), "shape", ())
        if len(shape) != 2:
            raise ValueError("Labels need a model with one output (N, classes).")
        classes = stated_by(network).classes
        return np.array([class_number(label, classes, shape[1]) for label in self.labels])


def load(
    name: str, weights: str | None, chosen: Chosen, *, bundled: int = BUNDLED
) -> tuple[Any, Inputs]:
    """The model and its input images: those that are chosen, or as many of the bundled ones."""
    from ..images import read_labels
    from ..images.finding import require_there

    if name in IMAGENET and not chosen.images:
        raise ValueError(f"{name} needs photographs: give a folder or files with --images.")
    for source in chosen.images:
        require_there(source)  # before weights are fetched
    network = model_named(name, weights)
    if chosen.images:
        origin = [str(source) for source in chosen.images]
        loaded, x, line = read(network, chosen)
    else:
        origin = ["bundled CIFAR-10 test images"]
        loaded, x, line = _bundled(network, chosen, bundled, origin)
    settings = {
        "model": name,
        **({} if weights is None else {"weights": weights}),
        "images": origin,
        "n_images": len(loaded.names),
        "skipped_files": len(loaded.skipped),
        "input": line,
        **chosen.given(),
    }
    labels = None
    if chosen.labels is not None:
        skipped = [file for file, _ in loaded.skipped]
        labels = read_labels(chosen.labels, loaded.names, skipped)
    return network, Inputs(_pictures(loaded, x), loaded.names, x, labels, settings)


def read(network: Any, chosen: Chosen) -> tuple[Any, Any, str]:
    """The images of files, the same as the model takes them, and the line that was said of them."""
    from ..images import load_images

    stated = stated_by(network)
    if stated.size and chosen.size not in (None, stated.size):
        taken = "x".join(map(str, stated.size))
        raise ValueError(f"The model takes images of {taken} (its `image_size`): leave out --size.")
    loaded = load_images(
        chosen.images,
        size=stated.size or chosen.size,
        channels=stated.channels,
        crop=chosen.crop,
        background=chosen.background,
        values=chosen.values,
        raw_floats=stated.preprocess is None,
        **({} if chosen.max_pixels is None else {"max_pixels": chosen.max_pixels}),
    )
    return _said(loaded, stated, [str(source) for source in chosen.images])


def _bundled(
    network: Any, chosen: Chosen, count: int, origin: Sequence[str]
) -> tuple[Any, Any, str]:
    from ..images.bundled import load_bundled

    if given := chosen.given():
        option = f"--{next(iter(given)).replace('_', '-')}"
        raise ValueError(f"{option} is for images of your own: give them with --images.")
    stated = stated_by(network)
    loaded = load_bundled(count, size=stated.size, channels=stated.channels)
    return _said(loaded, stated, origin)


def _said(loaded: Any, stated: Stated, origin: Sequence[str]) -> tuple[Any, Any, str]:
    x = _prepared(loaded, stated)
    line = _line(loaded, x, origin)
    say(line)
    return loaded, x, line


def _prepared(loaded: Any, stated: Stated) -> Any:
    """The images as the model takes them. ValueError for a `preprocess` that fails."""
    import jax
    import jax.numpy as jnp

    if not loaded.levels:
        return jnp.asarray(loaded.pixels)
    if stated.preprocess is None:
        return jnp.asarray(loaded.pixels, jnp.float32) / 255
    with told("The model's `preprocess` failed"):
        x = stated.preprocess(loaded.pixels)
    count = len(loaded.pixels)
    leaves = jax.tree.leaves(x)
    wrong = [leaf for leaf in leaves if jnp.shape(leaf)[:1] != (count,)]
    if wrong or not leaves:
        shaped = wrong and all(hasattr(leaf, "dtype") for leaf in wrong)
        raise ValueError(
            f"The model's `preprocess` makes {arrays(wrong) if shaped else repr(x)} of {count} "
            f"images: it must return an array ({count}, ...)."
        )
    return x


def _line(loaded: Any, x: Any, origin: Sequence[str]) -> str:
    """14 images -> float32[14, 32, 32, 3] in 0..1, from photos; 2 skipped: name (why)."""
    import jax
    import jax.numpy as jnp

    leaves = jax.tree.leaves(x)
    low = min(float(jnp.min(leaf)) for leaf in leaves)
    high = max(float(jnp.max(leaf)) for leaf in leaves)
    count = len(loaded.names)
    images = f"{count} image{'s' * (count > 1)}"
    parts = [f"{images} -> {arrays(leaves)} in {low:.3g}..{high:.3g}, from {', '.join(origin)}"]
    if loaded.first_frames:
        parts.append(f"the first frame of {_some(loaded.first_frames)}")
    if skipped := [f"{file} ({reason})" for file, reason in loaded.skipped]:
        parts.append(f"{len(skipped)} skipped: {_some(skipped)}")
    return "; ".join(parts)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _pictures(loaded: Any, x: Any) -> Any:
    """What to draw: levels as they are, anything else by its mean over channels, from its least to
    its largest. None where there are no two axes to draw."""
    import numpy as np

    pixels = loaded.pixels
    if loaded.levels and (pixels.ndim == 3 or (pixels.ndim == 4 and pixels.shape[-1] in (1, 3))):
        return pixels if pixels.dtype == np.uint8 else pixels / 255
    values = pixels if pixels.ndim in (3, 4) else x
    if getattr(values, "ndim", 0) not in (3, 4):
        return None
    values = np.asarray(values, np.float64)
    if values.ndim == 4:
        values = values.mean(-1 if values.shape[-1] <= values.shape[1] else 1)
    low, high = values.min((1, 2), keepdims=True), values.max((1, 2), keepdims=True)
    return (values - low) / np.where(high > low, high - low, 1)
