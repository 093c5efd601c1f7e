"""Simulated convergence against explicitly formed matrices, a reference table and the rate law."""

from __future__ import annotations

import json
import re

import jax
import numpy as np
import pytest
from matplotlib.text import Text

import lrpjax as lrp
from lrpjax.convergence import random_chains, simulation
from lrpjax.convergence.simulation import Simulation

# 1 - |u.v| rounds to 1e-16 for each pair. Sums of 4096 products in another order differ by 1e-14,
# which the vanilla chain, expanding in all directions alike, does not amplify.
EXACT = 1e-9
STEPS = (0, 1, 2, 3, 4, 6, 8, 12, 16)

# 20 repetitions of a program of its own in float64 (1 minus the mean |cos|, diagonal included),
# after the factors STEPS; 0 is below what 1 - |u.v| resolves.
REFERENCE = {
    "vanilla": (0.92, 0.91, 0.91, 0.90, 0.88, 0.87, 0.85, 0.80, 0.46),
    "relu": (0.92, 0.64, 0.48, 0.37, 0.30, 0.21, 0.16, 0.096, 0.056),
    "stochastic": (0.92, 0.61, 4.5e-3, 7.1e-7, 7.7e-10, 9e-16, 0, 0, 0),
    "positive": (0.92, 0.59, 3.1e-3, 4.9e-7, 5.2e-10, 7e-16, 0, 0, 0),
    "non-negative": (0.92, 0.77, 4.3e-2, 3.6e-5, 1.5e-7, 2.6e-12, 0, 0, 0),
    "alpha1-beta0": (0.92, 0.77, 5.7e-2, 5.8e-5, 2.4e-7, 4.2e-12, 0, 0, 0),
    "alpha2-beta1": (0.92, 0.89, 0.26, 6.5e-3, 1.9e-4, 1.6e-7, 1.2e-10, 7e-16, 0),
    "alpha3-beta2": (0.92, 0.91, 0.55, 7.8e-2, 1.4e-2, 1.0e-4, 6.3e-7, 1.6e-10, 1.8e-12),
    "alpha4-beta3": (0.92, 0.91, 0.72, 0.19, 7.9e-2, 5.8e-3, 1.5e-4, 5.0e-7, 3.8e-8),
    "alpha5-beta4": (0.92, 0.91, 0.81, 0.35, 0.19, 2.7e-2, 1.9e-3, 5.1e-5, 3.4e-5),
    "alpha10-beta9": (0.92, 0.91, 0.91, 0.86, 0.82, 0.78, 0.73, 0.70, 0.42),
}


def column(result, case, name="one_minus_mean"):
    return [row[name] for row in result.rows if row["case"] == case]


@pytest.fixture
def small(monkeypatch):
    """Chains that take no time, whose factors are cut into blocks with a remainder."""
    dimensions = (90, 120, 120, *[70] * 12, 40, 3)
    for module in (random_chains, simulation):
        monkeypatch.setattr(module, "DIMENSIONS", dimensions)
    monkeypatch.setattr(random_chains, "_BLOCK", 2500)
    return dimensions


@pytest.fixture(scope="module")
def few():
    return lrp.convergence.simulate(key=jax.random.key(5), repetitions=3)


def matrix(case, w):
    """The factor of a case, entry by entry."""
    if case in ("vanilla", "relu"):
        return w
    if case == "stochastic":
        return np.abs(w) / np.abs(w).sum(0)
    if case == "positive":
        return np.abs(w)
    if case == "non-negative":
        return np.where(w > 0, w, 0)
    alpha, beta = map(int, re.findall(r"\d+", case))
    return np.where(w > 0, alpha * w, beta * w)


def plain_mean(relevance):
    """1 - the nan-mean of |cos| over the lower triangle with its diagonal, pair by pair."""
    cosines = []
    for i, u in enumerate(relevance):
        for v in relevance[: i + 1]:
            with np.errstate(invalid="ignore"):
                cosines.append(abs(u @ v) / (np.linalg.norm(u) * np.linalg.norm(v)))
    return 1 - np.nanmean(cosines), np.isnan(cosines).mean()


def test_agrees_with_explicit_matrices(small):
    vectors = 6
    result = lrp.convergence.simulate(key=jax.random.key(3), repetitions=1, vectors=vectors)
    rng = random_chains.generators(result.settings["key"], 0)[0]
    start = rng.standard_normal((vectors, small[0]))
    relevance = dict.fromkeys(REFERENCE, start)
    for step, dimension in enumerate(small):
        if step > 0:
            w = rng.standard_normal((dimension, small[step - 1])).T
            for case, r in relevance.items():
                r = r @ matrix(case, w)
                r = r / np.abs(r).max()
                relevance[case] = np.maximum(r, 0) if case == "relu" else r
        for case, r in relevance.items():
            mean, nan_share = plain_mean(r)
            assert column(result, case)[step] == pytest.approx(mean, abs=EXACT), (case, step)
            assert column(result, case, "nan_share")[step] == pytest.approx(nan_share)


