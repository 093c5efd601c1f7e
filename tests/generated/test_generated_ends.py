"""A softmax or a sigmoid at the end of a network, behind whatever moves: LRP is refused there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax, nn
from jax.ad_checkpoint import checkpoint_name

import lrpjax as lrp

from .check import SUMS, case, error
from .program import laid, model
from .rewriting import REWRITINGS
from .shares import METHODS

pytestmark = pytest.mark.usefixtures("quick_compile")

SIGMOIDS = {
    "sigmoid": nn.sigmoid,
    "sigmoid by exp": lambda y: 1 / (1 + jnp.exp(-y)),
    "sigmoid by tanh": lambda y: 0.5 * (jnp.tanh(y / 2) + 1),
    "softplus": nn.softplus,
    "one minus a sigmoid": lambda y: 1 - nn.sigmoid(y),
    "a sigmoid of one unit": lambda y: nn.sigmoid(y)[:, :1],
    "a sigmoid times a constant": lambda y: 100 * nn.sigmoid(y),
    "a mean of sigmoids": lambda y: (nn.sigmoid(y) + nn.sigmoid(2 * y)) / 2,
}
SOFTMAXES = {
    "softmax": nn.softmax,
    "softmax by hand": lambda y: jnp.exp(y) / jnp.exp(y).sum(-1, keepdims=True),
    "softmax, squeezed": lambda y: nn.softmax(y[:, None])[:, 0],
    "softmax over heads": lambda y: nn.softmax(jnp.stack([y, -y], 1))[:, 0],
    "softmax, transposed": lambda y: nn.softmax(y.T, 0).T,
    "softmax, named": lambda y: checkpoint_name(nn.softmax(y), "probabilities"),
    "softmax behind a barrier": lambda y: lax.optimization_barrier(nn.softmax(y)),
    "softmax, in percent": lambda y: nn.softmax(y) * 100.0,
    "one minus softmax": lambda y: 1 - nn.softmax(y),
    "the mean of softmaxes over places": lambda y: nn.softmax(jnp.stack([y, 2 * y], 1)).mean(1),
    "the mean of two softmaxes": lambda y: (nn.softmax(y) + nn.softmax(2 * y)) / 2,
    "softmax, a class": lambda y: nn.softmax(y)[:, 1:2],
    "softmax by log": lambda y: jnp.exp(nn.log_softmax(y)),
}


def ending(end, seed):
    """A generated network with that end; the method is the seed's, of LRP."""
    lrp_methods = [m for m in METHODS if m.family == "lrp"]
    drawn = case(seed, lrp_methods[seed % len(lrp_methods)], REWRITINGS[0])
    inner = model(drawn.net, drawn.style, drawn.net.params)
    x = laid(drawn.net, drawn.style, drawn.net.x)
    return drawn, inner, lambda x: end(inner(x)), x


@pytest.mark.parametrize("name", SOFTMAXES | SIGMOIDS)
def test_lrp_is_refused_where_probabilities_end_the_network(name):
    end = (SOFTMAXES | SIGMOIDS)[name]
    drawn, inner, whole, x = ending(end, sum(map(ord, name)))
    R = np.ones(jax.eval_shape(whole, x).shape)
    method = lrp.methods.get(drawn.method.name, **drawn.method.options)
    lrp.vjp(inner, x, method)  # it is the end that is refused
    with pytest.raises(NotImplementedError, match="logit"):
        lrp.vjp(whole, x, method)[1](R)


@pytest.mark.filterwarnings("ignore:.*(softmax|sigmoid|softplus|logits)")
@pytest.mark.parametrize("name", SOFTMAXES | SIGMOIDS)
def test_the_gradient_of_probabilities_is_that_of_jax(name):
    end = (SOFTMAXES | SIGMOIDS)[name]
    _, _, whole, x = ending(end, sum(map(ord, name)))
    R = np.random.default_rng(0).normal(size=jax.eval_shape(whole, x).shape)
    assert error(lrp.vjp(whole, x, "gradient")[1](R), jax.vjp(whole, x)[1](R)[0]) < SUMS


def test_the_same_functions_inside_a_network_are_not_refused():
    """A sigmoid that weighs and a softmax with a dense layer behind it end nothing."""
    W = np.random.default_rng(1).normal(size=(4, 3))
    x = np.random.default_rng(2).normal(size=(2, 4))
    for inside in (lambda x: x * nn.sigmoid(x[:, ::-1] * 2), nn.softplus, lambda x: nn.sigmoid(x)):
        lrp.vjp(lambda x, f=inside: f(x) @ W, x, "lrp-epsilon")
