"""Refusals: one clear sentence that says what is wrong, where it is and what to do."""

import re
import warnings
from contextlib import contextmanager
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
from safetensors.numpy import load_file, save_file

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
W = np.random.default_rng(1).normal(size=(3, 5)).astype("float32")
HERE = r"test_errors\.py:\d+"


def forward(p, x):
    return jax.nn.relu(x @ p["fc1"]["kernel"]) @ p["fc2"]["kernel"]


def with_weights(fc2=W.T):
    return jax.tree_util.Partial(forward, {"fc1": {"kernel": W}, "fc2": {"kernel": fc2}})


MODEL = with_weights()


@contextmanager
def refused(error, words):
    """Wants exactly this error, in one sentence with these words."""
    with pytest.raises(error, match=words) as caught:
        yield
    message = str(caught.value)
    assert caught.type is error
    assert "\n" not in message and ". " not in message and message.endswith("."), message


def table(argument, cases):
    """Parametrises a test over a dictionary from readable names to tuples of values."""
    return pytest.mark.parametrize(argument, cases.values(), ids=cases)


def attribute(model, x=X, method="lrp-z", **options):
    return lrp.attribute(model, x, method, **options)


# --- models --------------------------------------------------------------------------------------

N_CLASSES = r"\(N, classes\).*\(%s\).*lrpjax.vjp"
MODELS = {
    "no function": (3, TypeError, "model must be a function.*3"),
    "no dependence": (lambda x: jnp.ones((len(x), 5)), ValueError, "output does not depend"),
    "only a shape": (lambda x: W[:1] * len(x), ValueError, "not depend on its input"),
    "unknown": (
        lambda x: jnp.sin(x @ W),
        NotImplementedError,
        f"lrp-z.*'sin'.*{HERE}.*composite.*unknown='gradient'",
    ),
    "a cast to integers": (
        lambda x: (4 * x).astype(int).astype("float32") @ W,
        NotImplementedError,
        f"truth values or integers.*convert_element_type at .*{HERE}",
    ),
    "softmax": (lambda x: jax.nn.softmax(x @ W), NotImplementedError, "softmax.*logits"),
    "log_softmax": (lambda x: jax.nn.log_softmax(x @ W), NotImplementedError, f"softmax.*{HERE}"),
    "three axes": (lambda x: (x @ W)[None], ValueError, N_CLASSES % "1, 4, 5"),
    "one axis": (lambda x: (x @ W)[:, 0], ValueError, N_CLASSES % "4,"),
    "two outputs": (lambda x: (x @ W, x @ W), ValueError, r"one output \(N, classes\)"),
}


@table(("model", "error", "words"), MODELS)
def test_models_that_cannot_be_explained(model, error, words):
    with warnings.catch_warnings(), refused(error, words):
        warnings.simplefilter("error")  # an error needs no warning beside it
        attribute(model)


