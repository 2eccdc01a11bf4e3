"""Tables as text, Markdown and LaTeX, and the sets of rows that have lines in them.

Those of `metric.log` and `metric_conf.log` are in the published format to the character: lines of cells
between bars; a cell that holds a label, a count or `N/A` is left-aligned, a percentage is right-aligned in
its own width. The widths below are the published ones; only the first grows, for a task with a longer name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Generic, NamedTuple, TypeVar

from emocaliber.confidences import (
    AGREEMENT,
    DISTRIBUTION,
    LIKELIHOOD,
    LIKELIHOOD_BEST,
    MEAN_STATED,
    P_TRUE,
    STATED,
)
from emocaliber.taxonomy import GROUPS, task_sort_key

OVERALL = "Overall"

CONFIDENCE_TITLES = {
    STATED: "stated",
    LIKELIHOOD: "likelihood",
    P_TRUE: "P(True)",
    DISTRIBUTION: "distribution",
    LIKELIHOOD_BEST: "likelihood, best",
    AGREEMENT: "agreement",
    MEAN_STATED: "mean stated",
}
"""What each confidence of `emocaliber.confidences` is called in tables."""
CONFIDENCE_MEANINGS = {
    STATED: "the number in the response",
    LIKELIHOOD: "the answer's share in the probabilities of all candidates after its reasoning",
    P_TRUE: "the probability of True when the model is asked whether its answer is right",
    DISTRIBUTION: "the answer's probability in the stated distribution",
    LIKELIHOOD_BEST: "the largest such share, of the candidate that has it as the answer",
    AGREEMENT: "the share of the samples that name their majority, which is the answer",
    MEAN_STATED: "the mean number in these, for the same answer",
}
"""And what it is, in the order in which the later ones refer to the earlier ones."""

METRIC_COLUMNS = ("Task", "Acc", "F1", "#Samples")
METRIC_WIDTHS = (15, 8, 8, 9)
CONFIDENCE_COLUMNS = ("Task/Group", "Acc", "F1", "ECE", "Brier", "ROC AUC", "#Samples")
CONFIDENCE_WIDTHS = (15, 6, 6, 8, 10, 10, 9)
ACCURACY_FIELDS = (("acc", "Acc"), ("f1", "F1"))
CONFIDENCE_FIELDS = (*ACCURACY_FIELDS, ("ece", "ECE"), ("brier", "Brier"), ("auroc", "ROC AUC"))
_NAME_WIDTH = 15
_LONGEST_NAME = 80


Result = TypeVar("Result")


@dataclass(frozen=True)
class TaskSet:
    """Rows that are reported together: those of `tasks`. `kind`: `task`, `group` or `overall`."""

    kind: str
    name: str
    tasks: tuple[str, ...]


def task_sets(names: Iterable[str], groups: Mapping[str, str | None]) -> tuple[TaskSet, ...]:
    """Every task, every group that has one of them, and everything together, in the order of the tables.

    Args:
        names: of the tasks that occur, in any order.
        groups: the group of each, None for a task that is in none.
    """
    order = tuple(sorted(names, key=task_sort_key))
    of_group = {group: tuple(name for name in order if groups[name] == group) for group in GROUPS}
    return (
        *(TaskSet("task", name, (name,)) for name in order),
        *(TaskSet("group", group, tasks) for group, tasks in of_group.items() if tasks),
        TaskSet("overall", OVERALL, order),
    )


@dataclass(frozen=True, kw_only=True)
class BySet(Generic[Result]):
    """What is reported of each set of rows, in the order of `task_sets`."""

    tasks: tuple[Result, ...]
    groups: tuple[Result, ...]
    overall: Result

    @property
    def pooled(self) -> tuple[Result, ...]:
        """The groups, then everything together."""
        return (*self.groups, self.overall)

    @property
    def blocks(self) -> tuple[tuple[Result, ...], ...]:
        """The lines of a table by what stands together."""
        return (self.tasks, self.groups, (self.overall,))


def by_kind(results: Mapping[TaskSet, Result]) -> dict[str, Any]:
    """What `BySet` takes: the results of tasks, of groups, and of everything together."""
    overall = of_kind(results, "overall")[0]
    return {"tasks": of_kind(results, "task"), "groups": of_kind(results, "group"), "overall": overall}


def of_kind(results: Mapping[TaskSet, Result], kind: str) -> tuple[Result, ...]:
    """The results of the sets of one kind."""
    return tuple(result for one, result in results.items() if one.kind == kind)


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


def short_name(name: str) -> str:
    """A printable name of at most 80 characters: a longer one, which widens every line, loses its middle."""
    shown = printable(name)
    half = _LONGEST_NAME // 2
    return shown if len(shown) <= _LONGEST_NAME else f"{shown[:half]}…{shown[1 - half :]}"


def metric_table(tasks: Sequence[Scores], overall: Scores) -> str:
    """The table of `metric.log`. Ends without a line break."""
    # The published lines give their percentages 6 characters under headers of 8: the bars do not meet.
    return _published(METRIC_COLUMNS, METRIC_WIDTHS, (6, 6), [tasks, [overall]])


def confidence_table(tasks: Sequence[Scores], groups: Sequence[Scores], overall: Scores) -> str:
    """The table of `metric_conf.log`; without groups it has no block for them. Ends without a line break."""
    blocks = [tasks, groups, [overall]]
    return _published(CONFIDENCE_COLUMNS, CONFIDENCE_WIDTHS, CONFIDENCE_WIDTHS[1:-1], blocks)


def free_table(columns: Sequence[str], blocks: Sequence[Sequence[Sequence[str]]]) -> str:
    """A table of our own in the same style, every column as wide as its widest cell.

    Args:
        columns: the titles.
        blocks: lines of cells, as `with_interval`, `percent` or text; lines of a block stand together.
    """
    named = [[[short_name(line[0]), *line[1:]] for line in block] for block in blocks]
    widths = _widest(columns, named)
    widths[0] = max(widths[0], _NAME_WIDTH)
    return _framed(columns, widths, [[_line(map(str.ljust, line, widths)) for line in b] for b in named])


def _widest(columns: Sequence[str], blocks: Iterable[Iterable[Sequence[str]]]) -> list[int]:
    return [max(map(len, cells)) for cells in zip(columns, *chain.from_iterable(blocks), strict=True)]


def with_interval(score: float | None, interval: tuple[float, float] | None) -> str:
    """A score in percent, and its interval with one decimal: ` 66.67 [60.1, 72.8]`."""
    if score is None or interval is None:
        return percent(score, 6)
    low, high = interval
    return f"{percent(score, 6)} [{100 * low:.1f}, {100 * high:.1f}]"


def own_interval(row: Any, score: str) -> str:
    """One of the `scores` of a row of results, with its interval of `intervals`."""
    return with_interval(row.scores[score], row.intervals[score])


def tab_separated(rows: Sequence[Scores], fields: Sequence[tuple[str, str]]) -> str:
    """A header line and a value line to paste into a spreadsheet.

    Args:
        rows: the lines of a table.
        fields: the scores of each row, as (attribute of `Scores`, its title).
    """
    titles = [f"{short_name(row.name)} {title}" for row in rows for _, title in fields]
    values = [percent(getattr(row, field)) for row in rows for field, _ in fields]
    return "\t".join(titles) + "\n" + "\t".join(values)


def _published(
    columns: Sequence[str],
    widths: Sequence[int],
    of_scores: Sequence[int],
    blocks: Sequence[Sequence[Scores]],
) -> str:
    """A published table: the name, the first of `CONFIDENCE_FIELDS` in these widths, the number of rows."""
    names = [short_name(row.name) for block in blocks for row in block]
    widths = (max(widths[0], *map(len, names)), *widths[1:])

    def line(row: Scores) -> str:
        scores = [getattr(row, field) for field, _ in CONFIDENCE_FIELDS[: len(of_scores)]]
        cells = map(percent, scores, of_scores)
        return _line([f"{short_name(row.name):<{widths[0]}}", *cells, f"{row.n:<{widths[-1]}}"])

    return _framed(columns, widths, [list(map(line, block)) for block in blocks])


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _framed(columns: Sequence[str], widths: Sequence[int], blocks: Sequence[Sequence[str]]) -> str:
    header = _line(map(str.ljust, columns, widths))
    rule = "-" * len(header)
    lines = [rule, header, rule]
    for block in blocks:
        if block:
            lines += [*block, rule]
    return "\n".join(lines)


_MARKDOWN_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~$&#@])")
_LATEX_SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    # At the beginning of a line these would belong to the \\ before it.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
}


class Cell(NamedTuple):
    """A number as text; `is_marked` makes it stand out."""

    text: str
    is_marked: bool = False


Line = tuple[str, Sequence[Cell]]
"""A line of a table: its name, then a cell a column."""


@dataclass(frozen=True)
class Table:
    """`columns`: the titles, the first over the names. `blocks`: lines that stand together.

    `spans`: headings above the titles, as (heading, how many columns), the first column left out; their
    numbers sum to the others.
    """

    title: str
    columns: tuple[str, ...]
    blocks: tuple[tuple[Line, ...], ...]
    spans: tuple[tuple[str, int], ...] = ()


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is, on one line, in a table too."""
    return _MARKDOWN_SPECIAL.sub(r"\\\1", printable(text))


