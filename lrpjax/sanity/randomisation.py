"""Parameter randomisation (MPRT): does the map change when the parameters are made random?

Layer by layer the model's parameters are replaced by random ones, and each time the map is compared
with the map of the model as it was. A map that stays the same does not depend on what was learnt
there. Adebayo et al. 2018; as run in Sixt et al. 2020, section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, product
from operator import itemgetter
from typing import Any

import jax
import numpy as np
from scipy.stats import entropy

from .._base import checks
from .._base.progress import track
from .._base.results import key_text
from ..graph.reading import Model, Reading
from ..methods.lookup import Explainer, resolve
from ..methods.smooth import SmoothGrad
from ..methods.smooth import noise as noise_of
from ..program.evaluation import as_number
from .cascades import Cascade, cascade_of
from .maps import Subject
from .parameters import Order, parameters, randomised, sharing, stops, unreached
from .result import Sanity, summary
from .similarity import colour_of, measures, structured
from .states import States

STATISTICS = (
    "BatchNorm's mean, variance, scale and shift are parameters of the convolution in front; "
    "what has no negative entry (a variance) stays so"
)


def mprt(
    model: Model,
    images: Any,
    method: Any,
    *,
    key: jax.Array,
    target: Any = None,
    order: Order = "output",
    layers: Sequence[str] | None = None,
    randomiser: str = "gaussian",
    init: Callable[[jax.Array], Callable] | None = None,
    draws: int = 1,
    similarity: str | Sequence[str] = "ssim",
    colour: str = "auto",
    multiplier: str | None = None,
    chunk: int | None = None,
) -> Sanity:
    """The similarity of maps before and after parameters are randomised, layer by layer.

    images: a batch (N, ...). method: what `lrpjax.attribute` takes, or a function (model, x,
    target) to a map of x's shape. target: a class, N classes, or None for the given model's
    prediction, which stays the explained class. order: cascading from the "output" or from the
    "input", or "single": one layer at a time. layers: where to measure, by the names of
    `lrpjax.plan` (default: all with parameters). randomiser: "gaussian" of each array's own mean
    and deviation, or "permutation" of its entries; init: instead, the model's own initialiser, from
    a key to a model. draws: how often, with other random parameters. similarity: one or several of
    `SIMILARITIES`. colour: how channels become one, "sum", "max-abs", "abs-sum" or "none"
    ("auto": as in the paper). multiplier: compare maps as they are, "times" the input, or "divided"
    by it. chunk: images explained at once by a chain of rules.

    The settings say how many numbers of the model could not be reached (arrays of numpy in a
    closure, say) and stay as they are. What is compiled takes parameters as arguments: once for all
    layers and draws. Of a chain of rules, what new parameters do not reach (the forward pass below
    them) is kept. The same key gives the same result whatever the chunk. PatternNet's patterns are
    no parameters: they stay.
    Raises ValueError for a model whose parameters cannot be reached, unknown names, and as
    `lrpjax.attribute` does.
    """
    subject = Subject(model, images, method, target=target, chunk=chunk)
    found, _ = compared_maps(
        subject,
        key=key,
        order=order,
        layers=layers,
        randomiser=randomiser,
        init=init,
        draws=draws,
        similarity=similarity,
        colour=colour,
        multiplier=multiplier,
    )
    return found


def compared_maps(
    subject: Subject,
    *,
    key: jax.Array,
    order: Order = "output",
    layers: Sequence[str] | None = None,
    randomiser: str = "gaussian",
    init: Callable[[jax.Array], Callable] | None = None,
    draws: int = 1,
    similarity: str | Sequence[str] = "ssim",
    colour: str = "auto",
    multiplier: str | None = None,
    pictures: int = 0,
) -> tuple[Sanity, Cascade | None]:
    """`mprt`, and the `cascade` of the first images (so many pictures) from the same maps."""
    compared = measures(similarity, subject.method)
    colour = colour_of(colour, subject.method)
    found = parameters(subject.reading)
    steps = stops(subject.reading, order, layers)
    drawn = _draws(subject, found, key, draws, randomiser, init)

    states = States(subject, colour, multiplier)
    # Behind the model as given a chain starts with what has most to compute in any case: the values
    # to keep are not ready yet.
    in_turn = list(range(len(steps)))[:: -1 if subject.method.chain else 1]
    work = [
        (d, some, s)
        for d in range(draws)
        for some in states.chunks
        for s in (-1, *in_turn)
        if s >= 0 or d == 0 or len(states.chunks) > 1
    ]

    def asked() -> Iterator[tuple[slice, dict[int, Any], None]]:
        for d, own in groupby(work, itemgetter(0)):
            random = drawn(d)
            for _, some, s in own:
                yield some, {} if s < 0 else random(steps[s].randomised), None

    images = subject.images
    scores = np.zeros((len(steps), len(compared), draws, len(images)))
    shown: dict[int, list[np.ndarray]] = {s: [] for s in range(-1, len(steps) if pictures else -1)}
    for (d, some, s), maps in zip(track(work, subject.name), states.each(asked()), strict=True):
        if d == 0 and some.start < pictures:
            shown[s].append(maps[: pictures - some.start])
        if s < 0:
            trained = maps
        else:
            scores[s, :, d, some] = [measure(trained, maps) for measure in compared.values()]
    size_of = lambda places: sum(subject.reading.consts[i].size for i in places)
    size = size_of(set().union(*found.values()))
    head = {"check": "mprt", "method": subject.name, "order": order}
    summed = summary(scores.mean(2).reshape(-1, len(images)), key)
    shared = sharing(subject.reading)
    rows = [
        {
            **head,
            "layer": step.layer,
            "shared": shared[step.layer],
            "share": size_of(step.randomised) / size,
            "similarity": name,
            **own,
        }
        for (step, name), own in zip(product(steps, compared), summed, strict=True)
    ]
    settings = _settings(subject, key, randomiser, init, draws, colour)
    made = Sanity({**settings, "order": order, "multiplier": multiplier}, rows)
    if not pictures:
        return made, None
    drawn_by = {"order": order, "randomiser": settings["randomiser"], "key": settings["key"]}
    maps = np.stack([np.concatenate(shown[s]) for s in range(-1, len(steps))])
    return made, cascade_of(subject, maps, [step.layer for step in steps], drawn_by)


def smooth_mprt(
    model: Model,
    images: Any,
    method: Any,
    *,
    key: jax.Array,
    samples: int = 50,
    noise: float = 0.1,
    **options: Any,
) -> Sanity:
    """`mprt` of smoothed maps: the mean of the method's maps of noisy copies of the input.

    noise: its standard deviation, times (max - min) of each image. options: those of `mprt`.
    Smoothing takes away what maps change by chance. Hedstrom et al. 2023.
    """
    checks.check_key(key)
    smoothing, rest = jax.random.split(key)
    base = resolve(method, model)
    smoothed = SmoothGrad if base.nests else OneByOne
    name = f"{base.name} (smooth)"
    smooth = smoothed(name=name, base=base, samples=samples, noise=noise, key=smoothing)
    found = mprt(model, images, smooth, key=rest, **options)
    rows = [{**row, "check": "smooth-mprt"} for row in found.rows]
    settings = {**found.settings, "samples": samples, "noise": noise, "key": key_text(key)}
    return Sanity(settings, rows)


@dataclass(frozen=True, kw_only=True)
class OneByOne(Explainer):
    """The mean map of noisy inputs of a method that does not nest, one after the other."""

    name: str
    base: Explainer
    samples: int
    noise: float
    key: jax.Array

    @property
    def foreign(self) -> bool:
        return self.base.foreign

    def explain(self, reading: Reading, x: Any, target: Any) -> np.ndarray:
        x = as_number(x)
        noisy = (x + noise_of(k, x, self.noise) for k in jax.random.split(self.key, self.samples))
        return np.mean([np.asarray(self.base.explain(reading, n, target)) for n in noisy], 0)


def efficient_mprt(
    model: Model,
    images: Any,
    method: Any,
    *,
    key: jax.Array,
    target: Any = None,
    bins: int = 100,
    randomiser: str = "gaussian",
    init: Callable[[jax.Array], Callable] | None = None,
    draws: int = 1,
    colour: str = "auto",
    chunk: int | None = None,
) -> Sanity:
    """How much more complex a map becomes when all parameters are random: (H' - H) / H.

    H is the entropy of the histogram of a map's values, in `bins` equal bins from its least to its
    largest, and H' that of the random model's map. It needs two maps instead of one for each layer,
    and no similarity. Maps without structure are dropped. The rows'
    values are the rise of each image. Hedstrom et al. 2023. The other options are those of `mprt`.
    """
    checks.check_count(2, bins=bins)
    subject = Subject(model, images, method, target=target, chunk=chunk)
    colour = colour_of(colour, subject.method)
    found = parameters(subject.reading)
    drawn = _draws(subject, found, key, draws, randomiser, init)
    states, everything = States(subject, colour), set().union(*found.values())
    seen = lambda consts: _entropies(states.all([(consts, None)])[0], bins)
    before = seen({})
    after = [seen(drawn(d)(everything)) for d in track(range(draws), subject.name)]
    rise = np.mean([(h - before) / before for h in after], 0)
    (summed,) = summary(rise[None], key)
    row = {"check": "efficient-mprt", "method": subject.name, "similarity": "entropy rise"}
    settings = _settings(subject, key, randomiser, init, draws, colour)
    return Sanity({**settings, "bins": bins}, [{**row, **summed}])


def _entropies(maps: np.ndarray, bins: int) -> np.ndarray:
    """The histogram entropy of each map, in nats."""
    of = lambda a: entropy(np.histogram(a, bins)[0]) if structured(a) else np.nan
    return np.array([of(a) for a in maps])


def _draws(
    subject: Subject,
    found: dict[str, tuple[int, ...]],
    key: jax.Array,
    draws: int,
    randomiser: str,
    init: Callable | None,
) -> Callable[[int], Callable[[Iterable[int]], dict[int, Any]]]:
    """From the number of a draw to `randomised`."""
    checks.check_key(key)
    checks.check_count(1, draws=draws)
    if init is not None and randomiser != "gaussian":
        raise ValueError(f"Give init or randomiser={randomiser!r}, not both.")
    one = partial(randomised, subject.reading, found, randomiser=randomiser, init=init)
    like = subject.images[: subject.chunk]
    return lambda d: one(jax.random.fold_in(key, d), like=like)


def _settings(
    subject: Subject,
    key: jax.Array,
    randomiser: str,
    init: Callable | None,
    draws: int,
    colour: str,
) -> dict[str, Any]:
    return {
        "images": len(subject.images),
        "randomiser": randomiser if init is None else "the model's initialiser",
        "statistics": STATISTICS,
        "unreached": unreached(subject.reading),
        "draws": draws,
        "colour": colour,
        "key": key_text(key),
    }