INTEGERS = {
    "offset": lambda x: (x - 128) / 128.0 @ W,
    "division": lambda x: (x // 2) / 128.0 @ W,
    "embedding": lambda x: jnp.asarray(W)[x].sum(1),
}


@table("model", INTEGERS)
def test_computing_with_integers_is_refused(model):
    with refused(TypeError, f"integers.*{HERE}.*float"):
        attribute(model, np.ones((4, 3), "int32"))


def test_the_gradient_of_an_unknown_primitive_may_be_asked_for():
    """Of the relevance sin(z) of the largest output, the sine hands on cos(z) times as much."""
    method = lrp.methods.get("lrp-z", unknown="gradient")
    found = attribute(lambda x: jnp.sin(x @ W), method=method)
    x, w = X.astype(float), W.astype(float)
    z = x @ w
    r = np.eye(5)[np.sin(z).argmax(1)] * np.sin(z) * np.cos(z)
    np.testing.assert_allclose(found, x * (r / z @ w.T), rtol=0, atol=1e-5)  # sums in float32


def test_the_models_own_errors_come_through():
    with pytest.raises(KeyError, match="mine"):
        attribute(lambda x: {}["mine"])


SOFTMAXES = {
    "jax.nn": jax.nn.softmax,
    "open": lambda z: jnp.exp(z) / jnp.exp(z).sum(-1, keepdims=True),
    "logsumexp": lambda z: z - jax.scipy.special.logsumexp(z, -1, keepdims=True),
    "keras": keras.activations.softmax,
}


@table("softmax", SOFTMAXES)
def test_the_gradient_of_a_softmax_warns(softmax):
    with pytest.warns(UserWarning, match="softmax.*logit"):
        attribute(lambda x: softmax(x @ W), method="gradient")


def test_the_gradient_of_logits_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attribute(MODEL, method="gradient")
        attribute(lambda x: jax.nn.softmax(x) @ W, method="gradient")
        attribute(lambda x: x @ W - jnp.log(2.0), method="gradient")
        attribute(lambda x: jnp.exp(x @ W) / 2, method="gradient")


# --- names and values ----------------------------------------------------------------------------

vjp = lambda **options: lrp.vjp(MODEL, X, "lrp-z", **options)
NAN, INF = np.full_like(X, np.nan), np.where(X > 1, np.inf, X)
NAN_WEIGHTS = np.where(W.T > 0, np.nan, W.T)
m = lrp.methods
CALLS = {
    "method: misspelled": (lambda: m.get("lrp-flatt"), (ValueError, "'lrp-flatt'.*lrp-flat[,.]")),
    "method: nothing like it": (lambda: m.get("?"), (ValueError, "no method.*guided-bp.*lrp-z")),
    "method: no name": (lambda: attribute(MODEL, method=3), (TypeError, "name.*Method.*3")),
    "method: sum": (lambda: m.get("lrp-alpha2-beta0"), (ValueError, "alpha - beta = 1.*beta=0")),
    "method: no range": (lambda: m.get("epsilon-gamma-box"), (ValueError, "range.*low=.*high=")),
    "epsilon": (lambda: m.epsilon(0), (ValueError, "epsilon.*greater than 0.*0")),
    "bias": (lambda: m.alpha_beta(2, 1, bias="some"), (ValueError, "none.*signed.*some")),
    "alpha": (lambda: m.alpha_beta(0.5, -0.5), (ValueError, "alpha >= 1.*alpha=0.5")),
    "percentile": (lambda: m.rect_grad(200), (ValueError, "percentile.*0 and 100.*200")),
    "box": (lambda: m.epsilon_gamma_box(1, 0), (ValueError, "low < high.*low=1.*high=0")),
    "unknown=": (lambda: m.get("lrp-z", unknown="pass"), (ValueError, "error.*gradient.*pass")),
    "start=": (lambda: m.get("lrp-z", start="two"), (ValueError, "start.*logit.*one.*two")),
    "layer: start": (lambda: vjp(start="fc3"), (ValueError, "no layer 'fc3'.*fc2")),
    "layer: capture": (lambda: vjp(layers=["fc1:rely"]), (ValueError, "'fc1:rely'.*fc1:relu")),
    "layer: above": (lambda: vjp(start="fc1", layers=["fc2"]), (ValueError, "not reach.*'fc2'")),
    "layers: one string": (lambda: vjp(layers="fc1"), (TypeError, "list of names.*'fc1'")),
    "input: NaN": (lambda: attribute(MODEL, NAN), (ValueError, "NaN or infinity in the input")),
    "input: infinity": (lambda: attribute(MODEL, INF), (ValueError, "infinity in the input")),
    "input: bool": (lambda: attribute(MODEL, X > 0), (TypeError, "real numbers.*bool")),
    "input: complex": (lambda: attribute(MODEL, X + 1j), (TypeError, "real numbers.*complex")),
    "input: shape": (
        lambda: attribute(MODEL, X[:, :2]),
        (ValueError, r"input float32\[4, 2\].*contracting dimensions"),
    ),
    "weights: named": (
        lambda: attribute(with_weights(NAN_WEIGHTS)),
        (ValueError, r"NaN or infinity in.*fc2\.kernel"),
    ),
    "weights: no key": (lambda: lrp.models.cifar10("random"), (ValueError, r"random.*key=jax")),
    "weights: no file": (
        lambda: lrp.models.load_weights(module(), "gone.safetensors"),
        (FileNotFoundError, "no weight file.*gone.*check the path"),
    ),
    "weights: closed over": (lambda: attribute(lambda x: x @ NAN_WEIGHTS.T), (ValueError, "NaN")),
    "output: NaN": (
        lambda: attribute(lambda x: jnp.log(x @ W - 100), method="gradient"),
        (ValueError, "NaN or infinity in the model's output"),
    ),
    "relevance: shape": (lambda: vjp()[1](NAN.T), (ValueError, r"\(4, 3\).*\(3, 4\)")),
    "relevance: at a layer": (lambda: vjp(start="fc1")[1](X), (ValueError, "4, 5.*4, 3")),
    "relevance: tree": (lambda: vjp()[1]((X,)), (ValueError, "relevance must be")),
    "relevance: NaN": (lambda: vjp()[1](NAN), (ValueError, "NaN or infinity in the relevance")),
    "relevance: complex": (lambda: vjp()[1](X * 1j), (TypeError, "relevance.*real.*complex")),
}


@table(("call", "wanted"), CALLS)
def test_wrong_arguments_are_named_with_what_is_taken(call, wanted):
    with refused(*wanted):
        call()


def test_numbers_are_inputs_too():
    assert lrp.vjp(lambda x: 2 * jnp.asarray(x), 3.0, "gradient")[1](1.0) == 2


TARGETS = {
    "too large": (3, "between 0 and 2.*3"),
    "negative": (-1, "between 0 and 2.*-1"),
    "one too large": ([0, 1, 2, 3], "between 0 and 2.*3"),
    "a fraction": (1.5, "integer.*float64"),
    "fractions": (np.ones(4, "float32"), "4 integers.*float32"),
    "a truth value": (True, "integer.*bool"),
    "a name": ("cat", "integer"),
    "too few": ([0, 1], r"4 integers.*\(2,\)"),
    "two axes": (np.zeros((4, 1), int), r"4 integers.*\(4, 1\)"),
}


@table(("target", "words"), TARGETS)
def test_targets_that_fit_no_class_are_refused(target, words):
    with refused(ValueError, f"target.*{words}"):
        attribute(MODEL, target=target)


# --- training mode -------------------------------------------------------------------------------


class Linen(nn.Module):
    part: str

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Dense(4)(x)
        if self.part == "dropout":
            return nn.Dropout(0.5, deterministic=not train)(x)
        return nn.BatchNorm(use_running_average=not train)(x)


def in_nnx(part):
    rngs = nnx.Rngs(0)
    last = nnx.Dropout(0.5, rngs=rngs) if part == "dropout" else nnx.BatchNorm(4, rngs=rngs)
    return nnx.Sequential(nnx.Linear(3, 4, rngs=rngs), last)


def in_linen(part):
    module = Linen(part)
    variables = module.init(KEY, X, False)
    options = {"mutable": ["batch_stats"], "rngs": {"dropout": KEY}}
    return lambda x: module.apply(variables, x, **options)[0]


def in_equinox(part):
    keys = jax.random.split(KEY, len(X))
    linear = eqx.nn.Linear(3, 4, key=KEY, dtype=jnp.float32)
    if part == "dropout":
        drop = eqx.nn.Dropout(0.5)
        return lambda x: jax.vmap(lambda x, key: drop(linear(x), key=key))(x, keys)
    norm = lambda: eqx.nn.BatchNorm(4, "batch", mode="ema", dtype=jnp.float32)
    model, state = eqx.nn.make_with_state(norm)()
    return jax.vmap(lambda x: model(linear(x), state)[0], axis_name="batch")


def in_haiku(part):
    def model(x):
        x = hk.Linear(4)(x)
        if part == "dropout":
            return hk.dropout(hk.next_rng_key(), 0.5, x)
        return hk.BatchNorm(True, True, 0.9)(x, is_training=True)

    module = hk.transform_with_state(model)
    params, state = module.init(KEY, X)
    return lambda x: module.apply(params, state, KEY, x)[0]


def in_keras(part):
    layers = keras.layers
    last = layers.Dropout(0.5) if part == "dropout" else layers.BatchNormalization()
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4), last])
    return lambda x: model(x, training=True)


