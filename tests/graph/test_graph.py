"""Reading a model: calls opened, activations recognised, layers named, axes found."""

from functools import partial

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.nn import relu
from jax.tree_util import Partial

import lrpjax as lrp
from lrpjax.graph.reading import read

pytestmark = pytest.mark.usefixtures("quick_compile")

SAME = 1e-12  # the same equations in float64, in another order
PARAMETER = 1e-6  # an activation's parameter is read off its values in float32

X = np.random.default_rng(0).normal(size=(2, 3))
W, A, B, C = np.random.default_rng(1).normal(size=(4, 3, 3))
close = partial(np.testing.assert_allclose, atol=SAME)


def graph(model, x=X):
    return read(model, x).graph


def names(model, x=X):
    return [layer.name for layer in graph(model, x).layers]


def kinds(model, x=X):
    return [layer.kind for layer in graph(model, x).layers]


def table(argument, cases):
    """Parametrises a test over a dictionary from readable names to values (or tuples of them)."""
    return pytest.mark.parametrize(argument, cases.values(), ids=cases)


# --- activations ---------------------------------------------------------------------------------

cube = lambda x: np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
SPELLINGS = {
    "relu, jax.nn": relu,
    "relu, nnx": nnx.relu,
    "relu, haiku": lambda x: hk.transform(lambda x: relu(x)).apply({}, None, x),
    "relu, keras": keras.activations.relu,
    "relu, keras layer": keras.layers.ReLU(dtype="float64"),
    "relu, maximum": lambda x: jnp.maximum(x, 0),
    "relu, clip": lambda x: jnp.clip(x, 0),
    "relu, where": lambda x: jnp.where(x > 0, x, 0),
    "relu, x(x>0)": lambda x: x * (x > 0),
    "relu, (x+|x|)/2": lambda x: (x + jnp.abs(x)) / 2,
    "relu6, jax.nn": jax.nn.relu6,
    "relu6, keras": keras.activations.relu6,
    "relu6, clip": lambda x: jnp.clip(x, 0, 6),
    "leaky_relu .01, jax.nn": jax.nn.leaky_relu,
    "leaky_relu .2, jax.nn": lambda x: jax.nn.leaky_relu(x, 0.2),
    "leaky_relu .25, keras layer": keras.layers.LeakyReLU(0.25, dtype="float64"),
    "leaky_relu .3, maximum": lambda x: jnp.maximum(x, 0.3 * x),
    "elu 1, jax.nn": jax.nn.elu,
    "elu .5, jax.nn": lambda x: jax.nn.elu(x, 0.5),
    "elu 2, jax.nn": lambda x: jax.nn.elu(x, 2.0),
    "elu .7, keras": lambda x: keras.activations.elu(x, alpha=0.7),
    "elu .7, where": lambda x: jnp.where(x > 0, x, 0.7 * jnp.expm1(jnp.minimum(x, 0))),
    "gelu, jax.nn": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu, keras": keras.activations.gelu,
    "gelu, erf": lambda x: x * 0.5 * (1 + lax.erf(x / np.sqrt(2))),
    "gelu_tanh, jax.nn": jax.nn.gelu,
    "gelu_tanh, open": lambda x: x / 2 * (1 + jnp.tanh(cube(x))),
    "silu, jax.nn": jax.nn.silu,
    "silu, keras": keras.activations.silu,
    "silu, x sigmoid": lambda x: x * jax.nn.sigmoid(x),
    "silu, open": lambda x: x / (1 + jnp.exp(-x)),
    "softplus, jax.nn": jax.nn.softplus,
    "softplus, keras": keras.activations.softplus,
    "softplus, log1p": lambda x: jnp.log1p(jnp.exp(x)),
    "tanh, jnp": jnp.tanh,
    "tanh, sigmoid": lambda x: 2 * jax.nn.sigmoid(2 * x) - 1,
    "logistic, jax.nn": jax.nn.sigmoid,
    "logistic, keras": keras.activations.sigmoid,
    "logistic, open": lambda x: 1 / (1 + jnp.exp(-x)),
}


