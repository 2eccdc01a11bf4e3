"""Accuracy and weighted F1: hand-worked numbers, scikit-learn's numbers, no influence of the order."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from emocaliber.metrics import accuracy, weighted_f1

LABELS = ("amusement", "awe", "fear")
ANSWERS = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from((*LABELS, "anger", None))), max_size=60)


def test_accuracy_is_right_answers_over_rows():
    assert accuracy([True, True, False, True]) == 0.75
    assert accuracy([False]) == 0.0
    assert accuracy([]) is None


def test_weighted_f1_by_hand():
    truth = ["amusement", "amusement", "amusement", "awe", "awe"]
    predicted = ["amusement", "amusement", "fear", "awe", None]
    # amusement: 2 hits, 3 true, 2 predicted -> F1 = 4/5; awe: 1 hit, 2 true, 1 predicted -> F1 = 2/3.
    # The row without an answer still counts among the true rows of awe: (3 * 4/5 + 2 * 2/3) / 5 = 56/75.
    assert weighted_f1(truth, predicted) == pytest.approx(56 / 75, abs=1e-15)


def test_a_row_without_an_answer_is_never_right_even_for_a_label_spelt_unknown():
    assert weighted_f1(["unknown", "unknown"], ["unknown", None]) == pytest.approx(2 / 3, abs=1e-15)


def test_weighted_f1_without_rows_and_with_different_lengths():
    assert weighted_f1([], []) is None
    with pytest.raises(ValueError):
        weighted_f1(["awe"], [])


@given(ANSWERS.filter(bool))
@settings(max_examples=60, deadline=None)
def test_weighted_f1_equals_scikit_learn(rows):
    truth = [true for true, _ in rows]
    predicted = [answer for _, answer in rows]
    as_published = ["unknown" if answer is None else answer for answer in predicted]
    expected = f1_score(truth, as_published, average="weighted", zero_division=0)
    assert weighted_f1(truth, predicted) == pytest.approx(expected, abs=1e-12)


@given(ANSWERS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_no_digit(rows, shuffler: random.Random):
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    assert weighted_f1(*split(rows)) == weighted_f1(*split(shuffled))


def split(rows):
    return [true for true, _ in rows], [answer for _, answer in rows]
