"""Patterns against plain numpy over explicit patches, and the two methods that use them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import lrpjax as lrp
from lrpjax.images import bundled_images

pytestmark = pytest.mark.usefixtures("quick_compile")

# Running means of a few thousand float64 products, in another order.
CLOSE = 1e-10
close = partial(np.testing.assert_allclose, rtol=CLOSE, atol=CLOSE)


def conv(x, w, b=0.0, **options):
    options = {"window_strides": (1, 1), "padding": "SAME"} | options
    dims = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, w, dimension_numbers=dims, **options) + b


def patterns_of(X, W, b, mode):
    """X (patches, inputs), W (inputs, neurons): the estimator written out, neuron by neuron."""
    found = np.zeros_like(W)
    for i in range(W.shape[1]):
        y = X @ W[:, i]
        on = y + b[i] > 0 if mode == "relu" else np.ones(len(y), bool)
        if on.any():
            c = (X[on] * y[on, None]).mean(0) - X[on].mean(0) * y.mean()
            found[:, i] = c / (W[:, i] @ c)
    return found


def patches_of(x, size, stride, padding):
    """Every patch of (N, H, W, C) as a row (kh, kw, C), by loops."""
    x = np.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
    rows = [
        x[n, i : i + size, j : j + size].ravel()
        for n in range(len(x))
        for i in range(0, x.shape[1] - size + 1, stride)
        for j in range(0, x.shape[2] - size + 1, stride)
    ]
    return np.array(rows)


@pytest.mark.parametrize("mode", ["relu", "linear"])
@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 0), (2, 1)])
def test_patterns_of_a_convolution_are_those_of_its_patches(mode, stride, padding, getkey):
    w, b = jax.random.normal(getkey(), (3, 3, 2, 4)), jax.random.normal(getkey(), (4,))
    x = jax.random.normal(getkey(), (6, 7, 7, 2))
    options = {"window_strides": (stride,) * 2, "padding": [(padding,) * 2] * 2}
    fitted = lrp.patterns.fit(
        lambda x: jax.nn.relu(conv(x, w, b, **options)), x, mode=mode, chunk=4, patches=None
    )
    (a,) = fitted.a.values()
    X = patches_of(np.asarray(x), 3, stride, padding)
    close(a, patterns_of(X, np.asarray(w).reshape(-1, 4), np.asarray(b), mode).reshape(w.shape))


@pytest.mark.parametrize("mode", ["relu", "linear"])
def test_dense_layers_and_the_last_one_without_a_relu(mode, getkey):
    W1, W2 = jax.random.normal(getkey(), (5, 4)), jax.random.normal(getkey(), (4, 3))
    b1, b2 = jax.random.normal(getkey(), (4,)), jax.random.normal(getkey(), (3,))
    x = jax.random.normal(getkey(), (50, 5))
    model = lambda x: jax.nn.relu(x @ W1 + b1) @ W2 + b2
    first, last = lrp.patterns.fit(model, x, mode=mode, chunk=16).a.values()
    h = np.maximum(np.asarray(x @ W1 + b1), 0)
    close(first, patterns_of(np.asarray(x), np.asarray(W1), np.asarray(b1), mode))
    close(last, patterns_of(h, np.asarray(W2), np.asarray(b2), "linear"))


PAD = [(2, 2), (2, 2)]
ODD = {
    "grouped": ((3, 3, 2, 4), lambda w, x: conv(x, w, feature_group_count=2)),
    "dilated": ((3, 3, 4, 4), lambda w, x: conv(x, w, rhs_dilation=(2, 1))),
    "transposed": ((3, 3, 4, 4), lambda w, x: conv(x, w, lhs_dilation=(2, 2), padding=PAD)),
    "behind a transpose": (
        (3, 3, 4, 4),
        lambda w, x: conv(x.transpose(0, 2, 1, 3), w).transpose(0, 3, 1, 2),
    ),
    "neurons on two axes": ((4, 3, 2), lambda w, x: jnp.einsum("nhwc,cak->nhwak", x, w)),
}


@pytest.mark.parametrize("layer", ODD.values(), ids=ODD)
def test_every_kind_of_layer_has_unit_response(layer, getkey):
    shape, function = layer
    w, x = jax.random.normal(getkey(), shape), jax.random.normal(getkey(), (5, 6, 6, 4))
    layer = lambda x: function(w, x)
    fitted = lrp.patterns.fit(lambda x: jax.nn.relu(layer(x)), x, patches=None)
    ((name, a),) = fitted.a.items()
    method = lrp.methods.pattern_net(fitted)
    assert a.shape == fitted.w[name].shape
    assert np.isfinite(a).all() and np.abs(a).max() > 0
    if function is ODD["transposed"][1]:
        return  # the zeros between its inputs leave each output a part of the patch
    # The layer's answer to the pattern of one unit is 1 at that unit, where its patch is whole.
    out, pull = lrp.vjp(layer, x[:1], method)
    middle = tuple(n // 2 for n in out.shape)
    r = jnp.zeros_like(out).at[middle].set(1.0)
    response = layer(pull(r))
    close(response[middle], 1)


def test_batch_norm_is_part_of_the_layer(getkey):
    model = nnx.Sequential(nnx.Linear(5, 4, rngs=nnx.Rngs(0)), nnx.BatchNorm(4, rngs=nnx.Rngs(0)))
    model.layers[1].mean[...] = jnp.arange(4.0)
    model.layers[1].var[...] = jnp.arange(1.0, 5)
    model.eval()
    x = jax.random.normal(getkey(), (40, 5))
    fitted = lrp.patterns.fit(model, x, mode="linear")
    ((name, a),) = fitted.a.items()
    scale = 1 / np.sqrt(np.arange(1.0, 5) + 1e-5)
    W = np.asarray(model.layers[0].kernel[...], np.float64) * scale
    np.testing.assert_allclose(fitted.w[name], W, rtol=1e-6)  # the layer is in float32
    np.testing.assert_allclose(a, patterns_of(np.asarray(x), W, 0, "linear"), rtol=1e-4, atol=1e-5)


def test_the_grid_visits_every_patch(getkey):
    """The same batch at every offset of the grid is the batch with all its patches."""
    w, b = jax.random.normal(getkey(), (3, 3, 2, 4)), jax.random.normal(getkey(), (4,))
    x = jax.random.normal(getkey(), (3, 8, 8, 2))
    model = lambda x: jax.nn.relu(conv(x, w, b))
    (whole,) = lrp.patterns.fit(model, x, patches=None).a.values()
    (sampled,) = lrp.patterns.fit(model, [x] * 4, patches=16).a.values()
    (one,) = lrp.patterns.fit(model, [x], patches=16).a.values()
    close(sampled, whole)
    assert np.abs(one - whole).max() > 1e-3


def test_batches_do_not_matter(getkey):
    w, x = jax.random.normal(getkey(), (5, 4)), jax.random.normal(getkey(), (23, 5))
    model = lambda x: jax.nn.relu(x @ w)
    fits = [lrp.patterns.fit(model, x, chunk=b) for b in (1, 7, 23)]
    fits.append(lrp.patterns.fit(model, iter([x[:3], x[3:20], x[20:]])))
    for fitted in fits[1:]:
        close(fitted.a["w"], fits[0].a["w"])


def test_it_finds_the_signal_and_not_the_filter():
    """x = s (1, 0) + d (1, 1): the filter (1, -1) must cancel d, the signal is (1, 0)."""
    s, d = np.random.default_rng(0).normal(size=(2, 20000))
    x = s[:, None] * np.array([1.0, 0]) + d[:, None] * np.array([1.0, 1])
    w = jnp.array([[1.0], [-1.0]])
    (a,) = lrp.patterns.fit(lambda x: x @ w, x, mode="linear").a.values()
    # s and d are uncorrelated up to 1 / sqrt(20000) = 0.007.
    np.testing.assert_allclose(a[:, 0], [1, 0], atol=0.03)


# --- the methods ---------------------------------------------------------------------------------


@pytest.fixture
def net(getkey):
    W1, W2 = jax.random.normal(getkey(), (5, 6)), jax.random.normal(getkey(), (6, 3))
    b1 = jax.random.normal(getkey(), (6,))
    model = lambda W: lambda x: jax.nn.relu(x @ W[0] + b1) @ W[1]
    weights = (W1, W2)
    x = jax.random.normal(getkey(), (30, 5))
    return model, weights, b1, x, lrp.patterns.fit(model(weights), x)


def test_both_methods_are_their_equations(net):
    model, (W1, W2), b1, x, fitted = net
    A1, A2 = fitted.a.values()
    logits = np.asarray(model((W1, W2))(x))
    mask = np.asarray(x @ W1 + b1) > 0
    for name, B1, B2 in (
        ("pattern-net", A1, A2),
        ("pattern-attribution", A1 * W1, A2 * W2),
    ):
        method = lrp.methods.get(name, patterns=fitted)
        found = lrp.attribute(model((W1, W2)), x, method, target=1)
        r = logits[:, [1]] * np.asarray(B2)[:, 1]
        close(found, (r * mask) @ np.asarray(B1).T)


def test_attribution_follows_the_weights_unless_frozen(net):
    model, (W1, W2), b1, x, fitted = net
    changed = (W1, W2 + 1.0)
    now = lrp.methods.get("pattern-attribution", patterns=fitted)
    frozen = lrp.methods.get("pattern-attribution", patterns=fitted, frozen=True)
    same = [lrp.attribute(model((W1, W2)), x, m, target=0) for m in (now, frozen)]
    close(*same)
    (out, pull), (_, pull_frozen) = (lrp.vjp(model(changed), x, m) for m in (now, frozen))
    r = jnp.ones_like(out)
    A1, A2 = fitted.a.values()
    mask = np.asarray(x @ W1 + b1) > 0
    close(pull(r), ((r @ (A2 * changed[1]).T) * mask) @ (A1 * W1).T)
    close(pull_frozen(r), ((r @ (A2 * W2).T) * mask) @ (A1 * W1).T)


def test_patterns_are_arguments_under_jit(net):
    model, weights, _, x, fitted = net
    run = jax.jit(lambda p: lrp.attribute(model(weights), x, lrp.methods.pattern_net(p), target=0))
    close(run(fitted), lrp.attribute(model(weights), x, lrp.methods.pattern_net(fitted), target=0))
    doubled = jax.tree.map(lambda a: 2 * a, fitted)
    close(run(doubled), 4 * run(fitted))
    assert run._cache_size() == 1


def test_saved_and_loaded_they_respond_with_one_again(net, tmp_path):
    model, weights, _, x, fitted = net
    fitted.save(tmp_path / "p.safetensors")
    read = lrp.patterns.load(tmp_path / "p.safetensors", model(weights), x[:1])
    assert read.mode == "relu"
    for name, a in read.a.items():
        np.testing.assert_allclose(a, fitted.a[name], rtol=2e-3, atol=1e-3)  # float16
        close((a * read.w[name]).sum(0), 1)


def test_a_neuron_that_never_fires_has_no_pattern(getkey):
    w = jax.random.normal(getkey(), (5, 2))
    x = jax.random.normal(getkey(), (9, 5))
    fitted = lrp.patterns.fit(lambda x: jax.nn.relu(x @ w + jnp.array([0, -1e6])), x)
    (a,) = fitted.a.values()
    assert (a[:, 1] == 0).all() and np.isclose(a[:, 0] @ w[:, 0], 1)


def with_patterns(model, x):
    """The shipped network written out: its values, and W * A for W in its derivative."""

    def layer(name, function, x):
        w, b = getattr(model, name).kernel[...], getattr(model, name).bias[...]
        backward = function(x, w * model.patterns.a[name].astype(w.dtype))
        return lax.stop_gradient(function(x, w) + b - backward) + backward

    for name in ("conv1", "conv2", "conv3", "conv4"):
        x = jax.nn.relu(layer(name, conv, x))
        if name in ("conv2", "conv4"):
            x = nnx.max_pool(x, (2, 2), strides=(2, 2))
    x = jax.nn.relu(layer("fc5", jnp.matmul, x.reshape(len(x), -1)))
    return layer("fc6", jnp.matmul, x)


def test_the_shipped_patterns_fit_the_shipped_network():
    model = lrp.models.cifar10()
    x = model.preprocess(bundled_images()[0])
    fires = (model.conv1(x) > 0).any((0, 1, 2))
    fitted = model.patterns
    assert set(fitted.a) == {"conv1", "conv2", "conv3", "conv4", "fc5", "fc6"}
    for name, a in fitted.a.items():
        response = (a * fitted.w[name]).sum(tuple(range(a.ndim - 1)))
        dead = jnp.abs(a).sum(tuple(range(a.ndim - 1))) == 0
        np.testing.assert_allclose(response, jnp.where(dead, 0, 1), atol=1e-3)  # float32 sums
        if name == "conv1":
            assert fires.any() and not (dead & fires).any()
    assert lrp.models.cifar10("random", key=jax.random.key(0)).patterns is None
    found = np.asarray(lrp.attribute(model, x[:2], "pattern-attribution", target=0))
    out, pull = jax.vjp(lambda x: with_patterns(model, x)[:, :1], x[:2])
    wanted = np.asarray(pull(out)[0])  # started from the logit
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


# --- mistakes ------------------------------------------------------------------------------------


def dense(x):
    return x @ jnp.ones((5, 2))


def other(x):
    return x @ jnp.ones((5, 3))


def test_patterns_that_cannot_be_fitted_read_or_used_are_refused(tmp_path, getkey):
    x = jax.random.normal(getkey(), (9, 5))
    fitted = lrp.patterns.fit(dense, x)
    fitted.save(tmp_path / "p.safetensors")
    (tmp_path / "damaged").write_bytes(b"nothing")
    fit, load, get = lrp.patterns.fit, lrp.patterns.load, lrp.methods.get
    cases = [
        (ValueError, "pattern-net needs patterns", lambda: lrp.attribute(dense, x, "pattern-net")),
        (TypeError, "lrpjax.patterns.fit", lambda: get("pattern-net", patterns={"w": x})),
        (ValueError, "mode", lambda: fit(dense, x, mode="other")),
        (ValueError, "chunk must be at least 1", lambda: fit(dense, x, chunk=0)),
        (ValueError, "patches must be at least 1", lambda: fit(dense, x, patches=0)),
        (ValueError, "at least one image", lambda: fit(dense, x[:0])),
        (ValueError, "at least one image", lambda: fit(dense, [])),
        (ValueError, "no convolution and no dense", lambda: fit(jnp.tanh, x)),
        (ValueError, "NaN", lambda: fit(dense, x.at[0].set(jnp.nan))),
        (FileNotFoundError, "no pattern file", lambda: load(tmp_path / "none", dense, x)),
        (ValueError, "damaged", lambda: load(tmp_path / "damaged", dense, x)),
        (ValueError, "shape", lambda: load(tmp_path / "p.safetensors", other, x)),
        (
            ValueError,
            "has shape",
            lambda: lrp.attribute(other, x, get("pattern-net", patterns=fitted), target=0),
        ),
        (
            ValueError,
            "no pattern for the layer",
            lambda: lrp.attribute(
                lambda x: other(x) @ jnp.ones((3, 3)), x,
                get("pattern-attribution", patterns=lrp.patterns.fit(other, x)), target=0,
            ),
        ),
    ]  # fmt: skip
    for error, message, call in cases:
        with pytest.raises(error, match=message):
            call()
