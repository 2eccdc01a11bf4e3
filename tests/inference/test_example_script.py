"""The entry script, from its first line to both tables, on a slice of VECBench-mini with real vLLM."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def test_the_one_command_ends_with_both_tables(
    root: Path, checkpoint: Path, read_rows: Callable[[Path], list[dict[str, Any]]], tmp_path: Path
) -> None:
    output = tmp_path / "slice"
    settings = {
        "EMOCALIBER_PYTHON": sys.executable,
        "OUTPUT_DIR": str(output),
        "MAX_NEW_TOKENS": "200",
        "SEED": "7",
    }
    if checkpoint != root / "models" / "EmoCaliber-mini":
        settings |= {"CHECKPOINT": str(checkpoint), "MIN_PIXELS": "3136", "MAX_PIXELS": "12544"}
    others = ("CHECKPOINT", "DATA", "IMAGE_ROOT", "EXPERIMENT_NAME", "N_GPU", "TEMPERATURE")
    environment = {name: value for name, value in os.environ.items() if name not in others}
    script = root / "inference" / "infer_and_eval_example.sh"
    run = subprocess.run(
        ["bash", str(script), "--limit", "24"],
        cwd=tmp_path,
        env={**environment, **settings},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert (root / "data" / "VECBench-mini" / "test.jsonl").is_file()
    rows = read_rows(output / "predictions.jsonl")
    assert len(rows) == 24
    assert all(isinstance(row["response"], str) for row in rows)
    assert {row["n_image_tokens"] for row in rows} == {16}
    for log in ("metric.log", "metric_conf.log"):
        text = (output / log).read_text(encoding="utf-8")
        assert "| Overall         |" in text
        table = text[: text.index("Overall")]
        assert table.splitlines()[1] in run.stdout  # the header of the table
    assert len(read_rows(output / "merged_conf.jsonl")) == 24


def test_a_mistake_ends_the_script_with_its_one_line(root: Path, tmp_path: Path) -> None:
    script = root / "inference" / "infer_and_eval_example.sh"
    environment = {**os.environ, "EMOCALIBER_PYTHON": sys.executable, "DATA": str(tmp_path / "gone.jsonl")}
    environment |= {"OUTPUT_DIR": str(tmp_path / "run")}
    run = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'gone.jsonl'}: cannot be read")
    assert not (tmp_path / "run").exists()
