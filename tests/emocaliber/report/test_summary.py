"""Summaries: where every row goes, by hand and as properties over any rows in any order; known truths."""

import json
from decimal import Decimal
from math import log as ln
from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emocaliber.report.as_json import metrics_content
from emocaliber.report.as_json import metrics_json as text_of
from emocaliber.report.collector import Collector
from emocaliber.report.logs import metric_conf_log, metric_log
from emocaliber.report.summary import summarise
from emocaliber.scoring import ScoredRow
from emocaliber.taxonomy import task_group

SCORE_NAMES = ("acc", "f1", "ece", "brier", "auroc")
LABELS = ("awe", "fear", "sadness")


def evaluate(rows, failures=None, n_draws=0, seed=0):
    """Without intervals unless they are asked for: most tests do not look at them."""
    collector = Collector()
    for row in rows:
        collector.add(row, (failures or {}).get(row.id, "error"))
    return summarise(collector, n_draws, seed)


def metrics_json(evaluation, provenance):
    return text_of(metrics_content(evaluation, provenance))


def scored(
    number,
    task="EmoSet-8",
    truth="awe",
    label="awe",
    confidence=None,
    status=None,
    reason=None,
    posterior=None,
    image=None,
):
    stated = None if confidence is None else Decimal(confidence)
    status = status or ("unparsed" if label is None else "answered")
    return ScoredRow(
        id=f"row-{number}",
        task=task,
        group=task_group(task),
        truth=truth,
        candidates=LABELS,
        label=label,
        correct=label == truth,
        confidence=stated,
        status=status,
        label_reason=(reason or "no_answer") if status == "unparsed" else None,
        confidence_reason="missing" if stated is None and status != "failed" else None,
        flags=frozenset({"truncated"}) if status == "unparsed" else frozenset(),
        posterior=posterior,
        image_key=image,
    )


def failed(number, **fields):
    return scored(number, label=None, status="failed", **fields)


def test_every_row_is_accounted_for_and_nothing_unanswered_is_right():
    rows = [
        scored(1, confidence="0.8"),
        scored(2, label="fear", confidence="0.6"),
        scored(3, label=None, confidence="0.9", reason="ambiguous"),
        scored(4, label=None),
        failed(5),
        failed(6),
    ]
    overall = evaluate(rows, {"row-5": "ImageError"}).overall
    assert (overall.n, overall.answered, overall.unparsed, overall.failed) == (6, 2, 2, 2)
    assert overall.unparsed_reasons == {"ambiguous": 1, "no_answer": 1}
    assert overall.failed_reasons == {"ImageError": 1, "error": 1}
    assert overall.flags == {"truncated": 2}
    assert overall.no_confidence_reasons == {"failed": 2, "missing": 1}
    assert (overall.n_with_confidence, overall.n_unparsed_with_confidence) == (3, 1)
    assert overall.acc == pytest.approx(1 / 6)
    # bins: 0.8 right -> 0.2; 0.6 wrong -> 0.6; 0.9 unparsed, so wrong -> 0.9.
    assert overall.ece == pytest.approx(1.7 / 3)
    assert overall.brier == pytest.approx((0.04 + 0.36 + 0.81) / 3)
    assert overall.auroc == 0.5


def test_tasks_come_in_the_order_of_the_tables_and_unknown_ones_after_them_in_no_group():
    names = ["Zoo-3", "WebEmo-25", "Abstract-8", "Art-2", "FI-2"]
    evaluation = evaluate([scored(n, task=name) for n, name in enumerate(names)])
    assert [task.name for task in evaluation.tasks] == ["Abstract-8", "FI-2", "WebEmo-25", "Art-2", "Zoo-3"]
    assert evaluation.tasks_of_group == {
        "ID VSA": ("FI-2",),
        "ID VER": ("WebEmo-25",),
        "OOD VER": ("Abstract-8",),
    }
    assert sum(group.n for group in evaluation.groups) == 3
    assert evaluation.overall.n == 5


def test_the_group_has_the_sample_mean_and_beside_it_the_task_mean():
    # EmoSet-8: 1 of 3 right; FI-8: 1 of 1 right, and no AUROC of its own.
    rows = [
        scored(1, confidence="0.9"),
        scored(2, label="fear", confidence="0.5"),
        scored(3, label="fear", confidence="0.5"),
        scored(4, task="FI-8", confidence="0.9"),
    ]
    evaluation = evaluate(rows)
    assert evaluation.groups[0].acc == 0.5
    mean = evaluation.task_means["ID VER"]
    assert mean.scores["acc"] == pytest.approx((1 / 3 + 1) / 2)
    assert {score: mean.n_tasks[score] for score in SCORE_NAMES} == {
        "acc": 2,
        "f1": 2,
        "ece": 2,
        "brier": 2,
        "auroc": 1,
    }
    assert mean.scores["auroc"] == 1.0


