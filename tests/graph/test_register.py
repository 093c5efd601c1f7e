"""`rules.register`: a rule for a primitive that no kind of layer covers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import mlir

import lrpjax as lrp
from lrpjax import rules
from lrpjax.composites import by_kind, or_else

pytestmark = pytest.mark.usefixtures("quick_compile")

rng = np.random.default_rng(0)
X, W, V = rng.normal(size=(3, 4, 4))
STABILISED = 1e-6  # epsilon adds as much to each denominator
close = partial(np.testing.assert_allclose, rtol=STABILISED, atol=STABILISED)


@pytest.fixture
def register():
    """`rules.register`, undone after the test."""
    given = []

    def add(primitive, rule):
        rules.register(primitive, rule)
        given.append(primitive)

    yield add
    for primitive in given:
        rules.register(primitive, None)


def sine(x):
    return jnp.sin(x @ W) @ V


def relevance(model=sine, x=X, method="lrp-z"):
    """Of x, for the model's output as relevance of itself."""
    out, pull = lrp.vjp(model, x, method)
    return pull(out)


def by_hand(factor=1.0):
    """LRP-z of `sine`, with `factor` times the relevance of sin handed to its input."""
    hidden = X @ W
    of_sine = np.sin(hidden) * (np.ones(4) @ V.T)
    return X * ((factor * of_sine / hidden) @ W.T)


def contrastive_by_hand(target):
    """LRP-z of the class less that of all others, each scaled to a sum of 1, where positive."""
    hidden = X @ W
    out = np.sin(hidden) @ V

    def shares(start):
        of_sine = np.sin(hidden) * ((start / out) @ V.T)
        found = X * ((2 * of_sine / hidden) @ W.T)
        return found / found.sum(1, keepdims=True)

    one = np.eye(4)[target]
    return np.maximum(0, shares(one) - shares(1 - one))


def double(op, x, y):
    return lambda r: 2 * r


def scaled(op, x, y, *, by):
    return lambda r: by * r


# --- what is given -------------------------------------------------------------------------------

GIVEN = {
    "a rule, by name": ("sin", rules.rule(rules.pass_), 1),
    "a function, by name": ("sin", rules.pass_, 1),
    "your own function": ("sin", double, 2),
    "a rule with a parameter": ("sin", rules.rule(scaled, by=3.0), 3),
    "by JAX primitive": (lax.sin_p, rules.pass_, 1),
}


@pytest.mark.parametrize(("primitive", "rule", "factor"), GIVEN.values(), ids=GIVEN)
def test_a_registered_rule_is_what_lrp_uses(register, primitive, rule, factor):
    register(primitive, rule)
    close(relevance(), by_hand(factor))


WRONG = {
    "no primitive": (3, rules.pass_, "primitive is a name.*3"),
    "a function of numpy": (jnp.sin, rules.pass_, "primitive is a name.*sin"),
    "None removed": (None, None, "primitive is a name.*None"),
    "no rule": ("sin", 3, "rule is an.*rules.rule.*function.*3"),
    "a rule's name": ("sin", "pass", "rule is an.*'pass'"),
}


@pytest.mark.parametrize(("primitive", "rule", "words"), WRONG.values(), ids=WRONG)
def test_what_is_no_primitive_or_no_rule_changes_nothing(primitive, rule, words):
    before = rules.table()
    with pytest.raises(TypeError, match=words):
        rules.register(primitive, rule)
    assert rules.table() == before


MISSPELLED = {  # and the primitives that are meant
    "sine": "sin",
    "topk": "top_k",
    "scatter_add": "scatter-add",
    "jax.lax.erf_inv": "erf_inv",
}


@pytest.mark.parametrize("rule", [double, None])
@pytest.mark.parametrize(("name", "meant"), MISSPELLED.items())
def test_a_name_of_no_primitive_is_refused_with_the_nearest(name, meant, rule):
    before = rules.table()
    with pytest.raises(ValueError, match=f"no primitive '{name}'; the nearest are.* {meant}[,:]"):
        rules.register(name, rule)
    with pytest.raises(ValueError, match=r"no primitive '\?': take the name.*primitive itself\."):
        rules.register("?", rule)
    assert rules.table() == before


