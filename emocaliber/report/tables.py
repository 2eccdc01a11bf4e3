"""The tables of `metric.log` and `metric_conf.log`, in the published format to the character.

A table is lines of cells between bars; a cell that holds a label, a count or `N/A` is left-aligned, a
percentage is right-aligned in its own width. The widths below are the published ones; only the first grows,
for a task with a longer name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

METRIC_COLUMNS = ("Task", "Acc", "F1", "#Samples")
METRIC_WIDTHS = (15, 8, 8, 9)
CONFIDENCE_COLUMNS = ("Task/Group", "Acc", "F1", "ECE", "Brier", "ROC AUC", "#Samples")
CONFIDENCE_WIDTHS = (15, 6, 6, 8, 10, 10, 9)
ACCURACY_FIELDS = (("acc", "Acc"), ("f1", "F1"))
CONFIDENCE_FIELDS = (*ACCURACY_FIELDS, ("ece", "ECE"), ("brier", "Brier"), ("auroc", "ROC AUC"))
_NAME_WIDTH = 15
_LONGEST_NAME = 80


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


def free_table(columns: Sequence[str], blocks: Sequence[Sequence[Sequence[str]]]) -> str:
    """A table of our own in the same style, every column as wide as its widest cell.

    Args:
        columns: the titles.
        blocks: lines of cells, as `with_interval`, `percent` or text; lines of a block stand together.
    """
    lines = [[short_name(line[0]), *line[1:]] for block in blocks for line in block]
    widths = [max(map(len, column)) for column in zip(columns, *lines, strict=True)]
    widths[0] = max(widths[0], _NAME_WIDTH)
    padded = [
        [
            _line(
                [
                    f"{cell:<{width}}"
                    for cell, width in zip([short_name(line[0]), *line[1:]], widths, strict=True)
                ]
            )
            for line in block
        ]
        for block in blocks
    ]
    return _framed(columns, widths, padded)


def with_interval(score: float | None, interval: tuple[float, float] | None) -> str:
    """A score in percent, and its interval with one decimal: ` 66.67 [60.1, 72.8]`."""
    if score is None or interval is None:
        return percent(score, 6)
    low, high = interval
    return f"{percent(score, 6)} [{100 * low:.1f}, {100 * high:.1f}]"


def tab_separated(rows: Sequence[Scores], fields: Sequence[tuple[str, str]]) -> str:
    """A header line and a value line to paste into a spreadsheet.

    Args:
        rows: the lines of a table.
        fields: the scores of each row, as (attribute of `Scores`, its title).
    """
    titles = [f"{short_name(row.name)} {title}" for row in rows for _, title in fields]
    values = [percent(getattr(row, field)) for row in rows for field, _ in fields]
    return "\t".join(titles) + "\n" + "\t".join(values)


def _widths(published: Sequence[int], rows: Sequence[Scores]) -> tuple[int, ...]:
    return (max([published[0], *(len(short_name(row.name)) for row in rows)]), *published[1:])


def _metric_line(row: Scores, widths: Sequence[int]) -> str:
    # The published lines give their percentages 6 characters under headers of 8: the bars do not meet.
    cells = [
        f"{short_name(row.name):<{widths[0]}}",
        percent(row.acc, 6),
        percent(row.f1, 6),
        f"{row.n:<{widths[3]}}",
    ]
    return _line(cells)


def _confidence_line(row: Scores, widths: Sequence[int]) -> str:
    scores = (row.acc, row.f1, row.ece, row.brier, row.auroc)
    cells = [percent(score, width) for score, width in zip(scores, widths[1:6], strict=True)]
    return _line([f"{short_name(row.name):<{widths[0]}}", *cells, f"{row.n:<{widths[6]}}"])


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


@dataclass(frozen=True)
class Cell:
    """A number as text; `is_marked` makes it stand out."""

    text: str
    is_marked: bool = False


@dataclass(frozen=True)
class Line:
    """A line of a table: its name, then a cell a column."""

    name: str
    cells: tuple[Cell, ...]


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
    marks = any(cell.is_marked for block in table.blocks for line in block for cell in line.cells)
    blocks = [
        [
            [
                line.name,
                *(cell.text + ("*" if cell.is_marked else " " if marks else "") for cell in line.cells),
            ]
            for line in block
        ]
        for block in table.blocks
    ]
    titles = [printable(title) for title in table.columns]
    widths = [
        max(map(len, column)) for column in zip(titles, *(line for b in blocks for line in b), strict=True)
    ]
    aligned = [
        [
            [line[0], *(f"{cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True))]
            for line in block
        ]
        for block in blocks
    ]
    return f"{printable(table.title)}\n{free_table(titles, aligned)}"


def markdown_table(table: Table) -> str:
    """The table as GitHub's Markdown under a heading; a marked cell is bold, a span precedes its titles."""
    above = [heading for heading, n in table.spans for _ in range(n)]
    titles = list(table.columns)
    if above:
        titles = [
            titles[0],
            *(f"{heading} {title}" for heading, title in zip(above, titles[1:], strict=True)),
        ]
    lines = [
        f"### {markdown_text(table.title)}",
        "",
        _markdown_line([markdown_text(title) for title in titles]),
        "|---|" + "---:|" * (len(titles) - 1),
    ]
    for line in (line for block in table.blocks for line in block):
        cells = [_bold("**", markdown_text(cell.text), "**", cell) for cell in line.cells]
        lines.append(_markdown_line([markdown_text(line.name), *cells]))
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
        for line in block:
            cells = [_bold(r"\textbf{", _latex_number(cell.text), "}", cell) for cell in line.cells]
            body.append(_latex_line([latex_text(line.name), *cells]))
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


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_number(text: str) -> str:
    # A hyphen is not a minus sign.
    return latex_text(text).replace("-", "$-$")


def _latex_spans(spans: Sequence[tuple[str, int]]) -> list[str]:
    headings, rules, first = [""], [], 2
    for heading, n in spans:
        headings.append(rf"\multicolumn{{{n}}}{{c}}{{{latex_text(heading)}}}")
        rules.append(rf"\cmidrule(lr){{{first}-{first + n - 1}}}")
        first += n
    return [_latex_line(headings), " ".join(rules)]