@pytest.mark.parametrize(("spelling", "function"), SPELLINGS.items(), ids=SPELLINGS)
def test_an_activation_is_recognised_in_every_spelling(spelling, function):
    name, *parameter = spelling.partition(",")[0].split()
    dense, activation = graph(lambda x: function(x @ W)).layers
    assert (dense.kind, activation.kind) == ("dense", "activation")
    assert activation.detail.name == name and activation.name == f"{dense.name}:{name}"
    assert activation.detail.parameters == pytest.approx([float(p) for p in parameter], PARAMETER)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "tanh"])
def test_an_activation_is_recognised_in_other_precisions(name, dtype):
    w = W.astype(dtype)
    last = graph(lambda x: getattr(jax.nn, name)(x @ w), X.astype(dtype)).layers[-1]
    assert last.kind == "activation" and last.detail.name.startswith(name)


LOOK_ALIKES = {
    "x^2": lambda x: x**2,
    "|x|": jnp.abs,
    "max(x,c)": lambda x: jnp.maximum(x, jnp.arange(3.0)),
    "x(x>.1)": lambda x: x * (x > 0.1),
    "where(x>-.1,x,0)": lambda x: jnp.where(x > -0.1, x, 0),
    "clip to an array": lambda x: jnp.clip(x, 0, jnp.arange(1.0, 4)),
}


@table("function", LOOK_ALIKES)
def test_a_look_alike_is_no_activation(function):
    found = kinds(lambda x: function(x @ W))
    assert "unknown" in found


IDENTITIES = {
    "stop_gradient": lax.stop_gradient,
    "max(x,-inf)": lambda x: jnp.maximum(x, -jnp.inf),
    "min(x,inf)": lambda x: jnp.minimum(x, jnp.inf),
}


@table("function", IDENTITIES)
def test_an_identity_is_neither_an_activation_nor_unknown(function):
    model = lambda x: x @ W + function(jnp.tanh(x @ W))
    assert "unknown" not in kinds(model)
    assert kinds(model).count("activation") == 1  # the tanh
    r = np.ones((2, 3))
    close(lrp.vjp(model, X, "gradient")[1](r), jax.vjp(model, X)[1](r)[0])


# --- calls and loops -----------------------------------------------------------------------------

block = lambda x: relu(x @ W)
with_jvp, with_vjp = jax.custom_jvp(block), jax.custom_vjp(block)
with_jvp.defjvp(lambda x, t: (with_jvp(*x), t[0] @ W))
with_vjp.defvjp(lambda x: (with_vjp(x), None), lambda _, g: (g,))
CALLS = {
    "jit": jax.jit(block),
    "nested jit": jax.jit(lambda x: jax.jit(relu)(jax.jit(lambda x: x @ W)(x))),
    "custom_jvp": with_jvp,
    "custom_vjp": with_vjp,
    "checkpoint": jax.checkpoint(block),
    "closed call": lambda x: jax.closure_convert(block, x)[0](x),
    "vmap": jax.vmap(block),
}


@table("model", CALLS)
def test_calls_are_opened(model):
    assert kinds(model) == ["dense", "activation"]
    assert all("test_graph.py" in layer.source for layer in graph(model).layers)
    ones = jnp.ones((2, 3))  # a rule of its own, which need not be the derivative, is kept
    close(lrp.vjp(model, X, "gradient")[1](ones), jax.vjp(model, X)[1](ones)[0])


STACK = np.stack([A, B, C])
STEP = lambda h, w: (relu(h @ w), h)
LOOPS = {  # and how often the matrix product is taken
    "scan": (lambda x: lax.scan(STEP, x, STACK)[0], 3),
    "scan reverse": (lambda x: lax.scan(STEP, x, STACK, reverse=True)[0], 3),
    "fori_loop": (lambda x: lax.fori_loop(0, 3, lambda i, h: relu(h @ A), x), 3),
    "scan of ys": (lambda x: lax.scan(STEP, x, STACK)[1].sum(0), 2),
    "scan of ys reverse": (lambda x: lax.scan(STEP, x, STACK, reverse=True)[1][1], 2),
}


@table(("model", "products"), LOOPS)
def test_loops_of_fixed_length_are_unrolled(model, products):
    found = kinds(model)
    assert found.count("dense") == found.count("activation") == products
    assert "unknown" not in found
    out, pull = lrp.vjp(model, X, "gradient")
    expected, reference = jax.vjp(model, X)
    close(out, expected)
    close(pull(out), reference(expected)[0])


