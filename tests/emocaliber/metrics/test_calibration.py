"""ECE, Brier, AUROC, smooth ECE, the gap to a truth: by hand, by other implementations, in any order."""

import itertools
import math
from decimal import Decimal
from fractions import Fraction
from math import log

import numpy as np
import pytest
import relplot
from hypothesis import given, settings
from hypothesis import strategies as st
from model_diagnostics.scoring import SquaredError, decompose
from scipy import stats
from scipy.optimize import brentq
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from emocaliber.metrics import calibration
from emocaliber.metrics.calibration import (
    LEAST_PROBABILITY,
    auroc,
    average_precision,
    bayes_accuracy,
    brier,
    brier_parts,
    calibrated_by_chance,
    ece,
    ece_debiased,
    ece_equal_mass,
    forecast_scores,
    reliability_bins,
    smooth_ece,
    soft_ece,
)
from emocaliber.metrics.counts import LevelCounts, level_counts, number

HUNDREDTHS = st.integers(0, 100).map(lambda hundredths: Decimal(hundredths) / 100)
LONG_DECIMALS = st.decimals(0, 1, places=12)
ROWS = st.lists(st.tuples(st.one_of(HUNDREDTHS, LONG_DECIMALS), st.booleans()), max_size=80)
SCORES = ("ece", "ece_debiased", "ece_equal_mass", "brier", "auroc", "average_precision")
exactly = {"rel": 0, "abs": 1e-12}


def decimals(*texts: str) -> list[Decimal]:
    return [Decimal(text) for text in texts]


def score(name, confidence, correct):
    return number(getattr(calibration, name)(level_counts(confidence, correct)))


def ece_of(confidence, correct):
    return score("ece", confidence, correct)


def columns(rows):
    return [stated for stated, _ in rows], [right for _, right in rows]


@pytest.mark.parametrize("index", range(11))
def test_a_confidence_on_a_bin_edge_opens_its_bin_and_one_closes_the_last(index):
    bins = reliability_bins(level_counts([Decimal(index) / 10], [True]))
    assert [one.n for one in bins].index(1) == min(index, 9)
    assert sum(one.n for one in bins) == 1


def test_the_edges_that_float_arithmetic_misplaces():
    # floor(c / 0.1) puts 0.3, 0.6 and 0.7 one bin low: then (0.3, wrong) and (0.2, right) would share a bin.
    for low, edge in (("0.2", "0.3"), ("0.5", "0.6"), ("0.6", "0.7")):
        apart = float((1 - Fraction(low) + Fraction(edge)) / 2)
        assert ece_of(decimals(low, edge), [True, False]) == pytest.approx(apart, **exactly)
    # 1.0 shares the last bin with 0.9: |1 - 1.9| / 2, and does not fall out.
    assert ece_of(decimals("0.9", "1.0"), [True, False]) == pytest.approx(0.45, **exactly)
    assert ece_of(decimals("0.29999", "0.3"), [True, False]) == pytest.approx(1.00001 / 2, **exactly)


def test_a_float_stands_for_the_decimal_that_was_written():
    assert ece_of([0.2, 0.3], [True, False]) == ece_of(decimals("0.2", "0.3"), [True, False])


def test_ece_by_hand():
    # bin [0.8, 0.9): 0.80, 0.85, 0.85 with 2 right -> |2 - 2.5| = 0.5; bin [0.3, 0.4): 0.3 right -> 0.7;
    # bin [0.9, 1.0]: 1.0 right -> 0. ECE = 1.2 / 5.
    c = decimals("0.80", "0.85", "0.85", "0.3", "1.0")
    assert ece_of(c, [True, True, False, True, True]) == pytest.approx(0.24, **exactly)
    # Inside one bin the gaps cancel: |2 - 2.5| over 3 rows.
    assert ece_of(decimals("0.81", "0.84", "0.85"), [True, True, False]) == pytest.approx(0.5 / 3, **exactly)


