"""The figures of an evaluation as PNG and PDF: reliability diagrams and selective-prediction curves."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from emocaliber.metrics.calibration import ReliabilityBin
from emocaliber.report.figure_style import (
    BLUE,
    GREY,
    LINES,
    SUFFIXES,
    VERMILION,
    aligned,
    clean,
    encoded,
    figure_settings,
    legend_below,
    new_figure,
)
from emocaliber.report.summary import Evaluation, Summary
from emocaliber.report.tables import OVERALL, own_interval, percent, printable, with_interval
from emocaliber.taxonomy import GROUPS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_TENTHS = [tenth / 10 for tenth in range(11)]
_FIFTHS = _TENTHS[::2]
_COLUMNS = (0.0, 0.2, 0.54)
_SCORES = (
    ("Acc", "acc"),
    ("ECE", "ece"),
    ("Smooth ECE", "smooth_ece"),
    ("Brier", "brier"),
    ("ROC AUC", "auroc"),
)
_UNDER_BRACKET = 12 * " "  # as wide as a score
_LONGEST_NAME = 26
_MOST_PANELS = 24


def reliability_diagram(row: Summary) -> Figure:
    """The diagram of a group, or of everything together, which has to state at least one confidence."""
    figure = new_figure(5.2, 7.0)
    upper, lower, text = figure.subplots(3, 1, height_ratios=(3.5, 1, 1.0))
    _draw_bins(upper, row.bins)
    upper.set(title=f"{row.name}: stated confidence and accuracy", ylabel="Accuracy", ylim=(0, 1.04))
    _draw_histogram(lower, row.bins)
    label = f"Confidence (stated in {row.n_with_confidence} of {row.n} rows)"
    lower.set(xlabel=label, ylabel="Rows", xticks=_TENTHS)
    upper.set_xticks(_TENTHS, labels=[])
    for axes in (upper, lower):
        axes.set_xlim(0, 1)
        clean(axes)
    text.set_axis_off()
    for x, column in zip(_COLUMNS, _scores_text(row), strict=True):
        text.text(x, 1, column, va="top", fontsize=8, linespacing=1.4)
    legend_below(figure, upper.get_legend_handles_labels(), n_columns=2)
    return figure


def reliability_of_tasks(tasks: Sequence[Summary]) -> Figure:
    """A small diagram for each task, in the order given; one that states no confidence has an empty one.

    Of more than 24 tasks only the first 24: a thousand would take minutes and be too large to read.
    """
    n_tasks, tasks = len(tasks), tasks[:_MOST_PANELS]
    n_columns = min(3, len(tasks))
    n_lines = math.ceil(len(tasks) / n_columns)
    figure = new_figure(max(5.2, 2.6 * n_columns), 0.8 + 2.75 * n_lines, column_gap=0.06)
    panels = figure.subplots(n_lines, n_columns, sharex=True, sharey=True, squeeze=False)
    for axes, task in zip(panels.flat, tasks, strict=False):
        _draw_bins(axes, task.bins)
        axes.set_title(_short_text(task), fontsize=7, loc="left", parse_math=False)
    for axes in panels.flat:
        axes.set(xlim=(0, 1), ylim=(0, 1.04), xticks=_FIFTHS, yticks=_FIFTHS)
        clean(axes)
    for axes in panels.flat[len(tasks) :]:
        axes.set_axis_off()
    for axes in panels.flat[max(0, len(tasks) - n_columns) : len(tasks)]:
        axes.xaxis.set_tick_params(labelbottom=True)
        axes.set_xlabel("Confidence")
    for axes in panels[:, 0]:
        axes.set_ylabel("Accuracy")
    which = f", the first {len(tasks)} of {n_tasks} tasks" if n_tasks > len(tasks) else ""
    figure.suptitle(f"Stated confidence and accuracy per task (scores in %){which}", fontsize=11)
    shown = next((place for place, task in enumerate(tasks) if task.n_with_confidence), 0)
    legend_below(figure, panels.flat[shown].get_legend_handles_labels(), n_columns=2)
    return figure


def _scores_text(row: Summary) -> tuple[str, str, str]:
    """Three columns: the names of the scores, the scores with their intervals, and what to know of them."""
    names, numbers = ["in %"], [_UNDER_BRACKET + "[95 % interval]" if row.intervals["acc"] else ""]
    notes = {"acc": f"of all {row.n} rows"}
    if row.by_chance is not None:
        mean, p95 = percent(row.by_chance.mean), percent(row.by_chance.p95)
        notes["ece"] = f"if calibrated: {mean}, 95 % below {p95}"
    for title, score in _SCORES:
        names.append(title)
        numbers.append(aligned(own_interval(row, score)))
    remarks = ["", *(notes.get(score, "") for _, score in _SCORES)]
    return "\n".join(names), "\n".join(numbers), "\n".join(remarks)


def _short_text(task: Summary) -> str:
    name = printable(task.name)
    if len(name) > _LONGEST_NAME:
        name = name[: _LONGEST_NAME - 1] + "…"
    head = f"{name} (n = {task.n})\nAcc {percent(task.acc)}"
    if not task.n_with_confidence:
        return f"{head}\nnone states a confidence"
    chance = "" if task.by_chance is None else f"; if calibrated {percent(task.by_chance.mean)}"
    ece = with_interval(task.ece, task.intervals["ece"]).lstrip()
    return f"{head}, ROC AUC {percent(task.auroc)}\nECE {ece}{chance}"


def _draw_bins(axes: Axes, bins: Sequence[ReliabilityBin]) -> None:
    """Per bin: a bar up to the accuracy, the range of chance, and a dot at the mean confidence."""
    filled = [one for one in bins if one.n]
    lows = [one.low for one in filled]
    confidences = [one.mean_confidence or 0.0 for one in filled]
    accuracies = [one.accuracy or 0.0 for one in filled]
    axes.plot(
        [0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, zorder=3.5, label="perfectly calibrated"
    )
    if not filled:  # the layout fails on an empty line that is not clipped
        return
    axes.bar(
        lows,
        accuracies,
        width=0.1,
        align="edge",
        color=BLUE,
        alpha=0.35,
        edgecolor=BLUE,
        label="accuracy in the bin",
    )
    _draw_band(axes, filled)
    axes.plot(
        confidences,
        accuracies,
        color=VERMILION,
        marker="o",
        markersize=5,
        linestyle="none",
        clip_on=False,
        zorder=4,
        label="at its mean confidence",
    )


def _draw_band(axes: Axes, filled: Sequence[ReliabilityBin]) -> None:
    """Where 95 % of the bin's accuracies would lie; nothing where it was not drawn by lot."""
    bands = [
        (one.low, one.null_low, one.null_high)
        for one in filled
        if one.null_low is not None and one.null_high is not None
    ]
    if not bands:
        return
    axes.bar(
        [low for low, _, _ in bands],
        [top - bottom for _, bottom, top in bands],
        bottom=[bottom for _, bottom, _ in bands],
        width=0.1,
        align="edge",
        facecolor="none",
        edgecolor=GREY,
        hatch="\\\\\\\\\\",
        linewidth=0.8,
        zorder=3,
        label="95 % range if calibrated",
    )


