"""The published evaluator's arithmetic: each fault on rows worked by hand, the logs to the character."""

import json
import random
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emocaliber.report.paper import (
    FAULTS,
    ROW_FAULTS,
    Level,
    PaperProtocol,
    decimal_bin,
    ece,
    float_bin,
    protocol_difference,
    weighted_f1,
)
from emocaliber.scoring import score
from emocaliber.taxonomy import TASKS

GOLDEN = Path(__file__).parents[2] / "golden"
POLARITY = ["positive", "negative"]


def row(response, truth="negative", task="FI-2", candidates=POLARITY, **fields):
    return {
        "conversations": [{"role": "user", "content": "?"}],
        "task": task,
        "ground_truth": truth,
        "candidates": list(candidates),
        "response": response,
        **fields,
    }


def says(answer, confidence=None, reasoning="A hill."):
    text = f"<think>{reasoning}</think><answer>{answer}</answer>"
    return text if confidence is None else f"{text}<confidence>{confidence}</confidence>"


def paper_of(records):
    paper = PaperProtocol()
    for record in records:
        paper.add(record, score(record))
    return paper


def faults_of(scores):
    return {name: n for name, n in scores["faults"].items() if n}


def scores_of_one(response, **fields):
    scores = paper_of([row(response, **fields)]).scores()
    return scores["tasks"]["FI-2"], scores["groups"]["ID VSA"], scores["overall"]


