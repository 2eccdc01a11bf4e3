"""Selective prediction: what a threshold keeps, by hand, at the edges, under ties, by brute force."""

import itertools
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from emocaliber.metrics.counts import level_counts, number
from emocaliber.metrics.scores import accuracy
from emocaliber.metrics.selective import (
    COVERAGES,
    RISKS,
    at_least,
    augrc,
    aurc,
    coverage_at_risk,
    eaurc,
    ranked,
    risk_at_coverage,
    selective_curve,
)

CONFIDENCE = st.one_of(st.none(), st.integers(0, 20).map(lambda twentieths: Decimal(twentieths) / 20))
ROWS = st.lists(st.tuples(CONFIDENCE, st.booleans()), max_size=50)
exactly = {"rel": 0, "abs": 1e-12}


def rank(confidence, correct):
    return ranked(level_counts(confidence, correct))


def flags(*runs):
    """Right and wrong answers, from runs such as (19, True), (1, False)."""
    return [flag for length, flag in runs for _ in range(length)]


def areas_and_points(rows):
    return [
        number(value)
        for value in (
            *(area(rows) for area in (aurc, eaurc, augrc)),
            *(risk_at_coverage(rows, percent) for percent in COVERAGES),
            *(coverage_at_risk(rows, percent) for percent in RISKS),
        )
    ]


def test_rows_are_ranked_by_falling_confidence_and_those_without_one_come_last():
    rows = rank([0.2, None, 0.9, 0.9, None], [True, False, False, True, True])
    assert rows.kept.tolist() == [0, 2, 3, 5]
    assert rows.wrong.tolist() == [0, 1, 1, 2]
    assert rows.total == 5


def test_areas_by_hand():
    # Errors among the first k, without ties: 0, 1, 1, 2. AURC (0 + 1/2 + 1/3 + 2/4) / 4 = 1/3.
    rows = rank([0.9, 0.8, 0.7, 0.6], [True, False, True, False])
    assert aurc(rows) == pytest.approx(1 / 3, **exactly)
    # The best order has both errors last: (0 + 0 + 1/3 + 2/4) / 4 = 5/24.
    assert eaurc(rows) == pytest.approx(1 / 3 - 5 / 24, **exactly)
    # Joint error and coverage at k/4: 0, 0, 1/4, 1/4, 2/4; trapezoids (0 + 1/8 + 1/4 + 3/8) / 4.
    assert augrc(rows) == pytest.approx(3 / 16, **exactly)


def test_areas_of_one_tie_by_hand():
    # Any order of 2 right and 2 wrong: an error rate of 1/2 is expected at every k.
    rows = rank([0.5] * 4, [True, False, True, False])
    assert aurc(rows) == pytest.approx(0.5, **exactly)
    assert eaurc(rows) == pytest.approx(0.5 - 5 / 24, **exactly)
    assert augrc(rows) == pytest.approx(0.25, **exactly)


def test_risk_at_coverage_by_hand():
    # 10 rows: 4 at 0.9 with 1 wrong, 6 at 0.5 with 3 wrong. Half keeps 4 + 1: 1 + 1/2 wrong of 5.
    rows = rank([0.9] * 4 + [0.5] * 6, flags((3, True), (1, False), (3, True), (3, False)))
    assert [number(risk_at_coverage(rows, percent)) for percent in (40, 50, 70, 100)] == [
        pytest.approx(risk, **exactly) for risk in (1 / 4, 1.5 / 5, 2.5 / 7, 4 / 10)
    ]
    # 3 rows: half keeps one and a half, the first right, the second wrong.
    assert risk_at_coverage(rank([0.9, 0.8, 0.7], [True, False, True]), 50) == pytest.approx(1 / 3, **exactly)


@pytest.mark.parametrize(("n", "percent"), [(20, 5), (10, 10), (5, 20), (100, 5), (30, 10), (60, 5)])
def test_a_risk_that_is_met_exactly_counts_as_met(n, percent):
    n_wrong = n * percent // 100
    right = flags((n - n_wrong, True), (n_wrong, False))
    assert coverage_at_risk(rank([0.7] * n, right), percent) == 1
    assert coverage_at_risk(rank(np.linspace(1, 0, n), right), percent) == 1
    # One wrong answer more at the end is too many, and is left out.
    one_more = rank([*np.linspace(1, 0.1, n), 0], [*right, False])
    assert coverage_at_risk(one_more, percent) == pytest.approx(n / (n + 1), **exactly)
    # In a tie, one more answer that is wrong brings the whole tie above the risk.
    assert coverage_at_risk(rank([0.7] * (n + 1), [*right, False]), percent) == 0


