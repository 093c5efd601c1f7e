"""Sums of branches, moves, activations and whole networks: against the oracle and by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracle

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

EXACT = 1e-13  # where both sides do the same operations and may differ in their order
STABILISED = 1e-7  # where one side has no stabiliser, which moves a denominator by 1e-9

SIGNED = oracle.add_signed
ALPHA1 = partial(oracle.add_alpha_beta, alpha=1, beta=0)
ALPHA2 = partial(oracle.add_alpha_beta, alpha=2, beta=1)


def copied(a, c, R):
    return R, R


ADDS = {
    **dict.fromkeys(["lrp-z", "lrp-epsilon", "lrp-gamma", "lrp-flat", "lrp-wsquare"], SIGNED),
    **dict.fromkeys(["lrp-zplus", "excitation-bp", "epsilon-plus-flat"], ALPHA1),
    **dict.fromkeys(["lrp-alpha2-beta1", "lrp-cmp-alpha2-beta1"], ALPHA2),
    **dict.fromkeys(["gradient", "guided-bp", "deconv", "rect-grad"], copied),
}


def normal(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in shapes]


@pytest.mark.parametrize("method", ADDS)
def test_sum_of_two_branches(method):
    a, c, R = normal(1, (2, 4, 3), (2, 4, 3), (2, 4, 3))
    _, rel = lrp.vjp(lambda x: x[0] + x[1], (a, c), method)
    for found, expected in zip(rel(R), ADDS[method](a, c, R), strict=True):
        oracle.assert_close(found, expected)


@pytest.mark.parametrize("method", ["lrp-gamma", "lrp-zplus", "lrp-alpha2-beta1", "gradient"])
def test_difference_of_two_branches(method):
    """The second branch contributes its negative."""
    a, c, R = normal(2, (2, 4, 3), (2, 4, 3), (2, 4, 3))
    _, rel = lrp.vjp(lambda x: x[0] - x[1], (a, c), method)
    of_a, of_c = ADDS[method](a, -c, R)
    sign = -1 if ADDS[method] is copied else 1
    oracle.assert_close(rel(R)[0], of_a)
    oracle.assert_close(rel(R)[1], sign * of_c)


@pytest.mark.parametrize("method", ["lrp-z", "lrp-alpha2-beta1", "gradient"])
def test_broadcast_branch_collects_its_copies(method):
    a, c, R = normal(3, (2, 4, 3), (2, 1, 3), (2, 4, 3))
    _, rel = lrp.vjp(lambda x: x[0] + x[1], (a, c), method)
    of_a, of_c = ADDS[method](a, np.broadcast_to(c, a.shape), R)
    oracle.assert_close(rel(R)[0], of_a)
    oracle.assert_close(rel(R)[1], of_c.sum(1, keepdims=True))


@pytest.mark.parametrize("method", ["lrp-z", "lrp-zplus", "lrp-alpha2-beta1", "gradient"])
def test_a_value_added_to_itself_collects_both_shares(method):
    x, R = normal(4, (2, 5), (2, 5))
    _, rel = lrp.vjp(lambda x: x + x, x, method)
    oracle.assert_close(rel(R), sum(ADDS[method](x, x, R)))


MASK = np.arange(24).reshape(4, 3, 2) % 3 > 0
MOVES = {
    "reshape": lambda x: x.reshape(2, -1),
    "transpose": lambda x: x.transpose(0, 3, 1, 2),
    "strided-slice": lambda x: x[:, ::2, 1:],
    "pad": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0))),
    "negative-pad": lambda x: jax.lax.pad(x, 0.0, ((0, 0, 0), (-1, 0, 1), (0, -1, 0), (0, 0, 0))),
    "reverse": lambda x: x[:, ::-1],
    "roll": lambda x: jnp.roll(x, 1, 2),
    "split-and-concatenate": lambda x: jnp.concatenate(jnp.split(x, 3, 2)[:0:-1], 2),
    "concatenate-with-itself": lambda x: jnp.concatenate([x, x[:, 1:]], 1),
    "stack": lambda x: jnp.stack([x, x], 1),
    "squeeze": lambda x: x[:, :, :1, None].squeeze(2),
    "take": lambda x: jnp.take(x, np.array([2, 0, 2]), 1),
    "mask": lambda x: jnp.where(MASK, x, 0.0),
    "broadcast": lambda x: jnp.broadcast_to(x[:, None], (2, 3, 4, 3, 2)),
}


@pytest.mark.parametrize("move", MOVES)
def test_relevance_moves_back_with_the_values(move):
    (x,) = normal(5, (2, 4, 3, 2))
    out, rel = lrp.vjp(MOVES[move], x, "lrp-alpha2-beta1")
    (R,) = normal(6, out.shape)
    oracle.assert_close(rel(R), oracle.moved(MOVES[move], x, R), EXACT)


ACTIVATIONS = {
    "relu": jax.nn.relu,
    "maximum": lambda x: jnp.maximum(x, 0),
    "where": lambda x: jnp.where(x > 0, x, 0),
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "elu": jax.nn.elu,
    "leaky-relu": jax.nn.leaky_relu,
    "softplus": jax.nn.softplus,
}
RELUS = ["relu", "maximum", "where"]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_passes_relevance_or_takes_its_gradient(activation):
    f = ACTIVATIONS[activation]
    x, R = normal(7, (2, 9), (2, 9))
    model = lambda x: f(x) @ np.ones((9, 2))  # what ends in a sigmoid is refused
    name = lrp.plan(model, x, "gradient").layers[0].name
    assert np.array_equal(lrp.vjp(model, x, "lrp-cmp-alpha2-beta1", start=name)[1](R), R)
    oracle.assert_close(lrp.vjp(f, x, "gradient")[1](R), jax.vjp(f, x)[1](R)[0], EXACT)


def guided(x, R):
    return np.where(x > 0, np.maximum(R, 0), 0)


def deconv(x, R):
    return np.maximum(R, 0)


def rect(x, R, percentile=98):
    y_r = np.maximum(x, 0) * R
    tau = [[np.percentile(each, percentile, method="nearest")] for each in y_r]
    return np.where((x > 0) & (y_r > tau), R, 0)


RECTIFIED = {
    "guided-bp": ("guided-bp", guided),
    "deconv": ("deconv", deconv),
    "rect-grad": ("rect-grad", rect),
    "rect-grad-60": (lrp.methods.rect_grad(percentile=60), partial(rect, percentile=60)),
    "rect-grad-0": (lrp.methods.rect_grad(percentile=0), partial(rect, percentile=0)),
}


@pytest.mark.parametrize("rule", RECTIFIED)
@pytest.mark.parametrize("relu", RELUS)
def test_relu_between_two_dense_layers(relu, rule):
    """The samples have other sizes: each has its own percentile."""
    method, expected = RECTIFIED[rule]
    x, w1, b1, w2, R = normal(8, (3, 5), (5, 70), (70,), (70, 4), (3, 4))
    x, R = x * [[1], [10], [100]], R * [[100], [1], [10]]
    model = lambda x: ACTIVATIONS[relu](x @ w1 + b1) @ w2
    _, rel = lrp.vjp(model, x, method)
    oracle.assert_close(rel(R), expected(x @ w1 + b1, R @ w2.T) @ w1.T)


@pytest.mark.parametrize("units", [26, 50, 51, 76, 100])
def test_percentile_is_over_all_of_a_samples_units(units):
    """Its rank is rounded as numpy does, half to even: 24.5 of 26 units to 24, 73.5 of 76 to 74."""
    x, R = normal(9, (2, units // 2, 2) if units % 2 == 0 else (2, units), (2 * units,))
    x, R = np.abs(x), np.abs(R).reshape(x.shape)
    _, rel = lrp.vjp(jax.nn.relu, x, "rect-grad")
    expected = rect(x.reshape(2, -1), R.reshape(2, -1)).reshape(x.shape)
    oracle.assert_close(rel(R), expected, EXACT)


def residual(x):
    return x + jax.nn.relu(x @ jnp.array([[1.0, 1.0], [-1.0, 1.0]]))


def concatenated(x):
    h = x @ jnp.array([[1.0], [-1.0]]) + 3.0
    return jnp.concatenate([x, h], 1) @ jnp.array([[1.0], [1.0], [-2.0]]) + 5.0


# name: network, input, relevance of its output, method, relevance of its input
BY_HAND = {
    # x = (2, 1), h = (2 - 1, 2 + 1) = (1, 3), y = x + h = (3, 4), R = (3, 8).
    # To x: (2/3 3, 1/4 8) = (2, 2); to h: (1/3 3, 3/4 8) = (1, 6).
    # h1 = 2 - 1 sends (2/1 1, -1/1 1) = (2, -1), h2 = 2 + 1 sends (2/3 6, 1/3 6) = (4, 2).
    "residual-z": (residual, (2, 1), (3, 8), "lrp-z", (2 + 2 + 4, 2 - 1 + 2)),
    # As above, but h1 sends (2/2 1, 0) = (1, 0).
    "residual-zplus": (residual, (2, 1), (3, 8), "lrp-zplus", (2 + 1 + 4, 2 + 0 + 2)),
    # All that meets in the sum is positive: twice the shares, to x (4, 4), to h (2, 12).
    # h1 sends (2 2/2 2, -1 (-1/-1) 2) = (4, -2), h2 sends (2 2/3 12, 2 1/3 12) = (16, 8).
    "residual-alpha2": (
        residual, (2, 1), (3, 8), "lrp-alpha2-beta1", (4 + 4 + 16, 4 - 2 + 8)
    ),
    # x = (1, 2), h = 1 - 2 + 3 = 2, y = 1 + 2 - 4 + 5 = 4, R = 8.
    # To (x, h): (1/4 8, 2/4 8, -4/4 8) = (2, 4, -8), to the bias 10.
    # h sends (1/2 -8, -2/2 -8) = (-4, 8), and -12 to its bias.
    "concatenation-z": (concatenated, (1, 2), (8,), "lrp-z", (2 - 4, 4 + 8)),
    # A = 3, N = -4: to (x, h) (2 1/3 8, 2 2/3 8, -1 (-4/-4) 8) = (16/3, 32/3, -8).
    # h = 1 - 2 + 3 sends (2 1/1 -8, -1 (-2/-2) -8) = (-16, 8).
    "concatenation-alpha2": (
        concatenated, (1, 2), (8,), "lrp-alpha2-beta1", (16 / 3 - 16, 32 / 3 + 8)
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BY_HAND)
def test_small_network_by_hand(case):
    model, x, R, method, expected = BY_HAND[case]
    _, rel = lrp.vjp(model, np.array([x], float), method)
    oracle.assert_close(rel(np.array([R], float)), np.array([expected], float), STABILISED)


SHAPE, CLASSES = (6, 6, 2), 3
KERNEL1, BIAS1, KERNEL2, BIAS2, DENSE, BIAS3 = normal(
    10, (3, 3, 2, 3), (3,), (3, 3, 3, 3), (3,), (27, CLASSES), (CLASSES,)
)


def conv(x, kernel, bias):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout) + bias


def first(x):
    return conv(x, KERNEL1, BIAS1)


def pool(h):
    steps = (1, 2, 2, 1)
    return jax.lax.reduce_window(jax.nn.relu(h), -np.inf, jax.lax.max, steps, steps, "VALID")


def second(h):
    return conv(h, KERNEL2, BIAS2)


def dense(h):
    return h.reshape(len(h), -1) @ DENSE + BIAS3


def network(x):
    h = pool(first(x))
    return dense(jax.nn.relu(h + second(h)))


def backward(x, R, of_first, of_second, of_dense, of_add):
    """The oracle's rules along the network, from its end to its start."""
    x1 = np.asarray(first(x))
    h = np.asarray(pool(x1))
    c = np.asarray(second(h))
    windows = oracle.windows(x1.shape[1:], (2, 2, 1), (2, 2, 1), ((0, 0),) * 3)
    R = oracle.batched(of_dense, oracle.affine(dense, h.shape[1:]), np.maximum(h + c, 0), R)
    R, R_c = of_add(h, c, R)
    R = R + oracle.batched(of_second, oracle.affine(second, h.shape[1:]), h, R_c)
    pairs = zip(np.maximum(x1, 0), R, strict=True)
    R = np.stack([oracle.winner_takes_all(windows, h, r).reshape(h.shape) for h, r in pairs])
    return oracle.batched(of_first, oracle.affine(first, x.shape[1:]), x, R)


