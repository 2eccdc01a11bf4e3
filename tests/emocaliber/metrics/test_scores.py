"""All scores by name: each is its metric; accuracy, F1 and the threshold table by hand and in any order."""

import random
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from emocaliber.metrics import calibration, selective
from emocaliber.metrics.counts import level_counts, number, tenth_of
from emocaliber.metrics.rows import Group, GroupCounts, Rows, patterns, whole
from emocaliber.metrics.scores import (
    BIASED_UPWARD,
    SCORES,
    THRESHOLDS,
    accuracy,
    scores,
    threshold_scores,
    weighted_f1,
)

CONFIDENCE = st.one_of(st.none(), st.integers(0, 20).map(lambda twentieths: Decimal(twentieths) / 20))
LABEL = st.sampled_from(("awe", "fear"))
ROWS = st.lists(st.tuples(LABEL, st.one_of(st.none(), LABEL), CONFIDENCE), min_size=1, max_size=50)
LABELS = ("awe", "fear")


def counted(rows):
    """The counts of (truth, predicted label, confidence), an image a row."""
    levels = sorted({c for _, _, c in rows if c is not None})
    arrays = Rows(
        task=np.zeros(len(rows), dtype=np.int64),
        truth=np.array([LABELS.index(truth) for truth, _, _ in rows]),
        label=np.array([-1 if label is None else LABELS.index(label) for _, label, _ in rows]),
        level=np.array([-1 if c is None else levels.index(c) for _, _, c in rows]),
        image=np.arange(len(rows)),
        confidence=np.array([float(level) for level in levels]),
        tenth=np.array([tenth_of(level) for level in levels], dtype=np.int64),
        n_labels=len(LABELS),
    )
    found = patterns(arrays.cell, arrays.image)
    return Group(arrays, found, [0]).counts(whole(found.weight))


def table(rows):
    """(rows kept, coverage, accuracy, F1) by threshold."""
    found = {name: number(values[0]) for name, values in threshold_scores(counted(rows)).items()}
    return {
        threshold: (
            round(found[f"coverage_at_{threshold}"] * len(rows)),
            *(found[f"{name}_at_{threshold}"] for name in ("coverage", "acc", "f1")),
        )
        for threshold in THRESHOLDS
    }


def test_the_names_are_those_of_the_scores_each_once():
    rows = counted([("awe", "awe", Decimal("0.5"))])
    assert tuple(scores(rows)) == SCORES
    assert len(set(SCORES)) == len(SCORES)
    assert set(SCORES) > BIASED_UPWARD
    names = {f"{name}_at_{threshold}" for name in ("acc", "f1", "coverage") for threshold in THRESHOLDS}
    assert set(threshold_scores(rows)) == names


@given(ROWS)
def test_each_score_is_its_metric(rows):
    found = {name: float(values[0]) for name, values in scores(counted(rows)).items()}
    correct = [truth == label for truth, label, _ in rows]
    levels = level_counts([c for _, _, c in rows], correct)
    ranked = selective.ranked(levels)
    expected = {
        "acc": accuracy(levels),
        "smooth_ece": calibration.smooth_ece(levels),
        **{
            name: getattr(calibration, name)(levels)
            for name in ("ece", "brier", "auroc", "average_precision")
        },
        **{name: getattr(calibration, name)(levels) for name in ("ece_equal_mass", "ece_debiased")},
        **{f"brier_{name}": value for name, value in calibration.brier_parts(levels).items()},
        **{name: getattr(selective, name)(ranked) for name in ("aurc", "eaurc", "augrc")},
        **{f"risk_at_coverage_{share}": selective.risk_at_coverage(ranked, share) for share in (50, 70, 90)},
        **{f"coverage_at_risk_{share}": selective.coverage_at_risk(ranked, share) for share in (5, 10, 20)},
    }
    assert set(expected) == set(SCORES) - {"f1"}
    for name, value in expected.items():
        value = np.nan if number(value) is None else float(value)
        assert found[name] == pytest.approx(value, rel=0, abs=1e-12, nan_ok=True), name
    truth, predicted = as_published(rows)
    f1 = f1_score(truth, predicted, average="weighted", zero_division=0)
    assert found["f1"] == pytest.approx(f1, rel=0, abs=1e-12)