def test_coverage_at_risk_by_hand():
    # 10 right, then a tie of 5 right and 5 wrong: x / 2 = (10 + x) / 5 at x = 20/3.
    rows = rank([0.9] * 10 + [0.5] * 10, flags((15, True), (5, False)))
    assert coverage_at_risk(rows, 20) == pytest.approx((10 + 20 / 3) / 20, **exactly)
    # The most confident answer is wrong; 19 right ones below it bring the risk down to 5 % in the end.
    late = rank(np.linspace(1, 0, 20), flags((1, False), (19, True)))
    assert [number(coverage_at_risk(late, percent)) for percent in RISKS] == [1, 1, 1]
    # It goes above the risk and comes back, so the largest share counts: 1 of 10 wrong, 2 of 11, ... 2 of 20.
    back = rank(np.linspace(1, 0, 20), flags((9, True), (2, False), (9, True)))
    assert coverage_at_risk(back, 10) == 1
    assert coverage_at_risk(rank([0.9, 0.5], [False, False]), 20) == 0


def test_rows_without_a_confidence_come_after_the_least_confident():
    # 4 right at 0 %, then 2 wrong ones that state nothing: as if they stated less than 0.
    stated, unstated = [0.0] * 4 + [None] * 2, [0.1] * 4 + [0.0] * 2
    right = flags((4, True), (2, False))
    assert areas_and_points(rank(stated, right)) == areas_and_points(rank(unstated, right))
    # x / (4 + x) = 1/20 at x = 4/19.
    assert coverage_at_risk(rank(stated, right), 5) == pytest.approx((4 + 4 / 19) / 6, **exactly)
    assert risk_at_coverage(rank(stated, right), 50) == 0


def test_no_confidence_at_all_is_one_tie_and_no_rows_have_no_number():
    assert areas_and_points(rank([None] * 4, [True, False, True, False])) == areas_and_points(
        rank([0.3] * 4, [True, False, True, False])
    )
    assert areas_and_points(rank([], [])) == [None] * 9


def test_selective_curve_by_hand_keeps_ties_together():
    correct = [True, False, True, True]
    points = selective_curve(level_counts([Decimal("0.9"), Decimal("0.90"), Decimal("0.4"), None], correct))
    assert [(p.threshold, p.n, p.coverage, p.accuracy) for p in points] == [
        (0.9, 2, 0.5, 0.5),
        (0.4, 3, 0.75, pytest.approx(2 / 3)),
    ]


def test_a_curve_of_no_rows_and_of_no_confidences_has_no_points():
    assert selective_curve(level_counts([], [])) == []
    assert selective_curve(level_counts([None], [True])) == []


def test_at_least_sums_the_bins_from_the_top():
    per_tenth = np.arange(1.0, 11).reshape(10, 1)
    assert at_least(per_tenth)[:, 0].tolist() == [sum(range(low, 11)) for low in range(2, 11)]
    both = np.stack([per_tenth, 2 * per_tenth]) * [1.0, 10.0]
    assert at_least(both)[1, -1].tolist() == [20, 200]


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_no_digit(rows, shuffler):
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    one, other = (level_counts(*columns(order)) for order in (rows, shuffled))
    assert selective_curve(one) == selective_curve(other)
    assert areas_and_points(ranked(one)) == areas_and_points(ranked(other))


@given(ROWS.filter(bool))
def test_the_end_of_the_curve_is_everything_stated(rows):
    confidence, correct = columns(rows)
    points = selective_curve(level_counts(confidence, correct))
    stated = [row for row in rows if row[0] is not None]
    assert [point.threshold for point in points] == sorted({float(c) for c, _ in stated}, reverse=True)
    if stated:
        assert (points[-1].n, points[-1].coverage) == (len(stated), len(stated) / len(rows))
        assert points[-1].accuracy == number(accuracy(level_counts(*columns(stated))))
    for point in points:
        kept = [right for c, right in stated if float(c) >= point.threshold]
        assert (point.n, point.accuracy) == (len(kept), pytest.approx(sum(kept) / len(kept), **exactly))


def columns(rows):
    return [stated for stated, _ in rows], [right for _, right in rows]


# Against brute force over every order of the tied rows

FEW_LEVELS = st.sampled_from((None, 20, 50, 90))
TINY = st.lists(st.tuples(FEW_LEVELS, st.booleans()), min_size=1, max_size=6)
MANY_LEVELS = st.one_of(st.none(), st.sampled_from((50, 80, 90, 95, 100)), st.integers(0, 100))
STATED_ROWS = st.lists(st.tuples(MANY_LEVELS, st.booleans()), min_size=1, max_size=60)
exactly = {"rel": 0, "abs": 1e-12}


def rank_percents(rows):
    return ranked(
        level_counts([None if c is None else c / 100 for c, _ in rows], [right for _, right in rows])
    )


def place(row):
    """Rows without a confidence are the last to be kept."""
    return -1 if row[0] is None else row[0]


def wrong_in_each_order(rows):
    """The wrong flags, most confident first, in every order of the rows that tie."""
    for order in itertools.permutations(rows):
        if all(place(one) >= place(other) for one, other in itertools.pairwise(order)):
            yield [int(not right) for _, right in order]


