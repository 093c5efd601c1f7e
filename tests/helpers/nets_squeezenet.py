"""SqueezeNet v1.0 in six libraries: fire modules that concatenate, max-pools in ceil mode.

Each `in_...` takes weights under torch's names (see `nets_data`) and a dtype. Depth and width are
those of the weights; a max-pool follows conv1, fire4 and fire8.
"""

from functools import partial

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import keras
from flax import nnx
from jax import lax

from helpers.nets_data import Port, Weights, by_hand, in_flax, part

POOLED = ("fire4", "fire8")  # behind these, and behind conv1


def fires_of(weights: Weights) -> list[str]:
    return [name.split(".")[0] for name in weights if name.endswith("squeeze.weight")]


def width(weights: Weights, name: str) -> tuple[int, int]:
    """Inputs and outputs of a convolution."""
    outputs, inputs = weights[f"{name}.weight"].shape[:2]
    return inputs, outputs


def ceil(size: int) -> tuple[int, int]:
    """Padding for windows of 3, two apart: none before, and behind what fills the last one."""
    return 0, (size - 3) % 2


class NnxFire(nnx.Module):
    def __init__(self, weights: Weights, name: str, **args):
        self.squeeze = nnx.Conv(*width(weights, f"{name}.squeeze"), (1, 1), **args)
        self.expand1x1 = nnx.Conv(*width(weights, f"{name}.expand1x1"), (1, 1), **args)
        self.expand3x3 = nnx.Conv(*width(weights, f"{name}.expand3x3"), (3, 3), **args)

    def __call__(self, x):
        x = nnx.relu(self.squeeze(x))
        branches = [nnx.relu(self.expand1x1(x)), nnx.relu(self.expand3x3(x))]
        return jnp.concatenate(branches, axis=-1)


class NnxSqueezeNet(nnx.Module):
    def __init__(self, weights: Weights, dtype: str):
        args = {"rngs": nnx.Rngs(0), "param_dtype": dtype}
        self.conv1 = nnx.Conv(*width(weights, "conv1"), (7, 7), strides=2, padding="VALID", **args)
        self.fires = fires_of(weights)
        for name in self.fires:
            setattr(self, name, NnxFire(weights, name, **args))
        self.conv10 = nnx.Conv(*width(weights, "conv10"), (1, 1), **args)

    def __call__(self, x):
        pool = lambda x: nnx.max_pool(x, (3, 3), (2, 2), [ceil(n) for n in x.shape[1:3]])
        x = pool(nnx.relu(self.conv1(x)))
        for name in self.fires:
            x = getattr(self, name)(x)
            x = pool(x) if name in POOLED else x
        return nnx.relu(self.conv10(x)).mean((1, 2))


def in_nnx(weights: Weights, dtype: str) -> Port:
    model = nnx.eval_shape(partial(NnxSqueezeNet, weights, dtype))
    for name, values in in_flax(weights, dtype).items():
        for field, value in values.items():
            getattr(part(model, name), field).set_value(jnp.asarray(value))
    return Port(model, False, lambda name: name)


class LinenFire(nn.Module):
    squeeze: int
    expand1x1: int
    expand3x3: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(self.squeeze, (1, 1), name="squeeze")(x))
        one = nn.relu(nn.Conv(self.expand1x1, (1, 1), name="expand1x1")(x))
        three = nn.relu(nn.Conv(self.expand3x3, (3, 3), name="expand3x3")(x))
        return jnp.concatenate([one, three], axis=-1)


class LinenSqueezeNet(nn.Module):
    features: dict[str, int]  # by convolution

    @nn.compact
    def __call__(self, x):
        pool = lambda x: nn.max_pool(x, (3, 3), (2, 2), [ceil(n) for n in x.shape[1:3]])
        conv1 = nn.Conv(self.features["conv1"], (7, 7), 2, padding="VALID", name="conv1")
        x = pool(nn.relu(conv1(x)))
        for name in dict.fromkeys(n.split(".")[0] for n in self.features if "." in n):
            branches = ("squeeze", "expand1x1", "expand3x3")
            x = LinenFire(*(self.features[f"{name}.{b}"] for b in branches), name=name)(x)
            x = pool(x) if name in POOLED else x
        x = nn.relu(nn.Conv(self.features["conv10"], (1, 1), name="conv10")(x))
        return nn.avg_pool(x, x.shape[1:3])[:, 0, 0]


