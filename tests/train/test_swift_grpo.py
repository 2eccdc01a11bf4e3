"""Stage 3 by ms-swift: the plugin gives the library's numbers, and the launcher trains, logs and refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from emocaliber.prompts import training_chat, user_prompt
from emocaliber.response import render
from emocaliber.reward import REWARDS, compute_reward
from emocaliber.reward_log import read_reward_log
from emocaliber.taxonomy import TASKS

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "models" / "EmoCaliber-mini"
REASONING = {
    "element": "A fire.",
    "human": "No one.",
    "context": "Night.",
    "interaction": "None.",
    "analysis": "So.",
}

# In a process of its own, as ms-swift loads it: a file outside any package.
SCORE = """
import importlib.util, json, os, sys
from swift.rewards import orms
spec = importlib.util.spec_from_file_location("swift_grpo_plugin", sys.argv[1])
spec.loader.exec_module(importlib.util.module_from_spec(spec))
rows = json.load(sys.stdin)
columns = {name: [row[name] for row in rows] for name in ("ground_truth", "candidates", "task", "id")}
scores = {}
for name in sys.argv[2:]:
    os.environ["REWARD"] = name
    function = orms["emocaliber"](args=None)
    scores[name] = function([row["text"] for row in rows], **columns, messages=[], solution=None)
print("RESULT" + json.dumps(scores))
"""


def thousand_responses() -> list[dict[str, Any]]:
    """Well-formed and damaged answers of every task, right and wrong, with every confidence."""
    tasks = list(TASKS.values())
    rows = []
    for number in range(1000):
        labels = list(tasks[number % len(tasks)].labels)
        text = render(REASONING, labels[number % 7 % len(labels)], (number % 101) / 100)
        damage = number % 11
        text = text.replace("</think>", "") if damage == 1 else text
        text = text[: len(text) // 2] if damage == 2 else text
        text = text.replace("<confidence>0", "<confidence>85%") if damage == 3 else text
        rows.append(
            {"text": text, "ground_truth": labels[number % 3 % len(labels)], "candidates": labels}
            | {"task": tasks[number % len(tasks)].name, "id": f"row-{number}"}
        )
    return rows


@pytest.mark.slow
def test_the_plugin_gives_the_librarys_numbers(tmp_path: Path) -> None:
    rows = thousand_responses()
    log = tmp_path / "rewards.jsonl"
    finished = subprocess.run(
        [sys.executable, "-c", SCORE, str(ROOT / "train" / "swift_grpo_plugin.py"), *REWARDS],
        input=json.dumps(rows),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"REWARD_LOG": str(log)},
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    scores = json.loads(finished.stdout.split("RESULT")[1])
    expected = {
        reward: [compute_reward(row["text"], row["ground_truth"], row["candidates"], reward) for row in rows]
        for reward in REWARDS
    }
    for reward, parts in expected.items():
        assert scores[reward] == [part["score"] for part in parts]
        assert len(set(scores[reward])) > 50
    logged = list(read_reward_log(log))
    assert [row["id"] for row in logged] == [row["id"] for row in rows] * len(REWARDS)
    assert [row["brier"] for row in logged] == [
        part["brier"] for parts in expected.values() for part in parts
    ]


def chats(folder: Path) -> Path:
    """Eight prompts with pictures of a plain colour."""
    from PIL import Image

    labels = list(TASKS["EmoSet-8"].labels)
    lines = []
    for number in range(8):
        Image.new("RGB", (112, 112), (30 * number, 90, 200 - 20 * number)).save(folder / f"{number}.jpg")
        chat = training_chat(f"{number}.jpg", user_prompt(labels), "")
        row = {
            "id": f"row-{number}",
            "task": "EmoSet-8",
            "ground_truth": labels[number],
            "candidates": labels,
        }
        lines.append(row | {"messages": chat["messages"][:2], "images": chat["images"]})
    path = folder / "chats.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def launch(settings: Path, data: Path, output: Path, *flags: str, **variables: str) -> Any:
    command = ["bash", str(ROOT / "train" / "swift_grpo.sh"), str(settings), str(CHECKPOINT), str(data)]
    return subprocess.run(
        [*command, str(output), *flags],
        capture_output=True,
        text=True,
        env=os.environ | variables,
        check=False,
    )


@pytest.mark.slow
def test_two_steps_change_the_weights_and_log_every_rollout(tmp_path: Path) -> None:
    settings = ROOT / "train" / "settings" / "stage3_mini_swift.yaml"
    output = tmp_path / "stage3"
    flags = ["--max_steps", "2", "--per_device_train_batch_size", "8", "--num_generations", "4"]
    flags += ["--warmup_ratio", "0"]
    first = launch(settings, chats(tmp_path), output, *flags, REWARD="rlcr")
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]

    before, after = (load_file(path / "model.safetensors") for path in (CHECKPOINT, output / "final"))
    changed = {name for name in after if (before[name] != after[name]).any()}
    assert any(name.startswith("model.layers") or "language_model" in name for name in changed)
    assert not any("visual" in name for name in changed), "the settings freeze what the model sees"

    logged = list(read_reward_log(output / "rewards.jsonl"))
    assert [row["step"] for row in logged] == [0] * 8 + [1] * 8
    for row in logged:
        parts = compute_reward(row["response"], row["truth"], list(TASKS["EmoSet-8"].labels), "rlcr")
        assert parts == {name: row[name] for name in parts}

    again = launch(settings, tmp_path / "chats.jsonl", output, *flags)
    assert again.returncode == 0
    assert "already trained" in again.stdout


def test_a_file_that_is_missing_is_named_before_anything_starts(tmp_path: Path) -> None:
    settings = ROOT / "train" / "settings" / "stage3_mini_swift.yaml"
    result = launch(settings, tmp_path / "none.jsonl", tmp_path / "stage3")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == (
        f"error: {tmp_path}/none.jsonl: no such file; give SETTINGS MODEL CHATS OUTPUT_DIR"
    )
    assert not (tmp_path / "stage3").exists()
