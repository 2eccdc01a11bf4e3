"""Calibration scores against independent implementations, on rows that tie heavily."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_diagnostics.scoring import SquaredError, decompose
from scipy import stats
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from emocaliber.metrics.calibration import (
    auroc,
    average_precision,
    brier,
    brier_parts,
    calibrated_by_chance,
    ece,
    ece_debiased,
    ece_equal_mass,
)
from emocaliber.metrics.counts import level_counts

HUNDREDTHS = st.one_of(st.sampled_from((0, 30, 60, 70, 90, 95, 100)), st.integers(0, 100))
ROWS = st.lists(st.tuples(HUNDREDTHS, st.booleans()), min_size=1, max_size=80)
exactly = {"rel": 0, "abs": 1e-12}


def columns(rows):
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


@given(ROWS)
def test_brier_auroc_and_average_precision_equal_scikit_learn(rows):
    levels, c, right = columns(rows)
    assert brier(levels) == pytest.approx(brier_score_loss(right, c, pos_label=1), **exactly)
    if right.any():
        assert average_precision(levels) == pytest.approx(average_precision_score(right, c), **exactly)
    if 0 < right.sum() < len(right):
        assert auroc(levels) == pytest.approx(roc_auc_score(right, c), **exactly)


@given(ROWS)
def test_ece_equals_its_definition_in_fractions(rows):
    expected = sum(len(one) * abs(mean([right - c for c, right in one])) for one in by_bin(rows)) / len(rows)
    assert ece(columns(rows)[0]) == pytest.approx(float(expected), **exactly)


@given(ROWS)
def test_debiased_ece_takes_off_the_excess_of_a_folded_normal(rows):
    total = 0.0
    for one in by_bin(rows):
        gap, accuracy = abs(mean([right - c for c, right in one])), mean([right for _, right in one])
        noise = float(accuracy * (1 - accuracy) / len(one)) ** 0.5
        expected = stats.foldnorm.mean(float(gap) / noise, scale=noise) if noise else float(gap)
        total += len(one) * (2 * float(gap) - expected)
    assert ece_debiased(columns(rows)[0]) == pytest.approx(total / len(rows), **exactly)


@given(ROWS)
def test_equal_mass_ece_equals_rows_cut_into_ten_shares_of_their_level(rows):
    right_at = {level: mean([int(right) for c, right in rows if c == level]) for level, _ in rows}
    shares = [right_at[c] - Fraction(c, 100) for c, _ in sorted(rows) for _ in range(10)]
    tenths = [shares[start : start + len(rows)] for start in range(0, len(shares), len(rows))]
    expected = sum(abs(sum(tenth)) for tenth in tenths) / len(shares)
    assert ece_equal_mass(columns(rows)[0]) == pytest.approx(float(expected), **exactly)


@given(st.lists(st.tuples(st.sampled_from((20, 50, 90)), st.booleans()), min_size=1, max_size=5))
@settings(max_examples=30)
def test_equal_mass_ece_is_at_most_its_mean_over_the_orders_of_tied_rows(rows):
    over_orders = []
    for order in itertools.permutations(rows):
        if all(one[0] <= other[0] for one, other in itertools.pairwise(order)):
            shares = [int(right) - Fraction(c, 100) for c, right in order for _ in range(10)]
            tenths = [shares[start : start + len(rows)] for start in range(0, len(shares), len(rows))]
            over_orders.append(sum(abs(sum(tenth)) for tenth in tenths) / len(shares))
    levels = columns(rows)[0]
    assert ece_equal_mass(levels) <= float(mean(over_orders)) + 1e-12
    if len(over_orders) == 1:
        assert ece_equal_mass(levels) == pytest.approx(float(over_orders[0]), **exactly)


def test_equal_mass_ece_has_none_of_the_gap_that_an_order_of_tied_rows_would_add():
    # Two rows at 0.5, one right: in either order every bin lies in one row, and misses it by 0.5.
    assert ece_equal_mass(level_counts([0.5, 0.5], [True, False])) == pytest.approx(0, **exactly)


@given(ROWS.filter(lambda rows: len(rows) > 1))  # model-diagnostics does not take a single row
def test_brier_parts_equal_model_diagnostics_and_add_up(rows):
    levels, c, right = columns(rows)
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
    singles = [columns(rows)[0] for rows in all_rows]
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