def latex_text(text: str) -> str:
    """Text that LaTeX sets as it is, on one line, in a table too."""
    escaped = "".join(_LATEX_SPECIAL.get(character, character) for character in printable(text))
    return re.sub("-(?=-)", "-{}", escaped)  # no dash of two hyphens


def text_table(table: Table) -> str:
    """The table between bars under its title; a marked cell ends with a star. Spans are not shown."""
    marks = any(cell.is_marked for block in table.blocks for _, cells in block for cell in cells)
    blocks = [
        [
            [name, *(cell.text + ("*" if cell.is_marked else " " * marks) for cell in cells)]
            for name, cells in block
        ]
        for block in table.blocks
    ]
    titles = [printable(title) for title in table.columns]
    widths = _widest(titles, blocks)
    aligned = [[[line[0], *map(str.rjust, line[1:], widths[1:])] for line in block] for block in blocks]
    return f"{printable(table.title)}\n{free_table(titles, aligned)}"


def markdown_table(table: Table) -> str:
    """The table as GitHub's Markdown under a heading; a marked cell is bold, a span precedes its titles."""
    above = [heading for heading, n in table.spans for _ in range(n)]
    titles = list(table.columns)
    if above:
        titles[1:] = map("{} {}".format, above, titles[1:])
    lines = [
        f"### {markdown_text(table.title)}",
        "",
        _line(map(markdown_text, titles)),
        "|---|" + "---:|" * (len(titles) - 1),
    ]
    for name, cells in chain(*table.blocks):
        shown = [_bold("**", markdown_text(cell.text), "**", cell) for cell in cells]
        lines.append(_line([markdown_text(name), *shown]))
    return "\n".join(lines)


