"""Selective-prediction curves: what is kept, and how right it is, as only confident answers are kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from emocaliber.report.figure_style import GREY, LINES, aligned, clean, legend_below, new_figure
from emocaliber.report.results import Summary
from emocaliber.report.tables import percent, with_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]

_THRESHOLD_LABEL = "Confidence threshold (kept: at least this confident)"
# Of the curve inside a tie: of this share of the rows each piece is straight to the eye.
_PIECE = 1 / 200


def accuracy_vs_threshold(rows: Sequence[Summary]) -> Figure:
    """Accuracy of the answers whose confidence is at least a threshold, one line a group."""
    figure, axes = _curve_axes("Accuracy of the answers that are kept", _THRESHOLD_LABEL, "Accuracy")
    for row in rows:
        steps = [(point.threshold, point.accuracy) for point in reversed(row.curve)]
        _draw_steps(axes, row.name, steps, {at.threshold: at.scores["acc"] for at in row.thresholds})
    _legend(figure, axes, "Accuracy in % at a threshold", ("at 0", "at 0.5", "at 0.9"))
    return figure


def coverage_vs_threshold(rows: Sequence[Summary]) -> Figure:
    """Share of all rows whose confidence is at least a threshold, one line a group."""
    figure, axes = _curve_axes("Share of the rows that is kept", _THRESHOLD_LABEL, "Coverage")
    for row in rows:
        steps = [(point.threshold, point.coverage) for point in reversed(row.curve)]
        if steps[-1][0] < 1:
            steps.append((1.0, 0.0))
        _draw_steps(axes, row.name, steps, {at.threshold: at.scores["coverage"] for at in row.thresholds})
    _legend(figure, axes, "Coverage in % at a threshold", ("at 0", "at 0.5", "at 0.9"))
    return figure


def accuracy_vs_coverage(rows: Sequence[Summary]) -> Figure:
    """Accuracy of the most confident answers, up to all that state a confidence, one line a group."""
    figure, axes = _curve_axes("Accuracy of the most confident answers", "Coverage", "Accuracy")
    for row in rows:
        half = next((point for point in row.curve if point.coverage >= 0.5), row.curve[-1])
        shown = [f"{percent(p.accuracy, 6)} @ {percent(p.coverage, 6)}" for p in (half, row.curve[-1])]
        ends = [(point.coverage, 1 - point.accuracy) for point in row.curve]
        line = [(coverage, 1 - risk) for coverage, risk in risk_curve(ends)]
        marks = [(coverage, 1 - risk) for coverage, risk in ends]
        _draw_line(axes, row.name, line, marks, shown)
    _legend(figure, axes, "Accuracy @ coverage in %", ("at least half kept", "all with a confidence"))
    return figure


def risk_vs_coverage(rows: Sequence[Summary]) -> Figure:
    """Share of wrong answers among the most confident rows, up to all rows, one line a group."""
    x_label = "Coverage (rows without a confidence are kept last)"
    figure, axes = _curve_axes("Risk of the most confident answers", x_label, "Risk (share that is wrong)")
    highest = 0.0
    for row in rows:
        ends = [(point.coverage, 1 - point.accuracy) for point in row.curve]
        if ends[-1][0] < 1 and row.acc is not None:
            ends.append((1.0, 1 - row.acc))
        highest = max([highest, *(risk for _, risk in ends)])
        shown = [with_interval(row.scores[score], row.intervals[score]) for score in ("aurc", "augrc")]
        _draw_line(axes, row.name, risk_curve(ends), ends, shown)
    axes.set_ylim(0, min(1.04, 1.1 * highest) or 1.04)
    intervals = " [95 % interval]" if any(row.intervals["aurc"] for row in rows) else ""
    _legend(figure, axes, "Areas under the curve in %", (f"AURC{intervals}", f"AUGRC{intervals}"))
    return figure


def risk_curve(ends: Points) -> list[tuple[float, float]]:
    """The points of a risk-coverage curve, from those at the ends of the ties.

    Tied rows are kept in a random order, so inside a tie the expected errors grow linearly with the coverage
    and the risk, errors over coverage, along a hyperbola; in the first tie it is constant.

    Args:
        ends: (coverage, risk) after each tie, coverage rising from above 0, in [0, 1].
    Returns:
        (coverage, risk) from coverage 0, close enough for straight lines between them.
    """
    points = [(0.0, ends[0][1]), ends[0]]
    for (start, risk_before), (end, risk_after) in pairwise(ends):
        errors, grown = start * risk_before, end * risk_after - start * risk_before
        n_pieces = max(1, math.ceil((end - start) / _PIECE))
        for piece in range(1, n_pieces):
            share = piece / n_pieces
            coverage = start + share * (end - start)
            points.append((coverage, (errors + share * grown) / coverage))
        points.append((end, risk_after))
    return points


def _draw_steps(axes: Axes, name: str, steps: Points, marks: Mapping[str, float | None]) -> None:
    """A step line through every stated confidence, marks at the tenths, the values in the legend.

    At a threshold between two stated confidences the answers of the upper one are kept, so a step reaches
    down to the confidence below it (`pre`).
    """
    points = [(0.0, steps[0][1]), *steps]
    marked = [(float(at), score) for at, score in marks.items() if score is not None]
    shown = [percent(score, 6) for score in (points[0][1], marks["0.5"], marks["0.9"])]
    _draw_line(axes, name, points, marked, shown, drawstyle="steps-pre")


def _draw_line(
    axes: Axes, name: str, line: Points, marks: Points, numbers: Sequence[str], drawstyle: str = "default"
) -> None:
    """A group's line, at most a dozen of its marks, and its name and numbers in the legend."""
    color, marker, dashes = LINES[name]
    axes.plot(*zip(*line, strict=True), color=color, linestyle=dashes, drawstyle=drawstyle)
    shown = marks[:: math.ceil(len(marks) / 12) or 1]
    style: dict[str, Any] = {"color": color, "marker": marker, "markersize": 4.5}
    if shown:  # the layout fails on an empty line that is not clipped
        axes.plot(*zip(*shown, strict=True), **style, linestyle="none", clip_on=False)
    axes.plot([], [], **style, linestyle=dashes, label="\n".join([name, *map(aligned, numbers)]))


def _curve_axes(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = new_figure(6.4, 5.4)
    axes = figure.subplots()
    axes.set(title=title, xlabel=x_label, ylabel=y_label, xlim=(0, 1.01), ylim=(0, 1.04))
    axes.grid(color=GREY, alpha=0.25)
    clean(axes)
    return figure, axes


def _legend(figure: Figure, axes: Axes, title: str, headings: Sequence[str]) -> None:
    """A line per group: its name, then each of its numbers under its heading."""
    from matplotlib.lines import Line2D

    handles, labels = axes.get_legend_handles_labels()
    names, *columns = zip(*(label.split("\n") for label in labels), strict=True)
    cells = [cell for heading, column in zip(headings, columns, strict=True) for cell in (heading, *column)]
    nothing = Line2D([], [], linestyle="none")
    legend_below(
        figure,
        ([nothing, *handles, *(nothing for _ in cells)], ["", *names, *cells]),
        n_columns=1 + len(headings),
        columnspacing=0,
        title=title,
        title_fontsize=8,
    )
