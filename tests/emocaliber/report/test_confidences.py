"""Several confidences or samples a row: every number by hand, pairing, the log and metrics.json."""

import json
from decimal import Decimal
from math import log, sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emocaliber.report.as_json import metrics_content, metrics_json
from emocaliber.report.confidences import ConfidenceCollector
from emocaliber.report.confidences_section import best_lines
from emocaliber.report.logs import metric_conf_log
from emocaliber.report.summary import evaluate
from emocaliber.scoring import score

LABELS = ["awe", "fear"]


def record(truth, label, stated, likelihood=None, p_true=None, task="EmoSet-8", image=None, **fields):
    """`likelihood`: of awe."""
    confidence = "" if stated is None else f"<confidence>{stated}</confidence>"
    logprobs = None if likelihood is None else {"awe": log(likelihood), "fear": log(1 - likelihood)}
    return {
        "id": "r",
        "task": task,
        "ground_truth": truth,
        "candidates": LABELS,
        "image": image,
        "response": f"<answer>{label}</answer>{confidence}",
        "candidate_logprobs": logprobs,
        "p_true": p_true,
        **fields,
    }


RECORDS = [
    record("awe", "awe", "0.9", 0.8, 0.5, confidence_tokens={"likelihood": 30, "p_true": 8}),
    record("fear", "awe", "0.9", 0.6, 0.5, confidence_tokens={"likelihood": 20}),
    record("fear", "fear", "0.7", 0.3, 0.5, "FI-2"),
    record("fear", "awe", "0.8", 0.4, 0.5, "FI-2"),
    # Not in the comparison: one confidence is missing, cannot be read, or all but the stated one are.
    record("awe", "awe", None, 0.8, 0.5),
    record("awe", "awe", "0.9", 0.8, "half"),
    record("awe", "awe", "0.9"),
    record("awe", "awe", "0.9", 0.8, 0.5, error={"type": "image_missing"}),
]


def report(records, n_draws=0, seed=0):
    collector = ConfidenceCollector()
    for one in records:
        collector.add(one, score(one))
    return collector.report(n_draws, seed)


def test_every_number_by_hand():
    found = report(RECORDS)
    assert (found.n_rows, found.n_compared) == (6, 4)
    assert found.compared == ("stated", "likelihood", "p_true", "likelihood_best")
    assert {name: (one.n, one.reasons, one.tokens) for name, one in found.occurrences.items()} == {
        "stated": (5, {"missing": 1}, None),
        "likelihood": (6, {}, 25.0),
        "p_true": (5, {"not_a_number": 1}, 8.0),
        "likelihood_best": (6, {}, None),
    }
    stated, likelihood, p_true, best = found.by_set.overall.confidences.values()
    # 0.9 right, 0.9 wrong, 0.7 right, 0.8 wrong.
    assert stated.scores == {
        "acc": 0.5,
        "ece": pytest.approx((abs(1.8 - 1) + 0.3 + 0.8) / 4),
        "smooth_ece": stated.scores["smooth_ece"],  # held to the main tables' below
        "brier": pytest.approx((0.01 + 0.81 + 0.09 + 0.64) / 4),
        "auroc": pytest.approx((0.5 + 1 + 0 + 0) / 4),
        # In EmoSet-8 0.9 right, 0.9 wrong. FI-2 is left out: all that the best candidate says there is right.
        "auroc_within_tasks": 0.5,
        # Wrong of the first 0 to 4: 0, 0.5 (either order), 1, 2, 2; the area is that of trapezia.
        "augrc": pytest.approx((0.25 + 0.75 + 1.5 + 2) / 16),
    }
    # 0.8 right, 0.6 wrong, 0.7 right, 0.4 wrong.
    assert likelihood.scores["acc"] == 0.5
    assert likelihood.scores["auroc"] == likelihood.scores["auroc_within_tasks"] == 1.0
    assert likelihood.scores["brier"] == pytest.approx((0.04 + 0.36 + 0.09 + 0.16) / 4)
    assert likelihood.scores["ece"] == pytest.approx((0.2 + 0.6 + 0.3 + 0.4) / 4)
    assert likelihood.scores["augrc"] == pytest.approx((0 + 0 + 0.5 + 1.5) / 16)
    assert p_true.scores["auroc"] == 0.5
    assert p_true.scores["ece"] == 0
    # Another answer to the last row: fear at 0.6, which is right.
    assert best.scores["acc"] == 0.75
    assert best.scores["brier"] == pytest.approx((0.04 + 0.36 + 0.09 + 0.16) / 4)
    assert best.scores["auroc_within_tasks"] == 1.0
    assert likelihood.differences["brier"] == pytest.approx((0.65 - 1.55) / 4)
    assert not any(stated.differences.values())
    assert [rows.name for rows in (*found.by_set.tasks, *found.by_set.groups)] == [
        "EmoSet-8",
        "FI-2",
        "ID VSA",
        "ID VER",
    ]
    assert [rows.n for rows in (*found.by_set.tasks, *found.by_set.groups, found.by_set.overall)] == [
        2,
        2,
        2,
        2,
        4,
    ]


