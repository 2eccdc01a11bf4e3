"""The check on a GPU, where there is none: it says so; what fails is told with the end of its log."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def check(folder: Path, *stages: str, **variables: str) -> subprocess.CompletedProcess[str]:
    tool = folder / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nexit 9\n")
    tool.chmod(0o755)
    environment = os.environ | {"PATH": f"{tool.parent}:{os.environ['PATH']}", "EMOCALIBER_DEVICE": "cpu"}
    command = ["bash", str(ROOT / "train" / "check_gpu.sh"), *stages]
    environment |= {"CHECK_DIR": str(folder / "check")} | variables
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_without_a_gpu_it_says_so_in_one_line(tmp_path: Path) -> None:
    result = check(tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: no NVIDIA GPU here") and result.stderr.count("\n") == 1
    assert result.stdout == "" and not (tmp_path / "check").exists()


def test_a_failing_stage_is_told_and_ends_the_check(tmp_path: Path) -> None:
    """Stage 2 finds no stage 1 to start from; stage 3 is not tried."""
    result = check(tmp_path, "2", "3", ALLOW_CPU="1")
    assert result.returncode == 1
    first, second, third, *rest = result.stdout.splitlines()
    assert first.startswith("versions: torch ") and second.startswith("device: CPU, ")
    assert third.startswith("stage 2: FAIL after ")
    assert "run train/step1_example.sh first" in rest[-1]
    assert "PASS" not in result.stdout and not (tmp_path / "check" / "stage3.log").exists()
