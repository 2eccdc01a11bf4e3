"""The log of rewards: whole lines from many writers at once, and one clear end when it cannot be written."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from emocaliber.jsonl import RecordError
from emocaliber.response import SECTIONS, render
from emocaliber.reward import REWARD_KEYS, compute_reward
from emocaliber.reward_log import RewardLogReader, append_row, check_writable, read_reward_log, reward_and_log

LABELS = ["awe", "fear", "sadness"]
RESPONSE = render(dict.fromkeys(SECTIONS, "a dog"), "fear", 0.8)
N_PROCESSES, N_THREADS, N_LINES = 8, 4, 500
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