def test_the_mean_over_tasks_is_over_those_in_which_all_are_defined():
    wrong = record("fear", "awe", "0.9", 0.9, 0.4, "FI-2")  # by the best candidate as well
    found = report([*RECORDS, wrong]).by_set.overall.confidences
    # In FI-2: 0.7 right, 0.8 wrong, 0.9 wrong.
    assert found["stated"].scores["auroc_within_tasks"] == pytest.approx((0.5 + 0) / 2)
    # 0.7 and, of the best candidate, 0.6 right, 0.9 wrong.
    assert found["likelihood_best"].scores["auroc_within_tasks"] == pytest.approx((1 + 0) / 2)


def test_the_scores_are_those_of_the_main_tables():
    rows = [score(one) for one in RECORDS[:4]]
    scores = report(RECORDS).by_set.overall.confidences["stated"].scores
    main = evaluate(rows, n_draws=0).overall.scores
    assert {name: main[name] for name in scores if name in main} == {
        name: value for name, value in scores.items() if name != "auroc_within_tasks"
    }


def test_what_fewer_than_half_have_is_counted_only():
    rare = [record("awe", "awe", None, 0.8, 0.5), record("awe", "awe", None, 0.8, 0.5), RECORDS[0]]
    found = report(rare)
    assert found.occurrences["stated"].n == 1
    assert found.compared == ("likelihood", "p_true", "likelihood_best")
    assert found.n_compared == 3
    half = report(rare[1:])
    assert half.compared[0] == "stated"
    assert half.n_compared == 1


def test_fewer_than_two_are_not_compared():
    assert report([]) is None
    assert report([record("awe", "awe", "0.9")] * 3) is None
    response = "<answer>awe</answer><distribution>awe: 0.6, fear: 0.4</distribution>"
    assert report([record("awe", "", None, response=response)] * 3) is None
    assert report([record("awe", "", None, 0.5, response=response)]).compared == (
        *("likelihood", "distribution", "likelihood_best"),
    )


def test_rows_of_which_none_has_all_are_told():
    records = [record("awe", "awe", "0.9", 0.8), record("awe", "awe", None, 0.8, 0.5)]
    found = report([records[0], {**records[1], "candidate_logprobs": None}])
    assert (found.n_compared, found.by_set) == (0, None)
    assert best_lines(found) == []
    assert "the scores are of the 0 that have all" in metric_conf_log(
        evaluate(map(score, records), n_draws=0), None, found
    )


# P(True) tells right from wrong, the likelihood tells as much as the stated confidence: nothing.
MANY = [
    record(truth, "awe", "0.6", 0.6, 0.9 if truth == "awe" else 0.2, image=f"{n}.jpg")
    for n, truth in enumerate(["awe", "fear", "awe"] * 20)
]


def test_which_is_best_and_which_is_not_told_apart():
    overall = report(MANY, n_draws=200).by_set.overall
    ranks, calibrated = overall.ranks_best, overall.calibrated_best
    assert (ranks.name, ranks.value, ranks.not_told_apart) == ("p_true", 1.0, ())
    # What is the same in all rows is the same in all draws.
    one = overall.confidences["likelihood"]
    assert one.difference_intervals["brier"] == one.difference_intervals["auroc"] == (0.0, 0.0)
    assert calibrated.name == "stated"
    assert calibrated.others["likelihood"] == (0.0, (0.0, 0.0))
    assert set(calibrated.not_told_apart) == {"likelihood", "likelihood_best", "p_true"}
    lines = best_lines(report(MANY, n_draws=200))
    assert lines[0] == "Ranks best (ROC AUC in tasks): P(True), 100.00, told apart from all others"
    assert "likelihood (+0.00 [+0.00, +0.00])" in lines[1]


