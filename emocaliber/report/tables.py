"""The tables of `metric.log` and `metric_conf.log`, in the published format to the character.

A table is lines of cells between bars; a cell that holds a label, a count or `N/A` is left-aligned, a
percentage is right-aligned in its own width. The widths below are the published ones; only the first grows,
for a task with a longer name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emocaliber.metrics import ThresholdRow

METRIC_COLUMNS = ("Task", "Acc", "F1", "#Samples")
METRIC_WIDTHS = (15, 8, 8, 9)
CONFIDENCE_COLUMNS = ("Task/Group", "Acc", "F1", "ECE", "Brier", "ROC AUC", "#Samples")
CONFIDENCE_WIDTHS = (15, 6, 6, 8, 10, 10, 9)
THRESHOLD_COLUMNS = ("Group", "Conf >=", "Acc", "F1", "Coverage", "#Samples")
THRESHOLD_WIDTHS = (15, 7, 6, 6, 8, 9)
TRUTH_COLUMNS = ("Task/Group", "Acc", "Bayes Acc", "Acc/Bayes", "Confidence gap", "#Samples")
TRUTH_WIDTHS = (15, 6, 9, 9, 14, 9)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One line of a table: what a task, a group or everything together scored.

    Every score is in [0, 1], or None where it is undefined (printed as N/A).
    """

    name: str
    n: int
    acc: float | None = None
    f1: float | None = None
    ece: float | None = None
    brier: float | None = None
    auroc: float | None = None


def percent(score: float | None, width: int = 0) -> str:
    """A score of [0, 1] in percent with two decimals, right-aligned; `N/A`, left-aligned, for None."""
    return f"{'N/A':<{width}}" if score is None else f"{100 * score:{width}.2f}"


def printable(name: str) -> str:
    """A name as it can stand in a table: on one line, nothing that a terminal or UTF-8 would stumble over."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(name.split()))


def metric_table(tasks: Sequence[Scores], overall: Scores) -> str:
    """The table of `metric.log`. Ends without a line break."""
    widths = _widths(METRIC_WIDTHS, [*tasks, overall])
    return _framed(
        METRIC_COLUMNS,
        widths,
        [[_metric_line(row, widths) for row in tasks], [_metric_line(overall, widths)]],
    )


def confidence_table(tasks: Sequence[Scores], groups: Sequence[Scores], overall: Scores) -> str:
    """The table of `metric_conf.log`; without groups it has no block for them. Ends without a line break."""
    widths = _widths(CONFIDENCE_WIDTHS, [*tasks, *groups, overall])
    blocks = [[_confidence_line(row, widths) for row in block] for block in (tasks, groups, [overall])]
    return _framed(CONFIDENCE_COLUMNS, widths, blocks)


def threshold_text(tables: Sequence[tuple[str, Sequence[ThresholdRow]]]) -> str:
    """Accuracy, F1 and coverage per group and confidence threshold, one block a group."""
    widths = (max([THRESHOLD_WIDTHS[0], *(len(name) for name, _ in tables)]), *THRESHOLD_WIDTHS[1:])
    blocks = []
    for name, rows in tables:
        block = []
        for row in rows:
            cells = [f"{name:<{widths[0]}}", f"{row.threshold!s:<{widths[1]}}"]
            cells += [
                percent(row.accuracy, widths[2]),
                percent(row.f1, widths[3]),
                percent(row.coverage, widths[4]),
            ]
            block.append(_line([*cells, f"{row.n:<{widths[5]}}"]))
        blocks.append(block)
    return _framed(THRESHOLD_COLUMNS, widths, blocks)


def tab_separated(rows: Sequence[Scores], fields: Sequence[tuple[str, str]]) -> str:
    """A header line and a value line to paste into a spreadsheet.

    Args:
        rows: the lines of a table.
        fields: the scores of each row, as (attribute of `Scores`, its title).
    """
    titles = [f"{printable(row.name)} {title}" for row in rows for _, title in fields]
    values = [percent(getattr(row, field)) for row in rows for field, _ in fields]
    return "\t".join(titles) + "\n" + "\t".join(values)


def truth_table(blocks: Sequence[Sequence[tuple[str, Sequence[float | None], int]]]) -> str:
    """What was reached beside what can be: one line per (name, the four scores of `TRUTH_COLUMNS`, rows)."""
    names = [printable(name) for block in blocks for name, _, _ in block]
    widths = (max([TRUTH_WIDTHS[0], *map(len, names)]), *TRUTH_WIDTHS[1:])
    lines = [[_truth_line(*row, widths) for row in block] for block in blocks]
    return _framed(TRUTH_COLUMNS, widths, lines)


def _truth_line(name: str, scores: Sequence[float | None], n: int, widths: Sequence[int]) -> str:
    cells = [percent(score, width) for score, width in zip(scores, widths[1:5], strict=True)]
    return _line([f"{printable(name):<{widths[0]}}", *cells, f"{n:<{widths[5]}}"])


def _widths(published: Sequence[int], rows: Sequence[Scores]) -> tuple[int, ...]:
    return (max([published[0], *(len(printable(row.name)) for row in rows)]), *published[1:])


def _metric_line(row: Scores, widths: Sequence[int]) -> str:
    # The published lines give their percentages 6 characters under headers of 8: the bars do not meet.
    cells = [
        f"{printable(row.name):<{widths[0]}}",
        percent(row.acc, 6),
        percent(row.f1, 6),
        f"{row.n:<{widths[3]}}",
    ]
    return _line(cells)


def _confidence_line(row: Scores, widths: Sequence[int]) -> str:
    scores = (row.acc, row.f1, row.ece, row.brier, row.auroc)
    cells = [percent(score, width) for score, width in zip(scores, widths[1:6], strict=True)]
    return _line([f"{printable(row.name):<{widths[0]}}", *cells, f"{row.n:<{widths[6]}}"])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _framed(columns: Sequence[str], widths: Sequence[int], blocks: Sequence[Sequence[str]]) -> str:
    header = _line([f"{title:<{width}}" for title, width in zip(columns, widths, strict=True)])
    rule = "-" * len(header)
    lines = [rule, header, rule]
    for block in blocks:
        if block:
            lines += [*block, rule]
    return "\n".join(lines)
