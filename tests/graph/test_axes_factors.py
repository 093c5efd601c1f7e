"""Axes as products of factors, against the numbers themselves moved by numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from lrpjax.program.factors import BATCH, Factor, apart, core, digits, length, reshaped, sliced
from lrpjax.program.trace import trace
from lrpjax.program.varying import pull_through, push_through

RANDOM = np.random.default_rng(0)


def new_axes():
    labels = iter(range(100, 1000))
    return lambda size: (Factor(next(labels), 1, size),)


def factors_of(shape):
    return [(Factor(i, 1, n),) for i, n in enumerate(shape)]


def numbers(shape):
    """For each axis its number at each entry, flat."""
    return [np.indices(shape)[i].ravel() for i in range(len(shape))]


def said(axes, labels):
    """What the factors say those numbers are, for each label whose factors are all there."""
    shape = [length(axis) for axis in axes]
    places, found = np.indices(shape), dict.fromkeys(range(labels), 0)
    for place, axis in zip(places, axes, strict=True):
        inner = length(axis)
        for f in axis:
            inner //= f.size
            if f.label < labels:
                found[f.label] = found[f.label] + (place // inner % f.size) * f.stride
    return {label: np.broadcast_to(n, shape).ravel() for label, n in found.items()}


RESHAPES = [  # one after the other
    [(4, 2, 2, 3), (16, 3), (4, 2, 2, 3)],
    [(4, 6), (4, 2, 3), (8, 3), (24,), (4, 6)],
    [(4, 6), (2, 2, 6), (2, 12), (4, 6)],
    [(6, 8), (2, 3, 4, 2), (2, 12, 2), (6, 8)],
    [(1, 8, 8, 3), (1, 192), (1, 8, 8, 3)],
    [(2, 1, 3), (6,), (2, 1, 3)],
    [(5, 1), (5,), (1, 5), (5, 1, 1)],
]


@pytest.mark.parametrize("shapes", RESHAPES, ids=str)
def test_factors_say_where_each_number_went(shapes):
    first, *others = shapes
    axes = factors_of(first)
    for shape in others:
        axes, torn = reshaped(axes, shape, new_axes())
        assert [length(axis) for axis in axes] == list(shape) and not torn
        found = said(axes, len(first))
        for i, expected in enumerate(numbers(first)):
            np.testing.assert_array_equal(found[i], expected)
    if others[-1] == first:
        assert [core(axis) for axis in axes] == factors_of(first)


def test_factors_and_transpositions_together():
    axes = factors_of((4, 6))
    axes, _ = reshaped(axes, (4, 2, 3), new_axes())
    axes, _ = reshaped([axes[1], axes[0], axes[2]], (8, 3), new_axes())
    array = np.arange(24).reshape(4, 2, 3).transpose(1, 0, 2).ravel()
    found = said(axes, 2)
    np.testing.assert_array_equal(found[0] * 6 + found[1], array)
    assert digits(axes[0]) == ((1, 1, 4),)  # the batch is inside of the half of the features


def test_a_reshape_that_tears_says_what_it_tears_and_keeps_the_others():
    axes, torn = reshaped(factors_of((5, 4, 6, 3)), (5, 3, 8, 3), new_axes())
    assert [core(axes[0]), core(axes[3])] == [(Factor(0, 1, 5),), (Factor(3, 1, 3),)]
    assert {f.label for f in torn} == {1, 2} and axes[1][0].label >= 100


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 12, 24])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_part_of_an_axis_says_which_examples_it_holds(count, step):
    merged = (Factor(7, 1, 2), Factor(BATCH, 1, 4), Factor(8, 1, 3))
    example = np.arange(24) // 3 % 4
    for first in range(24 - (count - 1) * step):
        if first + (count - 1) * step >= 24:
            continue
        part = sliced(merged, first, count, step, new_axes())
        if part is None:
            continue
        axis, start = part
        axis = axis or (Factor(9, 1, 1),)
        found = start + said([axis], 1)[BATCH]
        expected = example[first : first + count * step : step][:count]
        np.testing.assert_array_equal(np.broadcast_to(found, count), expected)


def test_whole_blocks_of_an_axis_are_always_known():
    merged = (Factor(7, 1, 2), Factor(BATCH, 1, 4), Factor(8, 1, 3))
    for first in range(0, 24, 3):
        for count in (3, 12 - first % 12):
            assert sliced(merged, first, count, 1, new_axes()) is not None


def test_an_axis_comes_apart_where_a_factor_divides():
    axis = (Factor(0, 1, 4), Factor(1, 1, 6))
    assert apart(axis, 3) == ((Factor(0, 1, 4), Factor(1, 3, 2)), (Factor(1, 1, 3),))
    assert apart(axis, 12) == ((Factor(0, 2, 2),), (Factor(0, 1, 2), Factor(1, 1, 6)))
    assert apart(axis, 4) is None


CHAINS = {  # what moves entries, and the shape of what it moves
    "left alone": (lambda x: x.reshape(2, 12), (2, 3, 4)),
    "split": (lambda x: x.reshape(2, 3, 4), (2, 12)),
    "ones": (lambda x: x.reshape(1, 2, 3), (2, 3, 1)),
    "torn": (lambda x: x.reshape(6, 4, 5), (4, 6, 5)),
    "torn and put together": (lambda x: x.reshape(3, 2, 5).reshape(2, 3, 5), (2, 3, 5)),
    "merged and split again": (lambda x: x.reshape(2, 24).reshape(2, 4, 3, 2), (2, 4, 3, 2)),
    "merged, turned, split again": (lambda x: x.reshape(6, 4).T.reshape(4, 2, 3), (2, 3, 4)),
    "merged, longer, split again": (lambda x: x.reshape(1, 6, 1).squeeze().reshape(2, 3), (2, 3)),
    "a part": (lambda x: x[:, :2].reshape(4, 4), (2, 3, 4)),
}


@pytest.mark.parametrize("name", CHAINS)
def test_where_axes_go_is_where_the_numbers_vary(name):
    """An axis behind the moves is made of one in front where numbers that vary along that vary
    along it. Of what is torn to pieces more may be said, never less."""
    move, shape = CHAINS[name]
    program = trace(move, np.zeros(shape))[0]
    out = program.shape(program.outputs[0])
    for axis, size in enumerate(shape):
        numbers = np.arange(size).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        moved = np.asarray(move(jnp.broadcast_to(numbers, shape)))
        varying = {i for i in range(len(out)) if (np.diff(moved, axis=i) != 0).any()}
        found = push_through(program, program.eqns, {axis})
        assert found >= varying
        assert found == varying or "torn" in name
        for i in range(len(out)):
            assert (axis in pull_through(program, program.eqns, {i})) is (i in found)