def test_every_name_in_an_error_is_one(register):
    for primitive in ("sort", "erf", "cumprod", "reduce_window_min", "scatter", "fft", "while"):
        register(primitive, double)


def test_a_primitive_of_the_users_own_is_given_itself(register):
    mine = Primitive("mine")
    mine.def_impl(jnp.sin)
    mine.def_abstract_eval(lambda x: x)
    mlir.register_lowering(mine, mlir.lower_fun(jnp.sin, multiple_results=False))
    model = lambda x: mine.bind(x @ W) @ V
    with pytest.raises(ValueError, match=r"no primitive 'mine'.*pass the primitive itself"):
        rules.register("mine", double)
    register(mine, double)
    close(relevance(model), by_hand(2))
    rules.register("mine", None)  # its name is known now
    with pytest.raises(NotImplementedError, match="'mine'"):
        relevance(model)


DOES_NOT_FIT = {  # a rule for the maximum of two values
    "too few": (lambda op, a, b, y: lambda r: r, r"\(4, 4\) where"),
    "too many": (
        lambda op, a, b, y: lambda r: (r, r, r),
        r"\(4, 4\) and \(4, 4\) and \(4, 4\) where",
    ),
    "a list": (lambda op, a, b, y: lambda r: [r, r], "list where"),
    "another shape": (lambda op, a, b, y: lambda r: (r, r[0]), r"\(4, 4\) and \(4,\) where"),
    "a number": (lambda op, a, b, y: lambda r: (r, 0.0), r"\(4, 4\) and float where"),
}


@pytest.mark.parametrize(("rule", "words"), DOES_NOT_FIT.values(), ids=DOES_NOT_FIT)
def test_what_a_rule_returns_must_fit_the_inputs(register, rule, words):
    def of_two(*values):
        return rule(*values)

    register("max", of_two)
    model = lambda x: jnp.maximum(x @ W, x @ V)
    wanted = (
        r"The rule of-two of the layer 'max_1' \(max at .*test_register\.py:\d+.*\) returns "
        rf"relevance of shape {words} the layer's inputs have shape \(4, 4\) and \(4, 4\): return"
    )
    with pytest.raises(ValueError, match=wanted):
        relevance(model)
    with pytest.raises(ValueError, match=wanted):
        lrp.plan(model, X, "lrp-z").check(X)


def test_the_error_names_the_way_out_and_none_takes_the_rule_away(register):
    refused = partial(pytest.raises, NotImplementedError, match=r"register\('sin', rule\)")
    with refused():
        relevance()
    register("sin", rules.pass_)
    relevance()
    rules.register("sin", None)
    with refused():
        relevance()
    rules.register("sin", None)  # and again


def test_the_table_shows_what_is_registered(register):
    coverage, table = rules.coverage(), rules.table()
    assert "registered" not in table
    register("sin", rules.pass_)
    register(lax.sort_p, rules.gradient)
    assert rules.table().splitlines()[-1].split() == "registered sin sort as registered".split()
    assert rules.coverage() == coverage


# --- examples ------------------------------------------------------------------------------------


def test_sort_moves_relevance_back_with_its_values(register):
    register("sort", rules.gradient)
    model = lambda x: jnp.sort(x, axis=1) @ V
    share = np.sort(X, axis=1) * V.sum(1)
    place = np.argsort(np.argsort(X, axis=1), axis=1)
    close(relevance(model), np.take_along_axis(share, place, axis=1))


def test_the_larger_of_two_values_takes_all(register):
    def to_the_larger(op, a, b, y):
        return lambda r: (jnp.where(a >= b, r, 0), jnp.where(a >= b, 0, r))

    register("max", to_the_larger)
    model = lambda x: jnp.maximum(*x) @ V
    a, b = X, X[::-1]
    share = np.maximum(a, b) * V.sum(1)
    of_a, of_b = relevance(model, (a, b))
    close(of_a, np.where(a >= b, share, 0))
    close(of_b, np.where(a >= b, 0, share))


def test_a_primitive_of_several_outputs(register):
    """top_k writes values and their places; relevance goes back from the values."""
    register("top_k", rules.gradient)
    model = lambda x: lax.top_k(x, 1)[0]
    close(relevance(model), np.where(X.max(1, keepdims=True) == X, X, 0))


