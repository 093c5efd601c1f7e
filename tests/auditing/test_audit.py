"""The audit: what is measured of each method, what is said of it, and what a second run does."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.nets_audit import network, pictures

import lrpjax as lrp
from lrpjax import auditing
from lrpjax.auditing import tasks
from lrpjax.auditing.verdict import verdict
from lrpjax.sanity.pictures import pictures_of

pytestmark = pytest.mark.usefixtures("quick_compile")

METHODS = ["lrp-alpha1-beta0", "gradient"]


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def images():
    return pictures()


@pytest.fixture(scope="module")
def audited(model, images):
    return lrp.audit(model, images, METHODS, key=jax.random.key(2), vectors=3)


def rows(report, method, check, **fields):
    """The rows of a method and check in which these fields have these values."""
    own = [row for row in report.rows_of(check) if row["method"] == method]
    return [row for row in own if all(row.get(k) == v for k, v in fields.items())]


def test_each_check_reports_what_its_function_measures(audited, model, images):
    key, target = jax.random.key(2), np.asarray(model(images)).argmax(-1)
    own = rows(audited, "lrp-alpha1-beta0", "random-logit", similarity="ssim")
    (alone,) = lrp.sanity.random_logit(model, images, METHODS[0], key=key, target=target).rows
    assert own == [alone]
    alone = lrp.sanity.mprt(model, images, METHODS[0], key=key, target=target).rows
    assert rows(audited, METHODS[0], "mprt", similarity="ssim") == alone
    alone = lrp.convergence.csc(model, images, METHODS[0], key=key, vectors=3).rows
    assert rows(audited, METHODS[0], "csc") == [{"check": "csc", **row} for row in alone]
    alone = lrp.convergence.certificate(model, images[:1], METHODS[0], key=key)
    (sentence,) = rows(audited, METHODS[0], "certificate", scope="sentence")
    assert sentence["sentence"] == alone.sentence
    values = lrp.convergence.singular_values(model, images[:2], METHODS[0], key=key, k=2).rows
    assert [row["ratio"] for row in rows(audited, METHODS[0], "spectrum")] == [
        row["ratio"] for row in values
    ]


def test_conservation_and_completeness_against_sums_by_hand(audited, model, images):
    logits = model(images)
    target = np.asarray(logits).argmax(-1)
    at = lambda y: np.asarray(y)[np.arange(len(y)), target]
    maps = lrp.attribute(model, images, "lrp-alpha1-beta0", target=target)
    total = np.asarray(maps.sum((1, 2, 3)))
    (kept,) = rows(audited, "lrp-alpha1-beta0", "conservation")
    np.testing.assert_allclose(kept["values"], abs(total / at(logits) - 1), atol=1e-9)
    gain = at(logits) - at(jnp.broadcast_to(model(0 * images[:1]), logits.shape))
    (complete,) = rows(audited, "lrp-alpha1-beta0", "completeness")
    np.testing.assert_allclose(complete["values"], abs(total - gain) / abs(gain), atol=1e-9)


def test_the_controls_run_beside_the_methods(audited):
    level = {row["method"]: row["level"] for row in audited.summary}
    assert level == {
        "lrp-alpha1-beta0": level["lrp-alpha1-beta0"],
        "gradient": "control",
        "the input itself": "control",
        "random noise": "control",
    }
    similar = {row["method"]: row for row in audited.summary}
    assert similar["the input itself"]["random_logit"] == 1
    assert similar["the input itself"]["mprt_last"] == 1
    assert similar["random noise"]["mprt_first"] < 0.5


def test_a_method_that_cannot_run_is_reported_and_leaves_the_others(model, images):
    def broken(model, x, target):
        raise RuntimeError("the moon is full")

    report = lrp.audit(model, images, ["gradient", "pattern-net", broken], key=jax.random.key(2))
    said = {row["method"]: row for row in report.summary}
    assert said["pattern-net"]["level"] == said["broken"]["level"] == "failed"
    assert "needs patterns" in said["pattern-net"]["verdict"]
    assert "the moon is full" in said["broken"]["verdict"]
    assert said["gradient"]["random_logit"] is not None


def test_an_object_that_is_no_method_is_reported_too(model, images):
    report = lrp.audit(model, images, [["gradient"], "gradient"], key=jax.random.key(2))
    said = {row["method"]: row for row in report.summary}
    assert said["['gradient']"]["level"] == "failed"
    assert "got a list of length 1" in said["['gradient']"]["verdict"]
    assert said["gradient"]["random_logit"] is not None


def test_what_is_not_linear_has_no_spectrum_and_did_not_fail(model, images):
    report = lrp.audit(model, images, ["guided-bp"], key=jax.random.key(2))
    missing = rows(report, "guided-bp", "unavailable")
    assert {row["of"] for row in missing} == {"spectrum", "certificate"}
    assert not rows(report, "guided-bp", "failed")
    assert "could not be run" not in report.verdict("guided-bp").text


def test_an_own_function_is_audited_like_a_method(model, images):
    def mine(model, x, target):
        return lrp.attribute(model, x, "gradient", target=target) * 2

    report = lrp.audit(model, images, [mine], key=jax.random.key(2))
    score = {row["method"]: row["random_logit"] for row in report.summary}
    # The colours of a function's maps are summed, as of all but the gradient's family.
    (alone,) = lrp.sanity.random_logit(
        model, images, "gradient", key=jax.random.key(2), colour="sum"
    ).rows
    assert score["mine"] == pytest.approx(alone["median"], abs=1e-6)


def test_json_holds_everything_and_reads_back(audited, tmp_path):
    content = json.loads(audited.to_json(tmp_path / "audit.json"))
    assert json.loads((tmp_path / "audit.json").read_text()) == content
    assert content["rows"] == json.loads(json.dumps(audited.rows))
    assert content["thresholds"]["same_map"] == 0.9
    assert [row["method"] for row in content["summary"]] == audited.methods


def test_thresholds_change_verdicts_and_not_measures(audited):
    score = audited.summary[0]["random_logit"]
    strict = audited.judged(auditing.Thresholds(same_map=score - 1e-3))
    mild = audited.judged(auditing.Thresholds(same_map=min(score + 1e-3, 0.9999)))
    assert strict.summary[0]["level"] == "ignores" and mild.summary[0]["level"] != "ignores"
    assert strict.rows == mild.rows
    with pytest.raises(ValueError, match="same_map lies between 0 and 1"):
        auditing.Thresholds(same_map=1.5)


NONE = {"low": None, "high": None}


def _rows(cosines=(), logit=None, first=None, channels=3):
    """channels: of the input."""
    made = [
        {
            "check": "csc",
            "start": "c",
            "layer": name,
            "one_minus_median": value,
            "channels": channels if name == "input" else 8,
            "undirected": "one channel" if name == "input" and channels == 1 else None,
        }
        for name, value in zip(("c", "b", "input"), cosines, strict=False)
    ]
    if logit is not None:
        made.append({"check": "random-logit", "similarity": "ssim", "median": logit, **NONE})
    if first is not None:
        made.append({"check": "mprt", "similarity": "ssim", "median": first, "layer": "c", **NONE})
    return made


@pytest.mark.parametrize(
    ("measured", "level", "text"),
    [
        (_rows((0.9, 1e-4, 1e-5), 0.95), "ignores", "forgets the layers above b"),
        (_rows((0.9, 1e-2, 1e-5), 0.95), "ignores", "forgets the layers above the input"),
        (_rows((0.9, 1e-5, 1e-2), 0.5), "depends", "another class gives another map (SSIM 0.50)"),
        (_rows((0.9, 1e-5, 1e-5), 0.5), "doubt", "forgets the layers above b (1 - CSC 1e-5)"),
        (_rows((0.9, 0.5, 0.5), 0.5, 0.99), "doubt", "random parameters in c change nothing"),
        (_rows((0.9, 0.5, 0.5), 0.5, 0.2), "depends", "another map"),
        (_rows((), 0.9), "ignores", "the same map"),
        (_rows((0.9, 0.5, None), 0.5, channels=1), "depends", "another map"),
        (_rows((0.9, 1e-5, None), 0.5, channels=1), "doubt", "forgets the layers above b"),
    ],
)
def test_verdicts_follow_from_the_thresholds(measured, level, text):
    made = verdict(measured, auditing.Thresholds())
    assert made.level == level and text in made.text


def test_the_one_channel_of_grey_images_is_no_convergence(images):
    report = lrp.audit(network(colours=1), images[..., :1], ["gradient"], key=jax.random.key(2))
    cosines = {row["layer"]: row for row in rows(report, "gradient", "csc")}
    assert cosines["input"]["channels"] == 1 and cosines["input"]["one_minus_median"] is None
    assert "forgets" not in report.verdict("gradient").text
    (shown,) = (row for row in report.summary if row["method"] == "gradient")
    assert shown["one_minus_csc"] == cosines["conv1"]["one_minus_median"] > 0.1
    (panel,) = report.of("csc").plot().axes
    assert panel.get_xticklabels()[-1].get_text() == "conv1"


def test_a_second_run_goes_on_where_the_first_stopped(model, images, tmp_path, monkeypatch):
    run = lambda **options: lrp.audit(
        model, images, ["gradient"], key=jax.random.key(2), out=tmp_path, **options
    )
    whole = run()
    (damaged,) = tmp_path.glob("piece-gradient-*-random-logit.json")
    (cut,) = tmp_path.glob("piece-gradient-*-mprt.json")
    (missing,) = tmp_path.glob("piece-gradient-*-csc.json")
    damaged.write_text(damaged.read_text().replace('"median": 0.', '"median": 0.1', 1))
    cut.write_text(cut.read_text()[:-20])
    missing.unlink()
    done = []
    for name, check in tasks.MEASURES.items():
        counted = lambda task, method, check=check, name=name: (
            done.append(name) or check.run(task, method)
        )
        monkeypatch.setitem(
            tasks.MEASURES, name, tasks.Measure(counted, check.chains, check.linear)
        )
    again = run()
    assert sorted(done) == ["csc", "mprt", "random-logit"]
    assert again.to_json() == whole.to_json()
    with pytest.raises(ValueError, match="other settings \\(draws: 1, now 2\\)"):
        run(draws=2)


def test_a_folder_with_pieces_of_unknown_origin_is_refused(model, images, tmp_path):
    (tmp_path / "piece-x.json").write_text("{}")
    with pytest.raises(ValueError, match="no settings"):
        lrp.audit(model, images, ["gradient"], key=jax.random.key(2), out=tmp_path)


def test_other_parameters_or_images_are_other_settings(model, images, tmp_path):
    run = lambda m, x: lrp.audit(m, x, ["gradient"], key=jax.random.key(2), out=tmp_path)
    run(model, images)
    with pytest.raises(ValueError, match="images: another"):
        run(model, images + 1e-3)
    with pytest.raises(ValueError, match="parameters: another"):
        run(jax.tree.map(lambda w: w + 1e-3, model), images)


def test_bad_input_is_refused_before_anything_runs(model, images):
    run = lambda m, x, methods=("gradient",), **options: lrp.audit(
        m, x, methods, key=jax.random.key(0), **options
    )
    hidden = np.ones((192, 4))
    with pytest.raises(ValueError, match="None of the model's parameters can be reached"):
        run(lambda x: x.reshape(len(x), -1) @ hidden, images)
    with pytest.raises(ValueError, match="as a batch"):
        run(model, images[0])
    with pytest.raises(ValueError, match="Two methods are called 'gradient'"):
        run(model, images, ["gradient", lrp.methods.get("gradient")])
    with pytest.raises(ValueError, match="between 0 and 3"):
        run(model, images, target=7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ["conv9"]}, "no layer with parameters 'conv9'; the nearest are conv"),
        ({"layers": []}, "layers is empty"),
        ({"start": "conv9"}, "no layer 'conv9'; the nearest are conv"),
        ({"vectors": 1}, "vectors must be at least 2, got 1"),
        ({"draws": 0}, "draws must be at least 1, got 0"),
        ({"classes": 0}, "classes must be at least 1, got 0"),
        ({"classes": 4}, "classes=4 others cannot be drawn: the model has 4 classes"),
        ({"two_class": (pictures()[:1], (2, 2))}, "must differ, got 2 twice"),
        ({"two_class": (pictures()[:1], (0, 9))}, "between 0 and 3, got 9"),
    ],
)
def test_settings_that_fit_no_method_are_refused_before_anything_is_measured(
    model, images, tmp_path, options, message
):
    with pytest.raises(ValueError, match=message):
        lrp.audit(model, images, ["lrp-z"], key=jax.random.key(0), out=tmp_path, **options)
    assert not list(tmp_path.rglob("piece-*"))


def test_a_method_without_two_class_maps_leaves_the_others(model, images):
    def broken(model, x, target):
        raise RuntimeError("no maps")

    found = lrp.audit(
        model, images, [broken], key=jax.random.key(2), two_class=(images[:1], (0, 1))
    )
    assert list(found.pairs.maps) == ["gradient", "the input itself", "random noise"]


def test_two_classes_are_drawn_for_every_method(model, images):
    report = lrp.audit(
        model, images, ["gradient"], key=jax.random.key(2), two_class=(images[:1], (0, 1))
    )
    pairs = report.pairs
    assert list(pairs.maps) == ["gradient", "the input itself", "random noise"]
    maps = pairs.maps["gradient"]
    assert maps.shape == (1, 3, 8, 8) and pairs.classes[:2] == (0, 1)
    assert pairs.classes[2] in (2, 3)
    own = np.abs(lrp.attribute(model, images[:1], "gradient", target=1)).max(-1)
    np.testing.assert_allclose(maps[:, 1], own, rtol=1e-6)
    assert pairs.distances["the input itself"] == [0]


def test_pictures_of_other_ranges_and_layouts():
    x = np.linspace(-2, 3, 2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    shown = pictures_of(x, 1)
    assert shown.shape == (2, 4, 5, 3)
    assert shown.reshape(2, -1).min(1).tolist() == [0, 0] and shown.max() == 1
    assert pictures_of(x[:, :2], 1) is None


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
import jax
import lrpjax as lrp
from helpers.nets_audit import network, pictures

model, x = network(), pictures()
lrp.audit(model, x, ["lrp-z", "gradient"], key=jax.random.key(2), out=sys.argv[1])
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_loses_no_finished_piece(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # compiles in half the time
    here = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", KILLED, str(tmp_path), here]
    finished = lambda: sorted(p.name for p in tmp_path.glob("piece-*.json"))
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while run.poll() is None and len(finished()) < 3:
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in finished()}
    assert 3 <= len(before) < 20
    for name in before:
        json.loads((tmp_path / name).read_text())
    assert subprocess.run(command, capture_output=True).returncode == 0
    after = {name: (tmp_path / name).stat().st_mtime_ns for name in finished()}
    assert len(after) > len(before)
    assert {name: after[name] for name in before} == before
