"""DeepLIFT's baselines and options, its relatives, and its use in JAX and in CSC."""

from __future__ import annotations

from functools import partial
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracle
from helpers import oracle_deeplift as deeplift
from helpers.deeplift_nets import (
    ACTIVATIONS,
    FOUR,
    METHODS,
    NETS,
    NORM,
    RELU,
    Net,
    activation,
    add,
    assert_complete,
    assert_same,
    average_pool,
    behind_conv,
    conv,
    data,
    dense,
    expected,
    fixed,
    max_pool,
    method,
    normal,
)
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

EXACT = 1e-12  # the same few operations in another order
DIFFERENCES = 1e-4  # of finite differences with steps of 1e-6, relative

POOLED = NETS["max-pool of tiles"]
MANY = normal("baselines")(size=(3, *POOLED.shape))
BASELINES = {  # what is given, and the references that it stands for
    "a number": ({"baseline": 0.3}, [np.full(POOLED.shape, 0.3)]),
    "an array": ({"baseline": MANY[0]}, MANY[:1]),
    "another array": ({"baseline": MANY[1]}, MANY[1:2]),
    "a jax array": ({"baseline": jnp.asarray(MANY[2])}, MANY[2:]),
    "a batch of one": ({"baseline": MANY[:1]}, MANY[:1]),
    "a set of one": ({"baselines": MANY[:1]}, MANY[:1]),
    "a set": ({"baselines": MANY}, MANY),
    "as many as inputs": ({"baselines": MANY[:2]}, MANY[:2]),
}


BASELINE_CASES = [(given_as, "reveal-cancel") for given_as in BASELINES]
BASELINE_CASES += [("a set", "rescale"), ("a set", "ablation-text")]


@pytest.mark.parametrize(("given_as", "case"), BASELINE_CASES)
def test_a_baseline_in_every_form_gives_the_oracles_contributions(given_as, case):
    options, refs = BASELINES[given_as]
    x, _, m = data(POOLED)
    out, pull = lrp.vjp(POOLED, x, method(case, **options), layers=["pool", "input"])
    np.testing.assert_allclose(out, POOLED(x), rtol=EXACT)
    found, at = pull(m)
    wanted = expected(POOLED, METHODS[case][1], x, refs, m)
    for layer, contributions in {**at, "input": found}.items():
        assert_same(contributions, wanted[layer])