def in_linen(weights: Weights, dtype: str) -> Port:
    layers = in_flax(weights, dtype)
    params: dict = {}
    for name, values in layers.items():
        *fire, conv = name.split(".")
        within = params.setdefault(*fire, {}) if fire else params
        within[conv] = jax.tree.map(jnp.asarray, values)
    model = LinenSqueezeNet({name: p["bias"].size for name, p in layers.items()})
    apply = jax.tree_util.Partial(model.apply, {"params": params})
    return Port(apply, False, lambda name: name)


def equinox_conv(weights: Weights, name: str, size: int, dtype: str, **args) -> eqx.nn.Conv2d:
    key = jax.random.key(0)
    return eqx.nn.Conv2d(*width(weights, name), size, dtype=dtype, key=key, **args)


class EquinoxFire(eqx.Module):
    squeeze: eqx.nn.Conv2d
    expand1x1: eqx.nn.Conv2d
    expand3x3: eqx.nn.Conv2d

    def __init__(self, weights: Weights, name: str, dtype: str):
        self.squeeze = equinox_conv(weights, f"{name}.squeeze", 1, dtype)
        self.expand1x1 = equinox_conv(weights, f"{name}.expand1x1", 1, dtype)
        self.expand3x3 = equinox_conv(weights, f"{name}.expand3x3", 3, dtype, padding="SAME")

    def __call__(self, x):
        x = jax.nn.relu(self.squeeze(x))
        one, three = jax.nn.relu(self.expand1x1(x)), jax.nn.relu(self.expand3x3(x))
        return jnp.concatenate([one, three])


class EquinoxSqueezeNet(eqx.Module):
    conv1: eqx.nn.Conv2d
    fires: dict[str, EquinoxFire]
    conv10: eqx.nn.Conv2d
    max_pool: eqx.nn.MaxPool2d = eqx.nn.MaxPool2d(3, 2, use_ceil=True)

    def __init__(self, weights: Weights, dtype: str):
        self.conv1 = equinox_conv(weights, "conv1", 7, dtype, stride=2)
        self.fires = {name: EquinoxFire(weights, name, dtype) for name in fires_of(weights)}
        self.conv10 = equinox_conv(weights, "conv10", 1, dtype)

    def __call__(self, x):
        x = self.max_pool(jax.nn.relu(self.conv1(x)))
        for name, fire in self.fires.items():
            x = fire(x)
            x = self.max_pool(x) if name in POOLED else x
        x = jax.nn.relu(self.conv10(x))
        return eqx.nn.AvgPool2d(x.shape[1:])(x).reshape(-1)


def in_equinox(weights: Weights, dtype: str) -> Port:
    model = eqx.filter_eval_shape(EquinoxSqueezeNet, weights, dtype)
    named = lambda name: f"fires.{name}" if name.startswith("fire") else name
    for key, value in weights.items():
        name, _, field = key.rpartition(".")
        value = value[:, None, None] if field == "bias" else value
        at = lambda m, name=name, field=field: getattr(part(m, named(name)), field)
        model = eqx.tree_at(at, model, jnp.asarray(value, dtype))
    return Port(jax.vmap(model), True, named)


class HaikuFire(hk.Module):
    def __init__(self, features: dict[str, int], name: str):
        super().__init__(name=name)
        self.features = features

    def __call__(self, x):
        conv = lambda branch, size: hk.Conv2D(
            self.features[f"{self.name}.{branch}"], size, name=branch
        )
        x = jax.nn.relu(conv("squeeze", 1)(x))
        branches = (conv("expand1x1", 1), conv("expand3x3", 3))
        return jnp.concatenate([jax.nn.relu(branch(x)) for branch in branches], axis=-1)


