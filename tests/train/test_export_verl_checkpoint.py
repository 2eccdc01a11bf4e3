"""The last checkpoint of a run of verl as a model of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def checkpoint(run: Path, step: int, weights: str) -> None:
    folder = run / f"global_step_{step}" / "actor" / "huggingface"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(weights)
    (folder / "config.json").write_text("{}")
    (folder.parent / "optim_world_size_1_rank_0.pt").touch()


def export(run: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train" / "checkpoints" / "export.py"), "--from", str(run)]
    return subprocess.run([*command, "--to", str(run / "final")], capture_output=True, text=True, check=False)


def test_the_checkpoint_that_the_tracker_names_is_copied_alone(tmp_path: Path) -> None:
    checkpoint(tmp_path, 9, "ninth")
    checkpoint(tmp_path, 10, "tenth")
    checkpoint(tmp_path, 11, "cut off: the tracker does not know it")
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("10")
    result = export(tmp_path)
    assert result.returncode == 0 and "the model of global_step_10" in result.stdout
    assert sorted(path.name for path in (tmp_path / "final").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    assert (tmp_path / "final" / "model.safetensors").read_text() == "tenth"


@pytest.mark.parametrize("tracker", [None, "", "12"])
def test_no_whole_checkpoint(tmp_path: Path, tracker: str | None) -> None:
    checkpoint(tmp_path, 11, "cut off")
    if tracker is not None:
        (tmp_path / "latest_checkpointed_iteration.txt").write_text(tracker)
    result = export(tmp_path)
    assert result.returncode == 2
    assert result.stderr == f"error: {tmp_path}: no whole checkpoint of verl; did the training end?\n"
    assert not (tmp_path / "final").exists()
