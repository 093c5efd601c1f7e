"""A method of the user's: an object with a name and `explain`, or a function, wherever one goes."""

from collections import Counter
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

KEY = jax.random.key(0)
DRAWN = np.random.default_rng(3)
X = DRAWN.normal(size=(3, 6, 6, 2))
W = {"conv": DRAWN.normal(size=(3, 3, 2, 4)), "out": DRAWN.normal(size=(4 * 36, 5)) / 12}
TRACED = Counter()


def forward(w, x):
    TRACED[x.shape] += 1
    layout = ("NHWC", "HWIO", "NHWC")
    h = jax.nn.relu(
        jax.lax.conv_general_dilated(x, w["conv"], (1, 1), "SAME", dimension_numbers=layout)
    )
    return h.reshape(len(x), -1) @ w["out"]


MODEL = jax.tree_util.Partial(forward, jax.tree.map(jnp.asarray, W))
TARGET = np.array([4, 0, 2])


class Saliency:
    """|J^T 1_t|, by JAX and not by this package."""

    name = "own saliency"

    def explain(self, reading, x, target):
        at = lambda x: (reading(x) * jax.nn.one_hot(target, 5)).sum()
        return jnp.abs(jax.grad(at)(jnp.asarray(x)))


class Reread(Saliency):
    """The same from the package, which takes the reading for the model."""

    name = "reread"
    colour = "max-abs"

    def explain(self, reading, x, target):
        return jnp.abs(lrp.attribute(reading, x, "gradient", target=target))


def saliency(model, x, target):
    return np.abs(lrp.attribute(model, x, "gradient", target=target))


OWN = {"object": Saliency(), "rereads": Reread(), "function": saliency}
each = pytest.mark.parametrize("own", OWN.values(), ids=OWN)


def expected(w=W):
    """From the equation: the mask of the ReLU, and the transposed convolution as a sum."""
    w = jax.tree.map(lambda a: np.asarray(a, float), w)
    padded = np.pad(X, ((0, 0), (1, 1), (1, 1), (0, 0)))
    z = sum(padded[:, i : i + 6, j : j + 6] @ w["conv"][i, j] for i in range(3) for j in range(3))
    r = w["out"][:, TARGET].T.reshape(z.shape) * (z > 0)
    back = np.zeros_like(padded)
    for i in range(3):
        for j in range(3):
            back[:, i : i + 6, j : j + 6] += r @ w["conv"][i, j].T
    return np.abs(back[:, 1:-1, 1:-1])


@each
def test_it_is_attributed(own):
    found = lrp.attribute(MODEL, X, own, target=TARGET)
    np.testing.assert_allclose(found, expected(), rtol=1e-10)


def test_its_target_is_a_class_for_each_image():
    seen = []

    def telling(model, x, target):
        seen.append(np.asarray(target).tolist())
        return x

    largest = np.asarray(forward(W, X)).argmax(-1).tolist()
    for target, wanted in ((None, largest), (3, [3, 3, 3]), (TARGET, TARGET.tolist())):
        lrp.attribute(MODEL, X, telling, target=target)
        lrp.sanity.conservation(MODEL, X, telling, key=KEY, target=target)
        assert seen == [wanted, wanted]
        seen.clear()


@each
def test_every_sanity_check_takes_it_and_traces_the_model_once(own):
    named = lrp.methods.get("gradient")
    sanity = lrp.sanity
    options = {"key": KEY, "similarity": "spearman", "colour": "abs-sum"}
    checks = {
        "mprt": partial(sanity.mprt, **options),
        "random logit": partial(sanity.random_logit, **options),
        "efficient mprt": partial(sanity.efficient_mprt, key=KEY, colour="abs-sum"),
    }
    for name, check in checks.items():
        TRACED.clear()
        rows = check(MODEL, X, own, target=TARGET).rows
        assert set(TRACED.values()) == {1}, name
        for row, wanted in zip(rows, check(MODEL, X, named, target=TARGET).rows, strict=True):
            np.testing.assert_allclose(row["values"], wanted["values"], rtol=1e-6, err_msg=name)
    (row,) = sanity.conservation(MODEL, X, own, key=KEY, target=TARGET).rows
    assert row["check"] == "completeness"  # it starts from no relevance
    rows = sanity.smooth_mprt(MODEL, X, own, samples=2, **options).rows
    assert all(row["method"].endswith("(smooth)") for row in rows)
    grid = sanity.cascade(MODEL, X, own, key=KEY, target=TARGET, colour="none")
    (maps,) = grid.maps.values()
    np.testing.assert_allclose(maps[0], expected(), rtol=1e-10)


