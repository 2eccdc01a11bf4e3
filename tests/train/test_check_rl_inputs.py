"""Wrong inputs of a stage-3 run: one line with the remedy, exit 2, before anything heavy starts."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from emocaliber.jsonl import RecordError, write_jsonl_atomic
from emocaliber.prompts import conversation
from train.rl import check_inputs as check_rl_inputs

ROOT = Path(__file__).parents[2]
SETTINGS = ROOT / "train" / "settings" / "stage3_mini.yaml"
CANDIDATES = ["awe", "fear"]


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty rows as data/build_rl_parquet.py makes them."""
    folder = tmp_path_factory.mktemp("data")
    Image.effect_noise((112, 112), 50).convert("RGB").save(folder / "a.png")
    record = {"task": "EmoSet-8", "ground_truth": "awe", "candidates": CANDIDATES, "image": "a.png"}
    record["conversations"] = conversation("a.png", CANDIDATES)
    write_jsonl_atomic(folder / "records.jsonl", [record | {"id": str(number)} for number in range(20)])
    command = [
        sys.executable,
        str(ROOT / "data" / "build_rl_parquet.py"),
        "--output",
        str(folder / "a.parquet"),
    ]
    subprocess.run([*command, "--records", str(folder / "records.jsonl")], check=True, capture_output=True)
    return folder / "a.parquet"


def keys_of(folder: Path, train: Path, *overrides: str, val: Path | None = None) -> list[str]:
    return [
        f"actor_rollout_ref.model.path={ROOT / 'models' / 'EmoCaliber-mini'}",
        f"data.train_files={train}",
        f"data.val_files={val or train}",
        f"reward.custom_reward_function.path={ROOT / 'train' / 'verl_reward.py'}",
        f"++reward.custom_reward_function.reward_kwargs.log={folder / 'rewards.jsonl'}",
        f"trainer.default_local_dir={folder}",
        "trainer.device=cpu",
        *overrides,
    ]


def check(
    folder: Path, train: Path, *overrides: str, val: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """The command."""
    script = ROOT / "train" / "rl" / "check_inputs.py"
    keys = keys_of(folder, train, *overrides, val=val)
    command = [sys.executable, str(script), "--settings", str(SETTINGS), "--", *keys]
    here = {"VERL_USE_EXTERNAL_MODULES": "train.rl.verl_cpu", "VERL_PLATFORM": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=os.environ | here, capture_output=True, text=True, check=False)


def refused(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 2, result.stdout + result.stderr
    assert result.stderr.startswith("error: ") and len(result.stderr.splitlines()) == 1
    return result.stderr


@pytest.mark.slow
def test_good_inputs_are_told_in_numbers(tmp_path: Path, parquet: Path) -> None:
    result = check(tmp_path, parquet)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.startswith("the CPU; ")
    assert f"{parquet}: 20 rows, 16 image tokens a prompt, which has up to " in result.stdout
    assert (tmp_path / "rewards.jsonl").read_text() == "", "the sample is no rollout"


def test_missing_and_empty_files(tmp_path: Path, parquet: Path) -> None:
    message = refused(check(tmp_path, tmp_path / "none.parquet"))
    assert "none.parquet is missing; make it with data/build_rl_parquet.py" in message
    (tmp_path / "text.parquet").write_text("text")
    assert "no Parquet file" in refused(check(tmp_path, parquet, val=tmp_path / "text.parquet"))
    pq.write_table(pq.read_table(parquet).slice(0, 0), tmp_path / "empty.parquet")
    assert "no rows" in refused(check(tmp_path, tmp_path / "empty.parquet"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("actor_rollout_ref.model.path=/no/where/at/all", "no such model folder"),
        ("data.train_batch_size=64", "20 rows, a step takes 64; give more, or lower data.train_batch_size"),
        ("data.no_such_key=1", "no_such_key"),
        ("trainer.device=cuda", "N_GPU=1, but 0 GPUs are here"),
    ],
)
def test_what_is_found_without_importing_verl(
    tmp_path: Path, parquet: Path, monkeypatch: pytest.MonkeyPatch, override: str, message: str
) -> None:
    monkeypatch.setenv("PATH", "/no/where")  # no nvidia-smi, on any machine
    assert message in refused(check(tmp_path, parquet, override))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("++reward.custom_reward_function.reward_kwargs.reward=none", "no reward is called 'none'"),
        ("reward.custom_reward_function.path=/no/where.py", "reward brier: "),
        ("++reward.custom_reward_function.reward_kwargs.log=/proc/no/log", "cannot be written"),
        ("custom_reward_function.path=x.py", "set reward.custom_reward_function instead"),
        ("data.max_prompt_length=20", "16 of 16 prompts are longer than 20 tokens, up to"),
        (
            "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=24",
            "128 rollouts on 1 GPUs do not make whole micro-batches",
        ),
    ],
)
def test_what_verl_would_refuse_or_ignore(tmp_path: Path, parquet: Path, override: str, message: str) -> None:
    with pytest.raises(RecordError) as error:
        check_rl_inputs.check(SETTINGS, keys_of(tmp_path, parquet, override))
    assert message in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("images", [{"bytes": b"no picture"}]),
        ("images", []),
        ("prompt", [{"role": "user", "content": "<image><image>Which?"}]),
    ],
)
def test_rows_that_verl_cannot_read(tmp_path: Path, parquet: Path, column: str, value: Any) -> None:
    rows = pq.read_table(parquet).to_pylist()
    rows[3][column] = value
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "bad.parquet")
    with pytest.raises(RecordError) as error:
        check_rl_inputs.check(SETTINGS, keys_of(tmp_path, parquet, val=tmp_path / "bad.parquet"))
    message = str(error.value)
    assert (
        "bad.parquet: verl cannot read it" in message and "make it with data/build_rl_parquet.py" in message
    )
