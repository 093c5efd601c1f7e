"""Where the batch is, and what mixes its examples: each model is also tried on changed examples."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.nn import relu, softmax

import lrpjax as lrp
from lrpjax.graph.reading import read
from lrpjax.program import primitives, trace
from lrpjax.program.axes import find_axes
from lrpjax.program.axis_rules import RULES

pytestmark = pytest.mark.usefixtures("quick_compile")

RANDOM = np.random.default_rng(0)
W = RANDOM.normal(size=(3, 3))
SQUARE = RANDOM.normal(size=(4, 4))
MIX = RANDOM.normal(size=(5, 5))
KERNEL = RANDOM.normal(size=(3, 3, 3, 5))
TABLE = RANDOM.normal(size=(7, 3))
X = RANDOM.normal(size=(4, 3))
TOKENS = RANDOM.normal(size=(4, 5, 3))
IMAGES = RANDOM.normal(size=(4, 6, 6, 3))
LAYOUT = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}


def graph(model, x):
    return read(model, x).graph


def conv(x, kernel=KERNEL):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", **LAYOUT)


def attention(x):
    weights = softmax(jnp.einsum("...td,...sd->...ts", x @ W, x))
    return jnp.einsum("...ts,...sd->...td", weights, x)


def heads(x):
    q = (x @ W).reshape(*x.shape[:2], 3, 1)
    weights = softmax(jnp.einsum("nthd,nshd->nhts", q, q))
    return jnp.einsum("nhts,nshd->nthd", weights, q).reshape(x.shape)


def recurrent(x):
    """Time-major inside, as many an RNN is."""
    step = lambda h, x_t: (jnp.tanh(x_t @ W + h @ W), h)
    return lax.scan(step, jnp.zeros((len(x), 3)), x.swapaxes(0, 1))[0]


def group_norm(x):
    groups = x.reshape(*x.shape[:3], 1, 3)
    centred = groups - groups.mean((1, 2, 4), keepdims=True)
    return conv((centred * lax.rsqrt(groups.var((1, 2, 4), keepdims=True) + 1)).reshape(x.shape))


def patches(x):
    cut = x.reshape(-1, 3, 2, 3, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 9, 12)
    return (cut @ np.ones((12, 2))).mean(1)


def pixel_shuffle(x):
    parts = conv(x)[..., :4].reshape(-1, 6, 6, 2, 2, 1)
    return parts.transpose(0, 1, 3, 2, 4, 5).reshape(-1, 12, 12, 1).mean((1, 2))


def own_weights(x):
    """One kernel for each example, which vmap turns into groups of one convolution."""
    one = lambda x, w: conv(x[None], w)[0].mean((0, 1))
    return jax.vmap(one)(x, jnp.stack([KERNEL * i for i in range(1, 5)]))


def own_norm(x):
    centred = x - x.mean((1, 2), keepdims=True)
    return centred / jnp.sqrt((centred**2).mean((1, 2), keepdims=True) + 1)


APART = {  # models that keep their examples apart, and where the batch of the output is
    "dense": (lambda x: relu(x @ W) @ W, X, 0),
    "all of a slice": (lambda x: x[:] @ W, X, 0),
    "attention": (attention, TOKENS, 0),
    "attention vmapped": (jax.vmap(attention), TOKENS, 0),
    "heads": (heads, TOKENS, 0),
    "recurrent": (recurrent, TOKENS, 0),
    "time first": (lambda x: relu(x.swapaxes(0, 1) @ W), TOKENS, 1),
    "group norm": (group_norm, IMAGES, 0),
    "instance norm": (own_norm, IMAGES, 0),
    "patches": (patches, IMAGES, 0),
    "pixel shuffle": (pixel_shuffle, IMAGES, 0),
    "merged and apart again": (
        lambda x: relu(x.reshape(-1, 3) @ W).reshape(x.shape).mean((1, 2)),
        IMAGES,
        0,
    ),
    "merged at the end": (lambda x: x.reshape(-1, 3) @ W, TOKENS, None),
    "vmapped convolution": (jax.vmap(lambda x: conv(x[None])[0]), IMAGES, 0),
    "a kernel for each example": (own_weights, IMAGES, 0),
    "vmapped onto the last axis": (jax.vmap(lambda x: relu(x @ W), out_axes=1), X, 1),
    "mapped": (lambda x: lax.map(lambda a: relu(a @ W), x), X, 0),
    "mapped by threes": (lambda x: lax.map(lambda a: relu(a @ W), x, batch_size=3), X, 0),
    "mapped by twos": (lambda x: lax.map(lambda a: relu(a @ W), x, batch_size=2), X, 0),
    "a loop over examples": (lambda x: jnp.stack([relu(a @ W) for a in x]), X, 0),
    "a loop, concatenated": (lambda x: jnp.concatenate([x[i : i + 1] @ W for i in range(4)]), X, 0),
    "every second one": (
        lambda x: jnp.stack([x[::2] @ W, x[1::2] @ W], 1).reshape(4, 3),
        X,
        0,
    ),
    "two views in one batch": (
        lambda x: relu(jnp.concatenate([x, x[:, ::-1]]) @ W).reshape(2, 4, 3).mean(0),
        X,
        0,
    ),
    "three views, the second": (
        lambda x: jnp.concatenate([jnp.concatenate([x, 2 * x]), 3 * x])[4:8] @ W,
        X,
        0,
    ),
    "two views, split": (lambda x: sum(jnp.split(relu(jnp.tile(x, (2, 1)) @ W), 2)), X, 0),
    "repeated": (lambda x: relu(jnp.repeat(x, 2, 0) @ W).reshape(4, 2, 3).sum(1), X, 0),
    "one token each": (lambda x: (x @ W)[jnp.arange(4), jnp.array([0, 2, 4, 1])], TOKENS, 0),
    "the largest": (lambda x: jnp.take_along_axis(x @ W, x.argmax(1)[:, None], 1), X, 0),
    "sorted": (lambda x: jnp.sort(x, 1) @ W, X, 0),
    "summed up in time": (lambda x: jnp.cumsum(x, 1) @ W, TOKENS, 0),
    "rolled in time": (lambda x: jnp.roll(x, 1, 1) @ W, TOKENS, 0),
    "a class token": (lambda x: attention(jnp.pad(x, ((0, 0), (1, 0), (0, 0))))[:, 0], TOKENS, 0),
    "some set to 0": (lambda x: x.at[:, 0].set(0) @ W, X, 0),
    "one example set to 0": (lambda x: x.at[0].set(0) @ W, X, 0),
    "a constant written over": (
        lambda x: lax.dynamic_update_slice(x, np.ones((4, 1)), (0, 0)),
        X,
        0,
    ),
    "pooled": (
        lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "SAME"),
        IMAGES,
        0,
    ),
    "spectrum": (lambda x: jnp.abs(jnp.fft.rfft(x)), X, 0),
    "tokens mixed": (lambda x: MIX @ x @ W, TOKENS, 0),
    "a constant of each example": (lambda x: (x * np.arange(4.0)[:, None]) @ W, X, 0),
}


def effects(model, x, batch=0):
    """Whether the change of one example changes what the model makes of another. batch: the axis
    of the output along which its examples are."""
    model = jax.jit(model)
    before, found = np.asarray(model(x)), False
    for k in range(len(x)):
        changed = np.moveaxis(before != np.asarray(model(x + 0.5 * one(k, x))), batch, 0)
        others = np.arange(len(x)) != k
        found = found or changed.reshape(len(x), -1)[others].any()
    return found


def one(k, x):
    return (np.arange(len(x)) == k).reshape(-1, *[1] * (x.ndim - 1))


@pytest.mark.parametrize(("model", "x", "batch"), APART.values(), ids=APART)
def test_examples_apart_are_read_and_their_axis_is_found(model, x, batch):
    found = graph(model, x)
    assert found.axes.mixes is None
    assert not effects(model, x, batch or 0)
    value = found.program.outputs[0]
    assert found.axes.batch[value] == batch
    layout = found.axes.layout[value]
    assert np.prod([layout.shape[i] for i in layout.batch]) == len(x)


def centred(x, axis=0):
    return x - x.mean(axis, keepdims=True)


STATISTIC = {
    "centred": (centred, X),
    "merged": (lambda x: centred(x.reshape(-1, 3)).reshape(x.shape).mean((1, 2)), IMAGES),
    "merged twice": (
        lambda x: centred(x.reshape(24, 6, 3).reshape(-1, 3)).reshape(x.shape),
        IMAGES,
    ),
    "vmapped over features": (
        lambda x: x - jax.vmap(lambda a: a.mean(), in_axes=1)(x),  # its axis is an np.int64
        X,
    ),
    "over a named axis": (jax.vmap(lambda a: a - lax.pmean(a, "b"), axis_name="b"), X),
    "time first": (lambda x: centred(x.swapaxes(0, 1), 1).mean(0), TOKENS),
}
MIXED = {  # what mixes the examples, by the primitive that does
    "attention": ("dot_general", attention, X),
    "a matrix of ones": ("dot_general", lambda x: np.ones((4, 4)) / 4 @ (x @ W), X),
    "cumulated": ("cumsum", lambda x: jnp.cumsum(x, 0) @ W, X),
    "the first one": ("sub", lambda x: x @ W - (x @ W)[:1], X),
    "rolled": ("concatenate", lambda x: jnp.roll(x, 1, 0) @ W, X),
    "padded and cut": ("pad", lambda x: jnp.pad(x, ((1, 0), (0, 0)))[:-1] @ W, X),
    "a window": (
        "reduce_window_max",
        lambda x: lax.reduce_window(x, -np.inf, lax.max, (2, 1), (1, 1), "SAME"),
        X,
    ),
    "reversed": ("rev", lambda x: x[::-1] @ W, X),
    "sorted": ("sort", lambda x: jnp.sort(x, 0) @ W, X),
    "another axis": ("add", lambda x: x @ SQUARE[:3] + (x @ SQUARE[:3]).T, X),
    "one for all": ("slice", lambda x: jnp.broadcast_to(x[:1], x.shape) @ W, X),
    "one for all, squeezed": ("slice", lambda x: jnp.broadcast_to(x[0], x.shape) @ W, X),
    "permuted": ("gather", lambda x: x[jnp.array([1, 0, 2, 3])] @ W, X),
    "softmax": ("reduce_max", lambda x: softmax(x @ W, 0), X),
    "the largest of all": ("argmax", lambda x: x @ W * jnp.argmax(x, 0), X),
    "the batch as features": (
        "conv_general_dilated",
        lambda x: conv(x.transpose(1, 2, 3, 0), np.ones((3, 3, 4, 4))).transpose(3, 0, 1, 2),
        IMAGES,
    ),
    "the batch as a place": ("conv_general_dilated", lambda x: conv(x[None, None])[0, 0], X),
    "written over": (
        "dynamic_update_slice",
        lambda x: lax.dynamic_update_slice(x, x[:1], (2, 0)),
        X,
    ),
    "one set to another": ("scatter", lambda x: x.at[0].set(x[1]) @ W, X),
    "views of other examples": (
        "slice",
        lambda x: (lambda v: v[:4] - v[3:7])(jnp.concatenate([x, 2 * x])) @ W,
        X,
    ),
    "another order": ("stack", lambda x: jnp.stack([x[i] @ W for i in (1, 0, 2, 3)]), X),
    "carried on": ("add", lambda x: lax.scan(lambda h, a: (h + a,) * 2, jnp.zeros(3), x)[1], X),
    "spectrum": ("fft", lambda x: jnp.fft.fft(x, axis=0).real @ W, X),
    "a reshape that tears": ("reshape", lambda x: (x.reshape(3, 4) @ SQUARE).reshape(4, 3), X),
    "reversed with the features": ("rev", lambda x: x.reshape(-1)[::-1].reshape(4, 3) @ W, X),
    "merged, then mixed": (
        "dot_general",
        lambda x: attention(x.reshape(-1, 3)).reshape(x.shape),
        TOKENS,
    ),
}


@pytest.mark.parametrize(("model", "x"), STATISTIC.values(), ids=STATISTIC)
def test_statistics_over_the_batch_are_refused_as_training_mode(model, x):
    assert effects(model, x)
    with pytest.raises(ValueError, match=r"reduces over the batch axis at .*test_axes_batch\.py"):
        graph(model, x)


@pytest.mark.parametrize(("primitive", "model", "x"), MIXED.values(), ids=MIXED)
def test_what_mixes_examples_is_refused_by_its_name_and_line(primitive, model, x):
    assert effects(model, x)
    line = rf"depend on others: {primitive} at .*test_axes_batch\.py:\d+.*jax\.vmap.*x\[None\]\.$"
    with pytest.raises(ValueError, match=line):
        graph(model, x)


def test_a_statistic_over_one_example_is_refused_as_over_more():
    with pytest.raises(ValueError, match="reduces over the batch axis"):
        graph(lambda x: centred(x) @ W, X[:1])


ONE = {  # with one example in the batch it may lose its axis
    "squeezed": (lambda x: (x[0] @ W)[None], X),
    "flattened": (lambda x: relu(x.reshape(-1) @ W).reshape(1, 3), X),
    "attention of its tokens": (lambda x: attention(x[0])[None].mean(1), TOKENS),
    "reversed": (lambda x: x[::-1] @ W, X),
    "summed up": (lambda x: jnp.cumsum(x, 0) @ W, X),
    "the first": (lambda x: x @ W - (x[:1] @ W), X),
}


@pytest.mark.parametrize(("model", "x"), ONE.values(), ids=ONE)
def test_a_batch_of_one_mixes_nothing(model, x):
    found = graph(model, x[:1])
    assert found.axes.batch[found.program.outputs[0]] == 0


UNBATCHED = {
    "a vector": (lambda x: relu(x @ W) + x, X[0]),
    "a centred vector": (lambda x: centred(x) @ W, X[0]),
    "tokens": (lambda x: attention(x).mean(0), TOKENS[0]),
    "an image": (lambda x: conv(x[None])[0].mean((0, 1)), IMAGES[0]),
    "a loss": (lambda x: relu(x @ W).sum(), X),
}


@pytest.mark.parametrize(("model", "x"), UNBATCHED.values(), ids=UNBATCHED)
def test_one_example_without_a_batch_is_read(model, x):
    axes = graph(model, x).axes
    assert axes.mixes is None and set(axes.batch.values()) == {None}
    assert all(layout.batch == () for layout in axes.layout.values())


def test_what_reaches_no_output_mixes_nothing():
    def model(x):
        (x - x.mean(0)).sum()
        return x @ W

    assert graph(model, X).axes.mixes is None


def test_tokens_carry_their_batch_through_an_embedding():
    tokens = np.array([[0, 1, 2], [3, 4, 5]])
    model = lambda tokens: jnp.asarray(TABLE)[tokens].mean(1) @ W
    program = trace(model, tokens)[0]
    assert find_axes(program).batch[program.outputs[0]] == 0
    assert find_axes(trace(lambda t: centred(model(t)), tokens)[0]).mixes.is_statistic


def test_an_input_beside_the_batch_is_shared():
    x = {"a": X, "shared": TABLE}  # 4 examples, and a table of 7 rows
    found = graph(lambda x: x["a"] @ x["shared"].T, x)
    shared = found.program.inputs[1]
    assert [found.axes.batch[v] for v in (*found.program.outputs, shared)] == [0, None]


def test_two_inputs_share_their_batch():
    pair = {"a": X, "b": 2 * X}
    siamese = lambda x: relu(jnp.concatenate([x["a"], x["b"]]) @ W)
    found = graph(lambda x: siamese(x)[:4] * siamese(x)[4:], pair)
    assert found.axes.mixes is None
    with pytest.raises(ValueError, match="mul at"):
        graph(lambda x: siamese(x)[:4] * siamese(x)[4:5], pair)


def test_a_library_that_vmaps_is_read():
    model = eqx.nn.Conv2d(3, 4, 3, key=jax.random.key(0))
    found = graph(jax.vmap(model), np.moveaxis(IMAGES, 3, 1))
    assert found.axes.batch[found.program.outputs[0]] == 0


def test_the_axes_behind_an_unknown_primitive_are_not_known():
    square = lambda x: jnp.einsum("ni,nj->nij", x, x) + np.eye(3)
    found = graph(lambda x: jnp.linalg.cholesky(square(x)), X)
    value = next(e.outputs[0] for e in found.program.eqns if e.name == "cholesky")
    assert primitives.of("cholesky") is primitives.UNKNOWN
    assert found.axes.batch[value] is None and found.axes.layout[value] is None


def test_every_rule_of_axes_is_of_a_row_and_every_row_has_a_rule():
    assert {row.axes for row in primitives.TABLE.values()} == set(RULES)


def test_an_operand_repeated_along_an_axis_leaves_the_axis_as_long_as_the_output():
    """`mul` repeats an operand along its axes of 1 by itself."""

    def model(x):
        weights = x.mean(1, keepdims=True)  # (N, 1, 4)
        return (weights * x).reshape(len(x), 12) @ np.ones((12, 2))

    (product,) = [row for row in lrp.plan(model, np.ones((2, 3, 4)), "gradient").rows
                  if row["kind"] == "product"]  # fmt: skip
    assert product["output"] == "2x3x4"
    axes = read(model, np.ones((2, 3, 4))).graph.axes
    assert axes.mixes is None
