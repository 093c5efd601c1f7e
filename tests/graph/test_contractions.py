"""A product with weights that is summed over is the matrix product that it spells."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

EXACT = 1e-9
get = partial(lrp.methods.get, stabiliser=1e-12)
relu = jax.nn.relu
WORD = np.random.default_rng(5)
P = {
    name: jnp.asarray(WORD.normal(size=shape) + shift)
    for name, shape, shift in (
        ("w", (4, 5), 0.3), ("b", (5,), 0.0), ("v", (5, 3), 0.2), ("q", (4,), 0.2),
        ("heads", (3, 4), 0.2), ("pool", (3,), 0.5), ("gamma", (4,), 0.5), ("all", (3, 4, 5), 0.1),
        ("one", (1, 4, 5), 0.2),
    )
}  # fmt: skip
X = WORD.normal(size=(2, 4))
TOKENS = WORD.normal(size=(2, 3, 4))

# name: the layer in the usual spelling, and spelled by a product and a sum
DENSE = {
    "columns": (lambda p, x: x @ p["w"], lambda p, x: (x[:, :, None] * p["w"]).sum(1), X),
    "rows": (lambda p, x: x @ p["w"], lambda p, x: jnp.sum(x[:, None, :] * p["w"].T, -1), X),
    "weights first": (
        lambda p, x: x @ p["w"],
        lambda p, x: (p["w"][:, :, None] * x.T[:, None, :]).sum(0).T,
        X,
    ),
    "vmap of dots": (
        lambda p, x: x @ p["w"],
        lambda p, x: jax.vmap(lambda v: jax.vmap(lambda c: jnp.sum(v * c), 1)(p["w"]))(x),
        X,
    ),
    "reshaped": (
        lambda p, x: x @ p["w"],
        lambda p, x: (x.reshape(len(x), 4, 1) * p["w"].reshape(1, 4, 5)).sum(axis=1),
        X,
    ),
    "repeated in full": (
        lambda p, x: x @ p["w"],
        lambda p, x: (
            jnp.broadcast_to(x[:, :, None], (len(x), 4, 5))
            * jnp.broadcast_to(p["w"], (len(x), 4, 5))
        ).sum(1),
        X,
    ),
    "turned before it is summed": (
        lambda p, x: x @ p["w"],
        lambda p, x: (x[:, :, None] * p["w"]).transpose(0, 2, 1).sum(-1),
        X,
    ),
    "an axis of one": (
        lambda p, x: x @ p["one"][0],
        lambda p, x: (x[:, :, None] * p["one"]).sum(1),
        X,
    ),
    "with its sum's axis": (
        lambda p, x: x @ p["w"],
        lambda p, x: (x[:, :, None] * p["w"]).sum(1, keepdims=True)[:, 0],
        X,
    ),
    "a quotient": (
        lambda p, x: x @ (1 / p["w"]),
        lambda p, x: (x[:, :, None] / p["w"]).sum(1),
        X,
    ),
    "and a number": (
        lambda p, x: x @ (0.5 * p["w"]),
        lambda p, x: (x[:, :, None] * p["w"] * 0.5).sum(1),
        X,
    ),
    "a mask behind it": (
        lambda p, x: x @ (p["w"] * np.array([[1.0], [0], [1], [1]])),
        lambda p, x: (x[:, :, None] * p["w"] * np.array([[1.0], [0], [1], [1]])).sum(1),
        X,
    ),
    "by position": (
        lambda p, x: x @ p["w"],
        lambda p, x: (x[..., None] * p["w"]).sum(-2),
        TOKENS,
    ),
    "a vector": (
        lambda p, x: (x @ p["q"])[..., None] * jnp.ones(1),
        lambda p, x: (x * p["q"]).sum(-1)[..., None] * jnp.ones(1),
        TOKENS,
    ),
    "one for each position": (
        lambda p, x: jnp.einsum("nld,ld->nl", x, p["heads"])[..., None],
        lambda p, x: (x * p["heads"]).sum(-1)[..., None],
        TOKENS,
    ),
    "weights of positions": (
        lambda p, x: jnp.einsum("nld,l->nd", x, p["pool"]),
        lambda p, x: (x * p["pool"][:, None]).sum(1),
        TOKENS,
    ),
    "two axes": (
        lambda p, x: x.reshape(len(x), -1) @ p["all"].reshape(12, 5),
        lambda p, x: (x[..., None] * p["all"]).sum((1, 2)),
        TOKENS,
    ),
    "weights repeated along one of two": (
        lambda p, x: x.reshape(len(x), -1) @ jnp.tile(p["w"], (3, 1)),
        lambda p, x: (x[..., None] * p["w"]).sum((1, 2)),
        TOKENS,
    ),
    "a single example": (
        lambda p, x: x @ p["w"],
        lambda p, x: (x[:, :, None] * p["w"]).sum(1),
        X[:1],
    ),
}
METHODS = {
    name: get(name)
    for name in (
        "lrp-z", "lrp-epsilon", "lrp-gamma", "lrp-zplus", "lrp-wsquare", "lrp-flat",
        "lrp-cmp-alpha2-beta1", "epsilon-plus-flat", "deeplift-rescale", "deeplift-reveal-cancel",
        "gradient", "guided-bp",
    )
}  # fmt: skip
METHODS |= {
    f"alpha2-beta1 {b}": get("lrp-alpha2-beta1", bias=b) for b in ("none", "signed", "split")
}
METHODS |= {n: get(n, low=-9.0, high=8.0) for n in ("deep-taylor", "epsilon-gamma-box")}
METHODS |= {"unfolded": get("lrp-gamma", fold=False)}


def model(layer):
    """The layer, a bias of its own for each entry, a ReLU and a dense layer."""

    def apply(p, x):
        h = layer(p, x)
        h = relu(h + jnp.linspace(-0.5, 0.4, h.shape[-1]))
        return h.reshape(len(x), -1) @ jnp.tile(p["v"], (9, 1))[: h.reshape(len(x), -1).shape[1]]

    return jax.tree_util.Partial(apply, P)


def close(found, wanted):
    scale = np.abs(np.asarray(wanted)).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=EXACT * scale)


@pytest.mark.parametrize("name", DENSE)
def test_both_spellings_have_one_map(name):
    usual, spelled, x = DENSE[name]
    models = model(usual), model(spelled)
    np.testing.assert_allclose(models[0](x), models[1](x), rtol=1e-12)
    r = WORD.normal(size=models[0](x).shape)

    def maps(x, r):
        return [{n: lrp.vjp(f, x, m)[1](r) for n, m in METHODS.items()} for f in models]

    wanted, found = jax.jit(maps)(x, r)
    for method in METHODS:
        close(found[method], wanted[method])


@pytest.mark.parametrize("name", DENSE)
def test_the_plan_says_dense(name):
    """With the name of its parameter, first, and the next dense layer is not."""
    _, spelled, x = DENSE[name]
    plan = lrp.plan(model(spelled), x, "lrp-z")
    weights = [a for a in plan.layers if a.kind in ("dense", "factor", "sum", "transform")]
    assert [(a.kind, a.first, a.last) for a in weights[:1]] == [("dense", True, False)]
    assert [a.kind for a in weights[1:]] in (["dense"], ["factor", "dense"])
    assert weights[0].name in P
    assert [a.name for a in weights if a.last] == ["v"]
    plan.check(x)


@pytest.mark.parametrize("name", ["columns", "weights of positions", "one for each position"])
def test_the_gradient_is_that_of_the_model_as_it_is_written(name):
    """To the last bit, also at the layer that the equations have become."""
    _, spelled, x = DENSE[name]
    apply, x = model(spelled), jnp.asarray(x)
    out, pull = lrp.vjp(apply, x, "gradient")
    r = jnp.asarray(WORD.normal(size=out.shape))
    wanted = jax.jit(lambda x, r: jax.vjp(apply, x)[1](r)[0])(x, r)
    np.testing.assert_array_equal(jax.jit(pull)(r), wanted)
    layer = lrp.plan(apply, x, "gradient").layers[0].name
    inner = lrp.vjp(apply, x, "gradient", layers=[layer])[1](r)[1][layer]
    at_layer = lrp.vjp(apply, x, "lrp-z", layers=[layer])[1](r)[1][layer]
    assert inner.shape == at_layer.shape
    assert np.abs(inner).max() > 0


def test_patterns_are_those_of_the_usual_spelling():
    usual, spelled, x = DENSE["columns"]
    x = WORD.normal(size=(40, 4))
    two = [lrp.patterns.fit(model(f), x) for f in (usual, spelled)]
    maps = [
        lrp.attribute(model(f), x, get("pattern-attribution", patterns=p), target=0)
        for f, p in zip((usual, spelled), two, strict=True)
    ]
    close(*maps)


def test_what_replaces_the_output_of_the_layer_reaches_the_model():
    """The bottleneck puts noise there; the sum that is written is not computed again over it."""
    bits = []
    for layer in DENSE["columns"][:2]:
        apply = model(layer)
        known = lrp.bottleneck.statistics(apply, X, "w")
        found = lrp.iba(
            apply, X, target=0, layer="w", statistics=known, key=jax.random.key(0), steps=3
        )
        bits.append(found.relevance)
    close(bits[1], bits[0])


def test_half_precision():
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), P)
    apply = jax.tree_util.Partial(lambda p, x: relu((x[:, :, None] * p["w"]).sum(1)) @ p["v"], half)
    x = jnp.asarray(X, jnp.bfloat16)
    kinds = [a.kind for a in lrp.plan(apply, x, "lrp-z").layers]
    assert kinds.count("dense") == 2
    assert "sum" not in kinds


def test_what_others_are_divided_by_is_the_statistic_of_a_norm():
    def renormalised(p, x):
        a = jax.nn.softmax(x @ p["w"])
        a = a * p["b"] / (a * p["b"]).sum(-1, keepdims=True)
        return a @ p["v"]

    kinds = [a.kind for a in lrp.plan(jax.tree_util.Partial(renormalised, P), X, "lrp-z").layers]
    assert "norm" in kinds
    assert "product" not in kinds


MASK = np.array([1.0, 0, 1])
TAKEN = np.array([[1.0], [0], [1]])
# name: what is no dense layer, and the kinds it is read as
OTHER = {
    "a scale of features, and a mean over positions": (
        lambda p, x: (x * p["gamma"]).mean(1), ["factor", "sum"],
    ),
    "a mask, and a mean over what it leaves": (
        lambda p, x: (x * TAKEN).sum(1) / MASK.sum(), ["factor", "sum"],
    ),
    "a sum of features": (lambda p, x: x.sum(1), ["sum"]),
    "a product that something else reads": (
        lambda p, x: (lambda y: y.sum(-1, keepdims=True) + y)(x * p["gamma"]).mean(1),
        ["factor", "sum", "add", "sum"],
    ),
    "a shift behind the scale": (
        lambda p, x: (x * p["gamma"] + p["q"]).mean(1), ["scale", "sum"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER)
def test_what_is_no_dense_layer_stays_what_it_is(name):
    layer, kinds = OTHER[name]
    apply = jax.tree_util.Partial(lambda p, x: layer(p, x) @ p["w"], P)
    layers = lrp.plan(apply, TOKENS, "lrp-z").layers
    assert [a.kind for a in layers if a.kind != "structure"] == [*kinds, "dense"]


def test_a_mask_beside_weights_of_numpy_is_no_weight():
    """Where nothing says what the parameters are, an array of 0 and 1 is none."""
    w = np.asarray(P["w"])
    kinds = [a.kind for a in lrp.plan(lambda x: (x * TAKEN).sum(1) @ w, TOKENS, "lrp-z").layers]
    assert [k for k in kinds if k != "structure"] == ["factor", "sum", "dense"]
