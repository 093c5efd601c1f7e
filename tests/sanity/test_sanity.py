"""Parameter randomisation against cascades performed by hand, with given random weights.

`init` makes the random model, so that what every stop must measure is known to the last digit.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracle_sanity as oracle
from helpers.nets_sanity import Recorder, close, gradient_times_input, model
from helpers.vit import vit
from jax.tree_util import Partial

import lrpjax as lrp

# Absolute, of similarities. Maps differ by rounding, and one rank of 256 that two nearly equal
# entries change moves Spearman's correlation by less than 1e-6: no such ties here.
EXACT = 1e-9

KEY = jax.random.key(0)
TRAINED, RANDOM = oracle.parameters(0), oracle.parameters(1)
X = oracle.images(4)
TARGET = oracle.logits(TRAINED, X).argmax(1)
MODEL = model(TRAINED)
BY_HAND = ("gradient", "guided-bp", "deconv", "input-x-gradient")
pytestmark = pytest.mark.usefixtures("quick_compile")


def fixed(p=RANDOM):
    return lambda key: model(p)


def mprt(method="gradient", images=X, network=MODEL, **options):
    options = {"key": KEY, "init": fixed(), **options}
    return lrp.sanity.mprt(network, images, method, **options)


def by_layer(result):
    return {(row["layer"], row["similarity"]): row for row in result.rows}


def hand_map(method, p):
    return oracle.maps(p, X, TARGET, method, lrp.methods.get(method).start)


def compared(maps, method, colour="auto"):
    """The maps as they are compared, by the paper's choice of colours."""
    automatic = "max-abs" if method in oracle.MAX_ABS else "sum"
    return oracle.reduced(maps, automatic if colour == "auto" else colour, 3)


@pytest.mark.parametrize("order", ["output", "input", "single"])
@pytest.mark.parametrize("method", BY_HAND)
def test_agrees_with_a_cascade_by_hand(method, order):
    names = tuple(oracle.SIMILARITIES)
    result = mprt(method, order=order, similarity=names)
    rows = by_layer(result)
    assert len(result.rows) == len(rows) == 3 * len(names)
    trained = compared(hand_map(method, TRAINED), method)
    for layer, mixed in oracle.cascade(TRAINED, RANDOM, order):
        random = compared(hand_map(method, mixed), method)
        for name in names:
            close(rows[layer, name], oracle.similarities(name, trained, random), EXACT)


@pytest.mark.parametrize(
    ("order", "layers"), [("output", ["fc", "conv2", "conv1"]), ("input", list(oracle.LAYERS))]
)
def test_rows_stand_in_the_order_of_the_cascade(order, layers):
    rows = mprt(order=order).rows
    assert [row["layer"] for row in rows] == layers
    for row in rows:
        assert {**row, "check": "mprt", "method": "gradient", "order": order} == row
        assert row["similarity"] == "ssim" and len(row["values"]) == len(X)
        assert row["low"] <= row["median"] <= row["high"]


@pytest.mark.parametrize("order", ["output", "input", "single"])
def test_layers_choose_the_stops_and_not_what_is_randomised(order):
    whole = by_layer(mprt(order=order, similarity="pearson"))
    for layers in (["conv1"], ["conv2"], ["fc", "conv1"]):
        some = by_layer(mprt(order=order, similarity="pearson", layers=layers))
        assert {layer for layer, _ in some} == set(layers)
        for place, row in some.items():
            close(row, oracle.known(whole[place]["values"]), EXACT)


@pytest.mark.parametrize("randomiser", ["gaussian", "permutation"])
def test_layers_choose_the_stops_under_every_randomiser(randomiser):
    options = {"randomiser": randomiser, "init": None, "similarity": "pearson"}
    whole, some = by_layer(mprt(**options)), by_layer(mprt(layers=["conv1"], **options))
    close(some["conv1", "pearson"], oracle.known(whole["conv1", "pearson"]["values"]), EXACT)


@pytest.mark.parametrize("multiplier", [None, "times", "divided"])
@pytest.mark.parametrize("colour", ["auto", "sum", "max-abs", "abs-sum", "none"])
@pytest.mark.parametrize("method", ["gradient", "input-x-gradient"])
def test_colours_and_multipliers(method, colour, multiplier):
    x = X.copy()
    x[:, 3:7, 2:9] = 0  # where nothing can be divided by
    target = oracle.logits(TRAINED, x).argmax(1)
    rows = by_layer(
        mprt(method, images=x, similarity="cosine", colour=colour, multiplier=multiplier)
    )

    def shown(p):
        maps = oracle.maps(p, x, target, method, "one")
        return compared(oracle.multiplied(maps, x, multiplier), method, colour)

    for layer, mixed in oracle.cascade(TRAINED, RANDOM, "output"):
        expected = oracle.similarities("cosine", shown(TRAINED), shown(mixed))
        close(rows[layer, "cosine"], expected, EXACT)