# Right, wrong, right, wrong, and right with a confidence that float() does not read.
FIVE = [
    row(says("positive", "0.25"), truth="positive"),
    row(says("positive", "0.3")),
    row(says("negative", "1.0")),
    row(says("negative", "1.0"), truth="positive"),
    row(says("negative", "85%")),
]
# metric.log, all five rows: Acc 3/5. F1 of positive (2 true, 2 predicted, 1 hit) 2/4, of negative (3, 3, 2)
# 4/6; weighted (2 * 1/2 + 3 * 2/3) / 5 = 60.
FIVE_METRIC_LOG = """\
-----------------------------------------------------
| Task            | Acc      | F1       | #Samples  |
-----------------------------------------------------
| FI-2            |  60.00 |  60.00 | 5         |
-----------------------------------------------------
| Overall         |  60.00 |  60.00 | 5         |
-----------------------------------------------------
Rows: 5 = 5 answered + 0 unparsed + 0 failed
  (an unparsed or failed row counts as the label unknown)
Protocol: paper, the published evaluator's arithmetic with its faults; for comparison only

FI-2 Acc\tFI-2 F1\tOverall Acc\tOverall F1
60.00\t60.00\t60.00\t60.00
"""
# metric_conf.log, four rows beside #Samples 5: Acc 2/4; F1 of either label (2 true, 2 predicted, 1 hit) 50.
# ECE: 0.3 shares the third bin with 0.25, |1 right - 0.55| = 0.45; both 1.0 are in no bin: 0.45 / 4 = 11.25.
# Brier: (0.75^2 + 0.3^2 + 0 + 1) / 4 = 1.6525 / 4 = 41.3125. AUC: of the pairs right-wrong, 0.25 loses to 0.3
# and to 1.0, 1.0 wins over 0.3 and ties with 1.0: 1.5 / 4 = 37.5.
# At 0.3: rows 2 to 4, Acc 1/3, negative (2 true, 2 predicted, 1 hit) 1/2, positive 0: F1 2/3 * 1/2. From 0.4:
# rows 3 and 4, Acc 1/2, negative (1 true, 2 predicted, 1 hit) 2/3, positive 0: F1 1/2 * 2/3.
FIVE_CONF_LOG = """\
--------------------------------------------------------------------------------------
| Task/Group      | Acc    | F1     | ECE      | Brier      | ROC AUC    | #Samples  |
--------------------------------------------------------------------------------------
| FI-2            |  50.00 |  50.00 | N/A      | N/A        | N/A        | 5         |
--------------------------------------------------------------------------------------
| ID VSA          |  50.00 |  50.00 |    11.25 |      41.31 |      37.50 | 5         |
--------------------------------------------------------------------------------------
| Overall         |  50.00 |  50.00 | N/A      | N/A        | N/A        | 5         |
--------------------------------------------------------------------------------------
Rows: 5 = 5 answered + 0 unparsed + 0 failed
  (an unparsed or failed row counts as the label unknown)
Protocol: paper, the published evaluator's arithmetic with its faults; for comparison only
Confidence: 4 of 5 rows have one that parses
  (every number of the table but #Samples is over these)

Answers whose confidence is at least a threshold (Coverage: share of the rows with one)
---------------------------------------------------------------------
| Group           | Conf >= | Acc    | F1     | Coverage | #Samples |
---------------------------------------------------------------------
| ID VSA          | 0.1     |  50.00 |  50.00 |   100.00 | 4        |
| ID VSA          | 0.2     |  50.00 |  50.00 |   100.00 | 4        |
| ID VSA          | 0.3     |  33.33 |  33.33 |    75.00 | 3        |
| ID VSA          | 0.4     |  50.00 |  33.33 |    50.00 | 2        |
| ID VSA          | 0.5     |  50.00 |  33.33 |    50.00 | 2        |
| ID VSA          | 0.6     |  50.00 |  33.33 |    50.00 | 2        |
| ID VSA          | 0.7     |  50.00 |  33.33 |    50.00 | 2        |
| ID VSA          | 0.8     |  50.00 |  33.33 |    50.00 | 2        |
| ID VSA          | 0.9     |  50.00 |  33.33 |    50.00 | 2        |
---------------------------------------------------------------------

FI-2 Acc\tFI-2 F1\tFI-2 ECE\tFI-2 Brier\tFI-2 ROC AUC\tID VSA Acc\tID VSA F1\tID VSA ECE\tID VSA Brier\t\
ID VSA ROC AUC\tOverall Acc\tOverall F1\tOverall ECE\tOverall Brier\tOverall ROC AUC
50.00\t50.00\tN/A\tN/A\tN/A\t50.00\t50.00\t11.25\t41.31\t37.50\t50.00\t50.00\tN/A\tN/A\tN/A
"""
# By default all five count: ECE (|1 - 0.25| + 0.3 + |1 - 0.85| + |1 - 2.0|) / 5 = 2.2 / 5, Brier 1.675 / 5,
# AUC with 0.85 winning over 0.3 as well 2.5 / 6.
FIVE_DEFAULT = {"n": 5, "acc": 0.6, "f1": 0.6, "ece": 0.44, "brier": 0.335, "auroc": 2.5 / 6}
FIVE_DIFFERENCE = """\
protocol_difference: default -> paper (its logs), in percent, and the rows that make the difference
  FI-2 Acc in metric_conf.log: 60.00 -> 50.00 (rows_without_confidence 1)
  FI-2 F1 in metric_conf.log: 60.00 -> 50.00 (rows_without_confidence 1)
  ID VSA Acc: 60.00 -> 50.00 (rows_without_confidence 1)
  ID VSA F1: 60.00 -> 50.00 (rows_without_confidence 1)
  ID VSA ECE: 44.00 -> 11.25 (bin_edge 3, unparsable_confidence 1)
  ID VSA Brier: 33.50 -> 41.31 (unparsable_confidence 1)
  ID VSA ROC AUC: 41.67 -> 37.50 (unparsable_confidence 1)
  Overall Acc in metric_conf.log: 60.00 -> 50.00 (rows_without_confidence 1)
  Overall F1 in metric_conf.log: 60.00 -> 50.00 (rows_without_confidence 1)
  ECE, Brier and ROC AUC of every task and of Overall -> N/A (not_printed)
"""


def default_metrics(tasks, groups, overall):
    return {
        "tasks": tasks,
        "groups": {name: {"samples": scores} for name, scores in groups.items()},
        "overall": {"samples": overall},
    }


def test_metric_log_to_the_character():
    assert paper_of(FIVE).metric_log() == FIVE_METRIC_LOG


def test_metric_conf_log_to_the_character():
    assert paper_of(FIVE).metric_conf_log() == FIVE_CONF_LOG


def frame(line):
    """A line of a table without its digits: bars, rules, decimal points, N/A and the letters of these."""
    return "".join(c if c in "|-.N/A" else " " for c in line)


