"""The bounds of the z-box are those of what the first layer reads, whatever lies in front of it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

EXACT, ADDED = 1e-9, {"stabiliser": 1e-12}
get = partial(lrp.methods.get, **ADDED)
WORD = np.random.default_rng(3)
W, U = (WORD.normal(size=(4, 5)) + 0.3 for _ in range(2))
V = WORD.normal(size=(5, 3)) + 0.5
PARAMETERS = {"w": jnp.asarray(W), "u": jnp.asarray(U), "v": jnp.asarray(V)}
MEAN, STD = np.array([100.0, 120, 90, 80]), np.array([50.0, 60, 70, 80])
X = WORD.uniform(0, 255, (3, 4))
FIRST = {
    "deep-taylor": lambda low, high: get("deep-taylor", low=low, high=high),
    "epsilon-gamma-box": lambda low, high: get("epsilon-gamma-box", low=low, high=high),
    "a composite of one's own": lambda low, high: lrp.methods.Method(
        "mine",
        lrp.composites.or_else(
            lrp.composites.first_layer(lrp.rules.rule(lrp.rules.zbox, low=low, high=high, **ADDED)),
            get("lrp-zplus").composite,
        ),
    ),
}


def held(function, **more):
    return jax.tree_util.Partial(function, PARAMETERS | more)


def two_branches(prepare):
    def model(p, x):
        y = prepare(x)
        return (jax.nn.relu(y @ p["w"]) + jax.nn.relu(y @ p["u"])) @ p["v"]

    return held(model)


def written_twice(prepare):
    """The same function, in which the steps in front are folded into each branch."""
    return held(
        lambda p, x: (jax.nn.relu(prepare(x) @ p["w"]) + jax.nn.relu(prepare(x) @ p["u"])) @ p["v"]
    )


def close(found, wanted):
    scale = np.abs(np.asarray(wanted)).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=EXACT * scale)


PREPARED = {
    "over 255": lambda x: x / 255.0,
    "to between -1 and 1": lambda x: x / 127.5 - 1,
    "per channel": lambda x: (x - MEAN) / STD,
    "a negative factor": lambda x: 1 - x / 255.0,
    "negated": lambda x: -x,
    "factors of both signs": lambda x: x * np.array([0.1, -0.2, 0.3, -0.4]),
}


def test_the_values_by_hand():
    """y = (.6, .2) lies in [0, 1]: in both branches the terms are .6 and -.5 (.2 - 1) = .4."""
    p = {"w": jnp.array([[1.0], [-0.5]]), "v": jnp.ones((1, 1))}

    def model(p, x):
        y = x / 255
        return jax.nn.relu(y @ p["w"]) @ p["v"] + jax.nn.relu(y @ p["w"]) @ p["v"]

    method = get("deep-taylor", low=0, high=255)
    x = np.array([[153.0, 51.0]])
    close(lrp.attribute(jax.tree_util.Partial(model, p), x, method, target=0), [[0.6, 0.4]])


@pytest.mark.parametrize("method", FIRST)
@pytest.mark.parametrize("name", PREPARED)
def test_steps_that_two_branches_read_are_those_folded_into_each(name, method):
    method = FIRST[method](0.0, 255.0)
    shared, apart = two_branches(PREPARED[name]), written_twice(PREPARED[name])
    assert {a.kind for a in lrp.plan(shared, X, method).layers} & {"scale", "factor"}
    assert not {a.kind for a in lrp.plan(apart, X, method).layers} & {"scale", "factor"}
    for target in range(3):
        maps = [lrp.attribute(model, X, method, target=target) for model in (shared, apart)]
        close(*maps)


def test_unfolded_steps_are_the_folded_ones():
    """Without folding the step is a layer of its own, which hands on what z-box gives below."""
    model = held(lambda p, x: jax.nn.relu((x / 255.0) @ p["w"]) @ p["v"])
    folded = get("deep-taylor", low=0, high=255)
    unfolded = get("deep-taylor", low=0, high=255, fold=False)
    close(*(lrp.attribute(model, X, m, target=1) for m in (unfolded, folded)))


def test_bounds_of_channels_follow_their_axis():
    """Channels turned round and moved in front: the bounds with them."""
    kernel = jnp.asarray(WORD.normal(size=(3, 3, 3, 4)) + 0.1)
    v = jnp.asarray(WORD.normal(size=(4, 3)))
    numbers = ("NCHW", "HWIO", "NCHW")

    def conv(y, w):
        return jax.nn.relu(jax.lax.conv_general_dilated(y, w, (1, 1), "SAME", None, None, numbers))

    def model(p, x):
        y = x[..., ::-1].transpose(0, 3, 1, 2)
        y = y / np.array([1.0, 2.0, 4.0]).reshape(1, 3, 1, 1)
        return (conv(y, p["k"]) + conv(y, 2 * p["k"])).mean((2, 3)) @ p["v"]

    def rest(p, y):
        return (conv(y, p["k"]) + conv(y, 2 * p["k"])).mean((2, 3)) @ p["v"]

    p = {"k": kernel, "v": v}
    low, high = np.array([-1.0, -2.0, -3.0]), np.array([1.0, 2.5, 4.0])
    x = WORD.uniform(low, high, (2, 4, 5, 3))
    y = x[..., ::-1].transpose(0, 3, 1, 2) / np.array([1.0, 2.0, 4.0]).reshape(1, 3, 1, 1)
    scaled = [b[::-1] / np.array([1.0, 2.0, 4.0]) for b in (low, high)]
    method, of_y = (FIRST["deep-taylor"](tuple(a), tuple(b)) for a, b in ((low, high), scaled))
    found = lrp.attribute(jax.tree_util.Partial(model, p), x, method, target=0)
    wanted = lrp.attribute(jax.tree_util.Partial(rest, p), y, of_y, target=0)
    close(found, np.asarray(wanted).transpose(0, 2, 3, 1)[..., ::-1])


def test_an_explicit_pad_is_the_padding_of_the_convolution():
    """What is padded with is a constant, and no entry of the box."""
    p = {
        "k": jnp.asarray(WORD.normal(size=(3, 3, 2, 4))),
        "v": jnp.asarray(WORD.normal(size=(4, 3))),
    }
    numbers = ("NHWC", "HWIO", "NHWC")

    def model(p, x, padding):
        y = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))) if padding == "VALID" else x
        y = jax.lax.conv_general_dilated(y, p["k"], (1, 1), padding, None, None, numbers)
        return jax.nn.relu(y).mean((1, 2)) @ p["v"]

    x = WORD.uniform(-1, 2, (2, 4, 4, 2))
    maps = [
        lrp.attribute(
            jax.tree_util.Partial(lambda p, x, how=how: model(p, x, how), p),
            x,
            get("deep-taylor", low=-1, high=2),
            target=0,
        )
        for how in ("VALID", "SAME")
    ]
    close(*maps)


FIXED = WORD.normal(size=(4, 4))
GRID = {"low": -3.0, "high": 2.0}
# what lies in front: the function, and its bounds by hand from those of each entry
IN_FRONT = {
    "tanh": (jnp.tanh, lambda l, u: (np.tanh(l), np.tanh(u))),
    "sigmoid": (jax.nn.sigmoid, lambda l, u: (1 / (1 + np.exp(-l)), 1 / (1 + np.exp(-u)))),
    "a clip": (lambda x: jnp.clip(x, -1, 1), lambda l, u: (np.clip(l, -1, 1), np.clip(u, -1, 1))),
    "a running sum": (lambda x: jnp.cumsum(x, 1), lambda l, u: (np.cumsum(l), np.cumsum(u))),
    "a fixed map": (
        lambda x: x @ FIXED,
        lambda l, u: (
            l @ np.maximum(FIXED, 0) + u @ np.minimum(FIXED, 0),
            u @ np.maximum(FIXED, 0) + l @ np.minimum(FIXED, 0),
        ),
    ),
    "a mean over pairs": (
        lambda x: jnp.repeat(x.reshape(-1, 2, 2).mean(-1), 2, axis=1),
        lambda l, u: (l, u),
    ),
    "a mean of scaled pairs": (
        lambda x: jnp.repeat((x * np.array([1.0, -2, 1, -2])).reshape(-1, 2, 2).mean(-1), 2, 1),
        lambda l, u: ((l - 2 * u) / 2, (u - 2 * l) / 2),
    ),
    "a maximum over pairs": (
        lambda x: jnp.repeat(x.reshape(-1, 2, 2).max(-1), 2, axis=1),
        lambda l, u: (l, u),
    ),
}


@pytest.mark.parametrize("name", IN_FRONT)
def test_bounds_are_carried_through_what_lies_in_front(name):
    """The relevance of what the first layer reads is that of the rest of the model on its own."""
    prepare, bounds = IN_FRONT[name]
    x = WORD.uniform(-3, 2, (3, 4))
    model = held(lambda p, x: jax.nn.relu(prepare(x) @ p["w"]) @ p["v"])
    rest = held(lambda p, y: jax.nn.relu(y @ p["w"]) @ p["v"])
    method = get("deep-taylor", **GRID)
    of_w = next(a for a in lrp.plan(model, x, method).layers if a.name == "w")
    assert of_w.first
    before = next(
        a.name for a in lrp.plan(model, x, method).layers if a.outputs[0] == of_w.inputs[0]
    )
    out, pull = lrp.vjp(model, x, method, layers=[before])
    seed = jnp.asarray(np.random.default_rng(0).normal(size=out.shape))
    low, high = bounds(np.full(4, GRID["low"]), np.full(4, GRID["high"]))
    of_y = get("deep-taylor", low=tuple(low), high=tuple(high))
    wanted = lrp.vjp(rest, prepare(x), of_y)[1](seed)
    close(pull(seed)[1][before], wanted)


def test_a_resized_image_has_the_bounds_of_both_sides():
    """A cubic resize has weights of both signs along two axes, one after the other."""
    x = WORD.uniform(-3, 2, (2, 4, 4, 1))
    w = jnp.asarray(WORD.normal(size=(36, 3)))
    resize = lambda x: jax.image.resize(x, (len(x), 6, 6, 1), "cubic").reshape(len(x), 36)
    model = jax.tree_util.Partial(lambda p, x: resize(x) @ p["w"], {"w": w})
    matrix = np.asarray(jax.vmap(lambda e: resize(e[None])[0])(np.eye(16).reshape(16, 4, 4, 1)))
    up, down = np.maximum(matrix, 0).sum(0), np.minimum(matrix, 0).sum(0)
    low, high = -3 * up + 2 * down, 2 * up - 3 * down
    found = lrp.vjp(model, x, get("deep-taylor", **GRID))[1](jnp.ones((2, 3)))
    rest = jax.tree_util.Partial(lambda p, y: y @ p["w"], {"w": w})
    of_y = get("deep-taylor", low=tuple(low), high=tuple(high))
    r = lrp.vjp(rest, resize(x), of_y)[1](jnp.ones((2, 3)))
    wanted = lrp.vjp(resize, x, get("lrp-z"))[1](r)
    close(found, wanted)


def standardised(x):
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)


REFUSED = {
    "LayerNorm": (standardised, "norm"),
    "RMSNorm": (lambda x: x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-6), "norm"),
    "a product": (lambda x: x * jnp.tanh(x), "product"),
    "gelu": (jax.nn.gelu, "gelu_tanh"),
    "a mean taken off": (lambda x: x - x.mean(-1, keepdims=True), "add"),
    "two running sums": (
        lambda x: jnp.cumsum(jnp.cumsum(x, 1) * np.array([1, -1, 1, -1]), 1),
        "sum",
    ),
    "two fixed maps": (lambda x: jnp.tanh(jnp.tanh(x @ FIXED) @ FIXED), "fixed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_bounds_of_its_own_is_refused(name):
    prepare, kind = REFUSED[name]
    model = held(lambda p, x: jax.nn.relu(prepare(x) @ p["w"]) @ p["v"])
    method = get("deep-taylor", low=0, high=255)
    said = rf"layer 'w' reads.*\({kind}; .*test_bounds.py:\d+.*Pass the model without it"
    with pytest.raises(NotImplementedError, match=said):
        lrp.attribute(model, X, method, target=0)
    lrp.attribute(model, X, get("deep-taylor", first="wsquare"), target=0)


def test_two_inputs_may_be_added():
    """What is made of different inputs reaches all sums of their bounds."""
    x = {"a": WORD.uniform(0, 1, (2, 4)), "b": WORD.uniform(0, 1, (2, 4))}
    both = held(lambda p, x: jax.nn.relu((x["a"] + x["b"]) @ p["w"]) @ p["v"])
    rest = held(lambda p, y: jax.nn.relu(y @ p["w"]) @ p["v"])
    one, two = (get("deep-taylor", low=0, high=n) for n in (1, 2))
    found = lrp.attribute(both, x, one, target=0)
    close(found["a"] + found["b"], lrp.attribute(rest, x["a"] + x["b"], two, target=0))
