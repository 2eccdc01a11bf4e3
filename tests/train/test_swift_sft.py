"""The launch of ms-swift: what it is started with, on a GPU machine and after an interruption."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = {"messages": [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "awe"}]}
# Stands before the real ms-swift: prints how it would be started.
SWIFT = """
import os, sys
print("SWIFT", *sys.argv[1:], f"NPROC={os.environ.get('NPROC_PER_NODE', '')}",
      f"GPUS={os.environ.get('CUDA_VISIBLE_DEVICES', '')}")
"""


def launch(folder: Path, *, gpus: bool = False, **variables: str) -> subprocess.CompletedProcess[str]:
    (folder / "model").mkdir(exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        (folder / "model" / name).touch()
    (folder / "a.jpg").touch()
    (folder / "rows.jsonl").write_text(json.dumps(ROW | {"images": ["a.jpg"]}) + "\n")
    package = folder / "stubs" / "swift" / "cli"
    package.mkdir(parents=True, exist_ok=True)
    for name, text in (("../__init__", ""), ("__init__", ""), ("main", SWIFT)):
        (package / f"{name}.py").write_text(text)
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    if gpus:
        (tools / "nvidia-smi").write_text("#!/bin/sh\necho GPU 0\n")
        (tools / "nvidia-smi").chmod(0o755)
    command = ["bash", str(ROOT / "train" / "swift_sft.sh"), variables.pop("SETTINGS", "")]
    command[2] = command[2] or str(ROOT / "train" / "settings" / "stage1_mini.yaml")
    command += [str(folder / "model"), str(folder / "rows.jsonl"), str(folder / "out"), "--max_steps", "3"]
    environment = {name: value for name, value in os.environ.items() if name != "N_GPU"}
    environment |= {"PYTHONPATH": str(folder / "stubs"), "EMOCALIBER_PYTHON": sys.executable}
    environment |= {"EMOCALIBER_DEVICE": "cpu", "PATH": f"{tools}:{os.environ['PATH']}"} | variables
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def started(result: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in result.stdout.splitlines() if line.startswith("SWIFT")]
    assert len(lines) == 1, result.stdout + result.stderr
    return lines[0]


def test_without_a_gpu_it_runs_on_the_cpu_and_passes_flags_on(tmp_path: Path) -> None:
    line = started(launch(tmp_path))
    assert "--use_cpu true" in line and "--max_steps 3" in line
    assert "--external_plugins" in line and "resume" not in line
    assert line.endswith("NPROC= GPUS=")


@pytest.mark.parametrize(("n_gpu", "visible"), [("1", "0"), ("4", "0,1,2,3")])
def test_with_gpus_it_uses_as_many_as_asked_for(tmp_path: Path, n_gpu: str, visible: str) -> None:
    line = started(launch(tmp_path, gpus=True, N_GPU=n_gpu, CUDA_VISIBLE_DEVICES=""))
    assert "--use_cpu" not in line
    assert line.endswith(f"NPROC={n_gpu} GPUS={visible}")


def test_it_goes_on_from_the_last_whole_checkpoint(tmp_path: Path) -> None:
    for number, whole in ((90, True), (100, True), (200, False)):
        checkpoint = tmp_path / "out" / f"checkpoint-{number}"
        checkpoint.mkdir(parents=True)
        if whole:
            (checkpoint / "trainer_state.json").touch()
    line = started(launch(tmp_path))
    assert f"--resume_from_checkpoint {tmp_path / 'out' / 'checkpoint-100'}" in line


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out" / "final").mkdir(parents=True)
    (tmp_path / "out" / "final" / "config.json").touch()
    result = launch(tmp_path)
    assert result.returncode == 0
    assert "already trained" in result.stdout and "SWIFT" not in result.stdout


def test_missing_settings_are_one_line(tmp_path: Path) -> None:
    result = launch(tmp_path, SETTINGS=str(tmp_path / "none.yaml"))
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith(
        f"error: {tmp_path / 'none.yaml'}: no such settings file"
    )
