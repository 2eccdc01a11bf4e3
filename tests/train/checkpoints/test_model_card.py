"""The card of a finished model: the facts of the run, no path of the machine, front matter for a hub."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "train" / "checkpoints" / "model_card.py"
SETTINGS = ROOT / "train" / "settings" / "stage1_mini.yaml"


def write(folder: Path, *arguments: str, base: str, stage: str = "1") -> subprocess.CompletedProcess[str]:
    final = folder / f"stage{stage}" / "final"
    final.mkdir(parents=True, exist_ok=True)
    (final / "config.json").write_text("{}")
    (folder / "rows.jsonl").write_text("{}\n{}\n{}\n")
    command = [sys.executable, str(SCRIPT), "--model-dir", str(final), "--stage", stage, "--base", base]
    command += ["--dataset", str(folder / "rows.jsonl"), "--settings", str(SETTINGS), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def card(folder: Path, *arguments: str, base: str, stage: str = "1") -> str:
    result = write(folder, *arguments, base=base, stage=stage)
    assert result.returncode == 0, result.stderr
    return (folder / f"stage{stage}" / "final" / "README.md").read_text()


def front_matter(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_a_card_says_what_the_run_was(tmp_path: Path) -> None:
    state = {"global_step": 7, "log_history": [{"loss": 2.5, "step": 1}, {"loss": 0.12345, "step": 7}]}
    log = tmp_path / "trainer_state.json"
    log.write_text(json.dumps(state))
    text = card(
        tmp_path,
        "--log",
        str(log),
        "--",
        "--seed",
        "3",
        "--output_dir",
        str(tmp_path / "a" / "b"),
        base="a/b",
    )
    digest = hashlib.sha256(b"{}\n{}\n{}\n").hexdigest()
    for row in (
        "| Trained from | `a/b` |",
        f"| Data | `rows.jsonl`, 3 rows, sha256 `{digest}` |",
        "| Made by | `bash train/step1_example.sh` |",
        "| Steps | 7 |",
        "| Last train loss | 0.1235 |",
        "| Seed | 3 |",
    ):
        assert row in text.splitlines()
    assert SETTINGS.read_text().strip() in text
    assert re.search(r"^\| Versions \| Python 3\.\d+\.\d+, torch \d.*ms-swift \d", text, re.MULTILINE)
    assert re.search(r"^\| Date \| \d{4}-\d\d-\d\d \|$", text, re.MULTILINE)
    assert "with `--seed 3 --output_dir a/b`" in text
    assert str(tmp_path) not in text and str(ROOT) not in text


def test_front_matter_is_handed_from_stage_to_stage(tmp_path: Path) -> None:
    hub = "Qwen/Qwen2.5-VL-7B-Instruct"
    first = front_matter(card(tmp_path, base=hub))
    assert (first["base_model"], first["license"]) == (hub, "apache-2.0")
    assert first["pipeline_tag"] == "image-text-to-text" and "stage-1" in first["tags"]
    second = card(tmp_path, base=str(tmp_path / "stage1" / "final"), stage="2")
    assert front_matter(second)["base_model"] == hub
    assert front_matter(second)["license"] == "apache-2.0"
    assert "| Trained from | `stage1/final` |" in second


def test_a_model_from_nothing_names_no_base(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    warm = front_matter(card(tmp_path, base=str(tmp_path / "base"), stage="warmup"))
    assert "base_model" not in warm and warm["license"] == "apache-2.0"
    # Of a folder without a card nothing is known: no licence is claimed.
    assert "license" not in front_matter(card(tmp_path, base=str(tmp_path / "base")))


def test_stage_3_names_reward_and_engine(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    rows = [{"step": step, "data": {"critic/score/mean": step / 8, "actor/pg_loss": 0.5}} for step in (1, 2)]
    log.write_text("".join(f"{json.dumps(row)}\n" for row in rows) + '{"step": 3, "da')
    run = ["--engine", "verl", "--reward", "brier", "--settings", str(SETTINGS.with_name("stage3_mini.yaml"))]
    text = card(tmp_path, *run, "--log", str(log), base="a/b", stage="3")
    for row in ("| Engine | verl |", "| Steps | 2 |", "| Last mean reward | 0.25 |"):
        assert row in text.splitlines()
    assert "| Reward | `brier` (`emocaliber/reward.py`) |" in text
    assert "| Seed | 0 |" in text  # of the settings


def test_stage_3_of_verl_states_the_keys_that_were_given(tmp_path: Path) -> None:
    keys = ["data.seed=7", "actor_rollout_ref.actor.optim.lr=1e-3", "trainer.total_training_steps=9"]
    keys += [f"trainer.validation_data_dir='{tmp_path}/a/b'"]
    settings = ["--settings", str(SETTINGS.with_name("stage3_mini.yaml"))]
    text = card(tmp_path, *settings, "--engine", "verl", "--", *keys, base="a/b", stage="3")
    assert {"| Seed | 7 |", "| Learning rate | 1e-3 |"} < set(text.splitlines())
    assert "trainer.total_training_steps=9" in text and str(tmp_path) not in text
    plain = card(tmp_path, *settings, "--engine", "verl", base="a/b", stage="3").splitlines()
    assert {"| Seed | 0 |", "| Learning rate | 0.00015 |"} < set(plain)


@pytest.mark.parametrize("flags", [["--seed", "5"], ["--seed=5"]])
def test_a_flag_goes_before_the_settings(tmp_path: Path, flags: list[str]) -> None:
    text = card(tmp_path, "--", *flags, base="a/b")
    assert {"| Seed | 5 |", "| Learning rate | 0.001 |"} < set(text.splitlines())


def test_rows_that_were_left_out_are_counted(tmp_path: Path) -> None:
    (tmp_path / "stage1").mkdir()
    (tmp_path / "stage1" / "rejected_rows.jsonl").write_text("{}\n")
    assert ", 1 of them left out as bad |" in card(tmp_path, base="a/b")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stage1" / "final").mkdir(parents=True)
    command = [sys.executable, str(SCRIPT), "--model-dir", str(tmp_path), "--stage", "1", "--base", "a/b"]
    command += ["--dataset", str(tmp_path / "none"), "--settings", str(SETTINGS)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {tmp_path}: no config.json") and result.stderr.count("\n") == 1