def test_controls_agree_with_explicit_matrices():
    vectors, key = 4, jax.random.key(3)
    result = lrp.convergence.simulate(key=key, repetitions=1, vectors=vectors)
    _, square, permutation = random_chains.generators(result.settings["key"], 0)
    r, p = (rng.standard_normal((vectors, 128)) for rng in (square, permutation))
    for _ in range(16):
        r = r @ square.standard_normal((128, 128)).T
        p = p @ np.eye(128)[:, permutation.permutation(128)]
    assert column(result, "square")[-1] == pytest.approx(plain_mean(r)[0], abs=EXACT)
    assert column(result, "permutation")[-1] == pytest.approx(plain_mean(p)[0], abs=EXACT)


def test_small_angles_zero_vectors_and_signs():
    base, other = np.random.default_rng(0).standard_normal((2, 500))
    other -= base * (other @ base) / (base @ base)
    base, other = base / np.linalg.norm(base), other / np.linalg.norm(other)
    angle = 1e-11
    unit = np.stack([base, -np.cos(angle) * base - np.sin(angle) * other, np.zeros(500)])
    alive = np.array([True, True, False])
    # Entries of 0.04 round by 1e-17 or less, against differences of 4e-13: relative 1e-4.
    assert random_chains.mean_distance(unit, alive) == pytest.approx(angle**2 / 2, rel=1e-4)
    assert np.isnan(random_chains.mean_distance(unit, np.array([True, False, False])))


def test_rows_are_the_networks(few):
    cases = list(dict.fromkeys(row["case"] for row in few.rows))
    assert cases == [*REFERENCE, "square", "permutation"]
    vgg = [1000, 4096, 4096, 512, 512, 512, 512, 512, 512, 256, 256, 256, 128, 128, 64, 64, 3]
    for case in REFERENCE:
        assert column(few, case, "dimension") == vgg
        assert column(few, case, "summed") == [None, *vgg[:-1]]
        assert column(few, case, "step") == list(range(17))


def test_ordering_of_the_cases(few):
    end = lambda case, step: column(few, case)[step]
    for step in range(3, 9):
        ordered = ["positive", "non-negative", *random_chains.FAMILY]
        values = [end(case, step) for case in ordered]
        assert values == sorted(values) and len(set(values)) == len(values)
    for step in range(17):
        assert end("alpha1-beta0", step) == end("non-negative", step)  # one chain
    for step in range(8, 16):  # before the 3 channels of the image, where ReLU's vectors vanish
        assert end("alpha5-beta4", step) < end("relu", step) < end("alpha10-beta9", step)
        assert end("alpha10-beta9", step) == pytest.approx(end("vanilla", step), abs=0.15)


def test_controls_do_not_converge(few):
    # 32 independent vectors of 128 dimensions: E|cos| = sqrt(2 / (128 pi)) = 0.0705.
    start = (1 - np.sqrt(2 / (128 * np.pi))) * 31 / 33
    assert column(few, "permutation") == pytest.approx([start] * 17, abs=0.01)
    square = column(few, "square")
    assert square[0] == pytest.approx(start, abs=0.01)
    # Each factor adds 1/128 to the mean squared cosine: |cos| is near sqrt(2/pi 17/128) = 0.29.
    assert min(square) > 0.6


def test_the_rate_law(few):
    """Each factor's rate is one draw's: with 512 outputs, and 3 repetitions, within a fifth."""
    stated = [row for row in few.rows if row["law"] is not None and row["rate"] is not None]
    assert {"positive", "stochastic", *random_chains.FAMILY[:3]} <= {row["case"] for row in stated}
    for row in stated:
        if row["summed"] == 512:
            assert row["rate"] == pytest.approx(row["law"], rel=0.2), row
    assert all(row["law"] is None for row in few.rows if row["case"] in ("vanilla", "relu"))
    laws = {row["case"]: row["law"] for row in stated if row["summed"] == 512}
    assert laws["positive"] == pytest.approx(0.0011, abs=5e-5)
    assert laws["alpha2-beta1"] == pytest.approx(0.029, abs=5e-4)


@pytest.mark.slow
def test_the_reference_table():
    result = lrp.convergence.simulate(key=jax.random.key(0))
    for case, expected in REFERENCE.items():
        for step, value in zip(STEPS, expected, strict=True):
            found = column(result, case)[step]
            if value == 0:
                assert found < 1e-15, (case, step)
            else:  # medians of 20 draws, of which small values spread by decades
                factor = 1.3 if value > 0.1 else 10
                assert value / factor < found < value * factor, (case, step, found)
    # The three channels die together in a repetition or do not, so that its share scatters.
    assert 0.05 < column(result, "relu", "nan_share")[-1] < 0.5
    for case in ("stochastic", "positive", "non-negative", *random_chains.FAMILY[:2]):
        rows = [row for row in result.rows if row["case"] == case and row["summed"] == 512]
        ratios = [row["rate"] / row["law"] for row in rows if row["law"] and row["rate"]]
        assert np.mean(ratios) == pytest.approx(1, abs=0.05), (case, ratios)


