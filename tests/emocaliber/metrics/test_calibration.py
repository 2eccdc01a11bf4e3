"""ECE, Brier, AUROC and the gap to the truth: hand-worked numbers, bin edges, ties, any order."""

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score

from emocaliber.metrics import (
    auroc,
    bayes_accuracy,
    brier,
    confidence_levels,
    ece,
    mean,
    reliability_bins,
    truth_gap,
)

HUNDREDTHS = st.integers(0, 100).map(lambda hundredths: Decimal(hundredths) / 100)
LONG_DECIMALS = st.decimals(0, 1, places=12)
ROWS = st.lists(st.tuples(st.one_of(HUNDREDTHS, LONG_DECIMALS), st.booleans()), max_size=80)


def decimals(*texts: str) -> list[Decimal]:
    return [Decimal(text) for text in texts]


@pytest.mark.parametrize("index", range(11))
def test_a_confidence_on_a_bin_edge_opens_its_bin_and_one_closes_the_last(index):
    bins = reliability_bins([Decimal(index) / 10], [True])
    assert [one.n for one in bins].index(1) == min(index, 9)
    assert sum(one.n for one in bins) == 1


def test_the_edges_that_float_arithmetic_misplaces():
    # floor(c / 0.1) puts 0.3, 0.6 and 0.7 one bin low: then (0.3, wrong) and (0.2, right) would share a bin.
    for low, edge in (("0.2", "0.3"), ("0.5", "0.6"), ("0.6", "0.7")):
        c = decimals(low, edge)
        assert ece(c, [True, False]) == float((1 - Fraction(low) + Fraction(edge)) / 2)
    # 1.0 shares the last bin with 0.9: |1 - 1.9| / 2, and does not fall out.
    assert ece(decimals("0.9", "1.0"), [True, False]) == 0.45
    assert ece(decimals("0.29999", "0.3"), [True, False]) == float(Fraction("1.00001") / 2)


def test_a_float_stands_for_the_decimal_that_was_written():
    assert ece([0.2, 0.3], [True, False]) == ece(decimals("0.2", "0.3"), [True, False])
    assert confidence_levels([0.3, Decimal("0.3"), Decimal("0.30")], [True, False, True])[0].n == 3


def test_ece_by_hand():
    # bin [0.8, 0.9): 0.80, 0.85, 0.85 with 2 right -> |2 - 2.5| = 0.5; bin [0.3, 0.4): 0.3 right -> 0.7;
    # bin [0.9, 1.0]: 1.0 right -> 0. ECE = 1.2 / 5.
    c = decimals("0.80", "0.85", "0.85", "0.3", "1.0")
    assert ece(c, [True, True, False, True, True]) == 0.24
    assert ece(c, [True, True, False, True, True], n_bins=1) == pytest.approx(0.04, abs=1e-15)


def test_brier_by_hand():
    # (0.2^2 + 0.7^2 + 0 + 1) / 4 = (0.04 + 0.49 + 0 + 1) / 4
    assert brier(decimals("0.8", "0.7", "1.0", "1"), [True, False, True, False]) == 0.3825


def test_auroc_by_hand_with_ties_counting_half():
    # right: 0.9, 0.8; wrong: 0.8, 0.3. Pairs: 0.9>0.8, 0.9>0.3, 0.8=0.8, 0.8>0.3 -> 3.5 of 4.
    assert auroc(decimals("0.9", "0.8", "0.80", "0.3"), [True, True, False, False]) == 0.875
    assert auroc(decimals("0.9", "0.9", "0.9"), [True, False, True]) == 0.5


def test_auroc_of_one_class_is_undefined():
    assert auroc(decimals("0.9", "0.2"), [True, True]) is None
    assert auroc(decimals("0.9", "0.2"), [False, False]) is None
    assert auroc([], []) is None


def test_no_rows_have_no_number():
    assert ece([], []) is None
    assert brier([], []) is None
    assert mean([]) is None
    assert bayes_accuracy([]) is None
    assert truth_gap([], []) is None


@pytest.mark.parametrize("bad", [Decimal("1.01"), Decimal("-0.01"), Decimal("NaN"), math.inf, 85])
def test_what_is_not_a_probability_is_refused(bad):
    with pytest.raises(ValueError, match="not a number in"):
        ece([bad], [True])


def test_different_lengths_are_refused():
    for metric in (ece, brier, auroc, reliability_bins):
        with pytest.raises(ValueError):
            metric([Decimal("0.5")], [])


def test_reliability_bins_by_hand():
    bins = reliability_bins(decimals("0.80", "0.85", "0.9"), [True, False, False])
    eighties = bins[8]
    assert (eighties.low, eighties.high) == (Fraction(4, 5), Fraction(9, 10))
    assert (eighties.n, eighties.n_correct) == (2, 1)
    assert (eighties.mean_confidence, eighties.accuracy) == (0.825, 0.5)
    assert (bins[0].n, bins[0].mean_confidence, bins[0].accuracy) == (0, None, None)
    assert len(bins) == 10


def test_truth_gap_and_bayes_accuracy_by_hand():
    assert truth_gap(decimals("0.5", "1.0"), [0.75, 0.5]) == 0.375
    assert bayes_accuracy([0.5, 0.75, 1.0]) == 0.75


@given(ROWS)
@settings(deadline=None)
def test_against_scikit_learn_on_ties(rows):
    c = [float(stated) for stated, _ in rows]
    right = [int(flag) for _, flag in rows]
    stated, correct = [row[0] for row in rows], [row[1] for row in rows]
    if 0 < sum(right) < len(right):
        assert auroc(stated, correct) == pytest.approx(roc_auc_score(right, c), abs=1e-12)
        assert brier(stated, correct) == pytest.approx(brier_score_loss(right, c), abs=1e-12)


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_no_digit(rows, shuffler):
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    for metric in (ece, brier, auroc, reliability_bins):
        assert metric(*columns(rows)) == metric(*columns(shuffled))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_means_of_floats_do_not_depend_on_the_order(values, shuffler):
    shuffled = list(values)
    shuffler.shuffle(shuffled)
    assert mean(values) == mean(shuffled)
    half = [Decimal("0.5")] * len(values)
    assert truth_gap(half, values) == truth_gap(half, shuffled)


@given(ROWS.filter(bool))
def test_bounds_and_the_bins_hold_every_row(rows):
    stated, correct = columns(rows)
    bins = reliability_bins(stated, correct)
    assert sum(one.n for one in bins) == len(rows)
    assert sum(one.n_correct for one in bins) == sum(correct)
    gap = ece(stated, correct)
    # One bin can only hide miscalibration, and no bin exceeds the mean distance of its rows.
    assert ece(stated, correct, n_bins=1) <= gap + 1e-15
    assert gap <= math.fsum(abs(float(c) - i) for c, i in rows) / len(rows) + 1e-12
    assert 0 <= gap <= 1
    assert 0 <= brier(stated, correct) <= 1


def columns(rows):
    return [stated for stated, _ in rows], [right for _, right in rows]
