"""The log of a stage-3 run: every rollout with its reward as one JSON line, written while training goes on.

The engines call rewards from threads and from several processes at once. So nothing is kept between two
calls: each opens the log, locks it, appends its line in one write, and closes it.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from emocaliber.jsonl import JsonlAppender, PathLike, RecordError
from emocaliber.response import parse
from emocaliber.reward import compute_reward


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
    parts = compute_reward(response, truth, candidates, reward)
    if log:
        label = parse(response, candidates).label
        line = {"time": time.time(), "pid": os.getpid()} | {key: _plain(value) for key, value in row.items()}
        append_row(log, line | {"response": response, "truth": truth, "label": label} | parts)
    return parts


def append_row(log: PathLike, row: Mapping[str, Any]) -> None:
    """Append one line, whole, whoever else is appending; what a killed writer left half-written is removed.

    Raises RecordError if the file cannot be written.
    """
    try:
        with _open_with_folder(log) as file:
            # Given back when the file is closed, also if this process is killed.
            fcntl.flock(file, fcntl.LOCK_EX)
            with JsonlAppender(log) as appender:
                appender.write(row)
    except OSError as error:
        raise _unwritable(log, error) from None


def check_writable(log: PathLike) -> None:
    """Make the log if it is not there, so that a training that could not write it ends before it starts.

    Raises RecordError if the file cannot be written.
    """
    try:
        _open_with_folder(log).close()
    except OSError as error:
        raise _unwritable(log, error) from None


def _open_with_folder(log: PathLike) -> FileIO:
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    return open(log, "ab", buffering=0)


def _unwritable(log: PathLike, error: OSError) -> RecordError:
    reason = error.strerror or type(error).__name__
    return RecordError(f"{log}: the reward log cannot be written ({reason}); give a file that can be")


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