def test_the_thresholds_are_the_nine_tenths_exactly():
    assert [Decimal(threshold) for threshold in THRESHOLDS] == [Decimal(tenth) / 10 for tenth in range(1, 10)]
    assert list(THRESHOLDS) == [f"0.{tenth}" for tenth in range(1, 10)]


@pytest.mark.parametrize("edge", ["0.3", "0.6", "0.7"])
def test_a_confidence_equal_to_the_threshold_is_kept(edge):
    by_threshold = table([("awe", "awe", Decimal(edge))])
    assert by_threshold[edge] == (1, 1.0, 1.0, 1.0)
    assert by_threshold[str(Decimal(edge) + Decimal("0.1"))] == (0, 0.0, None, None)


def test_threshold_table_by_hand():
    rows = [
        ("awe", "awe", Decimal("0.95")),
        ("awe", "fear", Decimal("0.90")),
        ("fear", "fear", Decimal("0.50")),
        ("fear", None, None),  # no confidence: never kept, still in the coverage
        ("fear", None, Decimal("1.0")),  # no answer: kept, and wrong
    ]
    by_threshold = table(rows)
    # 0.9 keeps rows 1, 2, 5: one right of three; awe F1 = 2*1/(2+1) = 2/3 with weight 2, fear F1 = 0.
    assert by_threshold["0.9"] == (3, 0.6, pytest.approx(1 / 3), pytest.approx(4 / 9))
    # 0.5 also keeps row 3: fear has one hit, 2 true, 2 predicted -> 1/2; (2 * 2/3 + 2 * 1/2) / 4.
    assert by_threshold["0.5"] == (4, 0.8, 0.5, pytest.approx(7 / 12))
    assert by_threshold["0.1"] == by_threshold["0.5"]
    assert by_threshold["0.6"] == by_threshold["0.9"]


def test_a_table_of_no_confidences_keeps_nothing():
    assert set(table([("awe", "awe", None)]).values()) == {(0, 0.0, None, None)}


def test_a_draw_without_a_row_has_no_number():
    levels = level_counts([], [])
    nothing = np.zeros((11, 2))
    empty = GroupCounts(levels, nothing, nothing, nothing)
    assert {number(value) for value in scores(empty).values()} == {None}
    assert {number(value) for value in threshold_scores(empty).values()} == {None}


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_no_digit(rows, shuffler):
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    one, other = counted(rows), counted(shuffled)
    assert str(scores(one)) == str(scores(other))
    assert table(rows) == table(shuffled)


@given(ROWS)
@settings(max_examples=30)
def test_the_table_is_that_of_the_rows_at_or_above_each_threshold(rows):
    for threshold, (n, coverage, acc, f1) in table(rows).items():
        kept = [row for row in rows if row[2] is not None and row[2] >= Decimal(threshold)]
        assert (n, coverage) == (len(kept), len(kept) / len(rows))
        if not kept:
            assert (acc, f1) == (None, None)
            continue
        truth, predicted = as_published(kept)
        assert acc == pytest.approx(accuracy_score(truth, predicted), rel=0, abs=1e-12)
        expected = f1_score(truth, predicted, average="weighted", zero_division=0)
        assert f1 == pytest.approx(expected, rel=0, abs=1e-12)


@given(ROWS)
def test_the_curve_agrees_with_the_table(rows):
    points = selective.selective_curve(counted(rows).levels.first())
    for threshold, (n, _, acc, _) in table(rows).items():
        reached = [point for point in points if point.threshold >= float(threshold)]
        assert n == (reached[-1].n if reached else 0)
        assert acc == (reached[-1].accuracy if reached else None)