CONTROL = {
    "cond": lambda x: lax.cond(x[0, 0] > 0, lambda x: x @ W, lambda x: -x, x),
    "while": lambda x: lax.while_loop(lambda h: h[0, 0] < 9, lambda h: h + 1, x @ W),
}


@pytest.mark.parametrize("method", ["lrp-z", "guided-bp"])
@pytest.mark.parametrize("primitive", CONTROL)
def test_data_dependent_control_flow_is_refused(primitive, method):
    with pytest.raises(NotImplementedError, match=rf"{primitive}\) at .*test_graph\.py:\d+"):
        lrp.vjp(CONTROL[primitive], X, method)


def test_control_flow_off_the_path_is_a_constant():
    model = lambda x: x @ lax.cond(jnp.asarray(True), lambda: jnp.asarray(W), lambda: -W)
    assert kinds(model) == ["dense"]


# --- parameters and names ------------------------------------------------------------------------


def test_a_constant_that_depends_on_parameters_stays_traced():
    def normalised(p, x):
        v = p["fc"]["v"]
        return relu(x @ (p["fc"]["g"] * v / jnp.linalg.norm(v, axis=0)))

    one, two = (Partial(normalised, {"fc": {"v": W, "g": np.full(3, g)}}) for g in (1.0, 2.0))
    assert hash(graph(one)) == hash(graph(two)) and graph(one) == graph(two)
    assert names(one) == ["fc", "fc:relu"]
    first, second = (lrp.vjp(m, X, "gradient")[1](jnp.ones((2, 3))) for m in (one, two))
    close(second, 2 * first)


def test_graphs_differ_where_the_programs_differ():
    one, two = (graph(lambda x, c=c: jax.nn.leaky_relu(x @ W, c)) for c in (0.1, 0.2))
    assert one != two and one != graph(lambda x: jax.nn.leaky_relu(x @ W, 0.1), X[:1])


def test_modules_behind_wrappers_keep_the_names_of_their_parameters():
    mlp = eqx.nn.MLP(3, 3, 4, 1, key=jax.random.key(0), dtype=float)
    expected = ["layers.0", "layers.0:relu", "layers.1"]
    for model in (jax.vmap(mlp), eqx.filter_vmap(mlp), jax.jit(lambda x: jax.vmap(mlp)(x))):
        assert [name for name in names(model) if "_" not in name] == expected


def test_modules_in_a_closure_are_named_after_their_variables():
    fc1, fc2 = (nnx.Linear(3, 3, rngs=nnx.Rngs(i), param_dtype=float) for i in range(2))
    assert names(lambda x: fc2(nnx.relu(fc1(x)))) == ["fc1", "fc1:relu", "fc2"]


def test_layers_without_parameters_are_named_by_scope_or_number():
    def model(x):
        with jax.named_scope("embed"):
            x = x @ np.eye(3)
        x = relu(x) @ np.eye(3)
        with jax.named_scope("head"), jax.named_scope("out"):
            x = x @ np.ones((3, 3))
        return jnp.abs(x)

    assert names(model) == ["embed", "embed:relu", "dense_1", "head/out", "abs_1"]


def parameters(model):
    """A model(a, b, c, x) with its parameters in a tree."""
    p = {"a": {"w": A}, "b": {"w": B}, "c": {"w": C}}
    return Partial(lambda p, x: model(p["a"]["w"], p["b"]["w"], p["c"]["w"], x), p)


NAMES = {
    "shared": (lambda a, b, c, x: relu(x @ a) @ a, ["a", "a:relu", "a_2"]),
    "a loop": (lambda a, b, c, x: lax.fori_loop(0, 2, lambda i, h: h @ b, x), ["b", "b_2"]),
    "moved before its activation": (
        lambda a, b, c, x: relu((x @ a).reshape(2, 3, 1)[:, ::-1]),
        ["a", "rev_1", "a:relu"],
    ),
}


@table(("model", "expected"), NAMES)
def test_names_are_unique_and_tell_where_a_value_comes_from(model, expected):
    assert names(parameters(model)) == expected


# --- what is read off the graph ------------------------------------------------------------------

FIRST = {
    "a chain": (lambda a, b, c, x: relu(x @ a) @ b, {"a"}),
    "a late branch": (lambda a, b, c, x: relu(x @ a) @ b + x @ c, {"a", "c"}),
    "behind an activation": (lambda a, b, c, x: relu(x) @ b, {"b"}),
    "behind a pool": (lambda a, b, c, x: jnp.stack([x, x]).max(0) @ b, {"b"}),
    "behind a skip": (lambda a, b, c, x: (x + x @ a) @ b, {"a"}),
}


