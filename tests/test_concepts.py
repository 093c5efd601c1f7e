"""TCAV against its equations in plain numpy, on planted concepts, and its refusals."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import stats

import lrpjax as lrp
from lrpjax.concepts import MIN_IMAGES, TCAV, cav, cav_accuracy, tcav, welch_p_value

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


# --- the equations, in numpy ---------------------------------------------------------------------


def plain_fit(concept, random):
    """Newton's method on |w|^2 / 2 + sum_i c_i log(1 + exp(-y_i (w . u_i + b))), u standardised,
    with c_i = n / (2 size of i's set). Returns the normal and the offset in activation space."""
    h = np.concatenate([concept, random])
    y = np.repeat([1.0, -1.0], [len(concept), len(random)])
    c = len(h) / 2 / np.repeat([len(concept), len(random)], [len(concept), len(random)])
    mean, std = h.mean(0), h.std(0)
    u = np.column_stack([(h - mean) / std, np.ones(len(h))])
    ridge = np.diag([*np.ones(h.shape[1]), 0.0])  # the offset is not penalised
    w = np.zeros(u.shape[1])
    for _ in range(50):
        wrong = 1 / (1 + np.exp(y * (u @ w)))
        gradient = ridge @ w - u.T @ (c * y * wrong)
        curvature = ridge + (u * (c * wrong * (1 - wrong))[:, None]).T @ u
        w = w - np.linalg.solve(curvature, gradient)
    return w[:-1] / std, w[-1] - w[:-1] @ (mean / std)


def plain_cav(concept, random):
    normal, _ = plain_fit(concept, random)
    return normal / np.linalg.norm(normal)


def plain_layers(x):
    """Activations and derivatives of the target's logit at each layer."""
    w1, w2 = P["fc1"]["kernel"], P["fc2"]["kernel"]
    h = x @ w1 + P["fc1"]["bias"]
    above = np.broadcast_to(w2[:, TARGET], h.shape)
    at_h = above * (h > 0)
    return {"input": (x, at_h @ w1.T), "fc1": (h, at_h), "fc1:relu": (h * (h > 0), above)}


def plain_welch(a, b):
    va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    t = (a.mean() - b.mean()) / np.sqrt(va + vb)
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    return 2 * stats.t.sf(abs(t), freedom)


def plain_rows(layer):
    _, derivatives = plain_layers(X)[layer]
    at = lambda images: plain_layers(images)[layer][0]
    score = lambda a, b: np.mean(derivatives @ plain_cav(at(a), at(b)) > 0)
    n = range(len(RANDOM))
    null = {(i, j): score(RANDOM[i], RANDOM[j]) for i, j in itertools.permutations(n, 2)}
    among = lambda sets: np.array([null[pair] for pair in itertools.permutations(sets, 2)])
    passed = [
        len(CONCEPTS)
        * plain_welch(np.array([null[i, j] for j in n if j != i]), among([j for j in n if j != i]))
        < 0.05
        for i in n
    ]
    rows = []
    for name, images in CONCEPTS.items():
        scores = np.array([score(images, other) for other in RANDOM])
        p_value = min(1.0, len(CONCEPTS) * plain_welch(scores, among(n)))
        rows.append(
            {
                "concept": name,
                "layer": layer,
                "target": TARGET,
                "score": scores.mean(),
                "score_std": scores.std(ddof=1),
                "scores": list(scores),
                "random_score": among(n).mean(),
                "random_std": among(n).std(ddof=1),
                "p_value": p_value,
                "significant": p_value < 0.05,
                "accuracy": np.mean([plain_accuracy(at(images), at(r)) for r in RANDOM]),
                "false_positives": np.mean(passed),
            }
        )
    return rows


def plain_accuracy(concept, random):
    """Five folds, each a fifth of either set in its order."""
    halves = [np.split(np.arange(len(s)), 5) for s in (concept, random)]
    found = []
    for out in zip(*halves, strict=True):
        kept = [np.delete(s, i, 0) for s, i in zip((concept, random), out, strict=True)]
        normal, offset = plain_fit(*kept)
        right = [concept[out[0]] @ normal + offset > 0, random[out[1]] @ normal + offset < 0]
        found.append((right[0].mean() + right[1].mean()) / 2)
    return np.mean(found)


@pytest.mark.parametrize("layer", ["input", "fc1", "fc1:relu"])
def test_agrees_with_the_equations(layer):
    found, expected = run(layer=layer).rows, plain_rows(layer)
    assert len(found) == len(expected)
    for row, plain in zip(found, expected, strict=True):
        assert row.pop("scores") == pytest.approx(plain.pop("scores"), abs=EXACT)
        assert row == pytest.approx(plain, abs=EXACT)


def test_agrees_with_the_equations_of_lrp():
    """R = h W / sum(h W) at a layer without bias above it, in the place of the gradient."""
    w1, w2 = P["fc1"]["kernel"], P["fc2"]["kernel"]
    model = jax.tree_util.Partial(lambda w, x: (x @ w["fc1"]) @ w["fc2"], {"fc1": w1, "fc2": w2})
    share = (X @ w1) * w2[:, TARGET]
    relevance = share / share.sum(1, keepdims=True)
    result = run(model, method="lrp-z")
    assert result.settings["method"] == "lrp-z"
    for row, images in zip(result.rows, CONCEPTS.values(), strict=True):
        expected = [np.mean(relevance @ plain_cav(images @ w1, r @ w1) > 0) for r in RANDOM]
        assert row["scores"] == pytest.approx(expected, abs=EXACT)
    assert [r["scores"] for r in run(model).rows] != [r["scores"] for r in result.rows]


# --- the classifier ------------------------------------------------------------------------------


def two_sets(sizes=(15, 10)):
    scale = np.array([1, 1e3, 1e-3, 1, 5])
    return [
        RNG.normal(size=(n, 5)) * scale + k * scale * [1, 0, -1, 0, 2] / 2
        for k, n in enumerate(sizes)
    ]


def test_cav_is_the_normal_of_logistic_regression():
    concept, random = two_sets()
    found = cav(concept, random)
    assert np.linalg.norm(found) == pytest.approx(1, abs=EXACT)
    np.testing.assert_allclose(found, plain_cav(concept, random), atol=FIT)
    np.testing.assert_allclose(cav(random, concept), -found, atol=FIT)


def test_the_scale_of_a_unit_does_not_matter():
    concept, random = two_sets()
    scale = np.array([1, 1e-4, 1e4, 7, 1])
    expected = cav(concept, random) / scale
    np.testing.assert_allclose(
        cav(concept * scale, random * scale), expected / np.linalg.norm(expected), atol=FIT
    )


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
    concept, random = RNG.normal(size=(10, 25)), RNG.normal(size=(10, 25))
    normal, offset = plain_fit(concept, random)
    assert (concept @ normal + offset > 0).all()  # more units than images: any sets separate
    assert cav_accuracy(concept, random) == pytest.approx(plain_accuracy(concept, random))
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
    scores, null = RNG.normal(size=6), RNG.normal(size=30) + 1
    assert welch_p_value(scores, null) == pytest.approx(plain_welch(scores, null), rel=EXACT)
    assert welch_p_value(np.ones(3), null) == pytest.approx(plain_welch(np.ones(3), null))


# --- planted concepts ----------------------------------------------------------------------------

DIRECTION = np.array([2.0, -1, 0, 1])
_half = [RNG.normal(size=(12, 4)) for _ in range(3)]
MIRRORED = [sign * half for half in _half[:2] for sign in (1, -1)]
PLANTED = {
    "for": RNG.normal(size=(12, 4)) + 5 * DIRECTION,
    "against": RNG.normal(size=(12, 4)) - 5 * DIRECTION,
    "neither": np.concatenate([_half[2], -_half[2]]),
}


def planted_model(x):
    with jax.named_scope("middle"):
        h = x @ jnp.eye(4)
    return h @ jnp.stack([-DIRECTION, DIRECTION], axis=1)


def planted(model=planted_model, images=X, **options):
    return run(model, images, layer="middle", concepts=PLANTED, random=MIRRORED, **options)


def test_planted_concepts():
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
    among = run(concepts=CONCEPTS | {"other": RNG.normal(size=(10, 4))}).rows[1]
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


def test_a_progress_bar_when_asked(capsys):
    expected = run().rows
    assert capsys.readouterr().out == ""
    assert run(progress=True).rows == expected  # to the last bit
    shown = capsys.readouterr().out
    assert all(part in shown for part in ("derivatives", "activations", "random sets", "concepts"))


W1, W2 = P["fc1"]["kernel"], P["fc2"]["kernel"]
SPELLINGS = {
    "closes over arrays": lambda x: jax.nn.relu(x @ W1) @ W2,
    "images last": lambda x: (W2.T @ jax.nn.relu(W1.T @ x.T)).T,
    "one image at a time": jax.vmap(lambda image: jax.nn.relu(image @ W1) @ W2),
    "a dictionary": lambda x: {"logits": jax.nn.relu(x @ W1) @ W2},
}


@pytest.mark.parametrize("model", SPELLINGS.values(), ids=SPELLINGS)
def test_plain_functions(model):
    biasless = {name: {**p, "bias": 0 * p["bias"]} for name, p in P.items()}
    expected = run(jax.tree_util.Partial(forward, biasless), random=RANDOM[:2]).rows
    found = run(model, layer="dense_1", random=RANDOM[:2]).rows
    assert [r["scores"] for r in found] == [r["scores"] for r in expected]


def as_float(x):
    return (x.astype("float32") - 128) / 8


def as_bytes(x):
    return np.clip(8 * x + 128, 0, 255).astype("uint8")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
def test_other_precisions(dtype):
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
    p = {"conv": RNG.normal(size=(3, 3, 2, 3)), "fc": RNG.normal(size=(48, CLASSES))}
    forward = lambda p, x: jax.nn.relu(conv(x, p["conv"])).reshape(len(x), -1) @ p["fc"]
    images, concept, *random = (RNG.normal(size=(10, 4, 4, 2)) for _ in range(5))
    result = run(
        jax.tree_util.Partial(forward, p),
        images,
        layer="conv",
        concepts={"a": concept},
        random=random,
    )
    at = lambda x: np.asarray(conv(x, p["conv"])).reshape(len(x), -1)
    derivatives = (at(images) > 0) * p["fc"][:, TARGET]
    scores = [np.mean(derivatives @ plain_cav(at(concept), at(r)) > 0) for r in random]
    assert result.rows[0]["scores"] == pytest.approx(scores, abs=EXACT)
    assert 0 < result.rows[0]["score"] < 1


# --- results -------------------------------------------------------------------------------------


def test_the_table_lists_every_concept():
    header, *lines = str(planted()).splitlines()
    assert header.split()[:3] == ["concept", "layer", "target"]
    assert [line.split()[0] for line in lines] == list(PLANTED)
    assert [line.split()[-2] for line in lines] == ["yes", "yes", "no"]
    assert len({line.index("middle") for line in lines} | {header.index("layer")}) == 1


def test_results_are_saved_whole_and_read_again(tmp_path):
    result = run(random=RANDOM[:2])
    assert result.rows[0]["false_positives"] is None and "unknown" in str(result)
    result.save(tmp_path / "r.json")
    assert TCAV.load(tmp_path / "r.json") == result
    assert [file.name for file in tmp_path.iterdir()] == ["r.json"]


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"settings": {}}', '{"settings": {}, "rows": [1]}']
)
def test_files_of_something_else(content, tmp_path):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ValueError, match=r"bad\.json.*TCAV"):
        TCAV.load(tmp_path / "bad.json")


