"""Reading a model: calls opened, activations recognised, layers named, axes found."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import functools

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

import lrpjax as lrp
from lrpjax.propagate import read

PARAMETER = 1e-6  # an activation's parameter is read off its values in float32
EXACT = 1e-12  # the same equations in float64, in another order

X = np.random.default_rng(0).normal(size=(2, 3))
W = np.random.default_rng(1).normal(size=(3, 3))
relu = jax.nn.relu
IMAGE = jnp.zeros((2, 8, 8, 3), jnp.float32)


def graph(model, x=X, fold=True):
    return read(model, x, fold=fold).graph


def layers(model, x=X, fold=True):
    return graph(model, x, fold).layers


def names(model, x=X):
    return [layer.name for layer in layers(model, x)]


def kinds(model, x=X):
    return [layer.kind for layer in layers(model, x)]


# --- activations ---------------------------------------------------------------------------------

ROOT_HALF = np.sqrt(0.5)
SPELLINGS = [
    ("relu", None, "jax.nn", jax.nn.relu),
    ("relu", None, "linen", nn.relu),
    ("relu", None, "nnx", nnx.relu),
    ("relu", None, "equinox", eqx.nn.Lambda(jax.nn.relu)),
    ("relu", None, "haiku", lambda x: hk.transform(lambda x: jax.nn.relu(x)).apply({}, None, x)),
    ("relu", None, "keras", keras.activations.relu),
    ("relu", None, "keras layer", keras.layers.ReLU(dtype="float64")),
    ("relu", None, "maximum", lambda x: jnp.maximum(x, 0)),
    ("relu", None, "maximum of zeros", lambda x: jnp.maximum(x, jnp.zeros_like(x))),
    ("relu", None, "lax.max", lambda x: lax.max(x, lax.full_like(x, 0))),
    ("relu", None, "clip", lambda x: jnp.clip(x, 0)),
    ("relu", None, "where", lambda x: jnp.where(x > 0, x, 0)),
    ("relu", None, "select", lambda x: lax.select(x >= 0, x, jnp.zeros_like(x))),
    ("relu", None, "x(x>0)", lambda x: x * (x > 0)),
    ("relu", None, "(x+|x|)/2", lambda x: (x + jnp.abs(x)) / 2),
    ("relu", None, "-min(-x,0)", lambda x: -jnp.minimum(-x, 0)),
    ("relu6", None, "jax.nn", jax.nn.relu6),
    ("relu6", None, "keras", keras.activations.relu6),
    ("relu6", None, "clip", lambda x: jnp.clip(x, 0, 6)),
    ("relu6", None, "min of max", lambda x: jnp.minimum(jnp.maximum(x, 0), 6)),
    ("leaky_relu", 0.01, "jax.nn", jax.nn.leaky_relu),
    ("leaky_relu", 0.2, "jax.nn", lambda x: jax.nn.leaky_relu(x, 0.2)),
    ("leaky_relu", 0.25, "keras layer", keras.layers.LeakyReLU(0.25, dtype="float64")),
    ("leaky_relu", 0.1, "where", lambda x: jnp.where(x > 0, x, 0.1 * x)),
    ("leaky_relu", 0.3, "maximum", lambda x: jnp.maximum(x, 0.3 * x)),
    ("elu", 1.0, "jax.nn", jax.nn.elu),
    ("elu", 0.5, "jax.nn", lambda x: jax.nn.elu(x, 0.5)),
    ("elu", 2.0, "jax.nn", lambda x: jax.nn.elu(x, 2.0)),
    ("elu", 0.7, "keras", lambda x: keras.activations.elu(x, alpha=0.7)),
    ("elu", 0.7, "where", lambda x: jnp.where(x > 0, x, 0.7 * jnp.expm1(jnp.minimum(x, 0)))),
    ("selu", None, "jax.nn", jax.nn.selu),
    ("gelu", None, "jax.nn", lambda x: jax.nn.gelu(x, approximate=False)),
    ("gelu", None, "keras", keras.activations.gelu),
    ("gelu", None, "erf", lambda x: x * 0.5 * (1 + lax.erf(x * ROOT_HALF))),
    ("gelu", None, "normal cdf", lambda x: x * jax.scipy.stats.norm.cdf(x)),
    ("gelu_tanh", None, "jax.nn", jax.nn.gelu),
    ("gelu_tanh", None, "keras", lambda x: keras.activations.gelu(x, approximate=True)),
    (
        "gelu_tanh",
        None,
        "open",
        lambda x: x / 2 * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    ),
    ("silu", None, "jax.nn", jax.nn.silu),
    ("silu", None, "keras", keras.activations.silu),
    ("silu", None, "x sigmoid", lambda x: x * jax.nn.sigmoid(x)),
    ("silu", None, "open", lambda x: x / (1 + jnp.exp(-x))),
    ("softplus", None, "jax.nn", jax.nn.softplus),
    ("softplus", None, "keras", keras.activations.softplus),
    ("softplus", None, "log1p", lambda x: jnp.log1p(jnp.exp(x))),
    ("softplus", None, "log", lambda x: jnp.log(1 + jnp.exp(x))),
    ("tanh", None, "jnp", jnp.tanh),
    ("tanh", None, "sigmoid", lambda x: 2 * jax.nn.sigmoid(2 * x) - 1),
    ("logistic", None, "jax.nn", jax.nn.sigmoid),
    ("logistic", None, "keras", keras.activations.sigmoid),
    ("logistic", None, "open", lambda x: 1 / (1 + jnp.exp(-x))),
    ("mish", None, "jax.nn", jax.nn.mish),
    ("hard_swish", None, "jax.nn", jax.nn.hard_swish),
]


@pytest.mark.parametrize(
    ("name", "parameter", "function"),
    [pytest.param(n, p, f, id=f"{n} {p or ''} {how}") for n, p, how, f in SPELLINGS],
)
def test_an_activation_is_recognised_in_every_spelling(name, parameter, function):
    model = lambda x: function(x @ W)
    found = layers(model)
    assert [layer.kind for layer in found] == ["dense", "activation"]
    assert found[1].detail.name == name
    assert found[1].name.endswith(f":{name}")
    assert found[1].detail.parameter == (parameter and pytest.approx(parameter, PARAMETER))
    np.testing.assert_allclose(lrp.vjp(model, X, "lrp-z")[0], function(X @ W), atol=EXACT)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "tanh"])
def test_an_activation_is_recognised_in_other_precisions(name, dtype):
    w = W.astype(dtype)
    found = layers(lambda x: getattr(jax.nn, name)(x @ w), X.astype(dtype))
    assert found[-1].kind == "activation"
    assert found[-1].detail.name.startswith(name)


LOOK_ALIKES = {
    "x^2": lambda x: x**2,
    "|x|": jnp.abs,
    "exp": jnp.exp,
    "sin": jnp.sin,
    "min(x,0)": lambda x: jnp.minimum(x, 0),
    "max(x,1)": lambda x: jnp.maximum(x, 1),
    "max(x,.001)": lambda x: jnp.maximum(x, 1e-3),
    "max(x,c)": lambda x: jnp.maximum(x, jnp.arange(3.0)),
    "x(x>.1)": lambda x: x * (x > 0.1),
    "where(x>-.1,x,0)": lambda x: jnp.where(x > -0.1, x, 0),
    "clip to 5": lambda x: jnp.clip(x, 0, 5),
    "relu^2": lambda x: jax.nn.relu(x) ** 2,
}


@pytest.mark.parametrize("function", LOOK_ALIKES.values(), ids=LOOK_ALIKES)
def test_a_look_alike_is_no_activation(function):
    assert layers(lambda x: function(x @ W))[-1].kind != "activation"


IDENTITIES = {
    "stop_gradient": lax.stop_gradient,
    "max(x,-inf)": lambda x: jnp.maximum(x, -jnp.inf),
    "min(x,inf)": lambda x: jnp.minimum(x, jnp.inf),
    "copy": jnp.copy,
}


@pytest.mark.parametrize("function", IDENTITIES.values(), ids=IDENTITIES)
def test_an_identity_is_neither_an_activation_nor_unknown(function):
    model = lambda x: x @ W + function(jnp.tanh(x @ W))
    assert "unknown" not in kinds(model)
    assert kinds(model).count("activation") == 1  # the tanh
    expected = jax.vjp(model, X)[1](jnp.ones((2, 3)))[0]
    np.testing.assert_allclose(
        lrp.vjp(model, X, "gradient")[1](jnp.ones((2, 3))), expected, atol=EXACT
    )


# --- calls and loops -----------------------------------------------------------------------------


@jax.custom_jvp
def _custom_jvp(x):
    return jax.nn.relu(x @ W)


_custom_jvp.defjvp(lambda x, t: (_custom_jvp(*x), t[0] @ W))


@jax.custom_vjp
def _custom_vjp(x):
    return jax.nn.relu(x @ W)


_custom_vjp.defvjp(lambda x: (_custom_vjp(x), None), lambda _, g: (g,))

CALLS = {
    "jit": jax.jit(lambda x: jax.nn.relu(x @ W)),
    "nested jit": jax.jit(lambda x: jax.jit(jax.nn.relu)(jax.jit(lambda x: x @ W)(x))),
    "custom_jvp": _custom_jvp,
    "custom_vjp": _custom_vjp,
    "checkpoint": jax.checkpoint(lambda x: jax.nn.relu(x @ W)),
    "remat in jit": jax.jit(jax.checkpoint(lambda x: jax.nn.relu(x @ W))),
    "closed call": lambda x: jax.closure_convert(lambda x: jax.nn.relu(x @ W), x)[0](x),
    "vmap": jax.vmap(lambda x: jax.nn.relu(x @ W)),
    "named_call": jax.named_call(lambda x: jax.nn.relu(x @ W), name="block"),
}


@pytest.mark.parametrize("model", CALLS.values(), ids=CALLS)
def test_calls_are_opened(model):
    assert kinds(model) == ["dense", "activation"]
    r = lrp.vjp(model, X, "gradient")[1](jnp.ones((2, 3)))
    np.testing.assert_allclose(r, (X @ W > 0) @ W.T, atol=EXACT)


STACK = np.random.default_rng(2).normal(size=(3, 3, 3))
STEP = lambda h, w: (jax.nn.relu(h @ w), h)
LOOPS = {
    "scan": lambda x: lax.scan(STEP, x, STACK)[0],
    "scan reverse": lambda x: lax.scan(STEP, x, STACK, reverse=True)[0],
    "scan unroll": lambda x: lax.scan(STEP, x, STACK, unroll=2)[0],
    "scan in jit": jax.jit(lambda x: lax.scan(STEP, x, STACK)[0]),
    "fori_loop": lambda x: lax.fori_loop(0, 3, lambda i, h: jax.nn.relu(h @ STACK[0]), x),
    "scan of ys": lambda x: lax.scan(STEP, x, STACK)[1].sum(0),
    "scan of ys reverse": lambda x: lax.scan(STEP, x, STACK, reverse=True)[1][1],
    "scan over time": lambda x: lax.scan(lambda h, t: (jax.nn.relu(h @ W + t), h), x, X[:, :3])[0],
}


@pytest.mark.parametrize("model", LOOPS.values(), ids=LOOPS)
def test_loops_of_fixed_length_are_unrolled(model):
    found = kinds(model)
    assert "unknown" not in found
    assert found.count("dense") == found.count("activation") >= 2
    out, pull = lrp.vjp(model, X, "gradient")
    expected, reference = jax.vjp(model, X)
    np.testing.assert_allclose(out, expected, atol=EXACT)
    np.testing.assert_allclose(pull(out), reference(expected)[0], atol=EXACT)


def test_the_layers_of_a_scan_have_names_of_their_own():
    model = jax.tree_util.Partial(
        lambda p, x: lax.scan(lambda h, w: (jax.nn.relu(h @ w), None), x, p["block"]["kernel"])[0],
        {"block": {"kernel": STACK}},
    )
    dense = [layer.name for layer in layers(model) if layer.kind == "dense"]
    assert dense == ["block", "block_2", "block_3"]


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


# --- parameters ----------------------------------------------------------------------------------


def weight_normalised(params, x):
    v, g = params["fc"]["v"], params["fc"]["g"]
    return jax.nn.relu(x @ (g * v / jnp.linalg.norm(v, axis=0)))


def test_a_constant_that_depends_on_parameters_stays_traced():
    model = lambda g: jax.tree_util.Partial(weight_normalised, {"fc": {"v": W, "g": g}})
    one, two = model(np.ones(3)), model(np.full(3, 2.0))
    assert hash(graph(one)) == hash(graph(two)) and graph(one) == graph(two)
    assert names(one) == ["fc", "fc:relu"]
    r = jnp.ones((2, 3))
    pulled = [lrp.vjp(m, X, "gradient")[1](r) for m in (one, two)]
    np.testing.assert_allclose(pulled[1], 2 * pulled[0], atol=EXACT)


def test_graphs_differ_where_the_programs_differ():
    graphs = [graph(lambda x, c=c: jax.nn.leaky_relu(x @ W, c)) for c in (0.1, 0.2)]
    assert graphs[0] != graphs[1]
    assert graph(lambda x: x @ W) != graph(lambda x: x @ W, X[:1])


# --- names ---------------------------------------------------------------------------------------


class Nnx(nnx.Module):
    def __init__(self):
        self.conv1 = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0))
        self.fc = nnx.Linear(256, 5, rngs=nnx.Rngs(1))

    def __call__(self, x):
        return self.fc(nnx.relu(self.conv1(x)).reshape(len(x), -1))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv1")(x))
        return nn.Dense(5, name="fc")(x.reshape(len(x), -1))


class Equinox(eqx.Module):
    conv1: eqx.nn.Conv2d
    fc: eqx.nn.Linear

    def __init__(self):
        self.conv1 = eqx.nn.Conv2d(3, 4, 3, padding=1, key=jax.random.key(0))
        self.fc = eqx.nn.Linear(256, 5, key=jax.random.key(1))

    def __call__(self, x):
        x = jnp.asarray(x.transpose(2, 0, 1), self.fc.weight.dtype)
        return self.fc(jax.nn.relu(self.conv1(x)).reshape(-1))


class Batched(Equinox):
    def __call__(self, x):
        return jax.vmap(super().__call__)(x)


@functools.cache
def named_models():
    module, linen, equinox = Nnx(), Linen(), Equinox()
    variables = linen.init(jax.random.key(0), IMAGE)
    haiku = hk.without_apply_rng(
        hk.transform(
            lambda x: hk.Linear(5, name="fc")(
                hk.Flatten()(jax.nn.relu(hk.Conv2D(4, 3, name="conv1")(x)))
            )
        )
    )
    params = haiku.init(jax.random.key(0), IMAGE)
    network = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv1"),
            keras.layers.Flatten(),
            keras.layers.Dense(5, name="fc"),
        ]
    )
    plain = {
        "conv1": {"kernel": jnp.ones((3, 3, 3, 4))},
        "fc": {"kernel": jnp.ones((256, 5))},
    }

    def bare(params, x):
        h = jnp.float32(x) + 0 * params["conv1"]["kernel"].sum()
        h = lax.conv_general_dilated(
            h, params["conv1"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jax.nn.relu(h).reshape(len(x), -1) @ params["fc"]["kernel"]

    return {
        "nnx": module,
        "nnx bound method": module.__call__,
        "nnx lambda": lambda x: module(x),
        "nnx partial": functools.partial(Nnx.__call__, module),
        "nnx.jit": nnx.jit(module),
        "nnx in jax.jit": jax.jit(lambda x: module(x)),
        "linen Partial": jax.tree_util.Partial(linen.apply, variables),
        "linen partial": functools.partial(linen.apply, variables),
        "linen lambda": lambda x: linen.apply(variables, x),
        "linen jit": jax.jit(lambda x: linen.apply(variables, x)),
        "linen bound": linen.bind(variables),
        "equinox vmap": jax.vmap(equinox),
        "equinox filter_vmap": eqx.filter_vmap(equinox),
        "equinox lambda": lambda x: jax.vmap(equinox)(x),
        "equinox jit of vmap": jax.jit(jax.vmap(equinox)),
        "equinox batched": Batched(),
        "haiku lambda": lambda x: haiku.apply(params, x),
        "haiku Partial": jax.tree_util.Partial(haiku.apply, params),
        "haiku partial in jit": jax.jit(functools.partial(haiku.apply, params)),
        "keras": network,
        "keras lambda": lambda x: network(x, training=False),
        "keras partial": functools.partial(network, training=False),
        "bare Partial": jax.tree_util.Partial(bare, plain),
        "bare partial": functools.partial(bare, plain),
        "bare lambda": lambda x: bare(plain, x),
    }


NAMED = [
    *("nnx", "nnx bound method", "nnx lambda", "nnx partial", "nnx.jit", "nnx in jax.jit"),
    *("linen Partial", "linen partial", "linen lambda", "linen jit", "linen bound"),
    *("equinox vmap", "equinox filter_vmap", "equinox lambda", "equinox jit of vmap"),
    *("equinox batched", "haiku lambda", "haiku Partial", "haiku partial in jit"),
    *("keras", "keras lambda", "keras partial", "bare Partial", "bare partial", "bare lambda"),
]


@pytest.mark.parametrize("spelling", NAMED)
def test_layers_are_named_after_their_parameters(spelling):
    found = layers(named_models()[spelling], IMAGE)
    computing = [layer.name for layer in found if layer.kind != "structure"]
    assert computing == ["conv1", "conv1:relu", "fc"]
    assert len({layer.name for layer in found}) == len(found)


def test_layers_without_parameters_are_named_by_scope_or_number():
    def model(x):
        with jax.named_scope("embed"):
            x = x @ np.eye(3)
        x = jax.nn.relu(x) @ np.eye(3)
        with jax.named_scope("head"), jax.named_scope("out"):
            x = x @ np.ones((3, 3))
        return jnp.abs(x)

    assert names(model) == ["embed", "embed:relu", "dense_1", "head/out", "abs_1"]


def test_shared_weights_have_unique_names():
    def model(p, x):
        return relu(relu(x @ p["fc"]["w"]) @ p["fc"]["w"]) @ p["fc"]["w"]

    found = names(jax.tree_util.Partial(model, {"fc": {"w": W}}))
    assert found == ["fc", "fc:relu", "fc_2", "fc_2:relu", "fc_3"]


def test_modules_in_a_closure_are_named_after_their_variables():
    fc1 = nnx.Linear(3, 3, rngs=nnx.Rngs(0), param_dtype=float)
    fc2 = nnx.Linear(3, 3, rngs=nnx.Rngs(0), param_dtype=float)
    assert names(lambda x: fc2(nnx.relu(fc1(x)))) == ["fc1", "fc1:relu", "fc2"]


def test_an_activation_is_named_after_the_layer_and_not_after_what_moves_it():
    model = jax.tree_util.Partial(
        lambda p, x: jax.nn.relu((x @ p["fc"]["kernel"]).reshape(-1, 3, 1)[..., 0].T).T,
        {"fc": {"kernel": W}},
    )
    assert "fc:relu" in names(model)


def test_a_source_is_the_users_line():
    layer = layers(lambda x: jax.nn.relu(x @ W))[1]
    assert "test_graph.py" in layer.source


# --- what is read off the graph ------------------------------------------------------------------

A, B, C = (np.random.default_rng(i).normal(size=(3, 3)) for i in (3, 4, 5))


def parameters(model):
    return jax.tree_util.Partial(model, {"a": {"w": A}, "b": {"w": B}, "c": {"w": C}})


FIRST = {
    "a chain": (lambda p, x: jax.nn.relu(x @ p["a"]["w"]) @ p["b"]["w"], {"a"}),
    "a late branch": (
        lambda p, x: jax.nn.relu(x @ p["a"]["w"]) @ p["b"]["w"] + x @ p["c"]["w"],
        {"a", "c"},
    ),
    "defined last": (lambda p, x: (x[:, ::-1] @ p["c"]["w"]) @ p["b"]["w"], {"c"}),
    "behind an activation": (lambda p, x: jax.nn.relu(x) @ p["b"]["w"], {"b"}),
    "behind a pool": (lambda p, x: jnp.stack([x, x]).max(0) @ p["b"]["w"], {"b"}),
    "a skipped input": (
        lambda p, x: jnp.concatenate([x, x @ p["a"]["w"]], 1) @ jnp.tile(p["b"]["w"], (2, 1)),
        {"a"},
    ),
}


@pytest.mark.parametrize(("model", "first"), FIRST.values(), ids=FIRST)
def test_first_layers_are_found_in_the_graph(model, first):
    assert {layer.name for layer in layers(parameters(model)) if layer.first} == first


NON_NEGATIVE = {
    "input": (lambda x: x, False),
    "relu": (relu, True),
    "relu6": (jax.nn.relu6, True),
    "sigmoid": (jax.nn.sigmoid, True),
    "softplus": (jax.nn.softplus, True),
    "leaky_relu": (jax.nn.leaky_relu, False),
    "silu": (jax.nn.silu, False),
    "tanh": (jnp.tanh, False),
    "relu, reshape": (lambda x: relu(x).reshape(2, 1, 3)[:, 0], True),
    "relu, transpose": (lambda x: relu(x).T.T, True),
    "relu, flip": (lambda x: relu(x)[:, ::-1], True),
    "relu, take": (lambda x: relu(x)[:, np.array([2, 0, 1])], True),
    "relu, max": (lambda x: jnp.stack([relu(x), relu(x @ A)]).max(0), True),
    "relu, mean": (lambda x: jnp.stack([relu(x), relu(x @ A)]).mean(0), True),
    "mean": (lambda x: jnp.stack([x, x @ A]).mean(0), False),
    "relu + relu": (lambda x: relu(x) + relu(x @ A), True),
    "relu - relu": (lambda x: relu(x) - relu(x @ A), False),
    "relu + x": (lambda x: relu(x) + x, False),
    "relu, pad 0": (lambda x: jnp.pad(relu(x)[:, :2], ((0, 0), (0, 1))), True),
    "relu, pad -1": (
        lambda x: jnp.pad(relu(x)[:, :2], ((0, 0), (0, 1)), constant_values=-1),
        False,
    ),
    "relu, concatenate": (
        lambda x: jnp.concatenate([relu(x)[:, :1], relu(x @ A)[:, :2]], 1),
        True,
    ),
    "relu, concatenate x": (lambda x: jnp.concatenate([relu(x)[:, :1], x[:, :2]], 1), False),
}


@pytest.mark.parametrize(("model", "expected"), NON_NEGATIVE.values(), ids=NON_NEGATIVE)
def test_non_negative_inputs_are_found(model, expected):
    assert layers(lambda x: model(x) @ W)[-1].non_negative is expected


def test_unsigned_inputs_are_non_negative():
    assert layers(lambda x: x @ W, np.uint8(X))[-1].non_negative
    assert not layers(lambda x: x @ W, np.int8(X))[-1].non_negative


def conv(layout):
    kernel = np.ones((3, 3, 3, 4), np.float32)
    return lambda x: lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=(layout, "HWIO", layout)
    )


W32 = np.ones((3, 4), np.float32)
HEADS = np.ones((3, 2, 4), np.float32)
AXES = {  # model, shape of x, the batch and feature axes of its output
    "dense": (lambda x: x @ W32, (2, 3), 0, 1),
    "NHWC": (conv("NHWC"), (2, 8, 8, 3), 0, 3),
    "NCHW": (conv("NCHW"), (2, 3, 8, 8), 0, 1),
    "vmapped NHWC": (jax.vmap(lambda x: conv("NHWC")(x[None])[0]), (2, 8, 8, 3), 0, 3),
    "vmapped NCHW": (jax.vmap(lambda x: conv("NCHW")(x[None])[0]), (2, 3, 8, 8), 0, 1),
    "vmapped equinox": (
        jax.vmap(eqx.nn.Conv2d(3, 4, 3, key=jax.random.key(0), dtype=jnp.float32)),
        (2, 3, 8, 8),
        0,
        1,
    ),
    "NHWC to NCHW": (lambda x: conv("NHWC")(x).transpose(0, 3, 1, 2), (2, 8, 8, 3), 0, 1),
    "pooled": (lambda x: nn.max_pool(conv("NHWC")(x), (2, 2), (2, 2)), (2, 8, 8, 3), 0, 3),
    "global mean": (lambda x: conv("NHWC")(x).mean((1, 2)), (2, 8, 8, 3), 0, 1),
    "relu": (lambda x: relu(conv("NCHW")(x)), (2, 3, 8, 8), 0, 1),
    "tokens": (lambda x: x @ W32, (2, 5, 3), 0, 2),
    "tokens einsum": (lambda x: jnp.einsum("ntd,df->ntf", x, W32), (2, 5, 3), 0, 2),
    "tokens transposed": (lambda x: jnp.einsum("ndt,df->nft", x, W32), (2, 3, 5), 0, 1),
    "patches": (lambda x: conv("NHWC")(x).reshape(2, 64, 4), (2, 8, 8, 3), 0, 2),
    "heads": (lambda x: jnp.einsum("ntd,dhk->nthk", x, HEADS), (2, 5, 3), 0, 3),
    "vmapped tokens": (jax.vmap(jax.vmap(lambda x: W32.T @ x)), (2, 5, 3), 0, 2),
}


@pytest.mark.parametrize(("model", "shape", "batch", "feature"), AXES.values(), ids=AXES)
def test_batch_and_feature_axes_are_found(model, shape, batch, feature):
    read_off = graph(model, np.ones(shape, np.float32))
    value = read_off.layers[-1].outputs[0]
    assert (read_off.axes.batch[value], read_off.axes.feature[value]) == (batch, feature)


def test_inputs_and_outputs_may_be_trees():
    def model(x):
        h = relu(x["left"] @ A) + x["right"][0] @ B
        return {"class": h @ C, "hidden": (h,)}

    x = {"left": jnp.asarray(X), "right": [jnp.asarray(X[::-1])]}
    out, pull = lrp.vjp(model, x, "gradient")
    expected, reference = jax.vjp(model, x)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=EXACT), out, expected)
    pulled, known = pull(out), reference(expected)[0]
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=EXACT), pulled, known)
