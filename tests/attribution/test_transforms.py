"""Relevance under jit, vmap and grad, in every precision, injected and captured anywhere."""

from contextlib import contextmanager
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.test_util import check_grads

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

SAME = 1e-12  # float64: the same program, fused in another way
SINGLE = 1e-5  # float32: the same
DIFFERENCES = 1e-4  # of finite differences with steps of 1e-6, relative

METHODS = ("gradient", "input-x-gradient", "lrp-z", "lrp-alpha2-beta1", "lrp-gamma", "guided-bp")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4, 4, 2))
R = RNG.normal(size=(3, 3))
P = {
    "conv": {"kernel": RNG.normal(size=(3, 3, 2, 3)), "bias": RNG.normal(size=3)},
    "fc1": {"kernel": RNG.normal(size=(12, 5)) / 2, "bias": RNG.normal(size=5)},
    "fc2": {"kernel": RNG.normal(size=(5, 3)), "bias": RNG.normal(size=3)},
}
LAYERS = ("conv", "conv:relu", "pool", "fc1", "fc1:relu", "fc2")


def forward(p, x):
    numbers = ("NHWC", "HWIO", "NHWC")
    kernel = p["conv"]["kernel"]
    x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
    x = jax.nn.relu(x + p["conv"]["bias"])
    with jax.named_scope("pool"):
        x = nnx.max_pool(x, (2, 2), strides=(2, 2))
    x = jax.nn.relu(x.reshape(len(x), -1) @ p["fc1"]["kernel"] + p["fc1"]["bias"])
    return x @ p["fc2"]["kernel"] + p["fc2"]["bias"]


MODEL = jax.tree_util.Partial(forward, P)
close = partial(np.testing.assert_allclose, rtol=SAME, atol=SAME)
every_method = pytest.mark.parametrize("method", METHODS)


def pulled(x, r, method, model=MODEL):
    return lrp.vjp(model, x, method)[1](r)


# --- jit and vmap --------------------------------------------------------------------------------


@every_method
def test_relevance_is_the_same_under_jit(method):
    found = jax.jit(lambda x, r: lrp.vjp(MODEL, x, method)[1](r))(X, R)
    close(found, pulled(X, R, method))


def test_jit_may_return_the_relevance_map():
    out, pull = jax.jit(lambda x: lrp.vjp(MODEL, x, "lrp-z"))(X)
    close(out, MODEL(X))
    close(pull(R), pulled(X, R, "lrp-z"))
    close(jax.jit(lambda pull, r: pull(r))(pull, R), pulled(X, R, "lrp-z"))


def test_jit_over_parameters():
    run = jax.jit(lambda p, x, r: pulled(x, r, "lrp-z", lambda x: forward(p, x)))
    for p in (P, jax.tree.map(lambda a: a + 0.1, P)):
        close(run(p, X, R), pulled(X, R, "lrp-z", jax.tree_util.Partial(forward, p)))


@every_method
def test_vmap_over_relevance(method):
    _, pull = lrp.vjp(MODEL, X, method)
    many = RNG.normal(size=(4, *R.shape))
    close(jax.vmap(pull)(many), np.stack([pull(r) for r in many]))


@every_method
def test_vmap_over_inputs(method):
    one = lambda x, r: pulled(x[None], r[None], method)[0]
    close(jax.vmap(one)(X, R), pulled(X, R, method))
    close(jax.jit(jax.vmap(one, (None, 0)))(X[0], R)[1], one(X[0], R[1]))


def test_vmap_over_parameters():
    scales = np.array([1.0, 2.0])
    model = lambda s: lambda x: forward(jax.tree.map(lambda a: a * s, P), x)
    found = jax.vmap(lambda s: pulled(X, R, "lrp-z", model(s)))(scales)
    close(found, np.stack([pulled(X, R, "lrp-z", model(s)) for s in scales]))


def test_vmap_and_jit_of_attribute():
    expected = lrp.attribute(MODEL, X, "lrp-z", target=np.array([0, 1, 2]))
    one = lambda x, t: lrp.attribute(MODEL, x[None], "lrp-z", target=t)[0]
    close(jax.jit(jax.vmap(one))(X, jnp.arange(3)), expected)


# --- grad ----------------------------------------------------------------------------------------

numeric = partial(check_grads, order=1, atol=DIFFERENCES, rtol=DIFFERENCES, eps=1e-6)


@pytest.mark.parametrize("method", ["lrp-epsilon", "lrp-alpha2-beta1", "guided-bp"])
def test_gradients_with_respect_to_the_input(method):
    numeric(lambda x: lrp.attribute(MODEL, x, method, target=1), (X[:1],), modes=["rev"])


@pytest.mark.parametrize("method", ["input-x-gradient", "lrp-alpha2-beta1"])
def test_gradients_with_respect_to_parameters(method):
    def run(p):
        return lrp.attribute(jax.tree_util.Partial(forward, p), X[:1], method, target=1)

    numeric(run, (P,), modes=["rev"])