def test_the_lines_stand_as_the_published_ones_do():
    records = [
        row(says(label, confidence), truth="awe", task=task, candidates=["awe", "fear"])
        for task in ("Abstract-8", "EmoSet-8", "FI-2")  # one of each group
        for label, confidence in (("awe", "0.9"), ("fear", "0.2"))
    ]
    published = (GOLDEN / "published_metric.log").read_text().splitlines()
    ours = paper_of(records[:2]).metric_log().splitlines()[: len(published)]
    assert ours[:3] == published[:3]
    assert list(map(frame, ours)) == list(map(frame, published))
    published = (GOLDEN / "published_metric_conf.log").read_text().splitlines()
    ours = paper_of(records).metric_conf_log().splitlines()
    del ours[4:6]  # the sample has the first task only
    assert ours[:3] == published[:3]
    assert list(map(frame, ours[: len(published)])) == list(map(frame, published))


def test_overall_reads_the_reasoning_where_the_tasks_read_the_answer():
    # Both answers are right; both reasonings name `positive`, which is first in the list.
    both = [row(says("negative", "0.9", reasoning="The sun looks positive.")) for _ in range(2)]
    scores = paper_of(both).scores()
    assert scores["tasks"]["FI-2"]["acc"] == scores["groups"]["ID VSA"]["acc"] == 1.0
    assert scores["overall"]["acc"] == scores["overall"]["f1"] == 0.0
    assert scores["overall"]["acc_with_confidence"] == 0.0
    assert faults_of(scores["overall"]) == {"whole_response_scan": 2}


@pytest.mark.parametrize(
    ("candidates", "answer", "label"),
    [
        (["fear", "fearless"], "fearless", "fear"),
        (["fearless", "fear"], "fearless", "fearless"),
        (["fear", "fearless"], "Not FEAR", "fear"),
        (["Fear", "joy"], "fear", "Fear"),
        (["sad", "joy"], "joy, not sadness", "sad"),
        (["sadness", "joy"], "sad", "unknown"),
        (["sadness", "joy"], "", "unknown"),
    ],
)
def test_the_label_is_the_first_candidate_that_is_a_substring(candidates, answer, label):
    # Right under each truth exactly where that truth is the label.
    right = [
        truth
        for truth in candidates
        if scores_of_one(says(answer), truth=truth, candidates=candidates)[0]["acc"] == 1
    ]
    assert right == [name for name in candidates if name == label]


def test_a_substring_is_counted_where_the_default_reads_another_label():
    fields = {"truth": "fearless", "candidates": ["fear", "fearless"]}
    task, _, overall = scores_of_one(says("fearless"), **fields)
    assert (task["acc"], overall["acc"]) == (0, 0)
    assert faults_of(task) == {"substring": 1}
    assert faults_of(scores_of_one(says("fear"), **fields)[0]) == {}


def test_an_answer_that_spans_lines_is_a_scan_of_the_whole_response():
    spanning = "<think>It looks positive.</think><answer>\nnegative\n</answer>"
    task, _, overall = scores_of_one(spanning)
    assert (task["acc"], overall["acc"]) == (0, 0)
    assert faults_of(task) == {"multiline_answer": 1}
    assert scores_of_one(spanning.replace("\n", " "))[0]["acc"] == 1
    # Only `\n` ends a line for a regular expression.
    assert scores_of_one(spanning.replace("\n", "\r"))[0]["acc"] == 1
    # A later answer on one line is the one that matches.
    assert scores_of_one(spanning + "<answer>negative</answer>")[0]["acc"] == 1


def test_without_an_answer_tag_the_reasoning_is_read():
    task, _, _ = scores_of_one("<think>It looks negative, or", truth="negative")
    assert (task["acc"], task["answered"], task["unparsed"]) == (1, 1, 0)
    assert faults_of(task) == {"no_answer_tag": 1}


def test_an_answer_without_a_candidate_is_unknown_whatever_the_reasoning_names():
    task, _, overall = scores_of_one(says("calm", reasoning="It looks negative."))
    assert (task["acc"], task["unparsed"], overall["acc"]) == (0, 1, 1)


