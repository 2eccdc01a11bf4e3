"""The figures of an evaluation as PNG and PDF: reliability diagrams and selective-prediction curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from emocaliber.report import figure_selective
from emocaliber.report.figure_reliability import reliability_diagram, reliability_of_tasks
from emocaliber.report.figure_style import SUFFIXES, encoded, figure_settings
from emocaliber.report.results import OVERALL, Evaluation, Summary
from emocaliber.taxonomy import GROUPS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TASKS = "reliability_tasks"
_SELECTIVE: dict[str, Callable[[Sequence[Summary]], Figure]] = {
    "accuracy_vs_threshold": figure_selective.accuracy_vs_threshold,
    "coverage_vs_threshold": figure_selective.coverage_vs_threshold,
    "accuracy_vs_coverage": figure_selective.accuracy_vs_coverage,
    "risk_vs_coverage": figure_selective.risk_vs_coverage,
}


def figure_files() -> tuple[str, ...]:
    """Every file that `draw_figures` can give."""
    names = (*(_reliability(name) for name in (*GROUPS, OVERALL)), _TASKS, *_SELECTIVE)
    return tuple(name + suffix for name in names for suffix in SUFFIXES)


def draw_figures(evaluation: Evaluation) -> dict[str, bytes]:
    """Draw a reliability diagram per group, overall and per task, and the four selective-prediction figures.

    Returns:
        Content per file name, the same bytes for the same numbers; a group without any confidence is left
        out, so this can be empty.
    """
    drawn = [row for row in evaluation.pooled if row.n_with_confidence]
    if not drawn:
        return {}
    with figure_settings():
        files: dict[str, bytes] = {}
        for row in drawn:
            files |= _files(_reliability(row.name), reliability_diagram(row))
        files |= _files(_TASKS, reliability_of_tasks(evaluation.tasks))
        for name, draw in _SELECTIVE.items():
            files |= _files(name, draw(drawn))
    return files


def _reliability(name: str) -> str:
    return f"reliability_{name.lower().replace(' ', '_')}"


def _files(name: str, figure: Figure) -> dict[str, bytes]:
    return {name + suffix: content for suffix, content in encoded(figure).items()}
