"""What a swap of some parameters does not reach is kept, and the numbers are those of the whole."""

from concurrent.futures import Future

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import oracle_sanity as oracle
from helpers.nets_sanity import model
from hypothesis import given, settings
from hypothesis import strategies as st

import lrpjax as lrp
from lrpjax._base.compat import jaxpr_as_fun
from lrpjax.planning import ledger
from lrpjax.sanity.maps import Subject
from lrpjax.sanity.parameters import parameters, stops
from lrpjax.sanity.partial_evaluation import Incremental
from lrpjax.sanity.states import TARGET, States

pytestmark = pytest.mark.usefixtures("quick_compile")

# --- any function -----------------------------------------------------------------------------

OPERATIONS = (jnp.add, jnp.multiply, jnp.subtract, jnp.maximum, lambda a, b: jnp.where(a > b, b, a))


@st.composite
def functions(draw):
    """(function, number of arguments, places of data, groups): a random graph of operations."""
    count = draw(st.integers(2, 5))
    picks = st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, len(OPERATIONS) - 1))
    steps = draw(st.lists(picks, min_size=1, max_size=14))
    outputs = draw(st.lists(st.integers(0, 99), min_size=1, max_size=3))
    places = st.frozensets(st.integers(0, count - 1), max_size=count)
    data, groups = draw(places), draw(st.lists(places, max_size=4))
    literal = draw(st.booleans())

    def function(*arguments):
        values = [*arguments, jnp.arange(3.0) if literal else arguments[0]]
        for a, b, operation in steps:
            values.append(OPERATIONS[operation](values[a % len(values)], values[b % len(values)]))
        return [values[i % len(values)] for i in outputs] + ([jnp.float64(2)] if literal else [])

    return function, count, data, groups


@settings(deadline=None, max_examples=60)
@given(functions(), st.integers(0, 2**31), st.frozensets(st.integers(0, 3)))
def test_every_swap_gives_what_the_whole_function_gives(case, seed, chosen):
    function, count, data, groups = case
    rng = np.random.default_rng(seed)
    before, other = rng.normal(size=(2, count, 3))
    closed = jax.make_jaxpr(function)(*before)
    parts = Incremental(closed, data, groups)
    whole = jax.jit(jaxpr_as_fun(closed))
    outputs, kept = parts(before)
    np.testing.assert_array_equal(np.stack(outputs[:1]), np.stack(whole(*before)[:1]))
    numbers = [number for number in chosen if number < len(groups)]
    places = frozenset[int]().union(*(groups[number] for number in numbers))
    swapped = [other[i] if i in places else before[i] for i in range(count)]
    for found, expected in zip(parts(swapped, kept, numbers)[0], whole(*swapped), strict=True):
        np.testing.assert_array_equal(found, expected)


def chain(x, a, b, c):
    return jnp.tanh(jnp.tanh(jnp.tanh(x @ a) @ b) @ jnp.exp(c))


ARGUMENTS = [jax.random.normal(jax.random.key(i), (3, 3)) for i in range(4)]
LAYERS = [frozenset({place}) for place in (1, 2, 3)]


def test_a_cascade_computes_what_lies_above_its_layer_and_no_more():
    parts = Incremental(jax.make_jaxpr(chain)(*ARGUMENTS), {0}, LAYERS)
    assert [part.reach for part in parts.parts] == [{0}, {0, 1}, {0, 1, 2}]
    counts = [_products(part.run.lower(*map(_like, part.reads))) for part in parts.parts]
    assert counts == [1, 1, 1]  # nothing is compiled twice
    _, kept = parts(ARGUMENTS)
    for swapped in (0, 1, 2):
        made = {v for part in parts.parts if swapped in part.reach for v in part.writes}
        assert len(made) == 3 - swapped
        poisoned = {v: a * jnp.nan if v in made else a for v, a in kept.items()}
        assert np.isfinite(parts(ARGUMENTS, poisoned, [swapped])[0][0]).all()  # made again
        poisoned = {v: a if v in made else a * jnp.nan for v, a in kept.items()}
        found = np.isfinite(parts(ARGUMENTS, poisoned, [swapped])[0][0]).all()
        assert found == (swapped == 0)  # of the others the kept values are read


def test_what_depends_on_parameters_alone_is_not_kept():
    parts = Incremental(jax.make_jaxpr(chain)(*ARGUMENTS), {0}, [frozenset({1})])
    for part in parts.parts:
        assert "exponential" in part.run.lower(*map(_like, part.reads)).as_text()  # of c
    assert len(parts.parts) == 1  # the swap of a reaches all that depends on x


