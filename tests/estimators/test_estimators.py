"""What holds for every estimator, what they refuse, and occlusion against a loop over windows."""

from contextlib import contextmanager
from functools import partial

import jax
import numpy as np
import pytest
from helpers import oracle
from helpers import oracle_estimators as by_hand
from jax import lax

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

SAME = 1e-12  # float64: the same sums in another order, relative to the largest entry
SINGLE = 1e-5  # float32: the same

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
get = lrp.methods.get
close = partial(oracle.assert_close, tolerance=SAME)


def table(argument, cases):
    """Parametrises a test over a dictionary from readable names to values."""
    return pytest.mark.parametrize(argument, cases.values(), ids=cases)


def attribute(x, name, target=1, model=None, **options):
    return lrp.attribute(model or NET, x, get(name, **options), target=target)


def dense(x, p):
    return x @ p["kernel"] + p["bias"]


def conv(x, p, layout="NHWC"):
    spatial = layout.strip("N").replace("C", "")
    numbers = (layout, spatial + "IO", layout)
    out = lax.conv_general_dilated(x, p["kernel"], [1] * len(spatial), "SAME", None, None, numbers)
    return out + p["bias"].reshape([-1 if axis == "C" else 1 for axis in layout])


def net(shape, layout="NHWC"):
    """Convolution, ReLU, dense, ReLU, dense to 3 classes."""
    channels = shape[layout.index("C") - 1]
    flat = 2 * int(np.prod(shape)) // channels
    kernels = {"conv": [*[3] * (len(layout) - 2), channels, 2], "fc1": (flat, 20), "fc2": (20, 3)}
    normal = np.random.default_rng(1).normal
    p = {n: {"kernel": normal(size=s), "bias": normal(size=s[-1])} for n, s in kernels.items()}

    def forward(p, x):
        x = jax.nn.relu(conv(x, p["conv"], layout)).reshape(len(x), -1)
        return dense(jax.nn.relu(dense(x, p["fc1"])), p["fc2"])

    return jax.tree_util.Partial(forward, p)


X = RNG.normal(size=(3, 5, 4, 2))
NET = net(X.shape[1:])
BEST = np.asarray(NET(X).argmax(-1))


def logit(model, target):
    """From a batch to each image's logit, in numpy."""
    return lambda x: np.asarray(model(x))[np.arange(len(x)), target]


ESTIMATORS = {
    "integrated-gradients": {"steps": 3},
    "smooth-grad": {"samples": 3, "key": KEY},
    "occlusion": {"window": 3},
    "contrastive-lrp": {},
    "contrastive-excitation-bp": {},
}
every_estimator = pytest.mark.parametrize("name", ESTIMATORS)


# --- all of them ---------------------------------------------------------------------------------


@every_estimator
def test_an_estimator_gives_the_same_under_jit(name):
    found = jax.jit(lambda x: attribute(x, name, **ESTIMATORS[name]))(X)
    assert found.shape == X.shape
    close(found, attribute(X, name, **ESTIMATORS[name]))


@every_estimator
def test_the_target_is_the_largest_logit_or_one_for_each_image(name):
    found = partial(attribute, X, name, **ESTIMATORS[name])
    assert len(set(BEST)) > 1
    close(found(None), found(BEST))
    each = [found(t)[i] for i, t in enumerate((0, 2, 1))]
    close(found([0, 2, 1]), np.stack(each))


@every_estimator
def test_one_image_is_explained_as_in_a_batch(name):
    found = attribute(X, name, **ESTIMATORS[name])
    # Noise belongs to the place in the batch, so there only the first image keeps it.
    for i in range(1 if name == "smooth-grad" else len(X)):
        close(attribute(X[i : i + 1], name, **ESTIMATORS[name]), found[i : i + 1])