EPSILON = partial(oracle.z, eps=1e-6)
EPSILON_CMP = partial(oracle.z, eps=1e-10)
AB2 = partial(oracle.alpha_beta, alpha=2, beta=1, bias="signed")
AB2_NONE = partial(oracle.alpha_beta, alpha=2, beta=1)
BOX = partial(oracle.zbox, low=-4.0, high=5.0)
# the rules of the first convolution, of the second, of the dense layer and of the sum
NETWORK = {
    "lrp-gamma": (oracle.gamma, oracle.gamma, oracle.gamma, SIGNED),
    "lrp-alpha2-beta1": (AB2_NONE, AB2_NONE, AB2_NONE, ALPHA2),
    "lrp-cmp-alpha2-beta1": (AB2_NONE, AB2_NONE, EPSILON_CMP, ALPHA2),
    "lrp-cmp-alpha2-beta1 signed": (AB2, AB2, EPSILON_CMP, ALPHA2),
    "epsilon-plus-flat": (oracle.flat, oracle.zplus, EPSILON, ALPHA1),
    "epsilon-gamma-box": (BOX, oracle.gamma, EPSILON, SIGNED),
}


def method_of(name):
    name, *signed = name.split()
    options = {"low": -4.0, "high": 5.0} if "box" in name else {}
    return lrp.methods.get(name, **options, **({"bias": "signed"} if signed else {}))


