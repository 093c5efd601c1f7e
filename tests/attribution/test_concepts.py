"""TCAV against its equations in plain numpy, on planted concepts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracle_concepts as by_hand
from jax import lax
from scipy import stats

import lrpjax as lrp
from lrpjax._base import progress
from lrpjax.concepts import TCAV, tcav
from lrpjax.concepts.testing import welch_p_value
from lrpjax.concepts.vectors import cav, cav_accuracy

EXACT = 1e-10  # float64 means of shares, and the p-values made of them
FIT = 1e-4  # L-BFGS stops at a mean gradient of 1e-6, times 30 images, over a curvature of 1

pytestmark = pytest.mark.usefixtures("quick_compile")

RNG = np.random.default_rng(0)
UNITS, CLASSES, TARGET = 5, 3, 1
P = {
    "fc1": {"kernel": RNG.normal(size=(4, UNITS)), "bias": RNG.normal(size=UNITS)},
    "fc2": {"kernel": RNG.normal(size=(UNITS, CLASSES)), "bias": RNG.normal(size=CLASSES)},
}
X = RNG.normal(size=(15, 4))
CONCEPTS = {
    "near": RNG.normal([1, 0, -1, 0], size=(10, 4)),
    "far": RNG.normal([0, 3, 0, 0], [1, 2, 1, 1], size=(15, 4)),
}
RANDOM = [RNG.normal(size=(size, 4)) for size in (10, 15, 10, 10)]


def forward(p, x):
    x = jax.nn.relu(x @ p["fc1"]["kernel"] + p["fc1"]["bias"])
    return x @ p["fc2"]["kernel"] + p["fc2"]["bias"]


MODEL = jax.tree_util.Partial(forward, P)


def run(model=MODEL, images=X, **options):
    defaults = {"target": TARGET, "layer": "fc1", "concepts": CONCEPTS, "random": RANDOM}
    return tcav(model, images, **defaults | options)


# --- the equations -------------------------------------------------------------------------------


def at_layers(x):
    """Activations and derivatives of the target's logit at each layer."""
    w1, w2 = P["fc1"]["kernel"], P["fc2"]["kernel"]
    h = x @ w1 + P["fc1"]["bias"]
    above = np.broadcast_to(w2[:, TARGET], h.shape)
    at_h = above * (h > 0)
    return {"input": (x, at_h @ w1.T), "fc1": (h, at_h), "fc1:relu": (h * (h > 0), above)}


@pytest.mark.parametrize("layer", ["input", "fc1", "fc1:relu"])
def test_agrees_with_the_equations(layer):
    at = lambda images: at_layers(images)[layer][0]
    _, derivatives = at_layers(X)[layer]
    activations = {name: at(images) for name, images in CONCEPTS.items()}
    expected = by_hand.rows(derivatives, activations, [at(r) for r in RANDOM], 0.05)
    found = run(layer=layer).rows
    for row, plain in zip(found, expected, strict=True):
        assert row.keys() == plain.keys() | {"layer", "target"}
        assert (row["layer"], row["target"]) == (layer, TARGET)
        for key, value in plain.items():
            assert row[key] == pytest.approx(value, abs=EXACT), key


def test_agrees_with_the_equations_of_lrp():
    """R = h W / sum(h W) at a layer without bias above it, in the place of the gradient."""
    w1, w2 = P["fc1"]["kernel"], P["fc2"]["kernel"]
    model = jax.tree_util.Partial(lambda w, x: (x @ w["fc1"]) @ w["fc2"], {"fc1": w1, "fc2": w2})
    share = (X @ w1) * w2[:, TARGET]
    relevance = share / share.sum(1, keepdims=True)
    result = run(model, method="lrp-z")
    assert result.settings["method"] == "lrp-z"
    for row, images in zip(result.rows, CONCEPTS.values(), strict=True):
        expected = [np.mean(relevance @ by_hand.cav(images @ w1, r @ w1) > 0) for r in RANDOM]
        assert row["scores"] == pytest.approx(expected, abs=EXACT)
    assert [r["scores"] for r in run(model).rows] != [r["scores"] for r in result.rows]


