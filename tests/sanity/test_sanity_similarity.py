"""Similarities of maps against scipy and scikit-image, and against numbers worked out by hand."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from helpers import oracle_sanity as oracle
from skimage.metrics import structural_similarity

from lrpjax.sanity import SIMILARITIES, reduced

# Absolute. Sums of a few hundred float64 products; the windows of SSIM may be summed in any order.
EXACT = 1e-10
SINGLE = 2e-5  # of float32 maps: variances of windows are differences of near numbers

NAMES = tuple(oracle.SIMILARITIES)
OF_IMAGES = ("ssim", "ssim-standard", "hog")
OF_ENTRIES = ("spearman", "pearson", "cosine")
RNG = np.random.default_rng(17)


def found(name, a, b):
    values = np.asarray(SIMILARITIES[name](a, b))
    assert values.shape == (len(a),)
    return values


def smooth(maps):
    """Maps as attributions are: neighbours look alike."""
    return maps + np.roll(maps, 1, 1) + np.roll(maps, 1, 2)


def pair(*shape):
    a = smooth(RNG.normal(size=shape))
    return a, 0.5 * a + smooth(RNG.normal(size=shape))


def sparse(*shape):
    """Half of the entries are zero: ties, as behind a ReLU."""
    return tuple(np.maximum(m, 0) for m in pair(*shape))


def heavy(*shape):
    """A few entries outweigh all others, as in maps of lrp-z."""
    return tuple(m**7 for m in pair(*shape))


PAIRS = {
    "square": pair(4, 24, 24),
    "oblong": pair(3, 24, 33),
    "not a multiple of a cell": pair(2, 32, 47),
    "independent": (RNG.normal(size=(3, 24, 24)), RNG.normal(size=(3, 24, 24))),
    "ties": sparse(4, 32, 32),
    "heavy tails": heavy(3, 30, 30),
    "far from zero": tuple(m + 50 for m in pair(2, 28, 28)),
    "one sign": tuple(np.abs(m) for m in pair(3, 30, 30)),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("maps", PAIRS.values(), ids=PAIRS)
def test_similarities_are_those_of_scipy_and_skimage(name, maps):
    expected = oracle.similarities(name, *maps)
    assert not np.isnan(expected).any()
    np.testing.assert_allclose(found(name, *maps), expected, rtol=0, atol=EXACT)


def test_there_are_exactly_these():
    assert set(SIMILARITIES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_similarities_in_single_precision_are_those_in_double(name):
    a, b = (m.astype(np.float32) for m in pair(4, 32, 32))
    np.testing.assert_allclose(
        found(name, a, b), oracle.similarities(name, a, b), rtol=0, atol=SINGLE
    )


@pytest.mark.parametrize("name", OF_ENTRIES)
@pytest.mark.parametrize("shape", [(3, 7), (3, 6, 5), (2, 4, 5, 3)], ids=str)
def test_correlations_take_maps_of_any_shape(name, shape):
    a, b = RNG.normal(size=shape), RNG.normal(size=shape)
    expected = oracle.similarities(name, a, b)
    np.testing.assert_allclose(found(name, a, b), expected, rtol=0, atol=EXACT)


def test_colours_that_are_kept_are_the_last_axis():
    """SSIM is then the mean over the channels, and the percentiles are those of all entries."""
    a, b = pair(3, 24, 24, 3)
    u, v = ([oracle.scaled(m, 99.5) for m in maps] for maps in (a, b))
    one = lambda u, v: np.mean(
        [structural_similarity(u[..., c], v[..., c], win_size=5, data_range=2) for c in range(3)]
    )
    expected = [max(one(p, q), one(p, 1 - q)) for p, q in zip(u, v, strict=True)]
    np.testing.assert_allclose(found("ssim", a, b), expected, rtol=0, atol=EXACT)
    for name in ("ssim-standard", "hog"):
        values = found(name, a, b)
        assert np.isfinite(values).all()
        np.testing.assert_allclose(found(name, a, a), 1, rtol=0, atol=EXACT)


# --- by hand ----------------------------------------------------------------------------------


def test_spearman_with_ties_by_hand():
    """Ranks 1.5 1.5 3 4 and 1 2.5 2.5 4: deviations (-1 -1 1/2 3/2) and (-3/2 0 0 3/2)."""
    a, b = np.array([[0.0, 0, 2, 9]]), np.array([[-1.0, 5, 5, 6]])
    covariance = Fraction(3, 2) + Fraction(9, 4)
    squares = (Fraction(9, 2), Fraction(9, 2))
    assert squares[0] == squares[1]
    assert found("spearman", a, b)[0] == pytest.approx(float(covariance / squares[0]), abs=EXACT)


def test_pearson_and_cosine_by_hand():
    a, b = np.array([[3.0, 4.0]]), np.array([[4.0, 3.0]])
    assert found("cosine", a, b)[0] == pytest.approx(24 / 25, abs=EXACT)
    a, b = np.array([[1.0, 2, 3]]), np.array([[1.0, 0, 5]])  # deviations -1 0 1 and -1 -2 3
    assert found("pearson", a, b)[0] == pytest.approx(4 / np.sqrt(2 * 14), abs=EXACT)


def test_ssim_of_a_single_window_is_the_formula():
    """A 5 x 5 map has one window: SSIM's formula, with the sample covariance, data range 2."""
    a, b = RNG.normal(size=(2, 1, 5, 5))
    u, v = (oracle.scaled(m[0], 99.5).ravel() for m in (a, b))

    def formula(u, v):
        c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
        (su, cov), (_, sv) = np.cov(u, v, ddof=1)
        means = (2 * u.mean() * v.mean() + c1) / (u.mean() ** 2 + v.mean() ** 2 + c1)
        return means * (2 * cov + c2) / (su + sv + c2)

    assert found("ssim", a, b)[0] == pytest.approx(max(formula(u, v), formula(u, 1 - v)), abs=EXACT)