def _draw_histogram(axes: Axes, bins: Sequence[ReliabilityBin]) -> None:
    counts = [one.n for one in bins]
    axes.bar([one.low for one in bins], counts, width=0.1, align="edge", color=GREY, edgecolor="white")
    for one in bins:
        if one.n:
            axes.text(one.low + 0.05, one.n, str(one.n), ha="center", va="bottom", fontsize=8)
    axes.set_ylim(0, 1.2 * max(counts))


Points = Sequence[tuple[float, float]]

_THRESHOLD_LABEL = "Confidence threshold (kept: at least this confident)"

# Of the curve inside a tie: of this share of the rows each piece is straight to the eye.
_PIECE = 1 / 200


def accuracy_vs_threshold(rows: Sequence[Summary]) -> Figure:
    """Accuracy of the answers whose confidence is at least a threshold, one line a group."""
    curves = [[(point.threshold, point.accuracy) for point in reversed(row.curve)] for row in rows]
    return _vs_threshold("Accuracy of the answers that are kept", "Accuracy", "acc", rows, curves)


def coverage_vs_threshold(rows: Sequence[Summary]) -> Figure:
    """Share of all rows whose confidence is at least a threshold, one line a group."""
    curves = [[(point.threshold, point.coverage) for point in reversed(row.curve)] for row in rows]
    for steps in curves:
        if steps[-1][0] < 1:
            steps.append((1.0, 0.0))
    return _vs_threshold("Share of the rows that is kept", "Coverage", "coverage", rows, curves)


