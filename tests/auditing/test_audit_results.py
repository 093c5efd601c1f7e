"""An audit as a result: saved whole, joined with others, and taken apart check by check."""

from __future__ import annotations

import json
from dataclasses import asdict

import jax
import numpy as np
import pytest
from helpers.nets_audit import network, pictures
from helpers.results import audit, cascade, two_classes

import lrpjax as lrp
from lrpjax.auditing import Audit, Thresholds

KEY = jax.random.key(2)
pytestmark = pytest.mark.usefixtures("quick_compile")


def run(method, **options):
    model, x = network(), pictures()
    options = {"key": KEY, "vectors": 3, "two_class": (x[:1], (0, 1)), **options}
    return lrp.audit(model, x, [method], **options)


@pytest.fixture(scope="module")
def two():
    return run("lrp-alpha1-beta0"), run("lrp-z")


def test_it_is_loaded_with_all_that_it_was_saved_with(two, tmp_path):
    report = two[0].judged(Thresholds(same_map=0.7))
    report.save(tmp_path / "a.json")
    again = Audit.load(tmp_path / "a.json")
    assert again == report and again.settings == report.settings and again.rows == report.rows
    assert again.thresholds == Thresholds(same_map=0.7) and again.summary == report.summary
    assert again.stops == report.stops and again.maps.keys() == report.maps.keys()
    for name, maps in report.maps.items():
        assert np.array_equal(again.maps[name], maps) and again.maps[name].dtype == maps.dtype
    assert np.array_equal(again.pictures, report.pictures)
    assert again.pairs == report.pairs and again.pairs.classes == report.pairs.classes
    for one, name in ((report, "one.html"), (again, "other.html")):
        one.save(tmp_path / name)
    assert (tmp_path / "one.html").read_text() == (tmp_path / "other.html").read_text()


def test_its_file_begins_with_what_to_json_writes(two, tmp_path):
    two[0].save(tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    numbers = json.loads(two[0].to_json(tmp_path / "numbers.json"))
    assert {name: content[name] for name in numbers} == numbers
    assert list(numbers) == ["settings", "thresholds", "summary", "rows"]
    bare = Audit.load(tmp_path / "numbers.json")
    assert bare.rows == two[0].rows and bare.thresholds == two[0].thresholds
    assert bare.maps == {} and bare.stops == [] and bare.pictures is bare.pairs is None
    bare.save(tmp_path / "bare.html")
    assert "Maps while parameters" not in (tmp_path / "bare.html").read_text()


@pytest.mark.parametrize("name", ["audit", "audit.txt", "audit.npz"])
def test_it_is_saved_as_a_page_or_as_json(name, tmp_path):
    with pytest.raises(ValueError, match=rf"{name}"):
        audit("a").save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_audits_of_other_methods_are_joined_to_what_one_would_have_been(two):
    joined = two[0] + two[1]
    model, x = network(), pictures()
    methods = ["lrp-alpha1-beta0", "lrp-z"]
    whole = lrp.audit(model, x, methods, key=KEY, vectors=3, two_class=(x[:1], (0, 1)))
    assert joined.methods == whole.methods == joined.settings["methods"]
    assert list(joined.maps) == list(whole.maps) == list(joined.pairs.maps) == whole.methods
    assert joined.settings == whole.settings
    assert [row["method"] for row in joined.summary] == whole.methods
    for one, other in zip(joined.summary, whole.summary, strict=True):
        assert one["verdict"] == other["verdict"]
    for one, other in zip(joined.rows, whole.rows, strict=True):
        assert one.keys() == other.keys() and one["check"] == other["check"]


def test_the_controls_of_the_first_stay(two):
    rows = lambda report: [row for row in report.rows if row["method"] == "random noise"]
    assert rows(two[0] + two[1]) == rows(two[0])


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"settings": {"n_images": 3}}, "differ in 'n_images' .2 and 3."),
        ({"settings": {"images_sha256": "x"}}, "differ in 'images_sha256'"),
        ({"settings": {"parameters_sha256": "x"}}, "differ in 'parameters_sha256'"),
        ({"thresholds": Thresholds(same_map=0.5)}, "differ in 'same_map' .0.8 and 0.5."),
        ({"pairs": None}, "no two-class experiment"),
        ({"grid": cascade("b", stops=["trained", "a", "b"])}, "of other stops"),
        ({"pairs": two_classes("b", classes=(1, 2, 3))}, "of other classes"),
    ],
)
def test_other_models_images_and_settings_are_not_joined(changed, expected):
    a, b = audit("a"), audit("b")
    parts = {name: getattr(b, name) for name in ("rows", "thresholds", "grid", "pairs")}
    other = Audit(**{**parts, **changed, "settings": b.settings | changed.get("settings", {})})
    with pytest.raises(ValueError, match=expected) as error:
        a + other
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_a_method_of_both_is_named():
    with pytest.raises(ValueError, match="Both audits have the method 'a'"):
        audit("a") + audit("a")


def test_what_a_check_measured_is_its_own_kind_of_result(two):
    report, name = two[0] + two[1], "lrp-z"
    model, x = network(), pictures()
    target = np.asarray(model(x)).argmax(-1)
    alone = lrp.convergence.csc(model, x, name, key=KEY, vectors=3)
    own = lambda result: [row for row in result.rows if row["method"] == name]
    assert own(report.of("csc")) == alone.rows and type(report.of("csc")) is type(alone)
    alone = lrp.sanity.random_logit(model, x, name, key=KEY, target=target)
    found = report.of("random-logit")
    assert type(found) is type(alone)
    assert [row for row in own(found) if row["similarity"] == "ssim"] == alone.rows
    alone = lrp.convergence.certificate(model, x[:1], name, key=KEY)
    found = report.of("certificate")
    assert own(found) == alone.rows and type(found) is type(alone)
    (mine,) = (one for one in found.each if one.map["method"] == name)
    assert mine.sentence == alone.sentence and name in str(found)
    with pytest.raises(ValueError, match="3 certificates: take one of `each`"):
        _ = found.sentence
    ratios = [row["ratio"] for row in own(report.of("spectrum"))]
    alone = lrp.convergence.singular_values(model, x[:2], name, key=KEY, k=2)
    assert ratios == [row["ratio"] for row in alone.rows]
    for check in ("mprt", "conservation", "completeness"):
        assert {row["check"] for row in report.of(check).rows} == {check}


def test_a_check_that_there_is_not(two):
    with pytest.raises(ValueError, match="no check 'mptr'; the nearest are mprt"):
        two[0].of("mptr")


def test_its_figures_tell_controls_by_their_names(two):
    (panel,) = two[0].plot().axes
    labels = [text.get_text() for text in panel.get_yticklabels()]
    assert {"lrp-alpha1-beta0", "gradient", "random noise (control)"} <= set(labels)
    (panel,) = two[0].of("mprt").plot(similarity="spearman").axes
    assert "Spearman" in panel.get_ylabel()
    shown = two[0]._repr_html_()
    assert "sigma_ratio" in shown and "data:image/png" in shown


def test_a_check_without_rows_has_no_figure():
    report = audit("a")
    empty = Audit(report.settings, [row for row in report.rows if row["check"] == "csc"])
    with pytest.raises(ValueError, match="but these are of nothing"):
        empty.of("mprt").plot()
    assert "<img" not in empty.of("mprt")._repr_html_() + empty._repr_html_()


def test_thresholds_are_written(two):
    assert json.loads(two[0].to_json())["thresholds"] == asdict(Thresholds())