# --- where it counts -----------------------------------------------------------------------------

IN_RANGE = {"low": -5.0, "high": 5.0}
LRP = {name: {} for name in lrp.methods.TABLE if name.startswith(("lrp-", "epsilon-plus"))}
LRP |= {"excitation-bp": {}, "deep-taylor": IN_RANGE, "epsilon-gamma-box": IN_RANGE}
GRADIENTS = ("gradient", "input-x-gradient", "guided-bp", "deconv", "rect-grad", "pattern-net")
DEEPLIFT = ("deeplift-rescale", "deeplift-reveal-cancel", "deeplift-ablation")


def rule_of_sine(method):
    (row,) = (row for row in lrp.plan(sine, X, method).rows if row["kind"] == "unknown")
    return row["rule"]


@pytest.mark.parametrize(("name", "options"), LRP.items(), ids=LRP)
def test_it_counts_in_every_lrp_method(register, name, options):
    method = lrp.methods.get(name, **options)
    assert rule_of_sine(method) == "NONE for sin"
    register("sin", double)
    assert rule_of_sine(method) == "double"


@pytest.mark.parametrize("name", GRADIENTS)
def test_methods_of_the_gradient_do_without_it(register, name):
    register("sin", double)
    patterns = name == "pattern-net"
    options = {"patterns": lrp.patterns.fit(sine, X)} if patterns else {}
    assert rule_of_sine(lrp.methods.get(name, **options)) == "gradient"


@pytest.mark.parametrize("name", DEEPLIFT)
def test_deeplift_ignores_it(register, name):
    """A rule moves relevance, DeepLIFT moves multipliers."""
    register("sin", double)
    assert rule_of_sine(lrp.methods.get(name)) == "NONE for sin"
    with pytest.raises(NotImplementedError, match=r"'sin'.*give it one in a composite"):
        relevance(method=name)


def test_estimators_take_it_from_their_base(register):
    method = lrp.methods.get("contrastive-lrp", base="lrp-z")
    with pytest.raises(NotImplementedError, match="sin"):
        lrp.attribute(sine, X, method, target=0)
    register("sin", double)
    close(lrp.attribute(sine, X, method, target=0), contrastive_by_hand(target=0))


def test_layers_that_are_read_keep_their_rules(register):
    """ReLU is made of max, softmax of exp and div: no unknown layer, so nothing to register for."""
    model = lambda x: jax.nn.softmax(jax.nn.relu(x @ W)) @ V
    before = [row["rule"] for row in lrp.plan(model, X, "lrp-z").rows]
    for primitive in ("max", "exp", "div", "reduce_sum", "dot_general"):
        register(primitive, double)
    assert [row["rule"] for row in lrp.plan(model, X, "lrp-z").rows] == before


def test_control_flow_stays_refused(register):
    register("cond", double)
    model = lambda x: lax.cond(x[0, 0] > 0, lambda x: x @ W, lambda x: -x, x)
    with pytest.raises(NotImplementedError, match=r"control flow \(cond\)"):
        relevance(model)


# --- before and after ----------------------------------------------------------------------------


def test_a_composite_comes_first(register):
    register("sin", double)
    below = lrp.methods.get("lrp-z").composite
    mine = lrp.methods.Method("mine", or_else(by_kind(unknown=rules.rule(rules.pass_)), below))
    close(relevance(method=mine), by_hand())


def test_the_gradient_of_the_unknown_comes_last(register):
    method = lrp.methods.get("lrp-z", unknown="gradient")
    assert rule_of_sine(method) == "gradient"
    register("sin", double)
    assert rule_of_sine(method) == "double"


@pytest.mark.parametrize("call", ["attribute", "vjp"])
def test_a_change_of_the_rule_is_seen_at_once(register, call):
    """What was compiled for one rule is not used for another, nor without one."""
    if call == "vjp":
        find = relevance
    else:
        model = lambda x: sine(x).sum(1, keepdims=True)
        find = lambda: lrp.attribute(model, X, "lrp-z", target=0)
    for factor in (1.0, 2.0, 1.0):
        register("sin", rules.rule(scaled, by=factor))
        close(find(), by_hand(factor))
    rules.register("sin", None)
    with pytest.raises(NotImplementedError):
        find()