def test_gradients_with_respect_to_a_module():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0), param_dtype=float)
    x = X[:1, 0, :3, 0]
    graph, state = nnx.split(model)
    loss = lambda state: (lrp.attribute(nnx.merge(graph, state), x, "lrp-z", target=0) ** 2).sum()
    found = jax.grad(loss)(state)["kernel"][...]
    w = np.asarray(model.kernel[...])
    # The bias is zero, so R_j = w_j x_j and the gradient of its square is 2 w_j x_j^2.
    close(found[:, 0], 2 * w[:, 0] * x[0] ** 2, atol=1e-7)
    close(found[:, 1], 0)


def test_gradients_with_respect_to_relevance():
    _, pull = lrp.vjp(MODEL, X, "lrp-z")
    numeric(pull, (R,))


# --- trees ---------------------------------------------------------------------------------------


def test_inputs_and_outputs_may_be_trees():
    w = RNG.normal(size=(3, 4, 5))

    def model(x):
        h = jax.nn.relu(x["left"] @ w[0]) + x["right"][0] @ w[1]
        return {"class": h @ w[2].T, "hidden": (h,)}

    x = {"left": jnp.asarray(X[:, 0, :, 0]), "right": [jnp.asarray(X[:, 0, :, 1])]}
    (out, pull), (expected, reference) = lrp.vjp(model, x, "gradient"), jax.vjp(model, x)
    jax.tree.map(close, out, expected)
    jax.tree.map(close, pull(out), reference(expected)[0])


# --- precision -----------------------------------------------------------------------------------

DTYPES = {
    "uint8": "float32",
    "int32": "float32",
    "bfloat16": "float32",
    "float16": "float32",
    "float32": "float32",
    "float64": "float64",
}