# --- the classifier ------------------------------------------------------------------------------


def two_sets(sizes=(15, 10), units=5):
    rng = np.random.default_rng(1)
    spread = np.linspace(0.5, 2, units)
    return [
        rng.normal(k * np.cos(np.arange(units)), spread, (n, units)) for k, n in enumerate(sizes)
    ]


def test_cav_is_the_normal_of_logistic_regression():
    concept, random = two_sets()
    found = cav(concept, random)
    assert np.linalg.norm(found) == pytest.approx(1, abs=EXACT)
    np.testing.assert_allclose(found, by_hand.cav(concept, random), atol=FIT)
    np.testing.assert_allclose(cav(random, concept), -found, atol=FIT)


def test_the_scale_of_a_unit_does_not_matter():
    concept, random = two_sets()
    scale = np.array([1, 1e-4, 1e4, 7, 1])
    back = cav(concept * scale, random * scale) * scale
    np.testing.assert_allclose(back / np.linalg.norm(back), cav(concept, random), atol=FIT)


def test_units_that_vary_by_rounding_alone_count_for_nothing():
    concept, random = (s.astype("float32") for s in two_sets())
    noise = lambda s: 3 + np.float32(3e-7) * (np.arange(len(s)) % 2).astype("float32")
    extended = [
        np.column_stack([s, noise(s), np.zeros(len(s), s.dtype)]) for s in (concept, random)
    ]
    assert np.ptp(extended[0][:, 5]) > 0
    found = cav(*extended)
    assert list(found[5:]) == [0, 0]
    np.testing.assert_allclose(found[:5], cav(concept, random), atol=FIT)


def test_accuracy_is_of_images_held_out():
    concept, random = two_sets((10, 10), units=25)
    random = random - np.cos(np.arange(25))  # both sets are of one distribution
    normal, offset = by_hand.fit(concept, random)
    assert (concept @ normal + offset > 0).all()  # more units than images: any sets separate
    assert cav_accuracy(concept, random) == pytest.approx(by_hand.accuracy(concept, random))
    assert cav_accuracy(concept, random) < 0.9
    assert cav_accuracy(concept + 10, random) == 1


@pytest.mark.parametrize(
    ("scores", "null", "p_value"),
    [
        ([1.0, 1.0], [1.0, 1.0, 1.0], 1),
        ([0.1, 0.1, 0.1], [0.1] * 7, 1),
        ([1.0, 1.0], [0.5, 0.5], 0),
        ([0.5, 0.5, 0.5], [0.25, 0.75], 1),
    ],
)
def test_p_value_without_variance(scores, null, p_value):
    assert welch_p_value(np.array(scores), np.array(null)) == p_value


def test_p_value_is_welchs():
    scores, null = X[:6, 0], X[:, 1] + 1
    assert welch_p_value(scores, null) == pytest.approx(by_hand.welch(scores, null), rel=EXACT)
    assert welch_p_value(np.ones(3), null) == pytest.approx(by_hand.welch(np.ones(3), null))


# --- planted concepts ----------------------------------------------------------------------------

DIRECTION = np.array([2.0, -1, 0, 1])
HALVES = [RNG.normal(size=(12, 4)) for _ in range(3)]
MIRRORED = [sign * half for half in HALVES[:2] for sign in (1, -1)]
PLANTED = {
    "for": RNG.normal(size=(12, 4)) + 5 * DIRECTION,
    "against": RNG.normal(size=(12, 4)) - 5 * DIRECTION,
    "neither": np.concatenate([HALVES[2], -HALVES[2]]),
}


