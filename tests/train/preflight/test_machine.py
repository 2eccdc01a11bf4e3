"""Whether a run's model is whole and how many weights it has; and what a machine lacks."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from emocaliber.jsonl import RecordError
from train.preflight import machine as module
from train.preflight.machine import GIB, check_machine, check_model, visible_gpus

ROOT = Path(__file__).parents[3]
MINI = ROOT / "models" / "EmoCaliber-mini"


def with_gpus(monkeypatch: pytest.MonkeyPatch, folder: Path, listed: str) -> None:
    """A driver's tool that lists these GPUs."""
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '{listed}'\n")
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_weights_are_counted_from_the_files(tmp_path: Path) -> None:
    """The mini model's 1,314,496 are in float32; the files' heads are the rest."""
    assert check_model(str(MINI)) == pytest.approx(1_314_496, rel=0.01)
    shutil.copytree(MINI, tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text().replace('"float32"', '"bfloat16"'))
    shutil.copy(MINI / "model.safetensors", tmp_path / "model" / "model-2.safetensors")
    assert check_model(str(tmp_path / "model")) == 4 * check_model(str(MINI))
    assert check_model("owner/name") == 0


@pytest.mark.parametrize(
    ("listed", "n_gpus", "message"),
    [
        ("", 2, "no GPU is here, these settings are for 2; take SIZE=mini"),
        ("0\\n", 2, "N_GPU=2, but 1 GPUs are here; set N_GPU, or take another SIZE"),
    ],
)
def test_gpus_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: str, n_gpus: int, message: str
) -> None:
    with_gpus(monkeypatch, tmp_path, listed)
    with pytest.raises(RecordError, match=message):
        check_machine(tmp_path, n_gpus, 0, 2)


@pytest.mark.parametrize(
    ("visible", "seen"), [("", ["0", "1", "2"]), ("2,0", ["0", "2"]), ("GPU-1a2b", ["0", "1", "2"])]
)
def test_gpus_that_may_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str, seen: list[str]
) -> None:
    with_gpus(monkeypatch, tmp_path, "0\\n1\\n2\\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_gpus() == seen


def test_checkpoints_that_do_not_fit_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two are kept and a third is written: 3 x 16 bytes for each of 2^30 weights."""
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=47 * GIB))
    message = "47.0 GiB free, 3 checkpoints and the model need about 48.0; make room"
    with pytest.raises(RecordError, match=re.escape(message)):
        check_machine(tmp_path / "new" / "folder", 0, 2**30, 2)
    check_machine(tmp_path, 0, 2**30, 1)
    check_machine(tmp_path, 0, 0, 2)
    monkeypatch.setenv("NEEDED_DISK_GB", "40")
    check_machine(tmp_path, 0, 2**30, 2)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"NEEDED_DISK_GB": "1e9"}, "3 checkpoints and the model need about 1000000000.0; make room"),
        ({"NEEDED_MEMORY_GB": "1e9"}, "of memory available, the run needs about 1000000000.0; end other"),
    ],
)
def test_too_small_a_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RecordError, match=message):
        check_machine(tmp_path / "new" / "folder", 0, 0, 2)


def test_what_was_found_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, tmp_path, "0\\n1\\n2\\n3\\n")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert check_machine(tmp_path, 1, 0, 2).startswith("1 of 4 GPUs; ")
    assert check_machine(tmp_path, 0, 0, 2).startswith("the CPU; ")
