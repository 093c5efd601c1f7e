"""Folding: a product, its bias and the BatchNorm next to it are one linear layer."""

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

from lrpjax.graph import LINEAR
from lrpjax.graph.reading import environment, read, read_at
from lrpjax.layers import make_op

pytestmark = pytest.mark.usefixtures("quick_compile")

TOLERANCE = {  # the same sums of up to 108 numbers of order 1 in another order
    "float64": 1e-10,
    "float32": 1e-4,  # Keras: its BatchNorm computes in single precision whatever it is given
}

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(2, 6, 6, 3))
VECTOR = RNG.normal(size=(2, 3))
KERNEL = RNG.normal(size=(3, 3, 3, 4))
W = RNG.normal(size=(3, 4))
B = RNG.normal(size=4)
RUNS = ("conv bn", "bn conv", "dense bn", "bn dense")


def shaken(tree):
    """The tree with new values, positive as variances are."""
    rng = np.random.default_rng(1)
    is_float = lambda a: hasattr(a, "dtype") and jnp.issubdtype(a.dtype, jnp.floating)
    new = lambda a: jnp.asarray(rng.uniform(0.5, 1.5, a.shape), a.dtype) if is_float(a) else a
    return jax.tree.map(new, tree)


def in_flax_nnx(run):
    args = {"rngs": nnx.Rngs(0), "param_dtype": jnp.float64}
    make = {
        "conv": lambda: nnx.Conv(3, 4, (3, 3), **args),
        "dense": lambda: nnx.Linear(3, 4, **args),
        "bn": lambda: nnx.BatchNorm(4 if run.endswith("bn") else 3, **args),
    }
    model = nnx.Sequential(*(make[part]() for part in run.split()))
    model.eval()
    nnx.update(model, shaken(nnx.state(model)))
    return model


def in_flax_linen(run):
    args = {"param_dtype": jnp.float64}
    make = {
        "conv": lambda: nn.Conv(4, (3, 3), **args),
        "dense": lambda: nn.Dense(4, **args),
        "bn": lambda: nn.BatchNorm(use_running_average=True, **args),
    }
    module = nn.Sequential([make[part]() for part in run.split()])
    variables = module.init(jax.random.key(0), data(run))
    return jax.tree_util.Partial(module.apply, shaken(variables))


def in_equinox(run, mode="ema"):
    key, dtype = jax.random.key(0), jnp.float64
    channels = 4 if run.endswith("bn") else 3
    make = {
        "conv": lambda: eqx.nn.Conv2d(3, 4, 3, padding=1, key=key, dtype=dtype),
        "dense": lambda: eqx.nn.Linear(3, 4, key=key, dtype=dtype),
        "bn": lambda: eqx.nn.BatchNorm(channels, "batch", mode=mode, dtype=dtype),
    }
    build = lambda: eqx.nn.Sequential([make[part]() for part in run.split()])
    model, state = eqx.nn.make_with_state(build)()
    model, state = eqx.nn.inference_mode(shaken(model)), shaken(state)
    last = lambda h: jnp.moveaxis(h, 0, -1) if h.ndim == 3 else h
    first = lambda x: jnp.moveaxis(x, -1, 0) if x.ndim == 3 else x
    return jax.vmap(lambda x: last(model(first(x), state)[0]), axis_name="batch")


def in_haiku(run):
    make = {
        "conv": lambda: hk.Conv2D(4, 3),
        "dense": lambda: hk.Linear(4),
        "bn": lambda: hk.BatchNorm(True, True, 0.9),
    }

    def forward(x, is_training):
        for part in run.split():
            x = make[part]()(x, *[is_training] * (part == "bn"))
        return x

    module = hk.without_apply_rng(hk.transform_with_state(forward))
    params, state = shaken(module.init(jax.random.key(0), data(run), True))
    return lambda x: module.apply(params, state, x, False)[0]


def in_keras(run):
    make = {
        "conv": lambda: keras.layers.Conv2D(4, 3, padding="same"),
        "dense": lambda: keras.layers.Dense(4),
        "bn": lambda: keras.layers.BatchNormalization(),
    }
    shape = data(run).shape[1:]
    model = keras.Sequential([keras.Input(shape), *(make[part]() for part in run.split())])
    model.set_weights(shaken([weight.value for weight in model.weights]))
    return model


def by_hand(spelling):
    mean, variance, scale, offset = RNG.uniform(0.5, 1.5, (4, 4))

    def norm(x):
        c = x.shape[-1]
        m, v, g, b = mean[:c], variance[:c], scale[:c], offset[:c]
        return {
            "textbook": lambda: (x - m) / jnp.sqrt(v + 1e-5) * g + b,
            "rsqrt": lambda: (x - m) * (g * lax.rsqrt(v + 1e-5)) + b,
            "scale and shift": lambda: x * (g / jnp.sqrt(v)) + (b - m * g / jnp.sqrt(v)),
        }[spelling]()

    make = {"conv": lambda x: conv(x) + B, "dense": lambda x: x @ W + B, "bn": norm}

    def build(run):
        def model(x):
            for part in run.split():
                x = make[part](x)
            return x

        return model

    return build


