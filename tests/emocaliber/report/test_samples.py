"""Rows with several samples: every number by hand, pairing, the log and metrics.json."""

import json
from decimal import Decimal
from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emocaliber.report.as_json import metrics_content
from emocaliber.report.confidences import SampleCollector
from emocaliber.report.logs import metric_conf_log
from emocaliber.report.summary import evaluate
from emocaliber.scoring import score

LABELS = ["awe", "fear", "sadness"]


def answer(label, confidence=None):
    stated = "" if confidence is None else f"<confidence>{confidence}</confidence>"
    return f"<answer>{label}</answer>{stated}"


def record(truth, *answers, task="EmoSet-8", image=None, **fields):
    texts = [answer(*one) for one in answers]
    return {
        "id": "r",
        "task": task,
        "ground_truth": truth,
        "candidates": LABELS,
        "image": image,
        "response": texts[0],
        "samples": texts,
        **fields,
    }


RECORDS = [
    record("awe", ("awe", "0.9"), ("fear", "0.6"), ("awe", "0.7")),  # awe: 2/3, mean 0.8
    record("fear", ("awe", "0.5"), ("fear", "0.8"), ("?", "0.9")),  # tie, fear by confidence: 1/3, mean 0.8
    record("sadness", ("awe",), ("sadness",), ("fear",)),  # tie, awe by order: 1/3, no mean
    record("awe", ("?", "0.4"), ("?",), ("?",)),  # no majority
]


def report(records, n_draws=0, seed=0):
    collector = SampleCollector()
    for one in records:
        collector.add(one, score(one))
    return collector.report(n_draws, seed)


def test_every_number_by_hand():
    rows = report(RECORDS).overall
    assert (rows.n, rows.fewest, rows.most, rows.n_tied, rows.n_undecided) == (4, 3, 3, 2, 1)
    assert rows.mean_acc == pytest.approx((2 / 3 + 1 / 3 + 1 / 3 + 0) / 4)
    assert rows.agreement == pytest.approx((2 / 3 + 1 / 3 + 1 / 3 + 0) / 4)
    # The first samples have 1 right, the second 2, the third 1: 1/4, 2/4, 1/4.
    assert rows.spread == pytest.approx(sqrt(1 / 48))
    response, agreement, mean_stated = rows.confidences.values()
    # 0.9 right, 0.5 wrong, 0.4 without an answer, so wrong; wrong and without a confidence, kept last.
    assert response.n == 3
    assert response.scores == {
        "acc": 0.25,
        "ece": pytest.approx((0.1 + 0.5 + 0.4) / 3),
        "smooth_ece": response.scores["smooth_ece"],  # held to the main tables' below
        "brier": pytest.approx((0.01 + 0.25 + 0.16) / 3),
        "auroc": 1.0,
        "augrc": pytest.approx((0 + 0.5 + 1.5 + 2.5) / 16),
    }
    # 2/3 right; 1/3 right and wrong, in one bin; no majority, so wrong, without an agreement.
    assert agreement.n == 3
    assert agreement.scores["acc"] == mean_stated.scores["acc"] == 0.5
    assert agreement.scores["ece"] == pytest.approx((1 / 3 + 1 / 3) / 3)
    assert agreement.scores["brier"] == pytest.approx((1 / 9 + 4 / 9 + 1 / 9) / 3)
    assert agreement.scores["auroc"] == 0.75
    assert agreement.scores["augrc"] == pytest.approx((0 + 2 * 0.5 + 1.5) / 16)
    assert agreement.differences["ece"] == pytest.approx(2 / 9 - 1 / 3)
    # 0.8 right twice.
    assert mean_stated.n == 2
    assert mean_stated.scores["ece"] == pytest.approx(0.2)
    assert mean_stated.scores["brier"] == pytest.approx(0.04)
    assert mean_stated.scores["augrc"] == pytest.approx((0 + 2 * 1) / 16)
    assert mean_stated.scores["auroc"] is mean_stated.differences["auroc"] is None


