"""NaN and infinity never leave: every way to a map refuses them, and says whose they are."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

KEY = jax.random.key(1)
get = lrp.methods.get
# Each of two layers multiplies by 1e25 and is taken back: outputs are of order 1 in float32, and
# the product of the two gradients is 1e50.
HUGE = {"a": jnp.full((3, 3), 1e25, jnp.float32), "b": jnp.full((3, 2), 1e25, jnp.float32)}
X = jnp.full((2, 3), 1e-25, jnp.float32) * jnp.arange(1, 4, dtype=jnp.float32)


def network(p, x):
    return jnp.tanh(x @ p["a"]) @ p["b"] * jnp.float32(1e-20)


MODEL = jax.tree_util.Partial(network, HUGE)
SUM = r"NaN or infinity in the relevance that .*gives.*float64"


def overflowing(op, x, y):
    return lambda r: r.sum() * jnp.full(x.shape, jnp.float32(3e38)) * 1e10


INFINITE = lrp.methods.Method(
    "mine",
    lambda layer: lrp.rules.rule(
        overflowing if layer.kind in ("dense", "scale") else lrp.rules.pass_
    ),
    "one",
)
WAYS = {
    "attribute": lambda: lrp.attribute(MODEL, X, INFINITE, target=0),
    "vjp": lambda: lrp.vjp(MODEL, X, INFINITE)[1](jnp.ones((2, 2), jnp.float32)),
    "vjp at a layer": lambda: lrp.vjp(MODEL, X, INFINITE, layers=["a"])[1](
        jnp.ones((2, 2), jnp.float32)
    ),
    "integrated gradients": lambda: lrp.attribute(
        MODEL, X, get("integrated-gradients", base=INFINITE, steps=2), target=0
    ),
    "integrated gradients with its error": lambda: get(
        "integrated-gradients", base=INFINITE, steps=2
    ).attribute_with_delta(MODEL, X, target=0),
    "smooth-grad": lambda: lrp.attribute(
        MODEL, X, get("smooth-grad", base=INFINITE, samples=2, key=KEY), target=0
    ),
    "contrastive": lambda: lrp.attribute(MODEL, X, get("contrastive-lrp", base=INFINITE), target=0),
    "matrix": lambda: lrp.matrix(MODEL, X[:1], INFINITE, layer="a"),
    "chain, dense": lambda: lrp.chain(MODEL, X[:1], INFINITE).dense(),
    "chain, a product": lambda: lrp.chain(MODEL, X[:1], INFINITE).rmatvec(np.ones(2, np.float32)),
    "csc": lambda: lrp.convergence.csc(MODEL, X, INFINITE, key=KEY),
    "random logit": lambda: lrp.sanity.random_logit(
        MODEL, X, INFINITE, key=KEY, similarity="pearson"
    ),
    "mprt": lambda: lrp.sanity.mprt(MODEL, X, INFINITE, key=KEY, similarity="pearson"),
    "conservation": lambda: lrp.sanity.conservation(MODEL, X, INFINITE, key=KEY),
}


@pytest.mark.parametrize("way", WAYS)
def test_relevance_that_is_not_finite_is_refused(way):
    assert np.isfinite(MODEL(X)).all()
    with pytest.raises(ValueError, match=SUM):
        WAYS[way]()


def test_under_jit_it_comes_through():
    found = jax.jit(lambda x: lrp.attribute(MODEL, x, INFINITE, target=0))(X)
    assert not np.isfinite(found).all()


def test_occlusion_of_an_input_on_which_the_model_is_not_finite_is_refused():
    model = lambda x: jnp.stack([jnp.sqrt(x.sum(1)), x[:, 0]], 1)
    with pytest.raises(ValueError, match=r"relevance that occlusion gives"):
        lrp.attribute(model, jnp.array([[1.0, 2.0]]), get("occlusion", baseline=-5.0), target=0)


def test_random_parameters_that_overflow_are_dropped_and_json_holds_no_nan(tmp_path):
    p = {"a": jnp.ones((3, 3), jnp.float32), "b": jnp.ones((3, 2), jnp.float32)}
    plain = jax.tree_util.Partial(lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"], p)
    init = lambda key: jax.tree_util.Partial(plain.func, jax.tree.map(lambda a: a * 1e38, p))
    x = jnp.arange(1, 7, dtype=jnp.float32).reshape(2, 3)
    found = lrp.sanity.mprt(
        plain, x, "gradient", key=KEY, init=init, similarity="pearson", colour="none"
    )
    assert [row["dropped"] for row in found.rows][-1] == 2
    found.save(tmp_path / "rows.json")
    json.loads((tmp_path / "rows.json").read_text(), parse_constant=pytest.fail)


NUMBERS = {
    "gamma": lambda v: get("lrp-gamma", gamma=v),
    "epsilon": lambda v: get("lrp-epsilon", epsilon=v),
    "alpha": lambda v: lrp.methods.alpha_beta(v, v),
    "high": lambda v: get("deep-taylor", low=0, high=v),
    "low": lambda v: get("deep-taylor", low=-v, high=0),
    "noise": lambda v: get("smooth-grad", noise=v, key=KEY),
    "baseline": lambda v: get("deeplift-rescale", baseline=v),
}


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("option", NUMBERS)
def test_an_option_that_is_not_finite_is_refused(option, value):
    with pytest.raises(ValueError, match=r"inf|nan"):
        NUMBERS[option](value)


# --- patterns ------------------------------------------------------------------------------------

SMALL = jax.tree_util.Partial(
    lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"],
    {"a": jnp.asarray(np.random.default_rng(0).normal(size=(3, 4))), "b": jnp.ones((4, 2))},
)
FITTED_ON = np.random.default_rng(1).normal(size=(50, 3))


@pytest.fixture(scope="module")
def fitted():
    return lrp.patterns.fit(SMALL, FITTED_ON)


def scaled(patterns, factor):
    return lrp.patterns.Patterns(
        jax.tree.map(lambda a: a * factor, patterns.a), patterns.w, patterns.mode
    )


def test_patterns_beyond_float16_are_not_saved_as_such(fitted, tmp_path):
    large = scaled(fitted, 1e6)
    with pytest.raises(ValueError, match=r"patterns of a, b.*range of float16.*float32"):
        large.save(tmp_path / "half.safetensors")
    assert not list(tmp_path.iterdir())
    large.save(tmp_path / "single.safetensors", dtype="float32")
    lrp.patterns.load(tmp_path / "single.safetensors", SMALL, FITTED_ON[:1])


def test_patterns_below_float16_are_not_saved_as_such(fitted, tmp_path):
    small = scaled(fitted, 1e-9)
    with pytest.raises(ValueError, match=r"patterns of a, b.*range of float16.*float32"):
        small.save(tmp_path / "half.safetensors")
    assert not list(tmp_path.iterdir())
    small.save(tmp_path / "single.safetensors", dtype="float32")
    loaded = lrp.patterns.load(tmp_path / "single.safetensors", SMALL, FITTED_ON[:1])
    np.testing.assert_allclose(loaded.a["a"], fitted.a["a"], rtol=1e-6)


def test_patterns_that_are_not_finite_are_neither_saved_nor_loaded(fitted, tmp_path):
    from safetensors.numpy import save_file

    with pytest.raises(ValueError, match=r"NaN or infinity in the patterns of a, b"):
        scaled(fitted, np.nan).save(tmp_path / "nan.safetensors", dtype="float32")
    broken = {name: np.asarray(a, np.float32) for name, a in fitted.a.items()}
    broken["a"][0, 0] = np.inf
    save_file(broken, tmp_path / "inf.safetensors", {"mode": "relu"})
    with pytest.raises(ValueError, match=r"pattern of a is not finite"):
        lrp.patterns.load(tmp_path / "inf.safetensors", SMALL, FITTED_ON[:1])


def test_patterns_that_overflow_are_not_fitted():
    """Means of x y with x and y of order 1e20 leave float32."""
    p = {"a": jnp.full((3, 2), 1.0, jnp.float32)}
    model = jax.tree_util.Partial(lambda p, x: x @ p["a"], p)
    x = np.random.default_rng(2).normal(size=(20, 3)).astype(np.float32) * np.float32(1e25)
    with pytest.raises(ValueError, match=r"NaN or infinity in the patterns of a"):
        lrp.patterns.fit(model, x)


def test_a_finite_method_is_not_refused():
    found = partial(lrp.attribute, MODEL, X)
    assert np.isfinite(found("lrp-zplus", target=0)).all()