def test_files_of_csc_results_are_none_of_tcav(tmp_path):
    lrp.convergence.CSC({}, [{"layer": "fc1", "median": 0.5}]).save(tmp_path / "c.json")
    with pytest.raises(ValueError, match=r"c\.json.*TCAV"):
        TCAV.load(tmp_path / "c.json")


# --- refusals ------------------------------------------------------------------------------------

HOLE = np.where(np.arange(40).reshape(10, 4) == 7, np.nan, 1)
FEW = MIN_IMAGES - 1
REFUSED = {
    "small concept": ({"concepts": {"zebra": X[:FEW]}}, f"{FEW} images.*'zebra'.*{MIN_IMAGES}"),
    "small random set": ({"random": [X, X[:FEW]]}, f"{FEW} images in random set 1.*{MIN_IMAGES}"),
    "one random set": ({"random": RANDOM[:1]}, "at least 2 batches.*got 1"),
    "no concepts": ({"concepts": {}}, "dictionary from names.*got a"),
    "a list of concepts": ({"concepts": [X]}, "dictionary from names.*got a"),
    "another shape": ({"concepts": {"zebra": X[:, :3]}}, r"'zebra'.*\[3\].*explained.*\[4\]"),
    "random of another shape": ({"random": [X, X[None]]}, r"random set 1.*\[15, 4\].*\[4\]"),
    "another type": ({"concepts": {"zebra": X.astype(int)}}, "'zebra' are int64.*float64"),
    "NaN": ({"concepts": {"near": X, "zebra": HOLE}}, "NaN or infinity in the concept 'zebra'"),
    "NaN at random": ({"random": [X, HOLE]}, "NaN or infinity in random set 1"),
    "NaN in the images": ({"images": HOLE}, "NaN or infinity in the images"),
    "no images": ({"images": X[:0]}, "batch of images"),
    "no array": ({"images": list(X)}, "batch of images"),
    "unknown layer": ({"layer": "fc"}, "no layer 'fc'.*nearest.*fc1"),
    "target too large": ({"target": CLASSES}, f"between 0 and {CLASSES - 1}"),
    "target too small": ({"target": -1}, f"between 0 and {CLASSES - 1}"),
    "no target": ({"target": None}, "one class.*None"),
    "many targets": ({"target": [0, 1]}, r"one class.*\[0, 1\]"),
    "half a target": ({"target": 0.5}, "must be an integer"),
    "same images twice": (
        {"concepts": {"zebra": RANDOM[1]}},
        "'fc1' no direction leads from random set 1 to the concept 'zebra'",
    ),
    "same random sets": (
        {"random": [X, X]},
        "no direction leads from random set 1 to random set 0",
    ),
    "chunk": ({"chunk": 0}, "at least 1, got 0"),
    "significance": ({"significance": 5}, "between 0 and 1, got 5"),
}