def test_against_the_truth_by_hand():
    sure = {"awe": 0.75, "fear": 0.25, "sadness": 0.0}
    rows = [
        scored(1, confidence="0.8", posterior=sure),  # |0.8 - 0.75|
        scored(2, label="fear", confidence="0.5", posterior=sure),  # |0.5 - 0.25|
        scored(3, label=None, confidence="0.3", posterior=sure),  # no answer: |0.3 - 0|
        failed(4, posterior={"awe": 0.5, "fear": 0.5, "sadness": 0.0}),  # still in both accuracies
        scored(5, confidence="0.1"),  # truth not known
    ]
    truth = evaluate(rows).overall.truth
    assert truth is not None
    assert (truth.n, truth.n_with_confidence) == (4, 3)
    assert truth.acc == 0.25
    assert truth.bayes_acc == pytest.approx((3 * 0.75 + 0.5) / 4)
    assert truth.mean_abs_confidence_minus_posterior == pytest.approx(0.2)
    assert evaluate([scored(5)]).overall.truth is None


def test_json_holds_null_where_there_is_no_number():
    content = json.loads(metrics_json(evaluate([failed(1, task="FI-2")]), {"predictions": ["a.jsonl"]}))
    samples = content["overall"]["samples"]
    assert [samples[score] for score in ("acc", "f1", "ece", "brier", "auroc")] == [
        0.0,
        0.0,
        None,
        None,
        None,
    ]
    threshold = {"threshold": 0.1, "n": 0, "coverage": 0.0, "acc": None, "f1": None}
    nothing = {"acc": None, "f1": None, "coverage": None}
    assert samples["thresholds"][0] == {**threshold, "intervals": nothing}
    assert content["groups"]["ID VSA"]["samples"]["n"] == content["tasks"]["FI-2"]["n"] == 1
    assert content["groups"]["ID VSA"]["tasks"] == ["FI-2"]
    assert content["overall"]["task_mean"]["ece"] is None
    assert content["predictions"] == ["a.jsonl"]


def test_a_task_called_like_a_group_or_with_a_hostile_name_loses_nothing():
    names = ["Overall", "ID VSA", "a\nb", "a b", "\ud800"]
    evaluation = evaluate([scored(n, task=name) for n, name in enumerate(names)])
    assert set(json.loads(metrics_json(evaluation, {}))["tasks"]) == set(names)
    for log in (metric_log(evaluation), metric_conf_log(evaluation)):
        log.encode("utf-8")
        assert "| ID VSA          | 100.00 | 100.00 |" in log


def test_many_reasons_are_cut_to_a_readable_list_that_still_adds_up():
    rows = [failed(number) for number in range(30)]
    log = metric_log(evaluate(rows, {row.id: f"Error{row.id}" for row in rows}))
    assert log.count("  failed, ") == 13
    assert "  failed, 18 more reasons: 18 (see metrics.json)" in log


ROW = st.builds(
    scored,
    number=st.just(0),
    task=st.sampled_from(("EmoSet-8", "FI-8", "FI-2", "Mine-3")),
    truth=st.sampled_from(LABELS),
    label=st.one_of(st.none(), st.sampled_from(LABELS)),
    confidence=st.one_of(st.none(), st.integers(0, 20).map(lambda twentieths: str(Decimal(twentieths) / 20))),
    posterior=st.one_of(st.none(), st.just({"awe": 0.1, "fear": 0.2, "sadness": 0.7})),
    image=st.one_of(st.none(), st.sampled_from("abc")),
)
ROWS = st.lists(st.one_of(ROW, st.builds(failed, number=st.just(0))), min_size=1, max_size=40)


@given(ROWS, st.randoms(use_true_random=False), st.sampled_from((0, 20)))
@settings(max_examples=25)
def test_no_digit_of_any_output_depends_on_the_order_and_every_count_adds_up(rows, shuffler, n_draws):
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    one, other = evaluate(rows, n_draws=n_draws), evaluate(shuffled, n_draws=n_draws)
    for write in (metric_log, metric_conf_log, lambda evaluation: metrics_json(evaluation, {})):
        assert write(one) == write(other)
    for summary in (*one.tasks, *one.groups, one.overall):
        assert summary.n == summary.answered + summary.unparsed + summary.failed
        assert summary.n == summary.n_with_confidence + sum(summary.no_confidence_reasons.values())
        assert summary.unparsed == sum(summary.unparsed_reasons.values())
        assert summary.failed == sum(summary.failed_reasons.values())
    assert sum(task.n for task in one.tasks) == one.overall.n == len(rows)
    assert json.loads(metrics_json(one, {}))["overall"]["samples"]["n"] == len(rows)