@pytest.mark.parametrize("stated", ["85%", "0.85.", "{0.85}", "\n0.85\n"])
def test_a_confidence_that_float_does_not_read_deletes_its_row_but_not_from_the_count(stated):
    task, group, overall = scores_of_one(says("negative", stated))
    assert (task["acc"], task["n"], group["n"], overall["n"]) == (1, 1, 1, 1)
    for scores in (task, group, overall):
        assert scores["n_with_confidence"] == 0
        assert scores["acc_with_confidence"] is scores["f1_with_confidence"] is scores["brier"] is None
        assert faults_of(scores) == {"unparsable_confidence": 1}


@pytest.mark.parametrize("stated", [None, "", "high", "nan", "-nan", "\x00", "\ud800"])
def test_a_confidence_that_nobody_reads_is_missing_without_a_fault(stated):
    task, group, _ = scores_of_one(says("negative", stated))
    assert task["n_with_confidence"] == 0
    assert group["acc"] is None
    assert faults_of(task) == {}


@pytest.mark.parametrize(
    ("stated", "confidence", "faults"),
    [
        (" 0.85 ", 0.85, {}),
        ("8.5e-1", 0.85, {}),
        ("85", 1.0, {"clipped": 1, "bin_edge": 1}),
        ("1.5", 1.0, {"clipped": 1, "bin_edge": 1}),
        ("inf", 1.0, {"clipped": 1, "bin_edge": 1}),
        ("1e999", 1.0, {"clipped": 1, "bin_edge": 1}),
        ("100", 1.0, {"bin_edge": 1}),
        ("-0.2", 0.0, {"clipped": 1}),
        ("-inf", 0.0, {"clipped": 1}),
        ("-0.0", 0.0, {}),
        ("0_0.5", 0.5, {"other_confidence_tag": 1}),
    ],
)
def test_a_confidence_is_what_float_reads_clipped(stated, confidence, faults):
    task, group, _ = scores_of_one(says("calm", stated))  # wrong, so the Brier score is the square
    assert group["brier"] == pytest.approx(confidence**2, abs=1e-15)
    assert faults_of(task) == faults


def test_the_first_confidence_counts_even_in_the_reasoning():
    task, group, _ = scores_of_one(says("calm", "0.9", reasoning="<confidence>0.5</confidence>"))
    assert group["brier"] == 0.25
    assert faults_of(task) == {"other_confidence_tag": 1}


def test_the_edges_are_those_of_linspace_and_misplace_three_tenths_and_one():
    edges = np.linspace(0, 1, 11)
    for hundredth in range(101):
        stated = float(f"0.{hundredth:02}") if hundredth < 100 else 1.0
        inside = [k for k in range(10) if edges[k] <= stated < edges[k + 1]]
        assert ([float_bin(stated)] if float_bin(stated) < 10 else []) == inside
        assert decimal_bin(stated) == min(hundredth // 10, 9)
    moved = [h for h in range(101) if float_bin(h / 100) != decimal_bin(h / 100)]
    assert moved == [30, 60, 70, 100]


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        # 0.25 right, 0.3 wrong: one bin, |1 - 0.55| / 2; in bins of their own it would be (0.75 + 0.3) / 2.
        ([Level(0.25, 1, 1), Level(0.3, 1, 0)], 0.225),
        # 0.4 is where it belongs: (|0 - 0.35| + |1 - 0.4|) / 2.
        ([Level(0.35, 1, 0), Level(0.4, 1, 1)], 0.475),
        # A wrong 1.0 costs nothing and halves the rest: |1 - 0.9| / 2.
        ([Level(0.9, 1, 1), Level(1.0, 1, 0)], 0.05),
        ([Level(1.0, 3, 0)], 0.0),
        ([], None),
    ],
)
def test_ece_on_float_edges(levels, expected):
    assert ece(levels) == (None if expected is None else pytest.approx(expected, abs=1e-15))