def mean(values):
    values = list(values)
    return float(sum(values, Fraction(0)) / len(values))


def mean_of_error_rates(wrong):
    sums = itertools.accumulate(wrong)
    return sum((Fraction(errors, k) for k, errors in enumerate(sums, 1)), Fraction(0)) / len(wrong)


def area_of_joint_errors(wrong):
    joint = np.r_[0, np.cumsum(wrong)] / len(wrong)
    return np.trapezoid(joint, np.linspace(0, 1, len(wrong) + 1))


def error_rate_of(wrong, percent):
    wanted = Fraction(len(wrong) * percent, 100)
    whole = int(wanted)
    rest = (wanted - whole) * wrong[whole] if whole < len(wrong) else 0
    return (sum(wrong[:whole]) + rest) / wanted


@given(TINY)
def test_each_area_and_risk_is_the_mean_over_all_orders_of_the_tied_rows(rows):
    orders, found = list(wrong_in_each_order(rows)), rank_percents(rows)
    assert aurc(found) == pytest.approx(mean(map(mean_of_error_rates, orders)), **exactly)
    assert augrc(found) == pytest.approx(
        np.mean([area_of_joint_errors(wrong) for wrong in orders]), **exactly
    )
    for percent in (1, 35, 50, 70, 90, 100):
        expected = mean(error_rate_of(wrong, percent) for wrong in orders)
        assert risk_at_coverage(found, percent) == pytest.approx(expected, **exactly)


@given(st.lists(st.booleans(), min_size=1, max_size=100))
def test_without_ties_aurc_is_the_mean_of_the_error_rates(correct):
    rows = list(zip(range(100, 0, -1), correct, strict=False))
    wrong = [int(not right) for right in correct]
    assert aurc(rank_percents(rows)) == pytest.approx(float(mean_of_error_rates(wrong)), **exactly)


@given(STATED_ROWS)
def test_eaurc_is_what_is_above_the_best_order(rows):
    wrong = sorted(int(not right) for _, right in rows)
    found = rank_percents(rows)
    assert eaurc(found) == pytest.approx(float(aurc(found)) - float(mean_of_error_rates(wrong)), **exactly)
    assert eaurc(found) >= -1e-12
    best = [(50 + right, right) for _, right in rows]
    assert eaurc(rank_percents(best)) == pytest.approx(0, **exactly)


@given(STATED_ROWS)
def test_augrc_is_auroc_and_accuracy_in_one_and_a_trapezoid(rows):
    right = np.array([right for _, right in rows], dtype=float)
    places = np.array([place(row) for row in rows])
    a = right.mean()
    if 0 < a < 1:
        identity = (1 - roc_auc_score(right, places)) * a * (1 - a) + (1 - a) ** 2 / 2
        assert augrc(rank_percents(rows)) == pytest.approx(identity, **exactly)
    ends = sorted(set(places.tolist()), reverse=True)
    coverage = [0.0, *((places >= end).mean() for end in ends)]
    joint = [0.0, *(((places >= end) * (1 - right)).mean() for end in ends)]
    assert augrc(rank_percents(rows)) == pytest.approx(np.trapezoid(joint, coverage), **exactly)


@given(STATED_ROWS, st.sampled_from((5, 10, 20)))
def test_coverage_at_risk_is_the_largest_share_on_a_fine_grid(rows, percent):
    ends = sorted({place(row) for row in rows}, reverse=True)
    kept = [0, *(sum(place(row) >= end for row in rows) for end in ends)]
    wrong = [0, *(sum(place(row) >= end and not row[1] for row in rows) for end in ends)]
    step = 0.001
    grid = np.append(np.arange(0, len(rows), step), kept)
    allowed = np.interp(grid, kept, wrong) <= percent / 100 * grid + 1e-9
    found = float(coverage_at_risk(rank_percents(rows), percent)) * len(rows)
    assert grid[allowed].max() - 1e-6 <= found <= grid[allowed].max() + step + 1e-6
    # What it keeps meets the risk itself.
    assert np.interp(found, kept, wrong) <= percent / 100 * found + 1e-9


def test_leading_axes_give_each_entry_its_own_numbers():
    rng = np.random.default_rng(3)
    sets = [list(zip((20, 50, 90), rng.random(3) < 0.5, strict=True)) * 3 for _ in range(4)]
    sets = [
        rows + [(int(rng.choice((20, 50, 90))), bool(rng.random() < 0.5)) for _ in range(9)] for rows in sets
    ]
    singles = [rank_percents(rows) for rows in sets]
    stacked = type(singles[0])(
        np.stack([one.kept for one in singles]), np.stack([one.wrong for one in singles])
    )
    for score in (aurc, eaurc, augrc):
        assert score(stacked) == pytest.approx([float(score(one)) for one in singles], **exactly)
    for score in (risk_at_coverage, coverage_at_risk):
        assert score(stacked, 20) == pytest.approx([float(score(one, 20)) for one in singles], **exactly)
