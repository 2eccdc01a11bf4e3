"""Reliability diagrams: accuracy against stated confidence, and what honest confidences show by chance.

One for a set of rows, with its scores and the number of rows per bin, and one page of small ones for the
tasks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from emocaliber.metrics.calibration import ReliabilityBin
from emocaliber.report.figure_style import BLUE, GREY, VERMILION, aligned, clean, legend_below, new_figure
from emocaliber.report.results import Summary
from emocaliber.report.tables import percent, printable, with_interval

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
        numbers.append(aligned(with_interval(row.scores[score], row.intervals[score])))
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
