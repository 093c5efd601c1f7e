"""The grid of maps under randomisation and the two-class experiment: joined, saved and drawn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.nets_audit import network, pictures
from helpers.results import PICTURES, STOPS, cascade, two_classes

import lrpjax as lrp
from lrpjax.sanity.pictures import pictures_of

KEY = jax.random.key(3)
METHODS = ("gradient", "lrp-z")
pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def images():
    return pictures()[:2]


@pytest.fixture(scope="module")
def grid(model, images):
    return sum(lrp.sanity.cascade(model, images, m, key=KEY, target=1) for m in METHODS)


@pytest.fixture(scope="module")
def pairs(model, images):
    measure = lambda m: lrp.sanity.two_classes(model, images, m, classes=(0, 1), key=KEY)
    return sum(map(measure, METHODS))


def test_a_grid_holds_the_maps_of_all_methods_and_the_images(grid, model, images):
    assert list(grid.maps) == list(METHODS) and grid.stops == ["trained", "dense", "conv2", "conv1"]
    own = lrp.attribute(model, images, "lrp-z", target=1).sum(-1)
    np.testing.assert_allclose(grid.maps["lrp-z"][0], own, rtol=1e-6)
    np.testing.assert_allclose(grid.pictures, images, rtol=1e-6)
    expected = [(m, stop) for m in METHODS for stop in grid.stops]
    assert [(row["method"], row["layer"]) for row in grid.rows] == expected
    largest = [float(np.abs(maps).max()) for own in grid.maps.values() for maps in own]
    assert [row["largest"] for row in grid.rows] == largest
    assert grid.settings["order"] == "output" and grid.settings["images"] == 2


def test_pairs_hold_the_maps_of_three_classes_and_their_distances(pairs, model, images):
    assert pairs.classes[:2] == (0, 1) and pairs.classes[2] in (2, 3)
    for place, target in enumerate(pairs.classes):
        own = lrp.attribute(model, images, "lrp-z", target=target).sum(-1)
        np.testing.assert_allclose(pairs.maps["lrp-z"][:, place], own, rtol=1e-6)
    for method, (a, b, _) in ((m, np.moveaxis(own, 1, 0)) for m, own in pairs.maps.items()):
        for i, distance in enumerate(pairs.distances[method]):
            scaled = [np.clip(x / np.abs(np.percentile(x, [0.5, 99.5])).max(), -1, 1)
                      for x in (a[i], b[i])]  # fmt: skip
            assert distance == pytest.approx(np.abs(np.abs(scaled[0]) - np.abs(scaled[1])).mean())


def test_loaded_they_are_drawn_as_before(grid, pairs, tmp_path):
    for result in (grid, pairs):
        result.save(tmp_path / "r.json")
        again = type(result).load(tmp_path / "r.json")
        assert again == result
        assert again.plot()._repr_png_() == result.plot()._repr_png_()


def test_the_figure_of_a_grid_is_of_one_image_and_some_methods(grid):
    panels = lambda figure: [p for p in figure.axes if p.images]
    assert len(panels(grid.plot())) == 2 * 5
    assert len(panels(lrp.plots.cascade(grid, methods=["lrp-z"]))) == 5
    drawn = lambda image: np.asarray(panels(grid.plot(image=image))[0].images[0].get_array())
    for image in (0, 1, -1):
        np.testing.assert_allclose(drawn(image), grid.pictures[image])
    assert grid.plot(name="frog").get_suptitle() == "frog"


def test_the_figure_of_pairs_has_names_and_distances(pairs):
    figure = pairs.plot(names=["cat", "dog", "pen"], methods=["gradient"])
    panels = [p for p in figure.axes if p.images]
    assert len(panels) == 2 * 5
    assert [p.get_title() for p in panels[1:4]] == ["cat", "dog", "pen"]
    noted = [panels[i].get_xlabel() for i in (4, 9)]
    assert noted == [f"L1 {distance:.6f}" for distance in pairs.distances["gradient"]]
    assert pairs.plot().axes[1].get_title() == "0"


def test_some_methods_alone(grid):
    both = grid.only(["lrp-z", "gradient"])
    assert list(both.maps) == ["lrp-z", "gradient"] and both.rows[0]["method"] == "lrp-z"
    one = both.only(["gradient"])
    assert list(one.maps) == ["gradient"] and len(one.rows) == 4
    assert one + both.only(["lrp-z"]) == grid


CHANGED = {
    "stops": (cascade, {"stops": [*STOPS[:2], "other"]}),
    "classes": (two_classes, {"classes": (0, 3, 2)}),
    "images": (cascade, {"pictures": 1 - PICTURES}),
    "images of a pair": (two_classes, {"pictures": None}),
    "images of another size": (cascade, {"maps": {"b": np.zeros((3, 2, 7, 5))}}),
}


@pytest.mark.parametrize("what", CHANGED)
def test_what_is_of_other_stops_images_or_classes_is_not_joined(what):
    made, changed = CHANGED[what]
    with pytest.raises(ValueError, match=f"of other {what.split()[0]} cannot be joined") as error:
        made("a") + made("b", **changed)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_a_method_stands_once():
    with pytest.raises(ValueError, match="maps of 'a' in both"):
        cascade("a") + cascade("a")


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: cascade("a").plot(image=2), "There are 2 images, numbered from 0: got image 2"),
        (lambda: cascade("a").plot(methods=["b"]), "no method 'b'; the nearest are a"),
        (lambda: two_classes("a").plot(methods=["b"]), "no method 'b'; the nearest are a"),
        (lambda: cascade("a").plot(methods=[]), "no maps"),
        (lambda: cascade("a", pictures=None).plot(), "no pictures"),
        (lambda: two_classes("a", pictures=None).plot(), "no pictures"),
        (lambda: two_classes("a").plot(names=["x", "y"]), "three names"),
    ],
)
def test_grids_that_cannot_be_drawn(call, expected):
    with pytest.raises(ValueError, match=expected):
        call()


def test_maps_that_are_not_finite_have_no_largest_value_and_no_distance(model, images):
    broken = lambda model, x, target: jnp.where(target[0] == 1, jnp.nan, x)
    found = lrp.sanity.cascade(model, images, broken, key=KEY, target=1)
    assert [row["largest"] for row in found.rows] == [None] * 4
    pair = lrp.sanity.two_classes(model, images, broken, classes=(0, 1), key=KEY)
    assert list(pair.distances.values()) == [[None, None]]
    assert found.plot().axes and pair.plot().axes


@pytest.mark.parametrize("shape", [(2, 8), (2, 8, 8), (2, 8, 8, 2)])
def test_what_is_no_picture_has_none(shape):
    assert pictures_of(np.zeros(shape), len(shape) - 1) is None
    assert pictures_of(np.zeros((2, 8, 8, 3)), None) is None