@given(ROWS)
def test_at_zero_everything_stated_is_kept(rows):
    stated = [row for row in rows if row[2] is not None]
    counts = counted(rows)
    kept = [getattr(counts, name)[0, 1:].sum(axis=0) for name in ("support", "predicted", "hits")]
    f1 = number(weighted_f1(*kept))
    assert f1 == (number(scores(counted(stated))["f1"][0]) if stated else None)


def as_published(rows):
    return [truth for truth, _, _ in rows], ["unknown" if label is None else label for _, label, _ in rows]


# Accuracy and weighted F1: hand-worked numbers, scikit-learn's numbers, no influence of the order

NAMES = ("amusement", "awe", "fear")
ANSWERS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from((*NAMES, "anger", None))), max_size=60)


def share_right(correct, confidence=None):
    return number(accuracy(level_counts(confidence or [None] * len(correct), correct)))


def f1_of(truth, predicted):
    """Weighted F1 of rows, None for no answer, counted here."""
    names = sorted({*truth, *predicted} - {None})
    support = np.array([float(truth.count(name)) for name in names])
    answered = np.array([float(predicted.count(name)) for name in names])
    pairs = list(zip(truth, predicted, strict=True))
    hits = np.array([float(pairs.count((name, name))) for name in names])
    return number(weighted_f1(support, answered, hits))


def test_accuracy_is_right_answers_over_rows():
    assert share_right([True, True, False, True]) == 0.75
    assert share_right([False]) == 0.0
    assert share_right([]) is None


def test_accuracy_counts_rows_with_and_without_a_confidence():
    assert share_right([True, True, False, False, False], [0.5, None, 0.5, None, 0.9]) == 0.4


def test_weighted_f1_by_hand():
    truth = ["amusement", "amusement", "amusement", "awe", "awe"]
    predicted = ["amusement", "amusement", "fear", "awe", None]
    # amusement: 2 hits, 3 true, 2 predicted -> F1 = 4/5; awe: 1 hit, 2 true, 1 predicted -> F1 = 2/3.
    # The row without an answer still counts among the true rows of awe: (3 * 4/5 + 2 * 2/3) / 5 = 56/75.
    assert f1_of(truth, predicted) == pytest.approx(56 / 75, abs=1e-15)


def test_a_row_without_an_answer_is_never_right_even_for_a_label_spelt_unknown():
    assert f1_of(["unknown", "unknown"], ["unknown", None]) == pytest.approx(2 / 3, abs=1e-15)


def test_weighted_f1_without_rows_and_with_different_lengths():
    assert f1_of([], []) is None
    assert number(weighted_f1(np.zeros(2), np.zeros(2), np.zeros(2))) is None
    with pytest.raises(ValueError):
        weighted_f1(np.ones(2), np.ones(3), np.ones(3))


def test_each_leading_entry_has_its_own_number():
    support = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 0.0]])
    predicted = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    hits = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    # (1 * 2/3 + 1 * 0) / 2; 2/3; no rows.
    expected = [1 / 3, 2 / 3, np.nan]
    assert weighted_f1(support, predicted, hits) == pytest.approx(expected, abs=1e-15, nan_ok=True)


@given(ANSWERS.filter(bool))
def test_both_equal_scikit_learn(rows):
    truth, predicted = columns(rows)
    as_published = ["unknown" if answer is None else answer for answer in predicted]
    expected = f1_score(truth, as_published, average="weighted", zero_division=0)
    assert f1_of(truth, predicted) == pytest.approx(expected, abs=1e-12)
    correct = [true == answer for true, answer in rows]
    assert share_right(correct) == pytest.approx(accuracy_score(truth, as_published), abs=1e-12)


@given(ANSWERS, st.randoms(use_true_random=False))
def test_the_order_of_the_answers_changes_no_digit_of_f1(rows, shuffler: random.Random):
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    assert f1_of(*columns(rows)) == f1_of(*columns(shuffled))


def columns(rows):
    return [true for true, _ in rows], [answer for _, answer in rows]