def test_ssim_cuts_half_a_percent_at_each_end():
    """What stands beyond the percentiles does not matter, unlike what stands within."""
    a, b = pair(1, 40, 40)  # 1600 pixels: the 8 largest and the 8 least are beyond
    order = np.argsort(a[0], axis=None)
    beyond = a.copy()
    beyond[0].flat[order[-7:]] = 1e9
    beyond[0].flat[order[:7]] = -1e9
    same = found("ssim", a, b)
    np.testing.assert_allclose(found("ssim", beyond, b), same, rtol=0, atol=EXACT)
    within = beyond.copy()
    within[0].flat[order[-30:]] = 1e9
    assert np.abs(found("ssim", within, b) - same).max() > 1e-2


# --- invariances ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_map_is_like_itself(name):
    a, _ = pair(3, 32, 32)
    np.testing.assert_allclose(found(name, a, a), 1, rtol=0, atol=EXACT)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("factor", [2.0**-120, 2.0**-30, 2.0**90])
def test_the_size_of_relevance_does_not_matter(name, factor):
    """Powers of two, exact in float32: squares of the smallest and the largest are 0 and inf."""
    a, b = (m.astype(np.float32) for m in pair(3, 32, 32))
    expected = found(name, a, b)
    np.testing.assert_allclose(
        found(name, (factor * a).astype(np.float32), b), expected, rtol=0, atol=SINGLE
    )
    np.testing.assert_allclose(
        found(name, a, (factor * b).astype(np.float32)), expected, rtol=0, atol=SINGLE
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_similarity_is_symmetric(name):
    a, b = pair(3, 32, 32)
    np.testing.assert_allclose(found(name, a, b), found(name, b, a), rtol=0, atol=EXACT)


def test_only_the_papers_ssim_takes_the_sign_that_fits_better():
    a, b = pair(3, 32, 32)
    np.testing.assert_allclose(found("ssim", a, -b), found("ssim", a, b), rtol=0, atol=EXACT)
    np.testing.assert_allclose(found("ssim", a, -a), 1, rtol=0, atol=EXACT)
    for name in OF_ENTRIES:
        np.testing.assert_allclose(found(name, a, -b), -found(name, a, b), rtol=0, atol=EXACT)
        np.testing.assert_allclose(found(name, a, -a), -1, rtol=0, atol=EXACT)
    assert (found("ssim-standard", a, -a) < 0.9).all()


def test_what_each_correlation_sees():
    a, b = pair(3, 20, 20)
    rising = np.exp(2 * b)
    same = lambda name, *other: np.abs(found(name, a, *other) - found(name, a, b)).max()
    assert same("spearman", rising) < EXACT < 1e-2 < same("pearson", rising)
    assert same("pearson", b + 3) < EXACT < 1e-2 < same("cosine", b + 3)


@pytest.mark.parametrize("name", OF_ENTRIES)
def test_maps_of_noise_have_no_similarity(name):
    """Of n independent entries: deviation 1 / sqrt(n - 1), and 40 of them."""
    a, b = RNG.normal(size=(2, 40, 30, 30))
    values = found(name, a, b)
    assert values.std() == pytest.approx(1 / 30, rel=0.4)
    assert abs(values.mean()) < 4 / 30 / np.sqrt(40)


# --- no structure -----------------------------------------------------------------------------

# No sum of equal numbers but 0 has the exact mean: what is left over is no structure.
CONSTANTS = (0.0, 1.0, 0.1, -1 / 3, 1e-20, 1e7 / 3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("constant", CONSTANTS)
def test_a_map_without_structure_has_no_similarity(name, dtype, constant):
    a, b = (m.astype(dtype) for m in pair(4, 32, 32))
    expected = found(name, a, b)
    a[0] = b[2] = a[3] = b[3] = constant
    values = found(name, a, b)
    assert np.isnan(values).tolist() == [True, False, True, True]
    assert values[1] == pytest.approx(expected[1], abs=EXACT)  # the others are as they were


def test_a_map_whose_percentiles_coincide_is_scaled_by_its_extremes():
    """One pixel of 1024 lies beyond them, and is all its structure."""
    a = np.zeros((3, 32, 32))
    a[0, 5, 7] = a[1, 5, 7] = a[2, 20, 3] = 1
    for name in NAMES:
        values = found(name, a, 3 * a[[0, 0, 0]])
        assert values[:2] == pytest.approx(1, abs=EXACT) and values[2] < 0.96


# --- colours ----------------------------------------------------------------------------------

MAPS = RNG.normal(size=(3, 4, 5, 6))


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
@pytest.mark.parametrize("colour", ["sum", "max-abs", "abs-sum", "none"])
def test_colours_are_reduced_by_their_formula(colour, axis):
    expected = oracle.reduced(MAPS, colour, axis)
    values = np.asarray(reduced(MAPS, colour, axis))
    np.testing.assert_allclose(values, expected, rtol=0, atol=EXACT)


def test_colours_by_hand():
    pixel = np.array([3.0, -5.0, 1.0]).reshape(1, 1, 1, 3)
    wanted = {"sum": -1, "max-abs": 5, "abs-sum": 9}
    for colour, value in wanted.items():
        assert float(np.asarray(reduced(pixel, colour, 3)).squeeze()) == value
