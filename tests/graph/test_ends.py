"""A model that returns probabilities is told so, however they reach its output."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")
W = np.random.default_rng(2).normal(size=(3, 4))
X = np.ones((2, 3))
SOFTMAX = {
    "bare": jax.nn.softmax,
    "squeezed": lambda z: jax.nn.softmax(z[:, None, None, :])[:, 0, 0],
    "transposed": lambda z: jax.nn.softmax(z.T, axis=0).T,
    "named": lambda z: checkpoint_name(jax.nn.softmax(z), "p"),
    "behind a barrier": lambda z: jax.lax.optimization_barrier(jax.nn.softmax(z)),
    "times a constant": lambda z: 100 * jax.nn.softmax(z),
    "1 less": lambda z: 1 - jax.nn.softmax(z),
    "mean of two": lambda z: (jax.nn.softmax(z) + jax.nn.softmax(2 * z)) / 2,
    "mean over positions": lambda z: jax.nn.softmax(jnp.stack([z, 2 * z], 1)).mean(1),
    "log": jax.nn.log_softmax,
    "exp of log": lambda z: jnp.exp(jax.nn.log_softmax(z)),
    "by hand": lambda z: jnp.exp(z) / jnp.exp(z).sum(-1, keepdims=True),
    "picked": lambda z: jax.nn.softmax(z)[:, ::-1],
    "in single precision": lambda z: jax.nn.softmax(z).astype(jnp.float32),
    "clipped": lambda z: jnp.clip(jax.nn.softmax(z), 1e-7, 1 - 1e-7),
    "not below 0": lambda z: jax.nn.relu(jax.nn.softmax(z)),
    "maximum of two": lambda z: jax.nn.softmax(jnp.stack([z, 2 * z], 1)).max(1),
}
SIGMOIDS = {
    "sigmoid": jax.nn.sigmoid,
    "sigmoid by exp": lambda z: 1 / (1 + jnp.exp(-z)),
    "sigmoid by tanh": lambda z: (jnp.tanh(z / 2) + 1) / 2,
    "softplus": jax.nn.softplus,
    "1 less a sigmoid": lambda z: 1 - jax.nn.sigmoid(z),
    "mean of sigmoids": lambda z: jax.nn.sigmoid(jnp.stack([z, z], 1)).mean(1),
    "moved": lambda z: jax.nn.sigmoid(z.T).T,
    "clipped": lambda z: jnp.clip(jax.nn.sigmoid(z), 0, 1),
    "maximum over instances": lambda z: jax.nn.sigmoid(jnp.stack([z, 2 * z], 1)).max(1),
    "over its sum": lambda z: jax.nn.sigmoid(z) / jax.nn.sigmoid(z).sum(1, keepdims=True),
}


@pytest.mark.parametrize("end", SOFTMAX.values(), ids=SOFTMAX)
def test_lrp_is_refused_and_the_gradient_warns_of_a_softmax_at_the_end(end):
    model = lambda x: end(x @ W)
    for method in ("lrp-z", "lrp-alpha2-beta1", "lrp-zplus"):
        with pytest.raises(NotImplementedError, match=r"ends in softmax \(.*explain its logits"):
            lrp.attribute(model, X, method, target=0)
    with pytest.warns(UserWarning, match="ends in softmax: its maps explain probabilities"):
        lrp.attribute(model, X, "gradient", target=0)


@pytest.mark.parametrize("end", SIGMOIDS.values(), ids=SIGMOIDS)
def test_lrp_is_refused_and_the_gradient_warns_of_a_sigmoid_at_the_end(end):
    model = lambda x: end(x @ W)
    with pytest.raises(NotImplementedError, match=r"ends in (sigmoid|softplus) \("):
        lrp.attribute(model, X, "lrp-z", target=0)
    with pytest.warns(UserWarning, match="ends in (sigmoid|softplus)"):
        lrp.attribute(model, X, "gradient", target=0)


def mixed_with_itself(y):
    """2 to the power of 40 ways to the output, on each of which y is multiplied by a number."""
    for _ in range(40):
        y = 0.25 * y + 0.5 * y
    return y


SHIFTED = [
    ("tanh", lambda z: (1 + jnp.tanh(z)) / 2),
    ("tanh", lambda z: 0.7 / 3 - jnp.tanh(z) * 0.7 / 3),
    ("tanh", lambda z: jnp.stack([jnp.tanh(z) - 2, jnp.tanh(z)]).mean(0)),
    ("tanh", lambda z: mixed_with_itself(1 + jnp.tanh(z))),
    ("elu", lambda z: jax.nn.elu(z)[:, None, :] * 2 + 2),
]


@pytest.mark.parametrize(("name", "end"), SHIFTED)
def test_a_shift_that_makes_the_values_positive_is_a_sigmoid_too(name, end):
    model = lambda x: end(x @ W).reshape(2, 4)
    with pytest.raises(NotImplementedError, match=rf"ends in {name} \("):
        lrp.attribute(model, X, "lrp-z", target=0)
    with pytest.warns(UserWarning, match=f"ends in {name}"):
        lrp.attribute(model, X, "gradient", target=0)


def test_fixed_maps_of_probabilities_are_probabilities():
    """Where the model says what its parameters are: superclasses, an ensemble's weights."""
    groups, shares = np.repeat(np.eye(2), 2, 0), np.array([0.3, 0.7])
    ensemble = lambda z: jnp.einsum("m,mnc->nc", shares, jax.nn.softmax(jnp.stack([z, 2 * z])))
    for end in (lambda z: jax.nn.softmax(z) @ groups, ensemble):
        model = jax.tree_util.Partial(lambda w, x, end=end: end(x @ w), jnp.asarray(W))
        with pytest.raises(NotImplementedError, match="ends in softmax"):
            lrp.attribute(model, X, "lrp-z", target=0)


