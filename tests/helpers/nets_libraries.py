"""One small network with BatchNorm, dropout and both pools, in five libraries and by hand."""

from functools import cache, partial

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import keras
import numpy as np
from flax import nnx
from jax import lax

BN_EPSILON = 1e-5


def draw():
    """Parameters as training leaves them: kernels of unit gain, statistics that are not 0 and 1."""
    rng = np.random.default_rng(7)
    kernel = lambda *shape: rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]) / 2)
    norm = lambda n: {
        "scale": rng.uniform(0.5, 1.5, n),
        "bias": rng.normal(size=n) / 4,
        "mean": rng.normal(size=n) / 4,
        "var": rng.uniform(0.5, 1.5, n),
    }
    return {
        "conv1": {"kernel": kernel(3, 3, 3, 4), "bias": rng.normal(size=4) / 4},
        "bn1": norm(4),
        "conv2": {"kernel": kernel(3, 3, 4, 6)},
        "bn2": norm(6),
        "fc1": {"kernel": kernel(24, 8), "bias": rng.normal(size=8) / 4},
        "fc2": {"kernel": kernel(8, 5), "bias": rng.normal(size=5) / 4},
    }


PARAMETERS = draw()
IMAGES = np.random.default_rng(8).normal(size=(2, 8, 8, 3))
LAYERS = ("conv1", "conv2", "fc1", "fc2")


def typed(dtype):
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), PARAMETERS)


def channels_first(fc1):
    """The first dense kernel for features flattened channels first."""
    return fc1.reshape(2, 2, 6, 8).transpose(2, 0, 1, 3).reshape(24, 8)


class Nnx(nnx.Module):
    def __init__(self, dtype):
        args = {"rngs": nnx.Rngs(0), "param_dtype": dtype}
        self.conv1 = nnx.Conv(3, 4, (3, 3), **args)
        self.bn1 = nnx.BatchNorm(4, epsilon=BN_EPSILON, **args)
        self.conv2 = nnx.Conv(4, 6, (3, 3), use_bias=False, **args)
        self.bn2 = nnx.BatchNorm(6, epsilon=BN_EPSILON, **args)
        self.fc1 = nnx.Linear(24, 8, **args)
        self.fc2 = nnx.Linear(8, 5, **args)
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.bn1(self.conv1(x))), (2, 2), (2, 2))
        x = nnx.avg_pool(nnx.relu(self.bn2(self.conv2(x))), (2, 2), (2, 2))
        x = nnx.relu(self.fc1(self.dropout(x.reshape(len(x), -1))))
        return self.fc2(x)


def in_nnx(dtype):
    model = Nnx(dtype)
    model.eval()
    for layer, values in typed(dtype).items():
        for name, value in values.items():
            getattr(getattr(model, layer), name).set_value(value)
    return model, False


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        norm = {"use_running_average": not train, "epsilon": BN_EPSILON}
        x = nn.Conv(4, (3, 3), name="conv1")(x)
        x = nn.max_pool(nn.relu(nn.BatchNorm(**norm, name="bn1")(x)), (2, 2), (2, 2))
        x = nn.Conv(6, (3, 3), use_bias=False, name="conv2")(x)
        x = nn.avg_pool(nn.relu(nn.BatchNorm(**norm, name="bn2")(x)), (2, 2), (2, 2))
        x = nn.Dense(8, name="fc1")(x.reshape(len(x), -1))
        return nn.Dense(5, name="fc2")(nn.Dropout(0.5, deterministic=not train)(nn.relu(x)))


def in_linen(dtype):
    trained = ("kernel", "scale", "bias")
    variables = {"params": {}, "batch_stats": {}}
    for layer, values in typed(dtype).items():
        variables["params"][layer] = {k: v for k, v in values.items() if k in trained}
        if layer.startswith("bn"):
            variables["batch_stats"][layer] = {k: values[k] for k in ("mean", "var")}
    return jax.tree_util.Partial(Linen().apply, variables), False