@pytest.mark.parametrize("method", NETWORK)
def test_composites_are_the_oracles_on_a_residual_network(method):
    """Two convolutions, ReLU, max-pool, a residual sum and a dense layer, under each composite."""
    x, R = normal(11, (2, *SHAPE), (2, CLASSES))
    _, rel = lrp.vjp(network, x, method_of(method))
    oracle.assert_close(rel(R), backward(x, R, *NETWORK[method]))


@pytest.mark.parametrize("target", [0, 2])
def test_z_is_input_times_gradient(target):
    """With biases, ReLU, max-pool and a residual sum, started from the logit."""
    (x,) = normal(12, (2, *SHAPE))
    expected = x * jax.grad(lambda x: network(x)[:, target].sum())(x)
    found = lrp.attribute(network, x, "lrp-z", target=target)
    oracle.assert_close(found, expected, STABILISED)
    found = lrp.attribute(network, x, "input-x-gradient", target=target)
    oracle.assert_close(found, expected, EXACT)


def test_gradient_is_that_of_jax():
    x, R = normal(13, (2, *SHAPE), (2, CLASSES))
    _, rel = lrp.vjp(network, x, "gradient")
    oracle.assert_close(rel(R), jax.vjp(network, x)[1](R)[0], EXACT)


@pytest.mark.parametrize("method", ["lrp-zplus", "lrp-alpha1-beta0", "lrp-flat", "excitation-bp"])
def test_relevance_is_conserved(method):
    """Where each unit has something positive to pass on; inputs are large beside the stabiliser."""
    x, R = normal(14, (2, *SHAPE), (2, CLASSES))
    w1, w2 = np.abs(KERNEL1), np.abs(DENSE)
    model = lambda x: pool(conv(x, w1, -BIAS1)).reshape(2, -1) @ w2 - BIAS3
    absolute = lrp.methods.get(method, stabiliser=1e-9)
    _, rel = lrp.vjp(model, 1e3 * np.abs(x), absolute)
    tolerance = 1e-9 if method == "lrp-flat" else 1e-10  # flat divides by counts, 10 to 30
    assert np.abs(rel(R).sum((1, 2, 3)) - R.sum(1)).max() <= tolerance * np.abs(R).sum()


