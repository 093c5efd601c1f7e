"""What a rule says of itself is what it does: every stated fact is measured on a small layer."""

from __future__ import annotations

import inspect
from dataclasses import fields
from importlib import import_module
from pkgutil import iter_modules

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp
from lrpjax import rules
from lrpjax.composites import by_kind, or_else
from lrpjax.graph.reading import environment, read
from lrpjax.layers import make_op
from lrpjax.rules import Facts, Rule, known, rule

pytestmark = pytest.mark.usefixtures("quick_compile")

EXACT = 1e-7  # the stabiliser moves denominators of size 1 by 1e-9
MODULES = [import_module(f"lrpjax.rules.{m.name}") for m in iter_modules(rules.__path__)]
FUNCTIONS = {
    name: function
    for module in MODULES
    for name, function in vars(module).items()
    if inspect.isfunction(function)
    and function.__module__ == module.__name__
    and not name.startswith("_")
    and next(iter(inspect.signature(function).parameters), "") == "op"
    and inspect.signature(function).return_annotation in ("Pull", "Pair")
}
X = np.array([[1.0, 2.0, -3.0, 0.5]])
W = np.array([[1.0, -2.0, 0.5], [0.5, 1.0, -1.0], [0.5, 3.0, 2.0], [2.0, -1.0, 1.5]])

# Where each kind of rule can work: a network that has the layer, and its kind.
DENSE = (lambda x: x @ W, "dense")
PLACES = {
    "linear": DENSE,
    "patterns": DENSE,
    "pooling": (lambda x: x.max(1, keepdims=True), "max_pool"),
    "add": (lambda x: x[:, :2] * jnp.array([2.0, -2.0]) + x[:, 2:], "add"),
    "sum": (lambda x: x[:, 1:3].sum(1, keepdims=True), "sum"),
    "activation": (jax.nn.relu, "activation"),
    "softmax": (lambda x: jax.nn.softmax(x) @ W, "softmax"),
    "norm": (lambda x: x / jnp.sqrt((x * x).sum(-1, keepdims=True)) @ W, "norm"),
    "factor": (lambda x: x * np.array([2.0, -1.0, 0.5, 3.0]), "factor"),
    "product": (lambda x: x[:, :2] @ x[:, 2:].T, "product"),
    "structure": (lambda x: x[:, 1:], "structure"),
}
CASES = {
    "epsilon": ("linear", {"epsilon": 1e-12}),
    "z": ("linear", {}),
    "zplus": ("linear", {}),
    "alpha_beta": ("linear", {"alpha": 2, "beta": 1, "bias": "none"}),
    "gamma": ("linear", {"gamma": 0.5}),
    "flat": ("linear", {}),
    "wsquare": ("linear", {}),
    "zbox": ("linear", {"low": -4.0, "high": 4.0}),
    "negated": ("linear", {"of": rule(rules.gamma, gamma=0.5)}),
    "pass_": ("activation", {}),
    "one_to_one": ("factor", {}),
    "moved": ("structure", {}),
    "nothing": ("structure", {}),
    "gradient": ("linear", {}),
    "input_times_gradient": ("sum", {}),
    "positive_share": ("sum", {}),
    "guided": ("activation", {}),
    "deconv": ("activation", {}),
    "rect": ("activation", {"percentile": 50}),
    "add_copy": ("add", {}),
    "add_signed": ("add", {}),
    "add_alpha_beta": ("add", {"alpha": 2, "beta": 1}),
    "winner_takes_all": ("pooling", {}),
    "proportional": ("pooling", {}),
    "pass_value": ("norm", {}),
    "softmax_taylor": ("softmax", {}),
    "product": ("product", {"of": rule(rules.z), "share": "uniform"}),
}
MULTIPLIERS = {*vars(rules.deeplift)} & {*FUNCTIONS}  # of differences: no relevance to conserve
WITHOUT_RELEVANCE = {"nothing"}
WITH_PATTERNS = {"derivative", "pattern", "pattern_times_weights"}


def at_work(name, **parameters):
    """The rule's map, and the layer's output, at the layer of its kind."""
    place, given = CASES[name]
    model, kind = PLACES[place]
    reading = read(model, X)
    env = environment(reading.graph, reading.consts, reading.leaves)
    layer = next(layer for layer in reading.graph.layers if layer.kind == kind)
    op = make_op(reading.graph.program, layer, env)
    y = env[layer.outputs[0]]
    made = rule(FUNCTIONS[name], **(given | parameters))
    return made, made(op, *(env[v] for v in layer.inputs), y), y