DEFAULTS = {
    "deeplift-rescale": deeplift.Method(),
    "deeplift-reveal-cancel": deeplift.Method("reveal-cancel"),
    "deeplift-ablation": deeplift.Method(linear="code"),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_by_default_the_baseline_is_zero_and_the_map_starts_from_one(name):
    x, _, m = data(POOLED)
    zero = np.zeros(POOLED.shape)
    hot = np.eye(m.shape[1])[[2, 0]]
    wanted = expected(POOLED, DEFAULTS[name], x, [zero], hot)["input"]
    found = lrp.attribute(POOLED, x, name, target=[2, 0])
    assert_same(found, wanted)
    if name != "deeplift-ablation":
        assert_complete(found, (hot * (POOLED(x) - POOLED(zero[None]))).sum(1))


CALLS = {
    "vjp": lambda x, own: lrp.vjp(POOLED, x, own),
    "attribute": lambda x, own: lrp.attribute(POOLED, x, own, target=0),
    "csc": lambda x, own: lrp.convergence.csc(POOLED, x, own, key=jax.random.key(0)),
}
SHAPES = [(3,), (4, 4), (4, 4, 3), (2, 4, 4, 3), (1, 2, 4, 4, 2)]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_baseline_of_another_shape_is_refused(shape, call):
    x, _, _ = data(POOLED)
    with pytest.raises(ValueError, match=r"(?i)baseline") as error:
        CALLS[call](x, method("rescale", baseline=np.ones(shape)))
    assert str(shape) in str(error.value) and str(POOLED.shape) in str(error.value)


NO_MAP = {  # baselines whose map would mean nothing, and what the error says
    "none": ({"baselines": np.ones((0, *POOLED.shape))}, r"baselines is empty"),
    "nan": ({"baseline": MANY[0] * np.nan}, r"NaN or infinity in the baseline"),
    "infinity": ({"baseline": np.inf}, r"NaN or infinity in the baseline"),
    "infinity in a set": ({"baselines": MANY * np.inf}, r"NaN or infinity in the baselines"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("options", "message"), NO_MAP.values(), ids=NO_MAP)
def test_a_baseline_without_a_map_is_refused(options, message, call):
    x, _, _ = data(POOLED)
    with pytest.raises(ValueError, match=message):
        CALLS[call](x, method("rescale", **options))


@pytest.mark.parametrize("name", DEFAULTS)
def test_an_unknown_way_through_max_pools_is_refused(name):
    with pytest.raises(ValueError, match=r"max_pool.*complete.*gradient.*'average'"):
        lrp.methods.get(name, max_pool="average")


def test_an_unknown_form_of_the_ablation_is_refused():
    with pytest.raises(ValueError, match=r"form.*code.*text.*'paper'"):
        lrp.methods.get("deeplift-ablation", form="paper")


# --- what the methods are to each other ----------------------------------------------------------


def test_on_a_linear_network_both_rules_are_the_gradient_times_the_difference():
    parts = {"conv2": conv(3, 4), "add": add("conv", "conv2"), "mean": fixed(average_pool)}
    net = behind_conv(parts)
    x, ref, m = data(net)
    wanted = jax.vjp(net, x)[1](m)[0] * (x - ref)
    for case in ("rescale", "reveal-cancel"):
        assert_same(lrp.vjp(net, x, method(case, baseline=ref))[1](m), np.asarray(wanted))


@pytest.mark.parametrize(("step", "tolerance"), [(1e-9, EXACT), (1e-5, 1e-3)])
@pytest.mark.parametrize("name", ["every activation", "max-pool of tiles"])
def test_near_the_reference_rescale_is_the_gradient(name, step, tolerance):
    """Exactly where no difference reaches 1e-7; else the slopes change by the order of the step."""
    net = NETS[name]
    away, ref, m = data(net)
    x = ref + step * away
    gradient = jax.vjp(net, np.broadcast_to(ref, x.shape))[1](m)[0]
    found = lrp.vjp(net, x, method("rescale", baseline=ref))[1](m)
    assert_same(found / (x - ref), np.asarray(gradient), tolerance)


# --- a function among JAX's own ------------------------------------------------------------------


@pytest.mark.parametrize("case", ["reveal-cancel", "ablation-text"])
def test_contributions_are_the_same_under_jit_and_vmap(case):
    x, ref, m = data(POOLED)
    own = method(case, baseline=ref)
    out, pull = jax.jit(lambda x: lrp.vjp(POOLED, x, own))(x)
    wanted = expected(POOLED, METHODS[case][1], x, [ref], m)["input"]
    np.testing.assert_allclose(out, POOLED(x), rtol=EXACT)
    assert_same(jax.jit(lambda pull, m: pull(m))(pull, m), wanted)
    many = np.stack([m, -m, 2 * m])
    assert_same(jax.vmap(pull)(many)[2], 2 * wanted)
    one = lambda x, m: lrp.vjp(POOLED, x[None], own)[1](m[None])[0]
    assert_same(jax.jit(jax.vmap(one))(x, m), wanted)


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("every activation", "rescale"),
        ("every activation", "reveal-cancel"),
        ("max-pool of tiles", "reveal-cancel"),
    ],
)
def test_gradient_of_the_contributions(name, case):
    """Their sum has the gradient of the model; a weighted sum, that of finite differences."""
    net = NETS[name]
    x, ref, m = data(net)
    x = normal(case)(size=x.shape)  # no input as in the reference
    contributions = lambda x: lrp.vjp(net, x, method(case, baseline=ref))[1](m)
    weighted = jax.jit(lambda x, weights: (weights * contributions(x)).sum())
    found = jax.grad(weighted)(x, np.ones(x.shape))
    assert_same(found, np.asarray(jax.vjp(net, x)[1](m)[0]))
    weights = normal("weights")(size=x.shape)
    check_grads(lambda x: weighted(x, weights), (x,), 1, ["rev"], rtol=DIFFERENCES)


@pytest.mark.parametrize("case", ["rescale", "reveal-cancel"])
def test_an_image_without_a_difference_leaves_the_gradient_of_the_others(case):
    """All contributions of an image sum to its m y - m y0, whose gradient is that of m y."""
    x, ref, m = data(POOLED)
    x[0] = ref
    own = method(case, baseline=ref)
    found = jax.grad(lambda x: lrp.vjp(POOLED, x, own)[1](m).sum())(x)
    assert np.isfinite(found).all()
    assert_same(found[1:], np.asarray(jax.vjp(POOLED, x)[1](m)[0])[1:])