@pytest.mark.parametrize(("options", "words"), REFUSED.values(), ids=REFUSED)
def test_bad_requests(options, words):
    refused(words, **options)


def refused(words, **options):
    with pytest.raises(ValueError, match=words) as caught:
        run(**options)
    assert re.fullmatch(r"[^\n]*[^.]\.", str(caught.value)) and ". " not in str(caught.value)


def test_layers_without_a_direction():
    kernel, bias = P["fc1"]["kernel"], P["fc1"]["bias"]
    dead = P | {"fc1": {"kernel": kernel, "bias": bias - 1e3}}  # no unit of the ReLU is ever on
    refused("'fc1:relu' are the same", model=jax.tree_util.Partial(forward, dead), layer="fc1:relu")
    mixed = lambda x: jax.nn.relu(x.reshape(-1, 2)).reshape(x.shape) @ jnp.ones((4, 3))
    refused("no axis for the images", model=mixed, layer="input:relu")


def test_activations_that_overflow():
    steep = lambda x: 1 / (1 + jax.nn.relu(x @ jnp.full((4, 3), 1e300) * 1e10))
    refused(
        "infinity in the activations of the concept 'near'.*'scale_1'", model=steep, layer="scale_1"
    )


def test_methods_that_are_no_chain():
    refused("not a chain of rules", method=lrp.methods.get("occlusion"))
