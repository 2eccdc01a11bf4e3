"""The log of rewards: whole lines from many writers at once, one clear end, and what its rollouts show."""

import json
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emocaliber.jsonl import RecordError
from emocaliber.response import SECTIONS, render
from emocaliber.reward import REWARD_KEYS, compute_reward
from emocaliber.reward_log import (
    LEAST_FOR_ALARM,
    RewardLogReader,
    Rollout,
    alarms,
    append_row,
    check_writable,
    course,
    read_reward_log,
    reward_and_log,
    rollout_of,
    window_statistics,
)

LABELS = ["awe", "fear", "sadness"]
RESPONSE = render(dict.fromkeys(SECTIONS, "a dog"), "fear", 0.8)
N_PROCESSES, N_THREADS, N_LINES = 4, 4, 200
WRITER = """
import sys, threading
from emocaliber.reward_log import reward_and_log

log, process, n_threads, n_lines = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

def write(thread):
    for number in range(n_lines):
        name = f"{process}-{thread}-{number}"
        # Every hundredth line is longer than 64 KB.
        text = name * (16000 if number % 100 == 0 else 20)
        row = {"id": name, "task": "FI-2"}
        reward_and_log(text, "awe", ["awe", "fear"], reward="brier", log=log, row=row)

threads = [threading.Thread(target=write, args=(thread,)) for thread in range(n_threads)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def run_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_line_holds_the_rollout_and_its_reward(tmp_path: Path) -> None:
    log = tmp_path / "new" / "rewards.jsonl"
    row = {"id": "a", "task": "EmoSet-8", "step": 3, "split": "train"}
    result = reward_and_log(RESPONSE, "fear", LABELS, reward="brier", log=log, row=row)
    assert result == compute_reward(RESPONSE, "fear", LABELS, "brier")
    (line,) = read_reward_log(log)
    assert isinstance(line.pop("time"), float)
    assert isinstance(line.pop("pid"), int)
    assert line == row | {"response": RESPONSE, "truth": "fear", "label": "fear"} | result
    assert set(REWARD_KEYS) < set(line)


@pytest.mark.parametrize("log", [None, ""])
def test_without_a_log_there_is_only_the_reward(log: str | None) -> None:
    result = reward_and_log(RESPONSE, "awe", LABELS, reward="emocaliber", log=log, row={})
    assert result == compute_reward(RESPONSE, "awe", LABELS, "emocaliber")


@pytest.mark.slow
def test_many_processes_and_threads_lose_and_tear_nothing(tmp_path: Path) -> None:
    log = tmp_path / "rewards.jsonl"
    writers = [run_python(WRITER, log, process, N_THREADS, N_LINES) for process in range(N_PROCESSES)]
    for writer in writers:
        _, errors = writer.communicate(timeout=300)
        assert (writer.returncode, errors) == (0, "")
    rows = [json.loads(line) for line in log.read_bytes().splitlines()]  # every line, no reader's mercy
    expected = {
        f"{process}-{thread}-{number}"
        for process in range(N_PROCESSES)
        for thread in range(N_THREADS)
        for number in range(N_LINES)
    }
    assert Counter(row["id"] for row in rows) == Counter(expected)
    repeats = {len(row["response"]) // len(row["id"]) for row in rows}
    assert repeats == {20, 16000}
    assert all(row["response"] == row["id"] * (len(row["response"]) // len(row["id"])) for row in rows)
    assert max(len(row["response"]) for row in rows) > 1 << 16
    assert len({row["pid"] for row in rows}) == N_PROCESSES


def test_what_a_killed_writer_left_does_not_spoil_the_next_line(tmp_path: Path) -> None:
    log = tmp_path / "rewards.jsonl"
    append_row(log, {"id": 1})
    with log.open("ab") as file:
        file.write(b'{"id": 2, "resp')
    assert list(read_reward_log(log)) == [{"id": 1}]
    append_row(log, {"id": 3})
    assert log.read_bytes() == b'{"id": 1}\n{"id": 3}\n'


def test_a_full_disk_ends_with_one_message_and_leaves_whole_lines(tmp_path: Path) -> None:
    log = tmp_path / "rewards.jsonl"
    code = """
