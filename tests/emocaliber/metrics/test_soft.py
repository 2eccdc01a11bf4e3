"""The forecast of a confidence against a known distribution: numbers worked out by hand."""

from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emocaliber.metrics.calibration import LEAST_PROBABILITY, forecast_scores, soft_ece


def scored(confidence, p):
    """Score one row that answers the first label."""
    p = np.array(p)
    entropy = -sum(x * log(x) for x in p if x)
    arguments = (confidence, p[0], len(p), entropy, (p**2).sum())
    return {name: value.item() for name, value in forecast_scores(*map(np.array, arguments)).items()}


def test_a_row_by_hand():
    # q = (0.6, 0.2, 0.2): p - q = (-0.1, 0.1, 0).
    found = scored(0.6, [0.5, 0.3, 0.2])
    assert found["cross_entropy"] == pytest.approx(-0.5 * log(0.6) - 0.5 * log(0.2))
    assert found["kl"] == pytest.approx(0.5 * log(0.5 / 0.6) + 0.3 * log(0.3 / 0.2))
    assert found["brier"] == pytest.approx(0.02)


def test_the_best_that_a_sure_truth_allows_and_the_worst():
    sure, wrong = scored(1.0, [1.0, 0.0]), scored(1.0, [0.0, 1.0])
    assert sure == {
        "cross_entropy": pytest.approx(-log(1 - LEAST_PROBABILITY)),
        "kl": pytest.approx(-log(1 - LEAST_PROBABILITY)),
        "brier": 0.0,
    }
    assert wrong == {
        "cross_entropy": pytest.approx(-log(LEAST_PROBABILITY)),
        "kl": pytest.approx(-log(LEAST_PROBABILITY)),
        "brier": 2.0,
    }
    # The logarithm alone is cut, at the other end too.
    assert scored(0.0, [1.0, 0.0])["cross_entropy"] == pytest.approx(-log(LEAST_PROBABILITY))
    assert scored(0.0, [1.0, 0.0])["brier"] == 2.0


def test_a_single_candidate_leaves_nothing_to_forecast():
    assert scored(0.3, [1.0]) == {"cross_entropy": 0.0, "kl": 0.0, "brier": 0.0}


@given(st.integers(2, 25), st.floats(0.01, 0.99))
def test_a_forecast_equal_to_the_truth_has_no_divergence(n_labels, chance):
    found = scored(chance, [chance] + [(1 - chance) / (n_labels - 1)] * (n_labels - 1))
    assert found["kl"] == pytest.approx(0, abs=1e-12)
    assert found["brier"] == pytest.approx(0, abs=1e-12)


@given(st.floats(0, 1), st.lists(st.floats(0.001, 1), min_size=1, max_size=9))
def test_no_divergence_or_distance_is_below_zero(confidence, weights):
    found = scored(confidence, np.array(weights) / sum(weights))
    assert min(found.values()) >= 0
    assert found["brier"] <= 2 + 1e-12


def test_soft_ece_by_hand():
    # Bin [0.3, 0.4): chances 0.5 and 0.1 against 0.3 and 0.35, which cancel in part; bin [0.9, 1]: 0.7, 0.9.
    confidence, tenth = np.array([0.3, 0.35, 0.9, 1.0]), np.array([3, 3, 9, 9])
    assert soft_ece(confidence, tenth, np.array([0.5, 0.1, 0.7, 0.9])) == pytest.approx((0.05 + 0.3) / 4)
    assert soft_ece(confidence[:0], tenth[:0], confidence[:0]) is None
