"""The log of a stage-3 run, a JSON line for every rollout with its reward, and what it shows over time.

The engines call rewards from threads and from several processes at once. So nothing is kept between two
calls: each opens the log, locks it, appends its line in one write, and closes it.

What is read back is taken in windows of equal size, in the order of the log: reward parts, calibration, and
signs of collapse. Every number is of one window.
"""

import fcntl
import json
import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

from emocaliber.jsonl import JsonlAppender, PathLike, RecordError
from emocaliber.metrics.calibration import auroc, brier, calibrated_by_chance, ece
from emocaliber.metrics.counts import level_counts, mean, number
from emocaliber.response import parse
from emocaliber.reward import read_and_reward


def reward_and_log(
    response: str,
    truth: str,
    candidates: Sequence[str],
    *,
    reward: str,
    log: PathLike | None,
    row: Mapping[str, Any],
) -> dict[str, float]:
    """Compute a reward and, where `log` is given, append the rollout to it.

    Args:
        response: what the policy wrote.
        truth: the right label.
        candidates: the labels to choose from.
        reward: a name in `emocaliber.reward.REWARDS`.
        log: file of JSON lines; None or an empty name keeps no log. Made with its folder if it is not there.
        row: what the line says of the rollout besides, such as `id`, `task`, `engine`, `step`, `split`.
    Returns:
        The parts of the reward, as `compute_reward` gives them.
    Raises:
        RecordError: the log cannot be written. A log with holes would show a training that did not happen,
            so the run ends at its first lost line; the checkpoints before it are untouched.
    """
    parts, parsed = read_and_reward(response, truth, candidates, reward)
    if log:
        label = (parsed or parse(response, candidates)).label  # the strict reading does not parse
        line = {"time": time.time(), "pid": os.getpid()} | {key: _plain(value) for key, value in row.items()}
        append_row(log, line | {"response": response, "truth": truth, "label": label} | parts)
    return parts


def append_row(log: PathLike, row: Mapping[str, Any]) -> None:
    """Append one line, whole, whoever else is appending; what a killed writer left half-written is removed.

    Raises RecordError if the file cannot be written.
    """
    with _open_to_append(log) as file:
        # Given back when the file is closed, also if this process is killed.
        fcntl.flock(file, fcntl.LOCK_EX)
        with JsonlAppender(log) as appender:
            appender.write(row)


def check_writable(log: PathLike) -> None:
    """Make the log if it is not there, so that a training that could not write it ends before it starts.

    Raises RecordError if the file cannot be written.
    """
    with _open_to_append(log):
        pass


@contextmanager
def _open_to_append(log: PathLike) -> Iterator[FileIO]:
    try:
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab", buffering=0) as file:
            yield file
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise RecordError(
            f"{log}: the reward log cannot be written ({reason}); give a file that can be"
        ) from None


def _plain(value: Any) -> Any:
    """A value as JSON has it: the engines hand over NumPy scalars and arrays, and NaN for what is missing."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return None if isinstance(value, float) and not math.isfinite(value) else value


class RewardLogReader:
    """Reads a log that may still grow: each `new_rows` gives what has been added since the one before.

    A last line without its end is being written, or was cut off: it is left for the next time.
    """

    def __init__(self, path: PathLike) -> None:
        self._path = path
        self._offset = 0
        self._line = 0

    def new_rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of the lines that are complete and have not been given yet.

        Raises RecordError for a file that cannot be read or has become shorter, and for a line that is not a
        JSON object, with its number.
        """
        try:
            with open(self._path, "rb") as file:
                if file.seek(0, os.SEEK_END) < self._offset:
                    raise RecordError(f"{self._path}: shorter than before, another run's log; start anew")
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        return
                    self._offset += len(line)
                    self._line += 1
                    yield self._row(line)
        except OSError as error:
            raise RecordError(
                f"{self._path}: cannot be read ({error.strerror}); give the rewards.jsonl of a stage-3 run"
            ) from None

    def _row(self, line: bytes) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise RecordError(f"{self._path}:{self._line}: not a JSON object; give the log of a stage-3 run")
        return row


def read_reward_log(path: PathLike) -> Iterator[dict[str, Any]]:
    """Yield the rows of a log, in the order in which they were written; a torn last line is passed over.

    Raises RecordError for a file that cannot be read and for a complete line that is not a JSON object.
    """
    return RewardLogReader(path).new_rows()