@table(("model", "first"), FIRST)
def test_first_layers_are_found_in_the_graph(model, first):
    found = graph(parameters(model)).layers
    assert {layer.name for layer in found if layer.first} == first


pad = lambda x, value: jnp.pad(x[:, :2], ((0, 0), (0, 1)), constant_values=value)
NON_NEGATIVE = {
    "input": (lambda x: x, False),
    "relu": (relu, True),
    "relu6": (jax.nn.relu6, True),
    "leaky_relu": (jax.nn.leaky_relu, False),
    "relu, reshape": (lambda x: relu(x).reshape(2, 1, 3)[:, 0], True),
    "relu, max": (lambda x: jnp.stack([relu(x), relu(x @ A)]).max(0), True),
    "relu, mean": (lambda x: jnp.stack([relu(x), relu(x @ A)]).mean(0), True),
    "mean": (lambda x: jnp.stack([x, x @ A]).mean(0), False),
    "relu + relu": (lambda x: relu(x) + relu(x @ A), True),
    "relu - relu": (lambda x: relu(x) - relu(x @ A), False),
    "relu + x": (lambda x: relu(x) + x, False),
    "relu, pad 0": (lambda x: pad(relu(x), 0), True),
    "relu, pad -1": (lambda x: pad(relu(x), -1), False),
    "relu and x": (lambda x: jnp.concatenate([relu(x)[:, :1], x[:, :2]], 1), False),
}


@table(("model", "expected"), NON_NEGATIVE)
def test_non_negative_inputs_are_found(model, expected):
    assert graph(lambda x: model(x) @ W).layers[-1].non_negative is expected


@pytest.mark.parametrize(("dtype", "expected"), [("uint8", True), ("int8", False)])
def test_unsigned_inputs_are_non_negative(dtype, expected):
    assert graph(lambda x: x @ W, X.astype(dtype)).layers[-1].non_negative is expected


W32, HEADS = np.ones((3, 4), np.float32), np.ones((3, 2, 4), np.float32)
KERNEL = np.ones((3, 3, 3, 4), np.float32)
EQX_CONV = eqx.nn.Conv2d(3, 4, 3, key=jax.random.key(0), dtype=jnp.float32)


def conv(x, layout="NHWC"):
    numbers = (layout, "HWIO", layout)
    return lax.conv_general_dilated(x, KERNEL, (1, 1), "SAME", dimension_numbers=numbers)


CHANNELS_FIRST = partial(conv, layout="NCHW")
AXES = {  # model, shape of x, the batch and the feature axis of its output
    "NHWC": (conv, (2, 8, 8, 3), 0, 3),
    "NCHW": (CHANNELS_FIRST, (2, 3, 8, 8), 0, 1),
    "vmapped NHWC": (jax.vmap(lambda x: conv(x[None])[0]), (2, 8, 8, 3), 0, 3),
    "vmapped NCHW": (jax.vmap(lambda x: CHANNELS_FIRST(x[None])[0]), (2, 3, 8, 8), 0, 1),
    "vmapped equinox": (jax.vmap(EQX_CONV), (2, 3, 8, 8), 0, 1),
    "pooled": (lambda x: nn.max_pool(conv(x), (2, 2), (2, 2)), (2, 8, 8, 3), 0, 3),
    "global mean": (lambda x: conv(x).mean((1, 2)), (2, 8, 8, 3), 0, 1),
    "tokens": (lambda x: x @ W32, (2, 5, 3), 0, 2),
    "tokens last": (lambda x: jnp.einsum("ndt,df->nft", x, W32), (2, 3, 5), 0, 1),
    "heads": (lambda x: jnp.einsum("ntd,dhk->nthk", x, HEADS), (2, 5, 3), 0, 3),
}


@table(("model", "shape", "batch", "feature"), AXES)
def test_batch_and_feature_axes_are_found(model, shape, batch, feature):
    found = graph(model, np.ones(shape, np.float32))
    value = found.layers[-1].outputs[0]
    assert (found.axes.batch[value], found.axes.feature[value]) == (batch, feature)
