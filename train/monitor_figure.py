"""The course of a stage-3 run as one PNG: a point per window, and the confidences at first and at last."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emocaliber.jsonl import RecordError
from emocaliber.report.figure_style import (
    BLUE,
    GREEN,
    GREY,
    VERMILION,
    clean,
    figure_settings,
    new_figure,
)
from emocaliber.rollout_statistics import MOST_OF_ONE_VALUE, Course, WindowStatistics, least_parse_rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Pick = Callable[[WindowStatistics], float | None]

_DOTS_PER_INCH = 150


def draw(run: Course, path: Path) -> None:
    """Draw the run; afterwards the file holds the new figure, or what it held before.

    Raises RecordError if the file cannot be written.
    """
    with figure_settings():
        figure = new_figure(12.5, 6.2, column_gap=0.05)
        panels = figure.subplots(2, 4).flat
        for axes, draw_panel in zip(panels, _PANELS, strict=True):
            draw_panel(axes, run)
            clean(axes)
        figure.suptitle(f"{run.last.first + run.last.n - 1:,} training rollouts, windows of {run.last.n:,}")
        content = _png(figure)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise RecordError(f"{path}: cannot be written ({error.strerror}); give another --figure") from None


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(_DOTS_PER_INCH)
    content = io.BytesIO()
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(content)
    return content.getvalue()


def _line(axes: Axes, run: Course, pick: _Pick, colour: str, marker: str, label: str | None = None) -> None:
    """A value per window at its middle; with a marker, as a single window would not show otherwise."""
    x, y = _middles(run.blocks), [_or_nan(pick(block)) for block in run.blocks]
    axes.plot(x, y, color=colour, marker=marker, markersize=3, linewidth=1.3, label=label)
    axes.set_xlim(0, run.last.first + run.last.n)
    axes.locator_params(axis="x", nbins=4)
    axes.set_xlabel("rollouts")


def _middles(blocks: Sequence[WindowStatistics]) -> list[float]:
    return [block.first + block.n / 2 for block in blocks]


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _score(axes: Axes, run: Course) -> None:
    _line(axes, run, lambda one: one.means["score"], BLUE, "o")
    axes.set_title("Mean score", fontsize=10)


def _correct(axes: Axes, run: Course) -> None:
    _line(axes, run, lambda one: one.means["correct"], BLUE, "o", "right answers")
    _line(axes, run, lambda one: one.means["confidence"], VERMILION, "s", "mean confidence")
    _share_axis(axes, "Right answers and confidence")
    axes.legend(fontsize=8, frameon=False)


def _confidence(axes: Axes, run: Course) -> None:
    _line(axes, run, lambda one: one.means["confidence"], VERMILION, "s")
    middle = [_or_nan(block.means["confidence"]) for block in run.blocks]
    sd = [_or_nan(block.confidence_sd) for block in run.blocks]
    low, high = ([m + sign * s for m, s in zip(middle, sd, strict=True)] for sign in (-1, 1))
    axes.fill_between(_middles(run.blocks), low, high, color=VERMILION, alpha=0.2, linewidth=0)
    _share_axis(axes, "Confidence: mean ± one SD")


def _ece(axes: Axes, run: Course) -> None:
    _line(axes, run, lambda one: one.ece_by_chance, GREY, "", "if calibrated")
    _line(axes, run, lambda one: one.ece, BLUE, "o", "ECE")
    axes.set_ylim(bottom=0)
    axes.set_title("ECE", fontsize=10)
    axes.legend(fontsize=8, frameon=False)


def _brier(axes: Axes, run: Course) -> None:
    _line(axes, run, lambda one: one.brier, BLUE, "o")
    axes.set_title("Brier score", fontsize=10)


def _parse_rate(axes: Axes, run: Course) -> None:
    _line(axes, run, lambda one: one.parse_rate, GREEN, "^")
    _limit(axes, least_parse_rate(run.first), "alarm below")
    _share_axis(axes, "Parse rate")


def _commonest(axes: Axes, run: Course) -> None:
    _line(axes, run, lambda one: one.commonest_share, VERMILION, "s")
    _limit(axes, MOST_OF_ONE_VALUE, "alarm above")
    _share_axis(axes, "Commonest confidence: share")


def _histograms(axes: Axes, run: Course) -> None:
    width = 0.04
    for one, shift, colour, label in (
        (run.first, 0.0, GREY, "first window"),
        (run.last, width, VERMILION, "last window"),
    ):
        x = [tenth / 10 + 0.01 + shift for tenth in range(10)]
        axes.bar(x, one.histogram, width=width, align="edge", color=colour, label=label)
    axes.set(xlim=(0, 1), xlabel="confidence")
    axes.set_title("Confidences: share of rollouts", fontsize=10)
    axes.legend(fontsize=8, frameon=False)


def _limit(axes: Axes, value: float, label: str) -> None:
    axes.axhline(value, color=GREY, linestyle="--", linewidth=1, label=label)
    axes.legend(handles=axes.lines[-1:], fontsize=8, frameon=False)


def _share_axis(axes: Axes, title: str) -> None:
    axes.set_ylim(0, 1.03)
    axes.set_title(title, fontsize=10)


_PANELS = (_score, _correct, _confidence, _ece, _brier, _parse_rate, _commonest, _histograms)
