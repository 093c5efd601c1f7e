"""Which layers LRP covers: a network around each, read, explained and checked against jax.vjp.

The tables are in layers_*.py, one for each library; NOT_COVERED in them is what is refused.
"""

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax import nnx
from helpers import layers_equinox, layers_haiku, layers_jax, layers_keras, layers_linen, layers_nnx
from helpers.layer_cases import network, rebuilt

import lrpjax as lrp
from lrpjax.graph.reading import read

pytestmark = pytest.mark.usefixtures("quick_compile")

LIBRARIES = {
    "jax": layers_jax,
    "nnx": layers_nnx,
    "linen": layers_linen,
    "equinox": layers_equinox,
    "haiku": layers_haiku,
    "keras": layers_keras,
}


def collected(table):
    """Every library's table as one, with the library's name before each layer's."""
    return {
        f"{library}: {name}": entry
        for library, module in LIBRARIES.items()
        for name, entry in getattr(module, table).items()
    }


COVERED, NOT_COVERED = collected("LAYERS"), collected("NOT_COVERED")

GRADIENT = lrp.methods.get("gradient")
EPSILON = lrp.methods.get("lrp-epsilon", epsilon=1e-12, stabiliser=1e-15)
ROUNDING = {"float64": 1e-9, "float32": 1e-5}  # of a gradient, relative to its largest entry
LOST = {"float64": 1e-7, "float32": 1e-5}  # to stabilisers, of an entry or of the sum

LISTED = {row["kind"]: set(row["primitives"].split()) for row in lrp.rules.coverage()}
UNREACHED = {  # listed, but in no layer here
    *("pvary", "reshard", "layout_constraint"),  # of arrays on several devices
}
# What stands before and behind a convolution, product or sum may be part of its layer.
FOLDED = dict.fromkeys(("conv", "dense", "fixed", "sum"), LISTED["scale"] | LISTED["structure"])
FOLDED["factor"] = {"add"}  # of 0
# Recognised whole, of whatever primitives.
WHOLE = {"activation", "norm", "softmax", "transform"}
# Of these kinds alone a network is rectifiers and linear maps, where LRP-0 is input times
# gradient (Shrikumar et al. 2016).
PIECEWISE_LINEAR = set("conv dense fixed scale factor sum add max_pool structure".split())
RECTIFIERS = {"relu", "leaky_relu", "prelu"}


def close(found, wanted, tolerance):
    atol = tolerance[str(found.dtype)] * np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


def explain(model, x, *methods):
    """The gradient of each largest logit by jax.vjp, and its relevance by each method."""

    def together(x):
        logits, pull = jax.vjp(lambda x: rebuilt(model)(x), x)
        one = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype=logits.dtype)
        seeds = {"one": one, "logit": one * logits}
        found = [lrp.vjp(model, x, method)[1](seeds[method.start]) for method in methods]
        return pull(one)[0], *found

    return jax.jit(together)(x)


def names(layer):
    """The primitives that a layer was read from, or the name of the activation it is."""
    return {layer.detail.name} if layer.kind == "activation" else {eqn.name for eqn in layer.eqns}


def conserves(ledger, tolerance, keeps):
    """Relevance of the input and what the ledger says was kept is that of the output."""
    parts = ("bias", "stabiliser", "constants")
    kept = sum(row[part] or 0 for row in ledger for part in parts)
    lost = sum(
        row["relevance_out"] - row["relevance_in"]
        if row["residual"] is None
        else row["lost"] + row["grown"]
        for row in ledger
    )
    came_in, went_out = ledger[0]["relevance_in"], ledger[-1]["relevance_out"]
    assert came_in + kept + lost == pytest.approx(went_out, rel=tolerance)
    assert (abs(lost) < tolerance * abs(went_out)) is keeps


@pytest.mark.parametrize("case", COVERED.values(), ids=COVERED)
def test_a_covered_layer(case):
    model, x = network(case)
    plan = lrp.plan(model, x, EPSILON)
    for layer in plan.layers:
        assert layer.kind in LISTED, f"{layer.primitive} at {layer.source}"
        allowed = LISTED[layer.kind] | FOLDED.get(layer.kind, set())
        assert layer.kind in WHOLE or names(layer) <= allowed
        assert names(layer).isdisjoint(UNREACHED)

    if {row["kind"] for row in plan.rows} <= PIECEWISE_LINEAR | RECTIFIERS:
        expected, gradient, relevance = explain(model, x, GRADIENT, EPSILON)
        close(relevance, x * expected, LOST)
    else:
        expected, gradient = explain(model, x, GRADIENT)
        conserves(plan.check(x).rows, LOST[str(x.dtype)], case.keeps)
    close(gradient, expected, ROUNDING)


@pytest.mark.parametrize(("primitive", "case"), NOT_COVERED.values(), ids=NOT_COVERED)
def test_a_layer_that_is_not_covered(primitive, case):
    model, x = network(case)
    with pytest.raises(NotImplementedError, match=rf"'{primitive}' at .*\.py:\d+.*register"):
        lrp.vjp(model, x, EPSILON)
    expected, gradient = explain(model, x, GRADIENT)
    close(gradient, expected, ROUNDING)


# --- the list of primitives ----------------------------------------------------------------------

WITNESSES = [
    *(f"jax: {name}" for name in layers_jax.LAYERS),
    *("nnx: PReLU", "nnx: GRUCell", "nnx: MultiHeadAttention normalised", "nnx: Conv causal"),
    *("nnx: max_pool", "nnx: global maximum", "equinox: Conv2d reflecting", "keras: ELU"),
    *("equinox: RotaryPositionalEmbedding", "haiku: MultiHeadAttention causal"),
    "keras: AdaptiveAveragePooling2D",
]


def test_every_listed_primitive_is_in_a_layer_here():
    """One that is new in `coverage` needs a layer here that has it, or a place in UNREACHED."""
    met = {kind: set() for kind in LISTED}
    for witness in WITNESSES:
        for layer in read(*network(COVERED[witness])).graph.layers:
            met[layer.kind] |= names(layer)
    missing = {kind: listed - met[kind] for kind, listed in LISTED.items() if listed - met[kind]}
    # What sums cotangents has two of them, and no constant.
    assert missing == {"structure": UNREACHED, "scale": {"add_any"}}


@pytest.mark.parametrize(("name", "read_as"), layers_jax.READ_AS.items())
def test_an_activation_of_jax_is_one_layer(name, read_as):
    x = np.ones((2, 4))
    _, activation = read(lambda x: getattr(jax.nn, name)(x @ np.eye(4)), x).graph.layers
    assert (activation.kind, activation.detail.name) == ("activation", read_as)


@pytest.mark.parametrize("library", [nnx, nn])
def test_flax_hands_on_the_activations_of_jax(library):
    handed_on = [name for name in layers_jax.ACTIVATIONS if hasattr(library, name)]
    assert len(handed_on) > 15
    assert all(getattr(library, name) is getattr(jax.nn, name) for name in handed_on)