# --- cosine similarity convergence ---------------------------------------------------------------


def cosines(net, plain, x, key, start, vectors):
    """|cos| of all pairs of contributions by layer, locations and images; nan where one is 0."""
    found = {}
    for i, image in enumerate(x):
        shape = (vectors, *net.shapes[start])
        drawn = np.asarray(jax.random.normal(jax.random.fold_in(key, i), shape, x.dtype))
        same = np.broadcast_to(image, (vectors, *image.shape))
        at = expected(net, plain, same, [np.zeros(image.shape)], drawn, start)
        for layer, rows in at.items():
            shape = net.shapes[layer]
            maps = rows.reshape(vectors, -1, shape[-1]) if len(shape) == 3 else rows[:, None]
            with np.errstate(invalid="ignore"):
                unit = maps / np.linalg.norm(maps, axis=-1, keepdims=True)
            pairs = combinations(unit, 2)
            found.setdefault(layer, []).extend(np.abs((a * b).sum(-1)) for a, b in pairs)
    return {layer: np.concatenate(values) for layer, values in found.items()}


@pytest.mark.parametrize(
    ("name", "start"), [*((name, "fc") for name in DEFAULTS), ("deeplift-reveal-cancel", "conv2")]
)
def test_csc_compares_contributions(name, start):
    net, key = NETS["strided and padded conv"], jax.random.key(7)
    x = data(net, 3)[0]
    chosen = {} if start == "fc" else {"start": start}
    result = lrp.convergence.csc(net, x, name, key=key, vectors=3, **chosen)
    wanted = cosines(net, DEFAULTS[name], x, key, start, 3)
    layers = [row["layer"] for row in result.rows]
    assert layers == [n for n in ("fc", "conv2", "conv1", "input") if n != "fc" or start == "fc"]
    for row in result.rows:
        values = wanted[row["layer"]]
        kept = values[~np.isnan(values)]
        assert (row["count"], row["dropped"]) == (len(kept), np.isnan(values).sum())
        assert row["mean"] == pytest.approx(kept.mean(), abs=oracle.TOLERANCE)
        for p, quantile in row["quantiles"].items():
            assert quantile == pytest.approx(np.percentile(kept, float(p)), abs=oracle.TOLERANCE)


def test_only_the_ablation_converges():
    """Without W- the chain is a product of non-negative matrices; Sixt et al. 2020, section 5."""
    parts = {}
    for i in range(6):
        parts |= {f"fc{i}": dense(40, i, bias=False), f"fc{i}:relu": RELU}
    net = Net((40,), parts)
    measure = partial(lrp.convergence.csc, net, data(net)[0], key=jax.random.key(1))
    of = {case: measure(method(case), layers=["input"]).rows[0] for case in FOUR}
    assert all(of[case]["one_minus_median"] < 1e-3 for case in ("ablation-code", "ablation-text"))
    assert all(of[case]["one_minus_median"] > 0.3 for case in ("rescale", "reveal-cancel"))


# --- every network -------------------------------------------------------------------------------

MIDDLE = {
    "conv": conv(3, 11),
    "max": max_pool((2, 2), (1, 1), ((0, 1), (0, 1))),
    "mean": fixed(average_pool),
    "norm": NORM,
    **{name: activation(name) for name in ACTIVATIONS},
}


@settings(
    max_examples=5,  # each compiles a network of its own
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(
    st.lists(st.sampled_from([*MIDDLE, "residual", "difference"]), min_size=2, max_size=4),
    st.sampled_from(["rescale", "reveal-cancel"]),
    st.integers(0, 10**6),
    st.booleans(),
)
def test_contributions_of_every_network_are_complete(middle, case, seed, fold):
    parts, before = {}, "conv"
    for i, part in enumerate(middle):
        if part in MIDDLE:
            parts[f"{part}{i}"] = MIDDLE[part]
        else:
            parts[f"branch{i}"] = conv(3, i)
            sign = 1 if part == "residual" else -1
            parts[f"{part}{i}"] = add(before, f"branch{i}", sign=sign)
        before = f"{part}{i}"
    net = behind_conv(parts)
    draw = np.random.default_rng(seed).normal
    x, refs, m = draw(size=(2, *net.shape)), draw(size=(2, *net.shape)), draw(size=(2, 3))
    found = lrp.vjp(net, x, method(case, baselines=refs, fold=fold))[1](m)
    assert_complete(found, (m * (net(x) - net(refs).mean(0))).sum(1))