def test_every_score_has_an_interval_around_it_and_the_same_seed_the_same_one():
    rows = [scored(n, label="awe" if n % 3 else "fear", confidence=f"0.{n % 4 + 5}") for n in range(60)]
    overall = evaluate(rows, n_draws=200).overall
    for score in ("acc", "f1", "brier", "auroc", "aurc", "augrc", "risk_at_coverage_50"):
        low, high = overall.intervals[score]
        assert low < overall.scores[score] < high
    assert evaluate(rows, n_draws=200).overall.intervals == overall.intervals
    assert evaluate(rows, n_draws=200, seed=1).overall.intervals != overall.intervals
    assert evaluate(rows).overall.intervals["acc"] is None


def test_rows_of_one_image_are_drawn_together():
    # Four rows an image that are all right or all wrong: a quarter of the rows' worth of information.
    def width(image_of):
        rows = [
            scored(n, label="awe" if n // 4 % 2 else "fear", confidence="0.5", image=image_of(n))
            for n in range(160)
        ]
        evaluation = evaluate(rows, n_draws=500)
        low, high = evaluation.overall.intervals["acc"]
        return evaluation.n_images, high - low

    (n_alone, alone), (n_shared, shared) = width(lambda n: None), width(lambda n: str(n // 4))
    assert (n_alone, n_shared) == (160, 40)
    assert 1.6 < shared / alone < 2.4


def test_the_ece_by_chance_stands_beside_the_ece():
    # 100 rows of 0.5: chance moves the accuracy by sqrt(0.25 / 100) = 0.05, a mean distance of 0.04.
    rows = [scored(n, label="awe" if n % 2 else "fear", confidence="0.5") for n in range(100)]
    overall = evaluate(rows, n_draws=2000).overall
    assert overall.ece == 0.0
    assert 0.03 < overall.by_chance.mean < 0.05
    assert 0.07 < overall.by_chance.p95 < 0.12
    log = metric_conf_log(evaluate(rows, n_draws=2000))
    assert "95 % intervals by bootstrap over 100 images (2000 draws, seed 0)" in log


def test_pooling_tasks_of_different_difficulty_is_warned_of():
    # Within each task the confidence says nothing; one task is easy and confident, the other neither.
    easy = [scored(n, label="awe" if n % 10 else "fear", confidence="0.9") for n in range(100)]
    hard = [
        scored(n, task="FI-8", label="fear" if n % 10 else "awe", confidence="0.4") for n in range(100, 200)
    ]
    evaluation = evaluate([*easy, *hard], n_draws=200)
    mean = evaluation.task_means["ID VER"]
    assert mean.scores["auroc"] == 0.5
    assert mean.auroc_gained_by_pooling == pytest.approx(0.4)
    assert "warning: pooling inflates the ROC AUC of ID VER: 90.00 over all its rows, 50.00 within" in (
        metric_conf_log(evaluation)
    )
    assert json.loads(metrics_json(evaluation, {}))["warnings"][0].startswith("warning: pooling inflates")
    assert "warning" not in metric_conf_log(evaluate(easy, n_draws=200))


def test_confusion_counts_every_row_of_a_task():
    rows = [scored(1), scored(2, label="fear"), scored(3, truth="fear", label=None), failed(4)]
    content = json.loads(metrics_json(evaluate(rows), {}))
    assert content["tasks"]["EmoSet-8"]["confusion"] == {
        "labels": ["awe", "fear"],
        "counts": [[1, 1, 1], [0, 0, 1]],
    }
    assert content["overall"]["samples"]["confusion"] is None


JOYS = ("joy", "great joy", "sadness")


def known(label, confidence, p, image=None, status=None):
    return ScoredRow(
        id="r",
        task="Mine-3",
        group=None,
        truth="joy",
        candidates=JOYS,
        label=label,
        correct=label == "joy",
        confidence=None if confidence is None else Decimal(confidence),
        status=status or ("answered" if label else "unparsed"),
        label_reason=None if label else "no_answer",
        confidence_reason=None if confidence else "missing",
        flags=frozenset(),
        posterior=None if p is None else dict(zip(JOYS, p, strict=True)),
        image_key=image,
    )


KNOWN = [
    known("joy", "0.8", (0.5, 0.25, 0.25)),
    known("sadness", "0.3", (0.5, 0.5, 0.0)),
    known("great joy", "1.0", (0.0, 1.0, 0.0)),
    known(None, "0.4", (1.0, 0.0, 0.0)),  # no answer: no forecast, chance 0
    known("joy", None, (0.25, 0.25, 0.5)),  # no confidence: no forecast, but a chance
    known(None, None, (0.25, 0.25, 0.5), status="failed"),
    known("joy", "0.9", None),  # nothing known
]


def truth_of(rows, n_draws=0):
    return evaluate(rows, n_draws=n_draws).overall.truth


def test_every_number_by_hand():
    truth = truth_of(KNOWN)
    assert (truth.n, truth.n_with_confidence, truth.forecast.n) == (6, 4, 3)
    assert truth.acc == pytest.approx(2 / 6)
    assert truth.bayes_acc == pytest.approx((0.5 + 0.5 + 1 + 1 + 0.5 + 0.5) / 6)
    assert truth.mean_abs_confidence_minus_posterior == pytest.approx((0.3 + 0.3 + 0 + 0.4) / 4)
    assert truth.forecast.expected_acc == pytest.approx((0.5 + 0 + 1 + 0 + 0.25 + 0) / 6)
    # Bins 0.8, 0.3, 0.9 and 0.4 hold one known each.
    assert truth.forecast.soft_ece == pytest.approx((0.3 + 0.3 + 0 + 0.4) / 4)
    entropies = (0.5 * ln(2) + 0.5 * ln(4), ln(2), 0.0)
    crosses = (-0.5 * ln(0.8) - 0.5 * ln(0.1), -ln(0.35), -ln(0.999))
    assert truth.forecast.cross_entropy_nats == pytest.approx(sum(crosses) / 3)
    assert truth.forecast.kl_nats == pytest.approx((sum(crosses) - sum(entropies)) / 3)
    # q - p: (0.3, -0.15, -0.15); (-0.15, -0.15, 0.3); nothing.
    assert truth.forecast.brier_over_labels == pytest.approx((0.135 + 0.135 + 0) / 3)


def test_gaps_of_one_bin_cancel_in_the_soft_ece_and_not_in_the_gap():
    truth = truth_of([known("joy", "0.3", (0.5, 0.5, 0)), known("joy", "0.39", (0.2, 0.8, 0))])
    assert truth.forecast.soft_ece == pytest.approx((0.2 - 0.19) / 2)
    assert truth.mean_abs_confidence_minus_posterior == pytest.approx((0.2 + 0.19) / 2)


def test_a_rounded_posterior_is_divided_by_its_sum():
    rounded = truth_of([known("joy", "0.5", (0.333, 0.333, 0.333))])
    exact = truth_of([known("joy", "0.5", (1 / 3, 1 / 3, 1 / 3))])
    assert rounded.bayes_acc == pytest.approx(1 / 3)
    assert rounded.forecast.expected_acc == pytest.approx(1 / 3)
    assert rounded.forecast.kl_nats == pytest.approx(exact.forecast.kl_nats)
    assert rounded.forecast.brier_over_labels == pytest.approx(exact.forecast.brier_over_labels)


def test_intervals_are_by_image_and_end_where_the_values_do():
    # Two images with chances 1 and 0.5, the second twice: mean 2/3; influences by image 1/9 and -1/9;
    # variance (2 / 81) * 2 / 1.
    rows = [known("joy", "0.5", (1, 0, 0), "a"), *[known("joy", "0.5", (0.5, 0.5, 0), "b")] * 2]
    found = truth_of(rows, n_draws=10).forecast.intervals
    half = 1.959964 * sqrt(4 / 81)
    assert found["expected_acc"] == (pytest.approx(2 / 3 - half), 1.0)
    assert set(found) == {"expected_acc", "cross_entropy_nats", "kl_nats", "brier_over_labels"}
    assert set(truth_of(rows).forecast.intervals.values()) == {None}
    assert truth_of(rows[:1], n_draws=10).forecast.intervals["kl_nats"] is None


def test_the_log_and_metrics_json_hold_the_truth():
    evaluation = evaluate(KNOWN, n_draws=0)
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
    assert metric_conf_log(evaluate(KNOWN[-1:], n_draws=0)).count("istribution") == 0


ANY_P = (
    st.lists(st.integers(0, 9), min_size=3, max_size=3)
    .filter(any)
    .map(lambda v: tuple(x / sum(v) for x in v))
)
ANY_KNOWN = st.builds(
    known,
    label=st.sampled_from([None, *JOYS]),
    confidence=st.sampled_from([None, "0.3", "0.70", "0.7", "0.99", "0.123456"]),
    p=ANY_P,
    image=st.sampled_from([None, "a", "b", "c"]),
)


@given(st.lists(ANY_KNOWN, min_size=1, max_size=60), st.randoms(use_true_random=False))
@settings(max_examples=20)
def test_no_digit_against_the_truth_depends_on_the_order(rows, shuffler):
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    assert truth_of(rows, n_draws=2) == truth_of(shuffled, n_draws=2)


def test_more_rows_than_are_reduced_at_once_change_nothing(monkeypatch):
    whole = truth_of(KNOWN * 7)
    monkeypatch.setattr("emocaliber.report.collector._MOST_WAITING", 10)
    assert truth_of(KNOWN * 7) == whole
