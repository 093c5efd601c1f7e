"""What a reading says of a model is tested on the data: what is wrong is refused by name."""

from __future__ import annotations

import logging
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.vit import vit

import lrpjax as lrp
from lrpjax import convergence, sanity
from lrpjax.graph import layers as graph_layers
from lrpjax.graph.reading import read
from lrpjax.layers import ops
from lrpjax.planning import claims

pytestmark = pytest.mark.usefixtures("quick_compile")

KEY = jax.random.key(0)


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def network(p, x):
    h = jax.nn.relu(x @ p["one"] + p["b"])
    h = h / jnp.sqrt((h * h).mean(-1, keepdims=True) + 1e-2)
    h = h + jnp.tanh(h @ p["two"])
    return h @ p["three"]


P = {"one": draw(0, 6, 5), "b": np.abs(draw(1, 5)), "two": draw(2, 5, 5), "three": draw(3, 5, 3)}
MODEL = jax.tree_util.Partial(network, P)
X = draw(4, 2, 6)


@pytest.fixture
def misread(monkeypatch):
    """`misread(change)`: what every reading says of its layers is changed. Programs are kept by
    what a graph computes, so none may stay from a right reading, or from this."""

    def change_all(change):
        right = graph_layers.assign_names
        wrong = lambda *given: tuple(map(change, right(*given)))
        monkeypatch.setattr(graph_layers, "assign_names", wrong)
        jax.clear_caches()

    yield change_all
    jax.clear_caches()


def at(kind, change):
    """A change to the layers of that kind."""
    return lambda layer: replace(layer, **change(layer)) if layer.kind == kind else layer


def as_tanh(layer):
    return {"detail": TANH} if layer.detail.name == "relu" else {}


TANH = read(jnp.tanh, X).graph.layers[0].detail
FALSE = {
    "what the activation computes at 'one:relu'": at("activation", as_tanh),
    "an input that cannot be negative at 'one'": at("dense", lambda _: {"non_negative": True}),
    "the statistic of a norm at 'norm_1'": at(
        "norm", lambda layer: {"detail": replace(layer.detail, axes=(0, 1))}
    ),
    # An addition that has forgotten its second operand: right forward, and none goes back there.
    "the gradient through the layers at 'add_1'": at(
        "add", lambda layer: {"inputs": layer.inputs[:1]}
    ),
}
MEASURES = {
    "plan.check": lambda model: lrp.plan(model, X, "lrp-z").check(X),
    "attribute": lambda model: lrp.attribute(model, X, "lrp-z", check=True),
    "attribute, an estimator": lambda model: lrp.attribute(
        model, X, "integrated-gradients", check=True
    ),
    "vjp": lambda model: lrp.vjp(model, X, "lrp-z", check=True),
    "csc": lambda model: convergence.csc(model, X, "lrp-z", key=KEY),
    "singular_values": lambda model: convergence.singular_values(model, X[:1], "lrp-z", key=KEY),
    "certificate": lambda model: convergence.certificate(model, X[:1], "lrp-zplus", key=KEY),
    "mprt": lambda model: sanity.mprt(model, X, "lrp-z", key=KEY),
    "random_logit": lambda model: sanity.random_logit(model, X, "lrp-z", key=KEY),
    "audit": lambda model: lrp.audit(model, X, ["lrp-z"], key=KEY),
}
measures = pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)


@pytest.mark.parametrize("claim", FALSE)
def test_a_false_claim_is_refused_with_the_name_of_its_layer(misread, claim):
    MEASURES["plan.check"](MODEL)
    misread(FALSE[claim])
    with pytest.raises(ValueError, match=f"This model is not what it was read as: {claim}"):
        MEASURES["plan.check"](MODEL)


def test_a_folded_layer_that_forgets_its_bias_is_refused(misread, monkeypatch):
    misread(lambda layer: layer)
    monkeypatch.setattr(ops, "shifts", lambda eqns: False)
    with pytest.raises(ValueError, match="what the folded layers compute at 'one' is off by"):
        MEASURES["plan.check"](MODEL)


@measures
def test_all_that_measures_a_model_refuses_what_was_read_wrongly(misread, measure):
    misread(FALSE["what the activation computes at 'one:relu'"])
    with pytest.raises(ValueError, match="what the activation computes at 'one:relu' is off"):
        measure(MODEL)


def alone_is_another(p, x):
    return network(p, 2 * x if x.shape[0] == 1 else x)


@measures
def test_a_model_that_computes_something_else_for_one_image_is_refused(measure):
    with pytest.raises(ValueError, match='an example by itself at "the model\'s output" is off'):
        measure(jax.tree_util.Partial(alone_is_another, P))


