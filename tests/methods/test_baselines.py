"""Which inputs an image is compared with: one reading of `baseline=` and `baselines=` for all."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

RNG = np.random.default_rng(7)
KEY = jax.random.key(7)
SHAPE, N = (4, 3), 5
W, V = RNG.normal(size=(12, 6)), RNG.normal(size=(6, 3))
PARAMETERS = {"w": W, "v": V}
X, OWN, SET = (RNG.normal(size=(n, *SHAPE)) for n in (N, N, 3))
EXACT = 1e-12

METHODS = {
    "deeplift-rescale": {},
    "deeplift-reveal-cancel": {},
    "deeplift-ablation": {},
    "integrated-gradients": {"steps": 4},
    "occlusion": {"window": 2, "stride": 1},
}
every_method = pytest.mark.parametrize("name", METHODS)


def network(p, x):
    return jax.nn.relu(x.reshape(len(x), -1) @ p["w"] + 0.1) @ p["v"]


MODEL = jax.tree_util.Partial(network, PARAMETERS)


def explain(name, x, model=MODEL, **options):
    own = lrp.methods.get(name, **METHODS[name], **options)
    return jax.tree.map(np.asarray, lrp.attribute(model, x, own, target=1))


def alone(name, images, baselines, **options):
    """The map of each image by itself, against its own baseline (without the batch)."""
    pairs = zip(images, baselines, strict=True)
    return np.concatenate([explain(name, x[None], baseline=b, **options) for x, b in pairs])


@every_method
def test_a_baseline_for_each_image_is_compared_with_this_image_alone(name):
    found = explain(name, X, baseline=OWN)
    np.testing.assert_allclose(found, alone(name, X, OWN), atol=EXACT)
    others = explain(name, X, baseline=OWN[::-1])
    assert np.abs(found - others).max() > 0.01  # which one it is matters


@every_method
def test_over_a_set_of_baselines_maps_are_averaged(name):
    for some in (SET, OWN):  # also if there are as many as images
        found = explain(name, X, baselines=some)
        each = [explain(name, X, baseline=one) for one in some]
        np.testing.assert_allclose(found, np.mean(each, 0), atol=EXACT)


@every_method
@pytest.mark.parametrize("count", [2, 3, 6])
def test_another_number_of_baselines_than_images_is_refused_with_what_to_do(name, count):
    with pytest.raises(ValueError, match=rf"{count} inputs for 5 images.*baselines="):
        explain(name, X, baseline=np.zeros((count, *SHAPE)))


@every_method
def test_both_options_at_once_are_refused(name):
    with pytest.raises(ValueError, match=r"baseline= or baselines=.*not both"):
        explain(name, X, baseline=OWN[0], baselines=SET)


@every_method
@pytest.mark.parametrize("no_set", [0.0, np.float32(1), np.zeros((0, *SHAPE))])
def test_a_number_and_nothing_are_no_set(name, no_set):
    with pytest.raises(ValueError, match=r"baselines"):
        explain(name, X, baselines=no_set)


@every_method
@pytest.mark.parametrize("wrong", ["zeros", None, True, 1j])
def test_what_is_no_number_is_refused(name, wrong):
    with pytest.raises(TypeError, match=r"baseline= takes numbers or arrays of real numbers"):
        explain(name, X, baseline=wrong)


# --- pytrees -------------------------------------------------------------------------------------

TWO = {"a": X, "b": (RNG.normal(size=(N, 2)),)}
TWO_WEIGHTS = RNG.normal(size=(14, 6))
PYTREES = {
    "numbers": {"a": 0.5, "b": (-1.0,)},
    "one input": {"a": OWN[0], "b": (np.array([0.5, 2.0]),)},
    "one for each image": {"a": OWN, "b": (RNG.normal(size=(N, 2)),)},
    "one for each image, and a number": {"a": OWN, "b": (0.25,)},
}
OF_TWO = [name for name in METHODS if name != "occlusion"]  # which covers one input


def two_inputs(x):
    joined = jnp.concatenate([x["a"].reshape(len(x["a"]), -1), x["b"][0]], 1)
    return jax.nn.relu(joined @ TWO_WEIGHTS) @ V


def joined(tree, like):
    """The pytree as one array (N, 14), leaves filled up to the shapes of `like`."""
    full = jax.tree.map(lambda leaf, x: np.broadcast_to(leaf, x.shape), tree, like)
    return np.concatenate([full["a"].reshape(N, -1), full["b"][0]], 1)


@pytest.mark.parametrize("name", OF_TWO)
@pytest.mark.parametrize("given", PYTREES)
def test_a_pytree_of_baselines_is_that_of_the_joined_input(name, given):
    found = explain(name, TWO, two_inputs, baseline=PYTREES[given])
    flat = lambda x: jax.nn.relu(x @ TWO_WEIGHTS) @ V
    wanted = explain(name, joined(TWO, TWO), flat, baseline=joined(PYTREES[given], TWO))
    np.testing.assert_allclose(joined(found, TWO), wanted, atol=EXACT)


@pytest.mark.parametrize("name", OF_TWO)
def test_a_pytree_of_sets_is_averaged_over(name):
    sets = {"a": SET, "b": (RNG.normal(size=(3, 2)),)}
    found = explain(name, TWO, two_inputs, baselines=sets)
    ones = [jax.tree.map(lambda leaf, k=k: leaf[k], sets) for k in range(3)]
    each = [explain(name, TWO, two_inputs, baseline=one) for one in ones]
    wanted = jax.tree.map(lambda *maps: np.mean(maps, 0), *each)
    np.testing.assert_allclose(joined(found, TWO), joined(wanted, TWO), atol=EXACT)


MISFITS = {
    "another structure": {"a": 0.0, "c": (0.0,)},
    "the leaves alone": [0.0, 0.0],
    "one array": OWN,
}


@pytest.mark.parametrize("name", OF_TWO)
@pytest.mark.parametrize("given", MISFITS)
def test_a_pytree_of_another_structure_is_refused(name, given):
    with pytest.raises(ValueError, match="pytree like the model's input"):
        explain(name, TWO, two_inputs, baseline=MISFITS[given])


# --- measures over images ------------------------------------------------------------------------

RESCALE = partial(lrp.methods.get, "deeplift-rescale")


def test_csc_compares_each_image_with_its_own_baseline_whatever_the_chunk():
    rows = [
        lrp.convergence.csc(MODEL, X, RESCALE(baseline=OWN), key=KEY, vectors=4, chunk=chunk).rows
        for chunk in (1, 2, 100)
    ]
    for some in rows[1:]:
        for one, other in zip(rows[0], some, strict=True):
            assert one["median"] == pytest.approx(other["median"], abs=1e-9)
    other = lrp.convergence.csc(MODEL, X, RESCALE(baseline=OWN[::-1]), key=KEY, vectors=4).rows
    assert abs(other[-1]["median"] - rows[0][-1]["median"]) > 1e-6


def test_mprt_compares_each_image_with_its_own_baseline_whatever_the_chunk():
    options = {"key": KEY, "similarity": "pearson", "target": 1}
    own = lrp.methods.get("deeplift-rescale", baseline=OWN)
    found = [lrp.sanity.mprt(MODEL, X, own, chunk=chunk, **options).rows for chunk in (1, 2, 5)]
    for some in found[1:]:
        for one, other in zip(found[0], some, strict=True):
            np.testing.assert_allclose(one["values"], other["values"], atol=1e-9)


MEASURES = {
    "csc": partial(lrp.convergence.csc, key=KEY),
    "csc in chunks": partial(lrp.convergence.csc, key=KEY, vectors=2, chunk=2),
    "singular values": partial(lrp.convergence.singular_values, key=KEY),
    "profile": partial(lrp.convergence.profile, key=KEY),
    "mprt": partial(lrp.sanity.mprt, key=KEY, similarity="pearson"),
    "mprt in chunks": partial(lrp.sanity.mprt, key=KEY, similarity="pearson", chunk=2),
    "random logit": partial(lrp.sanity.random_logit, key=KEY, similarity="pearson", chunk=2),
}


@pytest.mark.parametrize("measure", MEASURES)
def test_a_measure_is_not_misled_by_as_many_baselines_as_it_takes_images_at_once(measure):
    with pytest.raises(ValueError, match=r"2 inputs for 5 images"):
        MEASURES[measure](MODEL, X, RESCALE(baseline=OWN[:2]))


def test_singular_values_are_those_of_each_image_against_its_own_baseline():
    measure = partial(lrp.convergence.singular_values, MODEL, key=KEY, k=2)
    found = measure(X, RESCALE(baseline=OWN)).rows
    for i in range(N):
        (wanted,) = measure(X[i : i + 1], RESCALE(baseline=OWN[i])).rows[-1:]
        own = [row for row in found if row["image"] == i][-1]
        np.testing.assert_allclose(own["values"], wanted["values"], rtol=1e-6)
