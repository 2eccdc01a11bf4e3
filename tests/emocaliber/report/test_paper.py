"""The published evaluator's arithmetic: each fault on rows worked by hand, the logs to the character."""

import json
import random
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emocaliber.report.paper import FAULTS, PaperProtocol, metric_conf_log, metric_log, protocol_difference
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


def faults_of(paper):
    return paper.scores()["faults"]["overall"]["Overall"]


def scores_of_one(response, **fields):
    scores = paper_of([row(response, **fields)]).scores()
    return scores["tasks"]["FI-2"], scores["groups"]["ID VSA"], scores["overall"]


def faults_of_one(response, **fields):
    return faults_of(paper_of([row(response, **fields)]))


CASES = sorted(path.stem for path in (GOLDEN / "paper_protocol").glob("*.jsonl"))


def printed(log, conf_log):
    """Every number of the logs by the keys of the golden files."""
    table, *parts = conf_log.removesuffix("\n").split("\n\n")
    found = {}
    for head, lines, scores in (
        ("m", log, ("acc", "f1", "n")),
        ("c", table, ("acc", "f1", "ece", "brier", "auroc", "n")),
        ("t", parts[2], ("acc", "f1", "cov")),
    ):
        for line in lines.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if line.startswith("|") and cells[1] not in ("Acc", "Conf >="):
                name, values = (cells[:2], cells[2:5]) if head == "t" else (cells[:1], cells[1:])
                found |= {(head, *name, key): cell for key, cell in zip(scores, values, strict=True)}
    for head, lines in (("mtsv", log.strip().split("\n\n")[1]), ("ctsv", parts[0]), ("ctsv", parts[1])):
        titles, values = (line.split("\t") for line in lines.split("\n"))
        found |= {(head, title): cell for title, cell in zip(titles, values, strict=True)}
    again = {
        ("t", group, threshold, key): cell
        for group, threshold, *cells, _ in (line.split("\t") for line in parts[3].split("\n")[1:])
        for key, cell in zip(("acc", "f1", "cov"), cells, strict=True)
    }
    assert again == {key: cell for key, cell in found.items() if key[0] == "t"}
    return found


@pytest.mark.parametrize("case", CASES)
def test_every_number_is_the_one_that_the_published_evaluator_printed(case):
    lines = (GOLDEN / "paper_protocol" / f"{case}.jsonl").read_bytes().splitlines()
    published = json.loads((GOLDEN / "paper_protocol" / f"{case}.published.json").read_text())
    scores = paper_of(map(json.loads, lines)).scores()
    expected = {tuple(key): text for key, text in published}
    assert printed(metric_log(scores), metric_conf_log(scores)) == expected


def test_the_cases_are_there():
    assert len(CASES) == 22


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
Rows: 5 = 5 answered + 0 unparsed; 0 more with an error are taken out
  (an unparsed row counts as the label unknown)
Protocol: paper, the published evaluator's arithmetic with its faults; for comparison only

