"""The table of kinds, and what is read as a factor, a fixed map or another linear map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import lrpjax as lrp
from lrpjax.composites import for_every_kind
from lrpjax.graph import KINDS, Layer
from lrpjax.rules import rule

pytestmark = pytest.mark.usefixtures("quick_compile")
RANDOM = np.random.default_rng(3)
P = {
    "first": jnp.asarray(RANDOM.normal(size=(4, 4))),
    "last": jnp.asarray(RANDOM.normal(size=(4, 3))),
    "scale": jnp.asarray([2.0, 0.0, -1.0, 0.5]),
}
X = np.abs(RANDOM.normal(size=(2, 4)))
COLOURS = RANDOM.normal(size=(4, 4))  # of numpy: no parameter beside JAX's


def kinds(model, x, method="lrp-z"):
    return [layer.kind for layer in lrp.plan(model, x, method).layers]


def ones(model, x, method):
    out, pull = lrp.vjp(model, x, method)
    return np.asarray(pull(jnp.ones_like(out)))


def test_a_method_that_forgets_a_kind_is_an_error():
    everything = dict.fromkeys(KINDS, rule(lrp.rules.gradient))
    assert for_every_kind(**everything)
    for kind in KINDS:
        forgetful = {k: r for k, r in everything.items() if k != kind}
        with pytest.raises(ValueError, match=f"There is no word on {kind}"):
            for_every_kind(**forgetful)


def test_a_layers_detail_has_the_type_of_its_kind():
    with pytest.raises(TypeError, match="A conv has Affine for detail, got 3"):
        Layer("conv", (), (0,), (1,), 3)


LRP = [
    "lrp-z", "lrp-epsilon", "lrp-gamma", "lrp-zplus", "lrp-alpha2-beta1", "lrp-flat",
    "lrp-wsquare", "deep-taylor",
]  # fmt: skip


def residual(of):
    """Two branches read `of(relu(x W))`: it cannot be folded into either."""

    def model(p, x):
        h = of(jax.nn.relu(x @ p["first"]), p)
        return (h + jax.nn.relu(h @ p["first"])) @ p["last"]

    return Partial(model, P)


FACTORS = {
    "2": (lambda h, p: h * 2.0, np.ones(4)),
    "a root": (lambda h, p: h * np.sqrt(4.0), np.ones(4)),
    "its inverse": (lambda h, p: h / 7.0, np.ones(4)),
    "a sign": (lambda h, p: -h, np.ones(4)),
    "a parameter and a mask": (lambda h, p: h * p["scale"], np.array([1.0, 0, 1, 1])),
}


@pytest.mark.parametrize(
    "name", ["lrp-z", "lrp-zplus", "lrp-alpha2-beta1", "lrp-gamma", "lrp-flat"]
)
@pytest.mark.parametrize("factor", FACTORS)
def test_lrp_passes_relevance_through_a_factor_where_it_is_not_0(factor, name):
    function, passes = FACTORS[factor]
    model = residual(function)
    plan = lrp.plan(model, X, name)
    (layer,) = [layer for layer in plan.layers if layer.kind == "factor"]
    _, pull = lrp.vjp(model, X, name, layers=["first:relu", layer.name])
    _, at = pull(jnp.ones((2, 3)))
    np.testing.assert_allclose(at["first:relu"], at[layer.name] * passes, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["gradient", "input-x-gradient", "deeplift-rescale"])
def test_the_gradient_multiplies_by_a_factor(name):
    function, _ = FACTORS["a parameter and a mask"]
    model = residual(function)
    found = lrp.attribute(model, X, name, target=1)
    gradient = jax.grad(lambda x: model(x)[:, 1].sum())(X)
    if name == "gradient":
        np.testing.assert_allclose(found, gradient, rtol=1e-9)
    else:
        total = (model(X) - (model(0 * X) if "deep" in name else 0))[:, 1]
        if name == "input-x-gradient":
            np.testing.assert_allclose(found, X * gradient, rtol=1e-9)
        else:
            np.testing.assert_allclose(np.asarray(found).sum(1), total, rtol=1e-6)


def test_a_factor_with_a_shift_keeps_the_methods_linear_rule():
    model = residual(lambda h, p: h * 2.0 + 0.5)
    assert "scale" in kinds(model, X)
    plan = lrp.plan(model, X, "lrp-z")
    (scale,) = [layer for layer in plan.layers if layer.kind == "scale"]
    _, pull = lrp.vjp(model, X, "lrp-z", layers=["first:relu", scale.name])
    _, at = pull(jnp.ones((2, 3)))
    h = np.maximum(X @ P["first"], 0)
    np.testing.assert_allclose(at["first:relu"], 2 * h / (2 * h + 0.5) * at[scale.name], rtol=1e-6)


def resize(x):
    return jax.image.resize(x, (x.shape[0], 4, 4, 1), "bilinear")


KERNEL = jnp.asarray(RANDOM.normal(size=(3, 3, 1, 2)))
DENSE = jnp.asarray(RANDOM.normal(size=(32, 3)))


def small_cnn(p, x):
    z = jax.lax.conv_general_dilated(
        x, p["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(z).reshape(len(x), -1) @ p["dense"]


CNN = {"conv": KERNEL, "dense": DENSE}
FIXED = {
    "a resize": (lambda x: resize(x), RANDOM.normal(size=(1, 2, 2, 1))),
    "a matrix over the rows": (
        lambda x: jnp.einsum("nhwc,hk->nkwc", x, COLOURS), RANDOM.normal(size=(1, 4, 4, 1))
    ),
    "a Fourier matrix": (
        lambda x: jnp.einsum("nhwc,wk->nhkc", x, np.cos(np.outer(np.arange(4), np.arange(4)))),
        RANDOM.normal(size=(1, 4, 4, 1)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("front", FIXED)
@pytest.mark.parametrize("holds", ["as a pytree", "in a closure"])
def test_a_fixed_map_is_no_first_layer_and_conserves(front, holds):
    before, x = FIXED[front]
    function = lambda p, x: small_cnn(p, before(x))
    model = Partial(function, CNN) if holds == "as a pytree" else lambda x: function(CNN, x)
    plan = lrp.plan(model, x, "epsilon-plus-flat")
    fixed = [row for row in plan.rows if row["kind"] == "fixed"]
    assert fixed and all(row["rule"] == "z" for row in fixed)
    assert all(row["decision"] == "no parameters" for row in fixed)
    (conv,) = [row for row in plan.rows if row["kind"] == "conv"]
    assert conv["rule"] == "flat"
    _, pull = lrp.vjp(model, x, "epsilon-plus-flat", layers=[conv["layer"]])
    found, at = pull(jnp.ones((1, 3)))
    whole = np.asarray(at[conv["layer"]]).sum()
    np.testing.assert_allclose(np.asarray(found).sum(), whole, rtol=1e-6)


def test_a_matrix_in_a_closure_without_other_parameters_is_the_models():
    model = lambda x: jax.nn.relu(x @ COLOURS) @ COLOURS
    assert kinds(model, X) == ["dense", "activation", "dense"]


def spectral(x):
    return jnp.fft.ifft(jnp.fft.fft(x) * jnp.asarray([0.5, 1j, 2.0, -1j])).real


def rotary(x):
    turned = jax.lax.complex(x[:, :2], x[:, 2:]) * np.exp(1j * np.arange(2))
    return jnp.concatenate([turned.real, turned.imag], 1)


@pytest.mark.parametrize("function", [spectral, rotary])
def test_linear_maps_through_complex_numbers_share_relevance_by_their_terms(function):
    jacobian = np.asarray(jax.jacobian(lambda x: function(x[None])[0])(X[0]))
    z = jacobian @ X[0]
    expected = X[0] * (jacobian.T @ (1 / z))
    np.testing.assert_allclose(ones(function, X[:1], "lrp-z")[0], expected, rtol=1e-6)
    np.testing.assert_allclose(ones(function, X[:1], "gradient")[0], jacobian.sum(0), rtol=1e-6)


def test_an_active_number_in_an_elementwise_operation_shares_relevance():
    model = lambda x: jnp.arange(1.0, 4.0) * x[0, 0] + x
    x = np.array([[2.0, 1.0, 3.0]])
    z = np.arange(1.0, 4.0) * 2 + x[0]
    expected = x[0] / z + np.array([(np.arange(1.0, 4.0) * 2 / z).sum(), 0, 0])
    np.testing.assert_allclose(ones(model, x, "lrp-z")[0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    "branch",
    [
        lambda x: jax.lax.cond(True, lambda y: 2 * y, lambda y: y + 1, x),
        lambda x: jax.lax.switch(1, [lambda y: y + 1, lambda y: 2 * y], x),
        lambda x: jax.lax.switch(jnp.int32(9), [lambda y: y + 1, lambda y: 2 * y], x),
    ],
)
def test_a_branch_whose_index_is_written_in_the_code_is_that_branch(branch):
    model = lambda x: branch(x) @ P["last"]
    expected = ones(lambda x: (2 * x) @ P["last"], X, "lrp-z")
    np.testing.assert_allclose(ones(model, X, "lrp-z"), expected, rtol=1e-9)