def test_tasks_groups_and_rows_without_samples():
    records = [
        *RECORDS,
        record("fear", ("fear", "0.9"), ("fear", "0.7"), task="Zoo-3"),
        record("fear", ("fear", "0.9"), task="FI-2"),  # one sample
        record("fear", ("fear", "0.9"), ("fear", "0.9"), task="FI-2", error="boom"),
    ]
    found = report(records)
    assert [rows.name for rows in found.tasks] == ["EmoSet-8", "Zoo-3"]
    assert [rows.name for rows in found.pooled] == ["ID VER", "Overall"]
    assert (found.overall.n, found.overall.fewest, found.overall.most) == (5, 2, 3)
    assert found.overall.spread is None
    assert found.tasks[1].mean_acc == 1.0
    assert report(records[-2:]) is None


def test_equal_answers_differ_by_nothing_in_any_draw():
    """The three see the same draws: what they share cancels to the last digit."""
    records = [
        record(truth, *[(label, "0.5")] * 2, ("?",), ("?",), image=f"{n}.jpg")
        for n, (truth, label) in enumerate([("awe", "awe"), ("awe", "fear"), ("fear", "fear")] * 4)
    ]
    found = report(records, n_draws=50)
    for confidence in found.overall.confidences.values():
        assert confidence.intervals["acc"] is not None
        assert (
            confidence.difference_intervals["acc"] == confidence.difference_intervals["brier"] == (0.0, 0.0)
        )


def test_the_log_and_metrics_json_hold_them_only_where_there_are_samples():
    rows = [score(one) for one in RECORDS]
    evaluation, found = evaluate(rows, n_draws=0), report(RECORDS)
    log = metric_conf_log(evaluation, found)
    assert "Of k samples a row, k 3: 4 of 4 rows have at least two\n" in log
    assert (
        "| Overall         | 3 |  25.00        |  33.33    |  14.43 |  50.00        |  33.33    | 4        |"
        in log
    )
    assert (
        "| Overall         | majority, mean stated |  20.00 |  20.00     |   4.00 | N/A     |  12.50 |" in log
    )
    assert "| Overall         | majority, agreement   | +25.00 | -11.11 |" in log
    content = json.loads(json.dumps(metrics_content(evaluation, {}, found), allow_nan=False))["samples"]
    assert content["overall"]["acc_sd_between_samples"] == pytest.approx(sqrt(1 / 48))
    assert content["groups"]["ID VER"]["confidences"]["agreement"]["less_response"]["acc"] == 0.25
    assert "less_response" not in content["tasks"]["EmoSet-8"]["confidences"]["response"]
    assert "samples a row" not in metric_conf_log(evaluation)
    assert "samples" not in metrics_content(evaluation, {})


ANSWER = st.tuples(st.sampled_from([*LABELS, "?"]), st.sampled_from([None, "0.3", "0.30", "0.7", "1"]))
RECORD = st.builds(
    lambda truth, answers, task, image: record(truth, *answers, task=task, image=image),
    st.sampled_from(LABELS),
    st.lists(ANSWER, min_size=2, max_size=4),
    st.sampled_from(["EmoSet-8", "FI-8", "Zoo-3"]),
    st.sampled_from([None, "a.jpg", "b.jpg"]),
)


@given(st.lists(RECORD, min_size=1, max_size=20), st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_no_digit_depends_on_the_order_of_the_rows(records, shuffler):
    shuffled = list(records)
    shuffler.shuffle(shuffled)
    assert report(records, n_draws=3) == report(shuffled, n_draws=3)


def test_confidences_are_those_of_the_response_in_the_main_tables():
    rows = [score(one) for one in RECORDS]
    scores = report(RECORDS).overall.confidences["response"].scores
    assert {name: evaluate(rows, n_draws=0).overall.scores[name] for name in scores} == scores
    assert rows[0].confidence == Decimal("0.9")
