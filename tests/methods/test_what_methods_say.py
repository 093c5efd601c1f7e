"""What is known of a method stands once: its docstring and the table say the same."""

from __future__ import annotations

import inspect
import re

import jax
import numpy as np
import pytest

import lrpjax as lrp
from lrpjax.methods import get
from lrpjax.methods.lookup import TABLE
from lrpjax.propagation.explainer import explainer
from lrpjax.sanity.similarity import colour_of

ROWS = {}  # function: its rows
for _entry in TABLE.values():
    ROWS.setdefault(getattr(_entry.make, "func", _entry.make), []).append(_entry)
CONSTRUCTORS = {make.__name__: make for make in ROWS}


def test_there_are_28_constructors_and_each_is_public():
    assert len(CONSTRUCTORS) == 28
    for name, make in CONSTRUCTORS.items():
        assert getattr(lrp.methods, name) is make


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_help_shows_formula_source_and_options(name):
    make = CONSTRUCTORS[name]
    text = inspect.getdoc(make)
    for entry in ROWS[make]:
        assert entry.formula in text and entry.source in text
    for option, parameter in inspect.signature(make).parameters.items():
        assert parameter.kind is not inspect.Parameter.VAR_KEYWORD
        assert re.search(rf"\b{option}\b", text.replace(entry.formula, "")), option
    assert all(text.count(entry.formula) == 1 for entry in ROWS[make])
    assert all(len(line) <= 140 for line in text.splitlines())


def test_the_options_of_the_estimators_are_in_their_signatures():
    wanted = {
        "integrated_gradients": "base steps quadrature baseline baselines at_once",
        "smooth_grad": "base key samples noise form at_once",
        "iba": "layer statistics key beta steps samples learning_rate sigma chunk",
    }
    for name, options in wanted.items():
        assert list(inspect.signature(CONSTRUCTORS[name]).parameters) == options.split()
    made = get("smooth-grad", key=jax.random.key(0), samples=3, noise=0.5, form="square", at_once=2)
    assert (made.samples, made.noise, made.form, made.at_once) == (3, 0.5, "square", 2)
    path = get("integrated-gradients", steps=3, quadrature="left", baseline=2.0, at_once=2)
    baseline = float(path.baseline.inputs)
    assert (path.steps, path.quadrature, baseline, path.at_once) == (3, "left", 2, 2)


# Sixt et al. 2020, appendix: by max |R| over the colours the gradient and its relatives.
LARGEST = {"gradient", "guided-bp", "deconv", "rect-grad"}
WITHOUT_NEEDS = [name for name, entry in TABLE.items() if not entry.needs]


@pytest.mark.parametrize("name", WITHOUT_NEEDS)
def test_a_method_says_how_its_maps_are_reduced(name):
    expected = "max-abs" if name in LARGEST else "sum"
    assert colour_of("auto", get(name)) == expected
    assert colour_of("abs-sum", get(name)) == "abs-sum"
    assert get(name).sparse == (name == "rect-grad")
    smooth = get("smooth-grad", base=get(name), key=jax.random.key(0))
    assert (colour_of("auto", smooth), smooth.sparse) == (expected, get(name).sparse)


def test_a_method_keeps_its_reduction_under_another_name():
    renamed = lrp.methods.Method("mine", get("gradient").composite, colour="max-abs")
    assert colour_of("auto", renamed) == "max-abs"
    assert colour_of("auto", explainer(lambda model, x, target: np.ones_like(x))) == "sum"
    named_alike = lrp.methods.Method("gradient", get("lrp-z").composite)
    assert colour_of("auto", named_alike) == "sum"
