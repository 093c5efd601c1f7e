"""A batch of no images has maps of no images, for every method and every network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

RANDOM = np.random.default_rng(0)
P = {"a": RANDOM.normal(size=(4, 6)), "b": RANDOM.normal(size=(6, 3))}
KERNEL = RANDOM.normal(size=(3, 3, 2, 4))


def norm(h):
    return (h - h.mean(-1, keepdims=True)) * lax.rsqrt(h.var(-1, keepdims=True) + 1e-5)


def convolutional(p, x):
    layout = ("NHWC", "HWIO", "NHWC")
    h = jax.nn.relu(lax.conv_general_dilated(x, KERNEL, (1, 1), "SAME", dimension_numbers=layout))
    h = lax.reduce_window(h, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
    h = lax.reduce_window(h, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return h.reshape(-1, 4) @ p["b"][:4]


def attention(p, x):
    weights = jax.nn.softmax(jnp.einsum("...td,...sd->...ts", x @ p["a"], x @ p["a"]))
    return (norm(weights @ jax.nn.relu(x @ p["a"])) @ p["b"]).mean(1)


NETS = {
    "dense": (lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"], (4,)),
    "norm": (lambda p, x: norm(jax.nn.relu(x @ p["a"])) @ p["b"], (4,)),
    "convolutional": (convolutional, (4, 4, 2)),
    "attention": (attention, (5, 4)),
}


def made(name):
    if name == "smooth-grad":
        return lrp.methods.get(name, key=jax.random.key(0))
    return lrp.methods.get(name, **({"unknown": "gradient"} if "deeplift" in name else {}))


def usable(chain):
    found = []
    for name, entry in lrp.methods.TABLE.items():
        if entry.needs in ("", "key") and (entry.chain or not chain):
            found.append(name)
    return found


def model_of(net):
    return jax.tree_util.Partial(NETS[net][0], P)


@pytest.mark.parametrize("net", NETS)
def test_attribute_gives_no_maps(net):
    shape = NETS[net][1]
    x = np.zeros((0, *shape))
    for name in usable(chain=False):
        for target in (None, 1, np.zeros(0, int)):
            found = lrp.attribute(model_of(net), x, made(name), target=target)
            assert (found.shape, found.dtype) == (x.shape, x.dtype), name


@pytest.mark.parametrize("net", NETS)
def test_vjp_gives_no_outputs_and_no_maps(net):
    x = np.zeros((0, *NETS[net][1]))
    for name in usable(chain=True):
        out, pull = lrp.vjp(model_of(net), x, made(name), layers=["b", "input"])
        assert out.shape == (0, 3), name
        found, inner = jax.jit(lambda pull: pull(jnp.zeros((0, 3))))(pull)
        assert found.shape == inner["input"].shape == x.shape
        assert inner["b"].shape == (0, *inner["b"].shape[1:])
        with pytest.raises(ValueError, match="must have shape"):
            pull(jnp.zeros((1, 3)))


def test_what_is_wrong_for_one_image_is_wrong_for_none():
    x = np.zeros((0, 4))
    model = model_of("dense")
    with pytest.raises(NotImplementedError, match="sin"):
        lrp.attribute(lambda x: jnp.sin(x) @ P["a"], x, "lrp-z", target=0)
    with pytest.raises(ValueError, match="target"):
        lrp.attribute(model, x, "lrp-z", target=7)
    with pytest.raises(ValueError, match="no layer"):
        lrp.vjp(model, x, "lrp-z", start="nowhere")


def test_under_jit_and_in_a_pytree():
    x = {"x": np.zeros((0, 4)), "y": np.zeros((0, 4))}
    model = lambda x: jax.nn.relu(x["x"] @ P["a"] + x["y"] @ P["a"]) @ P["b"]
    found = jax.jit(lambda x: lrp.attribute(model, x, "rect-grad", target=0))(x)
    assert found["y"].shape == (0, 4)
    out, pull = lrp.vjp(model, x, "rect-grad", start="dense_1")
    assert out.shape == (0, 3) and pull(jnp.zeros((0, 6)))["x"].shape == (0, 4)
