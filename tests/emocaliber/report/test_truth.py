"""Against known distributions: every number by hand, intervals by image, the log and metrics.json."""

import json
from decimal import Decimal
from math import log, sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emocaliber.report.as_json import metrics_json
from emocaliber.report.logs import metric_conf_log
from emocaliber.report.summary import evaluate
from emocaliber.scoring import ScoredRow

LABELS = ("joy", "great joy", "sadness")


def row(label, confidence, p, image=None, status=None):
    return ScoredRow(
        id="r",
        task="Mine-3",
        group=None,
        truth="joy",
        candidates=LABELS,
        label=label,
        correct=label == "joy",
        confidence=None if confidence is None else Decimal(confidence),
        status=status or ("answered" if label else "unparsed"),
        label_reason=None if label else "no_answer",
        confidence_reason=None if confidence else "missing",
        flags=frozenset(),
        posterior=None if p is None else dict(zip(LABELS, p, strict=True)),
        image_key=image,
    )


ROWS = [
    row("joy", "0.8", (0.5, 0.25, 0.25)),
    row("sadness", "0.3", (0.5, 0.5, 0.0)),
    row("great joy", "1.0", (0.0, 1.0, 0.0)),
    row(None, "0.4", (1.0, 0.0, 0.0)),  # no answer: no forecast, chance 0
    row("joy", None, (0.25, 0.25, 0.5)),  # no confidence: no forecast, but a chance
    row(None, None, (0.25, 0.25, 0.5), status="failed"),
    row("joy", "0.9", None),  # nothing known
]


def truth_of(rows, n_draws=0):
    return evaluate(rows, n_draws=n_draws).overall.truth


def test_every_number_by_hand():
    truth = truth_of(ROWS)
    assert (truth.n, truth.n_with_confidence, truth.forecast.n) == (6, 4, 3)
    assert truth.acc == pytest.approx(2 / 6)
    assert truth.bayes_acc == pytest.approx((0.5 + 0.5 + 1 + 1 + 0.5 + 0.5) / 6)
    assert truth.gap == pytest.approx((0.3 + 0.3 + 0 + 0.4) / 4)
    assert truth.forecast.expected_acc == pytest.approx((0.5 + 0 + 1 + 0 + 0.25 + 0) / 6)
    # Bins 0.8, 0.3, 0.9 and 0.4 hold one row each.
    assert truth.forecast.soft_ece == pytest.approx((0.3 + 0.3 + 0 + 0.4) / 4)
    entropies = (0.5 * log(2) + 0.5 * log(4), log(2), 0.0)
    crosses = (-0.5 * log(0.8) - 0.5 * log(0.1), -log(0.35), -log(0.999))
    assert truth.forecast.cross_entropy == pytest.approx(sum(crosses) / 3)
    assert truth.forecast.kl == pytest.approx((sum(crosses) - sum(entropies)) / 3)
    # q - p: (0.3, -0.15, -0.15); (-0.15, -0.15, 0.3); nothing.
    assert truth.forecast.brier == pytest.approx((0.135 + 0.135 + 0) / 3)


def test_gaps_of_one_bin_cancel_in_the_soft_ece_and_not_in_the_gap():
    truth = truth_of([row("joy", "0.3", (0.5, 0.5, 0)), row("joy", "0.39", (0.2, 0.8, 0))])
    assert truth.forecast.soft_ece == pytest.approx((0.2 - 0.19) / 2)
    assert truth.gap == pytest.approx((0.2 + 0.19) / 2)


def test_a_rounded_posterior_is_divided_by_its_sum():
    rounded = truth_of([row("joy", "0.5", (0.333, 0.333, 0.333))])
    exact = truth_of([row("joy", "0.5", (1 / 3, 1 / 3, 1 / 3))])
    assert rounded.bayes_acc == pytest.approx(1 / 3)
    assert rounded.forecast.expected_acc == pytest.approx(1 / 3)
    assert rounded.forecast.kl == pytest.approx(exact.forecast.kl)
    assert rounded.forecast.brier == pytest.approx(exact.forecast.brier)


def test_intervals_are_by_image_and_end_where_the_values_do():
    # Two images with chances 1 and 0.5, the second twice: mean 2/3; influences by image 1/9 and -1/9;
    # variance (2 / 81) * 2 / 1.
    rows = [row("joy", "0.5", (1, 0, 0), "a"), *[row("joy", "0.5", (0.5, 0.5, 0), "b")] * 2]
    found = truth_of(rows, n_draws=10).forecast.intervals
    half = 1.959964 * sqrt(4 / 81)
    assert found["expected_acc"] == (pytest.approx(2 / 3 - half), 1.0)
    assert set(found) == {"expected_acc", "cross_entropy", "kl", "brier"}
    assert set(truth_of(rows).forecast.intervals.values()) == {None}
    assert truth_of(rows[:1], n_draws=10).forecast.intervals["kl"] is None


def test_the_log_and_metrics_json_hold_them():
    evaluation = evaluate(ROWS, n_draws=0)
    log_text = metric_conf_log(evaluation)
    assert (
        "  Over the 3 rows with an answer and a confidence, 3 left out:\n"
        "    Cross-entropy of p and q, and KL, its excess over the entropy of p, in nats; "
        "c cut to [0.001, 0.999]\n"
    ) in log_text
    # (1.2628643 + 1.0498221 + 0.0010005) / 3 and less (1.0397208 + 0.6931472) / 3
    assert (
        "| Overall         |  29.17       |  25.00   | 0.7712        | 0.1936 |   9.00 | 3          |"
        in log_text
    )
    forecast = json.loads(metrics_json(evaluation, {}))["tasks"]["Mine-3"]["truth"]["forecast"]
    assert forecast["n"] == 3
    assert forecast["brier_over_labels"] == pytest.approx(0.09)
    assert set(forecast["intervals"]) <= set(forecast)
    assert metric_conf_log(evaluate(ROWS[-1:], n_draws=0)).count("istribution") == 0


P = (
    st.lists(st.integers(0, 9), min_size=3, max_size=3)
    .filter(any)
    .map(lambda v: tuple(x / sum(v) for x in v))
)
ANY_ROW = st.builds(
    row,
    label=st.sampled_from([None, *LABELS]),
    confidence=st.sampled_from([None, "0.3", "0.70", "0.7", "0.99", "0.123456"]),
    p=P,
    image=st.sampled_from([None, "a", "b", "c"]),
)


@given(st.lists(ANY_ROW, min_size=1, max_size=60), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_no_digit_depends_on_the_order(rows, shuffler):
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    assert truth_of(rows, n_draws=2) == truth_of(shuffled, n_draws=2)


def test_more_rows_than_are_reduced_at_once_change_nothing(monkeypatch):
    whole = truth_of(ROWS * 7)
    monkeypatch.setattr("emocaliber.report.collector._MOST_WAITING", 10)
    assert truth_of(ROWS * 7) == whole