class Equinox(eqx.Module):
    conv1: eqx.nn.Conv2d
    bn1: eqx.nn.BatchNorm
    conv2: eqx.nn.Conv2d
    bn2: eqx.nn.BatchNorm
    fc1: eqx.nn.Linear
    fc2: eqx.nn.Linear
    max_pool: eqx.nn.MaxPool2d = eqx.nn.MaxPool2d(2, 2)
    avg_pool: eqx.nn.AvgPool2d = eqx.nn.AvgPool2d(2, 2)

    def __init__(self, dtype):
        args = {"key": jax.random.key(0), "dtype": dtype}
        norm = {"axis_name": "batch", "mode": "ema", "eps": BN_EPSILON, "dtype": dtype}
        self.conv1 = eqx.nn.Conv2d(3, 4, 3, padding=1, **args)
        self.bn1 = eqx.nn.BatchNorm(4, **norm)
        self.conv2 = eqx.nn.Conv2d(4, 6, 3, padding=1, use_bias=False, **args)
        self.bn2 = eqx.nn.BatchNorm(6, **norm)
        self.fc1, self.fc2 = eqx.nn.Linear(24, 8, **args), eqx.nn.Linear(8, 5, **args)

    def __call__(self, x, state):
        x, state = self.bn1(self.conv1(x), state)
        x, state = self.bn2(self.conv2(self.max_pool(jax.nn.relu(x))), state)
        x = self.avg_pool(jax.nn.relu(x)).reshape(-1)
        return self.fc2(jax.nn.relu(self.fc1(x)))


def in_equinox(dtype):
    model, state = eqx.nn.make_with_state(Equinox)(dtype)
    model = eqx.nn.inference_mode(model)
    for name, p in typed(dtype).items():
        layer = getattr(model, name)
        new = {}
        if "mean" in p:
            state = state.set(layer.ema_state_index, (p["mean"], p["var"]))
            new = {"weight": p["scale"], "bias": p["bias"]}
        elif name.startswith("conv"):
            new["weight"] = p["kernel"].transpose(3, 2, 0, 1)
            if "bias" in p:
                new["bias"] = p["bias"][:, None, None]
        else:
            kernel = channels_first(p["kernel"]) if name == "fc1" else p["kernel"]
            new = {"weight": kernel.T, "bias": p["bias"]}
        for attribute, value in new.items():
            where = lambda m, name=name, a=attribute: getattr(getattr(m, name), a)
            assert where(model).shape == value.shape
            model = eqx.tree_at(where, model, value)
    return jax.vmap(lambda x: model(x, state), axis_name="batch"), True


def in_haiku(dtype):
    def forward(x, is_training):
        norm = lambda name: hk.BatchNorm(True, True, 0.9, eps=BN_EPSILON, name=name)
        x = norm("bn1")(hk.Conv2D(4, 3, name="conv1")(x), is_training)
        x = hk.max_pool(jax.nn.relu(x), (2, 2, 1), (2, 2, 1), "VALID")
        x = norm("bn2")(hk.Conv2D(6, 3, with_bias=False, name="conv2")(x), is_training)
        x = hk.Flatten()(hk.avg_pool(jax.nn.relu(x), (2, 2, 1), (2, 2, 1), "VALID"))
        return hk.Linear(5, name="fc2")(jax.nn.relu(hk.Linear(8, name="fc1")(x)))

    module = hk.without_apply_rng(hk.transform_with_state(forward))
    wide = lambda a: a.reshape(1, 1, 1, -1)
    params, state = {}, {}
    for name, p in typed(dtype).items():
        if "mean" in p:
            params[name] = {"scale": wide(p["scale"]), "offset": wide(p["bias"])}
            for moment in ("mean", "var"):
                average = wide(p[moment])
                entry = {"average": average, "hidden": average, "counter": jnp.int32(1)}
                state[f"{name}/~/{moment}_ema"] = entry
        else:
            params[name] = {"w": p["kernel"]} | ({"b": p["bias"]} if "bias" in p else {})
    return lambda x: module.apply(params, state, x, False)[0], False