def test_pooled_groups_and_tasks_of_your_own():
    records = [
        *FIVE,
        row(says("positive", "0.5"), truth="positive", task="WebEmo-2"),
        row(says("awe", "0.5"), truth="awe", task="Mine-1", candidates=["awe"]),
    ]
    scores = paper_of(records).scores()
    assert list(scores["tasks"]) == ["FI-2", "WebEmo-2", "Mine-1"]
    assert list(scores["groups"]) == ["ID VSA"]
    group = scores["groups"]["ID VSA"]
    assert (group["n"], group["n_with_confidence"], group["acc"]) == (6, 5, 3 / 5)
    assert scores["overall"]["n"] == 7
    alone = paper_of(records[-1:])
    assert "Conf >=" not in alone.metric_conf_log()
    assert "| Mine-1          | 100.00 | 100.00 | N/A      |" in alone.metric_conf_log()


def test_failed_rows_are_unknown_and_counted():
    failed = row(says("negative", "0.9"), error={"type": "ImageError", "message": "gone"})
    silent = row(None)
    paper = paper_of([failed, silent, row(says("calm"))])
    overall = paper.scores()["overall"]
    assert (overall["acc"], overall["f1"], overall["n_with_confidence"]) == (0, 0, 0)
    assert faults_of(overall) == {}
    assert "Rows: 3 = 0 answered + 1 unparsed + 2 failed\n" in paper.metric_log()


def test_unknown_is_a_label_like_others():
    # truth a, a, b; predicted a, unknown, unknown: F1 of a 2/3, of b 0; weighted 2/3 * 2/3.
    pairs = Counter({("a", "a"): 1, ("a", "unknown"): 1, ("b", "unknown"): 1})
    assert weighted_f1(pairs) == pytest.approx(4 / 9, abs=1e-15)


def test_the_difference_names_the_numbers_the_faults_and_the_rows():
    default = default_metrics({"FI-2": FIVE_DEFAULT}, {"ID VSA": FIVE_DEFAULT}, FIVE_DEFAULT)
    text, numbers = protocol_difference(paper_of(FIVE).scores(), default)
    reasons = ("bin_edge", "unparsable_confidence", "rows_without_confidence", "not_printed")
    assert text == FIVE_DIFFERENCE + "\n".join(f"{name}: {FAULTS[name]}" for name in reasons)
    assert [n for n in numbers if n["name"] == "ID VSA" and n["score"] == "ece"] == [
        {
            "level": "group",
            "name": "ID VSA",
            "score": "ece",
            "log": "metric_conf.log",
            "default": 0.44,
            "paper": pytest.approx(0.1125, abs=1e-15),
            "rows": {"bin_edge": 3, "unparsable_confidence": 1},
        }
    ]
    assert sum("not_printed" in number["rows"] for number in numbers) == 6
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers


def test_a_moved_overall_is_laid_to_the_scan():
    records = [row(says("negative", reasoning="Not positive.")), row(says("negative"))]
    right = {"n": 2, "acc": 1.0, "f1": 1.0, "ece": None, "brier": None, "auroc": None}
    default = default_metrics({"FI-2": right}, {"ID VSA": right}, right)
    text, _ = protocol_difference(paper_of(records).scores(), default)
    # One of two negatives is read as positive: F1 2 * 1 / (2 + 1).
    assert "\n  Overall Acc: 100.00 -> 50.00 (whole_response_scan 1)\n" in text
    assert "\n  Overall F1: 100.00 -> 66.67 (whole_response_scan 1)\n" in text
    assert "\n  FI-2 Acc: " not in text
    assert "\n  ID VSA Acc: 100.00 -> N/A (rows_without_confidence 2)\n" in text


def test_no_difference_says_so_and_other_rows_are_an_error():
    paper = paper_of([row(says("awe", "0.5"), truth="awe", task="Mine-1", candidates=["awe"])]).scores()
    same = {"n": 1, "acc": 1.0, "f1": 1.0, "ece": None, "brier": None, "auroc": None}
    text, numbers = protocol_difference(paper, default_metrics({"Mine-1": same}, {}, same))
    assert text.splitlines()[1:] == ["  no printed number differs"]
    assert numbers == []
    with pytest.raises(ValueError, match="lack 'Mine-1'"):
        protocol_difference(paper, default_metrics({}, {}, same))
    with pytest.raises(ValueError, match="Mine-1 has 1 rows by paper and 2 by default"):
        protocol_difference(paper, default_metrics({"Mine-1": {**same, "n": 2}}, {}, same))


