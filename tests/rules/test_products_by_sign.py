"""Rules that sum the contributions of each sign: the layer's own output is their sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp
from lrpjax.graph.reading import read
from lrpjax.methods import resolve
from lrpjax.planning import ledger

pytestmark = pytest.mark.usefixtures("quick_compile")

# Sums of a few hundred terms in another order, of this precision.
CLOSE = {jnp.float32: 2e-5, jnp.float64: 1e-12}


def dense(p, x, fold):
    for w, b in p[:-1]:
        x = jnp.maximum(fold(x @ w) + b, 0)
    return x @ p[-1][0] + p[-1][1]


def convolutions(p, x, fold):
    numbers = ("NHWC", "HWIO", "NHWC")
    for w, b in p:
        z = jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers)
        x = jnp.maximum(fold(z) + b, 0)
    return x.sum((1, 2))


def network(kind, dtype, fold=lambda z: z):
    """(model, input): three layers, of which the first reads values of both signs."""
    keys = iter(jax.random.split(jax.random.key(3), 9))
    draw = lambda *shape: jax.random.normal(next(keys), shape, dtype)
    if kind is dense:
        p = [(draw(30, 20), draw(20)), (draw(20, 20), draw(20)), (draw(20, 5), draw(5))]
        x = draw(4, 30)
    else:
        p = [(draw(3, 3, 2, 4), draw(4)), (draw(3, 3, 4, 4), draw(4)), (draw(3, 3, 4, 5), draw(5))]
        x = draw(4, 6, 6, 2)
    return jax.tree_util.Partial(lambda p, x: kind(p, x, fold), p), x


KINDS = pytest.mark.parametrize("kind", [dense, convolutions], ids=["dense", "convolutions"])


def _compiled(model, x, method):
    """(the products in what XLA runs for one map, its logits)."""
    method = resolve(method, model)
    reading = read(model, x)
    arguments = (reading.graph, method, reading.consts, reading.leaves, np.zeros(4, int))
    text = ledger.explain.lower(*arguments, told=True).compile().as_text()
    products = sum(text.count(f" {name}(") for name in ("dot", "convolution"))
    return products, ledger.explain(*arguments, told=True)[0]


@KINDS
@pytest.mark.parametrize(
    ("method", "inner"),
    [("lrp-alpha2-beta1", 4), ("lrp-gamma", 4), ("lrp-zplus", 3), ("lrp-epsilon", 2)],
)
def test_products_of_each_layer(kind, method, inner):
    """W+ x and W- x are the forward pass too; the last layers differ by `inner` products each."""
    counts = []
    for kept in (3, 2):
        model, x = network(kind, jnp.float32)
        p = model.args[0]
        shorter = jax.tree_util.Partial(model.func, p[:1] + p[2:] if kept == 2 else p)
        counts.append(_compiled(shorter, x, method)[0])
    assert counts[0] - counts[1] == inner


@KINDS
def test_a_folded_factor_leaves_the_forward_pass_alone(kind):
    """The rule's W is not the model's there: W+ x + W- x would be work of its own."""
    model, x = network(kind, jnp.float32, fold=lambda z: z * 0.5)
    p = model.args[0]
    shorter = jax.tree_util.Partial(model.func, p[:1] + p[2:])
    counts = [_compiled(m, x, "lrp-alpha2-beta1")[0] for m in (model, shorter)]
    assert counts[0] - counts[1] == 5


@KINDS
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("method", ["lrp-alpha2-beta1", "lrp-gamma"])
def test_the_logits_are_the_models(kind, dtype, method):
    model, x = network(kind, dtype)
    _, logits = _compiled(model, x, method)
    expected = np.asarray(model(x))
    np.testing.assert_allclose(logits, expected, atol=CLOSE[dtype] * np.abs(expected).max())
    outputs = lrp.vjp(model, x, method)[0]
    np.testing.assert_allclose(outputs, expected, atol=CLOSE[dtype] * np.abs(expected).max())