def recurrent(x, first, *, gated):
    """(1 - f) u + f c: a gate beside what it weighs, or (forgetful) a sigmoid alone."""
    c = jnp.broadcast_to(first, (len(x), 4))
    for t in range(2):
        f, u = jax.nn.sigmoid(x[:, t] @ W), jnp.tanh(x[:, t] @ W[::-1])
        c = (1 - f) * u + f * c if gated else f * 0.5 + u
    return c


@pytest.mark.parametrize("first", [0.0, np.zeros(4), np.full(4, 0.1)], ids=["0", "0s", "learned"])
def test_a_recurrent_state_is_no_probability(first, recwarn):
    x = np.ones((2, 2, 3))
    lrp.attribute(lambda x: recurrent(x, first, gated=True), x, "gradient", target=0)
    assert not [w for w in recwarn if "ends in" in str(w.message)]
    with pytest.warns(UserWarning, match="ends in sigmoid"):
        lrp.attribute(lambda x: recurrent(x, first, gated=False), x, "gradient", target=0)


def test_a_first_state_of_zero_is_none_of_one_step(recwarn):
    """i g + f 0: the gate f weighs nothing else."""

    def lstm(x):
        gate = lambda k: jax.nn.sigmoid(x @ (W * k))
        return gate(3) * jnp.tanh(gate(1) * jnp.tanh(x @ W) + gate(2) * jnp.zeros((len(x), 4)))

    lrp.attribute(lstm, X, "gradient", target=0)
    assert not [w for w in recwarn if "ends in" in str(w.message)]


INSIDE = {
    "softmax below a layer": lambda z: jax.nn.softmax(z) @ W.T,
    "sigmoid below a layer": lambda z: jax.nn.sigmoid(z) @ W.T,
    "tanh at the end": jnp.tanh,
    "tanh of both signs on all ways": lambda z: mixed_with_itself(jnp.tanh(z)),
    "tanh, shifted there and back": lambda z: (1 + jnp.tanh(z)).reshape(2, 2, 2).reshape(2, 4) - 1,
    "relu at the end": jax.nn.relu,
    "a gate at the end": lambda z: z * jax.nn.sigmoid(z[:, :1]),
    "attention at the end": lambda z: jax.nn.softmax(z) * z,
}


@pytest.mark.parametrize("end", INSIDE.values(), ids=INSIDE)
def test_no_probability_is_seen_where_none_is_returned(end, recwarn):
    lrp.attribute(lambda x: end(x @ W), X, "gradient", target=0)
    assert not [w for w in recwarn if "ends in" in str(w.message)]


def test_relevance_may_be_injected_below_the_end():
    model = lambda x: jax.nn.softmax((x @ W) * 1.0)
    (dense, *_) = lrp.plan(model, X, "gradient").layers
    _, pull = lrp.vjp(model, X, "lrp-z", start=dense.name)
    np.testing.assert_allclose(pull(X @ W).sum(), (X @ W).sum(), rtol=1e-6)
