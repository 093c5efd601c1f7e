"""The plan: what is listed is what runs, folding is exact, and the ledger adds up."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import lrpjax as lrp

EXACT = 1e-12  # a handful of float64 additions


@pytest.fixture
def model():
    weights = {
        "fc1": {"kernel": jnp.array([[1.0, 2.0], [3.0, 1.0]]), "bias": jnp.array([1.0, -1.0])},
        "fc2": {"kernel": jnp.array([[1.0], [2.0]]), "bias": jnp.array([2.0])},
    }

    def forward(w, x):
        h = jax.nn.relu(x @ w["fc1"]["kernel"] + w["fc1"]["bias"])
        return h @ w["fc2"]["kernel"] + w["fc2"]["bias"]

    return jax.tree_util.Partial(forward, weights)


def test_rows_name_layers_shapes_rules_and_lines(model):
    plan = lrp.plan(model, jnp.ones((1, 2)), "lrp-epsilon")
    assert [(r["layer"], r["kind"], r["input"], r["output"]) for r in plan.rows] == [
        ("fc1", "dense", "1x2", "1x2"),
        ("fc1:relu", "relu", "1x2", "1x2"),
        ("fc2", "dense", "1x2", "1x1"),
    ]
    epsilon = "epsilon(epsilon=1e-06)"
    assert [r["rule"] for r in plan.rows] == [epsilon, "pass", epsilon]
    assert all("test_plan.py" in r["source"] for r in plan.rows)
    for row in plan.rows:
        assert row["layer"] in str(plan) and row["source"] in str(plan)


def test_a_shape_is_enough(model):
    plan = lrp.plan(model, jax.ShapeDtypeStruct((4, 2), jnp.float32), "gradient")
    assert plan.layers[0].name == "fc1"


def test_layers_without_a_rule_are_listed():
    plan = lrp.plan(lambda x: jnp.exp(x) @ jnp.ones((2, 2)), jnp.ones((1, 2)), "lrp-z")
    assert plan.rows[0]["rule"] == "NONE for exp"
    asked = lrp.methods.get("lrp-z", unknown="gradient")
    plan = lrp.plan(lambda x: jnp.exp(x) @ jnp.ones((2, 2)), jnp.ones((1, 2)), asked)
    assert plan.rows[0]["rule"] == "gradient"


def test_the_ledger_by_hand(model):
    # x = (1, 1): h = (1+3+1, 2+1-1) = (5, 2); z2 = 5 + 4 + 2 = 11, the start relevance.
    # fc2: contributions 5 and 4 of 11, so the bias takes 2. fc1: unit 1 holds 5 = (1 + 3) + 1,
    # unit 2 holds 4 = (2 + 1) / 2 * 4 - 1 / 2 * 4: R_in = 4/5 * 5 + 3/2 * 4 = 10, bias 1 - 2.
    checked = lrp.plan(model, jnp.ones((1, 2)), "lrp-z").check(jnp.ones((1, 2)), target=0)
    ledger = {row["layer"]: row for row in checked.rows}
    assert ledger["fc2"]["relevance_out"] == pytest.approx(11, abs=1e-8)
    assert ledger["fc2"]["relevance_in"] == pytest.approx(9, abs=1e-8)
    assert ledger["fc2"]["bias"] == pytest.approx(2, abs=1e-8)
    assert ledger["fc1"]["relevance_in"] == pytest.approx(10, abs=1e-8)
    assert ledger["fc1"]["bias"] == pytest.approx(-1, abs=1e-8)
    assert checked.forward_difference < EXACT
    assert "11 at the output, 10 at the input" in str(checked)


def test_a_large_stabiliser_is_named(model):
    method = lrp.methods.epsilon(1.0)
    checked = lrp.plan(model, jnp.ones((1, 2)), method).check(jnp.ones((1, 2)))
    row = checked.rows[-1]
    # z = 11 of which the bias holds 2: with epsilon 1 the inputs get 9/12 of 11; without the
    # bias z = 9 and they would get 9/10.
    assert row["relevance_in"] == pytest.approx(11 * 9 / 12)
    assert row["stabiliser"] == pytest.approx(11 * (1 - 9 / 10))
    assert row["bias"] == pytest.approx(11 * (9 / 10 - 9 / 12))


def test_a_unit_without_positive_contributions_drops_its_relevance():
    weights = {"fc": jnp.array([[-1.0, 1.0], [-2.0, 3.0]])}
    model = jax.tree_util.Partial(lambda w, x: x @ w["fc"], weights)
    checked = lrp.plan(model, jnp.ones((1, 2)), "lrp-zplus").check(jnp.ones((1, 2)), target=0)
    assert checked.rows[0]["dropped"] == pytest.approx(-3)
    assert checked.rows[0]["relevance_in"] == 0


@pytest.mark.parametrize("method", ["lrp-alpha2-beta1", "lrp-gamma", "guided-bp", "lrp-wsquare"])
def test_every_ledger_adds_up(model, method):
    checked = lrp.plan(model, jnp.ones((3, 2)), method).check(jnp.ones((3, 2)))
    for row in checked.rows:
        spent = row["relevance_in"] + row["bias"] + row["stabiliser"] + row["dropped"]
        assert spent == pytest.approx(row["relevance_out"], abs=EXACT)