def in_keras(dtype):
    layers = keras.layers
    norm = lambda name: layers.BatchNormalization(epsilon=BN_EPSILON, name=name)
    conv = lambda n, **args: layers.Conv2D(n, 3, padding="same", **args)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            *(conv(4, name="conv1"), norm("bn1"), layers.ReLU(), layers.MaxPooling2D()),
            *(conv(6, use_bias=False, name="conv2"), norm("bn2"), layers.ReLU()),
            *(layers.AveragePooling2D(2), layers.Flatten(), layers.Dropout(0.5)),
            *(layers.Dense(8, "relu", name="fc1"), layers.Dense(5, name="fc2")),
        ]
    )
    for name, p in PARAMETERS.items():
        model.get_layer(name).set_weights([value.astype(dtype) for value in p.values()])
    return model, False


def by_hand(layout):
    def build(dtype):
        nhwc = layout == "NHWC"
        wide = (lambda a: a) if nhwc else (lambda a: a[:, None, None])
        window = (1, 2, 2, 1) if nhwc else (1, 1, 2, 2)

        def conv(x, p):
            numbers = (layout, "HWIO", layout)
            z = lax.conv_general_dilated(x, p["kernel"], (1, 1), "SAME", dimension_numbers=numbers)
            return z + wide(p["bias"]) if "bias" in p else z

        def norm(x, p):
            centred = x - wide(p["mean"])
            return centred * wide(p["scale"] / jnp.sqrt(p["var"] + BN_EPSILON)) + wide(p["bias"])

        def pool(x, function, start):
            return lax.reduce_window(x, start, function, window, window, "VALID")

        def forward(p, x):
            x = jnp.maximum(norm(conv(x, p["conv1"]), p["bn1"]), 0)
            x = pool(x, lax.max, -jnp.inf)
            x = jnp.maximum(norm(conv(x, p["conv2"]), p["bn2"]), 0)
            x = (pool(x, lax.add, 0.0) / 4).reshape(len(x), -1)
            x = jnp.maximum(x @ p["fc1"]["kernel"] + p["fc1"]["bias"], 0)
            return x @ p["fc2"]["kernel"] + p["fc2"]["bias"]

        p = typed(dtype)
        if not nhwc:
            p["fc1"]["kernel"] = channels_first(p["fc1"]["kernel"])
        return jax.tree_util.Partial(forward, p), not nhwc

    return build


BUILDERS = {
    "nnx": in_nnx,
    "linen": in_linen,
    "equinox": in_equinox,
    "haiku": in_haiku,
    "keras": in_keras,
    "lax NCHW": by_hand("NCHW"),
    "lax NHWC": by_hand("NHWC"),
}
# From a dtype to (the model, whether its images are channels first).
LIBRARIES = {name: cache(build) for name, build in BUILDERS.items()}

WRAPPED = {  # a library's model as users pass it
    **{name: (name, lambda model: model) for name in LIBRARIES},
    "nnx bound method": ("nnx", lambda model: model.__call__),
    "nnx lambda": ("nnx", lambda model: lambda x: model(x)),
    "nnx partial": ("nnx", lambda model: partial(Nnx.__call__, model)),
    "nnx.jit": ("nnx", nnx.jit),
    "nnx in jax.jit": ("nnx", lambda model: jax.jit(lambda x: model(x))),
    "linen partial": ("linen", lambda model: partial(model.func, *model.args)),
    "linen lambda": ("linen", lambda model: lambda x: Linen().apply(*model.args, x)),
    "linen jit": ("linen", lambda model: jax.jit(partial(model.func, *model.args))),
    "linen bound": ("linen", lambda model: Linen().bind(*model.args)),
    "equinox lambda": ("equinox", lambda model: lambda x: model(x)),
    "equinox jit": ("equinox", jax.jit),
    "haiku jit": ("haiku", jax.jit),
    "keras lambda": ("keras", lambda model: lambda x: model(x, training=False)),
    "keras partial": ("keras", lambda model: partial(model, training=False)),
    "lax partial": ("lax NHWC", lambda model: partial(model.func, *model.args)),
    "lax lambda": ("lax NHWC", lambda model: lambda x: model.func(*model.args, x)),
}