def planted_model(x):
    with jax.named_scope("middle"):
        h = x @ jnp.eye(4)
    return h @ jnp.stack([-DIRECTION, DIRECTION], axis=1)


def planted(model=planted_model, images=X, **options):
    return run(model, images, layer="middle", concepts=PLANTED, random=MIRRORED, **options)


def test_planted_concepts_are_found_with_their_p_values():
    """The logit grows by the same in every image: scores are 0 or 1, and the null's are half
    zeros and half ones, since swapped sets have opposite CAVs. So are those of a concept that
    is its own mirror image, against random sets that are each other's."""
    result = planted()
    towards, against, neither = result.rows
    assert towards["scores"] == [1] * 4 and against["scores"] == [0] * 4
    assert neither["score"] == 0.5 and neither["random_score"] == 0.5
    # 12 scores of the null, of variance 12/11 / 4: t = sqrt(11), with 11 degrees of freedom.
    expected = 3 * 2 * stats.t.sf(np.sqrt(11), 11)
    assert towards["p_value"] == against["p_value"] == pytest.approx(expected, rel=EXACT)
    assert towards["significant"] and against["significant"]
    assert neither["p_value"] == 1 and not neither["significant"]
    assert towards["accuracy"] == 1 and neither["accuracy"] < 0.8
    opposite = planted(target=0, significance=expected / 2).rows
    assert [r["score"] for r in opposite] == [0, 1, 0.5]
    assert opposite[0]["p_value"] == towards["p_value"] and not opposite[0]["significant"]


def test_p_value_is_corrected_for_the_number_of_concepts():
    alone = run(concepts={"far": CONCEPTS["far"]}).rows[0]
    among = run(concepts=CONCEPTS | {"other": X}).rows[1]
    assert among["scores"] == alone["scores"]
    assert among["p_value"] == pytest.approx(min(1, 3 * alone["p_value"]), rel=EXACT)


def test_a_logit_that_never_grows_is_no_finding():
    dead = P | {"fc2": {"kernel": P["fc2"]["kernel"] * [1, 0, 1], "bias": P["fc2"]["bias"]}}
    for row in run(jax.tree_util.Partial(forward, dead)).rows:
        assert row["score"] == row["score_std"] == row["random_score"] == row["random_std"] == 0
        assert row["p_value"] == 1 and not row["significant"] and row["false_positives"] == 0


# --- models and inputs ---------------------------------------------------------------------------


def test_chunks_change_nothing():
    sets = {"concepts": {"near": CONCEPTS["near"]}, "random": RANDOM[:2]}
    expected = run(**sets).rows
    for chunk in (1, 7, 1000):
        assert run(chunk=chunk, **sets).rows == expected


def test_every_batch_runs_the_same_program(caplog):
    with jax.log_compiles(), caplog.at_level("WARNING"):
        run(chunk=9, concepts={"near": CONCEPTS["near"]}, random=RANDOM[:2])
    compiled = [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()]
    assert sum("_activation" in message for message in compiled) == 1
    assert len(set(compiled)) == len(compiled)


def test_what_is_waited_for_is_told_step_by_step(monkeypatch, capsys):
    expected = run().rows
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    assert run(chunk=5).rows == expected  # to the last bit
    shown = capsys.readouterr().err
    for part in ("derivatives", "activations", "random sets", "concepts"):
        assert f"{part}: 1 of" in shown


W1, W2 = P["fc1"]["kernel"], P["fc2"]["kernel"]
SPELLINGS = {
    "closes over arrays": lambda x: jax.nn.relu(x @ W1) @ W2,
    "images last": lambda x: (W2.T @ jax.nn.relu(W1.T @ x.T)).T,
    "one image at a time": jax.vmap(lambda image: jax.nn.relu(image @ W1) @ W2),
    "a dictionary": lambda x: {"logits": jax.nn.relu(x @ W1) @ W2},
}


