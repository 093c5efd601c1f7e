"""A result of every class, small and made by hand: `EXAMPLES[kind](name)` is of a method `name`."""

import numpy as np

from lrpjax.auditing import Audit, Thresholds
from lrpjax.bottleneck import Bottleneck
from lrpjax.concepts import TCAV
from lrpjax.convergence import (
    CSC,
    Certificate,
    Lyapunov,
    PatternSpectrum,
    Profile,
    Simulation,
    SingularValues,
)
from lrpjax.sanity import Cascade, Sanity, TwoClasses

LAYERS = ["fc", "conv", "input"]
STOPS = ["trained", "fc", "conv"]
PICTURES = np.random.default_rng(0).random((2, 6, 5, 3)).astype(np.float32)


def of_layers(name, **columns):
    return [{"method": name, "start": "fc", "layer": layer, **columns} for layer in LAYERS]


def csc(name):
    columns = {"median": 0.9, "one_minus_median": 0.1, "baseline": 0.3, "undirected": None}
    columns |= {"count": 20, "dropped": 0, "quantiles": {"50": 0.9}}
    return CSC({"vectors": 2, "key": [0, 1]}, of_layers(name, **columns))


def singular_values(name):
    columns = {"image": 0, "values": [2.0, 1.0], "ratio": 2.0, "resolved": True}
    return SingularValues({"k": 2}, of_layers(name, **columns))


def lyapunov(name):
    columns = {"image": 0, "growth": [1.0, 0.5], "gap": 0.5, "total": [2.0, 1.0]}
    columns |= {"total_gap": 1.0, "resolved": [True, True], "settled": True}
    return Lyapunov({"k": 2}, of_layers(name, **columns))


def profile(name):
    of = lambda scope: {f"{scope}_ratio": 4.0, f"{scope}_expected": 0.1, f"{scope}_csc": 0.2}
    columns = of("map") | of("location") | {"gap": 0.5, "total_gap": None}
    return Profile({"vectors": 2}, of_layers(name, **columns))


def certificate(name):
    at = {"method": name, "start": "fc", "layer": "input"}
    wide = {**at, "angle": 12.0, "one_minus_cos": 0.02, "pair": ["fc[0]", "fc[1]"], "units": 3}
    wide |= {"exact": True, "beyond": None, "quantiles": {"50": 10.0}, "gaussian_share": 0.5}
    link = {**at, "non_negative": "yes", "negative": None, "zero_columns": 0, "zero_units": []}
    link |= {"overlap": 0.5, "orthogonal": None, "birkhoff": 0.25}
    rows = [
        {"scope": "map", **wide, "place": None, "places": 1},
        {"scope": "location", **wide, "place": [0, 0], "places": 4},
        {"scope": "link", **link},
    ]
    return Certificate({"vectors": 40}, rows)


def pattern_spectrum(name):
    row = {"matrix": "W", "shape": [3, 2], "singular_values": [2.0, 1.0], "ratio": 2.0}
    rows = [
        {**row, "part": part, "matrix": matrix, "layers": layers}
        for part, layers in (("layer", [name]), ("link", [name, "b"]), ("chain", [name, "b"]))
        for matrix in ("W", "W*A")
    ]
    rows.append({**row, "part": "full", "matrix": "A", "layers": [name]})
    return PatternSpectrum({"mode": "fit", "layers": [name]}, rows)


CASES = "positive stochastic non-negative relu vanilla square permutation".split()
CASES += [f"alpha{a}-beta{a - 1}" for a in (1, 2, 3, 4, 5, 10)]


def simulation(name):
    rows = [
        {
            "case": case,
            "step": step,
            "dimension": 4,
            "summed": 4 if step else None,
            "one_minus_mean": 0.5**step,
            "quantiles": dict.fromkeys(("25", "50", "75"), 0.5**step),
            "nan_share": 0.0,
            "rate": None,
            "law": None,
        }
        for case in [*CASES, name]
        for step in range(3)
    ]
    return Simulation({"repetitions": 2}, rows)


def sanity(name, check="mprt"):
    columns = {"check": check, "method": name, "similarity": "ssim", "values": [0.4, None, 0.6]}
    columns |= {"dropped": 1, "median": 0.5, "low": 0.4, "high": 0.6}
    if check == "random-logit":
        return Sanity({"classes": 1}, [columns])
    return Sanity({"draws": 1}, [{**columns, "order": "output", "layer": at} for at in LAYERS[:2]])


def cascade(name, **changed):
    maps = np.random.default_rng(1).normal(size=(3, 2, 6, 5)).astype(np.float32)
    rows = [{"method": name, "layer": stop, "largest": 2.0} for stop in STOPS]
    parts = {"maps": {name: maps}, "pictures": PICTURES, "stops": STOPS}
    return Cascade({"images": 2}, rows, **parts | changed)


def two_classes(name, **changed):
    maps = np.random.default_rng(2).normal(size=(2, 3, 6, 5))
    rows = [{"method": name, "image": i, "distance": 0.1 + i} for i in range(2)]
    parts = {"maps": {name: maps}, "pictures": PICTURES, "classes": (0, 3, 1)}
    return TwoClasses({"images": 2}, rows, **parts | changed)


def tcav(name):
    columns = {"layer": "fc", "target": 1, "scores": [0.5, 0.7], "score": 0.6, "score_std": 0.1}
    columns |= {"random_score": 0.5, "random_std": 0.1, "accuracy": 0.9, "p_value": 1e-7}
    columns |= {"significant": True, "false_positives": None}
    return TCAV({"images": 3}, [{"concept": name, **columns}])


def bottleneck(name):
    bits = np.random.default_rng(len(name)).random((2, 6, 5)).astype(np.float32)
    rows = [{"image": i, "bits": float(own.sum()), "loss": 0.5} for i, own in enumerate(bits)]
    losses = np.ones((4, 2), np.float32)
    return Bottleneck({"layer": '<conv> & "co"'}, rows, bits, bits[..., None], losses)


def audit(name, **changed):
    rows = [{"check": "csc", **row} for row in csc(name).rows]
    rows += [{"check": "spectrum", **row} for row in singular_values(name).rows]
    rows += [{"check": "certificate", **row} for row in certificate(name).rows]
    told = {"scope": "sentence", "method": name, "sentence": certificate(name).sentence}
    rows += [{"check": "certificate", **told}]
    both = (name, "random noise")
    rows += [row for m in both for row in sanity(m, "random-logit").rows + sanity(m).rows]
    settings = {"n_images": 2, "target": [0, 1], "start": None, "layers": None, "vectors": 2}
    settings |= {"draws": 1, "classes": 1, "key": [0, 1], "methods": list(both)}
    parts = {
        "thresholds": Thresholds(same_map=0.8),
        "grid": cascade(name) + cascade("random noise"),
        "pairs": two_classes(name) + two_classes("random noise"),
    }
    rows.sort(key=lambda row: row["method"] != name)
    return Audit(settings, rows, **parts | changed)


EXAMPLES = {
    CSC: csc,
    SingularValues: singular_values,
    Lyapunov: lyapunov,
    Profile: profile,
    Certificate: certificate,
    PatternSpectrum: pattern_spectrum,
    Simulation: simulation,
    Sanity: sanity,
    Cascade: cascade,
    TwoClasses: two_classes,
    TCAV: tcav,
    Bottleneck: bottleneck,
    Audit: audit,
}
