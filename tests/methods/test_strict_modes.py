"""JAX's strict modes (NaN is an error, no implicit promotion of ranks or dtypes) change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

RNG = np.random.default_rng(8)
KEY = jax.random.key(8)
MODES = {
    "debug_nans": lambda: jax.debug_nans(True),
    "rank promotion": lambda: jax.numpy_rank_promotion("raise"),
    "dtype promotion": lambda: jax.numpy_dtype_promotion("strict"),
}
P = {
    name: jnp.asarray(RNG.normal(size=shape) / 2, jnp.float32)
    for name, shape in {"conv": (3, 3, 1, 2), "bias": (2,), "fc": (8, 4), "out": (4, 2)}.items()
}
X = jnp.asarray(RNG.normal(size=(2, 4, 4, 1)), jnp.float32)
get = lrp.methods.get


def network(p, x):
    """Written as the strict modes want it; one of the last layer's inputs is always zero."""
    numbers = ("NHWC", "HWIO", "NHWC")
    h = jax.lax.conv_general_dilated(x, p["conv"], (1, 1), "SAME", dimension_numbers=numbers)
    h = jax.nn.relu(h + jnp.broadcast_to(p["bias"], h.shape))
    h = jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    h = h.reshape(x.shape[0], 8)
    return jnp.tanh(h @ p["fc"]) @ p["out"] + 0.0 * (h @ p["fc"] @ p["out"])


MODEL = jax.tree_util.Partial(network, P)
CALLS = {
    "lrp-epsilon": lambda: lrp.attribute(MODEL, X, "lrp-epsilon", target=1),
    "lrp-alpha2-beta1": lambda: lrp.attribute(MODEL, X, "lrp-alpha2-beta1", target=1),
    "lrp-gamma": lambda: lrp.attribute(MODEL, X, "lrp-gamma"),
    "guided-bp": lambda: lrp.attribute(MODEL, X, "guided-bp", target=1),
    "deeplift-reveal-cancel": lambda: lrp.attribute(
        MODEL, X, get("deeplift-reveal-cancel", baselines=X), target=1
    ),
    "smooth-grad": lambda: lrp.attribute(
        MODEL, X, get("smooth-grad", samples=2, key=KEY), target=1
    ),
    "integrated-gradients": lambda: lrp.attribute(
        MODEL, X, get("integrated-gradients", steps=2), target=1
    ),
    "occlusion": lambda: lrp.attribute(MODEL, X, get("occlusion", window=2), target=1),
    "contrastive-lrp": lambda: lrp.attribute(MODEL, X, "contrastive-lrp", target=1),
    "vjp": lambda: lrp.vjp(MODEL, X, "lrp-z")[1](jnp.ones((2, 2), jnp.float32)),
    "matrix": lambda: lrp.matrix(MODEL, X[:1], "lrp-zplus", layer="conv"),
    "csc": lambda: [
        row["median"] for row in lrp.convergence.csc(MODEL, X, "lrp-zplus", key=KEY).rows[:-1]
    ],
}

W = {
    name: jnp.asarray(RNG.normal(size=shape) / 2, jnp.float32)
    for name, shape in {
        **dict.fromkeys(["query", "key", "value", "inner", "gate", "position"], (4, 4)),
        "token": (4,),
        "out": (4, 3),
    }.items()
}
TOKENS = jnp.asarray(RNG.normal(size=(2, 3, 4)), jnp.float32)


def attending(p, x):
    """A token, position embeddings, LayerNorm, a mask from the input, a merged batch, a gate."""
    full = lambda a: jnp.broadcast_to(a, (len(x), 4, 4))
    h = jnp.concatenate([full(p["token"])[:, :1], x], 1) + full(p["position"])
    hidden = full((h == 0).all(-1)[:, None, :])
    h = h - h.mean(-1, keepdims=True)
    h = h * jax.lax.rsqrt((h * h).mean(-1, keepdims=True) + jnp.float32(1e-5))
    scores = (h @ p["query"]) @ (h @ p["key"]).swapaxes(1, 2)
    weights = jax.nn.softmax(jnp.where(hidden, jnp.float32(-1e9), scores))
    inner = (weights @ (h @ p["value"])).reshape(-1, 4) @ p["inner"]
    h = h + jax.nn.relu(inner).reshape(h.shape) * jax.nn.sigmoid(h @ p["gate"])
    return h.mean(1) @ p["out"]


ATTENDING = jax.tree_util.Partial(attending, W)
of_tokens = lambda method: lambda: lrp.attribute(ATTENDING, TOKENS, method, target=1)
rows = lambda measured: [row["median"] for row in measured.rows]
CALLS |= {
    "tokens checked": lambda: lrp.attribute(ATTENDING, TOKENS, "lrp-epsilon", check=True),
    "tokens uniform": of_tokens(get("lrp-epsilon", attention="uniform")),
    "tokens split": of_tokens(get("lrp-alpha2-beta1", bias="split")),
    "tokens rect-grad": of_tokens("rect-grad"),
    "tokens ledger": lambda: lrp.plan(ATTENDING, TOKENS, "lrp-gamma").check(TOKENS).shares,
    "tokens csc": lambda: rows(lrp.convergence.csc(ATTENDING, TOKENS, "lrp-epsilon", key=KEY)),
    "tokens mprt": lambda: rows(
        lrp.sanity.mprt(ATTENDING, TOKENS, "lrp-epsilon", key=KEY, similarity="spearman")
    ),
}


@pytest.fixture(scope="module")
def usual():
    return {name: jax.tree.map(np.asarray, call()) for name, call in CALLS.items()}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("call", CALLS)
def test_everything_runs_in_jaxs_strict_modes(usual, call, mode):
    with MODES[mode]():
        found = CALLS[call]()
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(usual[call]), strict=True):
        np.testing.assert_array_equal(np.asarray(one), other)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_under_debug_nans_an_input_that_is_not_finite_has_its_own_sentence(bad):
    with (
        jax.debug_nans(True),
        pytest.raises(ValueError, match="NaN or infinity in the input"),
    ):
        lrp.attribute(MODEL, np.full(X.shape, bad, np.float32), "lrp-z")
