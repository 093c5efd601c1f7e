"""What parameters become: read off the outputs of the randomised models."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.nets_sanity import Recorder, heads, model, split, units
from jax.tree_util import Partial
from scipy.stats import kstest

import lrpjax as lrp
from lrpjax.sanity import parameters

FAIR = 1e-5  # p-values below: not by chance, in a few dozen tests with fixed keys
EXACT = 1e-12  # a kernel read off an output: a product with a unit vector
KEY = jax.random.key(0)
SIZE = (20, 30)
RNG = np.random.default_rng(5)
NORMAL = {"kernel": RNG.normal(0.3, 0.7, SIZE)}
VARIANCE = {"kernel": RNG.uniform(0.2, 3, SIZE)}
pytestmark = pytest.mark.usefixtures("quick_compile")


def drawn(p, function=heads, x=None, **options):
    """The trained model's output and those of the randomised ones, each once."""
    recorder = Recorder()
    x = units(SIZE[0]) if x is None else x
    network = p if callable(p) else model(p, function=function)
    options = {"key": KEY, "similarity": "cosine", "colour": "none", **options}
    lrp.sanity.mprt(network, x, recorder.method, **options)
    trained, *random = recorder.outputs
    np.testing.assert_allclose(trained, np.asarray(network(jnp.asarray(x))), atol=EXACT)
    return trained, random


def one_leaf(leaf, draws, **options):
    """What one kernel became, in all draws."""
    _, random = drawn({"fc": leaf}, draws=draws, **options)
    assert len(random) == draws  # no two of them alike
    return np.stack(random)


def test_gaussian_has_the_mean_and_the_deviation_of_the_leaf():
    values = one_leaf(NORMAL, 30)
    mean, std = NORMAL["kernel"].mean(), NORMAL["kernel"].std()
    assert kstest(values.ravel(), "norm", (mean, std)).pvalue > FAIR
    assert values.min() < 0 < values.max()
    # Each draw by itself as well, and no entry is like its neighbour or like what it was.
    for draw in values:
        assert kstest(draw.ravel(), "norm", (mean, std)).pvalue > FAIR
    pairs = (values[0], values[1]), (values[0], NORMAL["kernel"]), (values[0, 1:], values[0, :-1])
    for a, b in pairs:
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / np.sqrt(a.size)


@pytest.mark.parametrize("zeros", [False, True])
def test_what_is_never_negative_stays_positive(zeros):
    """Log-normal, of the same mean and deviation."""
    leaf = VARIANCE["kernel"].copy()
    if zeros:
        leaf[:, ::3] = 0
    values = one_leaf({"kernel": leaf}, 30)
    assert values.min() > 0
    mean, std = leaf.mean(), leaf.std()
    spread = np.log(1 + (std / mean) ** 2)
    inside = np.log(mean) - spread / 2
    assert kstest(np.log(values).ravel(), "norm", (inside, np.sqrt(spread))).pvalue > FAIR


def test_one_negative_entry_makes_a_leaf_gaussian():
    leaf = VARIANCE["kernel"].copy()
    leaf[3, 3] = -1e-3
    values = one_leaf({"kernel": leaf}, 10)
    assert kstest(values.ravel(), "norm", (leaf.mean(), leaf.std())).pvalue > FAIR


@pytest.mark.parametrize("randomiser", ["gaussian", "permutation"])
@pytest.mark.parametrize("constant", [0.0, 1.0, -0.1, 1 / 3])
def test_a_constant_leaf_stays(randomiser, constant):
    p = {"fc": NORMAL, "constant": {"kernel": np.full((SIZE[0], 50), constant)}}
    trained, random = drawn(p, randomiser=randomiser, draws=2)
    assert len(random) > 1
    for out in random:
        assert (split(out, p)["constant"] == split(trained, p)["constant"]).all()  # bit for bit


def test_a_permutation_moves_all_entries():
    """And not whole rows: hardly a row holds what a row held."""
    values = one_leaf(NORMAL, 10, randomiser="permutation")
    before = NORMAL["kernel"]
    rows = {tuple(np.round(np.sort(row), 9)) for row in before}
    for draw in values:
        np.testing.assert_allclose(np.sort(draw, None), np.sort(before, None), atol=EXACT)
        assert not rows.intersection(tuple(np.round(np.sort(row), 9)) for row in draw)
        assert np.mean(draw == before) < 0.05
    # Each entry comes to each place: the first to 10 of 600 places, by chance never twice.
    places = [int(np.abs(draw - before[0, 0]).argmin()) for draw in values]
    assert len(set(places)) >= 8


@pytest.mark.parametrize("randomiser", ["gaussian", "permutation"])
def test_leaves_of_one_shape_get_keys_of_their_own(randomiser):
    p = dict.fromkeys(("fc1", "fc2", "fc3"), NORMAL)
    _, random = drawn(p, randomiser=randomiser, draws=2)
    kernels = split(random[-1], p).values()
    for a in kernels:
        assert sum(np.allclose(a, b) for b in kernels) == 1


def test_a_cascade_keeps_what_it_has_drawn():
    p = {name: {"kernel": RNG.normal(size=SIZE)} for name in ("fc1", "fc2", "fc3")}
    trained, random = drawn(p)
    assert len(random) == 3
    stages = [split(out, p) for out in (trained, *random)]
    changed = set()
    for before, after in itertools.pairwise(stages):
        new = {name for name in p if not np.allclose(before[name], after[name])}
        assert len(new) == 1 and not new & changed
        changed |= new