@pytest.mark.parametrize("model", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_of_a_model_has_the_same_scores(model):
    biasless = {name: {**p, "bias": 0 * p["bias"]} for name, p in P.items()}
    expected = run(jax.tree_util.Partial(forward, biasless), random=RANDOM[:2]).rows
    found = run(model, layer="dense_1", random=RANDOM[:2]).rows
    assert [r["scores"] for r in found] == [r["scores"] for r in expected]


def as_float(x):
    return (x.astype("float32") - 128) / 8


def as_bytes(x):
    return np.clip(8 * x + 128, 0, 255).astype("uint8")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
def test_planted_concepts_are_found_in_every_precision(dtype):
    convert = as_bytes if dtype == "uint8" else lambda x: jnp.asarray(x, dtype)
    model = lambda x: planted_model(as_float(x) if dtype == "uint8" else x)
    concepts = {name: convert(PLANTED[name]) for name in ("for", "against")}
    random = [convert(images) for images in RANDOM[:2]]
    result = run(model, convert(X), layer="middle", concepts=concepts, random=random)
    assert [r["score"] for r in result.rows] == [1, 0]


def test_floating_point_sets_take_the_precision_of_the_images():
    single = lambda x: x.astype("float32")
    double = {"concepts": {"near": CONCEPTS["near"]}, "random": RANDOM[:2]}
    assert run(images=single(X), **double) == run(images=single(X), **jax.tree.map(single, double))


def conv(x, kernel):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)


def test_a_convolutional_layer():
    rng = np.random.default_rng(2)
    p = {"conv": rng.normal(size=(3, 3, 2, 3)), "fc": rng.normal(size=(48, CLASSES))}
    forward = lambda p, x: jax.nn.relu(conv(x, p["conv"])).reshape(len(x), -1) @ p["fc"]
    images, concept, *random = (rng.normal(size=(10, 4, 4, 2)) for _ in range(5))
    result = run(
        jax.tree_util.Partial(forward, p),
        images,
        layer="conv",
        concepts={"a": concept},
        random=random,
    )
    at = lambda x: np.asarray(conv(x, p["conv"])).reshape(len(x), -1)
    derivatives = (at(images) > 0) * p["fc"][:, TARGET]
    scores = [np.mean(derivatives @ by_hand.cav(at(concept), at(r)) > 0) for r in random]
    assert result.rows[0]["scores"] == pytest.approx(scores, abs=EXACT)
    assert 0 < result.rows[0]["score"] < 1


# --- results -------------------------------------------------------------------------------------


def test_the_table_lists_every_concept():
    table, settings = str(planted()).split("\n\n")
    header, *lines = table.splitlines()
    assert "random_sets: " in settings
    assert header.split()[:3] == ["concept", "layer", "target"]
    assert [line.split()[0] for line in lines] == list(PLANTED)
    assert [line.split()[-2] for line in lines] == ["yes", "yes", "no"]
    assert len({line.index("middle") for line in lines} | {header.index("layer")}) == 1


def test_results_are_saved_whole_and_read_again(tmp_path):
    result = run(random=RANDOM[:2])
    assert result.rows[0]["false_positives"] is None and "\N{EN DASH}" in str(result)
    result.save(tmp_path / "r.json")
    assert TCAV.load(tmp_path / "r.json") == result
    assert [file.name for file in tmp_path.iterdir()] == ["r.json"]


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"settings": {}}', '{"settings": {}, "rows": [1]}']
)
def test_files_of_something_else(content, tmp_path):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ValueError, match=r"TCAV results .*bad\.json"):
        TCAV.load(tmp_path / "bad.json")


def test_files_of_csc_results_are_none_of_tcav(tmp_path):
    lrp.convergence.CSC({}, [{"layer": "fc1", "median": 0.5}]).save(tmp_path / "c.json")
    with pytest.raises(ValueError, match=r"TCAV results .*c\.json"):
        TCAV.load(tmp_path / "c.json")
