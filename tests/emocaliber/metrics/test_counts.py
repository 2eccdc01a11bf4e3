"""Rows counted per confidence: bin edges, exact decimals, ties, missing confidences, refusals, any order."""

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emocaliber.metrics.counts import exact_decimal, level_counts, mean, number, ratio, tenth_of

CONFIDENCE = st.one_of(
    st.none(),
    st.integers(0, 100).map(lambda hundredths: Decimal(hundredths) / 100),
    st.integers(0, 100).map(lambda hundredths: hundredths / 100),
    st.decimals(0, 1, places=12),
)
ROWS = st.lists(st.tuples(CONFIDENCE, st.booleans()), max_size=80)
ARRAYS = ("confidence", "tenth", "n", "n_correct", "n_missing", "n_correct_missing")


def as_lists(levels):
    return {name: getattr(levels, name).tolist() for name in ARRAYS}


def columns(rows):
    return [stated for stated, _ in rows], [right for _, right in rows]


@pytest.mark.parametrize("index", range(11))
def test_a_confidence_on_a_bin_edge_opens_its_bin_and_one_closes_the_last(index):
    assert tenth_of(Decimal(index) / 10) == min(index, 9)
    assert level_counts([Decimal(index) / 10], [True]).tenth.tolist() == [min(index, 9)]
    # The floats of which floor(c / 0.1) misplaces three stand for the same decimals.
    assert level_counts([index / 10], [True]).tenth.tolist() == [min(index, 9)]


def test_a_decimal_just_below_an_edge_stays_below_it():
    for edge in range(1, 10):
        below = Decimal(f"0.{edge - 1}" + 40 * "9")
        assert tenth_of(below) == edge - 1
        # The float that is nearest to it is the edge itself.
        assert level_counts([below], [True]).tenth.tolist() == [edge - 1]


def test_counts_by_hand():
    levels = level_counts(
        [Decimal("0.9"), None, Decimal("0.25"), Decimal("0.90"), None, None], [1, 0, 0, 0, 1, 1]
    )
    assert as_lists(levels) == {
        "confidence": [0.25, 0.9],
        "tenth": [2, 9],
        "n": [1, 2],
        "n_correct": [0, 1],
        "n_missing": 3,
        "n_correct_missing": 2,
    }
    assert levels.n_stated == 3


def test_one_number_written_three_ways_is_one_level():
    levels = level_counts([0.3, Decimal("0.3"), Decimal("0.30")], [True, False, True])
    assert (levels.n.tolist(), levels.n_correct.tolist()) == ([3], [2])


def test_a_float_is_not_taken_for_its_binary_value_whichever_comes_first():
    binary = Decimal.from_float(0.3)  # 0.29999999999999998889…: equal to the float 0.3, below the decimal
    for stated in ([0.3, binary], [binary, 0.3]):
        levels = level_counts(stated, [True, True])
        assert (levels.n.tolist(), levels.tenth.tolist()) == ([1, 1], [2, 3])


def test_counts_are_summed_over_the_bins():
    levels = level_counts([0.05, 0.0, 0.3, 0.95, 1.0], [True] * 5)
    assert levels.binned(levels.n).tolist() == [2, 0, 0, 1, 0, 0, 0, 0, 0, 2]
    twice = np.stack([levels.n, 3 * levels.n])
    assert levels.binned(twice).tolist() == [
        [2, 0, 0, 1, 0, 0, 0, 0, 0, 2],
        [6, 0, 0, 3, 0, 0, 0, 0, 0, 6],
    ]


@pytest.mark.parametrize(
    "bad", [Decimal("1.01"), Decimal("-0.01"), Decimal("NaN"), Decimal("sNaN"), math.nan, math.inf, 85]
)
def test_what_is_not_a_probability_is_refused(bad):
    with pytest.raises(ValueError, match="not a number in"):
        level_counts([bad], [True])
    with pytest.raises(ValueError, match="not a number in"):
        exact_decimal(bad)


def test_different_lengths_are_refused():
    for confidence, correct in (([Decimal("0.5")], []), ([], [True]), ([None], [])):
        with pytest.raises(ValueError):
            level_counts(confidence, correct)


def test_a_ratio_with_0_below_is_undefined_and_stays_an_array():
    assert np.array_equal(ratio(np.array([1.0, 0.0]), np.array([4.0, 0.0])), [0.25, np.nan], equal_nan=True)
    assert ratio(np.array([[1.0], [2.0]]), np.array([2.0, 4.0])).tolist() == [[0.5, 0.25], [1.0, 0.5]]
    assert number(ratio(np.array(0.0), np.array(0.0))) is None
    assert number(np.array(0.25)) == 0.25


def test_no_rows_have_no_mean():
    assert mean([]) is None
    assert mean([0.25, 0.75]) == 0.5


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_no_count(rows, shuffler):
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    assert as_lists(level_counts(*columns(rows))) == as_lists(level_counts(*columns(shuffled)))


@given(ROWS)
def test_every_row_is_counted_once_and_levels_ascend(rows):
    levels = level_counts(*columns(rows))
    assert levels.n_stated + levels.n_missing == len(rows)
    assert levels.n_correct.sum() + levels.n_correct_missing == sum(right for _, right in rows)
    assert (levels.n >= 1).all() and (levels.n_correct <= levels.n).all()
    assert (np.diff(levels.confidence) >= 0).all()
    assert (np.diff(levels.tenth) >= 0).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_means_of_floats_do_not_depend_on_the_order(values, shuffler):
    shuffled = list(values)
    shuffler.shuffle(shuffled)
    assert mean(values) == mean(shuffled)