def halves(a, c, R):
    return R / 2, R / 2


# name: method, and the network's rules with one of them wrong
WRONG = {
    "z+ first": ("epsilon-plus-flat", (oracle.zplus, oracle.zplus, EPSILON, ALPHA1)),
    "flat second": ("epsilon-plus-flat", (oracle.flat, oracle.flat, EPSILON, ALPHA1)),
    "z+ for dense": ("epsilon-plus-flat", (oracle.flat, oracle.zplus, oracle.zplus, ALPHA1)),
    "halves at the sum": ("epsilon-plus-flat", (oracle.flat, oracle.zplus, EPSILON, halves)),
    "signed bias": ("lrp-cmp-alpha2-beta1", (AB2, AB2, EPSILON_CMP, ALPHA2)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_oracle_is_noticed(wrong):
    """The comparisons above can fail."""
    method, rules = WRONG[wrong]
    x, R = normal(11, (2, *SHAPE), (2, CLASSES))
    _, rel = lrp.vjp(network, x, method)
    assert oracle.error(rel(R), backward(x, R, *rules)) > 1e-3


def one_threshold(x, R):
    return rect(x.reshape(1, -1), R.reshape(1, -1)).reshape(x.shape)


@pytest.mark.parametrize(
    "method, wrong",
    [("guided-bp", deconv), ("deconv", guided), ("rect-grad", one_threshold)],
)
def test_another_rectification_is_noticed(method, wrong):
    x, R = normal(15, (2, 60), (2, 60))
    x = x * [[1], [10]]
    _, rel = lrp.vjp(jax.nn.relu, x, method)
    assert oracle.error(rel(R), wrong(x, R)) > 1e-3
