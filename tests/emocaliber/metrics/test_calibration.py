"""ECE, Brier, AUROC and the gap to the truth: hand-worked numbers, bin edges, ties, any order."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emocaliber.metrics import calibration
from emocaliber.metrics.calibration import (
    average_precision,
    bayes_accuracy,
    brier_parts,
    calibrated_by_chance,
    ece_debiased,
    reliability_bins,
)
from emocaliber.metrics.counts import level_counts, number

HUNDREDTHS = st.integers(0, 100).map(lambda hundredths: Decimal(hundredths) / 100)
LONG_DECIMALS = st.decimals(0, 1, places=12)
ROWS = st.lists(st.tuples(st.one_of(HUNDREDTHS, LONG_DECIMALS), st.booleans()), max_size=80)
SCORES = ("ece", "ece_debiased", "ece_equal_mass", "brier", "auroc", "average_precision")
exactly = {"rel": 0, "abs": 1e-12}


def decimals(*texts: str) -> list[Decimal]:
    return [Decimal(text) for text in texts]


def score(name, confidence, correct):
    return number(getattr(calibration, name)(level_counts(confidence, correct)))


def ece(confidence, correct):
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
        assert ece(decimals(low, edge), [True, False]) == pytest.approx(apart, **exactly)
    # 1.0 shares the last bin with 0.9: |1 - 1.9| / 2, and does not fall out.
    assert ece(decimals("0.9", "1.0"), [True, False]) == pytest.approx(0.45, **exactly)
    assert ece(decimals("0.29999", "0.3"), [True, False]) == pytest.approx(1.00001 / 2, **exactly)


def test_a_float_stands_for_the_decimal_that_was_written():
    assert ece([0.2, 0.3], [True, False]) == ece(decimals("0.2", "0.3"), [True, False])


def test_ece_by_hand():
    # bin [0.8, 0.9): 0.80, 0.85, 0.85 with 2 right -> |2 - 2.5| = 0.5; bin [0.3, 0.4): 0.3 right -> 0.7;
    # bin [0.9, 1.0]: 1.0 right -> 0. ECE = 1.2 / 5.
    c = decimals("0.80", "0.85", "0.85", "0.3", "1.0")
    assert ece(c, [True, True, False, True, True]) == pytest.approx(0.24, **exactly)
    # Inside one bin the gaps cancel: |2 - 2.5| over 3 rows.
    assert ece(decimals("0.81", "0.84", "0.85"), [True, True, False]) == pytest.approx(0.5 / 3, **exactly)


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
    gap = ece(stated, correct)
    # One bin can only hide miscalibration, and no bin exceeds the mean distance of its rows.
    assert abs(sum(correct) - math.fsum(map(float, stated))) / len(rows) <= gap + 1e-12
    assert gap <= math.fsum(abs(float(c) - i) for c, i in rows) / len(rows) + 1e-12
    assert 0 <= gap <= 1
    assert 0 <= score("brier", stated, correct) <= 1
