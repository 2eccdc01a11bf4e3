"""Stage 3 by ms-swift: the plugin gives the library's numbers, and the launcher trains, logs and refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.numpy import load_file

from emocaliber.prompts import conversation
from emocaliber.reward import REWARDS, compute_reward
from emocaliber.reward_log import read_reward_log
from emocaliber.taxonomy import TASKS

ROOT = Path(__file__).parents[3]
CHECKPOINT = ROOT / "models" / "EmoCaliber-mini"

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
    scores[name] = function([row["response"] for row in rows], **columns, messages=[], solution=None)
print("RESULT" + json.dumps(scores))
"""


@pytest.mark.slow
def test_the_plugin_gives_the_librarys_numbers(
    tmp_path: Path, thousand_responses: list[dict[str, Any]]
) -> None:
    rows, log = thousand_responses, tmp_path / "rewards.jsonl"
    finished = subprocess.run(
        [sys.executable, "-c", SCORE, str(ROOT / "train" / "rl" / "swift_grpo_plugin.py"), *REWARDS],
        input=json.dumps(rows),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"REWARD_LOG": str(log)},
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    scores = json.loads(finished.stdout.split("RESULT")[1])
    expected = {
        reward: [
            compute_reward(row["response"], row["ground_truth"], row["candidates"], reward) for row in rows
        ]
        for reward in REWARDS
    }
    for reward, parts in expected.items():
        assert scores[reward] == [part["score"] for part in parts]
        assert len(set(scores[reward])) > 20
    logged = list(read_reward_log(log))
    assert [row["id"] for row in logged] == [row["id"] for row in rows] * len(REWARDS)
    assert [row["brier"] for row in logged] == [
        part["brier"] for parts in expected.values() for part in parts
    ]


def records(folder: Path) -> Path:
    """Eight rows with pictures of a plain colour."""
    labels = list(TASKS["EmoSet-8"].labels)
    rows = []
    for number in range(8):
        image = f"{number}.jpg"
        Image.new("RGB", (112, 112), (30 * number, 90, 200 - 20 * number)).save(folder / image)
        row = {"id": f"row-{number}", "image": image, "task": "EmoSet-8", "ground_truth": labels[number]}
        rows.append(row | {"candidates": labels, "conversations": conversation(image, labels)})
    path = folder / "records.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def step3(folder: Path, *flags: str, **variables: str) -> tuple[list[str], dict[str, str]]:
    """The command of stage 3 by ms-swift on these rows, and its environment."""
    environment = {name: value for name, value in os.environ.items() if name != "DATASET"}
    environment |= {"RL_ENGINE": "swift", "SIZE": "mini", "MODEL": str(CHECKPOINT), "REWARD": "rlcr"}
    environment |= {"RECORDS": str(folder / "records.jsonl"), "OUTPUT_DIR": str(folder / "stage3")}
    command = ["bash", str(ROOT / "train" / "step3_example.sh"), *flags, "--warmup_ratio", "0"]
    command += ["--per_device_train_batch_size", "8", "--num_generations", "4"]
    return command, environment | variables


@pytest.mark.slow
def test_two_steps_change_the_weights_and_log_every_rollout(
    tmp_path: Path, vllm_answers: Callable[[Path, Path], list[dict[str, Any]]]
) -> None:
    data = records(tmp_path)
    command, environment = step3(tmp_path, STEPS="2")
    first = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]

    output = tmp_path / "stage3"
    before, after = (load_file(path / "model.safetensors") for path in (CHECKPOINT, output / "final"))
    changed = {name for name in after if (before[name] != after[name]).any()}
    assert any(name.startswith("model.layers") or "language_model" in name for name in changed)
    assert not any("visual" in name for name in changed), "the settings freeze what the model sees"
    card = (output / "final" / "README.md").read_text()
    assert "stage 3" in card and "`rlcr`" in card and str(tmp_path) not in card

    logged = list(read_reward_log(output / "rewards.jsonl"))
    assert [row["step"] for row in logged] == [0] * 8 + [1] * 8
    for row in logged:
        parts = compute_reward(row["response"], row["truth"], list(TASKS["EmoSet-8"].labels), "rlcr")
        assert parts == {name: row[name] for name in parts}

    again = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert again.returncode == 0 and "already trained" in again.stdout

    rows = vllm_answers(output / "final", data)
    assert len(rows) == 8 and all("response" in row for row in rows)


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    records(tmp_path)
    command, environment = step3(tmp_path, "--save_steps", "2", "--logging_steps", "1", STEPS="100")
    output = tmp_path / "stage3"
    with (tmp_path / "first.log").open("w") as log:
        first = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        while first.poll() is None and not list(output.glob("checkpoint-*/trainer_state.json")):
            time.sleep(0.05)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    written = [path.parent for path in output.glob("checkpoint-*/trainer_state.json")]
    assert written, (tmp_path / "first.log").read_text()[-3000:]
    step = max(int(path.name.removeprefix("checkpoint-")) for path in written)
    assert not (output / "final").exists() and 0 < step < 100

    environment |= {"STEPS": str(step + 1), "RESUME_CHANGED": "1"}
    second = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert second.returncode == 0, second.stdout[-3000:] + second.stderr[-3000:]
    steps = [row["step"] for row in read_reward_log(output / "rewards.jsonl")]
    assert steps[-8:] == [step] * 8, "the second run begins after the checkpoint"
    assert (output / "final" / "config.json").is_file()


def test_a_file_that_is_missing_is_named_before_anything_starts(tmp_path: Path) -> None:
    settings = ROOT / "train" / "settings" / "stage3_mini_swift.yaml"
    command = ["bash", str(ROOT / "train" / "rl" / "swift_grpo.sh"), str(settings), str(CHECKPOINT)]
    command += [str(tmp_path / "none.jsonl"), str(tmp_path / "stage3")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == (
        f"error: {tmp_path}/none.jsonl: no such file; give SETTINGS MODEL CHATS OUTPUT_DIR"
    )
    assert not (tmp_path / "stage3").exists()