def test_single_layers_change_one_at_a_time():
    p = {name: {"kernel": RNG.normal(size=SIZE)} for name in ("fc1", "fc2", "fc3")}
    trained, random = drawn(p, order="single")
    changed = [
        {name for name in p if not np.allclose(split(out, p)[name], split(trained, p)[name])}
        for out in random
    ]
    assert sorted(map(sorted, changed)) == [["fc1"], ["fc2"], ["fc3"]]


# --- leaves that are not weights --------------------------------------------------------------


@pytest.mark.parametrize("randomiser", ["gaussian", "permutation"])
def test_integers_and_random_keys_are_left_alone(randomiser):
    def forward(p, x):
        return (x @ p["fc"]["kernel"]) * p["times"] * jnp.where(p["flag"], 1, -1)

    times, flag = np.arange(1, SIZE[1] + 1), np.arange(SIZE[1]) % 3 == 0
    p = {
        "fc": {"kernel": jnp.asarray(NORMAL["kernel"])},
        "times": jnp.asarray(times),
        "key": jax.random.key(3),
        "seed": jax.random.PRNGKey(4),
        "flag": jnp.array(flag),
    }
    network = Partial(forward, p)
    _, random = drawn(network, randomiser=randomiser)
    values = random[-1] / times * np.where(flag, 1, -1)
    if randomiser == "permutation":
        np.testing.assert_allclose(np.sort(values, None), np.sort(NORMAL["kernel"], None))
    else:
        mean, std = NORMAL["kernel"].mean(), NORMAL["kernel"].std()
        assert kstest(values.ravel(), "norm", (mean, std)).pvalue > FAIR


def norm(p, x):
    """BatchNorm at inference; x = 0 shows its offset, and x = 1 its slope."""
    p = p["bn"]
    return (x - p["mean"]) / jnp.sqrt(p["var"] + 1e-5) * p["scale"] + p["bias"]


def test_batch_norm_is_randomised_and_not_reset():
    n = 400
    leaves = {
        "mean": RNG.normal(size=n),
        "var": RNG.uniform(0.1, 4, n),
        "scale": RNG.uniform(0.5, 1.5, n),
        "bias": RNG.normal(size=n),
    }
    x = np.stack([np.zeros(n), np.ones(n), np.linspace(-1, 1, n)])
    trained, random = drawn({"bn": leaves}, function=norm, x=x, draws=4)
    for out in random:
        assert np.isfinite(out).all()
        slope, before = out[1] - out[0], trained[1] - trained[0]
        assert (slope > 0).all()  # variance and scale stay positive
        assert np.abs(np.corrcoef(slope, before)[0, 1]) < 5 / np.sqrt(n)
        assert np.abs(slope - 1).mean() > 0.1 and np.abs(out[0]).mean() > 0.1  # no identity


def test_the_precision_of_a_leaf_stays():
    def forward(p, x):
        assert p["half"]["kernel"].dtype == jnp.bfloat16
        assert p["single"]["kernel"].dtype == jnp.float32
        out = jnp.asarray(x, jnp.bfloat16) @ p["half"]["kernel"]
        return out.astype(jnp.float32) @ p["single"]["kernel"]

    p = {
        "half": {"kernel": jnp.asarray(NORMAL["kernel"], jnp.bfloat16)},
        "single": {"kernel": jnp.asarray(NORMAL["kernel"].T, jnp.float32)},
    }
    x = RNG.normal(size=(3, SIZE[0])).astype(np.float32)
    for randomiser in ("gaussian", "permutation"):
        rows = lrp.sanity.mprt(
            Partial(forward, p), x, "gradient",
            key=KEY, randomiser=randomiser, similarity="cosine", colour="none",
        ).rows  # fmt: skip
        assert [row["dropped"] for row in rows] == [0, 0]
        assert all(np.isfinite(row["median"]) for row in rows)


# --- init -------------------------------------------------------------------------------------


def test_init_is_given_a_fresh_key_for_each_draw():
    def init(key):
        return model({"fc": {"kernel": jax.random.normal(key, SIZE)}}, function=heads)

    _, random = drawn({"fc": NORMAL}, init=init, draws=5)
    assert len(random) == 5
    for out in random:
        assert kstest(out.ravel(), "norm").pvalue > FAIR


def test_init_may_leave_parameters_as_they_are():
    """Then nothing changes, and everything is as similar as it is to itself."""
    p = {"fc": NORMAL}
    result = lrp.sanity.mprt(
        model(p, function=heads), units(SIZE[0]), "gradient",
        key=KEY, init=lambda key: model(p, function=heads), similarity="cosine", colour="none",
    )  # fmt: skip
    (row,) = result.rows
    np.testing.assert_allclose(row["values"], 1, rtol=0, atol=EXACT)


@pytest.mark.parametrize("shape", [(), (3,), (257, 129)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_drawn_is_taken_over_without_a_copy(shape, dtype):
    """On a CPU: JAX copies what does not begin where its own arrays do."""
    values = parameters._empty(np.zeros(shape, dtype))
    assert (values.shape, values.dtype) == (shape, dtype)
    (cpu,) = jax.devices("cpu")[:1]
    assert jax.device_put(values, cpu).unsafe_buffer_pointer() == values.ctypes.data
