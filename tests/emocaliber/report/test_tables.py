"""The tables byte for byte: the published figures through our formatter give the published lines."""

from pathlib import Path

import pytest

from emocaliber.report.tables import (
    Scores,
    confidence_table,
    free_table,
    metric_table,
    percent,
    printable,
    short_name,
    tab_separated,
    with_interval,
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


def test_a_name_of_any_length_leaves_the_log_small():
    long = "a" * 50_000 + "z" * 50_000
    cut = "a" * 40 + "…" + "z" * 39
    assert (short_name(long), short_name("b" * 80)) == (cut, "b" * 80)
    rows = [Scores(name=long, n=1)] * 20
    texts = [metric_table(rows, rows[0]), confidence_table(rows, rows, rows[0])]
    texts += [tab_separated(rows, [("acc", "Acc")]), free_table(["Task"], [[[long]]])]
    assert all(cut in text and len(text) < 10_000 for text in texts)


def test_percent():
    assert percent(0.12344) == "12.34"
    assert percent(0.5, 8) == "   50.00"
    assert percent(None, 6) == "N/A   "


def test_tab_separated_lines_hold_a_header_and_the_values():
    text = tab_separated([ABSTRACT, OVERALL], [("acc", "Acc"), ("ece", "ECE")])
    assert text == "Abstract-8 Acc\tAbstract-8 ECE\tOverall Acc\tOverall ECE\n29.26\tN/A\t61.35\tN/A"


def test_a_table_of_our_own_is_as_wide_as_its_cells():
    blocks = [[["ID VSA", with_interval(0.625, (0.5, 1.0))]], [["a\nb", with_interval(None, None)]]]
    assert free_table(["Group", "Acc"], blocks).splitlines() == [
        "------------------------------------------",
        "| Group           | Acc                  |",
        "------------------------------------------",
        "| ID VSA          |  62.50 [50.0, 100.0] |",
        "------------------------------------------",
        "| a b             | N/A                  |",
        "------------------------------------------",
    ]


def test_a_score_without_an_interval_stands_alone():
    assert with_interval(0.625, None) == " 62.50"
    assert with_interval(None, (0.1, 0.2)) == "N/A   "
