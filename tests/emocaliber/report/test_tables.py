"""The tables byte for byte: the published figures through our formatter give the published lines."""

from decimal import Decimal
from pathlib import Path

import pytest

from emocaliber.metrics import ThresholdRow
from emocaliber.report.tables import (
    Scores,
    confidence_table,
    metric_table,
    percent,
    printable,
    tab_separated,
    threshold_text,
)

GOLDEN = Path(__file__).parents[2] / "golden"
# The figures that the published logs show (of the tasks, the first).
ABSTRACT = Scores(name="Abstract-8", n=229, acc=0.2926, f1=0.2994)
GROUPS = [
    Scores(name="ID VSA", n=2000, acc=0.8195, f1=0.8175, ece=0.0476, brier=0.1468, auroc=0.6609),
    Scores(name="ID VER", n=3997, acc=0.5504, f1=0.5396, ece=0.1363, brier=0.2277, auroc=0.7090),
    Scores(name="OOD VER", n=2035, acc=0.5916, f1=0.5979, ece=0.1217, brier=0.2241, auroc=0.7217),
]
OVERALL = Scores(name="Overall", n=8032, acc=0.6135, f1=0.6132)


def test_metric_table_is_the_published_one():
    expected = (GOLDEN / "published_metric.log").read_bytes()
    assert (metric_table([ABSTRACT], OVERALL) + "\n").encode() == expected


def test_confidence_table_with_its_undefined_cells_is_the_published_one():
    expected = (GOLDEN / "published_metric_conf.log").read_bytes()
    assert (confidence_table([ABSTRACT], GROUPS, OVERALL) + "\n").encode() == expected


def test_a_task_line_with_calibration_has_the_widths_of_a_group_line():
    line = confidence_table([GROUPS[0]], [], OVERALL).splitlines()[3]
    assert line == "| ID VSA          |  81.95 |  81.75 |     4.76 |      14.68 |      66.09 | 2000      |"


def test_without_groups_there_is_no_empty_block():
    assert confidence_table([ABSTRACT], [], OVERALL).count("-" * 86) == 4


def test_extremes_keep_the_widths():
    perfect = Scores(name="FI-2", n=123456789, acc=1.0, f1=0.0, ece=1.0, brier=0.0, auroc=None)
    lines = confidence_table([perfect], [], perfect).splitlines()
    assert (
        lines[3] == "| FI-2            | 100.00 |   0.00 |   100.00 |       0.00 | N/A        | 123456789 |"
    )
    assert {len(line) for line in lines} == {86}


def test_a_longer_name_widens_the_first_column_of_every_line():
    lines = metric_table([Scores(name="Sentiment-of-Paintings-12", n=3, acc=0.5, f1=0.5), ABSTRACT], OVERALL)
    assert lines.splitlines()[3] == "| Sentiment-of-Paintings-12 |  50.00 |  50.00 | 3         |"
    assert lines.splitlines()[4] == "| Abstract-8                |  29.26 |  29.94 | 229       |"


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a\nb\t c", "a b c"), ("x\x1b[31m", "x\\x1b[31m"), ("\ud800", "\\ud800"), ("Émotion-3", "Émotion-3")],
)
def test_a_name_cannot_break_a_table(name, shown):
    assert printable(name) == shown


def test_percent():
    assert percent(0.12344) == "12.34"
    assert percent(0.5, 8) == "   50.00"
    assert percent(None, 6) == "N/A   "


def test_tab_separated_lines_hold_a_header_and_the_values():
    text = tab_separated([ABSTRACT, OVERALL], [("acc", "Acc"), ("ece", "ECE")])
    assert text == "Abstract-8 Acc\tAbstract-8 ECE\tOverall Acc\tOverall ECE\n29.26\tN/A\t61.35\tN/A"


def test_threshold_text():
    rows = [
        ThresholdRow(Decimal("0.1"), 8, 1.0, 0.625, 0.5),
        ThresholdRow(Decimal("0.9"), 0, 0.0, None, None),
    ]
    assert threshold_text([("ID VSA", rows)]).splitlines()[1:] == [
        "| Group           | Conf >= | Acc    | F1     | Coverage | #Samples  |",
        "----------------------------------------------------------------------",
        "| ID VSA          | 0.1     |  62.50 |  50.00 |   100.00 | 8         |",
        "| ID VSA          | 0.9     | N/A    | N/A    |     0.00 | 0         |",
        "----------------------------------------------------------------------",
    ]