def test_without_being_asked_a_map_is_not_checked(misread):
    misread(FALSE["what the activation computes at 'one:relu'"])
    assert lrp.attribute(MODEL, X, "lrp-z").shape == X.shape
    assert lrp.vjp(MODEL, X, "lrp-z")[0].shape == (2, 3)


def test_a_map_that_is_checked_is_the_same_map():
    np.testing.assert_array_equal(
        lrp.attribute(MODEL, X, "lrp-z", check=True), lrp.attribute(MODEL, X, "lrp-z")
    )


@pytest.mark.parametrize("call", [lrp.attribute, lrp.vjp])
def test_what_is_traced_cannot_be_checked(call):
    with pytest.raises(TypeError, match="this one is traced: call it outside of jit"):
        jax.jit(lambda x: call(MODEL, x, "lrp-z", check=True)[0])(X)


# --- true claims hold ----------------------------------------------------------------------------


def convolutional(p, x):
    conv = lambda x, k: jax.lax.conv_general_dilated(
        x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    h = jax.nn.silu(conv(x, p["k"]) * p["s"] + p["t"])
    h = jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    h = h - h.mean((1, 2), keepdims=True)
    return (h / jnp.sqrt((h * h).mean((1, 2), keepdims=True) + 1e-3)).max((1, 2)) @ p["w"]


def gated(p, x):
    return (jax.nn.sigmoid(x @ p["a"]) * (x @ p["b"])) @ p["w"]


def scanned(p, x):
    """Prefix products: slices of no size on the way."""
    f = jax.nn.sigmoid(x @ p["a"])
    _, h = jax.lax.associative_scan(
        lambda a, b: (a[0] * b[0], b[0] * a[1] + b[1]), (f, x @ p["b"]), axis=1
    )
    return h[:, -1] @ p["w"]


def custom(p, x):
    through = jax.custom_vjp(jnp.sign)
    through.defvjp(lambda x: (jnp.sign(x), None), lambda _, g: (g,))
    h = x @ p["a"]
    return jnp.maximum(h + jax.lax.stop_gradient(through(h)), 0) @ p["w"]


NETS = {
    "norm and shortcut": (network, P, (6,)),
    "convolutions": (
        convolutional,
        {"k": draw(0, 3, 3, 2, 4), "s": draw(1, 4), "t": draw(2, 4), "w": draw(3, 4, 3)},
        (4, 4, 2),
    ),
    "gate": (gated, {"a": draw(0, 6, 5), "b": draw(1, 6, 5), "w": draw(2, 5, 3)}, (6,)),
    "scan": (scanned, {"a": draw(0, 6, 5), "b": draw(1, 6, 5), "w": draw(2, 5, 3)}, (3, 6)),
    "custom": (custom, {"a": draw(0, 6, 5), "w": draw(2, 5, 3)}, (6,)),
}
BOUND = {jnp.float64: 1e-9, jnp.float32: 1e-4, jnp.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", BOUND, ids=lambda d: d.__name__)
@pytest.mark.parametrize("net", NETS)
def test_claims_hold_in_every_precision_for_one_example_and_for_more(net, dtype):
    function, p, shape = NETS[net]
    model = jax.tree_util.Partial(function, jax.tree.map(lambda w: jnp.asarray(w, dtype), p))
    for size in (1, 3):
        x = jnp.asarray(draw(7, size, *shape), dtype)
        found = claims.tested(read(model, x))
        assert {claim.bound for claim in found} == {BOUND[dtype]}
        assert all(claim.holds for claim in found)
        assert any(claim.what == "an example by itself" for claim in found)


def test_claims_hold_for_a_transformer():
    model, x = vit(constants=True), draw(5, 2, 16, 16, 3)
    what = {claim.what for claim in claims.tested(read(model, x))}
    assert len(what) == 6  # no layer is said to have no negative input


def test_an_empty_batch_claims_nothing_that_fails():
    reading = read(MODEL, X[:0])
    assert all(claim.holds for claim in claims.tested(reading))


@pytest.mark.parametrize("size", [1, 3])
def test_two_programs_are_compiled(caplog, size):
    model = jax.tree_util.Partial(lambda p, x: 3 * network(p, x), P)
    reading = read(model, draw(8, size, 6))
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        claims.tested(reading)
    compiled = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Compiling")]
    checking = [text for text in compiled if "_all_finite" in text]  # of the other batch
    assert len(compiled) - len(checking) == 2, compiled
