"""The CIFAR-10 ResNet with BatchNorm and shortcuts without weights, in six libraries.

Each `in_...` takes weights under torch's names (see `nets_data`) and a dtype. Depth and width are
those of the weights.
"""

from functools import partial
from itertools import groupby
from typing import NamedTuple

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import keras
from flax import nnx
from jax import lax

from helpers.nets_data import Port, Weights, by_hand, in_flax, part

EPSILON = 1e-5  # of BatchNorm


class Block(NamedTuple):
    """Two convolutions beside a shortcut, in stage `stage` ("layer1") at place `place`."""

    stage: str
    place: int
    inputs: int
    features: int

    @property
    def name(self) -> str:
        return f"{self.stage}.{self.place}"

    @property
    def stride(self) -> int:
        return 1 if self.inputs == self.features else 2

    @property
    def more(self) -> int:
        """How many channels of zeros the shortcut adds on either side."""
        return (self.features - self.inputs) // 2


def blocks_of(weights: Weights) -> list[Block]:
    found = []
    for name, kernel in weights.items():
        if name.endswith(".conv1.weight"):
            stage, place, *_ = name.split(".")
            features, inputs, *_ = kernel.shape
            found.append(Block(stage, int(place), inputs, features))
    return found


def shortcut(x: jax.Array, block: Block) -> jax.Array:
    if block.stride == 1:
        return x
    return jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (block.more, block.more)))


class NnxBlock(nnx.Module):
    def __init__(self, block: Block, **args):
        conv = {"kernel_size": (3, 3), "padding": 1, "use_bias": False, **args}
        self.block = block
        self.conv1 = nnx.Conv(block.inputs, block.features, strides=block.stride, **conv)
        self.bn1 = nnx.BatchNorm(block.features, epsilon=EPSILON, **args)
        self.conv2 = nnx.Conv(block.features, block.features, **conv)
        self.bn2 = nnx.BatchNorm(block.features, epsilon=EPSILON, **args)

    def __call__(self, x):
        h = self.bn2(self.conv2(nnx.relu(self.bn1(self.conv1(x)))))
        return nnx.relu(h + shortcut(x, self.block))


class NnxResNet(nnx.Module):
    def __init__(self, blocks: list[Block], classes: int, dtype: str):
        args = {"rngs": nnx.Rngs(0), "param_dtype": dtype}
        width = blocks[0].inputs
        self.conv1 = nnx.Conv(3, width, (3, 3), padding=1, use_bias=False, **args)
        self.bn1 = nnx.BatchNorm(width, epsilon=EPSILON, **args)
        self.stages = []
        for stage, members in groupby(blocks, lambda block: block.stage):
            setattr(self, stage, nnx.List([NnxBlock(block, **args) for block in members]))
            self.stages.append(stage)
        self.linear = nnx.Linear(blocks[-1].features, classes, **args)

    def __call__(self, x):
        x = nnx.relu(self.bn1(self.conv1(x)))
        for stage in self.stages:
            for block in getattr(self, stage):
                x = block(x)
        return self.linear(x.mean((1, 2)))


def in_nnx(weights: Weights, dtype: str) -> Port:
    build = partial(NnxResNet, blocks_of(weights), len(weights["linear.bias"]), dtype)
    model = nnx.eval_shape(build)
    model.eval()
    for name, values in in_flax(weights, dtype).items():
        for field, value in values.items():
            getattr(part(model, name), field).set_value(jnp.asarray(value))
    return Port(model, False, lambda name: name)


class LinenBlock(nn.Module):
    block: Block

    @nn.compact
    def __call__(self, x, train: bool):
        norm = {"use_running_average": not train, "epsilon": EPSILON}
        conv = {"kernel_size": (3, 3), "padding": 1, "use_bias": False}
        features, stride = self.block.features, self.block.stride
        h = nn.Conv(features, strides=stride, **conv, name="conv1")(x)
        h = nn.relu(nn.BatchNorm(**norm, name="bn1")(h))
        h = nn.BatchNorm(**norm, name="bn2")(nn.Conv(features, **conv, name="conv2")(h))
        return nn.relu(h + shortcut(x, self.block))


class LinenResNet(nn.Module):
    blocks: tuple[Block, ...]
    classes: int

    @nn.compact
    def __call__(self, x, train: bool = False):
        width = self.blocks[0].inputs
        x = nn.Conv(width, (3, 3), padding=1, use_bias=False, name="conv1")(x)
        norm = nn.BatchNorm(use_running_average=not train, epsilon=EPSILON, name="bn1")
        x = nn.relu(norm(x))
        for block in self.blocks:
            x = LinenBlock(block, name=block.name.replace(".", "_"))(x, train)
        x = nn.avg_pool(x, x.shape[1:3])
        return nn.Dense(self.classes, name="linear")(x.reshape(len(x), -1))