METHODS = {
    "lrp-z": "lrp-z",
    "lrp-alpha2-beta1": "lrp-alpha2-beta1",
    "a value": lrp.methods.alpha_beta(2, 1, bias="split"),
    "rect-grad": "rect-grad",
    "deep-taylor": lrp.methods.get("deep-taylor", low=-6, high=6),
    "deeplift-rescale": lrp.methods.get("deeplift-rescale", baseline=0.1),
    "deeplift-reveal-cancel": "deeplift-reveal-cancel",
    "contrastive-lrp": "contrastive-lrp",
    "smooth-grad": lrp.methods.get("smooth-grad", key=jax.random.key(5), samples=3),
    "smooth lrp": lrp.methods.get(
        "smooth-grad", base="lrp-epsilon", key=jax.random.key(5), samples=3, at_once=2
    ),
    "integrated-gradients": lrp.methods.get("integrated-gradients", steps=3),
    "occlusion": lrp.methods.get("occlusion", window=5, stride=5),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_any_method_is_that_of_attribute_on_the_randomised_model(method):
    similarity = "ssim" if method == "rect-grad" else "cosine"
    name = method if isinstance(method, str) else method.name
    if name == "smooth-grad":
        name = method.base.name  # what is averaged says which colours it has
    rows = by_layer(mprt(method, similarity=similarity))

    def shown(p):
        maps = np.asarray(lrp.attribute(model(p), jnp.asarray(X), method, target=TARGET))
        return compared(maps, name)

    # The paper scales rect-grad between its extremes.
    options = {"percentile": 100} if name == "rect-grad" else {}
    for layer, mixed in oracle.cascade(TRAINED, RANDOM, "output"):
        expected = oracle.similarities(similarity, shown(TRAINED), shown(mixed), **options)
        close(rows[layer, similarity], expected, 1e-7)  # denominators near zero amplify rounding


# --- the explained class ----------------------------------------------------------------------


def numpy_scores(model, x, target):
    """One that leaves JAX: what the model gives for the image without each of its rows."""
    x, out = np.asarray(x), np.asarray(model(x))
    map_ = np.zeros(x.shape)
    for row in range(0, x.shape[1], 4):
        covered = x.copy()
        covered[:, row : row + 4] = 0
        drop = (out - np.asarray(model(covered)))[np.arange(len(x)), np.asarray(target)]
        map_[:, row : row + 4] = drop[:, None, None, None] * np.abs(x[:, row : row + 4])
    return map_


@pytest.mark.parametrize("target", [None, 2, np.array([5, 0, 3, 3])], ids=str)
def test_the_explained_class_stays(target):
    assert (oracle.logits(RANDOM, X).argmax(1) != TARGET).any()  # else nothing is shown
    recorder = Recorder(gradient_times_input)
    rows = by_layer(mprt(recorder.method, target=target, similarity="pearson"))
    explained = np.broadcast_to(TARGET if target is None else target, len(X))
    assert recorder.targets
    for seen in recorder.targets:
        assert (np.broadcast_to(seen, len(X)) == explained).all()
    shown = lambda p: oracle.maps(p, X, explained, "input-x-gradient", "one").sum(-1)
    for layer, mixed in oracle.cascade(TRAINED, RANDOM, "output"):
        expected = oracle.similarities("pearson", shown(TRAINED), shown(mixed))
        close(rows[layer, "pearson"], expected, EXACT)


def test_functions_that_leave_jax():
    rows = by_layer(mprt(numpy_scores, similarity="pearson", layers=["conv2"]))
    (_, _), (_, mixed), _ = oracle.cascade(TRAINED, RANDOM, "output")
    shown = lambda p: numpy_scores(lambda x: oracle.logits(p, x), X, TARGET).sum(-1)
    expected = oracle.similarities("pearson", shown(TRAINED), shown(mixed))
    close(rows["conv2", "pearson"], expected, EXACT)


def test_functions_without_a_name():
    class Scores:
        def __call__(self, model, x, target):
            return gradient_times_input(model, x, target)

    for method in (Scores(), Partial(gradient_times_input)):
        (row,) = mprt(method, layers=["fc"]).rows
        (named,) = mprt(gradient_times_input, layers=["fc"]).rows
        assert isinstance(row["method"], str)
        close(row, oracle.known(named["values"]), EXACT)


# --- which parameters a stop has randomised ---------------------------------------------------


@pytest.mark.parametrize("order", ["output", "input", "single"])
def test_a_shared_parameter_is_randomised_once_with_the_uppermost_of_its_layers(order):
    def shared(p, x):
        h = jnp.tanh(x @ p["inner"]["kernel"])
        h = jnp.tanh(h @ p["twice"]["kernel"])
        return jnp.tanh(h @ p["middle"]["kernel"]) @ p["twice"]["kernel"]

    draw = lambda seed: {
        name: {"kernel": np.random.default_rng(seed + i).normal(size=(7, 7)) / 2}
        for i, name in enumerate(("inner", "twice", "middle"))
    }
    trained, random = draw(10), draw(20)
    x = np.random.default_rng(0).normal(size=(3, 7))
    network = model(trained, function=shared)
    names = [layer.name for layer in lrp.plan(network, jnp.asarray(x), "gradient").layers]
    first, second = (name for name in names if name.startswith("twice") and ":" not in name)
    gradient = lambda p: np.asarray(jax.grad(lambda x: shared(p, x)[:, 0].sum())(jnp.asarray(x)))
    new = {
        "output": {
            second: {"twice"},
            "middle": {"twice", "middle"},
            "inner": {"twice", "middle", "inner"},
        },
        "input": {
            "inner": {"inner"},
            "middle": {"inner", "middle"},
            second: {"inner", "twice", "middle"},
        },
        "single": {"inner": {"inner"}, "middle": {"middle"}, second: {"twice"}},
    }[order]
    options = {"similarity": "cosine", "colour": "none", "target": 0, "key": KEY, "order": order}
    init = lambda key: model(random, function=shared)
    rows = lrp.sanity.mprt(network, x, "gradient", init=init, **options).rows
    assert [row["layer"] for row in rows] == list(new)
    for row in rows:
        assert row["shared"] == ([first] if row["layer"] == second else [])
        mixed = {k: (random if k in new[row["layer"]] else trained)[k] for k in trained}
        close(row, oracle.similarities("cosine", gradient(trained), gradient(mixed)), EXACT)


def test_the_last_stop_is_the_random_model():
    """Also class token, position embeddings, LayerNorm and attention of a transformer."""
    trained = vit(constants=True)
    x = jax.random.uniform(KEY, (3, 16, 16, 3))
    target = trained(x).argmax(-1)
    shown = lambda network: np.asarray(lrp.attribute(network, x, "gradient", target=target))
    random = vit(constants=True, seed=1)
    expected = oracle.similarities(
        "cosine", *(np.abs(shown(network)).max(-1) for network in (trained, random))
    )
    for order in ("output", "input"):
        options = {"key": KEY, "order": order, "similarity": "cosine"}
        rows = lrp.sanity.mprt(trained, x, "gradient", init=lambda key: random, **options).rows
        close(rows[-1], expected, EXACT)
        assert len({row["median"] for row in rows}) > 5  # and it was not so at once


def test_draws_are_averaged_per_image():
    """And nothing but them: the trained map, which is like itself, is no part of it."""
    keys = []

    def init(key):
        keys.append(jax.random.key_data(key))
        drawn = jax.random.normal(key, TRAINED["fc"]["kernel"].shape)
        return model({**RANDOM, "fc": {"kernel": drawn, "bias": TRAINED["fc"]["bias"]}})

    (row,) = mprt(init=init, draws=4, layers=["fc"], similarity="pearson").rows
    keys = {tuple(np.asarray(key).ravel().tolist()): key for key in keys}
    trained = compared(hand_map("gradient", TRAINED), "gradient")
    each = []
    for key in keys.values():
        kernel = jax.random.normal(jax.random.wrap_key_data(key), TRAINED["fc"]["kernel"].shape)
        mixed = {**TRAINED, "fc": {"kernel": np.asarray(kernel), "bias": TRAINED["fc"]["bias"]}}
        random = compared(hand_map("gradient", mixed), "gradient")
        each.append(oracle.similarities("pearson", trained, random))
    assert len(each) == 4 and np.std(each, axis=0).min() > 1e-3
    close(row, np.mean(each, axis=0), EXACT)
