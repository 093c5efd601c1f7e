"""Defects that were read in the source of Quantus' randomisation metrics, and are none of ours."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracle_sanity as oracle
from helpers.nets_sanity import Recorder, close, gradient_times_input, heads, model, split, units
from jax.tree_util import Partial

import lrpjax as lrp

EXACT = 1e-9
KEY = jax.random.key(0)
TRAINED, RANDOM = oracle.parameters(0), oracle.parameters(1)
X = oracle.images(4)
TARGET = oracle.logits(TRAINED, X).argmax(1)
MODEL = model(TRAINED)
pytestmark = pytest.mark.usefixtures("quick_compile")


def shown(p, x=X, target=TARGET):
    return oracle.maps(p, x, target, "input-x-gradient", "one").sum(3)


@pytest.mark.parametrize("draws", [1, 2])
def test_1_no_two_layers_share_a_seed(draws):
    """There, layers of one shape got identical weights."""
    p = {f"fc{i}": {"kernel": np.random.default_rng(0).normal(size=(8, 8))} for i in range(4)}
    recorder = Recorder()
    lrp.sanity.mprt(
        model(p, function=heads), units(8), recorder.method,
        key=KEY, draws=draws, similarity="cosine", colour="none",
    )  # fmt: skip
    trained = next(iter(p.values()))["kernel"]
    seen = [kernel for out in recorder.outputs for kernel in split(out, p).values()]
    drawn = {k.round(9).tobytes() for k in seen if not np.allclose(k, trained)}
    assert len(drawn) == 4 * draws


def test_2_the_original_is_no_part_of_an_average():
    """There, a term of 1 was averaged in: here orthogonal maps have exactly no similarity."""
    p = {"fc": {"kernel": np.array([[1.0, 2], [0, 0]])}}
    other = {"fc": {"kernel": np.array([[0.0, 0], [3, 1]])}}
    network = lambda p: model(p, function=heads)
    result = lrp.sanity.mprt(
        network(p), np.array([[1.0, 1.0]]), "gradient",
        key=KEY, init=lambda key: network(other), draws=3, similarity="cosine", colour="none",
    )  # fmt: skip
    (row,) = result.rows
    assert row["layer"] == "fc" and row["values"] == [0.0] and row["median"] == 0


def test_3_smooth_mprt_explains_with_the_users_function_and_its_own_noise():
    """There, the function was ignored and the noise came from numpy's global generator."""
    recorder = Recorder(gradient_times_input)
    options = {"key": KEY, "samples": 3, "similarity": "pearson", "layers": ["conv1"]}
    np.random.seed(1)  # noqa: NPY002
    own = lrp.sanity.smooth_mprt(MODEL, X, recorder.method, **options).rows
    assert len({x.tobytes() for x in recorder.inputs}) >= 3
    np.random.seed(2)  # noqa: NPY002
    assert (
        lrp.sanity.smooth_mprt(MODEL, X, gradient_times_input, **options).rows[0]["values"]
        == own[0]["values"]
    )
    gradient = lrp.sanity.smooth_mprt(MODEL, X, "gradient", colour="sum", **options).rows
    assert np.abs(np.subtract(gradient[0]["values"], own[0]["values"])).max() > 1e-3