import resource, sys
from emocaliber.jsonl import RecordError
from emocaliber.reward_log import append_row
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    for number in range(100):
        append_row(sys.argv[1], {"number": number, "text": "x" * 300})
except RecordError as error:
    print(error)
"""
    writer = run_python(code, log)
    printed, errors = writer.communicate(timeout=60)
    assert errors == ""
    assert printed == f"{log}: the reward log cannot be written (File too large); give a file that can be\n"
    assert [row["number"] for row in read_reward_log(log)] == [0, 1, 2]
    append_row(log, {"number": 3})
    assert [json.loads(line)["number"] for line in log.read_bytes().splitlines()] == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["a_file/rewards.jsonl", "a_folder"])
def test_a_path_that_cannot_be_written_is_told_at_once(name: str, tmp_path: Path) -> None:
    (tmp_path / "a_file").touch()
    (tmp_path / "a_folder").mkdir()
    message = re.escape(f"{tmp_path / name}: the reward log cannot be written (")
    with pytest.raises(RecordError, match=f"^{message}"):
        check_writable(tmp_path / name)
    with pytest.raises(RecordError, match=f"^{message}"):
        reward_and_log(RESPONSE, "fear", LABELS, reward="brier", log=tmp_path / name, row={})


def test_a_check_keeps_what_is_there(tmp_path: Path) -> None:
    log = tmp_path / "new" / "rewards.jsonl"
    check_writable(log)
    assert log.read_bytes() == b""
    append_row(log, {"id": 1})
    check_writable(log)
    assert list(read_reward_log(log)) == [{"id": 1}]


def test_what_the_engines_hand_over_is_written_as_json(tmp_path: Path) -> None:
    log = tmp_path / "rewards.jsonl"
    row = {"id": np.int64(7), "labels": np.array(["awe"]), "step": float("nan"), "split": np.str_("train")}
    reward_and_log("\ud800 é", "fear", LABELS, reward="brier", log=log, row=row)
    (line,) = read_reward_log(log)
    assert [line[key] for key in row] == [7, ["awe"], None, "train"]
    assert line["response"] == "\ud800 é"


def test_a_reader_gives_only_what_is_new_and_waits_for_the_end_of_a_line(tmp_path: Path) -> None:
    log = tmp_path / "rewards.jsonl"
    reader = RewardLogReader(log)
    with log.open("ab", buffering=0) as file:
        file.write(b'{"id": 1}\n{"id"')
        assert list(reader.new_rows()) == [{"id": 1}]
        assert list(reader.new_rows()) == []
        file.write(b': 2}\n{"id": 3}\n')
        assert list(reader.new_rows()) == [{"id": 2}, {"id": 3}]


def test_a_reader_names_what_it_cannot_read(tmp_path: Path) -> None:
    log = tmp_path / "rewards.jsonl"
    with pytest.raises(RecordError, match=re.escape(f"{log}: cannot be read (No such file or directory)")):
        list(read_reward_log(log))
    log.write_text('{"id": 1}\n[2]\n', encoding="utf-8")
    with pytest.raises(RecordError, match=re.escape(f"{log}:2: not a JSON object")):
        list(read_reward_log(log))
    log.write_text('{"id": 1}\n{"id": 2}\n', encoding="utf-8")
    reader = RewardLogReader(log)
    assert len(list(reader.new_rows())) == 2
    log.write_text('{"id": 1}\n', encoding="utf-8")
    with pytest.raises(RecordError, match="shorter than before"):
        list(reader.new_rows())


# What rollouts show: hand-worked numbers, and an alarm for each way to collapse and for no other

WINDOW = 256


def line(confidence: float, correct: int, **changes: Any) -> dict[str, Any]:
    """A line of the log; a confidence of -1 stands for none."""
    brier = (correct - confidence) ** 2 if confidence >= 0 else 1.0
    parts = {"score": correct + 1 - brier, "format": 1.0, "correct": float(correct), "brier": brier}
    more = {"time": 0.0, "log_score": -0.5, "confidence": confidence, "answered": 1.0, "task": "FI-2"}
    return parts | more | changes


def rollout(confidence: float, correct: int, **changes: Any) -> Rollout:
    return rollout_of(line(confidence, correct, **changes), "log:1")


def test_four_rollouts_by_hand() -> None:
    one = window_statistics([rollout(0.9, 1), rollout(0.9, 0), rollout(0.6, 1), rollout(0.2, 0)])
    # Bins: two at 0.9 with one right, gap 0.4; 0.6 right, gap 0.4; 0.2 wrong, gap 0.2.
    assert one.ece == pytest.approx(0.5 * 0.4 + 0.25 * 0.4 + 0.25 * 0.2)
    assert one.brier == pytest.approx((0.01 + 0.81 + 0.16 + 0.04) / 4)
    # Right 0.9 against wrong 0.9 is half a win, 0.6 against 0.9 none, the two others win.
    assert one.auroc == pytest.approx(2.5 / 4)
    assert one.means["confidence"] == pytest.approx(0.65)
    assert one.confidence_sd == pytest.approx(((2 * 0.25**2 + 0.05**2 + 0.45**2) / 4) ** 0.5)
    assert (one.commonest, one.commonest_share) == (0.9, 0.5)
    assert one.histogram == (0, 0, 0.25, 0, 0, 0, 0.25, 0, 0, 0.5)
    assert one.means["correct"] == 0.5
    assert one.means["score"] == pytest.approx((1.99 + 0.19 + 1.84 + 0.96) / 4)
    assert one.parse_rate == 1.0


def test_rollouts_without_label_or_confidence_are_counted_as_such() -> None:
    one = window_statistics(
        [rollout(0.5, 1), rollout(-1.0, 1), rollout(0.7, 0, answered=0.0), rollout(-1.0, 0, answered=0.0)]
    )
    assert one.parse_rate == 0.25
    assert one.means["confidence"] == pytest.approx(0.6)
    assert one.brier == pytest.approx((0.25 + 0.49) / 2)
    nothing = window_statistics([rollout(-1.0, 0, answered=0.0)])
    assert (nothing.ece, nothing.confidence_sd, nothing.commonest, nothing.ece_by_chance) == (None,) * 4
    assert nothing.histogram == (0.0,) * 10


def test_prompts_whose_rewards_are_all_equal() -> None:
    rows = [
        *(rollout(0.8, 1, id="a", step=1) for _ in range(3)),
        rollout(0.8, 1, id="b", step=1),
        rollout(0.8, 0, id="b", step=1),
        rollout(0.8, 1, id="b", step=2),  # alone in its step: no group
        rollout(0.8, 1),  # of no known prompt
    ]
    one = window_statistics(rows)
    assert (one.equal_groups, one.n_groups) == (0.5, 2)
    assert window_statistics(rows[-1:]).equal_groups is None


@pytest.mark.parametrize(
    ("n", "size", "starts", "last"),
    [(1, 1, [1], 1), (5, 2, [1, 3], 4), (8, 4, [1, 5], 5), (11, 4, [1, 5], 8), (12, 4, [1, 5, 9], 9)],
)
def test_windows(n: int, size: int, starts: list[int], last: int) -> None:
    run = course([rollout(0.5, 1)] * n, 4)
    assert {block.n for block in run.blocks} == {run.first.n, run.last.n} == {size}
    assert [block.first for block in run.blocks] == starts
    assert (run.first.first, run.last.first) == (1, last)


@pytest.mark.parametrize("key", ["score", "confidence", "time", "answered"])
@pytest.mark.parametrize("value", [None, "0.5", float("nan")])
def test_a_line_that_is_no_rollout_is_named(key: str, value: object) -> None:
    with pytest.raises(RecordError, match=re.escape(f"here:7: no number '{key}'")):
        rollout_of(line(0.5, 1) | {key: value}, "here:7")


def healthy(rng: random.Random, _: float) -> Rollout:
    chance = rng.choice([0.4, 0.6, 0.8, 0.9])
    return rollout(round(chance + rng.uniform(-0.1, 0.1), 2), int(rng.random() < chance))


def flat(rng: random.Random, progress: float) -> Rollout:
    """Spreads less and less, but over many values."""
    spread = 0.2 if progress < 0.5 else 0.02
    return rollout(round(0.7 + rng.uniform(-spread, spread), 3), int(rng.random() < 0.7))


def one_value(rng: random.Random, progress: float) -> Rollout:
    """Mostly one value, with so wild a rest that the standard deviation stays."""
    if progress >= 0.5 and rng.random() < 0.95:
        return rollout(0.7, int(rng.random() < 0.7))
    return rollout(round(rng.random(), 2), int(rng.random() < 0.7))


def no_longer_parsed(rng: random.Random, progress: float) -> Rollout:
    if progress >= 0.5 and rng.random() < 0.12:
        return rollout(-1.0, 0, answered=0.0)
    return healthy(rng, progress)


def run_of(make: Callable[[random.Random, float], Rollout], n: int = 10 * WINDOW) -> list[Rollout]:
    rng = random.Random(1)
    return [make(rng, number / n) for number in range(n)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            flat,
            r"alarm: the standard deviation of the confidences is 0\.01\d, below 0\.0[23]\d \(at first 0\.1",
        ),
        (one_value, r"alarm: 9\d% of the confidences are 0\.7, more than 80%"),
        (no_longer_parsed, r"alarm: the parse rate is 8\d\.\d%, below 95\.0% \(at first 100\.0%\)"),
    ],
)
def test_each_collapse_raises_its_alarm_and_no_other(
    make: Callable[[random.Random, float], Rollout], message: str
) -> None:
    (alarm,) = alarms(course(run_of(make), WINDOW))
    assert re.match(message, alarm)
    assert f"since rollout {5 * WINDOW + 1:,}; " in alarm
    assert "checkpoint" in alarm
    assert "\n" not in alarm


def test_a_healthy_run_raises_none_at_any_time() -> None:
    rows = run_of(healthy)
    assert [alarms(course(rows[:n], WINDOW)) for n in range(1, len(rows), 100)] == [[]] * 26


def test_a_collapse_that_is_over_raises_none() -> None:
    rows = run_of(one_value) + run_of(healthy, 2 * WINDOW)
    assert alarms(course(rows, WINDOW)) == []


def test_a_constant_from_the_beginning_raises_two() -> None:
    found = alarms(course([rollout(0.9, 1)] * 1000, WINDOW))
    assert len(found) == 2
    assert all("since rollout 1;" in alarm for alarm in found)


def test_a_low_parse_rate_from_the_beginning_raises_one() -> None:
    rng = random.Random(2)
    rows = [rollout(-1.0, 0) if rng.random() < 0.15 else healthy(rng, 0) for _ in range(1000)]
    (alarm,) = alarms(course(rows, WINDOW))
    assert "below 90.0%" in alarm


def test_too_few_rollouts_raise_none() -> None:
    constant = [rollout(0.9, 1)] * 2 * LEAST_FOR_ALARM
    assert alarms(course(constant[:-1], WINDOW)) == []
    assert alarms(course(constant, LEAST_FOR_ALARM - 1)) == []
    assert len(alarms(course(constant, WINDOW))) == 2
