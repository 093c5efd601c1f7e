"""What the sanity checks say of the bundled network: the paper's claims, in small."""

import jax
import pytest

import lrpjax as lrp
from lrpjax.images import bundled_images

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compile")]


@pytest.fixture(scope="module")
def model():
    return lrp.models.cifar10()


@pytest.fixture(scope="module")
def bundled(model):
    pixels, labels = bundled_images()
    return model.preprocess(pixels), labels


def other_class(model, bundled, method):
    x, labels = bundled
    found = lrp.sanity.random_logit(model, x, method, key=jax.random.key(0), target=labels)
    return found.rows[0]["median"]


@pytest.mark.parametrize(
    "method", ["lrp-zplus", "lrp-alpha1-beta0", "deep-taylor", "excitation-bp"]
)
def test_the_zplus_family_does_not_see_the_class(model, bundled, method):
    assert other_class(model, bundled, method) > 0.9


@pytest.mark.parametrize("method", ["lrp-z", "gradient"])
def test_lrp_z_and_gradient_see_the_class(model, bundled, method):
    assert other_class(model, bundled, method) < 0.7


@pytest.fixture(scope="module")
def randomised(model, bundled):
    """The rows of a cascade from the output, for each method."""
    controls = list(lrp.sanity.CONTROLS.values())
    run = lambda method: lrp.sanity.mprt(model, bundled[0], method, key=jax.random.key(0)).rows
    chosen = ["gradient", "lrp-z", "lrp-alpha1-beta0", "guided-bp", *controls]
    return {getattr(method, "name", method): run(method) for method in chosen}


def test_the_input_itself_is_the_most_similar_to_itself(randomised):
    last = {name: rows[-1]["median"] for name, rows in randomised.items()}
    assert last.pop("the input itself") == 1
    assert max(last.values()) < 0.9


def test_the_gradient_changes_with_the_parameters(randomised):
    medians = [row["median"] for row in randomised["gradient"]]
    assert [row["layer"] for row in randomised["gradient"]][::5] == ["fc6", "conv1"]
    assert medians[0] < 0.6 and medians[-1] < medians[0] / 2


def test_a_random_last_layer_leaves_the_map_of_zplus_as_it_is(randomised):
    assert randomised["lrp-alpha1-beta0"][0]["low"] > 0.95
