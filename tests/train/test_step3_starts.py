"""Starts of stage 3 one after another, by its own script; ms-swift's stand-in leaves a checkpoint."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from emocaliber.jsonl import read_jsonl
from emocaliber.prompts import conversation

ROOT = Path(__file__).parents[2]
MINI = ROOT / "models" / "EmoCaliber-mini"
LABELS = ["awe", "fear"]
# Before the real one: a checkpoint of five steps that holds the model as it was.
SWIFT = """
import json, os, shutil, sys
from pathlib import Path
value = lambda name: sys.argv[sys.argv.index(name) + 1]
print("SWIFT", *sys.argv[1:])
folder = Path(value("--output_dir")) / "checkpoint-5"
shutil.copytree(value("--model"), folder, dirs_exist_ok=True)
(folder / "README.md").unlink()
(folder / "trainer_state.json").write_text(json.dumps({"global_step": 5, "log_history": []}))
sys.exit(int(os.environ.get("STUB_STATUS", "0")))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    package = tmp_path / "stubs" / "swift" / "cli"
    package.mkdir(parents=True)
    for name, text in (("../__init__", ""), ("__init__", ""), ("main", SWIFT)):
        (package / f"{name}.py").write_text(text)
    write_records(tmp_path, "awe")
    return tmp_path


def write_records(folder: Path, truth: str) -> None:
    Image.new("RGB", (60, 60)).save(folder / "a.png")
    row = {"image": "a.png", "task": "EmoSet-8", "ground_truth": truth, "candidates": LABELS}
    row |= {"conversations": conversation("a.png", LABELS)}
    rows = [row | {"id": str(number)} for number in range(3)]
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def step3(folder: Path, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    named = ("STEPS", "LR", "SEED", "REWARD", "OUTPUT_DIR", "SETTINGS", "IMAGE_ROOT")
    environment = {name: value for name, value in os.environ.items() if name not in named}
    environment |= {"PYTHONPATH": str(folder / "stubs"), "EMOCALIBER_PYTHON": sys.executable, "SIZE": "mini"}
    environment |= {"EMOCALIBER_DEVICE": "cpu", "RL_ENGINE": "swift", "MODEL": str(MINI)}
    environment |= {"RECORDS": str(folder / "records.jsonl"), "OUTPUT_ROOT": str(folder / "output")}
    command = ["bash", str(ROOT / "train" / "step3_example.sh"), *flags]
    return subprocess.run(command, capture_output=True, text=True, env=environment | variables, check=False)


def test_a_finished_run_is_not_taken_for_another(folder: Path) -> None:
    given = {"SEED": "3", "LR": "1e-3", "STEPS": "5"}
    first = step3(folder, **given)
    assert first.returncode == 0, first.stdout + first.stderr
    final = folder / "output" / "stage3" / "final"
    card = (final / "README.md").read_text().splitlines()
    assert {
        "| Seed | 3 |",
        "| Learning rate | 1e-3 |",
        "| Reward | `brier` (`emocaliber/reward.py`) |",
    } < set(card)
    assert any("--seed 3 --data_seed 3 --max_steps 5 --learning_rate 1e-3" in line for line in card)

    other = step3(folder, REWARD="rlcr", **given)
    assert other.returncode == 2 and "already trained" not in other.stdout
    assert (
        "holds a finished model: reward brier then, rlcr now; give the same, "
        in other.stderr.splitlines()[-1]
    )
    assert step3(folder, **(given | {"STEPS": "9"})).returncode == 2
    again = step3(folder, **given)
    assert again.returncode == 0 and "already trained; remove" in again.stdout and "SWIFT" not in again.stdout

    (final / "README.md").unlink()  # as if it had been stopped before it
    mended = step3(folder, **given)
    assert mended.returncode == 0 and "SWIFT" not in mended.stdout
    assert "| Seed | 3 |" in (final / "README.md").read_text().splitlines()


def test_an_interrupted_run_goes_on_with_the_same_alone(folder: Path) -> None:
    assert step3(folder, STUB_STATUS="1").returncode != 0
    write_records(folder, "fear")
    refused = step3(folder)
    assert refused.returncode == 2 and "SWIFT" not in refused.stdout
    assert f"holds checkpoints: data {folder}/records.jsonl (" in refused.stderr.splitlines()[-1]
    write_records(folder, "awe")
    for variables in (
        {"SEED": "1"},
        {"LR": "1e-3"},
        {"STEPS": "9"},
        {"MODEL": str(ROOT / "models" / "EmoCaliber-mini-stage2")},
    ):
        assert step3(folder, **variables).returncode == 2
    second = step3(folder, STEPS="9", RESUME_CHANGED="1")
    assert second.returncode == 0 and "--resume_from_checkpoint" in second.stdout
    card = (folder / "output" / "stage3" / "final" / "README.md").read_text().splitlines()
    assert "| Changed on the way | max_steps as in the settings then, 9 now |" in card


@pytest.mark.slow
def test_rows_are_those_of_the_records_whatever_their_times(folder: Path) -> None:
    """Nothing was trained, so the records may change; a stop between Parquet and chats is made good."""
    data = folder / "output" / "stage3" / "data"
    absent = {"STUB_STATUS": "1"}
    step3(folder, **absent)
    checkpoint = folder / "output" / "stage3" / "checkpoint-5"
    truths = [
        row["reward_model"]["ground_truth"] for row in pq.read_table(data / "train.parquet").to_pylist()
    ]
    assert truths == ["awe"] * 3
    for path in (checkpoint / "trainer_state.json", data / "train_chats.jsonl"):
        path.unlink()
    os.utime(folder / "records.jsonl", (1, 1))
    step3(folder, **absent)
    assert [row["ground_truth"] for _, row in read_jsonl(data / "train_chats.jsonl")] == ["awe"] * 3
    (checkpoint / "trainer_state.json").unlink()
    write_records(folder, "fear")
    os.utime(folder / "records.jsonl", (1, 1))
    step3(folder, **absent)
    assert [row["ground_truth"] for _, row in read_jsonl(data / "train_chats.jsonl")] == ["fear"] * 3
    truths = [
        row["reward_model"]["ground_truth"] for row in pq.read_table(data / "train.parquet").to_pylist()
    ]
    assert truths == ["fear"] * 3


def test_records_that_are_not_there_are_told_and_no_others_made(folder: Path) -> None:
    result = step3(folder, RECORDS=str(folder / "none.jsonl"), MINI_DATA=str(folder / "mini"))
    assert result.returncode == 2 and f"error: {folder}/none.jsonl: No such file" in result.stderr
    assert not (folder / "mini").exists() and not (folder / "output").exists()


def test_the_examples_of_the_readme_work_one_after_the_other() -> None:
    """Every command of stage 3 that differs in what decides has a folder of its own."""
    text = (ROOT / "train" / "README.md").read_text().replace("\\\n", " ")
    commands = {line.strip() for line in text.splitlines() if "bash train/step3_example.sh" in line}
    assert len(commands) >= 5
    places = [
        next((word for word in line.split() if word.startswith(("OUTPUT_DIR=", "SIZE="))), "the default")
        for line in commands
    ]
    assert len(set(places)) == len(places)