PARTS = ("score", "format", "correct", "confidence", "brier", "log_score")
"""The parts of a reward that have a mean per window; that of `confidence` is over the stated ones."""

HELD_OUT = frozenset({"val", "validation", "test"})
"""The values of `split` that are no training rollouts; a row without a split is one."""

LEAST_FOR_ALARM = 200
"""Rollouts in a window below which no alarm is raised: chance alone moves the parse rate by points there."""

LEAST_SD, LEAST_SHARE_OF_FIRST_SD = 0.01, 0.25
MOST_OF_ONE_VALUE = 0.80
LEAST_PARSE_RATE, MOST_PARSE_FALL = 0.90, 0.05

_CHANCE_DRAWS = 200
_SAME_REWARD = 1e-9
_SCORE, _CORRECT = PARTS.index("score"), PARTS.index("correct")


class Rollout(NamedTuple):
    """One line of the log. `parts` in the order of `PARTS`; `confidence` is None where none was stated.

    `is_parsed`: a label and a confidence could be read. `group`: equal for the rollouts of one prompt in one
    step, None where the log does not tell.
    """

    time: float
    task: str
    split: str
    group: tuple[str, str] | None
    parts: tuple[float, ...]
    confidence: float | None
    is_parsed: bool


def rollout_of(row: Mapping[str, Any], where: str) -> Rollout:
    """Read a line of the log. Raises RecordError, which begins with `where`, for one that is no rollout."""
    missing = [key for key in ("time", *PARTS, "answered") if not _is_number(row.get(key))]
    if missing:
        raise RecordError(f"{where}: no number {missing[0]!r}; give the rewards.jsonl of a stage-3 run")
    stated = float(row["confidence"])
    confidence = stated if 0 <= stated <= 1 else None
    return Rollout(
        time=float(row["time"]),
        task=str(row.get("task") or "no task"),
        split=str(row.get("split") or "train"),
        group=None if row.get("id") is None else (str(row.get("step")), str(row["id"])),
        parts=tuple(float(row[part]) for part in PARTS),
        confidence=confidence,
        is_parsed=bool(row["answered"]) and confidence is not None,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


@dataclass(frozen=True)
class WindowStatistics:
    """The numbers of one window of `n` rollouts, whose first is number `first` of the run, from 1.

    `means` per part of the reward. `parse_rate`: share with a label and a confidence. Of the rollouts that
    state a confidence: `ece` and what honest confidences would show by chance, `brier`, `auroc`, the
    standard deviation `confidence_sd`, the `commonest` value and its share, and `histogram`, the share of
    each tenth. `equal_groups`: of `n_groups` prompts the share whose rollouts all have the same reward, which
    gives GRPO no gradient. Shares and scores are in [0, 1], None where undefined.
    """

    first: int
    n: int
    means: Mapping[str, float | None]
    parse_rate: float
    ece: float | None
    ece_by_chance: float | None
    brier: float | None
    auroc: float | None
    confidence_sd: float | None
    commonest: float | None
    commonest_share: float | None
    histogram: tuple[float, ...]
    equal_groups: float | None
    n_groups: int


def window_statistics(rollouts: Sequence[Rollout], first: int = 1) -> WindowStatistics:
    """Work out the numbers of at least one rollout."""
    confidences = [row.confidence for row in rollouts]
    stated = [confidence for confidence in confidences if confidence is not None]
    levels = level_counts(confidences, [bool(row.parts[_CORRECT]) for row in rollouts])
    by_chance = calibrated_by_chance(levels, _CHANCE_DRAWS, seed=0)
    means = {part: mean([row.parts[place] for row in rollouts]) for place, part in enumerate(PARTS)}
    means["confidence"] = middle = mean(stated)
    spread = None if middle is None else mean([(value - middle) ** 2 for value in stated])
    commonest, count = Counter(stated).most_common(1)[0] if stated else (None, 0)
    are_equal = _groups_with_equal_rewards(rollouts)
    return WindowStatistics(
        first=first,
        n=len(rollouts),
        means=means,
        parse_rate=sum(row.is_parsed for row in rollouts) / len(rollouts),
        ece=number(ece(levels)),
        ece_by_chance=None if by_chance is None else by_chance.mean,
        brier=number(brier(levels)),
        auroc=number(auroc(levels)),
        confidence_sd=None if spread is None else math.sqrt(spread),
        commonest=commonest,
        commonest_share=count / len(stated) if stated else None,
        histogram=tuple(float(share) for share in levels.binned(levels.n) / max(1, len(stated))),
        equal_groups=sum(are_equal) / len(are_equal) if are_equal else None,
        n_groups=len(are_equal),
    )


def _groups_with_equal_rewards(rollouts: Sequence[Rollout]) -> list[bool]:
    """For each prompt with at least two rollouts here: have they all the same reward?"""
    scores: dict[tuple[str, str], list[float]] = {}
    for row in rollouts:
        if row.group is not None:
            scores.setdefault(row.group, []).append(row.parts[_SCORE])
    return [max(group) - min(group) < _SAME_REWARD for group in scores.values() if len(group) > 1]


@dataclass(frozen=True)
class Course:
    """A run over time: its `first` and its `last` window, which never overlap in a run of two rollouts or
    more, and `blocks`, the full windows one after another from the first on."""

    first: WindowStatistics
    last: WindowStatistics
    blocks: tuple[WindowStatistics, ...]


def course(rollouts: Sequence[Rollout], window: int) -> Course:
    """Divide at least one rollout into windows of `window`, or of half of them where they are fewer than two.

    Args:
        rollouts: in the order of the log.
        window: at least 1.
    """
    n = len(rollouts)
    size = max(1, min(window, n // 2))
    blocks = tuple(
        window_statistics(rollouts[start : start + size], start + 1) for start in range(0, n - size + 1, size)
    )
    return Course(blocks[0], window_statistics(rollouts[n - size :], n - size + 1), blocks)


def alarms(run: Course) -> list[str]:
    """One line for each sign of collapse in the last window; none where windows are below LEAST_FOR_ALARM.

    "Since" is the start of the unbroken row of windows that show it.
    """
    if run.last.n < LEAST_FOR_ALARM:
        return []
    found = []
    for sign, message in _signs_of_collapse(run.first, run.last).items():
        since = run.last.first
        for block in reversed(run.blocks):
            if sign not in _signs_of_collapse(run.first, block):
                break
            since = min(since, block.first)
        found.append(f"alarm: {message}, since rollout {since:,}; {_REMEDIES[sign]}")
    return found


def least_parse_rate(first: WindowStatistics) -> float:
    """The parse rate below which there is an alarm, after a run's first window."""
    return max(LEAST_PARSE_RATE, first.parse_rate - MOST_PARSE_FALL)


def _signs_of_collapse(first: WindowStatistics, now: WindowStatistics) -> dict[str, str]:
    """Say what is wrong with a window, by the keys of `_REMEDIES`."""
    signs = {}
    least_sd = max(LEAST_SD, LEAST_SHARE_OF_FIRST_SD * (first.confidence_sd or 0.0))
    if now.confidence_sd is not None and now.confidence_sd < least_sd:
        at_first = "none" if first.confidence_sd is None else f"{first.confidence_sd:.3f}"
        signs["flat"] = (
            f"the standard deviation of the confidences is {now.confidence_sd:.3f}, below {least_sd:.3f} "
            f"(at first {at_first})"
        )
    if now.commonest_share is not None and now.commonest_share > MOST_OF_ONE_VALUE:
        share = f"{now.commonest_share:.0%} of the confidences are {now.commonest:g}"
        signs["one_value"] = f"{share}, more than {MOST_OF_ONE_VALUE:.0%}"
    if now.parse_rate < least_parse_rate(first):
        limit = f"below {least_parse_rate(first):.1%} (at first {first.parse_rate:.1%})"
        signs["unparsed"] = f"the parse rate is {now.parse_rate:.1%}, {limit}"
    return signs


_GO_BACK = "stop, and go on from a checkpoint before it with"
_REMEDIES = {
    **dict.fromkeys(
        ("flat", "one_value"),
        f"{_GO_BACK} a lower learning rate, a higher rollout temperature or REWARD=brier",
    ),
    "unparsed": f"read the last responses in the log; {_GO_BACK} a lower learning rate",
}
