"""The figures of an evaluation as PNG: reliability diagrams and selective-prediction curves.

matplotlib is imported inside the functions, so that importing this module is quick; no display is needed.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from emocaliber.report.summary import OVERALL, Evaluation, Summary
from emocaliber.report.tables import percent
from emocaliber.taxonomy import GROUPS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito, "Color Universal Design" (2008): told apart with every common kind of colour blindness. Every
# line also has a marker and a dash pattern of its own.
_BLUE, _ORANGE, _GREEN, _BLACK, _GREY = "#0072B2", "#D55E00", "#009E73", "#000000", "#767676"
_LINES = {
    "ID VSA": (_BLUE, "o", "-"),
    "ID VER": (_ORANGE, "s", "--"),
    "OOD VER": (_GREEN, "^", "-."),
    OVERALL: (_BLACK, "D", ":"),
}
_DOTS_PER_INCH = 150
_THRESHOLD_LABEL = "Confidence threshold (kept: at least this confident)"
_LEGEND: dict[str, Any] = {"loc": "best", "prop": {"family": "monospace", "size": 8}, "title_fontsize": 8}


def reliability_file(name: str) -> str:
    """The file of the reliability diagram of a group, or of everything together."""
    return f"reliability_{name.lower().replace(' ', '_')}.png"


def figure_files() -> tuple[str, ...]:
    """Every file that `draw_figures` can give."""
    return (*(reliability_file(name) for name in (*GROUPS, OVERALL)), *_SELECTIVE_FIGURES)


def draw_figures(evaluation: Evaluation) -> dict[str, bytes]:
    """Draw a reliability diagram per group and overall, and the three selective-prediction figures.

    Returns:
        PNG content per file name; a group without any confidence is left out, so this can be empty.
    """
    drawn = [row for row in (*evaluation.groups, evaluation.overall) if row.n_with_confidence]
    files = {reliability_file(row.name): _png(_reliability_diagram(row)) for row in drawn}
    if drawn:
        files.update({file: _png(draw(drawn)) for file, draw in _SELECTIVE_FIGURES.items()})
    return files


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Without the name of the program, so that the bytes depend on the numbers only.
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


def _new_figure(width_inch: float, height_inch: float) -> Figure:
    # A figure of its own, not one of pyplot's: no global state, no display, nothing to close.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_inch, height_inch), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _reliability_diagram(row: Summary) -> Figure:
    figure = _new_figure(5.2, 6.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _draw_bins(upper, row)
    upper.set(
        title=f"{row.name}: stated confidence and accuracy", ylabel="Accuracy", xlim=(0, 1), ylim=(0, 1.04)
    )
    upper.text(
        0.03,
        0.97,
        _scores_text(row),
        transform=upper.transAxes,
        verticalalignment="top",
        family="monospace",
        fontsize=9,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2},
    )
    upper.legend(loc="upper left", bbox_to_anchor=(0.01, 0.78), fontsize=8)
    _draw_histogram(lower, row)
    lower.set(xlabel="Confidence", ylabel="Rows", xticks=[tenth / 10 for tenth in range(11)])
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _scores_text(row: Summary) -> str:
    return "\n".join(
        [
            f"Acc     {percent(row.acc, 6)} % of all {row.n} rows",
            f"ECE     {percent(row.ece, 6)} %",
            f"Brier   {percent(row.brier, 6)} %",
            f"ROC AUC {percent(row.auroc, 6)} %",
            f"over the {row.n_with_confidence} rows with a confidence",
        ]
    )


def _draw_bins(axes: Axes, row: Summary) -> None:
    filled = [one for one in row.bins if one.mean_confidence is not None and one.accuracy is not None]
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
    axes.bar(
        [float(one.low) for one in filled],
        [one.accuracy or 0.0 for one in filled],
        width=0.1,
        align="edge",
        color=_BLUE,
        alpha=0.35,
        edgecolor=_BLUE,
        label="accuracy in the bin",
    )
    axes.plot(
        [one.mean_confidence or 0.0 for one in filled],
        [one.accuracy or 0.0 for one in filled],
        color=_ORANGE,
        marker="o",
        linestyle="none",
        clip_on=False,
        label="at its mean confidence",
    )


def _draw_histogram(axes: Axes, row: Summary) -> None:
    counts = [one.n for one in row.bins]
    axes.bar(
        [float(one.low) for one in row.bins], counts, width=0.1, align="edge", color=_GREY, edgecolor="white"
    )
    for one in row.bins:
        if one.n:
            axes.text(float(one.low) + 0.05, one.n, str(one.n), ha="center", va="bottom", fontsize=8)
    axes.set_ylim(0, 1.2 * max(counts))


def _accuracy_vs_threshold(rows: Sequence[Summary]) -> Figure:
    figure, axes = _curve_axes("Accuracy of the answers that are kept", _THRESHOLD_LABEL, "Accuracy")
    for row in rows:
        steps = [(point.threshold, point.accuracy) for point in reversed(row.curve)]
        _draw_steps(axes, row.name, steps, {at.threshold: at.accuracy for at in row.thresholds})
    axes.legend(title="Accuracy in % at 0, 0.5 and 0.9", **_LEGEND)
    return figure


def _coverage_vs_threshold(rows: Sequence[Summary]) -> Figure:
    figure, axes = _curve_axes("Share of the rows that is kept", _THRESHOLD_LABEL, "Coverage")
    for row in rows:
        steps = [(point.threshold, point.coverage) for point in reversed(row.curve)]
        if steps[-1][0] < 1:
            steps.append((1.0, 0.0))
        _draw_steps(axes, row.name, steps, {at.threshold: at.coverage for at in row.thresholds})
    axes.legend(title="Coverage in % at 0, 0.5 and 0.9", **_LEGEND)
    return figure


def _accuracy_vs_coverage(rows: Sequence[Summary]) -> Figure:
    figure, axes = _curve_axes("Accuracy of the most confident answers", "Coverage", "Accuracy")
    for row in rows:
        color, marker, dashes = _LINES[row.name]
        half = next((point for point in row.curve if point.coverage >= 0.5), row.curve[-1])
        shown = [f"{percent(p.accuracy, 6)} @ {percent(p.coverage, 6)}" for p in (half, row.curve[-1])]
        axes.plot(
            [point.coverage for point in row.curve],
            [point.accuracy for point in row.curve],
            color=color,
            marker=marker,
            markersize=4,
            markevery=max(1, len(row.curve) // 12),
            linestyle=dashes,
            label=" ".join([f"{row.name:<8}", *shown]),
        )
    axes.legend(title="Accuracy @ coverage in %: at least half, all with a confidence", **_LEGEND)
    return figure


_SELECTIVE_FIGURES: dict[str, Callable[[Sequence[Summary]], Figure]] = {
    "accuracy_vs_threshold.png": _accuracy_vs_threshold,
    "coverage_vs_threshold.png": _coverage_vs_threshold,
    "accuracy_vs_coverage.png": _accuracy_vs_coverage,
}


def _draw_steps(
    axes: Axes, name: str, steps: Sequence[tuple[float, float]], marks: Mapping[Decimal, float | None]
) -> None:
    """A step line through every stated confidence, marks at the tenths, the values in the legend.

    At a threshold between two stated confidences the answers of the upper one are kept, so a step reaches
    down to the confidence below it (`pre`).
    """
    color, marker, dashes = _LINES[name]
    x, y = [0.0, *(at for at, _ in steps)], [steps[0][1], *(score for _, score in steps)]
    axes.plot(x, y, color=color, linestyle=dashes, drawstyle="steps-pre")
    marked = [(float(at), score) for at, score in marks.items() if score is not None]
    axes.plot(
        [at for at, _ in marked], [score for _, score in marked], color=color, marker=marker, linestyle="none"
    )
    shown = [percent(score, 6) for score in (y[0], marks[Decimal("0.5")], marks[Decimal("0.9")])]
    axes.plot([], [], color=color, marker=marker, linestyle=dashes, label=" ".join([f"{name:<8}", *shown]))


def _curve_axes(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = _new_figure(6.4, 4.8)
    axes = figure.subplots()
    axes.set(title=title, xlabel=x_label, ylabel=y_label, xlim=(0, 1.01), ylim=(0, 1.04))
    axes.grid(color=_GREY, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
