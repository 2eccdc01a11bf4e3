"""Both training scripts, from nothing to a stage-2 model, a few steps each, on the real ms-swift and vLLM."""

import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from emocaliber.jsonl import read_jsonl
from emocaliber.response import parse
from emocaliber.taxonomy import TASKS

ROOT = Path(__file__).parents[2]


def run(script: str, folder: Path, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    variables |= {"OUTPUT_ROOT": str(folder / "output"), "MINI_DATA": str(folder / "data"), "N_TRAIN": "60"}
    command = ["bash", str(ROOT / "train" / script), *flags]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | variables, check=False)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_jsonl(path)]


def named(row: dict[str, Any]) -> list[str]:
    labels = [parse(sample, row["candidates"]).label for sample in row["samples"]]
    return [label for label in labels if label is not None]


@pytest.mark.slow
def test_mini_from_nothing_to_a_stated_confidence(tmp_path: Path) -> None:
    early = run("step2_example.sh", tmp_path)
    assert early.returncode == 2
    assert "run train/step1_example.sh first" in early.stderr

    first = run("step1_example.sh", tmp_path, "--max_steps", "2", WARMUP_STEPS="2")
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    assert (tmp_path / "output" / "stage1" / "final" / "model.safetensors").is_file()

    # What a stage 1 of two steps says is noise, and which rows of it name a label hangs on the last digits of
    # the weights, so on the processor: the chats have to follow from the samples, whatever these are.
    second = run("step2_example.sh", tmp_path, "--max_steps", "2", N_SAMPLES="8")
    assert second.returncode == 0, second.stdout[-3000:] + second.stderr[-3000:]
    assert (tmp_path / "output" / "stage2" / "final" / "model.safetensors").is_file()
    sampled = rows_of(tmp_path / "output" / "stage1_samples" / "predictions.jsonl")
    chains = rows_of(tmp_path / "data" / "train_stage2.jsonl")
    assert [row["id"] for row in sampled] == [row["id"] for row in chains] and len(chains) > 10
    assert all(len(row["samples"]) == 8 for row in sampled)
    votes = {row["id"]: Counter(labels) for row in sampled if (labels := named(row))}
    chats = {row["id"]: row for row in rows_of(tmp_path / "data" / "train_stage2_chat.jsonl")}
    assert list(chats) == list(votes)
    for identity, chat in chats.items():
        parsed = parse(chat["messages"][-1]["content"], TASKS[chat["task"]].labels)
        assert votes[identity][parsed.label] == max(votes[identity].values())
        assert parsed.confidence is not None and 0.30 <= parsed.confidence <= 0.95

    again = run("step2_example.sh", tmp_path, N_SAMPLES="8")
    assert again.returncode == 0
    assert "already trained" in again.stdout
