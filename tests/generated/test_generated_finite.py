"""A generated network whose relevance, or whose output, is NaN says so instead of giving it."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp

from .check import case, plain
from .program import model
from .rewriting import REWRITINGS
from .shares import METHODS

pytestmark = pytest.mark.usefixtures("quick_compile")

CHAINS = ["gradient", "input-x-gradient", "guided-bp", "lrp-z", "lrp-zplus", "lrp-alpha2-beta1"]


def with_root(y):
    """y, with a derivative that is infinity times 0."""
    return y + jnp.sqrt(0 * y * y)


def with_logarithm(y):
    """y, which a gate of 0 on minus infinity makes NaN."""
    return y + 0 * jnp.log(0 * y)


def infected(seed, touch):
    """A network with that at its input or its output, and a chain of rules for it, with the
    gradient where it has none."""
    name = CHAINS[seed % len(CHAINS)]
    drawn = case(seed, next(m for m in METHODS if m.name == name), REWRITINGS[0])
    last = len(drawn.net.nodes) - 1
    style = replace(drawn.style, touches={last if touch is with_logarithm else 0: touch})
    _, x = plain(drawn)
    more = {"unknown": "gradient"} if name.startswith("lrp") else {}
    method = lrp.methods.get(name, fold=drawn.net.fold, **more)
    return model(drawn.net, style, drawn.net.params), x, method, drawn.R


@pytest.mark.parametrize("seed", range(4))
def test_relevance_that_is_nan_is_refused(seed):
    network, x, method, R = infected(seed, with_root)
    out, pull = lrp.vjp(network, x, method)
    assert np.isfinite(out).all()
    with pytest.raises(ValueError, match=r"NaN or infinity in the relevance"):
        pull(R)
    with pytest.raises(ValueError, match=r"NaN or infinity in the relevance"):
        lrp.attribute(network, x, method, target=0)


@pytest.mark.parametrize("seed", range(3))
def test_an_output_that_is_nan_is_refused(seed):
    network, x, method, _ = infected(seed, with_logarithm)
    for ask in (lrp.vjp, lrp.attribute):
        with pytest.raises(ValueError, match=r"NaN or infinity in the model's output"):
            ask(network, x, method)


@pytest.mark.parametrize("number", [np.float64, np.asarray, jnp.asarray])
def test_a_single_number_is_seen_to_be_finite_wherever_it_is_held(number):
    model = lambda x: jnp.stack([x["a"] * x["b"], x["a"]])[None] @ np.ones((2, 2))
    of = lambda a: lrp.vjp(model, {"a": number(a), "b": number(3.0)}, "gradient")[0]
    np.testing.assert_array_equal(of(2.0), [[8.0, 8.0]])
    with pytest.raises(ValueError, match="NaN or infinity in the input"):
        of(np.inf)