def test_without_draws_nothing_is_told_apart():
    lines = best_lines(report(MANY))
    assert lines[0].endswith("P(True), 100.00 (no intervals: nothing is told apart)")


def test_no_ranking_where_all_answers_are_right():
    found = report([record("awe", "awe", "0.9", 0.8, 0.5)] * 2, n_draws=100)
    assert found.by_set.overall.ranks_best is None
    assert best_lines(found)[0] == "Ranks best (ROC AUC in tasks): undefined"


def test_the_log_and_metrics_json_hold_them_only_where_there_are_several():
    rows = [score(one) for one in RECORDS]
    evaluation, found = evaluate(rows, n_draws=0), report(RECORDS)
    log_text = metric_conf_log(evaluation, None, found)
    assert (
        "Confidences compared: 6 rows hold more than the stated one; the scores are of the 4 that have all\n"
        in log_text
    )
    assert "| P(True)          | 5         | not_a_number 1 | 8.0          |" in log_text
    assert "| Overall         | likelihood       |  50.00 |  37.50 |" in log_text
    assert "Not compared" not in log_text
    content = json.loads(metrics_json(metrics_content(evaluation, {}, None, found)))
    content = content["confidences"]
    assert (content["n_rows"], content["n_compared"]) == (6, 4)
    assert content["occurrences"]["p_true"]["reasons"] == {"not_a_number": 1}
    assert content["overall"]["ranks_best"]["name"] == "likelihood"
    assert content["groups"]["ID VER"]["confidences"]["likelihood"]["auroc"] == 1.0
    assert content["tasks"]["FI-2"]["confidences"]["p_true"]["less_first"]["acc"] == 0
    assert "Confidences compared" not in metric_conf_log(evaluation)
    assert "confidences" not in metrics_content(evaluation, {})


CONFIDENCE = st.sampled_from([None, 0.3, 0.30000001, 0.7, 1 / 3])
RECORD = st.builds(
    record,
    st.sampled_from(LABELS),
    st.sampled_from([*LABELS, "?"]),
    st.sampled_from([None, "0.3", "0.30", "1"]),
    CONFIDENCE,
    CONFIDENCE,
    st.sampled_from(["EmoSet-8", "FI-8", "Zoo-3"]),
    st.sampled_from([None, "a.jpg", "b.jpg"]),
)


@given(st.lists(RECORD, min_size=1, max_size=20), st.randoms(use_true_random=False))
@settings(max_examples=10)
def test_no_digit_depends_on_the_order_of_the_rows(records, shuffler):
    shuffled = list(records)
    shuffler.shuffle(shuffled)
    assert report(records, n_draws=3) == report(shuffled, n_draws=3)


THREE_LABELS = ["awe", "fear", "sadness"]


def answer(label, confidence=None):
    stated = "" if confidence is None else f"<confidence>{confidence}</confidence>"
    return f"<answer>{label}</answer>{stated}"


def sampled_record(truth, *answers, task="EmoSet-8", image=None, **fields):
    texts = [answer(*one) for one in answers]
    return {
        "id": "r",
        "task": task,
        "ground_truth": truth,
        "candidates": THREE_LABELS,
        "image": image,
        "response": texts[0],
        "samples": texts,
        **fields,
    }


SAMPLED = [
    sampled_record("awe", ("awe", "0.9"), ("fear", "0.6"), ("awe", "0.7")),  # awe: 2/3, mean 0.8
    sampled_record(
        "fear", ("awe", "0.5"), ("fear", "0.8"), ("?", "0.9")
    ),  # tie, fear by confidence: 1/3, mean 0.8
    sampled_record("sadness", ("awe",), ("sadness",), ("fear",)),  # tie, awe by order: 1/3, no mean
    sampled_record("awe", ("?", "0.4"), ("?",), ("?",)),  # no majority
]


def sample_report(records, n_draws=0, seed=0):
    collector = ConfidenceCollector()
    for one in records:
        collector.add(one, score(one))
    return collector.sample_report(n_draws, seed)