@pytest.mark.parametrize("method", ["lrp-z", "gradient"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_inputs_of_every_precision(dtype, method):
    wide = DTYPES[dtype]
    p = jax.tree.map(lambda a: a.astype(wide), P)
    model = lambda x: forward(p, x.astype(wide))
    x = jnp.asarray(RNG.integers(0, 9, X.shape), dtype)
    found = lrp.attribute(model, x, method, target=0)
    assert (found.dtype, found.shape) == (wide, x.shape)
    close(found, lrp.attribute(model, x.astype(wide), method, target=0), rtol=SINGLE)


@pytest.mark.parametrize("method", ["lrp-z", "gradient", "lrp-alpha2-beta1"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_models_are_replayed_in_single_precision(dtype, method):
    half = jax.tree.map(lambda a: jnp.asarray(a, dtype), P)
    single = jax.tree.map(lambda a: a.astype("float32"), half)
    x = jnp.asarray(X, dtype)
    out, pull = lrp.vjp(jax.tree_util.Partial(forward, half), x, method)
    assert out.dtype == dtype
    found = pull(jnp.ones(out.shape))
    assert found.dtype == "float32"
    model = jax.tree_util.Partial(forward, single)
    expected = lrp.vjp(model, x.astype("float32"), method)[1](jnp.ones(out.shape))
    np.testing.assert_allclose(found, expected, atol=SINGLE * np.abs(expected).max())


def test_a_module_that_computes_in_bfloat16_has_the_relevance_of_single_precision():
    def relevance(dtype):
        layer = partial(nnx.Linear, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=jnp.float32)
        model = nnx.Sequential(layer(4, 5), nnx.gelu, layer(5, 3))
        x = jnp.asarray(X[:, 0, :, 0], jnp.float32)
        return lrp.attribute(model, x, "lrp-z", target=0)

    found, wanted = relevance(jnp.bfloat16), relevance(jnp.float32)
    assert found.dtype == "float32"
    atol = 10 * float(jnp.finfo(jnp.bfloat16).eps) * np.abs(wanted).max()  # a dozen roundings
    np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


def test_relevance_is_cast_to_the_models_precision():
    for r in (R.astype("float32"), R.astype("float16"), np.int32(R)):
        found = pulled(X, r, "lrp-z")
        assert found.dtype == "float64"
        close(found, pulled(X, np.asarray(r, "float64"), "lrp-z"))


# --- injection and capture -----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["input-x-gradient", "lrp-alpha2-beta1", "guided-bp"])
def test_injecting_what_was_captured_reproduces_the_result(method):
    r_in, at = lrp.vjp(MODEL, X, method, layers=(*LAYERS, "input"))[1](R)
    assert list(at) == [*LAYERS, "input"]
    close(at["input"], r_in)
    close(at["fc2"], R)
    for name in ("conv", "pool", "fc1"):
        below = [layer for layer in LAYERS if LAYERS.index(layer) <= LAYERS.index(name)]
        again, lower = lrp.vjp(MODEL, X, method, start=name, layers=below)[1](at[name])
        close(again, r_in)
        for layer in below:
            close(lower[layer], at[layer])


def test_capture_is_of_the_sum_over_branches():
    def model(p, x):
        h = jax.nn.relu(x @ p["a"]["w"])
        return (h + jax.nn.relu(h @ p["b"]["w"])) @ p["c"]["w"]

    p = {k: {"w": RNG.normal(size=(4, 4))} for k in "abc"}
    residual, x = jax.tree_util.Partial(model, p), X[:, :, 0, 0]
    r = RNG.normal(size=x.shape)
    r_in, at = lrp.vjp(residual, x, "lrp-z", layers=["a:relu", "a", "add_1"])[1](r)
    for name, relevance in at.items():
        close(lrp.vjp(residual, x, "lrp-z", start=name)[1](relevance), r_in, atol=1e-9)


def test_asking_for_no_layers_returns_an_empty_dictionary():
    r_in, at = lrp.vjp(MODEL, X, "lrp-z", layers=[])[1](R)
    assert at == {}
    close(r_in, pulled(X, R, "lrp-z"))


def test_jit_and_vmap_with_capture():
    run = jax.jit(lambda x, r: lrp.vjp(MODEL, x, "lrp-z", start="fc1", layers=["conv"])[1](r))
    r = RNG.normal(size=(2, 3, 5))
    _, at = jax.vmap(partial(run, X))(r)
    close(at["conv"][1], run(X, r[1])[1]["conv"])


# --- targets and methods -------------------------------------------------------------------------


def test_one_target_in_every_form_gives_one_map():
    best = MODEL(X).argmax(-1)
    attribute = partial(lrp.attribute, MODEL, X, "lrp-z")
    close(attribute(), attribute(target=None))
    close(attribute(), attribute(target=best))
    close(attribute(target=2), attribute(target=np.array([2, 2, 2])))
    close(attribute(target=[0, 1, 2]), attribute(target=jnp.arange(3)))
    close(attribute(target=np.int64(1)), attribute(target=1))


@pytest.mark.parametrize("method", ["gradient", "lrp-z"])
def test_a_map_starts_from_one_or_from_the_logit(method):
    hot = np.eye(3)[[1, 1, 1]]
    start = {"gradient": hot, "lrp-z": hot * MODEL(X)}[method]
    close(lrp.attribute(MODEL, X, method, target=1), pulled(X, start, method))


NAMES = ("lrp-z", "gradient", "lrp-alpha2-beta1", "lrp-alpha3-beta2", "epsilon-plus-flat")


@pytest.mark.parametrize("name", NAMES)
def test_methods_are_values(name):
    one, two = lrp.methods.get(name), lrp.methods.get(name)
    assert one == two and hash(one) == hash(two)
    assert one != lrp.methods.get(name, fold=False)
    assert {one: 1}[two] == 1 and str(one) == name
    close(pulled(X, R, one), pulled(X, R, name))


def test_methods_with_other_parameters_differ():
    made = [lrp.methods.epsilon(e) for e in (1e-6, 1e-3)] + [
        lrp.methods.alpha_beta(2, 1, bias=bias) for bias in ("none", "signed", "split")
    ]
    assert len(set(made)) == len(made)
    assert lrp.methods.alpha_beta(2, 1) == lrp.methods.get("lrp-alpha2-beta1")


# --- compilation ---------------------------------------------------------------------------------


@contextmanager
def compilations():
    """A list with one entry for everything that XLA compiles in the block."""
    found = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_compilations_are_counted():
    with compilations() as found:
        jax.jit(lambda x: x * 1.25)(X)
    assert found


OTHER = jax.tree.map(lambda a: a * 1.5, P)
REPEATS = {
    "the same call": lambda: (MODEL, X, R),
    "new parameters": lambda: (jax.tree_util.Partial(forward, OTHER), X, R),
    "new images": lambda: (MODEL, X + 1, R),
    "new relevance": lambda: (MODEL, X, R + 1),
    "a new partial": lambda: (jax.tree_util.Partial(lambda p, x: forward(p, x), P), X, R),
}


@pytest.mark.parametrize("again", REPEATS.values(), ids=REPEATS)
def test_nothing_is_compiled_twice(again):
    def run(model, x, r):
        lrp.vjp(model, x, "lrp-zplus", layers=["conv"])[1](r)
        lrp.attribute(model, x, "lrp-zplus", target=int(r[0, 0] > 0))

    run(MODEL, X, R)
    arguments = again()
    with compilations() as found:
        run(*arguments)
    assert len(found) == 0


def test_closed_over_parameters_are_not_compiled_in():
    def run(p):
        lrp.vjp(lambda x: forward(p, x), X, "lrp-zplus")[1](R)

    run(P)
    with compilations() as found:
        run(OTHER)
    assert len(found) == 0
