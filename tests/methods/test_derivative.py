"""The gradient family is what `jax.vjp` gives, with custom derivatives, stops and ties."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from nets_derivative import (
    MIDDLES,
    P,
    R,
    X,
    behind_fc1,
    clipped,
    head,
    network,
    reversal,
    with_derivative,
)

import lrpjax as lrp
from lrpjax.planning import ledger
from lrpjax.propagation.targets import read_for_target

pytestmark = pytest.mark.usefixtures("quick_compile")
DOUBLE = 1e-12  # relative to the largest entry
middles = pytest.mark.parametrize("middle", MIDDLES.values(), ids=MIDDLES)


def close(found, expected, tolerance=DOUBLE):
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=tolerance * np.abs(expected).max() + 1e-300
    )


def pulled(function, x, r):
    """J^T r, by JAX."""
    return jax.vjp(function, x)[1](r)[0]


def model_of(net, p=P):
    return jax.tree_util.Partial(net, p)


@middles
def test_vjp_is_that_of_jax_from_any_layer_to_any_layer(middle):
    net = network(middle)
    model, expected = model_of(net), pulled(partial(net, P), X, R)
    assert np.abs(expected).max() > 0
    close(lrp.vjp(model, X, "gradient")[1](R), expected)
    at_input, at = lrp.vjp(model, X, "gradient", layers=["fc1"])[1](R)
    close(at_input, expected)
    close(at["fc1"], pulled(partial(behind_fc1(net), P), X @ P["fc1"], R))
    r = np.ones((4, 6))
    below = lrp.vjp(model, X, "gradient", start="fc3")[1](r)
    close(below, pulled(partial(head(middle), P), X, r))


@middles
def test_attribute_is_the_gradient_of_the_logit_times_the_input(middle):
    net = network(middle)
    expected = X * jax.grad(lambda x: net(P, x)[:, 1].sum())(X)
    close(lrp.attribute(model_of(net), X, "input-x-gradient", target=1), expected)


@pytest.mark.parametrize("name", ["binarised", "reversal in a scan", "ties of max-pooling"])
def test_a_chain_is_the_jacobian(name):
    net, one = network(MIDDLES[name]), X[:1]
    jacobian = lambda f, x: jax.vmap(lambda r: pulled(f, x, r[None])[0])(np.eye(3))
    close(lrp.chain(model_of(net), one, "gradient").dense(), jacobian(partial(net, P), one))
    behind = jacobian(partial(behind_fc1(net), P), one @ P["fc1"])
    close(lrp.chain(model_of(net), one, "gradient", stop="fc1").dense(), behind)
    below = lrp.chain(model_of(net), one, "gradient", start="fc1").dense()
    close(below, P["fc1"].T)


def test_the_matrix_of_a_layer_is_its_own_alone():
    """In h + sin(h) the addition does not know that sin(h) comes from h."""
    net = network(lambda p, h: h + jnp.sin(h))
    found = lrp.matrix(model_of(net), X[:1], "gradient", layer="add_1")
    close(found, np.concatenate([np.eye(6)] * 2, 1))


def test_a_derivative_that_is_not_linear_has_no_matrix():
    with pytest.raises(ValueError, match="not linear in relevance"):
        lrp.chain(model_of(network(lambda p, h: clipped(h))), X[:1], "gradient")


@pytest.mark.parametrize("name", ["binarised", "reversal beside a plain branch"])
def test_csc_measures_the_derivative(name):
    net, key = network(MIDDLES[name]), jax.random.key(3)
    found = lrp.convergence.csc(
        model_of(net), X, "gradient", key=key, layers=["fc1", "input"], vectors=2
    )
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(4))
    drawn = jax.vmap(lambda k: jax.random.normal(k, (2, 3), X.dtype))(keys)
    places = {"input": (partial(net, P), X), "fc1": (partial(behind_fc1(net), P), X @ P["fc1"])}
    for row in found.rows:
        u, v = (pulled(*places[row["layer"]], drawn[:, i]) for i in (0, 1))
        cosines = np.sum(u * v, 1) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1)
        assert abs(row["median"] - np.median(np.abs(cosines))) < 1e-9


@pytest.mark.parametrize("name", ["binarised", "reversal, vmapped", "ties of reduce_max"])
def test_averages_are_of_the_derivative_at_the_nodes(name):
    net = network(MIDDLES[name])
    at = jax.grad(lambda x: net(P, x)[:, 2].sum())
    method = lrp.methods.get("integrated-gradients", steps=4, quadrature="middle")
    expected = X * np.mean([at(X * (k + 0.5) / 4) for k in range(4)], 0)
    close(lrp.attribute(model_of(net), X, method, target=2), expected)

    key, fold = jax.random.key(5), jax.random.fold_in
    method = lrp.methods.get("smooth-grad", key=key, samples=3, noise=0.2)
    draw = lambda i: jax.random.normal(fold(fold(key, 0), i), (6,), X.dtype)  # for all images
    sigma = 0.2 * (X.max(1) - X.min(1))[:, None]
    noisy = [X + sigma * draw(i) for i in range(3)]
    expected = np.mean([at(x) for x in noisy], 0)
    close(lrp.attribute(model_of(net), X, method, target=2), expected)


def test_contrastive_with_negated_weights_is_over_the_derivative():
    """With the last weights negated the dual is minus the map: R / sum R is the same for both."""
    net = network(MIDDLES["reversal"])
    base = lrp.methods.get("gradient")
    method = lrp.methods.contrastive_excitation_bp(base=base)
    expected = 2 * jax.grad(lambda x: net(P, x)[:, 0].sum())(X)
    close(lrp.attribute(model_of(net), X, method, target=0), expected)


RELUS = {  # what stands for the derivative of a ReLU, as jax.custom_vjp
    "guided-bp": lambda x, r: jnp.where(x > 0, jnp.maximum(r, 0), 0),
    "deconv": lambda x, r: jnp.maximum(r, 0),
}


@pytest.mark.parametrize("method", RELUS)
@pytest.mark.parametrize("name", ["binarised", "reversal in a scan", "a stopped branch"])
def test_guided_backpropagation_is_the_derivative_but_for_relus(name, method):
    relu = with_derivative(lambda x: jnp.maximum(x, 0), RELUS[method])
    expected = pulled(partial(network(MIDDLES[name], relu), P), X, R)
    assert np.abs(expected).max() > 0
    close(lrp.vjp(model_of(network(MIDDLES[name])), X, method)[1](R), expected)


@pytest.mark.parametrize(
    "method", ["gradient", "input-x-gradient", "guided-bp", "deconv", "rect-grad"]
)
def test_nothing_passes_a_stop(method):
    stopped = model_of(network(lambda p, h: lax.stop_gradient(h)))
    assert np.all(lrp.vjp(stopped, X, method)[1](R) == 0)


def test_what_is_asked_inside_of_a_custom_function_changes_nothing_outside():
    """Inside it is the derivative of the body, which is all that there is."""
    own = jax.custom_vjp(lambda p, h: jnp.tanh(h @ p["fc2"]))
    own.defvjp(lambda p, h: (own(p, h), h), lambda h, r: (None, 5 * r))
    net = network(own)
    at_input, at = lrp.vjp(model_of(net), X, "gradient", layers=["fc2", "fc1"])[1](R)
    close(at_input, pulled(partial(net, P), X, R))
    close(at["fc1"], at_input @ np.linalg.inv(P["fc1"]).T, 1e-9)
    h = X @ P["fc1"]
    body = lambda z: jax.nn.relu(jnp.tanh(z) @ P["fc3"]) @ P["out"]
    close(at["fc2"], pulled(body, h @ P["fc2"], R))


def test_the_plan_says_what_is_opened():
    rows = {row["layer"]: row for row in lrp.plan(
        model_of(network(MIDDLES["rounded"])), X, "lrp-z"
    ).rows}  # fmt: skip
    assert rows["fc1:quantise"]["kind"] == "quantise"
    assert rows["fc1:quantise"]["rule"] == "pass (in a custom_vjp or custom_jvp, opened)"
    assert rows["fc3:relu"]["rule"] == "pass"


@pytest.mark.parametrize("name", ["binarised", "reversal beside a plain branch"])
def test_the_check_of_a_plan_shows_the_derivative(name):
    net = network(MIDDLES[name])
    check = lrp.plan(model_of(net), X, "gradient").check(X, target=1)
    rows = {row["layer"]: row for row in check.rows}
    seed = np.eye(3)[[1] * 4]
    expected = pulled(partial(behind_fc1(net), P), X @ P["fc1"], seed)
    assert abs(rows["fc1"]["relevance_out"] - expected.sum()) < 1e-9
    assert abs(rows["fc1"]["relevance_in"] - pulled(partial(net, P), X, seed).sum()) < 1e-9


def test_equal_networks_with_other_derivatives_are_not_taken_for_each_other():
    for factor in (-1.0, 2.0, 3.0):
        own = with_derivative(lambda x: x, lambda x, r, factor=factor: factor * r)
        net = network(lambda p, h, own=own: own(h))
        close(lrp.vjp(model_of(net), X, "gradient")[1](R), pulled(partial(net, P), X, R))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_computed_in_single(dtype):
    p = {name: jnp.asarray(w, dtype) for name, w in P.items()}
    net, x = network(MIDDLES["reversal"]), jnp.asarray(X, dtype)
    single = lambda tree: jax.tree.map(lambda a: np.asarray(a, np.float32), tree)
    for method in ("gradient", "input-x-gradient"):
        found = lrp.vjp(model_of(net, p), x, method)[1](R.astype(np.float32))
        assert found.dtype == np.float32
        expected = pulled(partial(net, single(p)), single(x), R.astype(np.float32))
        close(found, expected * (single(x) if method == "input-x-gradient" else 1), 1e-5)


def test_whole_numbers_have_the_gradient_of_the_floats_they_become():
    net = network(MIDDLES["reversal in a scan"])
    inner = lambda p, x: jax.checkpoint(lambda p, x: net(p, reversal(x / 255.0)))(p, x * 1.0)
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6) * 9
    found = lrp.attribute(model_of(inner), pixels, "gradient", target=0)
    expected = jax.grad(lambda x: inner(P, x)[:, 0].sum())(pixels.astype(np.float32))
    close(found, expected, 1e-5)


def test_arrays_that_a_derivative_holds_are_arguments():
    """Other values of a model's parameters are other values in the derivative that reads them."""

    def made(w):
        own = jax.custom_vjp(lambda x: x @ w)
        own.defvjp(lambda x: (x @ w, None), lambda _, r: (2 * r @ w.T,))
        return lambda x: own(x) @ jnp.ones((6, 3))

    w, other = jnp.asarray(P["fc1"]), jnp.asarray(P["fc2"])
    reading = read_for_target(made(w), X, lrp.methods.get("gradient"), 0)
    consts = [other if c is w else c for c in reading.consts]
    method = lrp.methods.get("gradient")
    _, (found,), _ = ledger.explain(reading.graph, method, consts, reading.leaves, 0, told=True)
    close(found, pulled(made(other), X, np.eye(3)[[0] * 4]))