def test_the_key_decides_and_repetitions_are_independent(small, monkeypatch):
    simulate = lambda seed, **options: lrp.convergence.simulate(
        key=jax.random.key(seed), vectors=4, **options
    )
    one = simulate(5, repetitions=1)
    assert simulate(5, repetitions=1) == one
    raw = jax.random.PRNGKey(5)
    assert lrp.convergence.simulate(key=raw, repetitions=1, vectors=4) == one
    assert column(simulate(6, repetitions=1), "vanilla")[0] != column(one, "vanilla")[0]
    seen = []
    three = simulate(5, repetitions=3, finished=seen.append)
    assert [found.settings["repetitions"] for found in seen] == [1, 2, 3]
    assert seen[0] == one and seen[2] == three
    quantiles = column(three, "vanilla", "quantiles")[4]
    assert list(quantiles) == ["0", "25", "50", "75", "100"]
    assert quantiles["0"] <= column(one, "vanilla")[4] <= quantiles["100"]
    monkeypatch.setattr(random_chains, "_BLOCK", 2**18)  # how a factor is cut changes nothing
    for case in REFERENCE:
        whole = column(simulate(5, repetitions=1), case)
        assert whole == pytest.approx(column(one, case), abs=EXACT)


def test_chains_without_an_angle_are_none(monkeypatch, tmp_path):
    dead = random_chains.Measured(np.array([0.5, np.nan]), np.array([3, 1]))
    monkeypatch.setattr(random_chains, "DIMENSIONS", (4, 3))
    names = (*random_chains.CASES, *random_chains.CONTROLS)
    monkeypatch.setattr(simulation, "DIMENSIONS", (4, 3))
    monkeypatch.setattr(simulation, "SQUARE", (4, 3))
    monkeypatch.setattr(simulation, "measure", lambda *_, **__: dict.fromkeys(names, dead))
    result = lrp.convergence.simulate(key=jax.random.key(0), repetitions=2, vectors=3)
    start, end = result.rows[:2]
    assert start["one_minus_mean"] == 0.25 and start["nan_share"] == 0  # 3 of 6 are the diagonal
    assert end["one_minus_mean"] is None and end["rate"] is None
    assert end["nan_share"] == pytest.approx(5 / 6)
    result.save(tmp_path / "r.json")
    assert Simulation.load(tmp_path / "r.json") == result
    result.plot().draw_without_rendering()  # the curve ends where it has values


def test_figure_and_files(few, tmp_path):
    few.save(tmp_path / "r.json")
    assert Simulation.load(tmp_path / "r.json") == few
    figure = few.plot()
    texts = {text.get_text() for panel in figure.axes for text in panel.texts}
    assert len(texts) == 13 and "alpha 2, beta 1" in texts
    for panel in figure.axes:
        assert panel.get_ylim() == (1, 1e-12)
    figure.draw_without_rendering()
    for panel in figure.axes:
        boxes = [Text.get_window_extent(text) for text in panel.texts]  # without its pointer
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:i]), panel.texts[i]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"repetitions": 0}, "at least 1"), ({"vectors": 1}, "at least 2")],
)
def test_a_simulation_needs_a_repetition_and_two_vectors(options, message):
    with pytest.raises(ValueError, match=message):
        lrp.convergence.simulate(key=jax.random.key(0), **options)


@pytest.fixture
def run(tmp_path, monkeypatch, command_line):
    monkeypatch.chdir(tmp_path)
    return command_line


def test_the_command_writes_every_case_its_figure_and_json(run, tmp_path):
    code, out, _ = run("simulate", "--repetitions", "2", "--seed", "1", "--json", "r.json")
    assert code == 0 and "alpha10-beta9" in out and "permutation" in out and "law" in out
    for name in ("results.json", "simulation.png", "simulation.svg"):
        assert (tmp_path / "lrpjax-simulate" / name).stat().st_size > 1000
        assert name in out
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["settings"]["seed"] == 1 and content["settings"]["repetitions"] == 2
    assert all({"case", "step", "one_minus_mean"} <= row.keys() for row in content["rows"])


def test_ctrl_c_keeps_what_is_finished(run, tmp_path, monkeypatch):
    real = random_chains.measure

    def interrupted(seed, index, *, vectors):
        if index == 1:
            raise KeyboardInterrupt
        return real(seed, index, vectors=4)

    monkeypatch.setattr(simulation, "measure", interrupted)
    code, out, _ = run("simulate", "--repetitions", "4", "--out", "here")
    assert code == 130 and "1 of 4 repetitions finished and saved" in out
    assert Simulation.load(tmp_path / "here" / "results.json").settings["repetitions"] == 1


def test_mistakes_of_the_command_are_one_sentence(run, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run("simulate", "--out", "file/x")
    assert code == 1 and "cannot be written" in err and len(err.strip().splitlines()) == 1
    assert run("simulate", "--repetitions", "0")[0] == 2