def test_every_fault_of_a_row_is_explained():
    assert set(ROW_FAULTS) <= set(FAULTS)


PIECES = st.sampled_from(
    [
        *("<think>", "</think>", "<answer>", "</answer>", "<confidence>", "</confidence>"),
        *("positive", "NEGATIVE", "0.3", "0.6", "1.0", "85%", "85", "nan", "inf", "-1", "1_0", "1e9999"),
        *("\n", " ", "<", "\ud800", "İ"),
    ]
)
RESPONSES = st.one_of(st.text(), st.lists(PIECES, max_size=12).map("".join))


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(RESPONSES, st.sampled_from(POLARITY), st.sampled_from(["FI-2", "FI-8", "X"])), max_size=8
    )
)
def test_any_response_is_counted_and_every_number_is_a_fraction(rows):
    records = [row(response, truth=truth, task=task) for response, truth, task in rows]
    paper = paper_of(records)
    scores = paper.scores()
    json.dumps(scores, allow_nan=False)
    for one in [*scores["tasks"].values(), *scores["groups"].values(), scores["overall"]]:
        assert one["n"] == one["answered"] + one["unparsed"] + one["failed"]
        numbers = [one[name] for name in ("acc", "f1", "ece", "brier", "auroc") if one[name] is not None]
        assert all(0 <= number <= 1 for number in numbers)
    assert scores["overall"]["n"] == len(rows)
    assert paper.metric_log() and paper.metric_conf_log()


@settings(max_examples=10)
@given(st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_no_digit(shuffler):
    source = random.Random(1)
    records = [
        row(says(source.choice(POLARITY), f"0.{source.randrange(1000):03}"), source.choice(POLARITY), task)
        for task in TASKS
        for _ in range(20)
    ]
    paper = paper_of(records)
    shuffler.shuffle(records)
    again = paper_of(records)
    assert again.scores() == paper.scores()
    assert again.metric_conf_log() == paper.metric_conf_log()


@settings(max_examples=40)  # the first example imports scikit-learn
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from("abcx"), st.integers(0, 20)), min_size=2
    )
)
def test_f1_and_auc_are_those_of_scikit_learn(rows):
    from sklearn import metrics

    truth = [t for t, _, _ in rows]
    label = [p if p != "x" else "unknown" for _, p, _ in rows]
    right = [t == p for t, p in zip(truth, label, strict=True)]
    confidence = [c / 20 for _, _, c in rows]
    records = [row(says(p, c / 20), truth=t, candidates=["a", "b", "c"], task="FI-8") for t, p, c in rows]
    group = paper_of(records).scores()["groups"]["ID VER"]
    f1 = metrics.f1_score(truth, label, average="weighted", zero_division=0)
    assert group["f1"] == pytest.approx(f1, abs=1e-12)
    assert group["brier"] == pytest.approx(np.mean((np.array(confidence) - right) ** 2), abs=1e-12)
    if len(set(right)) == 2:
        assert group["auroc"] == pytest.approx(metrics.roc_auc_score(right, confidence), abs=1e-12)
    else:
        assert group["auroc"] is None


def test_a_long_row_of_open_tags_is_read_in_linear_time():
    text = "<answer>" * 400_000  # a backtracking match would take hours
    paper = PaperProtocol()
    record = row(text)
    paper.add(record, replace(score(row(says("calm"))), label=None))
    assert paper.scores()["overall"]["unparsed"] == 1


def test_the_scores_are_computed_once_and_again_after_a_further_row():
    paper = paper_of(FIVE)
    before = paper.scores()
    assert paper.scores() is before
    paper.add(FIVE[0], score(FIVE[0]))
    assert paper.scores()["overall"]["n"] == before["overall"]["n"] + 1


def test_rows_are_not_kept():
    scored = score(row(says("negative")))
    paper = PaperProtocol()
    tracemalloc.start()
    for number in range(2000):
        paper.add(row(says("negative", f"0.{number:04}", reasoning="A hill. " * 2000)), scored)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 2_000_000  # the 2000 distinct outcomes; the responses are 32 MB
    assert paper.scores()["overall"]["n"] == 2000
