"""Both training scripts, from nothing to a stage-2 model, a few steps each, on the real ms-swift and vLLM."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from emocaliber.response import parse
from emocaliber.taxonomy import TASKS

ROOT = Path(__file__).parents[2]


def run(script: str, folder: Path, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    variables |= {"OUTPUT_ROOT": str(folder / "output"), "MINI_DATA": str(folder / "data"), "N_TRAIN": "60"}
    command = ["bash", str(ROOT / "train" / script), *flags]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | variables, check=False)


@pytest.mark.slow
def test_mini_from_nothing_to_a_stated_confidence(tmp_path: Path) -> None:
    early = run("step2_example.sh", tmp_path)
    assert early.returncode == 2
    assert "run train/step1_example.sh first" in early.stderr

    first = run("step1_example.sh", tmp_path, "--max_steps", "2", WARMUP_STEPS="2")
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    assert (tmp_path / "output" / "stage1" / "final" / "model.safetensors").is_file()

    # What an untrained stage 1 says is noise; the samples of this row count as agreement all the same.
    second = run("step2_example.sh", tmp_path, "--max_steps", "2", N_SAMPLES="2")
    assert second.returncode == 0, second.stdout[-3000:] + second.stderr[-3000:]
    assert (tmp_path / "output" / "stage2" / "final" / "model.safetensors").is_file()
    chats = (tmp_path / "data" / "train_stage2_chat.jsonl").read_text().splitlines()
    assert len(chats) == 18
    for line in chats:
        row = json.loads(line)
        parsed = parse(row["messages"][-1]["content"], TASKS[row["task"]].labels)
        assert parsed.label == row["ground_truth"]
        assert parsed.confidence is not None and 0.30 <= parsed.confidence <= 0.95

    again = run("step2_example.sh", tmp_path, N_SAMPLES="2")
    assert again.returncode == 0
    assert "already trained" in again.stdout