def latex_table(table: Table) -> str:
    """The table as LaTeX with booktabs; a marked cell is bold.

    One with spans is as wide as the page, by graphicx.
    """
    n_columns = len(table.columns)
    head = _latex_spans(table.spans) if table.spans else []
    head += [_latex_line([latex_text(title) for title in table.columns])]
    body: list[str] = []
    for block in table.blocks:
        body.append(r"\midrule")
        for name, cells in block:
            # A hyphen is not a minus sign.
            numbers = [latex_text(cell.text).replace("-", "$-$") for cell in cells]
            shown = [_bold(r"\textbf{", text, "}", cell) for text, cell in zip(numbers, cells, strict=True)]
            body.append(_latex_line([latex_text(name), *shown]))
    tabular = [
        rf"\begin{{tabular}}{{l{'r' * (n_columns - 1)}}}",
        r"\toprule",
        *head,
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if table.spans:
        tabular = [r"\resizebox{\textwidth}{!}{%", *tabular[:-1], tabular[-1] + "}"]
    star = "*" if table.spans else ""
    return "\n".join(
        [
            rf"\begin{{table{star}}}[tbp]",
            r"\centering",
            rf"\caption{{{latex_text(table.title)}}}",
            *tabular,
            rf"\end{{table{star}}}",
        ]
    )


def _bold(before: str, text: str, after: str, cell: Cell) -> str:
    return f"{before}{text}{after}" if cell.is_marked and text else text


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_spans(spans: Sequence[tuple[str, int]]) -> list[str]:
    headings, rules, first = [""], [], 2
    for heading, n in spans:
        headings.append(rf"\multicolumn{{{n}}}{{c}}{{{latex_text(heading)}}}")
        rules.append(rf"\cmidrule(lr){{{first}-{first + n - 1}}}")
        first += n
    return [_latex_line(headings), " ".join(rules)]
