"""Smooth ECE against its definition by quadrature and against relplot; exact cases, bounds, any order."""

import numpy as np
import pytest
import relplot
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from emocaliber.metrics.calibration import smooth_ece
from emocaliber.metrics.counts import LevelCounts, level_counts, number

CONFIDENCE = st.one_of(st.sampled_from((0.0, 0.3, 0.5, 0.9, 0.95, 1.0)), st.floats(0, 1))
ROWS = st.lists(st.tuples(CONFIDENCE, st.booleans()), min_size=1, max_size=40)
INSIDE = (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
MIDPOINTS = (np.arange(4096) + 0.5) / 4096


def by_quadrature(c, right, sigma):
    """Integral over [0, 1] of |mean of (i - c) k(t, c)|, k a Gaussian with its images behind 0 and 1."""
    levels, place = np.unique(c, return_inverse=True)
    residual = np.bincount(place, right - c) / len(c)
    images = np.arange(-2, 3)[:, None, None] * 2
    distances = np.concatenate([MIDPOINTS[:, None] - levels + images, MIDPOINTS[:, None] + levels + images])
    kernel = np.exp(-0.5 * (distances / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    return np.abs(kernel.sum(axis=0) @ residual).mean()


def random_rows(seed, n, shift, levels=(0.0, *INSIDE, 1.0)):
    rng = np.random.default_rng(seed)
    c = rng.choice(levels, size=n)
    return c, (rng.random(n) < np.clip(c + shift, 0, 1)).astype(float)


def smooth(c, right, close_enough=1e-9):
    return float(smooth_ece(level_counts(c, right), close_enough))


CASES = [
    (seed, n, shift) for seed in range(3) for n, shift in ((15, 0.0), (60, -0.2), (400, -0.1), (400, 0.0))
]


@pytest.mark.parametrize(("seed", "n", "shift"), CASES)
def test_equals_the_fixed_point_by_quadrature(seed, n, shift):
    c, right = random_rows(seed, n, shift)
    expected = brentq(lambda sigma: by_quadrature(c, right, sigma) - sigma, 0.004, 1, xtol=1e-10)
    # The mean over 512 points stands for the integral here.
    assert smooth(c, right) == pytest.approx(expected, rel=0, abs=2e-6)


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_fixed_point_for_confidences_that_do_not_tie(seed):
    rng = np.random.default_rng(seed)
    c = rng.random(50)
    right = (rng.random(50) < c**1.5).astype(float)
    expected = brentq(lambda sigma: by_quadrature(c, right, sigma) - sigma, 0.004, 1, xtol=1e-10)
    assert smooth(c, right) == pytest.approx(expected, rel=0, abs=2e-6)


def test_below_the_smallest_width_it_is_the_value_at_that_width():
    c = np.repeat([0.5, 0.75], [1000, 1000])
    right = np.r_[np.arange(1000) < 502, np.arange(1000) < 749].astype(float)
    assert smooth(c, right) == pytest.approx(by_quadrature(c, right, 0.004), rel=0, abs=2e-6)
    assert 0.001 < smooth(c, right) < 0.004


@pytest.mark.parametrize(("seed", "n", "shift"), CASES)
def test_equals_relplot_within_its_discretisation(seed, n, shift):
    # Not at 0 and 1: there relplot loses half of a row's weight, as its reflection leaves the end points out.
    c, right = random_rows(seed, n, shift, INSIDE)
    found = smooth(c, right)
    # Its ten halvings of the width leave 1/1024; at a given width its mesh of 200 points remains.
    assert found == pytest.approx(relplot.smECE(c, right), rel=0, abs=1e-3)
    assert found == pytest.approx(relplot.metrics.smECE_sigma(c, right, found), rel=0, abs=1e-3)


def test_one_level_shows_its_gap():
    for c in (0.0, 0.3, 0.95, 1.0):
        assert smooth([c] * 4, [True, False, False, True]) == pytest.approx(abs(c - 0.5), abs=1e-9)


def test_gaps_that_all_point_one_way_add_up():
    # Nothing cancels, so every width gives the mean confidence less the accuracy.
    c, right = np.array([0.8, 0.8, 0.9, 1.0]), np.array([1, 0, 0, 0])
    assert smooth(c, right) == pytest.approx((3.5 - 1) / 4, abs=1e-9)


def test_honest_confidences_have_no_smooth_ece():
    assert smooth([0.25] * 4 + [0.5] * 2, [1, 0, 0, 0, 1, 0]) == pytest.approx(0, abs=1e-12)


def test_a_looser_search_is_as_close_as_it_says():
    for seed, n, shift in CASES:
        c, right = random_rows(seed, n, shift)
        # smECE_sigma falls, so the fixed point is nearer than the residual is to 0.
        assert smooth(c, right, 1e-4) == pytest.approx(smooth(c, right), rel=0, abs=1e-4)


def test_each_leading_entry_has_its_own_number_even_beyond_one_batch():
    rng = np.random.default_rng(0)
    levels = np.array([0.1, 0.5, 0.85, 1.0])
    n = rng.integers(0, 4, (600, 4)).astype(float)
    n[3] = 0
    n_correct = np.floor(n * rng.random((600, 4)))
    zeros = np.zeros(600)
    together = smooth_ece(LevelCounts(levels, np.array([1, 5, 8, 9]), n, n_correct, zeros, zeros))
    for entry in (0, 1, 2, 3, 511, 512, 599):
        alone = LevelCounts(
            levels, np.array([1, 5, 8, 9]), n[entry], n_correct[entry], np.array(0.0), np.array(0.0)
        )
        assert together[entry] == pytest.approx(float(smooth_ece(alone)), abs=1e-9, nan_ok=True)
    assert np.isnan(together[3]) and not np.isnan(together[n.sum(axis=1) > 0]).any()


@pytest.mark.parametrize("rows", [([], []), ([None, None], [True, False])])
def test_no_rows_with_a_confidence_have_no_number(rows):
    assert number(smooth_ece(level_counts(*rows))) is None


@given(ROWS)
@settings(max_examples=50)
def test_bounds_and_symmetry(rows):
    c, right = np.array([row[0] for row in rows]), np.array([float(row[1]) for row in rows])
    value = smooth(c, right)
    gaps = [abs((right - c)[c == level].sum()) for level in np.unique(c)]
    assert abs((right - c).mean()) - 1e-6 <= value <= sum(gaps) / len(rows) + 1e-6
    mirrored = smooth(1 - c, 1 - right)
    assert mirrored == pytest.approx(value, rel=0, abs=2e-6)


@given(ROWS, st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_the_order_of_the_rows_changes_no_digit(rows, shuffler):
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    assert smooth(*zip(*rows, strict=True)) == smooth(*zip(*shuffled, strict=True))
