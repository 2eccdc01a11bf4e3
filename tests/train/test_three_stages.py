"""The three stages from nothing by their scripts: two steps each, on the real ms-swift, vLLM and verl.

One folder and one file: each test goes on from what the one before it left.
"""

import os
import subprocess
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from data.vec_cot.confidence import target_confidence
from emocaliber.jsonl import read_jsonl
from emocaliber.response import parse
from emocaliber.reward import compute_reward
from emocaliber.reward_log import read_reward_log
from emocaliber.taxonomy import TASKS

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "EmoCaliber-mini"
OF_ONE_STAGE = ("MODEL", "DATASET", "RECORDS", "SIZE", "SETTINGS", "OUTPUT_DIR", "IMAGE_ROOT")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stages")


def run(script: str, folder: Path, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in OF_ONE_STAGE}
    environment |= {"OUTPUT_ROOT": str(folder / "output"), "MINI_DATA": str(folder / "data"), "N_TRAIN": "60"}
    command = ["bash", str(ROOT / "train" / script), *flags]
    return subprocess.run(command, capture_output=True, text=True, env=environment | variables, check=False)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_jsonl(path)]


def named(row: dict[str, Any]) -> list[str]:
    labels = [parse(sample, row["candidates"]).label for sample in row["samples"]]
    return [label for label in labels if label is not None]


def check_trained(output: Path, *parts: str) -> None:
    """Each part changed most of the weights of the one before and left a card; no hub was asked."""
    weights = [load_file(output / part / "model.safetensors") for part in parts]
    for before, after in pairwise(weights):
        assert before.keys() == after.keys()
        assert sum(not np.array_equal(before[name], after[name]) for name in after) > 0.9 * len(after)
    card = (output / parts[-1] / "README.md").read_text()
    assert "| Steps | 2 |" in card and str(output) not in card and str(ROOT) not in card
    log = (output / parts[-1]).with_name("train.log").read_text()
    assert "global_step/max_steps': '2/2'" in log and "listing failed" not in log


def test_stage_1_from_nothing(folder: Path) -> None:
    first = run("step1_example.sh", folder, "--max_steps", "2", WARMUP_STEPS="2", PREFLIGHT="rows")
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    check_trained(folder / "output", "base", "warmup/final", "stage1/final")


def test_stage_2_states_what_its_samples_agree_on(folder: Path) -> None:
    """The samples of a stage 1 of two steps are noise, another on each kind of processor: the chats have to
    follow from them, whatever they are."""
    second = run("step2_example.sh", folder, "--max_steps", "2", N_SAMPLES="8")
    assert second.returncode == 0, second.stdout[-3000:] + second.stderr[-3000:]
    sampled = rows_of(folder / "output" / "stage1_samples" / "predictions.jsonl")
    chains = rows_of(folder / "data" / "train_stage2.jsonl")
    assert [row["id"] for row in sampled] == [row["id"] for row in chains] and len(chains) > 10
    assert all(len(row["samples"]) == 8 for row in sampled)
    votes = {row["id"]: Counter(labels) for row in sampled if (labels := named(row))}
    chats = {row["id"]: row for row in rows_of(folder / "output" / "train_stage2_chat.jsonl")}
    assert list(chats) == list(votes)
    for identity, chat in chats.items():
        parsed = parse(chat["messages"][-1]["content"], TASKS[chat["task"]].labels)
        assert votes[identity][parsed.label] == max(votes[identity].values())
        assert parsed.confidence is not None
        assert parsed.confidence == target_confidence(votes[identity][parsed.label], 8)
    check_trained(folder / "output", "stage1/final", "stage2/final")
    again = run("step2_example.sh", folder, "--max_steps", "2", N_SAMPLES="8")
    assert again.returncode == 0 and "already trained" in again.stdout


def test_stage_3_by_verl(folder: Path) -> None:
    """From the committed model: one of few steps earns one reward for all rollouts, which teaches nothing."""
    keys = ["data.train_batch_size=4", "actor_rollout_ref.actor.ppo_mini_batch_size=4"]
    keys += ["actor_rollout_ref.rollout.n=4", "trainer.save_freq=2", "trainer.test_freq=-1"]
    given = {"MODEL": str(MODEL), "SIZE": "mini", "STEPS": "2", "LR": "1e-3", "N_VAL": "4"}
    third = run("step3_example.sh", folder, *keys, **given)
    assert third.returncode == 0, third.stdout[-4000:] + third.stderr[-4000:]
    output = folder / "output" / "stage3"
    rows = [row for row in read_reward_log(output / "rewards.jsonl") if row["split"] == "train"]
    assert Counter(row["step"] for row in rows) == {0: 16, 1: 16}
    groups = Counter((row["step"], row["id"]) for row in rows)
    assert set(groups.values()) == {4}, "four rollouts a prompt"
    for row in rows:
        parts = compute_reward(row["response"], row["truth"], list(TASKS[row["task"]].labels), "brier")
        assert parts == {name: row[name] for name in parts}
    (metrics,) = output.glob("metrics-*.jsonl")
    assert [row["data"]["training/global_step"] for row in rows_of(metrics)] == [1, 2]
    before, after = (load_file(path / "model.safetensors") for path in (MODEL, output / "final"))
    assert before.keys() == after.keys() and {array.dtype.name for array in after.values()} == {"float32"}
    assert sum(not np.array_equal(before[name], after[name]) for name in after) > len(after) / 2
    assert "stage 3" in (output / "final" / "README.md").read_text()
