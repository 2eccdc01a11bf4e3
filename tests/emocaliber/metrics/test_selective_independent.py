"""Areas and points of the risk-coverage curve against brute force over every order of the tied rows."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from emocaliber.metrics.counts import level_counts
from emocaliber.metrics.selective import augrc, aurc, coverage_at_risk, eaurc, ranked, risk_at_coverage

FEW_LEVELS = st.sampled_from((None, 20, 50, 90))
TINY = st.lists(st.tuples(FEW_LEVELS, st.booleans()), min_size=1, max_size=6)
MANY_LEVELS = st.one_of(st.none(), st.sampled_from((50, 80, 90, 95, 100)), st.integers(0, 100))
ROWS = st.lists(st.tuples(MANY_LEVELS, st.booleans()), min_size=1, max_size=60)
exactly = {"rel": 0, "abs": 1e-12}


def rank(rows):
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
@settings(max_examples=60)
def test_each_area_and_risk_is_the_mean_over_all_orders_of_the_tied_rows(rows):
    orders, found = list(wrong_in_each_order(rows)), rank(rows)
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
    assert aurc(rank(rows)) == pytest.approx(float(mean_of_error_rates(wrong)), **exactly)


@given(ROWS)
def test_eaurc_is_what_is_above_the_best_order(rows):
    wrong = sorted(int(not right) for _, right in rows)
    found = rank(rows)
    assert eaurc(found) == pytest.approx(float(aurc(found)) - float(mean_of_error_rates(wrong)), **exactly)
    assert eaurc(found) >= -1e-12
    best = [(50 + right, right) for _, right in rows]
    assert eaurc(rank(best)) == pytest.approx(0, **exactly)


@given(ROWS)
def test_augrc_is_auroc_and_accuracy_in_one_and_a_trapezoid(rows):
    right = np.array([right for _, right in rows], dtype=float)
    places = np.array([place(row) for row in rows])
    a = right.mean()
    if 0 < a < 1:
        identity = (1 - roc_auc_score(right, places)) * a * (1 - a) + (1 - a) ** 2 / 2
        assert augrc(rank(rows)) == pytest.approx(identity, **exactly)
    ends = sorted(set(places.tolist()), reverse=True)
    coverage = [0.0, *((places >= end).mean() for end in ends)]
    joint = [0.0, *(((places >= end) * (1 - right)).mean() for end in ends)]
    assert augrc(rank(rows)) == pytest.approx(np.trapezoid(joint, coverage), **exactly)


@given(ROWS, st.sampled_from((5, 10, 20)))
def test_coverage_at_risk_is_the_largest_share_on_a_fine_grid(rows, percent):
    ends = sorted({place(row) for row in rows}, reverse=True)
    kept = [0, *(sum(place(row) >= end for row in rows) for end in ends)]
    wrong = [0, *(sum(place(row) >= end and not row[1] for row in rows) for end in ends)]
    step = 0.001
    grid = np.append(np.arange(0, len(rows), step), kept)
    allowed = np.interp(grid, kept, wrong) <= percent / 100 * grid + 1e-9
    found = float(coverage_at_risk(rank(rows), percent)) * len(rows)
    assert grid[allowed].max() - 1e-6 <= found <= grid[allowed].max() + step + 1e-6
    # What it keeps meets the risk itself.
    assert np.interp(found, kept, wrong) <= percent / 100 * found + 1e-9


def test_leading_axes_give_each_entry_its_own_numbers():
    rng = np.random.default_rng(3)
    sets = [list(zip((20, 50, 90), rng.random(3) < 0.5, strict=True)) * 3 for _ in range(4)]
    sets = [
        rows + [(int(rng.choice((20, 50, 90))), bool(rng.random() < 0.5)) for _ in range(9)] for rows in sets
    ]
    singles = [rank(rows) for rows in sets]
    stacked = type(singles[0])(
        np.stack([one.kept for one in singles]), np.stack([one.wrong for one in singles])
    )
    for score in (aurc, eaurc, augrc):
        assert score(stacked) == pytest.approx([float(score(one)) for one in singles], **exactly)
    for score in (risk_at_coverage, coverage_at_risk):
        assert score(stacked, 20) == pytest.approx([float(score(one, 20)) for one in singles], **exactly)
