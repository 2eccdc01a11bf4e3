"""The entry script with real vLLM: killed in the middle by kill -9, continued, and ended with both tables."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

Row = dict[str, Any]
N_ROWS, N_BEFORE_THE_KILL = 24, 3


def environment(checkpoint: Path, root: Path, output: Path) -> dict[str, str]:
    settings = {"EMOCALIBER_PYTHON": sys.executable, "OUTPUT_DIR": str(output), "MAX_NEW_TOKENS": "200"}
    settings["SEED"] = "7"
    if checkpoint != root / "models" / "EmoCaliber-mini":
        settings |= {"CHECKPOINT": str(checkpoint), "MIN_PIXELS": "3136", "MAX_PIXELS": "12544"}
    others = ("CHECKPOINT", "DATA", "IMAGE_ROOT", "EXPERIMENT_NAME", "N_GPU", "TEMPERATURE")
    return {name: value for name, value in os.environ.items() if name not in others} | settings


def kill_inference_once_rows_are_there(script: subprocess.Popen[str], partial: Path) -> None:
    deadline = time.monotonic() + 600
    while not (partial.exists() and partial.read_bytes().count(b"\n") >= N_BEFORE_THE_KILL):
        assert script.poll() is None, script.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = psutil.Process(script.pid).children(recursive=True)
    (inference,) = [child for child in children if any("infer.py" in part for part in child.cmdline()[1:2])]
    inference.kill()


def test_killed_and_continued_the_one_command_ends_with_both_tables(
    root: Path,
    checkpoint: Path,
    read_rows: Callable[[Path], list[Row]],
    write_rows: Callable[[Path, list[Row]], Path],
    tmp_path: Path,
) -> None:
    output = tmp_path / "slice"
    partial = output / "partial.jsonl"
    script = ["bash", str(root / "inference" / "infer_and_eval_example.sh"), "--limit", str(N_ROWS)]
    options: dict[str, Any] = {"cwd": tmp_path, "env": environment(checkpoint, root, output), "text": True}
    # Two rows at a time, so that there are some left to be killed.
    killed = subprocess.Popen([*script, "--batch-size", "2"], stderr=subprocess.PIPE, **options)
    kill_inference_once_rows_are_there(killed, partial)
    killed.communicate(timeout=60)
    assert killed.returncode == 128 + signal.SIGKILL
    assert not (output / "predictions.jsonl").exists()
    content = partial.read_bytes()
    partial.write_bytes(content[: content.rfind(b"\n") + 1])
    # A mark on what is finished: a row that is computed again would lose it.
    kept = {row["id"]: {**row, "finish_reason": "kept"} for row in read_rows(partial)}
    assert N_BEFORE_THE_KILL <= len(kept) < N_ROWS
    write_rows(partial, list(kept.values()))
    with open(partial, "ab") as file:
        file.write(b'{"id": "mini-test-Abstract-8-00001", "response": "torn in the mid')

    run = subprocess.run(script, capture_output=True, timeout=900, **options)
    assert run.returncode == 0, run.stderr[-3000:]
    assert (root / "data" / "VECBench-mini" / "test.jsonl").is_file()
    rows = read_rows(output / "predictions.jsonl")
    asked = read_rows(root / "data" / "VECBench-mini" / "test.jsonl")[:N_ROWS]
    assert [row["id"] for row in rows] == [row["id"] for row in asked]
    assert all(isinstance(row["response"], str) for row in rows)
    assert {row["n_image_tokens"] for row in rows} == {16}
    assert {row["id"] for row in rows if row["finish_reason"] == "kept"} == set(kept)
    for row in rows:
        if row["id"] in kept:
            assert kept[row["id"]].items() <= row.items()
    for log in ("metric.log", "metric_conf.log"):
        text = (output / log).read_text(encoding="utf-8")
        assert "| Overall         |" in text
        table = text[: text.index("Overall")]
        assert table.splitlines()[1] in run.stdout  # the header of the table
    assert len(read_rows(output / "merged_conf.jsonl")) == N_ROWS


def test_a_mistake_ends_the_script_with_its_one_line(root: Path, tmp_path: Path) -> None:
    script = root / "inference" / "infer_and_eval_example.sh"
    settings = {**os.environ, "EMOCALIBER_PYTHON": sys.executable, "DATA": str(tmp_path / "gone.jsonl")}
    settings |= {"OUTPUT_DIR": str(tmp_path / "run")}
    run = subprocess.run(["bash", str(script)], env=settings, capture_output=True, text=True, timeout=120)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'gone.jsonl'}: cannot be read")
    assert not (tmp_path / "run").exists()