def conv(x, kernel=KERNEL, layout="NHWC", **options):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=(layout, "HWIO", layout), **options
    )


def data(run):
    return IMAGE if "conv" in run else VECTOR


LIBRARIES = {
    "nnx": in_flax_nnx,
    "linen": in_flax_linen,
    "equinox": in_equinox,
    "equinox batch mode": lambda run: in_equinox(run, "batch"),
    "haiku": in_haiku,
    "keras": in_keras,
    "textbook": by_hand("textbook"),
    "rsqrt": by_hand("rsqrt"),
    "scale and shift": by_hand("scale and shift"),
}


def check_folded(model, x):
    """The model is one linear layer, between nothing but rearrangements."""
    reading = read(model, x)
    layers = reading.graph.layers
    assert [layer.kind for layer in layers if layer.kind != "structure"] in (["conv"], ["dense"])
    return check_linear_layers(reading, x)


def check_linear_layers(reading, x):
    """Each linear layer reproduces the model's own values, and its transpose is one."""
    graph = reading.graph
    env = environment(graph, reading.consts, jax.tree.leaves(x))
    ops = [make_op(graph.program, layer, env) for layer in graph.layers if layer.kind in LINEAR]
    for op in ops:
        (value,), (expected,) = op.layer.inputs, op.layer.outputs
        z = op(env[value]) + (0 if op.b is None else op.b)
        close = partial(np.testing.assert_allclose, atol=(t := TOLERANCE[str(z.dtype)]), rtol=t)
        close(z, env[expected])
        assert z.shape == env[expected].shape
        u, r = RNG.normal(size=op.x_like.shape), RNG.normal(size=z.shape)
        u, r = u.astype(op.x_like.dtype), r.astype(z.dtype)
        close(jnp.vdot(op(u), r), jnp.vdot(u, op.T(r)))
        close(op(u, -2 * op.w), -2 * op(u))
    return ops


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_batch_norm_is_folded(library, run):
    x = data(run)
    model = LIBRARIES[library](run)
    (op,) = check_folded(model, x)
    assert op.b is not None


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_batch_norm_is_kept_apart_where_asked(library, run):
    x = data(run)
    reading = read_at(LIBRARIES[library](run), x, fold=False)
    found = [layer.kind for layer in reading.graph.layers if layer.kind != "structure"]
    assert found == ["scale" if part == "bn" else part for part in run.split()]
    check_linear_layers(reading, x)


def norm(x, axis=-1):
    """BatchNorm with numbers of its own for each feature."""
    shape = [1] * x.ndim
    shape[axis] = size = x.shape[axis]
    mean, scale = (np.linspace(a, b, size).reshape(shape) for a, b in ((0.1, 0.4), (0.5, 2)))
    return (x - mean) * scale + 0.3


DEPTHWISE = RNG.normal(size=(3, 3, 1, 6))
GROUPED = RNG.normal(size=(3, 3, 2, 6))
HEADS = RNG.normal(size=(3, 2, 5))
FLAT = RNG.normal(size=(108, 5))
TRANSPOSED = lambda x: lax.conv_transpose(x, KERNEL, (2, 2), "SAME")
DILATED = lambda x: conv(x, rhs_dilation=(2, 2))
STRIDED = lambda x: lax.conv_general_dilated(
    x, KERNEL, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
)
TOKENS = RNG.normal(size=(2, 5, 3))
FOUR = np.concatenate([IMAGE, IMAGE[..., :1]], -1)
PIXELS = np.uint8(RNG.integers(0, 256, IMAGE.shape))

