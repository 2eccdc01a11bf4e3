"""Wrong inputs of a stage-3 run: one line with the remedy, exit 2, before anything heavy starts."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[3]
SETTINGS = ROOT / "train" / "settings" / "stage3_mini.yaml"


def check(keys: list[str]) -> subprocess.CompletedProcess[str]:
    """The command."""
    script = ROOT / "train" / "rl" / "check_inputs.py"
    command = [sys.executable, str(script), "--settings", str(SETTINGS), "--", *keys]
    here = {"VERL_USE_EXTERNAL_MODULES": "train.rl.verl_cpu", "VERL_PLATFORM": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=os.environ | here, capture_output=True, text=True, check=False)


def refused(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 2, result.stdout + result.stderr
    assert result.stderr.startswith("error: ") and len(result.stderr.splitlines()) == 1
    return result.stderr


@pytest.mark.slow
def test_good_inputs_are_told_in_numbers(
    tmp_path: Path, parquet: Path, keys_of: Callable[..., list[str]]
) -> None:
    result = check(keys_of(tmp_path, parquet))
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.startswith("the CPU; ")
    assert f"{parquet}: 20 rows, 16 image tokens a prompt, which has up to " in result.stdout
    assert (tmp_path / "rewards.jsonl").read_text() == "", "the sample is no rollout"


def test_missing_and_empty_files(tmp_path: Path, parquet: Path, keys_of: Callable[..., list[str]]) -> None:
    message = refused(check(keys_of(tmp_path, tmp_path / "none.parquet")))
    assert "none.parquet is missing; make it with data/build_rl_parquet.py" in message
    (tmp_path / "text.parquet").write_text("text")
    assert "no Parquet file" in refused(check(keys_of(tmp_path, parquet, val=tmp_path / "text.parquet")))
    pq.write_table(pq.read_table(parquet).slice(0, 0), tmp_path / "empty.parquet")
    assert "no rows" in refused(check(keys_of(tmp_path, tmp_path / "empty.parquet")))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("actor_rollout_ref.model.path=/no/where/at/all", "no such model folder"),
        ("data.train_batch_size=64", "20 rows, a step takes 64; give more, or lower data.train_batch_size"),
        ("data.no_such_key=1", "no_such_key"),
        ("trainer.device=cuda", "no GPU is here, these settings are for 1"),
    ],
)
def test_what_is_found_without_importing_verl(
    tmp_path: Path,
    parquet: Path,
    keys_of: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    override: str,
    message: str,
) -> None:
    monkeypatch.setenv("PATH", "/no/where")  # no nvidia-smi, on any machine
    assert message in refused(check(keys_of(tmp_path, parquet, override)))
