"""An embedding tied to the output: its table is randomised once, where it is used uppermost."""

import jax
import numpy as np
import pytest

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

RNG = np.random.default_rng(5)
KEY = jax.random.key(5)
PARAMETERS = {
    "table": RNG.normal(size=(6, 4)),
    "bias": RNG.normal(size=4),
    "inner": RNG.normal(size=(4, 4)),
}
X = RNG.uniform(size=(3, 6))


def tied(p, x):
    h = jax.nn.relu(x @ p["table"] + p["bias"])
    return jax.nn.relu(h @ p["inner"]) @ p["table"].T


def without_bias(p, x):
    return jax.nn.relu(jax.nn.relu(x @ p["table"]) @ p["inner"]) @ p["table"].T


def mprt(function=tied, **options):
    model = jax.tree_util.Partial(function, PARAMETERS)
    return lrp.sanity.mprt(model, X, "lrp-z", key=KEY, similarity="pearson", **options).rows


@pytest.mark.parametrize("order", ["output", "input", "single"])
def test_the_rows_say_which_layers_share_and_the_shares_count_each_parameter_once(order):
    rows = {row["layer"]: row for row in mprt(order=order)}
    layers = lrp.plan(jax.tree_util.Partial(tied, PARAMETERS), X, "lrp-z").layers
    below, inner, above = (layer.name for layer in layers if layer.kind == "dense")
    assert rows[above]["shared"] == [below]
    assert rows[below]["shared"] == rows[inner]["shared"] == []
    alone = {above: 24 / 44, inner: 16 / 44, below: 4 / 44}  # of the lower only its bias is left
    if order == "single":
        wanted = alone
    else:
        passed = list(alone) if order == "output" else list(alone)[::-1]
        wanted = {name: sum(alone[n] for n in passed[: i + 1]) for i, name in enumerate(passed)}
    assert order == "single" or list(rows) == list(wanted)
    for name, share in wanted.items():
        assert rows[name]["share"] == pytest.approx(share)


def test_a_layer_that_has_nothing_of_its_own_is_refused_with_the_one_that_has_it():
    names = [row["layer"] for row in mprt(without_bias)]
    assert len(names) == 2  # of three layers
    with pytest.raises(ValueError, match=r"'table' shares all.*table_2.*name that layer"):
        mprt(without_bias, layers=["table"])