@every_estimator
def test_integer_images_have_the_maps_of_the_same_floats(name):
    x = RNG.integers(0, 9, X.shape)
    p = jax.tree.map(lambda a: a.astype("float32"), NET.args[0])
    model = lambda x: NET.func(p, x.astype("float32"))
    found = attribute(x.astype("uint8"), name, model=model, **ESTIMATORS[name])
    expected = attribute(x.astype("float32"), name, model=model, **ESTIMATORS[name])
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, expected, atol=SINGLE * np.abs(expected).max())


CHUNKED = {
    "integrated-gradients from two baselines": {"steps": 5, "baselines": X[:2] + 1},
    "integrated-gradients over smooth-grad": {
        "steps": 5, "base": get("smooth-grad", samples=2, key=KEY)
    },
    "smooth-grad variance": {"samples": 5, "key": KEY, "form": "variance"},
    "occlusion": {"window": 3, "stride": 2},
}  # fmt: skip


@pytest.mark.parametrize("case", CHUNKED)
def test_what_runs_at_once_does_not_change_the_result(case):
    found = lambda at_once: attribute(X, case.split()[0], at_once=at_once, **CHUNKED[case])
    whole = found(None)
    for at_once in (3, 1000):
        close(found(at_once), whole)
    close(jax.jit(lambda: found(3))(), whole)  # one program, where the others are a loop


DEFAULTS = {
    "integrated-gradients": (
        {}, {"base": "gradient", "steps": 50, "quadrature": "gauss-legendre", "baseline": 0.0}
    ),
    "smooth-grad": (
        {"key": KEY}, {"base": "gradient", "samples": 50, "noise": 0.15, "form": "mean"}
    ),
    "occlusion": ({"window": (3, 2)}, {"stride": (2, 1), "baseline": 0.0}),
    "contrastive-lrp": ({}, {"base": "lrp-alpha1-beta0", "dual": "classes"}),
    "contrastive-excitation-bp": ({}, {"base": "excitation-bp", "dual": "weights"}),
}  # fmt: skip


@pytest.mark.parametrize("name", DEFAULTS)
def test_what_is_left_out_has_its_default(name):
    given, default = DEFAULTS[name]
    close(attribute(X, name, **given), attribute(X, name, **given, **default))


# --- occlusion -----------------------------------------------------------------------------------

# layout, shape of one image, window and stride as given and as they must be understood
WINDOWS = {
    "NHWC": ("NHWC", (5, 7, 2), 3, None, (3, 3), (2, 2)),
    "NHWC with a tuple": ("NHWC", (5, 7, 2), (2, 3), (1, 3), (2, 3), (1, 3)),
    "NHWC, a number as stride": ("NHWC", (7, 4, 1), (4, 2), 2, (4, 2), (2, 2)),
    "NHWC, cut off at the border": ("NHWC", (8, 5, 2), 3, 3, (3, 3), (3, 3)),
    "NHWC, each pixel": ("NHWC", (3, 4, 2), 1, None, (1, 1), (1, 1)),
    "NHWC, the whole image": ("NHWC", (5, 4, 2), (5, 4), None, (5, 4), (3, 2)),
    "NCHW": ("NCHW", (2, 5, 7), (3, 2), None, (3, 2), (2, 1)),
    "NWC": ("NWC", (9, 2), 4, None, (4,), (2,)),
    "NCDHW": ("NCDHW", (2, 3, 4, 3), 2, None, (2, 2, 2), (1, 1, 1)),
}