def test_4_everything_that_is_learnt_is_randomised():
    """There, BatchNorm was reset to the identity, and class tokens, position embeddings,
    LayerScale and the projections of attention kept their trained values."""

    def forward(p, x):
        tokens = x.reshape(len(x), 6, 4) @ p["patch"]["kernel"]
        class_token = jnp.broadcast_to(p["token"], (len(x), 1, 5))
        tokens = jnp.concatenate([class_token, tokens], axis=1) + p["position"]
        query, key, value = (tokens @ p[name]["kernel"] for name in ("query", "key", "value"))
        weights = jax.nn.softmax(query @ key.swapaxes(1, 2), axis=-1)
        tokens = tokens + p["layer_scale"] * (weights @ value)
        norm = p["norm"]
        tokens = (tokens - norm["mean"]) / jnp.sqrt(norm["var"] + 1e-5)
        tokens = jnp.tanh(tokens * norm["scale"] + norm["bias"])
        return tokens[:, 0] @ p["head"]["kernel"]

    def draw(seed):
        rng = np.random.default_rng(seed)
        normal = lambda *shape: jnp.asarray(rng.normal(size=shape) / 2)
        positive = lambda *shape: jnp.asarray(rng.uniform(0.3, 2, shape))
        return {
            "patch": {"kernel": normal(4, 5)},
            "token": normal(1, 1, 5),
            "position": normal(1, 7, 5),
            **{name: {"kernel": normal(5, 5)} for name in ("query", "key", "value")},
            "layer_scale": normal(5),
            "norm": {
                "mean": normal(5),
                "var": positive(5),
                "scale": positive(5),
                "bias": normal(5),
            },
            "head": {"kernel": normal(5, 3)},
        }

    trained, random = draw(0), draw(1)
    x = np.random.default_rng(2).normal(size=(3, 24))
    gradient = lambda p: np.asarray(jax.grad(lambda x: forward(p, x)[:, 1].sum())(jnp.asarray(x)))
    options = {"key": KEY, "target": 1, "similarity": "cosine", "colour": "none"}
    rows = lrp.sanity.mprt(
        Partial(forward, trained), x, "gradient",
        init=lambda key: Partial(forward, random), **options,
    ).rows  # fmt: skip
    close(rows[-1], oracle.similarities("cosine", gradient(trained), gradient(random)), EXACT)
    # Whatever single parameter differs is seen at the last stop: none of them is forgotten.
    leaves, tree = jax.tree.flatten(trained)
    others = jax.tree.leaves(random)
    for i in range(len(leaves)):
        mixed = jax.tree.unflatten(tree, [*leaves[:i], others[i], *leaves[i + 1 :]])
        expected = oracle.similarities("cosine", gradient(trained), gradient(mixed))
        assert expected.min() < 1 - 1e-6
        rows = lrp.sanity.mprt(
            Partial(forward, trained), x, "gradient",
            init=lambda key, mixed=mixed: Partial(forward, mixed), **options,
        ).rows  # fmt: skip
        close(rows[-1], expected, EXACT)


def test_5_batches_draw_other_classes_of_their_own():
    """There, each batch drew the same offsets, and the number of classes was asked for."""
    x = np.repeat(X[:1], 24, axis=0)
    (row,) = lrp.sanity.random_logit(
        MODEL, x, "input-x-gradient", key=KEY, similarity="pearson", chunk=4
    ).rows
    batches = np.round(row["values"], 9).reshape(6, 4)
    assert len({tuple(batch) for batch in batches.tolist()}) > 3


@pytest.mark.parametrize("name", oracle.SIMILARITIES)
def test_6_a_flipped_sign_is_seen_except_by_the_papers_ssim(name):
    """There, maps lost their sign by default. Here the last layer negated negates the map."""
    negated = {**TRAINED, "fc": {k: -v for k, v in TRAINED["fc"].items()}}
    (row,) = lrp.sanity.mprt(
        MODEL, X, "input-x-gradient",
        key=KEY, init=lambda key: model(negated), layers=["fc"], similarity=name,
    ).rows  # fmt: skip
    close(row, oracle.similarities(name, shown(TRAINED), -shown(TRAINED)), EXACT)
    if name == "ssim":
        assert row["median"] == pytest.approx(1, abs=EXACT)
    elif name in ("spearman", "pearson", "cosine"):
        assert row["median"] == pytest.approx(-1, abs=EXACT)
    elif name == "ssim-standard":
        assert row["median"] < 0.9


@pytest.mark.parametrize("check", ["mprt", "smooth_mprt", "efficient_mprt", "random_logit"])
def test_7_a_check_that_finds_nothing_says_so_to_the_last_digit(check):
    """There, tests asked for a score within [-1, 1]. A map that ignores model and class is like
    itself, exactly."""
    method = lambda model, x, target: x**2
    rows = getattr(lrp.sanity, check)(MODEL, X, method, key=KEY).rows
    for row in rows:
        wanted = 0 if check == "efficient_mprt" else 1
        np.testing.assert_allclose(row["values"], wanted, rtol=0, atol=EXACT)
        for bound in ("median", "low", "high"):
            assert row[bound] == pytest.approx(wanted, abs=EXACT)
        assert row["dropped"] == 0


def test_8_no_entropy_is_no_rise():
    """There, a division by the entropy of a constant map had no guard."""
    x = X.copy()
    x[2] = 0  # the map of a black image is constant
    (row,) = lrp.sanity.efficient_mprt(
        MODEL, x, "input-x-gradient", key=KEY, init=lambda key: model(RANDOM)
    ).rows
    target = oracle.logits(TRAINED, x).argmax(1)
    maps = [shown(p, x, target) for p in (TRAINED, RANDOM)]
    close(row, oracle.relative_rise(*maps, 100), EXACT)
    assert row["values"][2] is None and row["dropped"] == 1
