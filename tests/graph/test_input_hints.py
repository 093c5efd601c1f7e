"""An input of the wrong shape: the error says what shape the model takes and how to get there."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import keras
import pytest
from flax import nnx

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

LAST, FIRST = jnp.ones((2, 8, 8, 3), jnp.float32), jnp.ones((2, 3, 8, 8), jnp.float32)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(5)(nn.Conv(4, (3, 3))(x).mean((1, 2)))


def in_linen():
    variables = Linen().init(jax.random.key(0), LAST)
    return jax.tree_util.Partial(Linen().apply, variables)


def in_equinox():
    conv, dense = (
        eqx.nn.Conv2d(3, 4, 3, dtype=jnp.float32, key=jax.random.key(0)),
        eqx.nn.Linear(4, 5, dtype=jnp.float32, key=jax.random.key(1)),
    )
    return eqx.nn.Sequential([conv, eqx.nn.Lambda(lambda z: z.mean((1, 2))), dense])


def in_keras():
    layers = keras.layers
    model = [layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), layers.Dense(5)]
    return keras.Sequential([keras.Input((8, 8, 3)), *model])


in_nnx = lambda: nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0))
CASES = {
    "nnx": (in_nnx, FIRST, r"float32\[2, 8, 8, 3\]: give it channels last"),
    "linen": (in_linen, FIRST, r"float32\[2, 8, 8, 3\]: give it channels last"),
    "keras": (in_keras, FIRST, r"axis -1.*float32\[2, 8, 8, 3\]: give it channels last"),
    "equinox": (lambda: jax.vmap(in_equinox()), LAST, r"\[2, 3, 8, 8\]: give it channels first"),
    "no batch": (in_keras, LAST[0], r"float32\[1, 8, 8, 3\]: give it a batch, as in x\[None\]"),
    "no vmap": (in_equinox, FIRST, r"float32\[3, 8, 8\]: pass jax.vmap\(model\)"),
}


@pytest.mark.parametrize(("build", "x", "words"), CASES.values(), ids=CASES)
def test_what_to_do_is_said(build, x, words):
    with pytest.raises(ValueError, match=words):
        lrp.attribute(build(), x, "lrp-epsilon", target=0)


def test_no_advice_where_none_helps():
    with pytest.raises(ValueError, match=r"with input float32\[2, 7\]: .*\.$") as caught:
        lrp.attribute(in_nnx(), jnp.ones((2, 7), jnp.float32), "lrp-epsilon", target=0)
    assert "It can with" not in str(caught.value)