TRAINING = {
    "nnx": (in_nnx, r"model\.eval\(\)"),
    "nnx closure": (lambda part: partial(nnx.Sequential.__call__, in_nnx(part)), r"\.eval\(\)"),
    "linen": (in_linen, "train=False"),
    "equinox": (in_equinox, "inference_mode"),
    "haiku": (in_haiku, "is_training=False"),
    "keras": (in_keras, "training=False"),
}


@pytest.mark.parametrize("method", ["gradient", "lrp-z"])
@pytest.mark.parametrize("part", ["dropout", "batch norm"])
@table(("build", "switch"), TRAINING)
def test_training_mode_is_refused(build, switch, part, method):
    with refused(ValueError, switch):
        attribute(build(part), method=method)


def test_a_refused_keras_model_still_works():
    dense, norm = keras.layers.Dense(4), keras.layers.BatchNormalization()
    model = keras.Sequential([dense, norm, keras.layers.Dropout(0.5, seed=0)])
    before = model(X)
    with refused(ValueError, "training=False"):
        attribute(lambda x: model(x, training=True))
    np.testing.assert_array_equal(model(X), before)
    z = np.asarray(dense(X))
    wanted = 2 * (z - z.mean(0)) / np.sqrt(z.var(0) + norm.epsilon)  # twice, or dropped
    trained = np.asarray(model(X, training=True))
    kept = trained != 0
    assert 0 < kept.sum() < kept.size
    np.testing.assert_allclose(trained, kept * wanted, rtol=0, atol=1e-5)