def _vs_threshold(
    title: str, y_label: str, score: str, rows: Sequence[Summary], curves: Sequence[Points]
) -> Figure:
    """A step line a group through every stated confidence, marks at the tenths, the values in the legend.

    At a threshold between two stated confidences the answers of the upper one are kept, so a step reaches
    down to the confidence below it (`pre`).
    """
    figure, axes = _curve_axes(title, _THRESHOLD_LABEL, y_label)
    for row, steps in zip(rows, curves, strict=True):
        marks = {at.threshold: at.scores[score] for at in row.thresholds}
        marked = [(float(at), value) for at, value in marks.items() if value is not None]
        shown = [percent(value, 6) for value in (steps[0][1], marks["0.5"], marks["0.9"])]
        _draw_line(axes, row.name, [(0.0, steps[0][1]), *steps], marked, shown, drawstyle="steps-pre")
    _legend(figure, axes, f"{y_label} in % at a threshold", ("at 0", "at 0.5", "at 0.9"))
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
        shown = [own_interval(row, score) for score in ("aurc", "augrc")]
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


_TASKS = "reliability_tasks"
_SELECTIVE: dict[str, Callable[[Sequence[Summary]], Figure]] = {
    "accuracy_vs_threshold": accuracy_vs_threshold,
    "coverage_vs_threshold": coverage_vs_threshold,
    "accuracy_vs_coverage": accuracy_vs_coverage,
    "risk_vs_coverage": risk_vs_coverage,
}


def figure_files() -> tuple[str, ...]:
    """Every file that `draw_figures` can give."""
    names = (*(_reliability(name) for name in (*GROUPS, OVERALL)), _TASKS, *_SELECTIVE)
    return tuple(name + suffix for name in names for suffix in SUFFIXES)


def draw_figures(evaluation: Evaluation, suffixes: Sequence[str] = SUFFIXES) -> dict[str, bytes]:
    """Draw a reliability diagram per group, overall and per task, and the four selective-prediction figures.

    Args:
        evaluation: what they show; a group without any confidence has none.
        suffixes: of the files, `.png`, `.pdf` or both; none for no figures.
    Returns:
        Content per file name, the same bytes for the same numbers; can be empty.
    """
    drawn = [row for row in evaluation.pooled if row.n_with_confidence]
    figures: dict[str, Callable[[], Figure]] = {}
    if drawn and suffixes:
        figures[_TASKS] = partial(reliability_of_tasks, evaluation.tasks)
        figures |= {_reliability(row.name): partial(reliability_diagram, row) for row in drawn}
        figures |= {name: partial(draw, drawn) for name, draw in _SELECTIVE.items()}
    files: dict[str, bytes] = {}
    with figure_settings():
        for name, draw_one in figures.items():
            files |= {name + end: content for end, content in encoded(draw_one(), suffixes).items()}
    return files


def _reliability(name: str) -> str:
    return f"reliability_{name.lower().replace(' ', '_')}"


Drawing = Callable[[Evaluation], Callable[[], dict[str, bytes]]]
"""Begins to draw an evaluation, and gives a function that waits for what `draw_figures` gives."""


@contextmanager
def drawing_process(suffixes: Sequence[str]) -> Iterator[Drawing]:
    """A process that draws figures beside other work; a context, at whose end it is gone.

    Make it early: it imports matplotlib while the rows are still read. On a single core, and for no suffixes,
    there is none. A process that has died is left out.
    """
    if not suffixes or len(os.sched_getaffinity(0)) < 2:
        yield lambda evaluation: partial(draw_figures, evaluation, suffixes)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    here, there = context.Pipe()
    process = context.Process(target=_draw_when_told, args=(there, suffixes), daemon=True)
    # It inherits what is blocked: Ctrl-C is for this process, which then ends it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    there.close()

    def begin(evaluation: Evaluation) -> Callable[[], dict[str, bytes]]:
        with suppress(OSError):
            here.send(evaluation)
        return partial(_drawn, here, evaluation, suffixes)

    try:
        yield begin
    finally:
        process.terminate()
        process.join()
        here.close()


def _drawn(connection: Connection, evaluation: Evaluation, suffixes: Sequence[str]) -> dict[str, bytes]:
    try:
        files: dict[str, bytes] = connection.recv()
    except (EOFError, OSError):  # the process has died, for want of memory perhaps
        return draw_figures(evaluation, suffixes)
    return files


def _draw_when_told(connection: Connection, suffixes: Sequence[str]) -> None:
    """The drawing process: draw one evaluation and end."""
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401

    with suppress(EOFError):  # the process that would have asked has ended
        connection.send(draw_figures(connection.recv(), suffixes))