def in_haiku(weights: Weights, dtype: str) -> Port:
    layers = in_flax(weights, dtype)
    features = {name: p["bias"].size for name, p in layers.items()}

    def pool(x):
        rows, columns = (ceil(n) for n in x.shape[1:3])
        x = jnp.pad(x, ((0, 0), rows, columns, (0, 0)))  # zeros: there is a ReLU in front
        return hk.max_pool(x, (3, 3, 1), (2, 2, 1), "VALID")

    def forward(x):
        conv1 = hk.Conv2D(features["conv1"], 7, 2, padding="VALID", name="conv1")
        x = pool(jax.nn.relu(conv1(x)))
        for name in fires_of(weights):
            x = HaikuFire(features, name)(x)
            x = pool(x) if name in POOLED else x
        x = jax.nn.relu(hk.Conv2D(features["conv10"], 1, name="conv10")(x))
        return jnp.mean(x, axis=(1, 2))

    named = lambda name: name.replace(".", "/")
    params = {
        named(name): {"w": jnp.asarray(p["kernel"]), "b": jnp.asarray(p["bias"])}
        for name, p in layers.items()
    }
    module = hk.without_apply_rng(hk.transform(forward))
    return Port(jax.tree_util.Partial(module.apply, params), False, named)


def in_keras(weights: Weights, dtype: str, side: int = 227) -> Port:
    """side: of the images, which decides where the ceil mode pads."""
    layers = keras.layers

    def conv(x, name, size, **args):
        filters = width(weights, name)[1]
        name = name.replace(".", "_")
        return layers.Conv2D(filters, size, activation="relu", name=name, **args)(x)

    def pool(x):
        rows, columns = (ceil(n) for n in x.shape[1:3])
        x = layers.ZeroPadding2D((rows, columns))(x)
        return layers.MaxPooling2D(3, 2)(x)

    image = keras.Input((side, side, 3))
    x = pool(conv(image, "conv1", 7, strides=2))
    for fire in fires_of(weights):
        x = conv(x, f"{fire}.squeeze", 1)
        branches = [
            conv(x, f"{fire}.expand1x1", 1),
            conv(x, f"{fire}.expand3x3", 3, padding="same"),
        ]
        x = layers.Concatenate()(branches)
        x = pool(x) if fire in POOLED else x
    x = layers.GlobalAveragePooling2D()(conv(x, "conv10", 1))
    model = keras.Model(image, x)
    named = lambda name: name.replace(".", "_")
    for name, values in in_flax(weights, dtype).items():
        model.get_layer(named(name)).set_weights(list(values.values()))
    return Port(model, False, named)


def in_lax(weights: Weights, dtype: str) -> Port:
    """Channels first, with torch's own arrays."""
    fires = fires_of(weights)

    def conv(p, name, x, stride=1, padding="VALID"):
        z = lax.conv_general_dilated(x, p[f"{name}.weight"], (stride, stride), padding)
        return jnp.maximum(z + p[f"{name}.bias"][:, None, None], 0)

    def pool(x):
        padding = [(0, 0), (0, 0), *(ceil(n) for n in x.shape[2:])]
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 3, 3), (1, 1, 2, 2), padding)

    def forward(p, x):
        x = pool(conv(p, "conv1", x, 2))
        for fire in fires:
            x = conv(p, f"{fire}.squeeze", x)
            one = conv(p, f"{fire}.expand1x1", x)
            three = conv(p, f"{fire}.expand3x3", x, padding="SAME")
            x = lax.concatenate([one, three], 1)
            x = pool(x) if fire in POOLED else x
        return conv(p, "conv10", x).mean((2, 3))

    return by_hand(forward, weights, dtype)


LIBRARIES = {
    "lax": in_lax,
    "nnx": in_nnx,
    "linen": in_linen,
    "equinox": in_equinox,
    "haiku": in_haiku,
    "keras": in_keras,
}