def in_linen(weights: Weights, dtype: str) -> Port:
    named = lambda name: name.replace(".", "_", 1) if name.startswith("layer") else name
    variables: dict = {"params": {}, "batch_stats": {}}
    for name, values in in_flax(weights, dtype).items():
        for field, value in values.items():
            within = variables["batch_stats" if field in ("mean", "var") else "params"]
            for key in named(name).split("."):
                within = within.setdefault(key, {})
            within[field] = jnp.asarray(value)
    model = LinenResNet(tuple(blocks_of(weights)), len(weights["linear.bias"]))
    return Port(jax.tree_util.Partial(model.apply, variables), False, named)


def equinox_conv(inputs: int, features: int, stride: int, dtype: str) -> eqx.nn.Conv2d:
    key = jax.random.key(0)
    return eqx.nn.Conv2d(
        inputs, features, 3, stride, padding=1, use_bias=False, dtype=dtype, key=key
    )


def equinox_norm(features: int, dtype: str) -> eqx.nn.BatchNorm:
    return eqx.nn.BatchNorm(features, "batch", mode="ema", eps=EPSILON, dtype=dtype)


class EquinoxBlock(eqx.Module):
    conv1: eqx.nn.Conv2d
    bn1: eqx.nn.BatchNorm
    conv2: eqx.nn.Conv2d
    bn2: eqx.nn.BatchNorm
    block: Block = eqx.field(static=True)

    def __init__(self, block: Block, dtype: str):
        self.conv1 = equinox_conv(block.inputs, block.features, block.stride, dtype)
        self.bn1 = equinox_norm(block.features, dtype)
        self.conv2 = equinox_conv(block.features, block.features, 1, dtype)
        self.bn2 = equinox_norm(block.features, dtype)
        self.block = block

    def __call__(self, x, state):
        h, state = self.bn1(self.conv1(x), state)
        h, state = self.bn2(self.conv2(jax.nn.relu(h)), state)
        if self.block.stride == 2:
            more = self.block.more
            x = jnp.pad(x[:, ::2, ::2], ((more, more), (0, 0), (0, 0)))
        return jax.nn.relu(h + x), state


class EquinoxResNet(eqx.Module):
    conv1: eqx.nn.Conv2d
    bn1: eqx.nn.BatchNorm
    layer1: list[EquinoxBlock]
    layer2: list[EquinoxBlock]
    layer3: list[EquinoxBlock]
    linear: eqx.nn.Linear

    def __init__(self, blocks: list[Block], classes: int, dtype: str):
        self.conv1 = equinox_conv(3, blocks[0].inputs, 1, dtype)
        self.bn1 = equinox_norm(blocks[0].inputs, dtype)
        stage = lambda name: [EquinoxBlock(b, dtype) for b in blocks if b.stage == name]
        self.layer1, self.layer2, self.layer3 = (stage(f"layer{i}") for i in (1, 2, 3))
        key = jax.random.key(0)
        self.linear = eqx.nn.Linear(blocks[-1].features, classes, dtype=dtype, key=key)

    def __call__(self, x, state):
        x, state = self.bn1(self.conv1(x), state)
        x = jax.nn.relu(x)
        for block in (*self.layer1, *self.layer2, *self.layer3):
            x, state = block(x, state)
        return self.linear(x.mean((1, 2)))


def in_equinox(weights: Weights, dtype: str) -> Port:
    make = eqx.nn.make_with_state(EquinoxResNet)
    model, state = eqx.filter_eval_shape(
        make, blocks_of(weights), len(weights["linear.bias"]), dtype
    )
    model = eqx.nn.inference_mode(model)
    moments: dict[str, list] = {}
    for key, value in weights.items():
        name, _, field = key.rpartition(".")
        if field.startswith("running"):
            moments.setdefault(name, []).append(jnp.asarray(value, dtype))
        else:
            at = lambda m, name=name, field=field: getattr(part(m, name), field)
            model = eqx.tree_at(at, model, jnp.asarray(value, dtype))
    for name, both in moments.items():
        state = state.set(part(model, name).ema_state_index, tuple(both))
    call = jax.vmap(lambda x: model(x, state), axis_name="batch")
    return Port(call, True, lambda name: name)


class HaikuBlock(hk.Module):
    def __init__(self, block: Block):
        super().__init__(name=block.name.replace(".", "_"))
        self.block = block

    def __call__(self, x, is_training):
        h = haiku_conv_and_norm(x, self.block.features, self.block.stride, 1, is_training)
        h = haiku_conv_and_norm(jax.nn.relu(h), self.block.features, 1, 2, is_training)
        return jax.nn.relu(h + shortcut(x, self.block))