@table(("layout", "shape", "window", "stride", "windows", "strides"), WINDOWS)
def test_occlusion_is_the_loop_over_windows(layout, shape, window, stride, windows, strides):
    model = net(shape, layout)
    x, target = RNG.normal(size=(2, *shape)), np.array([2, 0])
    axes = [i for i, axis in enumerate(layout) if axis not in "NC"]
    options = {"window": window} if stride is None else {"window": window, "stride": stride}
    baseline = RNG.normal(size=shape)
    found = attribute(x, "occlusion", target, model, baseline=baseline, **options)
    f = logit(model, target)
    close(found, by_hand.occlusion(f, x, axes, windows, strides, baseline))


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"stride": 1}, [3, 4.5, 6]),
        ({"stride": 1, "baseline": 1}, [1, 2.5, 4]),
        ({"stride": 2}, [3, 3, 4]),
    ],
)
def test_occlusion_of_a_sum(options, expected):
    p = {"kernel": np.ones((1, 1, 1)), "bias": np.zeros(1)}
    model = lambda x: conv(x, p, "NWC").sum(1)
    x = np.array([1.0, 2, 4]).reshape(1, 3, 1)
    found = attribute(x, "occlusion", 0, model, window=2, **options)
    close(found, np.reshape(expected, x.shape))


# --- errors --------------------------------------------------------------------------------------

REFUSED = {
    "no steps": ("integrated-gradients", {"steps": 0}, "steps.*0"),
    "a trapezoid of one step": (
        "integrated-gradients", {"steps": 1, "quadrature": "trapezoid"}, "trapezoid"
    ),
    "unknown quadrature": (
        "integrated-gradients", {"quadrature": "simpson"}, "quadrature.*trapezoid.*'simpson'"
    ),
    "baseline of another shape": (
        "integrated-gradients", {"baseline": np.zeros((4, 5, 2))}, r"baseline.*\(4, 5, 2\)"
    ),
    "baselines of another shape": (
        "integrated-gradients", {"baselines": np.zeros((3, 4, 5, 2))}, "baselines.*5, 4, 2"
    ),
    "no key": ("smooth-grad", {}, "smooth-grad.*key"),
    "no samples": ("smooth-grad", {"samples": 0, "key": KEY}, "sample.*0"),
    "unknown form": ("smooth-grad", {"form": "median", "key": KEY}, "form.*square.*'median'"),
    "an empty window": ("occlusion", {"window": 0}, "window.*0"),
    "a window empty on one axis": ("occlusion", {"window": (2, 0)}, "window.*0"),
    "a window larger than the image": ("occlusion", {"window": (2, 5)}, "window.*5"),
    "no stride": ("occlusion", {"window": 2, "stride": 0}, "stride.*0"),
    "gaps": ("occlusion", {"window": 2, "stride": 3}, "stride.*window"),
    "gaps on one axis": ("occlusion", {"window": (3, 2), "stride": (1, 3)}, "stride.*window"),
    "another number of baselines than images": (
        "occlusion",
        {"window": 2, "baseline": np.zeros((2, *X.shape[1:]))},
        r"2 inputs for 3 images.*baselines=",
    ),
    "no chunk of paths": ("integrated-gradients", {"at_once": 0}, "at_once.*0"),
    "no chunk of samples": ("smooth-grad", {"at_once": 0, "key": KEY}, "at_once.*0"),
    "no chunk of windows": ("occlusion", {"window": 2, "at_once": -1}, "at_once.*-1"),
    "unknown dual": ("contrastive-lrp", {"dual": "both"}, "dual.*classes.*weights.*'both'"),
    "unknown dual of Excitation BP": ("contrastive-excitation-bp", {"dual": "a"}, "dual.*'a'"),
}  # fmt: skip


@contextmanager
def refused(words):
    """Wants a ValueError of one sentence with these words."""
    with pytest.raises(ValueError, match=words) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message and ". " not in message and message.endswith("."), message


@table(("name", "options", "words"), REFUSED)
def test_options_that_make_no_sense(name, options, words):
    with refused(words):
        attribute(X, name, **options)


def test_smooth_grad_by_name_has_no_key():
    with refused("smooth-grad.*key"):
        lrp.attribute(NET, X, "smooth-grad")


@every_estimator
def test_none_is_a_chain_of_rules(name):
    with pytest.raises((ValueError, TypeError), match=r"not a chain of rules.*attribute"):
        lrp.vjp(NET, X, get(name, **ESTIMATORS[name]))
