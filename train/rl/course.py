"""The course of a stage-3 run from the log of its reward: as text, as a figure, while the log grows."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emocaliber.jsonl import RecordError
from emocaliber.metrics.counts import FloatArray
from emocaliber.report.figure_style import (
    BLUE,
    GREEN,
    GREY,
    VERMILION,
    clean,
    encoded,
    figure_settings,
    new_figure,
)
from emocaliber.reward_log import (
    HELD_OUT,
    LEAST_FOR_ALARM,
    MOST_OF_ONE_VALUE,
    PARTS,
    Course,
    RewardLogReader,
    Rollout,
    WindowStatistics,
    alarms,
    course,
    least_parse_rate,
    rollout_of,
    window_statistics,
)
from train.stages.markdown import write_bytes_atomic

if TYPE_CHECKING:  # matplotlib takes a while, and only --figure needs it
    from matplotlib.axes import Axes

ALARM_STATUS = 3
_HOME_AND_CLEAR = "\x1b[H\x1b[J"
_LEVELS = "▁▂▃▄▅▆▇█"
_COURSE_WIDTH = 40
_BAR_WIDTH = 36
_NAME_WIDTH = 18

_Pick = Callable[[WindowStatistics], float | None]


def watch(arguments: argparse.Namespace) -> int:
    """Show the log once, or until interrupted; give the exit status."""
    if arguments.exit_on_alarm and arguments.window < LEAST_FOR_ALARM:
        raise RecordError(
            f"--window {arguments.window}: alarms need windows of {LEAST_FOR_ALARM} rollouts; give no less"
        )
    reader = RewardLogReader(arguments.log)
    rollouts: list[Rollout] = []
    while True:
        n_before = len(rollouts)
        if not arguments.follow or is_there(arguments.log):
            for row in reader.new_rows():
                rollouts.append(rollout_of(row, f"{arguments.log}:{len(rollouts) + 1}"))
        if not rollouts and not arguments.follow:
            raise RecordError(f"{arguments.log}: no rollouts yet; wait for the first step, or use --follow")
        if len(rollouts) > n_before or not rollouts:
            found = show(rollouts, arguments)
            if found and arguments.exit_on_alarm:
                return ALARM_STATUS
        if not arguments.follow:
            return 0
        time.sleep(arguments.refresh)


def is_there(log: Path) -> bool:
    """Has the run begun to write? Raises RecordError where not even the folder is there."""
    if not log.exists() and not log.parent.is_dir():
        raise RecordError(f"{log}: no such folder; give the rewards.jsonl of a stage-3 run")
    return log.exists()


def show(rollouts: Sequence[Rollout], arguments: argparse.Namespace) -> list[str]:
    """Print the state of the run and draw it; give the alarms."""
    training = [rollout for rollout in rollouts if rollout.split not in HELD_OUT]
    run = course(training, arguments.window) if training else None
    found = alarms(run) if run else []
    block = report(str(arguments.log), rollouts, run, found, arguments.window)
    if sys.stdout.isatty() and arguments.follow:
        block = _HOME_AND_CLEAR + block
    print(block, flush=True)
    if arguments.figure and run:
        draw(run, arguments.figure)
    return found


def report(
    log: str, rollouts: Sequence[Rollout], run: Course | None, alarms: Sequence[str], window: int
) -> str:
    """The whole text: what there is, the course of the run, each task, the confidences, the alarms.

    Args:
        log: its name, for the head.
        rollouts: of every split, in the order of the log.
        run: of the training rollouts; None if there are none.
        alarms: lines to end with.
        window: rollouts in the windows of the held-out splits.
    """
    training = [row for row in rollouts if row.split not in HELD_OUT]
    lines = [log, _head(training, run), ""]
    if run is not None:
        lines += [*_course_table(run), "", *_score_table(training, rollouts, run.last.n, window), ""]
        lines += [*_histogram(run), _groups(run), *(alarms or [_no_alarm(run)])]
    else:
        lines += _score_table(training, rollouts, window, window)
    return "\n".join(lines) + "\n"


def _head(training: Sequence[Rollout], run: Course | None) -> str:
    if run is None:
        return "no training rollouts yet"
    recent = training[-run.last.n :]
    seconds = max(row.time for row in recent) - min(row.time for row in recent)
    rate = f"{(len(recent) - 1) / seconds:,.1f} a second in the last window" if seconds > 0 else "no rate yet"
    return f"{len(training):,} training rollouts, {rate}; windows of {run.last.n:,}"


def _course_table(run: Course) -> list[str]:
    """First and last window, the change, and every full window between as a line of blocks."""
    lines = [f"{'':{_NAME_WIDTH}}{'first':>8}{'last':>8}{'change':>9}  over the run"]
    for name, factor, pick in _MEASURES:
        first, last, *values = factor * _floats(pick, (run.first, run.last, *run.blocks))
        n_decimals = 1 if factor == 100 else 3
        lines.append(
            f"{name:{_NAME_WIDTH}}{_number(first, 8, n_decimals)}{_number(last, 8, n_decimals)}"
            f"{_number(last - first, 9, n_decimals, '+')}  {_sparkline(values)}".rstrip()
        )
    return lines


def _part(name: str) -> _Pick:
    return lambda one: one.means[name]


_MEASURES = (
    *((name, 1, _part(name)) for name in PARTS),
    ("parse rate %", 100, lambda one: one.parse_rate),
    ("ECE %", 100, lambda one: one.ece),
    ("  by chance %", 100, lambda one: one.ece_by_chance),
    ("AUROC %", 100, lambda one: one.auroc),
    ("sd of confidence", 1, lambda one: one.confidence_sd),
    ("commonest value %", 100, lambda one: one.commonest_share),
    ("equal rewards %", 100, lambda one: one.equal_groups),
)


def _floats(pick: _Pick, windows: Iterable[WindowStatistics]) -> FloatArray:
    """A number of each window, NaN where it is undefined."""
    return np.array([pick(one) for one in windows], dtype=float)


def _number(value: float | None, width: int, n_decimals: int, sign: str = "", factor: int = 1) -> str:
    if value is None or np.isnan(value):
        return f"{'-':>{width}}"
    return f"{factor * value:{sign}{width}.{n_decimals}f}"


def _sparkline(values: Sequence[float]) -> str:
    """Means of neighbouring windows as blocks from the least to the greatest value; blank where undefined."""
    size = -(-len(values) // _COURSE_WIDTH)
    known = [[v for v in values[i : i + size] if not np.isnan(v)] for i in range(0, len(values), size)]
    means = [sum(part) / len(part) if part else None for part in known]
    least = min((v for v in means if v is not None), default=0.0)
    span = max((v for v in means if v is not None), default=0.0) - least
    steps = len(_LEVELS) - 1
    return "".join(
        " " if v is None else _LEVELS[round(steps * (v - least) / span) if span > 1e-9 else 0] for v in means
    )


def _score_table(
    training: Sequence[Rollout], rollouts: Sequence[Rollout], size: int, window: int
) -> list[str]:
    """Calibration of the last window, per task and over all, and of the latest rollouts of other splits."""
    lines = [
        f"{'last window':{_NAME_WIDTH}}{'n':>7}{'correct':>9}{'conf.':>8}{'ECE %':>8}{'by chance':>11}"
        f"{'Brier':>8}{'AUROC %':>9}{'parse %':>9}"
    ]
    recent = training[-size:]
    for task in sorted({row.task for row in recent}):
        lines.append(_score_line(task, [row for row in recent if row.task == task]))
    if recent:
        lines.append(_score_line("all", recent))
    for split in sorted({row.split for row in rollouts} & HELD_OUT):
        lines.append(_score_line(f"({split})", [row for row in rollouts if row.split == split][-window:]))
    return lines


def _score_line(name: str, rows: Sequence[Rollout]) -> str:
    one = window_statistics(rows)
    cut = name if len(name) < _NAME_WIDTH else name[: _NAME_WIDTH - 2] + "…"
    return (
        f"{cut:{_NAME_WIDTH}}{one.n:>7,}{_number(one.means['correct'], 9, 3)}"
        f"{_number(one.means['confidence'], 8, 3)}{_number(one.ece, 8, 1, factor=100)}"
        f"{_number(one.ece_by_chance, 11, 1, factor=100)}{_number(one.brier, 8, 3)}"
        f"{_number(one.auroc, 9, 1, factor=100)}{_number(one.parse_rate, 9, 1, factor=100)}"
    )


def _histogram(run: Course) -> list[str]:
    """The stated confidences by tenths, first and last window side by side, on one scale."""
    lines = [f"{'confidence':{_NAME_WIDTH}}{'first window':{_BAR_WIDTH + 4}}last window"]
    most = max(0.01, *run.first.histogram, *run.last.histogram)
    for tenth, shares in enumerate(zip(run.first.histogram, run.last.histogram, strict=True)):
        bars = [f"{'#' * round((_BAR_WIDTH - 6) * share / most)} {share:.0%}".strip() for share in shares]
        name = f"{tenth / 10:.1f} - {(tenth + 1) / 10:.1f}"
        lines.append(f"{name:{_NAME_WIDTH}}{bars[0]:{_BAR_WIDTH + 4}}{bars[1]}")
    return lines


def _groups(run: Course) -> str:
    one = run.last
    value = "no confidence is stated"
    if one.commonest is not None and one.commonest_share is not None:
        value = f"commonest confidence {one.commonest:g} ({one.commonest_share:.0%})"
    groups = "the log names no prompts (`id`)"
    if one.equal_groups is not None:
        groups = f"{one.equal_groups:.0%} of {one.n_groups:,} prompts give no gradient: all rewards equal"
    return f"last window: {value}; {groups}"


def _no_alarm(run: Course) -> str:
    if run.last.n < LEAST_FOR_ALARM:
        return f"no alarms yet: they need windows of {LEAST_FOR_ALARM} rollouts"
    return "no alarm"


_Line = tuple[_Pick, str, str, str | None]
"""A number of each window, and how it is drawn: colour, marker, label."""
_CONFIDENCE_TITLE = "Confidence: mean ± one SD"
_PANELS: dict[str, tuple[_Line, ...]] = {
    "Mean score": ((_part("score"), BLUE, "o", None),),
    "Right answers and confidence": (
        (_part("correct"), BLUE, "o", "right answers"),
        (_part("confidence"), VERMILION, "s", "mean confidence"),
    ),
    _CONFIDENCE_TITLE: ((_part("confidence"), VERMILION, "s", None),),
    "ECE": (
        (lambda one: one.ece_by_chance, GREY, "", "if calibrated"),
        (lambda one: one.ece, BLUE, "o", "ECE"),
    ),
    "Brier score": ((lambda one: one.brier, BLUE, "o", None),),
    "Parse rate": ((lambda one: one.parse_rate, GREEN, "^", None),),
    "Commonest confidence: share": ((lambda one: one.commonest_share, VERMILION, "s", None),),
}
_NOT_SHARES = ("Mean score", "ECE", "Brier score")


def draw(run: Course, path: Path) -> None:
    """Draw the run; afterwards the file holds the new figure, or what it held before.

    Raises RecordError if the file cannot be written.
    """
    limits = {
        "Parse rate": (least_parse_rate(run.first), "alarm below"),
        "Commonest confidence: share": (MOST_OF_ONE_VALUE, "alarm above"),
    }
    with figure_settings():
        figure = new_figure(12.5, 6.2, column_gap=0.05)
        *panels, last = figure.subplots(2, 4).flat
        for axes, (title, lines) in zip(panels, _PANELS.items(), strict=True):
            _draw_lines(axes, run, lines)
            axes.set_title(title, fontsize=10)
            if title == _CONFIDENCE_TITLE:
                _draw_spread(axes, run)
            if title in limits:
                value, label = limits[title]
                axes.axhline(value, color=GREY, linestyle="--", linewidth=1, label=label)
            if title not in _NOT_SHARES:
                axes.set_ylim(0, 1.03)
            elif title == "ECE":
                axes.set_ylim(bottom=0)
        _draw_histograms(last, run)
        for axes in (*panels, last):
            if axes.get_legend_handles_labels()[1]:
                axes.legend(fontsize=8, frameon=False)
            clean(axes)
        figure.suptitle(f"{run.last.first + run.last.n - 1:,} training rollouts, windows of {run.last.n:,}")
        content = encoded(figure)[".png"]
    try:
        write_bytes_atomic(path, content)
    except OSError as error:
        raise RecordError(f"{path}: cannot be written ({error.strerror}); give another --figure") from None


def _draw_lines(axes: Axes, run: Course, lines: Sequence[_Line]) -> None:
    """Values of the windows at their middles; with markers, as a single window would not show otherwise."""
    for pick, colour, marker, label in lines:
        style: dict[str, Any] = {"color": colour, "marker": marker, "label": label}
        axes.plot(_middles(run), _floats(pick, run.blocks), markersize=3, linewidth=1.3, **style)
    axes.set_xlim(0, run.last.first + run.last.n)
    axes.locator_params(axis="x", nbins=4)
    axes.set_xlabel("rollouts")


def _draw_spread(axes: Axes, run: Course) -> None:
    middle, sd = _floats(_part("confidence"), run.blocks), _floats(lambda one: one.confidence_sd, run.blocks)
    axes.fill_between(_middles(run), middle - sd, middle + sd, color=VERMILION, alpha=0.2, linewidth=0)


def _draw_histograms(axes: Axes, run: Course) -> None:
    width = 0.04
    windows = ((run.first, 0.0, GREY, "first window"), (run.last, width, VERMILION, "last window"))
    for one, shift, colour, label in windows:
        x = [tenth / 10 + 0.01 + shift for tenth in range(10)]
        axes.bar(x, one.histogram, width=width, align="edge", color=colour, label=label)
    axes.set(xlim=(0, 1), xlabel="confidence")
    axes.set_title("Confidences: share of rollouts", fontsize=10)


def _middles(run: Course) -> list[float]:
    return [block.first + block.n / 2 for block in run.blocks]