FI-2 Acc\tFI-2 F1\tOverall Acc\tOverall F1
60.00\t60.00\t60.00\t60.00
"""
# metric_conf.log, the rows that float() reads: Acc 2/4; F1 of either label (2 true, 2 predicted, 1 hit) 50.
# ECE: 0.3 shares the third bin with 0.25, |1 right - 0.55| = 0.45; both 1.0 are in no bin: 0.45 / 4 = 11.25.
# Brier: (0.75^2 + 0.3^2 + 0 + 1) / 4 = 1.6525 / 4 = 41.3125. AUC: of the pairs right-wrong, 0.25 loses to 0.3
# and to 1.0, 1.0 wins over 0.3 and ties with 1.0: 1.5 / 4 = 37.5.
# At 0.3: rows 2 to 4, Acc 1/3, negative (2 true, 2 predicted, 1 hit) 1/2, positive 0: F1 2/3 * 1/2. From 0.4:
# rows 3 and 4, Acc 1/2, negative (1 true, 2 predicted, 1 hit) 2/3, positive 0: F1 1/2 * 2/3.
GROUP_TITLES = "\t".join(
    f"{group} {score}"
    for group in ("ID VSA", "ID VER", "OOD VER")
    for score in ("Acc", "F1", "ECE", "Brier", "ROC AUC", "Coverage")
)
TAB_NA = "\tN/A"


def no_rows(group, *, tabs=False):
    """The thresholds of a group without rows."""
    if tabs:
        return "\n".join(f"{group}\t0.{tenth}{3 * TAB_NA}\t0" for tenth in range(1, 10))
    line = "| {:<15} | 0.{}     | N/A    | N/A    | N/A      | 0        |"
    return "\n".join(line.format(group, tenth) for tenth in range(1, 10))


FIVE_CONF_LOG = f"""\
--------------------------------------------------------------------------------------
| Task/Group      | Acc    | F1     | ECE      | Brier      | ROC AUC    | #Samples  |
--------------------------------------------------------------------------------------
| FI-2            |  50.00 |  50.00 | N/A      | N/A        | N/A        | 4         |
--------------------------------------------------------------------------------------
| ID VSA          |  50.00 |  50.00 |    11.25 |      41.31 |      37.50 | 4         |
| ID VER          | N/A    | N/A    | N/A      | N/A        | N/A        | 0         |
| OOD VER         | N/A    | N/A    | N/A      | N/A        | N/A        | 0         |
--------------------------------------------------------------------------------------
| Overall         |  50.00 |  50.00 | N/A      | N/A        | N/A        | 4         |
--------------------------------------------------------------------------------------
Rows: 5 = 5 answered + 0 unparsed; 0 more with an error are taken out
  (an unparsed row counts as the label unknown)
