"""An audit: every check of every method on one model, with verdicts, in one report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any

import jax

from .._base import checks as refuse
from .._base.given import what
from .._base.jobs import run as run_jobs
from .._base.results import key_text
from .._base.resuming import versions
from ..graph.fingerprint import parameters_and_images
from ..graph.places import find_layer
from ..graph.reading import Model, Source, source_of
from ..methods.lookup import resolve
from ..sanity import CONTROLS, TwoClasses, two_classes
from ..sanity.maps import Subject
from ..sanity.parameters import stops
from .result import GOOD, Audit
from .store import Store, identity, storing
from .tasks import MEASURES, Finding, Task
from .verdict import DEFAULT, Thresholds

# What the paper measures (table of the appendix), less what is not a chain of rules.
PAPER = (
    "gradient lrp-z lrp-alpha1-beta0 lrp-alpha2-beta1 lrp-alpha5-beta4 lrp-cmp-alpha1-beta0 "
    "lrp-cmp-alpha2-beta1 deep-taylor pattern-net pattern-attribution guided-bp deconv rect-grad "
    "deeplift-rescale deeplift-reveal-cancel deeplift-ablation"
).split()


def audit(
    model: Model,
    images: Any,
    methods: Sequence[Any] | None = None,
    *,
    key: jax.Array,
    target: Any = None,
    start: str | None = None,
    layers: Sequence[str] | None = None,
    vectors: int = 5,
    draws: int = 1,
    classes: int = 1,
    thresholds: Thresholds = DEFAULT,
    two_class: tuple[Any, tuple[int, int]] | None = None,
    out: str | PathLike | None = None,
    overwrite: bool = False,
) -> Audit:
    """CSC, spectrum, certificate, MPRT, random logit, conservation, completeness of each method.

    images: a batch (N, ...). methods: names, values or functions (model, x, target) to a map
    (default: the paper's chains of rules, `PAPER`). Three controls run beside them: the plain
    gradient, the input itself and random noise. target: a class, N classes, or None for the
    prediction. start, vectors: of CSC and the spectrum, as in `lrpjax.convergence`. layers, draws:
    of the randomisation, as in `lrpjax.sanity.mprt`. classes: others in the random-logit test.
    two_class: images that show two classes, and the classes: adds the paper's experiment.
    out: a folder for what is finished: a second call with the same settings, model, images and
    methods goes on from there; another raises ValueError with what differs, or, with `overwrite`,
    removes what is there. So does one with a model or method that cannot be told from another (it
    calls Python back, or holds a lock).

    A method that cannot run on the model is reported as such and leaves the others. Raises
    ValueError for a model whose parameters cannot be reached, two methods of one name, settings
    that fit no method, and where the model does not run on the images; BlockingIOError where
    another process is at work in `out`.
    """
    refuse.check_images(images)
    if isinstance(methods, str) or not isinstance(methods, Iterable | None):
        raise TypeError(
            f"methods is a list of methods, got {what(methods)}: put it in a list, as in [method]."
        )
    source = source_of(model, images)
    subject = Subject(source, images, GOOD, target=target)
    _check_settings(subject, start, layers, vectors, draws, classes)
    chosen, failed = _chosen(source, PAPER if methods is None else methods, key)
    options = {"vectors": vectors, "draws": draws, "classes": classes}
    names = None if layers is None else tuple(layers)
    task = Task(source, images, subject.target, key, start, names, **options)
    settings = {
        "n_images": len(images),
        **parameters_and_images(subject.reading),
        "methods": [*chosen, *failed],
        "target": subject.target.tolist(),
        "start": start,
        "layers": names and list(names),
        **options,
        "key": key_text(key),
        "versions": versions(),
    }
    told = {} if out is None else identity(subject.reading, chosen)
    pairs = _two_classes(source, chosen, two_class, key)
    with storing(out, {**settings, **told}, overwrite=overwrite) as store:
        pieces = _pieces(task, chosen, store)
    rows = [row for finding in pieces.values() for row in finding.rows]
    rows += [{"check": "failed", "of": "all", "method": m, "reason": r} for m, r in failed.items()]
    order = [*chosen, *failed]
    grids = [finding.grid for finding in pieces.values() if finding.grid is not None]
    return Audit(
        settings,
        sorted(rows, key=lambda row: order.index(row["method"])),
        thresholds,
        sum(grids) or None,
        sum(pairs) or None,
    )


def _check_settings(
    subject: Subject,
    start: str | None,
    layers: Sequence[str] | None,
    vectors: int,
    draws: int,
    classes: int,
) -> None:
    """Raises ValueError for what would make a check fail with every method."""
    stops(subject.reading, "output", layers)
    if start is not None:
        find_layer(subject.reading.graph, start)
    refuse.check_count(2, vectors=vectors)
    refuse.check_count(1, draws=draws, classes=classes)
    if classes >= subject.classes:
        raise ValueError(
            f"classes={classes} others cannot be drawn: the model has {subject.classes} classes."
        )


def _chosen(
    source: Source, methods: Sequence[Any], key: jax.Array
) -> tuple[dict[str, Any], dict[str, str]]:
    """The methods by name, the controls last, and why some of them cannot be made."""
    chosen: dict[str, Any] = {}
    failed: dict[str, str] = {}
    given = [*methods, *([] if GOOD in methods else [GOOD]), *CONTROLS.values()]
    for method in given:
        try:
            made = resolve(method, source, key=key)
        except (ValueError, TypeError) as error:
            failed[str(method)] = str(error)
            continue
        if made.name in chosen:
            raise ValueError(
                f"Two methods are called {made.name!r}: give one of them another name."
            )
        chosen[made.name] = made
    return chosen, failed


def _pieces(
    task: Task, chosen: dict[str, Any], store: Store | None
) -> dict[tuple[str, str], Finding]:
    """All pieces, by check and method: those that the store has, and the others anew."""
    # By check: what one method's checks compile is then never compiled by two threads at once.
    jobs = [(c, m) for c, check in MEASURES.items() for m in chosen if check.applies(chosen[m])]
    found = {}
    if store is not None:
        stored = {(c, m): store.read(m, c) for c, m in jobs}
        found = {job: finding for job, finding in stored.items() if finding is not None}

    def work(job: tuple[str, str]) -> Finding:
        check, method = job
        return MEASURES[check].run(task, chosen[method])

    def keep(job: tuple[str, str], finding: Finding) -> None:
        check, method = job
        found[job] = finding
        if store is not None:
            store.write(method, check, finding)

    left = [job for job in jobs if job not in found]
    label = lambda job: f"{job[1]}: {job[0]}"
    failed = run_jobs(left, work, keep, label=label, unit="audit", catch=(Exception,))
    for (check, method), error in failed.items():
        # What has no matrix has no spectrum: that is no failure.
        kind = (
            "unavailable" if MEASURES[check].linear and isinstance(error, ValueError) else "failed"
        )
        reason = str(error) or type(error).__name__
        row = {"check": kind, "of": check, "method": method, "reason": reason}
        found[check, method] = Finding([row])
    return {job: found[job] for job in jobs}


def _two_classes(
    source: Source, chosen: dict[str, Any], given: Any, key: jax.Array
) -> list[TwoClasses]:
    if given is None:
        return []
    images, classes = given
    made = []
    for name, method in chosen.items():
        try:
            made.append(two_classes(source, images, method, classes=classes, key=key))
        except Exception:
            if name == GOOD:  # which runs on any model: what was given is wrong
                raise
            continue  # as the method's other checks say
    return made