def test_the_gradient_can_be_differentiated_again():
    net = network(lambda p, h: jnp.sin(reversal(h)))
    twice = lambda grad: jax.grad(lambda x: (grad(x) ** 2).sum())(X)
    expected = twice(jax.grad(lambda x: net(P, x)[:, 1].sum()))
    found = twice(lambda x: lrp.attribute(model_of(net), x, "gradient", target=1))
    close(found, expected)


def test_a_model_that_is_traced_again_is_not_compiled_again():
    """Its custom functions are new objects each time, and do the same."""

    def fresh():
        own = with_derivative(lambda x: x, lambda x, r: 3 * r)
        return model_of(network(lambda p, h: jax.nn.relu(own(h))))

    def run(model):
        lrp.attribute(model, X, "gradient", target=1)
        lrp.vjp(model, X, "gradient")[1](R)
        lrp.vjp(model, X, "gradient", layers=["fc1"])[1](R)

    compiled = []
    listen = lambda name, duration, **_: (
        compiled.append(name) if "backend_compile" in name else None
    )
    run(fresh())
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        run(fresh())
        assert not compiled
        jax.jit(lambda x: x * 1.75)(X)
        assert compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_a_loop_may_stand_in_a_function_with_its_own_derivative():
    """Of a loop of unknown length JAX has no derivative, but of what is around it."""
    root = with_derivative(
        lambda x: lax.while_loop(lambda y: jnp.abs(y**2 - 2 - x**2).max() > 1e-13,
                                 lambda y: (y + (2 + x**2) / y) / 2, 1 + x**2),
        lambda x, r: r * x / jnp.sqrt(2 + x**2),
    )  # fmt: skip
    net = network(lambda p, h: root(h))
    close(lrp.vjp(model_of(net), X, "gradient")[1](R), pulled(partial(net, P), X, R))
    with pytest.raises(NotImplementedError, match="control flow"):
        lrp.vjp(model_of(net), X, "lrp-z")


@pytest.mark.parametrize("method", ["guided-bp", "deconv"])
def test_a_rule_of_a_relu_does_not_replace_the_derivative_of_what_is_behind_it(method):
    """A function that hands its input on, with -r / 2 for its derivative, right behind a ReLU."""
    behind = lambda p, x: reversal(jax.nn.relu(x @ p["fc1"])) @ p["out"]
    plain = lambda p, x: jax.nn.relu(x @ p["fc1"]) @ p["out"]
    found = lrp.vjp(model_of(behind), X, method)[1](R)
    close(found, lrp.vjp(model_of(plain), X, method)[1](-0.5 * R))
    assert np.abs(found).max() > 0
