"""The plan: what is listed is what runs, folding is exact, and the ledger adds up."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrpjax as lrp

pytestmark = pytest.mark.usefixtures("quick_compile")

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
    exactly = lrp.methods.get("lrp-z", stabiliser=1e-12)
    checked = lrp.plan(model, jnp.ones((1, 2)), exactly).check(jnp.ones((1, 2)), target=0)
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
    # z = 11 of which the inputs hold 9 and the bias 2; epsilon makes it 12 parts.
    assert row["relevance_in"] == pytest.approx(11 * 9 / 12)
    assert row["bias"] == pytest.approx(11 * 2 / 12)
    assert row["stabiliser"] == pytest.approx(11 * 1 / 12)


def test_a_unit_without_inputs_has_its_bias_alone(model):
    # x = 0: h = (1, 0), z2 = 1 + 2. Of R = 3 unit 1 gets 1, and all of it is its bias's.
    x = jnp.zeros((1, 2))
    for method in ("lrp-z", "lrp-epsilon", "lrp-gamma"):
        row = lrp.plan(model, x, method).check(x).rows[0]
        assert row["relevance_out"] == pytest.approx(1, rel=1e-5)
        assert row["bias"] == pytest.approx(1, rel=1e-5)
        assert row["relevance_in"] == row["lost"] == 0
        assert row["stabiliser"] == pytest.approx(0, abs=1e-5)
    # With epsilon 1 the 3 has 4 parts, of which unit 1 gets one; the bias of that is 1 of 2 parts.
    row = lrp.plan(model, x, lrp.methods.epsilon(1.0)).check(x).rows[0]
    assert row["bias"] == pytest.approx(3 / 4 / 2)
    assert row["stabiliser"] == pytest.approx(3 / 4 / 2)


def test_a_product_loses_to_its_stabiliser_or_for_want_of_terms():
    # (1, 2) (3, 4) = 3 + 8 = 11: with epsilon 1 both factors get 11 / 12 of R / 2.
    def ledger(x, method):
        rows = lrp.plan(lambda x: (x[0] @ x[1])[:, 0], x, method).check(x).rows
        return next(row for row in rows if row["rule"].startswith("product"))

    x = (jnp.array([[[1.0, 2.0]]]), jnp.array([[[3.0], [4.0]]]))
    row = ledger(x, lrp.methods.epsilon(1.0))
    assert row["relevance_in"] == pytest.approx(11 * 11 / 12)
    assert row["stabiliser"] == pytest.approx(11 / 12)
    assert row["bias"] == row["lost"] == 0
    # (-1, -2) (3, 4) = -11: z+ finds nothing positive.
    row = ledger((-x[0], x[1]), "lrp-zplus")
    assert row["lost"] == pytest.approx(-11)
    assert row["bias"] == row["stabiliser"] == row["relevance_in"] == 0


def test_a_unit_without_positive_contributions_loses_its_relevance():
    weights = {"fc": jnp.array([[-1.0, 1.0], [-2.0, 3.0]])}
    model = jax.tree_util.Partial(lambda w, x: x @ w["fc"], weights)
    checked = lrp.plan(model, jnp.ones((1, 2)), "lrp-zplus").check(jnp.ones((1, 2)), target=0)
    assert checked.rows[0]["lost"] == pytest.approx(-3)
    assert checked.rows[0]["relevance_in"] == 0


@pytest.mark.parametrize("method", ["lrp-alpha2-beta1", "lrp-gamma", "lrp-wsquare"])
def test_every_ledger_adds_up(model, method):
    checked = lrp.plan(model, jnp.ones((3, 2)), method).check(jnp.ones((3, 2)))
    for row in checked.rows:
        spent = sum(row[part] for part in ("relevance_in", *lrp.rules.Account._fields))
        assert spent == pytest.approx(row["relevance_out"], abs=EXACT)
        assert row["residual"] == pytest.approx(0, abs=EXACT)


def test_rules_that_do_not_conserve_show_what_came_in_and_what_went_out(model):
    x = jnp.array([[2.0, 3.0]])
    for method in ("gradient", "input-x-gradient", "guided-bp"):
        for row in lrp.plan(model, x, method).check(x).rows:
            parts = ("residual", *lrp.rules.Account._fields)
            assert {row[part] for part in parts} == {None}
            assert np.isfinite([row["relevance_out"], row["relevance_in"]]).all()