def haiku_conv_and_norm(x, features: int, stride: int, number: int, is_training: bool):
    conv = hk.Conv2D(features, 3, stride, padding=(1, 1), with_bias=False, name=f"conv{number}")
    return hk.BatchNorm(True, True, 0.9, eps=EPSILON, name=f"bn{number}")(conv(x), is_training)


def in_haiku(weights: Weights, dtype: str) -> Port:
    blocks, classes = blocks_of(weights), len(weights["linear.bias"])

    def forward(x, is_training):
        x = jax.nn.relu(haiku_conv_and_norm(x, blocks[0].inputs, 1, 1, is_training))
        for block in blocks:
            x = HaikuBlock(block)(x, is_training)
        x = hk.avg_pool(x, (*x.shape[1:3], 1), (1, 1, 1), "VALID")
        return hk.Linear(classes, name="linear")(hk.Flatten()(x))

    module = hk.without_apply_rng(hk.transform_with_state(forward))
    named = lambda name: "/".join(name.rsplit(".", 1)).replace(".", "_")
    wide = lambda a: a.reshape(1, 1, 1, -1)
    params: dict = {}
    state: dict = {}
    for name, p in in_flax(weights, dtype).items():
        p = {field: jnp.asarray(value) for field, value in p.items()}
        if "mean" in p:
            params[named(name)] = {"scale": wide(p["scale"]), "offset": wide(p["bias"])}
            for moment in ("mean", "var"):
                average = wide(p[moment])
                entry = {"average": average, "hidden": average, "counter": jnp.int32(1)}
                state[f"{named(name)}/~/{moment}_ema"] = entry
        else:
            params[named(name)] = {"w": p["kernel"]} | ({"b": p["bias"]} if "bias" in p else {})
    return Port(lambda x: module.apply(params, state, x, False)[0], False, named)


def in_keras(weights: Weights, dtype: str) -> Port:
    layers = keras.layers

    def conv_and_norm(x, features, stride, block, number):
        # "same" would put all of the padding of a strided convolution at one end.
        x = layers.ZeroPadding2D(1)(x) if stride == 2 else x
        padding = "valid" if stride == 2 else "same"
        name = f"{block}conv{number}"
        x = layers.Conv2D(features, 3, stride, padding, use_bias=False, name=name)(x)
        return layers.BatchNormalization(epsilon=EPSILON, name=f"{block}bn{number}")(x)

    blocks = blocks_of(weights)
    image = keras.Input((None, None, 3))
    x = layers.ReLU()(conv_and_norm(image, blocks[0].inputs, 1, "", 1))
    for block in blocks:
        prefix = block.name.replace(".", "_") + "_"
        h = layers.ReLU()(conv_and_norm(x, block.features, block.stride, prefix, 1))
        h = conv_and_norm(h, block.features, 1, prefix, 2)
        if block.stride == 2:
            x = keras.ops.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (block.more, block.more)))
        x = layers.ReLU()(layers.Add()([h, x]))
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, layers.Dense(len(weights["linear.bias"]), name="linear")(x))
    named = lambda name: name.replace(".", "_")
    for name, values in in_flax(weights, dtype).items():
        model.get_layer(named(name)).set_weights(list(values.values()))
    return Port(model, False, named)


def in_lax(weights: Weights, dtype: str) -> Port:
    """Channels first, with torch's own arrays."""
    blocks = blocks_of(weights)

    def conv_and_norm(p, block, number, x, stride=1):
        kernel, bn = p[f"{block}conv{number}.weight"], f"{block}bn{number}"
        z = lax.conv_general_dilated(x, kernel, (stride, stride), [(1, 1), (1, 1)])
        wide = lambda field: p[f"{bn}.{field}"][:, None, None]
        scale = wide("weight") * lax.rsqrt(wide("running_var") + EPSILON)
        return (z - wide("running_mean")) * scale + wide("bias")

    def forward(p, x):
        x = jnp.maximum(conv_and_norm(p, "", 1, x), 0)
        for block in blocks:
            h = jnp.maximum(conv_and_norm(p, f"{block.name}.", 1, x, block.stride), 0)
            h = conv_and_norm(p, f"{block.name}.", 2, h)
            if block.stride == 2:
                none, edge = (0, 0, 0), (block.more, block.more, 0)
                x = lax.pad(x[:, :, ::2, ::2], x.dtype.type(0), (none, edge, none, none))
            x = jnp.maximum(h + x, 0)
        return x.mean((2, 3)) @ p["linear.weight"].T + p["linear.bias"]

    return by_hand(forward, weights, dtype)


LIBRARIES = {
    "lax": in_lax,
    "nnx": in_nnx,
    "linen": in_linen,
    "equinox": in_equinox,
    "haiku": in_haiku,
    "keras": in_keras,
}