FOLDED = {
    "depthwise, norm": (lambda x: norm(conv(x, DEPTHWISE, feature_group_count=3)), IMAGE),
    "norm, depthwise": (lambda x: conv(norm(x), DEPTHWISE, feature_group_count=3), IMAGE),
    "grouped, norm": (lambda x: norm(conv(x, GROUPED, feature_group_count=2)), FOUR),
    "norm, grouped": (lambda x: conv(norm(x), GROUPED, feature_group_count=2), FOUR),
    "transposed, norm": (lambda x: norm(TRANSPOSED(x)), IMAGE),
    "norm, transposed": (lambda x: TRANSPOSED(norm(x)), IMAGE),
    "dilated, norm": (lambda x: norm(DILATED(x)), IMAGE),
    "norm, strided": (lambda x: STRIDED(norm(x)), IMAGE),
    "NCHW, norm": (lambda x: norm(conv(x, layout="NCHW"), 1), IMAGE.transpose(0, 3, 1, 2)),
    "norm, NCHW": (lambda x: conv(norm(x, 1), layout="NCHW"), IMAGE.transpose(0, 3, 1, 2)),
    "norm, flatten, dense": (lambda x: norm(x).reshape(2, -1) @ FLAT, IMAGE),
    "norm, transpose, flatten, dense": (
        lambda x: norm(x).transpose(0, 3, 1, 2).reshape(2, -1) @ FLAT,
        IMAGE,
    ),
    "dense, reshape, norm": (lambda x: norm((x @ W).reshape(2, 1, 1, 4)), VECTOR),
    "dense, split features, norm": (lambda x: norm((x @ FLAT[:3]).reshape(2, 5, 1), 1), VECTOR),
    "conv, transpose, norm": (lambda x: norm(conv(x).transpose(0, 3, 1, 2), 1), IMAGE),
    "heads, norm": (lambda x: norm(jnp.einsum("nd,dhk->nhk", x, HEADS)), VECTOR),
    "heads, norm of heads": (lambda x: norm(jnp.einsum("nd,dhk->nhk", x, HEADS), 1), VECTOR),
    "norm, tokens": (lambda x: norm(x) @ W, TOKENS),
    "tokens, norm": (lambda x: norm(x @ W), TOKENS),
    "weights first": (lambda x: norm(jnp.einsum("do,nd->on", W, x), 0).T, VECTOR),
    "batched weights": (lambda x: norm(jnp.einsum("ntd,tdk->ntk", x, np.ones((5, 3, 4)))), TOKENS),
    "1-d conv": (
        lambda x: norm(
            lax.conv_general_dilated(
                x, KERNEL[0], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
            )
        ),
        TOKENS,
    ),
    "two norms": (lambda x: norm(norm(conv(norm(x)))), IMAGE),
    "x/127.5-1": (lambda x: conv(x / 127.5 - 1), IMAGE),
    "uint8/127.5-1": (lambda x: conv(x / 127.5 - 1), PIXELS),
    "standardised": (lambda x: conv((x / 255.0 - B[:3]) / (1 + B[:3] ** 2)) + B, PIXELS),
    "negated": (lambda x: B - conv(-x), IMAGE),
    "temperature": (lambda x: (x @ W + B) / 0.1, VECTOR),
    "bias varies over space": (lambda x: conv(x) + IMAGE[:1, :, :, :1], IMAGE),
    "a mask of one number": (lambda x: norm(jnp.where(True, conv(x), 0.0)), IMAGE),
    "a mask of ones": (
        lambda x: norm(lax.select(jnp.ones((2, 4), bool), x @ W, jnp.zeros((2, 4)))),
        VECTOR,
    ),
    "bias in two steps": (lambda x: 2 * (x @ W + B) + B, VECTOR),
    "conv, merged and split again, norm": (
        lambda x: norm(conv(x).reshape(2, -1).reshape(2, 6, 6, 4)),
        IMAGE,
    ),
    "conv, images merged and split again, norm": (
        lambda x: norm(conv(x).transpose(0, 3, 1, 2).reshape(8, 6, 6).reshape(2, 4, 6, 6), 1),
        IMAGE,
    ),
    "norm, merged and split again, conv": (
        lambda x: conv((norm(x).reshape(2, 6, -1) * 2).reshape(2, 6, 6, 3)),
        IMAGE,
    ),
}


@pytest.mark.parametrize(("model", "x"), FOLDED.values(), ids=FOLDED)
def test_constants_around_a_product_are_folded(model, x):
    check_folded(model, x)


MASK = np.linspace(0, 1, 36).reshape(6, 6, 1)


def read_twice(x):
    h = conv(x)
    return norm(h) + h


NOT_FOLDED = {
    "read twice": (read_twice, IMAGE, ["conv", "scale", "add"]),
    "an output": (lambda x: (h := x @ W, norm(h)), VECTOR, ["dense", "scale"]),
    "input read twice": (
        lambda x: conv(h := norm(x)) + h[..., :1],
        IMAGE,
        ["scale", "conv", "structure", "add"],
    ),
    "varies over space": (lambda x: conv(x) * MASK, IMAGE, ["conv", "factor"]),
    "varies over space before": (lambda x: conv(x * MASK), IMAGE, ["factor", "conv"]),
    "varies over the batch": (lambda x: (x @ W) * MASK[0, :2], VECTOR, ["dense", "factor"]),
    "varies over the batch before": (lambda x: (x * MASK[0, :2]) @ W, VECTOR, ["factor", "dense"]),
    "varies over tokens": (lambda x: (x @ W) * MASK[0, :5], TOKENS, ["dense", "factor"]),
    "two products": (lambda x: conv(norm(conv(x, KERNEL[..., :3]))), IMAGE, ["conv", "conv"]),
    "across a relu": (
        lambda x: norm(jax.nn.relu(x @ W)),
        VECTOR,
        ["dense", "activation", "scale"],
    ),
    "alone": (norm, VECTOR, ["scale"]),
    "a mean": (lambda x: conv(x).mean((1, 2)) * 3, IMAGE, ["conv", "sum"]),
}


@pytest.mark.parametrize(("model", "x", "kinds"), NOT_FOLDED.values(), ids=NOT_FOLDED)
def test_what_is_no_single_linear_layer_stays_apart(model, x, kinds):
    reading = read(model, x)
    assert [layer.kind for layer in reading.graph.layers] == kinds
    check_linear_layers(reading, x)