Protocol: paper, the published evaluator's arithmetic with its faults; for comparison only
Confidence: 1 of 5 rows are left out, for float() fails on theirs
  (a group's Acc, ECE, Brier and ROC AUC are over its rows with a confidence, the rest over all)

FI-2 Acc\tFI-2 F1\tOverall Acc\tOverall F1
50.00\t50.00\t50.00\t50.00

{GROUP_TITLES}
50.00\t50.00\t11.25\t41.31\t37.50\t100.00{12 * TAB_NA}

Answers whose confidence is at least a threshold (Coverage: share of the rows of the group)
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
{no_rows("ID VER")}
---------------------------------------------------------------------
{no_rows("OOD VER")}
---------------------------------------------------------------------

Group\tConf >=\tAcc\tF1\tCoverage\t#Samples
ID VSA\t0.1\t50.00\t50.00\t100.00\t4
ID VSA\t0.2\t50.00\t50.00\t100.00\t4
ID VSA\t0.3\t33.33\t33.33\t75.00\t3
ID VSA\t0.4\t50.00\t33.33\t50.00\t2
ID VSA\t0.5\t50.00\t33.33\t50.00\t2
ID VSA\t0.6\t50.00\t33.33\t50.00\t2
ID VSA\t0.7\t50.00\t33.33\t50.00\t2
ID VSA\t0.8\t50.00\t33.33\t50.00\t2
ID VSA\t0.9\t50.00\t33.33\t50.00\t2
{no_rows("ID VER", tabs=True)}
{no_rows("OOD VER", tabs=True)}
"""
# By default all five count: ECE (|1 - 0.25| + 0.3 + |1 - 0.85| + |1 - 2.0|) / 5 = 2.2 / 5, Brier 1.675 / 5,
# AUC with 0.85 winning over 0.3 as well 2.5 / 6.
FIVE_DEFAULT = {"n": 5, "acc": 0.6, "f1": 0.6, "ece": 0.44, "brier": 0.335, "auroc": 2.5 / 6}
FIVE_DIFFERENCE = """\
protocol_difference: default -> paper (its logs), in percent, and the rows that make the difference
  FI-2 Acc in metric_conf.log: 60.00 -> 50.00 (unparsable_confidence 1)
  FI-2 F1 in metric_conf.log: 60.00 -> 50.00 (unparsable_confidence 1)
  ID VSA Acc: 60.00 -> 50.00 (unparsable_confidence 1)
  ID VSA F1: 60.00 -> 50.00 (unparsable_confidence 1)
  ID VSA ECE: 44.00 -> 11.25 (bin_edge 3, unparsable_confidence 1)
  ID VSA Brier: 33.50 -> 41.31 (unparsable_confidence 1)
  ID VSA ROC AUC: 41.67 -> 37.50 (unparsable_confidence 1)
  Overall Acc in metric_conf.log: 60.00 -> 50.00 (unparsable_confidence 1)
  Overall F1 in metric_conf.log: 60.00 -> 50.00 (unparsable_confidence 1)
  ECE, Brier and ROC AUC of every task and of Overall -> N/A (not_printed)
"""


def default_metrics(tasks, groups, overall):
    return {
        "tasks": tasks,
        "groups": {name: {"samples": scores} for name, scores in groups.items()},
        "overall": {"samples": overall},
    }


def test_metric_log_to_the_character():
    assert metric_log(paper_of(FIVE).scores()) == FIVE_METRIC_LOG


def test_metric_conf_log_to_the_character():
    assert metric_conf_log(paper_of(FIVE).scores()) == FIVE_CONF_LOG


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
    ours = metric_log(paper_of(records[:2]).scores()).splitlines()[: len(published)]
    assert ours[:3] == published[:3]
    assert list(map(frame, ours)) == list(map(frame, published))
    published = (GOLDEN / "published_metric_conf.log").read_text().splitlines()
    ours = metric_conf_log(paper_of(records).scores()).splitlines()
    del ours[4:6]  # the sample has the first task only
    assert ours[:3] == published[:3]
    assert list(map(frame, ours[: len(published)])) == list(map(frame, published))


def test_overall_reads_the_reasoning_where_the_tasks_read_the_answer():
    # Both answers are right; both reasonings name `positive`, which is first in the list.
    both = [row(says("negative", "0.9", reasoning="The sun looks positive.")) for _ in range(2)]
    paper = paper_of(both)
    scores = paper.scores()
    assert scores["tasks"]["FI-2"]["acc"] == scores["groups"]["ID VSA"]["acc"] == 1.0
    assert scores["overall"]["acc"] == scores["overall"]["f1"] == 0.0
    assert scores["overall"]["metric_conf_log"]["acc"] == 0.0
    assert faults_of(paper) == {"whole_response_scan": 2}


@pytest.mark.parametrize(
    ("candidates", "answer", "label"),
    [
        (["fear", "fearless"], "fearless", "fear"),
        (["fearless", "fear"], "fearless", "fearless"),
        (["fear", "fearless"], "Not FEAR", "fear"),
        (["Fear", "joy"], "fear", "Fear"),
        (["sad", "joy"], "joy, not sadness", "sad"),
        (["sadness", "joy"], "sad", "unknown"),
        (["sadness", "joy"], " ", "unknown"),
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
    task, _, overall = scores_of_one(says("fearless", "0.5"), **fields)
    assert (task["acc"], overall["acc"]) == (0, 0)
    assert faults_of_one(says("fearless", "0.5"), **fields) == {"substring": 1}
    assert faults_of_one(says("fear", "0.5"), **fields) == {}


def test_an_answer_that_spans_lines_is_a_scan_of_the_whole_response():
    spanning = "<think>It looks positive.</think><answer>\nnegative\n</answer>"
    task, _, overall = scores_of_one(spanning)
    assert (task["acc"], overall["acc"]) == (0, 0)
    assert faults_of_one(spanning)["multiline_answer"] == 1
    assert scores_of_one(spanning.replace("\n", " "))[0]["acc"] == 1
    # Only `\n` ends a line for a regular expression.
    assert scores_of_one(spanning.replace("\n", "\r"))[0]["acc"] == 1
    # A later answer on one line is the one that matches.
    assert scores_of_one(spanning + "<answer>negative</answer>")[0]["acc"] == 1


def test_without_an_answer_tag_the_reasoning_is_read():
    for response in ("<think>It looks negative, or", "<think>It looks negative</think><answer></answer>"):
        task, _, _ = scores_of_one(response, truth="negative")
        assert (task["acc"], task["answered"], task["unparsed"]) == (1, 1, 0)
        assert faults_of_one(response)["no_answer_tag"] == 1


def test_an_answer_without_a_candidate_is_unknown_whatever_the_reasoning_names():
    task, _, overall = scores_of_one(says("calm", reasoning="It looks negative."))
    assert (task["acc"], task["unparsed"], overall["acc"]) == (0, 1, 1)


def test_overall_reads_a_candidate_as_it_is_written_and_no_truth_stands_for_another():
    fields = {"truth": "Sad", "candidates": ["Sadness", "joy"]}
    task, _, overall = scores_of_one(says("Sadness", "0.5"), **fields)
    # `sad` is not `sadness`, and `Sadness` is in no lower-cased response.
    assert (task["acc"], task["unparsed"], overall["acc"], overall["unparsed"]) == (0, 0, 0, 1)
    assert faults_of_one(says("Sadness", "0.5"), **fields) == {"whole_response_scan": 1, "other_truth": 1}


@pytest.mark.parametrize("stated", ["", "85%", "0.85.", "high", "\x00", "½", "\ud800", "0,85"])
def test_a_confidence_that_float_does_not_read_deletes_its_row_from_metric_conf_log(stated):
    task, group, overall = scores_of_one(says("negative", stated))
    assert (task["acc"], task["n"], overall["n"]) == (1, 1, 1)
    for scores in (task["metric_conf_log"], group, overall["metric_conf_log"]):
        assert (scores["n"], scores["acc"], scores["f1"]) == (0, None, None)
    assert faults_of_one(says("negative", stated)) == {"unparsable_confidence": 1}


@pytest.mark.parametrize(
    ("stated", "faults"),
    [(None, {}), ("\n0.85\n", {"no_confidence_tag": 1}), ("high\n", {})],
)
def test_a_row_without_a_confidence_on_one_line_counts_in_f1_and_samples_alone(stated, faults):
    paper = paper_of(
        [row(says("negative", "0.9")), row(says("positive", "0.4")), row(says("positive", stated))]
    )
    group = paper.scores()["groups"]["ID VSA"]
    assert (group["n"], group["n_with_confidence"], group["coverage"]) == (3, 2, 2 / 3)
    # Acc 1/2; F1 of negative (3 true, 1 predicted, 1 hit) 2/4.
    assert (group["acc"], group["f1"], group["brier"]) == (0.5, 0.5, pytest.approx(0.085))
    assert faults_of(paper) == {"rows_without_confidence": 1, **faults}


def test_nan_is_a_confidence_that_no_threshold_keeps_and_ends_calibration():
    records = [row(says("negative", "nan")), row(says("positive", "0.4"))]
    group = paper_of(records).scores()["groups"]["ID VSA"]
    assert (group["n_with_confidence"], group["acc"], group["coverage"]) == (2, 0.5, 1.0)
    assert group["ece"] is group["brier"] is group["auroc"] is None
    assert [at["n"] for at in group["thresholds"]] == [1] * 4 + [0] * 5
    assert group["thresholds"][-1] == {"threshold": 0.9, "n": 0, "acc": 0.0, "f1": 0.0, "coverage": 0.0}
    assert faults_of(paper_of(records)) == {}


def test_where_the_published_program_stops_it_is_said():
    scores = paper_of([row(says("negative")), row(says("awe", "0.5"), "awe", "EmoSet-8", ["awe"])]).scores()
    said = [line for line in metric_conf_log(scores).splitlines() if "stops with an error" in line]
    assert said == [
        "The published program stops with an error here: ID VSA has rows, but none with a confidence"
    ]


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
        ("{0.85}", 0.85, {}),
        ("0_0.5", 0.5, {"other_confidence_tag": 1}),
    ],
)
def test_a_confidence_is_what_float_reads_clipped(stated, confidence, faults):
    wrong, right = row(says("positive", stated)), row(says("negative", "0.95"))
    paper = paper_of([wrong, right])
    found = paper.scores()["groups"]["ID VSA"]["brier"]
    assert found == pytest.approx((confidence**2 + 0.05**2) / 2, abs=1e-15)
    assert faults_of(paper) == faults


def test_the_first_confidence_counts_even_in_the_reasoning():
    paper = paper_of(
        [
            row(says("positive", "0.9", reasoning="<confidence>0.5</confidence>")),
            row(says("negative", "0.95")),
        ]
    )
    assert paper.scores()["groups"]["ID VSA"]["brier"] == pytest.approx((0.25 + 0.05**2) / 2)
    assert faults_of(paper) == {"other_confidence_tag": 1}


def test_the_bins_misplace_three_tenths_six_tenths_seven_tenths_and_one():
    moved = [
        hundredth
        for hundredth in range(101)
        if faults_of_one(says("negative", str(hundredth / 100))) == {"bin_edge": 1}
    ]
    assert moved == [30, 60, 70, 100]


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        # One bin, |1 - 0.55| / 2; in bins of their own it would be (0.75 + 0.3) / 2.
        (["0.25"], ["0.3"], 0.225),
        # 0.4 is where it belongs: (|0 - 0.35| + |1 - 0.4|) / 2.
        (["0.4"], ["0.35"], 0.475),
        # A wrong 1.0 costs nothing and halves the rest: |1 - 0.9| / 2.
        (["0.9"], ["1.0"], 0.05),
        (["1.0"], ["1.0"], 0.0),
        (["0.9", "0.8"], [], None),
        ([], ["0.9"], None),
    ],
)
def test_ece_on_float_edges(right, wrong, expected):
    records = [row(says("negative", c)) for c in right] + [row(says("positive", c)) for c in wrong]
    found = paper_of(records).scores()["groups"]["ID VSA"]["ece"]
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-15))


def test_pooled_groups_and_other_tasks():
    records = [
        *FIVE,
        row(says("positive", "0.5"), truth="positive", task="WebEmo-2"),
        row(says("awe", "0.5"), truth="awe", task="Mine-1", candidates=["awe"]),
        row(says("negative", "0.5"), task="fi-2"),
    ]
    scores = paper_of(records).scores()
    assert list(scores["tasks"]) == ["FI-2", "WebEmo-2"]
    assert list(scores["groups"]) == ["ID VSA", "ID VER", "OOD VER"]
    group = scores["groups"]["ID VSA"]
    assert (group["n"], group["n_with_confidence"], group["acc"]) == (5, 5, 3 / 5)
    assert (scores["groups"]["ID VER"]["n"], scores["groups"]["ID VER"]["coverage"]) == (0, None)
    assert scores["overall"]["n"] == 8
    # By default `fi-2` is FI-2.
    assert scores["faults"]["task"]["FI-2"] == {"unparsable_confidence": 1, "bin_edge": 3, "other_task": 1}
    assert "| Mine-1" not in metric_log(scores) + metric_conf_log(scores)


def test_a_row_with_an_error_is_taken_out_and_one_without_a_response_is_empty():
    failed = row(says("negative", "0.9"), error={"type": "ImageError", "message": "gone"})
    paper = paper_of([failed, row(None), row(says("calm"))])
    scores = paper.scores()
    overall = scores["overall"]
    assert (scores["n_errors"], overall["n"], overall["acc"], overall["f1"]) == (1, 2, 0, 0)
    assert faults_of(paper) == {"error": 1, "rows_without_confidence": 2}
    assert "Rows: 2 = 0 answered + 2 unparsed; 1 more with an error are taken out\n" in metric_log(scores)
    alone = paper_of([failed]).scores()
    assert (alone["overall"]["n"], alone["overall"]["acc"], alone["tasks"]) == (0, None, {})
    assert metric_log(alone) and metric_conf_log(alone)


def test_unknown_is_a_label_like_others():
    # truth a, a, b; predicted a, unknown, unknown: F1 of a 2/3, of b 0; weighted 2/3 * 2/3.
    rows = [("a", "a"), ("a", "x"), ("b", "x")]
    paper = paper_of(row(says(label), truth, "FI-8", ["a", "b"]) for truth, label in rows)
    assert paper.scores()["tasks"]["FI-8"]["f1"] == pytest.approx(4 / 9, abs=1e-15)


def test_the_difference_names_the_numbers_the_faults_and_the_rows():
    default = default_metrics({"FI-2": FIVE_DEFAULT}, {"ID VSA": FIVE_DEFAULT}, FIVE_DEFAULT)
    text, numbers = protocol_difference(paper_of(FIVE).scores(), default)
    reasons = ("unparsable_confidence", "bin_edge", "not_printed")
    assert text == FIVE_DIFFERENCE + "\n".join(f"{name}: {FAULTS[name][1]}" for name in reasons)
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


def test_no_difference_says_so_and_a_task_without_a_line_is_one():
    records = [row(says(answer, c)) for answer, c in (("negative", "0.5"), ("positive", "0.4"))]
    same = {"n": 2, "acc": 0.5, "f1": 2 / 3, "ece": 0.45, "brier": 0.205, "auroc": 1.0}
    pooled = dict.fromkeys(("ece", "brier", "auroc"))
    default = default_metrics({"FI-2": same | pooled}, {"ID VSA": same}, same | pooled)
    text, numbers = protocol_difference(paper_of(records).scores(), default)
    assert text.splitlines()[1:] == ["  no printed number differs"]
    assert numbers == []

    other = paper_of([row(says("awe", "0.5"), truth="awe", task="Mine-1", candidates=["awe"])]).scores()
    right = {"n": 1, "acc": 1.0, "f1": 1.0} | pooled
    text, _ = protocol_difference(other, default_metrics({"Mine-1": right}, {}, right))
    assert text.splitlines()[1:3] == [
        "  Mine-1 Acc: 100.00 -> N/A (other_task 1)",
        "  Mine-1 F1: 100.00 -> N/A (other_task 1)",
    ]


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
    for one in [*scores["tasks"].values(), scores["overall"]]:
        assert one["n"] == one["answered"] + one["unparsed"]
    for one in [*scores["tasks"].values(), *scores["groups"].values(), scores["overall"]]:
        found = [one.get(name) for name in ("acc", "f1", "ece", "brier", "auroc", "coverage")]
        assert all(0 <= number <= 1 for number in found if number is not None)
    assert scores["overall"]["n"] == len(rows)
    assert metric_log(scores) and metric_conf_log(scores)


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
    if len(set(right)) == 2:
        assert group["brier"] == pytest.approx(np.mean((np.array(confidence) - right) ** 2), abs=1e-12)
        assert group["auroc"] == pytest.approx(metrics.roc_auc_score(right, confidence), abs=1e-12)
    else:
        assert group["brier"] is group["auroc"] is None


def test_a_long_row_of_open_tags_is_read_in_linear_time():
    text = "<answer>" * 400_000  # a backtracking match would take hours
    paper = PaperProtocol()
    record = row(text)
    paper.add(record, replace(score(row(says("calm"))), label=None))
    assert paper.scores()["overall"]["unparsed"] == 1


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
