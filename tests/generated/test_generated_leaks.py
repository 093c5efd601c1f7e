"""What makes the outputs of one example depend on others is refused, wherever it stands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import lrpjax as lrp

from .check import case
from .program import laid, model
from .rewriting import REWRITINGS
from .shares import METHODS

pytestmark = pytest.mark.usefixtures("quick_compile")


def flat(h):
    return h.reshape(-1, h.shape[-1])


def attention(h):
    """Every example attends to every other."""
    rows = h.reshape(len(h), -1)
    return (jax.nn.softmax(rows @ rows.T) @ rows).reshape(h.shape)


def average(h):
    n = len(h)
    return jnp.einsum("mn,n...->m...", jnp.ones((n, n)) / n, h)


def running(h):
    size = (len(h), *(1,) * (h.ndim - 1))
    pads = [(len(h) - 1, 0), *[(0, 0)] * (h.ndim - 1)]
    return lax.reduce_window(h, 0.0, lax.add, size, (1,) * h.ndim, pads)


LEAKS = {
    "centring over the batch": lambda h: h - h.mean(0),
    "a deviation over the batch": lambda h: h / jnp.sqrt(h.var(0) + 1),
    "statistics of all rows": lambda h: (flat(h) - flat(h).mean(0)).reshape(h.shape),
    "training-mode BatchNorm": lambda h: (h - h.mean(0)) * lax.rsqrt(h.var(0) + 1e-5),
    "attention across the batch": attention,
    "a constant matrix across the batch": average,
    "a cumulative sum over the batch": lambda h: jnp.cumsum(h, 0),
    "a window over the batch": running,
    "the difference to the first": lambda h: h - h[:1],
    "a roll along the batch": lambda h: jnp.roll(h, 1, 0),
    "a batch in reverse": lambda h: h[::-1] + h,
    "a maximum over the batch": lambda h: jnp.maximum(h, h.max(0)),
    "the first for all": lambda h: h + jnp.broadcast_to(h[:1], h.shape),
}


def outer(leak, inner):
    """The leak in front of a network and behind it."""
    return (lambda x: inner(leak(x))), (lambda x: leak(inner(x)))


def leaks(whole, x):
    """Whether an example alone has another output than beside the others."""
    alone = np.concatenate([whole(x[:1]), whole(x[1:])])
    return np.abs(np.asarray(whole(x)) - alone).max() > 1e-6


@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_between_examples_is_refused(name):
    lrp_methods = [m for m in METHODS if m.family == "lrp"]
    seeds = range(sum(map(ord, name)), 10**6)
    for seed in seeds:  # a norm right behind it may take a leak away again
        drawn = case(seed, lrp_methods[seed % len(lrp_methods)], REWRITINGS[0])
        x = laid(drawn.net, drawn.style, drawn.net.x)
        both = outer(LEAKS[name], model(drawn.net, drawn.style, drawn.net.params))
        if all(leaks(whole, x) for whole in both):
            break
    method = lrp.methods.get(drawn.method.name, **drawn.method.options)
    for whole in both:
        with pytest.raises((ValueError, NotImplementedError), match=r"batch|example|training"):
            lrp.vjp(whole, x, method)
