"""Accuracy and weighted F1: hand-worked numbers, scikit-learn's numbers, no influence of the order."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from emocaliber.metrics.counts import level_counts, number
from emocaliber.metrics.scores import accuracy, weighted_f1

LABELS = ("amusement", "awe", "fear")
ANSWERS = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from((*LABELS, "anger", None))), max_size=60)


def share_right(correct, confidence=None):
    return number(accuracy(level_counts(confidence or [None] * len(correct), correct)))


def f1(truth, predicted):
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
    assert f1(truth, predicted) == pytest.approx(56 / 75, abs=1e-15)


def test_a_row_without_an_answer_is_never_right_even_for_a_label_spelt_unknown():
    assert f1(["unknown", "unknown"], ["unknown", None]) == pytest.approx(2 / 3, abs=1e-15)


def test_weighted_f1_without_rows_and_with_different_lengths():
    assert f1([], []) is None
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
@settings(max_examples=60)
def test_both_equal_scikit_learn(rows):
    truth, predicted = split(rows)
    as_published = ["unknown" if answer is None else answer for answer in predicted]
    expected = f1_score(truth, as_published, average="weighted", zero_division=0)
    assert f1(truth, predicted) == pytest.approx(expected, abs=1e-12)
    correct = [true == answer for true, answer in rows]
    assert share_right(correct) == pytest.approx(accuracy_score(truth, as_published), abs=1e-12)


@given(ANSWERS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_no_digit(rows, shuffler: random.Random):
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    assert f1(*split(rows)) == f1(*split(shuffled))


def split(rows):
    return [true for true, _ in rows], [answer for _, answer in rows]
