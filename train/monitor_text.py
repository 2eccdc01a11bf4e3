"""The state of a stage-3 run as plain text, at most 100 columns wide."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from emocaliber.rollout_statistics import (
    HELD_OUT,
    LEAST_FOR_ALARM,
    PARTS,
    Course,
    Rollout,
    WindowStatistics,
    window_statistics,
)

_LEVELS = "▁▂▃▄▅▆▇█"
_COURSE_WIDTH = 40
_BAR_WIDTH = 36
_NAME_WIDTH = 18


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
        values = [_scaled(pick(block), factor) for block in run.blocks]
        first, last = (_scaled(pick(one), factor) for one in (run.first, run.last))
        change = None if first is None or last is None else last - first
        n_decimals = 1 if factor == 100 else 3
        lines.append(
            f"{name:{_NAME_WIDTH}}{_number(first, 8, n_decimals)}{_number(last, 8, n_decimals)}"
            f"{_number(change, 9, n_decimals, '+')}  {_sparkline(values)}".rstrip()
        )
    return lines


def _part(name: str) -> Callable[[WindowStatistics], float | None]:
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


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value


def _number(value: float | None, width: int, n_decimals: int, sign: str = "") -> str:
    return f"{'-':>{width}}" if value is None else f"{value:{sign}{width}.{n_decimals}f}"


def _sparkline(values: Sequence[float | None]) -> str:
    """Means of neighbouring windows as blocks from the least to the greatest value; blank where undefined."""
    size = -(-len(values) // _COURSE_WIDTH)
    known = [[v for v in values[i : i + size] if v is not None] for i in range(0, len(values), size)]
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
        f"{_number(one.means['confidence'], 8, 3)}{_number(_scaled(one.ece, 100), 8, 1)}"
        f"{_number(_scaled(one.ece_by_chance, 100), 11, 1)}{_number(one.brier, 8, 3)}"
        f"{_number(_scaled(one.auroc, 100), 9, 1)}{_number(100 * one.parse_rate, 9, 1)}"
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
