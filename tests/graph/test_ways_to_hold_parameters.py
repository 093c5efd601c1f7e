"""However a model holds its parameters and is called, its maps are those of the plain function."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

RNG = np.random.default_rng(0)
X, R = RNG.normal(size=(2, 4)), RNG.normal(size=(2, 3))
PARAMS = {"up": RNG.normal(size=(4, 5)), "down": RNG.normal(size=(5, 3))}
METHODS = ("gradient", "lrp-epsilon", "lrp-zplus")
SUMS = 1e-12  # the same sums in another order


def network(params, x):
    return jax.nn.relu(x @ params["up"]) @ params["down"]


def by_hand(params, x, R, method):
    """In numpy, from the equations: two dense layers with a ReLU between."""
    up, down = (np.asarray(params[k], float) for k in ("up", "down"))
    h = np.maximum(x @ up, 0)

    def layer(W, a, R):
        c = a[:, :, None] * W
        if method == "gradient":
            return R @ W.T
        c = np.maximum(c, 0) if method == "lrp-zplus" else c
        total = c.sum(1)
        # An empty sum has nothing to share out.
        eps = 1e-6 * np.where(total < 0, -1, 1) if method == "lrp-epsilon" else total == 0
        return (c * (R / (total + eps))[:, None]).sum(2)

    inner = layer(down, h, R)
    return layer(up, x, inner * (h > 0) if method == "gradient" else inner)


def relevance(model, method, x=X):
    return lrp.vjp(model, x, method)[1](R)


def close(found, method, params=PARAMS, x=X, tolerance=1e-6):
    """1e-6: the default stabiliser of z+, which these equations do without."""
    wanted = by_hand(params, x, R, method)
    np.testing.assert_allclose(found, wanted, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("method", METHODS)
def test_weights_traced_by_an_outer_jit_may_be_closed_over(method):
    found = jax.jit(lambda params: relevance(lambda x: network(params, x), method))(PARAMS)
    close(found, method)


@pytest.mark.parametrize("method", METHODS)
def test_weights_traced_by_an_outer_vmap_may_be_closed_over(method):
    many = jax.tree.map(lambda w: np.stack([w, 2 * w, -w]), PARAMS)
    found = jax.vmap(lambda params: relevance(lambda x: network(params, x), method))(many)
    for k, factor in enumerate((1, 2, -1)):
        close(found[k], method, jax.tree.map(lambda w, f=factor: f * w, PARAMS))


@pytest.mark.parametrize("method", METHODS)
def test_weights_traced_by_an_outer_grad_may_be_closed_over(method):
    def total(factor):
        params = {**PARAMS, "up": PARAMS["up"] * factor}
        return (relevance(lambda x: network(params, x), method) * X).sum()

    one = lambda t: (by_hand({**PARAMS, "up": PARAMS["up"] * t}, X, R, method) * X).sum()
    slope = (one(1 + 1e-5) - one(1 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(total)(1.0), slope, rtol=1e-4, atol=1e-4)


class Net(nnx.Module):
    """Two dense layers; counts its calls and sows what it computes on the way."""

    def __init__(self):
        self.up = nnx.Linear(4, 5, use_bias=False, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
        self.down = nnx.Linear(5, 3, use_bias=False, rngs=nnx.Rngs(1), param_dtype=jnp.float64)
        self.up.kernel[...] = PARAMS["up"]
        self.down.kernel[...] = PARAMS["down"]
        self.calls = nnx.Variable(jnp.zeros((), jnp.int32))

    def __call__(self, x):
        self.calls[...] = self.calls[...] + 1
        h = nnx.relu(self.up(x))
        self.sow(nnx.Intermediate, "hidden", h)
        return self.down(h)


@pytest.mark.parametrize("method", METHODS)
def test_a_module_that_sows_and_counts_has_the_maps_of_one_that_does_not(method):
    model = Net()
    close(relevance(model, method), method)
    model(X)  # nothing that was traced has stayed in the module
    assert int(model.calls[...]) >= 1
    assert all(not isinstance(v, jax.core.Tracer) for v in jax.tree.leaves(nnx.state(model)))
    close(relevance(model, method), method)


@pytest.mark.parametrize("method", METHODS)
def test_a_module_changed_between_two_calls_has_the_maps_of_its_new_weights(method):
    model, changed = Net(), {**PARAMS, "up": -PARAMS["up"]}
    close(relevance(model, method), method)
    model.up.kernel[...] = changed["up"]
    close(relevance(model, method), method, changed)


@pytest.mark.parametrize("method", METHODS)
def test_a_closure_over_an_array_changed_in_place_has_the_maps_of_its_new_values(method):
    params = {k: v.copy() for k, v in PARAMS.items()}
    model = lambda x: network(params, x)
    close(relevance(model, method), method)
    params["down"] *= -2
    close(relevance(model, method), method, params)


class Switched(eqx.Module):
    """A flag that decides what is computed stays static."""

    params: dict
    doubled: bool = eqx.field(static=True)

    def __call__(self, x):
        return network(self.params, 2 * x if self.doubled else x)


@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_static_fields_of_a_module_decide_what_is_explained(method, doubled):
    found = relevance(Switched(PARAMS, doubled), method)
    params = {**PARAMS, "up": PARAMS["up"] * (1 + doubled)}
    close(found, method, params)


@partial(jax.jit, static_argnums=0, static_argnames="sign")
def compiled(power, params, x, *, sign):
    return sign * network(params, x) ** power


@pytest.mark.parametrize("method", METHODS)
def test_static_arguments_of_a_jit_are_no_inputs(method):
    found = relevance(lambda x: compiled(1, PARAMS, x, sign=1), method)
    close(found, method)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_donates_its_input_leaves_the_users_array_alone(method):
    model = jax.jit(partial(network, PARAMS), donate_argnums=0)
    x = jnp.array(X)
    found = relevance(model, method, x)
    np.testing.assert_array_equal(x, X)
    close(found, method)


@pytest.mark.parametrize("method", METHODS)
def test_the_user_may_donate_input_and_relevance(method):
    f = jax.jit(
        lambda p, x, R: lrp.vjp(Partial(network, p), x, method)[1](R), donate_argnums=(1, 2)
    )
    close(f(PARAMS, jnp.array(X), jnp.array(R)), method)


@pytest.mark.parametrize("method", METHODS)
def test_int8_weights_are_those_that_they_stand_for(method):
    """x @ (q s), q whole numbers of 8 bits and s a scale for each output."""
    scales = {k: np.abs(w).max(0) / 127 for k, w in PARAMS.items()}
    whole = {k: np.round(w / scales[k]).astype(np.int8) for k, w in PARAMS.items()}

    def quantised(params, x):
        q, s = params
        up, down = (q[k].astype(jnp.float64) * s[k] for k in ("up", "down"))
        return jax.nn.relu(x @ up) @ down

    stood_for = {k: whole[k] * scales[k] for k in PARAMS}
    close(relevance(Partial(quantised, (whole, scales)), method), method, stood_for)


@pytest.mark.parametrize("method", METHODS)
def test_int8_weights_scaled_behind_the_product_are_those_that_they_stand_for(method):
    """(x @ q) s: the scale is a part of the layer."""
    scale = np.linspace(0.5, 1.5, 5) / 64
    q = np.round(RNG.normal(size=(4, 5)) * 40).astype(np.int8)

    def quantised(params, x):
        q, s, down = params
        return jax.nn.relu((x @ q.astype(x.dtype)) * s) @ down

    model = Partial(quantised, (q, scale, PARAMS["down"]))
    close(relevance(model, method), method, {**PARAMS, "up": q * scale})