def test_an_audit_takes_all_of_them():
    report = lrp.audit(MODEL, X, [*OWN.values()], key=KEY, target=TARGET)
    assert report.methods[:3] == ["own saliency", "reread", "saliency"]
    assert not [row for row in report.rows if row["check"] == "failed"]


def test_its_colour_is_its_own_and_the_sum_by_default():
    rows = lambda own: lrp.sanity.mprt(MODEL, X, own, key=KEY, similarity="pearson").settings
    assert rows(Saliency())["colour"] == "sum"
    assert rows(Reread())["colour"] == "max-abs"


def test_a_bottleneck_in_a_sanity_check_is_not_traced_again():
    fitted = lrp.bottleneck.statistics(MODEL, X, "conv")
    bits = lrp.methods.get("iba", layer="conv", statistics=fitted, key=KEY, beta=0.1)
    TRACED.clear()
    found = lrp.sanity.mprt(MODEL, X, bits, key=KEY, target=TARGET, similarity="pearson")
    assert set(TRACED.values()) == {1}
    assert all(abs(value) < 1 - 1e-6 for row in found.rows for value in row["values"])


def test_a_reading_with_other_parameters_is_the_model_with_these():
    other = jax.tree.map(lambda a: a[::-1], W)
    reading = lrp.read(MODEL, X)
    held = reading.holding([jnp.asarray(other[n]) for n in names(reading)])
    TRACED.clear()
    for model in (held, held.model):
        found = lrp.attribute(model, X, saliency, target=TARGET)
        np.testing.assert_allclose(found, expected(other), rtol=1e-10)
    np.testing.assert_allclose(held(X), forward(other, X), rtol=1e-12)
    assert set(TRACED.values()) == {1}  # the last line's own
    np.testing.assert_allclose(held(X[:1]), forward(other, X[:1]), rtol=1e-12)  # another shape
    again = lrp.read(held.model, X)
    np.testing.assert_allclose(
        lrp.attribute(again, X, "lrp-z", target=TARGET),
        lrp.attribute(jax.tree_util.Partial(forward, other), X, "lrp-z", target=TARGET),
    )


def names(reading):
    return [reading.graph.paths[v] for v in reading.graph.program.consts]


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (Saliency, "got the class Saliency"),
        (3, "a name, an lrpjax.methods.Method, an object with a name and explain"),
    ],
)
def test_what_explains_nothing_is_refused(own, words):
    with pytest.raises(TypeError, match=words):
        lrp.attribute(MODEL, X, own)


def test_a_map_of_another_shape_is_refused():
    first = lambda reading, x, target: x[:, 0, 0, 0]
    with pytest.raises(ValueError, match=r"one gives a map of shape \(3,\) for .*\(3, 6, 6, 2\)"):
        lrp.attribute(MODEL, X, SimpleNamespace(name="one", explain=first))
    with pytest.raises(ValueError, match="NaN or infinity in the relevance that nothing gives"):
        lrp.attribute(MODEL, X, named_function("nothing", lambda model, x, target: x * np.nan))


def named_function(name, function):
    function.__name__ = name
    return function


NAMED = {
    "gradient": {},
    "lrp-z": {},
    "lrp-zplus": {"fold": False},
    "deeplift-rescale": {"baseline": 0.5},
    "integrated-gradients": {"steps": 3},
    "smooth-grad": {"key": KEY, "samples": 2},
    "contrastive-lrp": {},
    "occlusion": {"window": 2},
}


@pytest.mark.parametrize("name", NAMED)
def test_a_named_method_explains_by_the_same_protocol(name):
    """At the input it is given, whatever the reading was made at."""
    method, reading = lrp.methods.get(name, **NAMED[name]), lrp.read(MODEL, X[::-1])
    found = method.explain(reading, X, TARGET)
    np.testing.assert_allclose(
        found, lrp.attribute(MODEL, X, method, target=TARGET), rtol=1e-12, atol=1e-13
    )
    with pytest.raises(ValueError, match="was read for an input"):
        method.explain(reading, X[:2], TARGET[:2])