def total(relevance):
    found = relevance if isinstance(relevance, tuple) else (relevance,)
    return sum(float(r.sum()) for r in found if r is not None)


def test_every_rule_says_all_of_its_facts():
    assert set(FUNCTIONS) == {*CASES, *MULTIPLIERS, *WITH_PATTERNS, *WITHOUT_RELEVANCE}
    for name, function in FUNCTIONS.items():
        assert set(getattr(function, "facts", {})) == {f.name for f in fields(Facts)}, name
    others = {f.name: False for f in fields(Facts) if f.name != "conserves"}
    with pytest.raises(TypeError, match=r"conserves relevance needs an account"):
        known(conserves=True, **others)
    with pytest.raises(TypeError, match=r"facts of a rule are linear, conserves.*given linear\."):
        known(linear=True)


@pytest.mark.parametrize("name", CASES)
def test_a_rule_is_linear_where_it_says_so(name):
    made, pull, y = at_work(name)
    a, b = (jax.random.normal(jax.random.key(k), y.shape) for k in (0, 1))
    if name == "nothing":
        assert pull(a) is None
        return
    both, apart = pull(a - 2 * b), jax.tree.map(lambda r, s: r - 2 * s, pull(a), pull(b))
    worst = max(
        float(jnp.abs(p - q).max())
        for p, q in zip(jax.tree.leaves(both), jax.tree.leaves(apart), strict=True)
    )
    assert made.facts.linear == (worst < EXACT)


@pytest.mark.parametrize("name", CASES)
def test_a_rule_conserves_where_it_says_so(name):
    """Where each output has contributions of both signs and no bias, nothing is lost."""
    made, pull, y = at_work(name)
    r = jnp.asarray([-3.0, 2.0, 4.0, -2.0][: y.size]).reshape(y.shape)
    assert made.facts.conserves == (abs(total(pull(r)) / float(r.sum()) - 1) < EXACT)


def test_what_a_rule_says_depends_on_its_parameters():
    of = lambda function, **parameters: rule(function, **parameters).facts
    both = {"alpha": 2, "beta": 1, "bias": "none"}
    assert of(rules.alpha_beta, **both).takes_apart
    assert not of(rules.alpha_beta, **both | {"alpha": 1, "beta": 0}).takes_apart
    assert of(rules.add_alpha_beta, alpha=1, beta=0).linear
    assert not of(rules.add_alpha_beta, alpha=1, beta=0, clip=(0, 1)).linear
    assert of(rules.negated, of=rule(rules.gamma, gamma=1)).takes_apart
    assert not of(rules.negated, of=rule(rules.z)).takes_apart
    assert of(rules.product, of=rule(rules.z), share="detached").stabilises
    assert not of(rules.product, of=rule(rules.zplus), share="detached").stabilises


def test_a_rule_of_ones_own_promises_nothing():
    def half(op, x, y):
        return lambda r: r / 2

    facts = rule(half).facts
    assert not any(getattr(facts, field.name) for field in fields(Facts))
    mine = lrp.methods.Method(
        "mine", or_else(by_kind(activation=Rule(half)), lrp.methods.get("lrp-z").composite)
    )
    row = lrp.plan(jax.nn.relu, np.ones((1, 2)), mine).check(np.ones((1, 2)), target=0).rows[0]
    assert (row["relevance_in"], row["lost"], row["residual"]) == (0.5, None, None)


@pytest.mark.parametrize("method", ["lrp-gamma", "lrp-alpha2-beta1"])
def test_the_sums_of_the_forward_pass_serve_the_negated_layer_too(method):
    """Behind a ReLU the two signed sums come from the forward pass: those of -W are theirs,
    swapped and negated."""
    model = jax.tree_util.Partial(
        lambda w, x: jax.nn.relu(x @ w["one"]) @ w["two"], {"one": W, "two": W[:3]}
    )
    negated = lrp.composites.negate_last(lrp.methods.get(method).composite)
    found = lrp.vjp(model, X, lrp.methods.Method("negated", negated))[1](np.ones((1, 3)))
    turned = jax.tree_util.Partial(
        lambda w, x: jax.nn.relu(x @ w["one"]) @ w["two"], {"one": W, "two": -W[:3]}
    )
    np.testing.assert_allclose(found, lrp.vjp(turned, X, method)[1](np.ones((1, 3))), rtol=1e-12)
