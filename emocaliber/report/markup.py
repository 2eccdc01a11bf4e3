"""A table of text cells as plain text, Markdown and LaTeX, with whatever a name holds escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from emocaliber.report.tables import free_table, printable

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