def test_ece_debiased_by_hand():
    # One bin: 4 rows at 0.8, 2 right: gap 0.3, noise sqrt(0.25 / 4) = 0.25, scaled 1.2.
    # E|N(0.3, 0.25^2)| = 0.25 sqrt(2 / pi) exp(-0.72) + 0.3 (1 - 2 Phi(-1.2)), Phi(-1.2) = 0.11506967.
    folded = 0.25 * math.sqrt(2 / math.pi) * math.exp(-0.72) + 0.3 * (1 - 2 * 0.11506967022170828)
    levels = level_counts([0.8] * 4, [True, True, False, False])
    assert ece_debiased(levels) == pytest.approx(0.6 - folded, **exactly)
    # A bin that is all right or all wrong has no noise, so nothing is taken off.
    assert score("ece_debiased", [0.8, 0.8, 0.3], [True, True, False]) == pytest.approx(0.7 / 3, **exactly)


def test_ece_equal_mass_by_hand():
    # Ten rows without ties: a bin each, so the mean of |i - c|.
    c = decimals("0.05", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9")
    right = [False] * 5 + [True] * 5
    gaps = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert score("ece_equal_mass", c, right) == pytest.approx(sum(gaps) / 10, **exactly)
    # 5 rows, half a row a bin: 2 at 0.6 with one right (bins 1-4: gap -0.1), 3 at 0.9 all right (gap 0.1).
    tied = score("ece_equal_mass", [0.6, 0.6, 0.9, 0.9, 0.9], [True, False, True, True, True])
    assert tied == pytest.approx(0.1, **exactly)
    # 20 rows in bins of two: 5 at 0.2 and 15 at 0.4, so that the third bin holds one of each.
    # 0.2 with all wrong has gap -0.2, 0.4 with all right 0.6: |-0.4| * 2 + |-0.2 + 0.6| + 7 * 1.2, over 20.
    mixed = score("ece_equal_mass", [0.2] * 5 + [0.4] * 15, [False] * 5 + [True] * 15)
    assert mixed == pytest.approx((0.8 + 0.4 + 8.4) / 20, **exactly)


def test_brier_by_hand():
    # (0.2^2 + 0.7^2 + 0 + 1) / 4 = (0.04 + 0.49 + 0 + 1) / 4
    c, right = decimals("0.8", "0.7", "1.0", "1"), [True, False, True, False]
    assert score("brier", c, right) == pytest.approx(0.3825, **exactly)


def test_brier_parts_by_hand():
    # Levels 0.2: 1 of 2 right, 0.6: 0 of 1, 0.9: 1 of 1. Isotonic: the first two pool to 1/3, the last is 1.
    # Brier of those: (1 * 4/9 + 2 * 1/9 + 0) / 4 = 1/6; base rate 1/2, so UNC = 1/4, DSC = 1/4 - 1/6 = 1/12.
    # Brier: (0.64 + 0.04 + 0.36 + 0.01) / 4 = 0.2625, MCB = 0.2625 - 1/6.
    parts = brier_parts(level_counts([0.2, 0.2, 0.6, 0.9], [True, False, False, True]))
    expected = {"miscalibration": 0.2625 - 1 / 6, "discrimination": 1 / 12, "uncertainty": 0.25}
    assert {name: float(value) for name, value in parts.items()} == pytest.approx(expected, **exactly)


def test_auroc_by_hand_with_ties_counting_half():
    # right: 0.9, 0.8; wrong: 0.8, 0.3. Pairs: 0.9>0.8, 0.9>0.3, 0.8=0.8, 0.8>0.3 -> 3.5 of 4.
    assert score("auroc", decimals("0.9", "0.8", "0.80", "0.3"), [True, True, False, False]) == 0.875
    assert score("auroc", decimals("0.9", "0.9", "0.9"), [True, False, True]) == 0.5


def test_auroc_of_one_class_is_undefined():
    assert score("auroc", decimals("0.9", "0.2"), [True, True]) is None
    assert score("auroc", decimals("0.9", "0.2"), [False, False]) is None
    assert score("auroc", [], []) is None


def test_average_precision_by_hand():
    # 0.9: 1 of 2 right, precision 1/2, recall gains 1/2; 0.4: 1 of 1, precision 2/3, gains 1/2: 7/12.
    levels = level_counts([0.9, 0.9, 0.4, 0.1], [True, False, True, False])
    assert average_precision(levels) == pytest.approx(7 / 12, **exactly)
    assert score("average_precision", [0.9, 0.1], [False, False]) is None


@pytest.mark.parametrize("rows", [([], []), ([None, None], [True, False])])
def test_no_rows_with_a_confidence_have_no_number(rows):
    levels = level_counts(*rows)
    assert [number(getattr(calibration, name)(levels)) for name in SCORES] == [None] * len(SCORES)
    assert {number(part) for part in brier_parts(levels).values()} == {None}
    assert calibrated_by_chance(levels, 10, 0) is None
    assert [(one.n, one.mean_confidence, one.accuracy) for one in reliability_bins(levels)] == [
        (0, None, None)
    ] * 10
    assert bayes_accuracy([]) is None


def test_reliability_bins_by_hand():
    bins = reliability_bins(level_counts(decimals("0.80", "0.85", "0.9"), [True, False, False]))
    eighties = bins[8]
    assert (eighties.low, eighties.high) == (0.8, 0.9)
    assert (eighties.n, eighties.n_correct) == (2, 1)
    assert (eighties.mean_confidence, eighties.accuracy) == (pytest.approx(0.825, **exactly), 0.5)
    assert (bins[0].n, bins[0].mean_confidence, bins[0].accuracy) == (0, None, None)
    assert (eighties.null_low, eighties.null_high) == (None, None)
    assert len(bins) == 10


def test_a_reliability_bin_carries_its_band():
    band = np.full((2, 10), np.nan)
    band[:, 8] = 0.6, 1.0
    bins = reliability_bins(level_counts(decimals("0.80", "0.85", "0.9"), [True, False, False]), band)
    assert [(one.null_low, one.null_high) for one in bins[7:]] == [(None, None), (0.6, 1.0), (None, None)]


def test_bayes_accuracy_by_hand():
    assert bayes_accuracy([0.5, 0.75, 1.0]) == 0.75


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_no_digit(rows, shuffler):
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    for name in SCORES:
        assert score(name, *columns(rows)) == score(name, *columns(shuffled)), name
    one, other = level_counts(*columns(rows)), level_counts(*columns(shuffled))
    assert reliability_bins(one) == reliability_bins(other)
    assert str(brier_parts(one)) == str(brier_parts(other))
    by_chance, again = calibrated_by_chance(one, 20, 3), calibrated_by_chance(other, 20, 3)
    assert str(by_chance) == str(again)


@given(ROWS.filter(bool))
def test_bounds_and_the_bins_hold_every_row(rows):
    stated, correct = columns(rows)
    bins = reliability_bins(level_counts(stated, correct))
    assert sum(one.n for one in bins) == len(rows)
    assert sum(one.n_correct for one in bins) == sum(correct)
    gap = ece_of(stated, correct)
    # One bin can only hide miscalibration, and no bin exceeds the mean distance of its rows.
    assert abs(sum(correct) - math.fsum(map(float, stated))) / len(rows) <= gap + 1e-12
    assert gap <= math.fsum(abs(float(c) - i) for c, i in rows) / len(rows) + 1e-12
    assert 0 <= gap <= 1
    assert 0 <= score("brier", stated, correct) <= 1


# Against independent implementations, on rows that tie heavily

WHOLE_HUNDREDTHS = st.one_of(st.sampled_from((0, 30, 60, 70, 90, 95, 100)), st.integers(0, 100))
TIED_ROWS = st.lists(st.tuples(WHOLE_HUNDREDTHS, st.booleans()), min_size=1, max_size=80)
exactly = {"rel": 0, "abs": 1e-12}


def counted(rows):
    """Levels of the rows, and the same rows as float confidences and 0 or 1."""
    c, right = [hundredths / 100 for hundredths, _ in rows], [int(flag) for _, flag in rows]
    return level_counts(c, right), np.array(c), np.array(right)


def by_bin(rows):
    bins = [[] for _ in range(10)]
    for hundredths, right in rows:
        bins[min(hundredths // 10, 9)].append((Fraction(hundredths, 100), int(right)))
    return [rows_of_bin for rows_of_bin in bins if rows_of_bin]


def mean(values):
    return sum(values, Fraction(0)) / len(values)


@given(TIED_ROWS)
def test_brier_auroc_and_average_precision_equal_scikit_learn(rows):
    levels, c, right = counted(rows)
    assert brier(levels) == pytest.approx(brier_score_loss(right, c, pos_label=1), **exactly)
    if right.any():
        assert average_precision(levels) == pytest.approx(average_precision_score(right, c), **exactly)
    if 0 < right.sum() < len(right):
        assert auroc(levels) == pytest.approx(roc_auc_score(right, c), **exactly)


@given(TIED_ROWS)
def test_ece_equals_its_definition_in_fractions(rows):
    expected = sum(len(one) * abs(mean([right - c for c, right in one])) for one in by_bin(rows)) / len(rows)
    assert ece(counted(rows)[0]) == pytest.approx(float(expected), **exactly)


@given(TIED_ROWS)
def test_debiased_ece_takes_off_the_excess_of_a_folded_normal(rows):
    total = 0.0
    for one in by_bin(rows):
        gap, accuracy = abs(mean([right - c for c, right in one])), mean([right for _, right in one])
        noise = float(accuracy * (1 - accuracy) / len(one)) ** 0.5
        expected = stats.foldnorm.mean(float(gap) / noise, scale=noise) if noise else float(gap)
        total += len(one) * (2 * float(gap) - expected)
    assert ece_debiased(counted(rows)[0]) == pytest.approx(total / len(rows), **exactly)


@given(TIED_ROWS)
def test_equal_mass_ece_equals_rows_cut_into_ten_shares_of_their_level(rows):
    right_at = {level: mean([int(right) for c, right in rows if c == level]) for level, _ in rows}
    shares = [right_at[c] - Fraction(c, 100) for c, _ in sorted(rows) for _ in range(10)]
    tenths = [shares[start : start + len(rows)] for start in range(0, len(shares), len(rows))]
    expected = sum(abs(sum(tenth)) for tenth in tenths) / len(shares)
    assert ece_equal_mass(counted(rows)[0]) == pytest.approx(float(expected), **exactly)


@given(st.lists(st.tuples(st.sampled_from((20, 50, 90)), st.booleans()), min_size=1, max_size=5))
@settings(max_examples=30)
def test_equal_mass_ece_is_at_most_its_mean_over_the_orders_of_tied_rows(rows):
    over_orders = []
    for order in itertools.permutations(rows):
        if all(one[0] <= other[0] for one, other in itertools.pairwise(order)):
            shares = [int(right) - Fraction(c, 100) for c, right in order for _ in range(10)]
            tenths = [shares[start : start + len(rows)] for start in range(0, len(shares), len(rows))]
            over_orders.append(sum(abs(sum(tenth)) for tenth in tenths) / len(shares))
    levels = counted(rows)[0]
    assert ece_equal_mass(levels) <= float(mean(over_orders)) + 1e-12
    if len(over_orders) == 1:
        assert ece_equal_mass(levels) == pytest.approx(float(over_orders[0]), **exactly)


def test_equal_mass_ece_has_none_of_the_gap_that_an_order_of_tied_rows_would_add():
    # Two rows at 0.5, one right: in either order every bin lies in one row, and misses it by 0.5.
    assert ece_equal_mass(level_counts([0.5, 0.5], [True, False])) == pytest.approx(0, **exactly)


@given(TIED_ROWS.filter(lambda rows: len(rows) > 1))  # model-diagnostics does not take a single row
def test_brier_parts_equal_model_diagnostics_and_add_up(rows):
    levels, c, right = counted(rows)
    parts = brier_parts(levels)
    expected = decompose(y_obs=right.astype(float), y_pred=c, scoring_function=SquaredError())
    for name, value in parts.items():
        assert value == pytest.approx(expected[name][0], **exactly), name
        assert value >= 0
    added = parts["miscalibration"] - parts["discrimination"] + parts["uncertainty"]
    assert added == pytest.approx(brier(levels), **exactly)


def test_leading_axes_give_each_entry_its_own_numbers():
    rng = np.random.default_rng(1)
    all_rows = [
        [(int(rng.choice((20, 50, 90))), bool(rng.random() < 0.6)) for _ in range(40)] for _ in range(3)
    ]
    singles = [counted(rows)[0] for rows in all_rows]
    stacked = type(singles[0])(
        singles[0].confidence,
        singles[0].tenth,
        *(np.stack([getattr(one, name) for one in singles]) for name in ("n", "n_correct")),
        *(np.zeros(3), np.zeros(3)),
    )
    for score in (ece, ece_debiased, ece_equal_mass, brier, auroc, average_precision):
        assert score(stacked) == pytest.approx([float(score(one)) for one in singles], **exactly), score
    for name, values in brier_parts(stacked).items():
        assert values == pytest.approx([float(brier_parts(one)[name]) for one in singles], **exactly)


def test_chance_equals_a_plain_simulation():
    rng = np.random.default_rng(2)
    c = rng.choice((30, 55, 60, 75, 80, 95, 100), size=120, p=(0.05, 0.05, 0.1, 0.2, 0.2, 0.3, 0.1)) / 100
    by_chance = calibrated_by_chance(level_counts(c, np.zeros(120)), 20_000, 0)
    right = rng.random((20_000, 120)) < c
    tenth = np.minimum(np.round(c * 100).astype(int) // 10, 9)
    gaps = [(right[:, tenth == one] - c[tenth == one]).sum(axis=1) for one in np.unique(tenth)]
    eces = np.abs(gaps).sum(axis=0) / 120
    # Standard errors of the two means together: about 0.0003.
    assert by_chance.mean == pytest.approx(eces.mean(), abs=1e-3)
    assert by_chance.p95 == pytest.approx(np.percentile(eces, 95), abs=3e-3)
    for one in range(10):
        if one in tenth:
            expected = np.percentile(right[:, tenth == one].mean(axis=1), [2.5, 97.5])
            step = 1 / (tenth == one).sum()
            assert np.abs(by_chance.band[:, one] - expected).max() <= step + 1e-12
        else:
            assert np.isnan(by_chance.band[:, one]).all()


def test_chance_of_one_level_is_the_mean_deviation_of_a_binomial():
    n, c = 25, 0.3
    k = np.arange(n + 1)
    deviation = (stats.binom.pmf(k, n, c) * np.abs(k / n - c)).sum()
    spread = (stats.binom.pmf(k, n, c) * (k / n - c) ** 2).sum() - deviation**2
    by_chance = calibrated_by_chance(level_counts([c] * n, [True] * n), 20_000, 5)
    assert by_chance.mean == pytest.approx(deviation, abs=4 * (spread / 20_000) ** 0.5)
    assert by_chance.band[:, 3] == pytest.approx(stats.binom.ppf([0.025, 0.975], n, c) / n, **exactly)


def test_chance_is_drawn_whole_when_its_draws_do_not_fit_at_once():
    # 4,001 levels: 1,500 draws are made in two parts.
    c = np.arange(4001) / 4000
    by_chance = calibrated_by_chance(level_counts(c, np.ones(4001)), 1500, 0)
    tenth = np.minimum(np.arange(4001) // 400, 9)
    deviation = np.sqrt(np.bincount(tenth, c * (1 - c)))
    assert by_chance.mean == pytest.approx(np.sqrt(2 / np.pi) * deviation.sum() / 4001, rel=0.03)
    middle = by_chance.band.mean(axis=0)
    assert middle == pytest.approx(np.bincount(tenth, c) / np.bincount(tenth), abs=0.01)


def test_chance_says_the_same_for_the_same_seed_only():
    levels = level_counts([0.3] * 10 + [0.8] * 20, [True] * 30)
    assert str(calibrated_by_chance(levels, 50, 1)) == str(calibrated_by_chance(levels, 50, 1))
    assert str(calibrated_by_chance(levels, 50, 1)) != str(calibrated_by_chance(levels, 50, 2))


# Smooth ECE

CONFIDENCE = st.one_of(st.sampled_from((0.0, 0.3, 0.5, 0.9, 0.95, 1.0)), st.floats(0, 1))
SMOOTH_ROWS = st.lists(st.tuples(CONFIDENCE, st.booleans()), min_size=1, max_size=40)
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
def test_no_rows_with_a_confidence_have_no_smooth_ece(rows):
    assert number(smooth_ece(level_counts(*rows))) is None


@given(SMOOTH_ROWS)
def test_bounds_and_symmetry(rows):
    c, right = np.array([row[0] for row in rows]), np.array([float(row[1]) for row in rows])
    value = smooth(c, right)
    gaps = [abs((right - c)[c == level].sum()) for level in np.unique(c)]
    assert abs((right - c).mean()) - 1e-6 <= value <= sum(gaps) / len(rows) + 1e-6
    mirrored = smooth(1 - c, 1 - right)
    assert mirrored == pytest.approx(value, rel=0, abs=2e-6)


@given(SMOOTH_ROWS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_no_digit_of_the_smooth_ece(rows, shuffler):
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    assert smooth(*zip(*rows, strict=True)) == smooth(*zip(*shuffled, strict=True))


# The forecast of a confidence against a known distribution: numbers worked out by hand


def scored(confidence, p):
    """Score one row that answers the first label."""
    p = np.array(p)
    entropy = -sum(x * log(x) for x in p if x)
    arguments = (confidence, p[0], len(p), entropy, (p**2).sum())
    return {name: value.item() for name, value in forecast_scores(*map(np.array, arguments)).items()}


def test_a_row_by_hand():
    # q = (0.6, 0.2, 0.2): p - q = (-0.1, 0.1, 0).
    found = scored(0.6, [0.5, 0.3, 0.2])
    assert found["cross_entropy"] == pytest.approx(-0.5 * log(0.6) - 0.5 * log(0.2))
    assert found["kl"] == pytest.approx(0.5 * log(0.5 / 0.6) + 0.3 * log(0.3 / 0.2))
    assert found["brier"] == pytest.approx(0.02)


def test_the_best_that_a_sure_truth_allows_and_the_worst():
    sure, wrong = scored(1.0, [1.0, 0.0]), scored(1.0, [0.0, 1.0])
    assert sure == {
        "cross_entropy": pytest.approx(-log(1 - LEAST_PROBABILITY)),
        "kl": pytest.approx(-log(1 - LEAST_PROBABILITY)),
        "brier": 0.0,
    }
    assert wrong == {
        "cross_entropy": pytest.approx(-log(LEAST_PROBABILITY)),
        "kl": pytest.approx(-log(LEAST_PROBABILITY)),
        "brier": 2.0,
    }
    # The logarithm alone is cut, at the other end too.
    assert scored(0.0, [1.0, 0.0])["cross_entropy"] == pytest.approx(-log(LEAST_PROBABILITY))
    assert scored(0.0, [1.0, 0.0])["brier"] == 2.0


def test_a_single_candidate_leaves_nothing_to_forecast():
    assert scored(0.3, [1.0]) == {"cross_entropy": 0.0, "kl": 0.0, "brier": 0.0}


@given(st.integers(2, 25), st.floats(0.01, 0.99))
def test_a_forecast_equal_to_the_truth_has_no_divergence(n_labels, chance):
    found = scored(chance, [chance] + [(1 - chance) / (n_labels - 1)] * (n_labels - 1))
    assert found["kl"] == pytest.approx(0, abs=1e-12)
    assert found["brier"] == pytest.approx(0, abs=1e-12)


@given(st.floats(0, 1), st.lists(st.floats(0.001, 1), min_size=1, max_size=9))
def test_no_divergence_or_distance_is_below_zero(confidence, weights):
    found = scored(confidence, np.array(weights) / sum(weights))
    assert min(found.values()) >= 0
    assert found["brier"] <= 2 + 1e-12


def test_soft_ece_by_hand():
    # Bin [0.3, 0.4): chances 0.5 and 0.1 against 0.3 and 0.35, which cancel in part; bin [0.9, 1]: 0.7, 0.9.
    confidence, tenth = np.array([0.3, 0.35, 0.9, 1.0]), np.array([3, 3, 9, 9])
    assert soft_ece(confidence, tenth, np.array([0.5, 0.1, 0.7, 0.9])) == pytest.approx((0.05 + 0.3) / 4)
    assert soft_ece(confidence[:0], tenth[:0], confidence[:0]) is None
