"""Selective prediction: what a threshold keeps, by hand, at the edges, under ties, in any order."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emocaliber.metrics import THRESHOLDS, accuracy, selective_curve, threshold_table, weighted_f1

CONFIDENCE = st.one_of(st.none(), st.integers(0, 20).map(lambda twentieths: Decimal(twentieths) / 20))
LABEL = st.sampled_from(("awe", "fear"))
ROWS = st.lists(st.tuples(LABEL, st.one_of(st.none(), LABEL), CONFIDENCE), max_size=50)


def columns(rows):
    truth = [row[0] for row in rows]
    predicted = [row[1] for row in rows]
    correct = [true == answer for true, answer in zip(truth, predicted, strict=True)]
    return truth, predicted, correct, [row[2] for row in rows]


def test_the_thresholds_are_the_nine_tenths_exactly():
    assert [str(threshold) for threshold in THRESHOLDS] == [f"0.{tenth}" for tenth in range(1, 10)]


@pytest.mark.parametrize("edge", ["0.3", "0.6", "0.7"])
def test_a_confidence_equal_to_the_threshold_is_kept(edge):
    table = {str(row.threshold): row for row in threshold_table(["awe"], ["awe"], [True], [Decimal(edge)])}
    assert table[edge].n == 1
    above = table[str(Decimal(edge) + Decimal("0.1"))]
    assert (above.n, above.coverage, above.accuracy, above.f1) == (0, 0.0, None, None)


def test_threshold_table_by_hand():
    rows = [
        ("awe", "awe", Decimal("0.95")),
        ("awe", "fear", Decimal("0.90")),
        ("fear", "fear", Decimal("0.50")),
        ("fear", None, None),  # no confidence: never kept, still in the coverage
        ("fear", None, Decimal("1.0")),  # no answer: kept, and wrong
    ]
    by_threshold = {str(row.threshold): row for row in threshold_table(*columns(rows))}
    # 0.9 keeps rows 1, 2, 5: one right of three; awe F1 = 2*1/(2+1) = 2/3 with weight 2, fear F1 = 0.
    assert by_threshold["0.9"].n == 3
    assert by_threshold["0.9"].coverage == 0.6
    assert by_threshold["0.9"].accuracy == pytest.approx(1 / 3)
    assert by_threshold["0.9"].f1 == pytest.approx(4 / 9)
    # 0.5 also keeps row 3: fear has one hit, 2 true, 2 predicted -> 1/2; (2 * 2/3 + 2 * 1/2) / 4.
    assert (by_threshold["0.5"].coverage, by_threshold["0.5"].accuracy) == (0.8, 0.5)
    assert by_threshold["0.5"].f1 == pytest.approx(7 / 12)


def test_selective_curve_by_hand_keeps_ties_together():
    correct = [True, False, True, True]
    points = selective_curve(correct, [Decimal("0.9"), Decimal("0.90"), Decimal("0.4"), None])
    assert [(p.threshold, p.n, p.coverage, p.accuracy) for p in points] == [
        (0.9, 2, 0.5, 0.5),
        (0.4, 3, 0.75, pytest.approx(2 / 3)),
    ]


def test_no_rows_and_no_confidences():
    assert selective_curve([], []) == []
    assert selective_curve([True], [None]) == []
    assert {(row.n, row.coverage) for row in threshold_table([], [], [], [])} == {(0, None)}
    assert {(row.n, row.coverage) for row in threshold_table(["awe"], ["awe"], [True], [None])} == {(0, 0.0)}


def test_different_lengths_are_refused():
    with pytest.raises(ValueError):
        threshold_table(["awe"], ["awe"], [True], [])
    with pytest.raises(ValueError):
        selective_curve([True], [])


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_no_digit(rows, shuffler):
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    assert threshold_table(*columns(rows)) == threshold_table(*columns(shuffled))
    assert selective_curve(*columns(rows)[2:]) == selective_curve(*columns(shuffled)[2:])


@given(ROWS)
def test_curve_and_table_agree_and_the_end_of_the_curve_is_everything_stated(rows):
    truth, predicted, correct, confidence = columns(rows)
    points = selective_curve(correct, confidence)
    for row in threshold_table(truth, predicted, correct, confidence):
        reached = [point for point in points if point.threshold >= float(row.threshold)]
        assert row.n == (reached[-1].n if reached else 0)
        assert row.accuracy == (reached[-1].accuracy if reached else None)
    stated = [row for row in rows if row[2] is not None]
    if stated:
        assert points[-1].n == len(stated)
        assert points[-1].accuracy == accuracy([true == answer for true, answer, _ in stated])
        at_zero = threshold_table(truth, predicted, correct, confidence, [Decimal(0)])[0]
        assert at_zero.f1 == weighted_f1([row[0] for row in stated], [row[1] for row in stated])
