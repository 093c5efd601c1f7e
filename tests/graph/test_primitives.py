"""The table of primitives: every row is whole, and is of a primitive that JAX has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrpjax._base.compat import primitive_names
from lrpjax.program import primitives

SMALL = np.random.default_rng(0).uniform(0.1, 0.9, (3, 4))


def test_every_row_is_of_a_primitive_of_jax():
    assert set(primitives.TABLE) <= primitive_names()


def test_a_row_that_leaves_a_column_open_is_an_error():
    header, *rows = [line for line in primitives._ROWS.splitlines() if line and line[0] != "#"]
    for missing in range(1, len(header.split())):
        columns = rows[0].split()
        columns.pop(missing)
        with pytest.raises(ValueError, match="'reshape' of the primitives needs name, moves, one"):
            primitives.read("\n".join([header, " ".join(columns)]))


def test_a_word_that_a_column_does_not_know_and_a_second_row_are_errors():
    header, *rows = [line for line in primitives._ROWS.splitlines() if line and line[0] != "#"]
    with pytest.raises(ValueError, match="says 'perhaps' in the column 'sign'"):
        primitives.read("\n".join([header, rows[0].replace("keeps", "perhaps")]))
    with pytest.raises(ValueError, match="'reshape' of the primitives is there twice"):
        primitives.read("\n".join([header, rows[0], rows[0]]))


def test_nothing_is_known_of_what_is_not_in_the_table():
    row = primitives.of("a primitive of tomorrow")
    assert not (row.is_move or row.is_entrywise or row.is_step or row.is_product or row.reduces)
    assert not row.is_linear_in(0)


UNARY = [n for n, row in primitives.TABLE.items() if row.is_entrywise and not row.is_move]


@pytest.mark.parametrize("name", UNARY)
def test_what_is_said_of_functions_of_one_entry_is_true(name):
    """Sign and degree, tried on numbers, of every entrywise primitive of one real operand."""
    row, function = primitives.of(name), getattr(jax.lax, name, None)
    try:
        positive = np.asarray(function(SMALL + 1))
        negative = np.asarray(function(-SMALL))
        doubled = np.asarray(function(2 * (SMALL + 1)))
    except TypeError:  # of two operands, or of whole numbers
        return
    if row.sign != "-":
        inside = np.asarray(function(SMALL))  # some functions have no value above 1, or below
        known = np.concatenate([positive.ravel(), inside.ravel()])
        assert np.min(known[~np.isnan(known)]) >= 0
    if row.sign == "never":
        assert not (negative < 0).any()
    if row.degree == "same":
        np.testing.assert_allclose(doubled, 2 * positive)
    elif row.degree not in ("-", "none", "power"):
        np.testing.assert_allclose(doubled, 2.0 ** float(row.degree) * positive)
    if row.linear == "all" and not np.iscomplexobj(positive):
        np.testing.assert_allclose(np.asarray(function(jnp.zeros(3))), 0)


@pytest.mark.parametrize("name", [n for n, row in primitives.TABLE.items() if row.is_move])
def test_a_move_names_operands(name):
    row = primitives.of(name)
    assert row.linear == "all"
    assert row.values(3) <= {0, 1, 2} and row.values(3)


def test_select_chooses_by_its_first_operand_and_scatter_by_its_second():
    assert primitives.of("select_n").values(3) == {1, 2}
    assert primitives.of("scatter").values(3) == {0, 2}
    assert primitives.of("dynamic_update_slice").values(4) == {0, 1}
    assert primitives.of("concatenate").values(3) == {0, 1, 2}