# --- weight files --------------------------------------------------------------------------------


def module(seed=0):
    return nnx.Sequential(*(nnx.Linear(3, 3, rngs=nnx.Rngs(seed + i)) for i in range(2)))


def weights(model):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]


FILES = {  # what the file holds, or what is changed in it
    "damaged": (b"no tensors", "damaged.*again"),
    "empty": (b"", "damaged.*again"),
    "a tensor missing": ({"layers.1.bias": None}, r"layers\.1\.bias is missing"),
    "a tensor too many": ({"head.bias": np.ones(3)}, r"head\.bias is not in the model"),
    "another shape": ({"layers.0.bias": np.ones(4)}, r"layers\.0\.bias.*\(4,\).*\(3,\)"),
    "NaN": ({"layers.0.bias": np.full(3, np.nan)}, r"layers\.0\.bias.*NaN"),
}


@table(("content", "words"), FILES)
def test_weight_files_that_do_not_fit_change_nothing(tmp_path, content, words):
    path = tmp_path / "weights.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        lrp.models.save_weights(module(), path, dtype="float32")
        changed = {k: v for k, v in (load_file(path) | content).items() if v is not None}
        save_file(changed, path)
    model = module(seed=5)
    before = weights(model)
    with refused(ValueError, f"{re.escape(str(path))}.*{words}"):
        lrp.models.load_weights(model, path)
    jax.tree.map(np.testing.assert_array_equal, weights(model), before)


@pytest.mark.parametrize(("dtype", "exact"), [("float32", 0), ("float16", 1e-3)])
def test_weights_come_back(tmp_path, dtype, exact):
    path = tmp_path / "weights.safetensors"
    saved, model = module(), module(seed=5)
    lrp.models.save_weights(saved, path, dtype=dtype)
    lrp.models.load_weights(model, path)
    for was, found in zip(weights(saved), weights(model), strict=True):
        np.testing.assert_allclose(found, was, rtol=exact, atol=exact, strict=True)