# --- the maps of a network --------------------------------------------------------------------

METHODS = pytest.mark.parametrize(
    "method", ["gradient", "lrp-alpha2-beta1", "lrp-zplus", "deeplift-rescale", "rect-grad"]
)


def case_of(method, **options):
    network = model(oracle.parameters(0))
    subject = Subject(network, oracle.images(4), method, **options)
    found = parameters(subject.reading)
    rng = np.random.default_rng(7)
    drawn = {
        place: rng.normal(size=subject.reading.consts[place].shape)
        for own in found.values()
        for place in own
    }
    return subject, found, drawn


@METHODS
@pytest.mark.parametrize("order", ["output", "input", "single"])
@pytest.mark.parametrize("chunk", [None, 3])
def test_maps_of_all_states_are_those_of_a_model_with_these_parameters(method, order, chunk):
    """Bit for bit, whether the model as given has been asked for, or not yet."""
    subject, _, drawn = case_of(method, chunk=chunk)
    swaps = [step.randomised for step in stops(subject.reading, order, None)]
    asked = [({place: drawn[place] for place in swap}, None) for swap in swaps]
    kept = States(subject).all([({}, None), *asked])[1:]
    anew = States(subject).all(asked)
    for swapped, maps, again in zip(asked, kept, anew, strict=True):
        np.testing.assert_array_equal(maps, again)
        values = [swapped[0].get(i, value) for i, value in enumerate(subject.reading.consts)]
        other = subject.reading.holding(values).model
        anew_read = lambda x, other=other: other(x)
        expected = lrp.attribute(anew_read, oracle.images(4), method, target=subject.target)
        np.testing.assert_allclose(maps, expected, rtol=1e-10, atol=1e-12)


@METHODS
def test_other_classes_keep_all_that_does_not_depend_on_the_class(method):
    subject, _, _ = case_of(method)
    states = States(subject)
    other = (subject.target + 1) % subject.classes
    _, found = states.all([({}, None), ({}, other)])
    expected = lrp.attribute(subject.source.model, subject.images, method, target=other)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    target = len(states._groups) - 1
    assert states._groups[target] == {TARGET}
    consts, x, at, rules = states._arguments(states.chunks[0], {}, None)
    whole = ledger.explain.lower(subject.reading.graph, rules, consts, [x], at, told=False)
    counts = {True: 0, False: 0}
    for part in states._parts.parts:
        counts[target in part.reach] += _products(part.run.lower(*map(_like, part.reads)))
    assert counts[True] + counts[False] == _products(whole)  # nothing is compiled twice
    assert min(counts.values()) >= 3  # the forward pass is kept, the way back is not


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64])
def test_labels_may_be_of_any_integer_type(dtype):
    classes = np.array([1, 0, 1, 0], dtype)
    subject, _, _ = case_of("gradient", target=classes)
    maps = States(subject).all([({}, None), ({}, 1 - classes.astype(np.int64))])
    for target, found in zip((classes, 1 - classes), maps, strict=True):
        expected = lrp.attribute(subject.source.model, subject.images, "gradient", target=target)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def _like(v):
    return jnp.zeros(v.aval.shape, v.aval.dtype)


def _products(lowered):
    text = lowered.as_text()
    return text.count("stablehlo.dot_general") + text.count("stablehlo.convolution")


def test_values_of_two_chunks_are_kept_at_most():
    subject, found, drawn = case_of("gradient", chunk=1)
    swap = frozenset(found["fc"])
    states = States(subject)
    states.all([({}, None), ({place: drawn[place] for place in swap}, None)])
    assert list(states._given) == [2, 3]
    assert all(isinstance(made, Future) and made.done() for made in states._given.values())


def test_a_model_without_finite_logits_is_refused_and_not_waited_for():
    p = oracle.parameters(0)
    _, found, drawn = case_of("gradient")
    infinite = Subject(
        model({**p, "fc": {**p["fc"], "kernel": np.abs(p["fc"]["kernel"]) * 1e300}}),
        oracle.images(4) * 1e10, "gradient", target=0,
    )  # fmt: skip
    swap = frozenset(found["fc"])
    states = States(infinite)
    asked = [({}, None), ({place: drawn[place] for place in swap}, None)]
    for _ in range(2):
        with pytest.raises(ValueError, match="NaN or infinity in the model's output"):
            states.all(asked)
