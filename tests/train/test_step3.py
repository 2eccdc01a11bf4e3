"""Stage 3 by its own script on the real verl: stopped and gone on with, ended when it says nothing."""

import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from emocaliber.jsonl import read_jsonl
from emocaliber.reward_log import read_reward_log

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "EmoCaliber-mini"
SMALL = (
    "data.train_batch_size=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "actor_rollout_ref.rollout.n=4",
    "trainer.save_freq=1",
    "trainer.test_freq=2",
)


def call(folder: Path, *keys: str, **variables: str) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of stage 3 in a folder of its own."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MODEL", "RECORDS", "SIZE")
    }
    environment |= {
        "OUTPUT_ROOT": str(folder / "output"),
        "MINI_DATA": str(folder / "data"),
        "N_TRAIN": "400",
    }
    return ["bash", str(ROOT / "train" / "step3_example.sh"), *keys], environment | variables


def run(folder: Path, *keys: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command, environment = call(folder, *keys, **variables)
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def start(folder: Path, *keys: str, log: IO[str], **variables: str) -> subprocess.Popen[str]:
    command, environment = call(folder, *keys, **variables)
    return subprocess.Popen(command, stdout=log, stderr=log, text=True, env=environment)


def processes_of(folder: Path) -> list[str]:
    """Command lines that name a folder."""
    lines = (path.read_bytes().replace(b"\0", b" ").decode() for path in running() if path.exists())
    return [line for line in lines if str(folder) in line]


def running() -> list[Path]:
    return [path for path in Path("/proc").glob("[0-9]*/cmdline") if path.parent.name != str(os.getpid())]


@pytest.mark.slow
def test_bad_records_stop_it_with_their_list(tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    records.write_text('{"task": "EmoSet-8"}\n')
    result = run(tmp_path, SIZE="mini", RECORDS=str(records))
    assert result.returncode == 2
    listed = tmp_path / "output" / "stage3" / "data" / "train.rejected.jsonl"
    assert f"(candidates 1; listed in {listed})" in result.stderr
    assert len(list(read_jsonl(listed))) == 1


@pytest.mark.slow
def test_a_run_that_says_nothing_is_ended(tmp_path: Path) -> None:
    """verl takes longer to import than this allows it to be silent."""
    result = run(tmp_path, *SMALL, SIZE="mini", MODEL=str(MODEL), STEPS="1", N_VAL="4", STALL_S="2")
    assert result.returncode == 1
    assert "error: no output and no rollout for 2 s: ended; see" in result.stderr
    assert processes_of(tmp_path / "output" / "stage3") == []


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_its_next_step(
    tmp_path: Path, vllm_answers: Callable[[Path, Path], list[dict[str, Any]]]
) -> None:
    """Stopped after its first step, a run goes on with its second; vLLM loads the model; again: nothing."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = {"SIZE": "mini", "MODEL": str(MODEL), "STEPS": "2", "LR": "1e-3", "N_VAL": "4"}
    output = tmp_path / "output" / "stage3"
    with (tmp_path / "first.log").open("w") as log:
        first = start(tmp_path, *SMALL, log=log, **model)
        while first.poll() is None and not (output / "latest_checkpointed_iteration.txt").exists():
            time.sleep(0.1)
        first.terminate()
        assert first.wait() == 143, (tmp_path / "first.log").read_text()[-4000:]
    assert processes_of(output) == [], "Ray and verl have ended"
    assert (output / "latest_checkpointed_iteration.txt").read_text() == "1"
    assert not (output / "final").exists()
    of_first = [row for row in read_reward_log(output / "rewards.jsonl") if row["split"] == "train"]

    second = run(tmp_path, *SMALL, **model)
    assert second.returncode == 0, second.stdout[-4000:] + second.stderr[-4000:]
    assert processes_of(output) == [], "Ray and verl have ended"

    rows = list(read_reward_log(output / "rewards.jsonl"))
    trained = [row for row in rows if row["split"] == "train"]
    assert len([row for row in trained if row["step"] == 0]) == 4 * 4
    assert {row["step"] for row in trained[len(of_first) :]} == {1}, "the first step is not done again"
    assert len(trained) == len(of_first) + 4 * 4
    rollouts = Counter(row["id"] for row in trained[:16] + trained[-16:])
    assert set(rollouts.values()) == {4}, "four rollouts a prompt, and other prompts after the stop"
    assert sum(row["format"] for row in trained) > len(trained) / 2
    assert len([row for row in rows if row["split"] == "val"]) == 4

    newest = max(output.glob("metrics-*.jsonl"))
    (metrics,) = [row["data"] for _, row in read_jsonl(newest)]
    assert metrics["training/global_step"] == 2
    assert metrics["training/rollout_probs_diff_max"] < 1e-4
    mean = sum(row["score"] for row in trained[-16:]) / 16
    assert metrics["critic/score/mean"] == pytest.approx(mean, abs=1e-4)

    before, after = load_file(MODEL / "model.safetensors"), load_file(output / "final" / "model.safetensors")
    assert before.keys() == after.keys()
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(changed) > len(before) / 2
    loaded = AutoModelForImageTextToText.from_pretrained(output / "final")
    AutoProcessor.from_pretrained(output / "final")
    assert loaded.generation_config.suppress_tokens
    assert "stage 3" in (output / "final" / "README.md").read_text()

    answers = vllm_answers(output / "final", tmp_path / "data" / "train_stage3.jsonl")
    assert len(answers) == 8 and all("response" in row for row in answers)

    again = run(tmp_path, *SMALL, **model)
    assert again.returncode == 0 and "already trained" in again.stdout
