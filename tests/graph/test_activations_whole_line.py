"""Activations are recognised by their values on the whole real line, and by nothing less."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.nn import relu, relu6
from scipy import special

import lrpjax as lrp
from lrpjax.graph import pieces
from lrpjax.graph.known import KNOWN
from lrpjax.graph.reading import read
from lrpjax.program.flatten import flatten
from lrpjax.program.uniform import uniform_values

pytestmark = pytest.mark.usefixtures("quick_compile")

DTYPES = ("float64", "float32", "bfloat16", "float16")
X = np.random.default_rng(0).normal(size=(2, 3))
where, exp, maximum, minimum = jnp.where, jnp.exp, jnp.maximum, jnp.minimum
sigmoid, straight = jax.nn.sigmoid, lax.stop_gradient


def layers(function, dtype="float64"):
    found = read(function, X.astype(dtype)).graph.layers
    return [layer.detail if layer.kind == "activation" else layer.kind for layer in found]


def names(function, dtype="float64"):
    return [getattr(found, "name", found) for found in layers(function, dtype)]


def table(argument, cases):
    return pytest.mark.parametrize(argument, cases.values(), ids=cases)


def with_derivative(function):
    """The function with the derivative 1."""
    made = jax.custom_vjp(function)
    made.defvjp(lambda x: (function(x), None), lambda _, r: (r,))
    return made


def fake_quantised(x, step, low, high, zero_point=0):
    return (jnp.clip(jnp.round(x / step) + zero_point, low, high) - zero_point) * step


cubic = lambda x: 0.7978845608028654 * (x + 0.044715 * x * x * x)
SPELLINGS = {  # name: spellings
    "relu": [
        relu,
        lambda x: maximum(x, 0),
        lambda x: maximum(0, x),
        lambda x: jnp.clip(x, 0),
        lambda x: where(x > 0, x, 0),
        lambda x: where(x < 0, 0, x),
        lambda x: where(x >= 0, x, 0),
        lambda x: x * (x > 0),
        lambda x: (x + abs(x)) / 2,
        lambda x: x - minimum(x, 0),
        lambda x: -minimum(-x, 0),
        lambda x: (x + jnp.sqrt(x * x)) / 2,
        lambda x: x * (1 + jnp.sign(x)) / 2,
        lambda x: lax.clamp(jnp.zeros((), x.dtype), x, jnp.asarray(jnp.inf, x.dtype)),
        lambda x: x + straight(relu(x) - x),
    ],
    "relu6": [
        relu6,
        lambda x: jnp.clip(x, 0, 6),
        lambda x: minimum(maximum(x, 0), 6),
        lambda x: maximum(minimum(x, 6), 0),
        lambda x: minimum(relu(x), 6),
        lambda x: where(x > 6, 6, relu(x)),
        lambda x: 6 - relu(6 - relu(x)),
    ],
    "leaky_relu": [
        jax.nn.leaky_relu,
        lambda x: jax.nn.leaky_relu(x, 0.25),
        lambda x: maximum(x, 0.3 * x),
        lambda x: where(x > 0, x, 0.1 * x),
        lambda x: relu(x) - 0.01 * relu(-x),
        lambda x: relu(x) + 0.2 * minimum(x, 0),
        lambda x: 0.625 * x + 0.375 * abs(x),
        lambda x: where(x > 0, x, 1e-6 * x),
    ],
    "elu": [
        jax.nn.elu,
        lambda x: jax.nn.elu(x, 0.5),
        lambda x: where(x > 0, x, 0.7 * jnp.expm1(minimum(x, 0))),
        lambda x: where(x > 0, x, exp(x) - 1),
        lambda x: relu(x) + 2 * (exp(minimum(x, 0)) - 1),
    ],
    "celu": [
        lambda x: jax.nn.celu(x, 0.5),
        lambda x: where(x > 0, x, 2 * (exp(x / 2) - 1)),
    ],
    "gelu": [
        lambda x: jax.nn.gelu(x, approximate=False),
        lambda x: x * 0.5 * (1 + lax.erf(x / np.sqrt(2).astype(x.dtype))),
        lambda x: 0.5 * x * lax.erfc(-x / 2**0.5),
    ],
    "gelu_tanh": [
        jax.nn.gelu,
        lambda x: x / 2 * (1 + jnp.tanh(cubic(x))),
        lambda x: x * (0.5 + 0.5 * jnp.tanh(cubic(x))),
        lambda x: 0.5 * x * (1 + jnp.tanh(0.7978845608 * x * (1 + 0.044715 * x**2))),
    ],
    "silu": [
        jax.nn.silu,
        lambda x: x * sigmoid(x),
        lambda x: x / (1 + exp(-x)),
        lambda x: x * (1 + jnp.tanh(x / 2)) / 2,
    ],
    "softplus": [
        jax.nn.softplus,
        lambda x: jnp.log1p(exp(x)),
        lambda x: jnp.log(1 + exp(x)),
        lambda x: jnp.logaddexp(x, 0),
        lambda x: relu(x) + jnp.log1p(exp(-abs(x))),
        lambda x: -jnp.log(sigmoid(-x)),
    ],
    "log_sigmoid": [
        jax.nn.log_sigmoid,
        lambda x: -jnp.log1p(exp(-x)),
        lambda x: jnp.log(sigmoid(x)),
        lambda x: minimum(x, 0) - jnp.log1p(exp(-abs(x))),
    ],
    "tanh": [
        jnp.tanh,
        lambda x: 2 * sigmoid(2 * x) - 1,
        lambda x: (exp(x) - exp(-x)) / (exp(x) + exp(-x)),
        lambda x: jnp.sinh(x) / jnp.cosh(x),
        lambda x: (exp(2 * x) - 1) / (exp(2 * x) + 1),
        lambda x: x + straight(jnp.tanh(x) - x),
        lambda x: x + straight((2 * sigmoid(2 * x) - 1) - x),
        lambda x: straight(jnp.tanh(x) - x) + x,
        lambda x: jnp.tanh(x) + (x - straight(x)),
        lambda x: x - straight(x - jnp.tanh(x)),
    ],
    "logistic": [
        sigmoid,
        lambda x: 1 / (1 + exp(-x)),
        lambda x: exp(x) / (1 + exp(x)),
        lambda x: 0.5 * (jnp.tanh(x / 2) + 1),
        lambda x: exp(jax.nn.log_sigmoid(x)),
        lambda x: where(x >= 0, 1 / (1 + exp(-x)), exp(x) / (1 + exp(x))),
        lambda x: 1 - sigmoid(-x),
    ],
    "selu": [
        jax.nn.selu,
        lambda x: where(x > 0, 1.0507009873554805 * x, 1.7580993408473766 * (exp(x) - 1)),
    ],
    "mish": [
        jax.nn.mish,
        lambda x: x * jnp.tanh(jax.nn.softplus(x)),
        lambda x: x * jnp.tanh(jnp.log(1 + exp(x))),
        lambda x: x * (1 - 2 / ((1 + exp(x)) ** 2 + 1)),
    ],
    "hard_tanh": [
        jax.nn.hard_tanh,
        lambda x: jnp.clip(x, -1, 1),
        lambda x: minimum(maximum(x, -1), 1),
        lambda x: maximum(minimum(x, 1), -1),
        lambda x: (abs(x + 1) - abs(x - 1)) / 2,
        lambda x: x + straight(jnp.clip(x, -1, 1) - x),
    ],
    "hard_sigmoid": [
        jax.nn.hard_sigmoid,
        lambda x: relu6(x + 3) * (1 / 6),
        lambda x: jnp.clip(x / 6 + 0.5, 0, 1),
        lambda x: minimum(maximum(x / 6 + 0.5, 0), 1),
    ],
    "hard_swish": [
        jax.nn.hard_swish,
        lambda x: x * relu6(x + 3) / 6,
        lambda x: x * (relu6(x + 3) / 6),
        lambda x: x * jnp.clip(x / 6 + 0.5, 0, 1),
    ],
    "soft_sign": [jax.nn.soft_sign, lambda x: x / (1 + abs(x))],
    "sign": [
        lambda x: x + straight(jnp.sign(x) - x),
        lambda x: x - straight(x - jnp.sign(x)),
        lambda x: straight(jnp.sign(x)) + x - straight(x),
        lambda x: straight(jnp.sign(x)) + (x - straight(x)),
        lambda x: jnp.clip(x, -1, 1) + straight(jnp.sign(x) - jnp.clip(x, -1, 1)),
        lambda x: jnp.tanh(x) + straight(jnp.sign(x) - jnp.tanh(x)),
        lambda x: x * 1.0 + straight(where(x > 0, 1, where(x < 0, -1, 0)) - x),
        with_derivative(lambda x: jnp.sign(x)),
    ],
    "step": [
        lambda x: x + straight(where(x >= 0, 1, -1) - x),
        lambda x: x + straight(jnp.heaviside(x, 0) - x),
        lambda x: x + straight((x > 0).astype(x.dtype) - x),
        lambda x: x + straight(where(x > 0.3, 2, -0.5) - x),
        lambda x: sigmoid(x) + straight((sigmoid(x) > 0.75) - sigmoid(x)),
        with_derivative(lambda x: (x >= 0.25).astype(x.dtype)),
    ],
    "quantise": [
        lambda x: x + straight(jnp.round(x) - x),
        lambda x: x + straight(jnp.floor(x) - x),
        lambda x: x + straight(jnp.ceil(x) - x),
        lambda x: x + straight(lax.round(x) - x),
        lambda x: straight(jnp.round(x / 0.1) * 0.1) + x - straight(x),
        lambda x: x + straight(fake_quantised(x, 0.25, -8, 7) - x),
        lambda x: x + straight(fake_quantised(x, 0.1, -128, 127) - x),
        lambda x: x + straight(fake_quantised(x, 0.02, 0, 255, 100) - x),
        lambda x: x + straight(fake_quantised(x, 0.02, 0, 255, 300) - x),
        lambda x: x + straight(jnp.round(jnp.clip(x, 0, 1) * 15) / 15 - x),
        lambda x: x + straight(jnp.clip(jnp.round(x), -0.7, 1) - x),
        lambda x: x + straight(0.5 * jnp.floor(x * 4) - x),
        with_derivative(lambda x: jnp.round(x)),
    ],
}
CASES = {f"{name} {k}": (name, f) for name, fs in SPELLINGS.items() for k, f in enumerate(fs)}


@pytest.mark.parametrize("dtype", DTYPES)
@table(("name", "function"), CASES)
def test_a_known_function_is_recognised_in_every_spelling_and_precision(name, function, dtype):
    assert names(function, dtype) == [name]


CLIPS = {
    "clip": lambda x, low, high: jnp.clip(x, low, high),
    "min of max": lambda x, low, high: minimum(maximum(x, low), high),
    "max of min": lambda x, low, high: maximum(minimum(x, high), low),
    "clamp": lambda x, low, high: lax.clamp(
        *np.array([low], x.dtype), x, *np.array([high], x.dtype)
    ),
    "where": lambda x, low, high: where(x > high, high, where(x < low, low, x)),
    "where of clip": lambda x, low, high: where(x > high, high, maximum(x, low)),
    "straight": lambda x, low, high: x + straight(jnp.clip(x, low, high) - x),
}
BOUNDS = [(0, 20), (0, 255), (-50, 50), (0, 5), (-1, 3), (2, 3), (-4, -3), (0, 1), (0, 2.0**-8)]
ONE_SIDED = {
    "minimum 20": (lambda x: minimum(x, 20), (-np.inf, 20)),
    "minimum 0": (lambda x: minimum(x, 0), (-np.inf, 0)),
    "where": (lambda x: where(x > 20, 20, x), (-np.inf, 20)),
    "from relu": (lambda x: 20 - relu(20 - x), (-np.inf, 20)),
    "clip above": (lambda x: jnp.clip(x, max=4), (-np.inf, 4)),
    "maximum -3": (lambda x: maximum(x, -3), (-3, np.inf)),
    "maximum 1": (lambda x: maximum(x, 1), (1, np.inf)),
    "straight": (lambda x: x + straight(minimum(x, 20) - x), (-np.inf, 20)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
@table("clip", CLIPS)
def test_a_clip_is_recognised_with_its_bounds_in_every_spelling(clip, bounds, dtype):
    (found,) = layers(lambda x: clip(x, *bounds), dtype)
    assert (found.name, found.parameters) == ("clip", bounds)
    low, high = bounds
    assert found.never_negative is (low >= 0) and found.cuts
    assert found.keeps_sign is (low <= 0 <= high)
    assert found.gate is (low >= 0 and high <= 1)


@pytest.mark.parametrize("dtype", DTYPES)
@table(("function", "bounds"), ONE_SIDED)
def test_a_clip_with_one_bound_is_recognised(function, bounds, dtype):
    (found,) = layers(function, dtype)
    assert (found.name, found.parameters) == ("clip", bounds)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_a_clip_at_a_large_number_is_no_relu(dtype):
    (found,) = layers(lambda x: jnp.clip(x, 0, 1e30), dtype)
    assert found.name == "clip" and found.parameters == pytest.approx((0, 1e30), rel=1e-2)


def test_what_is_no_number_of_the_dtype_bounds_nothing():
    assert "clip" not in names(lambda x: jnp.clip(x, 0, 1e30), "float16")  # it is infinity


def test_two_cuts_with_a_function_between_them_stay_apart():
    assert names(lambda x: minimum(jnp.tanh(x), 0.5)) == ["tanh", "clip"]
    assert names(lambda x: relu(relu6(x))) == ["relu6", "relu"]
    assert names(lambda x: minimum(relu6(x), 20)) == ["relu6", "clip"]
    assert names(lambda x: relu(jax.nn.leaky_relu(x))) == ["leaky_relu", "relu"]


def test_a_factor_of_0_is_no_identity():
    assert names(lambda x: x * 0) == ["factor"]


def test_what_is_shown_by_a_truth_value_keeps_its_relevance_and_what_is_hidden_gets_none():
    model = lambda x: x * (x > 0.1)
    assert "product" in names(model)
    x = np.array([[0.5, -1.0, 0.05, 2.0]])
    for method in ("lrp-z", "lrp-zplus", "lrp-wsquare"):
        _, pull = lrp.vjp(model, x, method)
        np.testing.assert_array_equal(pull(np.ones_like(x)), [[1, 0, 0, 1]])


bump = lambda x, at, width: where(abs(x - at) < width, 1, 0)
LOOK_ALIKES = {
    "threshold": lambda x: where(x > 1e-3, x, 0),
    "small threshold": lambda x: where(x > 1e-6, x, 0),
    "threshold below": lambda x: where(x > -1e-6, x, 0),
    "large threshold": lambda x: where(x > 100, x, 0),
    "threshold behind an affine map": lambda x: where(2 * x + 3 > 3.1, x, 0),
    "threshold behind a function": lambda x: where(exp(x) > 1.25, x, 0),
    "shifted up": lambda x: relu(x) + 1e-6 * (x > 0),
    "hard shrink": lambda x: where(abs(x) > 0.5, x, 0),
    "small hard shrink": lambda x: where(abs(x) > 1e-6, x, 0),
    "soft shrink": lambda x: jnp.sign(x) * relu(abs(x) - 0.5),
    "small soft shrink": lambda x: jnp.sign(x) * relu(abs(x) - 1e-6),
    "saturates at infinity": lambda x: where(x > 1e4, 0, relu(x)),
    "blows up": lambda x: relu(x) + where(x > 1e4, x, 0),
    "a bump between the points": lambda x: relu(x) + bump(2 * x, 0.6, 1e-3),
    "a bump far out": lambda x: relu(x) + bump(3 * x, 1000, 1),
    "a bump on a sigmoid": lambda x: sigmoid(x) + bump(x, 3.3, 1e-3),
    "a hole": lambda x: where(x == 0.25, 0, x),
    "sigmoid below 0": lambda x: sigmoid(x) - 1e-2 * (x < -30),
    "tanh that ends": lambda x: where(x > 30, 0, jnp.tanh(x)),
    "modulus": abs,
    "fourth power": lambda x: x**4,
    "constant": lambda x: where(x > 0, 2.0, 2.0).astype(x.dtype),
    "step": lambda x: (x > 0).astype(x.dtype),
    "zero": lambda x: where(x > 0, 0 * x, x * 0),
    "sign": jnp.sign,
    "round": jnp.round,
    "floor": jnp.floor,
    "a count of stairs": lambda x: jnp.clip(jnp.round(x / 0.25), -8, 7),
    "binary": lambda x: where(x >= 0, 1.0, -1.0).astype(x.dtype),
    "a function with its derivative around a step": lambda x: jnp.sign(jnp.tanh(x)) * x,
    "stairs of two widths": lambda x: (
        x + straight(where(x > 1, 3, where(x > 0, 1, 0)) + (where(x > 5, 1, 0)) - x)
    ),
    "stairs that grow": lambda x: x + straight(jnp.round(x) * abs(jnp.round(x)) - x),
    "rounded twice": lambda x: x + straight(jnp.round(jnp.round(x * 4) / 2) - x),
    "rounded twice, apart": lambda x: x + straight(jnp.round(x) + jnp.round(x + 0.01) - x),
    "truncated": lambda x: x + straight(jnp.trunc(x) - x),
    "falling stairs": lambda x: x + straight(jnp.round(-x) - x),
    "a falling step": lambda x: x + straight(where(x > 0, -1, 1) - x),
    "a bump on each stair": lambda x: (
        x + straight(jnp.floor(x) + bump(x - jnp.floor(x), 0.123, 1e-3) - x)
    ),
    "a bump on one stair": lambda x: x + straight(jnp.round(x) + bump(x, 2.1, 1e-3) - x),
    "a hole in a step": lambda x: x + straight(where(x > 0, 1, -1) + 5 * (x == 2.5) - x),
    "a step that ends": lambda x: x + straight(where((x > 0) & (x < 1e4), 1, 0) - x),
    "straight through with another factor": lambda x: 2 * x + straight(jnp.sign(x) - x),
    "leaky the other way": lambda x: where(x > 0, x, -0.1 * x),
    "quick gelu": lambda x: x / (1 + exp(-1.702 * x)),
    "exp": exp,
    "exp(log)": lambda x: exp(jnp.log(x)),
    "sqrt of a square": lambda x: jnp.sqrt(x * x),
    "nan": lambda x: jnp.log(x - x - 1) + jnp.tanh(x),
    "infinite": lambda x: relu(x) + exp(x * x * 1e9),
}


@pytest.mark.parametrize("dtype", DTYPES)
@table("function", LOOK_ALIKES)
def test_a_look_alike_is_refused(function, dtype):
    assert "unknown" in names(function, dtype)
    with pytest.raises(NotImplementedError):
        lrp.vjp(function, X.astype(dtype), "lrp-epsilon")


# --- the facts of the table, on the whole real line ----------------------------------------------

LINE = np.sort(np.concatenate([s * 2.0 ** np.arange(-1074, 1024) for s in (-1, 1)] + [np.zeros(1)]))
FINE = np.union1d(LINE, np.linspace(-20, 20, 40001))
normal = lambda x: special.ndtr(x)
softplus = lambda x: np.logaddexp(0, x)
IN_NUMPY = {  # name: (function by its equation, parameters)
    "identity": (lambda x: x, ()),
    "relu": (lambda x: np.maximum(x, 0), ()),
    "relu6": (lambda x: np.clip(x, 0, 6), ()),
    "leaky_relu": (lambda x, a: np.where(x > 0, x, a * x), (0.01,)),
    "elu": (lambda x, a: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0))), (0.7,)),
    "celu": (lambda x, a: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0) / a)), (0.7,)),
    "gelu": (lambda x: x * normal(x), ()),
    "gelu_tanh": (
        lambda x: x * special.expit(np.sqrt(8 / np.pi) * (x + 0.044715 * x**3)),
        (),
    ),
    "silu": (lambda x: x * special.expit(x), ()),
    "softplus": (softplus, ()),
    "log_sigmoid": (lambda x: -softplus(-x), ()),
    "tanh": (np.tanh, ()),
    "logistic": (special.expit, ()),
    "selu": (
        lambda x: (
            1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0)))
        ),
        (),
    ),
    "mish": (lambda x: x * np.tanh(softplus(x)), ()),
    "hard_tanh": (lambda x: np.clip(x, -1, 1), ()),
    "hard_sigmoid": (lambda x: np.clip(x / 6 + 0.5, 0, 1), ()),
    "hard_swish": (lambda x: x * np.clip(x / 6 + 0.5, 0, 1), ()),
    "soft_sign": (lambda x: x / (1 + abs(x)), ()),
    "clip": (np.clip, (-2, 20)),
    "prelu": (lambda x, a: np.where(x > 0, x, a * x), (-0.5,)),
    "sign": (np.sign, ()),
    "step": (
        lambda x, at, low, high, there: np.select([x < at, x > at], [low, high], there),
        (0, -1, 1, 1),
    ),
    "quantise": (
        lambda x, width, rise, at, value, low, high: np.clip(
            value + rise * np.floor((x - at) / width), low, high
        ),
        (0.5, 0.25, 0.25, 0.25, -2, 1.75),
    ),
}


FACTS = [(name, parameters) for name, (_, parameters) in IN_NUMPY.items()] + [
    ("prelu", (0.5,)),
    ("step", (0, 0, 1, 0.5)),
    ("step", (2, 0, 3, 3)),
    ("quantise", (1, 1, 0.5, 1, -np.inf, np.inf)),
    ("quantise", (1, 1, 0, 0, -np.inf, 5)),
    ("quantise", (0.1, 0.1, 0.05, 0.1, 0, 1)),
]
STEPS_OF_ANY_SIGN = [
    ("step", (-1, 0, 1, 0)),
    ("step", (2, 0.5, 1, 1)),
    ("step", (1, -1, 1, 0)),
    ("step", (-1, -1, 0, -1)),
    ("step", (0, -2, -1, -1)),
    ("quantise", (1, 1, 0.5, 1.5, -8, 8)),
    ("quantise", (1, 1, 1.5, 1, -1, 8)),
    ("quantise", (1, 1, 1.5, 1, 0, 8)),
    ("quantise", (1, 1, -0.25, 0, -1, 2)),
]


def on_the_line(name, parameters):
    with np.errstate(over="ignore"):  # the cube in gelu_tanh
        return IN_NUMPY[name][0](FINE, *parameters)


def test_every_row_is_tried():
    assert set(IN_NUMPY) == set(KNOWN)


@pytest.mark.parametrize(("name", "parameters"), FACTS, ids=str)
def test_a_function_reaches_the_bounds_of_its_range_and_no_further(name, parameters):
    f, (low, high) = on_the_line(name, parameters), KNOWN[name].range(*parameters)
    assert low <= f.min() and f.max() <= high
    if name != "prelu":  # its slope is not known
        for bound, value in ((low, f.min()), (high, f.max())):
            assert abs(bound - value) < 0.01 if np.isfinite(bound) else abs(value) > 1e300


def test_a_function_keeps_signs_if_the_table_says_so_and_only_then():
    kept = dict.fromkeys(KNOWN, True)
    for name, parameters in FACTS:
        kept[name] &= bool((np.sign(on_the_line(name, parameters)) * np.sign(FINE) >= 0).all())
    assert kept == {name: known.keeps_sign(*IN_NUMPY[name][1]) for name, known in KNOWN.items()}


@pytest.mark.parametrize(("name", "parameters"), STEPS_OF_ANY_SIGN, ids=str)
def test_a_step_keeps_signs_by_its_parameters(name, parameters):
    kept = bool((np.sign(on_the_line(name, parameters)) * np.sign(FINE) >= 0).all())
    assert KNOWN[name].keeps_sign(*parameters) is kept


def test_a_function_rises_if_the_table_says_so_and_only_then():
    rises = dict.fromkeys(KNOWN, True)
    for name, parameters in FACTS:
        f = on_the_line(name, parameters)
        rises[name] &= bool((np.diff(f) >= -1e-12 * np.abs(f[1:])).all())
    by_levels = {"step", "quantise"}  # they may fall, and are not said to rise
    assert not any(KNOWN[name].rises for name in by_levels)
    told = {name: known.rises for name, known in KNOWN.items()}
    assert {n: r for n, r in rises.items() if n not in by_levels} == {
        n: r for n, r in told.items() if n not in by_levels
    }


@pytest.mark.parametrize(("name", "parameters"), FACTS, ids=str)
def test_what_cuts_is_straight_between_whole_numbers_and_nothing_else_is(name, parameters):
    function, fine, knots = IN_NUMPY[name][0], np.linspace(-40, 40, 8001), np.arange(-40.0, 41)
    straight_lines = np.interp(fine, knots, function(knots, *parameters))
    is_piecewise_linear = np.allclose(straight_lines, function(fine, *parameters), atol=1e-12)
    assert is_piecewise_linear is (KNOWN[name].cuts or name == "identity")  # which cuts nothing


@pytest.mark.parametrize(("name", "parameters"), FACTS, ids=str)
def test_the_known_function_is_its_equation(name, parameters):
    x = np.linspace(-20, 20, 401)
    found, expected = (f(x, *parameters) for f in (KNOWN[name].function, IN_NUMPY[name][0]))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


ALONE = (
    "abs cosh erf erfc exp exp2 expm1 is_finite log log1p logistic neg rsqrt sign sinh sqrt tanh"
)
PRIMITIVES = {
    **{name: getattr(lax, name) for name in [*ALONE.split(), "square", "stop_gradient", "tanh"]},
    "add": lambda x: x + 1.5,
    "add_any": lambda x: jax.vjp(lambda y: (y, y), x)[1]((x, x))[0],
    "sub": lambda x: 1.5 - x,
    "mul": lambda x: x * 1.5,
    "div": lambda x: 1.5 / x,
    "max": lambda x: maximum(x, 1.5),
    "min": lambda x: minimum(x, 1.5),
    "clamp": lambda x: lax.clamp(-1.5, x, 2.5),
    "integer_pow": lambda x: lax.integer_pow(x, 3),
    "pow": lambda x: lax.pow(x, 2.5),
    "select_n": lambda x: lax.select_n(x > 0, x, 2 * x),
    "floor": jnp.floor,
    "ceil": jnp.ceil,
    "round to even": jnp.round,
    "round away from 0": lax.round,
    "to truth": lambda x: x.astype(bool),
    "eq": lambda x: x == 1.5,
    "ne": lambda x: x != 1.5,
    "lt": lambda x: x < 1.5,
    "le": lambda x: x <= 1.5,
    "gt": lambda x: x > 1.5,
    "ge": lambda x: x >= 1.5,
    "and": lambda x: (x > 1) & (x < 2),
    "or": lambda x: (x > 1) | (x < 0),
    "xor": lambda x: (x > 1) ^ (x > 2),
    "not": lambda x: ~(x > 1),
}


def test_every_primitive_that_numpy_says_is_tried():
    assert set(pieces._NUMPY) <= set(PRIMITIVES) | {"same"}


@table("function", PRIMITIVES)
def test_numpy_says_each_primitive_as_jax_does(function):
    x = np.array([-30, -2.5, -1.5, -0.3, 0.0, 0.2, 1.0, 1.5, 2.5, 30])
    program, _ = flatten(jax.make_jaxpr(function)(1.0), 1)
    piece = pieces.piece_of(program.eqns, program.inputs, uniform_values(program), "float64")
    expected = np.asarray(jax.vmap(function)(x), float)
    np.testing.assert_allclose(pieces.values(piece, x), expected, rtol=1e-12, atol=1e-15)


# --- what the rules make of them -----------------------------------------------------------------

AT = np.array([[100.0, 3.0, -100.0, 1.0]])
DEEPLIFT = {
    "clip(x, 0, 20)": (lambda x: jnp.clip(x, 0, 20), (20, 3, 0, 1)),
    "clip(x, -50, 50)": (lambda x: jnp.clip(x, -50, 50), (50, 3, -50, 1)),
    "minimum(x, 20)": (lambda x: minimum(x, 20), (20, 3, -100, 1)),
}


@pytest.mark.parametrize("method", ["deeplift-rescale", "deeplift-reveal-cancel"])
@table(("function", "expected"), DEEPLIFT)
def test_deeplift_gives_a_clip_its_difference(function, expected, method):
    model = lambda x: function(x).sum(-1, keepdims=True)
    found = lrp.attribute(model, AT, method, target=0)  # against 0
    np.testing.assert_allclose(found[0], expected, rtol=1e-12, atol=1e-12)


@table(("function", "expected"), DEEPLIFT)
def test_lrp_passes_relevance_through_a_clip(function, expected):
    R = np.array([[1.0, 2.0, 3.0, 4.0]])
    np.testing.assert_array_equal(lrp.vjp(function, AT, "lrp-z")[1](R), R)


def test_straight_through_is_its_values_for_lrp_and_its_derivative_for_the_gradient():
    model = lambda x: x + straight(jnp.tanh(x) - x)
    R = np.array([[1.0, 2.0, 3.0, 4.0]])
    np.testing.assert_array_equal(lrp.vjp(model, AT, "lrp-z")[1](R), R)
    np.testing.assert_array_equal(lrp.vjp(model, AT, "gradient")[1](R), R)  # where tanh has 0
