"""What a process may hand to another: methods, plans, and the map that `vjp` returns."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

RNG = np.random.default_rng(4)
PARAMETERS = {
    "conv": RNG.normal(size=(3, 3, 2, 3)),
    "q": RNG.normal(size=(3, 3)),
    "fc": RNG.normal(size=(12, 2)),
}
X = RNG.normal(size=(2, 4, 4, 2))


def network(p, x):
    """Convolution, pooling, a residual, attention, a dense layer."""
    numbers = ("NHWC", "HWIO", "NHWC")
    h = jax.lax.conv_general_dilated(x, p["conv"], (1, 1), "SAME", dimension_numbers=numbers)
    h = jax.nn.gelu(h)
    h = jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    h = h.reshape(len(x), 4, 3)
    attention = jax.nn.softmax(h @ p["q"] @ h.transpose(0, 2, 1), -1)
    h = h + attention @ h
    return h.reshape(len(x), 12) @ p["fc"]


MODEL = jax.tree_util.Partial(network, PARAMETERS)
SEED = RNG.normal(size=(2, 2))
METHODS = ["lrp-epsilon", "lrp-alpha2-beta1", "gradient", "lrp-flat"]


def reloaded(thing):
    return pickle.loads(pickle.dumps(thing))


@pytest.mark.parametrize("name", METHODS)
def test_the_relevance_map_is_the_same_after_a_pickle(name):
    _, relevance = lrp.vjp(MODEL, X, name, layers=["conv", "input"])
    wanted, at = relevance(SEED)
    again = reloaded(relevance)
    found, found_at = again(SEED)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(found_at["conv"], at["conv"])
    many = jnp.stack([SEED, 2 * SEED])
    np.testing.assert_allclose(jax.vmap(again)(many)[0][1], 2 * wanted, rtol=1e-12)


@pytest.mark.parametrize("baselines", [None, RNG.normal(size=(3, 4, 4, 2))])
def test_that_of_deeplift_too(baselines):
    p = {"a": RNG.normal(size=(32, 3)), "b": RNG.normal(size=(3, 2))}
    model = lambda x: jax.nn.relu(x.reshape(len(x), -1) @ p["a"]) @ p["b"]
    method = lrp.methods.get("deeplift-reveal-cancel", baselines=baselines)
    _, relevance = lrp.vjp(model, X, method)
    np.testing.assert_array_equal(reloaded(relevance)(SEED), relevance(SEED))


@pytest.mark.parametrize("name", METHODS)
def test_a_plan_is_the_same_after_a_pickle(name):
    plan = lrp.plan(MODEL, X, name)
    again = reloaded(plan)
    assert str(again) == str(plan) and again.graph == plan.graph
    assert again.method == plan.method
    np.testing.assert_allclose(
        lrp.attribute(again.model, X, again.method, target=0),
        lrp.attribute(MODEL, X, name, target=0),
    )


def test_a_plan_of_a_pytree_of_shapes_keeps_its_structure():
    model = jax.tree_util.Partial(two, {"w": RNG.normal(size=(3, 2))})
    x = {"a": jax.ShapeDtypeStruct((2, 3), "float32"), "b": jax.ShapeDtypeStruct((2, 3), "float64")}
    plan = lrp.plan(model, x, "lrp-z")
    assert str(reloaded(plan)) == str(plan) and reloaded(plan).like == x


def two(p, x):
    return (x["a"] + x["b"]) @ p["w"]


def test_another_process_can_apply_the_map(tmp_path):
    _, relevance = lrp.vjp(MODEL, X, "lrp-epsilon")
    (tmp_path / "given").write_bytes(pickle.dumps((relevance, SEED)))
    code = (
        "import numpy, pickle\n"
        "relevance, seed = pickle.load(open('given', 'rb'))\n"
        "numpy.save('found.npy', relevance(seed))\n"
    )
    root = str(Path(lrp.__file__).parents[1])
    env = {**os.environ, "JAX_ENABLE_X64": "1", "PYTHONPATH": root}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), relevance(SEED), rtol=1e-9)


def test_a_primitive_that_no_module_holds_is_refused_by_its_name():
    from lrpjax._base import pickles
    from lrpjax._base.compat import Primitive

    with pytest.raises(pickle.PicklingError, match=r"'nameless'.*assign it to a name"):
        pickles.dumps(Primitive("nameless"))
