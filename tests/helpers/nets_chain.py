"""Small networks whose relevance matrices are known layer by layer, from the oracle's equations."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from helpers import oracle
from lrpjax.propagation.descent import descent

NUMBERS = ("NHWC", "HWIO", "NHWC")
WINDOWS = oracle.windows((4, 4, 3), (2, 2, 1), (2, 2, 1), ((0, 0),) * 3)

# name: the rules of linear layers, sums and additions, and whether activations differentiate
METHODS = {
    "lrp-z": (oracle.z, oracle.z, oracle.add_signed),
    "lrp-epsilon": (oracle.epsilon, oracle.z, oracle.add_signed),
    "lrp-gamma": (oracle.gamma, oracle.z, oracle.add_signed),
    "lrp-flat": (oracle.flat, oracle.z, oracle.add_signed),
    "lrp-zplus": (oracle.zplus, oracle.zplus, partial(oracle.add_alpha_beta, alpha=1, beta=0)),
    "lrp-alpha2-beta1": (
        partial(oracle.alpha_beta, alpha=2, beta=1),
        oracle.z,
        partial(oracle.add_alpha_beta, alpha=2, beta=1),
    ),
    "gradient": (lambda layer, x, R: layer.W.T @ R,) * 2 + (lambda a, c, R: (R, R),),
}


def linear_chain(*matrices):
    """A model of dense layers fc1, fc2, ... whose Z under "gradient" are these, fc1's first."""

    def forward(p, x):
        for i in range(len(p)):
            x = x @ p[f"fc{i + 1}"]["kernel"]
        return x

    weights = {f"fc{i}": {"kernel": jnp.asarray(z).T} for i, z in enumerate(matrices, 1)}
    return jax.tree_util.Partial(forward, weights)


def relu_chain(*kernels):
    """Dense layers fc1, fc2, ... of kernels (in, out) with ReLUs between them."""

    def forward(p, x):
        for i in range(len(p)):
            x = (jax.nn.relu(x) if i else x) @ p[f"fc{i + 1}"]["kernel"]
        return x

    weights = {f"fc{i}": {"kernel": jnp.asarray(w)} for i, w in enumerate(kernels, 1)}
    return jax.tree_util.Partial(forward, weights)


def conv(p, x):
    product = lax.conv_general_dilated(x, p["kernel"], (1, 1), "SAME", dimension_numbers=NUMBERS)
    return product + p["bias"]


def residual_net(p, x):
    """Of every kind a layer: x (N, 4, 4, 2) to (N, 4)."""
    h = jax.nn.relu(conv(p["conv1"], x))
    with jax.named_scope("pool"):
        h = lax.reduce_window(h, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    h = jax.nn.relu(h + conv(p["conv2"], h))
    with jax.named_scope("mean"):
        h = h.mean((1, 2))
    return h @ p["fc"]["kernel"] + p["fc"]["bias"]


def residual_weights(seed=0, dtype="float64"):
    draw = np.random.default_rng(seed).normal
    sizes = {"conv1": (3, 3, 2, 3), "conv2": (3, 3, 3, 3), "fc": (3, 4)}
    return {
        name: {
            "kernel": jnp.asarray(draw(size=shape) / np.sqrt(np.prod(shape[:-1])), dtype),
            "bias": jnp.asarray(draw(size=shape[-1]) / 4, dtype),
        }
        for name, shape in sizes.items()
    }


def residual_matrices(p, x, method):
    """Z_l (n_out, n_in) of each layer of `residual_net`: the rule applied to unit vectors."""
    linear, total, add = METHODS[method]
    matrices = {}

    def rows(name, rule, out):
        units = np.eye(np.size(out)).reshape(-1, *np.shape(out))
        matrices[name] = np.stack([np.concatenate(rule(e), None) for e in units])

    def affine(name, rule, f, h, wiring=None):
        layer = oracle.affine(f, h.shape[1:], wiring)
        rows(name, lambda R: [rule(layer, h.ravel(), R.ravel())], f(h))
        return np.asarray(f(h))

    def relu(name, z):
        slope = (z > 0).astype(float) if method == "gradient" else np.ones_like(z)
        rows(name, lambda R: [slope * R], z)
        return np.maximum(z, 0)

    ones = jax.tree.map(jnp.ones_like, p)
    layer = lambda f, name: (partial(f, p[name]), partial(f, ones[name]))
    f, wiring = layer(conv, "conv1")
    h = relu("conv1:relu", affine("conv1", linear, f, x, wiring))
    pooled = np.array([h.ravel()[w].max() for w in WINDOWS]).reshape(1, 2, 2, 3)
    rows("pool", lambda R: [oracle.winner_takes_all(WINDOWS, h, R)], pooled)
    f, wiring = layer(conv, "conv2")
    branch = affine("conv2", linear, f, pooled, wiring)
    rows("add_1", lambda R: [v.ravel() for v in add(pooled, branch, R)], branch)
    h = relu("add_1:relu", pooled + branch)
    h = affine("mean", total, lambda h: h.mean((1, 2)), h)
    f, wiring = layer(lambda q, h: h @ q["kernel"] + q["bias"], "fc")
    affine("fc", linear, f, h, wiring)
    return matrices


def residual_products(z):
    """Z from the output of each layer on the main path down to the input, and to pool's."""
    n = z["add_1"].shape[0]
    block = z["add_1"][:, :n] + z["add_1"][:, n:] @ z["conv2"]
    steps = [z["conv1"], z["conv1:relu"], z["pool"], block, z["add_1:relu"], z["mean"], z["fc"]]
    names = ["conv1", "conv1:relu", "pool", "add_1", "add_1:relu", "mean", "fc"]
    whole = np.eye(z["conv1"].shape[1])
    found = {}
    for name, step in zip(names, steps, strict=True):
        whole = step @ whole
        found[name] = whole
    to_pool = z["fc"] @ z["mean"] @ z["add_1:relu"] @ block
    return found, to_pool


def links(reading, method, start, stop):
    """The chain as consecutive operators."""
    return descent(reading, method, start, [stop]).links(stop)