def test_every_number_of_samples_by_hand():
    rows = sample_report(SAMPLED).overall
    assert (rows.n, rows.fewest_samples, rows.most_samples, rows.n_tied, rows.n_without_majority) == (
        4,
        3,
        3,
        2,
        1,
    )
    assert rows.acc_mean_of_samples == pytest.approx((2 / 3 + 1 / 3 + 1 / 3 + 0) / 4)
    assert rows.agreement == pytest.approx((2 / 3 + 1 / 3 + 1 / 3 + 0) / 4)
    # The first samples have 1 right, the second 2, the third 1: 1/4, 2/4, 1/4.
    assert rows.acc_sd_between_samples == pytest.approx(sqrt(1 / 48))
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
        *SAMPLED,
        sampled_record("fear", ("fear", "0.9"), ("fear", "0.7"), task="Zoo-3"),
        sampled_record("fear", ("fear", "0.9"), task="FI-2"),  # one sample
        sampled_record("fear", ("fear", "0.9"), ("fear", "0.9"), task="FI-2", error="boom"),
    ]
    found = sample_report(records)
    assert [rows.name for rows in found.tasks] == ["EmoSet-8", "Zoo-3"]
    assert [rows.name for rows in found.pooled] == ["ID VER", "Overall"]
    assert (found.overall.n, found.overall.fewest_samples, found.overall.most_samples) == (5, 2, 3)
    assert found.overall.acc_sd_between_samples is None
    assert found.tasks[1].acc_mean_of_samples == 1.0
    assert sample_report(records[-2:]) is None


def test_equal_answers_differ_by_nothing_in_any_draw():
    """The three see the same draws: what they share cancels to the last digit."""
    records = [
        sampled_record(truth, *[(label, "0.5")] * 2, ("?",), ("?",), image=f"{n}.jpg")
        for n, (truth, label) in enumerate([("awe", "awe"), ("awe", "fear"), ("fear", "fear")] * 4)
    ]
    found = sample_report(records, n_draws=50)
    for confidence in found.overall.confidences.values():
        assert confidence.intervals["acc"] is not None
        assert (
            confidence.difference_intervals["acc"] == confidence.difference_intervals["brier"] == (0.0, 0.0)
        )


def test_the_log_and_metrics_json_hold_them_only_where_there_are_samples():
    rows = [score(one) for one in SAMPLED]
    evaluation, found = evaluate(rows, n_draws=0), sample_report(SAMPLED)
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
    content = json.loads(metrics_json(metrics_content(evaluation, {}, found)))["samples"]
    assert content["overall"]["acc_sd_between_samples"] == pytest.approx(sqrt(1 / 48))
    assert content["groups"]["ID VER"]["confidences"]["agreement"]["less_response"]["acc"] == 0.25
    assert "less_response" not in content["tasks"]["EmoSet-8"]["confidences"]["response"]
    assert "samples a row" not in metric_conf_log(evaluation)
    assert "samples" not in metrics_content(evaluation, {})


ANSWER = st.tuples(st.sampled_from([*THREE_LABELS, "?"]), st.sampled_from([None, "0.3", "0.30", "0.7", "1"]))
SAMPLED_RECORD = st.builds(
    lambda truth, answers, task, image: sampled_record(truth, *answers, task=task, image=image),
    st.sampled_from(THREE_LABELS),
    st.lists(ANSWER, min_size=2, max_size=4),
    st.sampled_from(["EmoSet-8", "FI-8", "Zoo-3"]),
    st.sampled_from([None, "a.jpg", "b.jpg"]),
)


@given(st.lists(SAMPLED_RECORD, min_size=1, max_size=20), st.randoms(use_true_random=False))
@settings(max_examples=10)
def test_no_digit_of_samples_depends_on_the_order_of_the_rows(records, shuffler):
    shuffled = list(records)
    shuffler.shuffle(shuffled)
    assert sample_report(records, n_draws=3) == sample_report(shuffled, n_draws=3)


def test_confidences_are_those_of_the_response_in_the_main_tables():
    rows = [score(one) for one in SAMPLED]
    scores = sample_report(SAMPLED).overall.confidences["response"].scores
    assert {name: evaluate(rows, n_draws=0).overall.scores[name] for name in scores} == scores
    assert rows[0].confidence == Decimal("0.9")
