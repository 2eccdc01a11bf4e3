"""Every command says how it is used at once, and every shell entry point is thin and sound."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("data", "inference", "train")
HEAVY = {"torch", "transformers", "vllm", "swift", "verl", "ray", "sklearn", "scipy", "pandas", "matplotlib"}

COMMANDS = sorted(
    file.relative_to(ROOT).as_posix()
    for room in ROOMS
    for file in (ROOT / room).glob("*.py")
    if '__name__ == "__main__"' in file.read_text(encoding="utf-8")
)
ENTRY_POINTS = sorted(
    file.relative_to(ROOT).as_posix() for room in ROOMS for file in (ROOT / room).glob("*.sh")
)
SHELL_FILES = [
    *ENTRY_POINTS,
    "setup_env.sh",
    "lock_env.sh",
    "tests/run.sh",
    "tests/install_browser.sh",
    ".ci/run",
]


def run_help(command: str, folder: Path) -> tuple[subprocess.CompletedProcess[str], float]:
    """`python COMMAND --help` in a folder that is not the repository, and its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # importtime lists every module that was imported, on stderr.
    arguments = [sys.executable, "-X", "importtime", str(ROOT / command), "--help"]
    run = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return run, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_quick_and_imports_nothing_heavy(command: str, tmp_path: Path) -> None:
    run, seconds = run_help(command, tmp_path)
    if seconds >= 1:  # the first run may have compiled the modules
        run, seconds = run_help(command, tmp_path)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.startswith("usage: ")
    imported = {
        name.split(".")[0] for name in re.findall(r"^import time:.*\|\s*(\S+)$", run.stderr, re.MULTILINE)
    }
    assert "argparse" in imported, "importtime's format has changed: this test no longer sees the imports"
    assert imported & HEAVY == set()
    assert seconds < 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_one_error_and_exit_2(command: str, tmp_path: Path) -> None:
    arguments = [sys.executable, str(ROOT / command), "--no-such-option"]
    run = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith("error: ")
    assert run.stderr.endswith("; see --help\n")
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("file", SHELL_FILES)
def test_shell_parses(file: str) -> None:
    run = subprocess.run(["bash", "-n", str(ROOT / file)], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("file", ENTRY_POINTS)
def test_an_entry_point_is_strict_and_brings_its_environment(file: str) -> None:
    source = (ROOT / file).read_text(encoding="utf-8")
    assert source.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in source
    assert re.search(r'^source "\S*setup_env\.sh"$', source, re.MULTILINE)
    assert '"$@"' in source, "extra arguments have to pass through"


def test_the_published_entry_points_are_there() -> None:
    assert "inference/infer.py" in COMMANDS
    assert "inference/evaluate.py" in COMMANDS
    assert "data/build_mini.py" in COMMANDS
    assert "inference/infer_and_eval_example.sh" in ENTRY_POINTS
    assert {"train/step1_example.sh", "train/step2_example.sh"} <= set(ENTRY_POINTS)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_the_main_script_tells_its_use_and_makes_no_environment(flag: str, tmp_path: Path) -> None:
    copy = tmp_path / "inference"
    copy.mkdir()
    (copy / "run.sh").write_text((ROOT / "inference" / "infer_and_eval_example.sh").read_text())
    run = subprocess.run(["bash", str(copy / "run.sh"), flag], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert "bash inference/infer_and_eval_example.sh" in run.stdout and "CHECKPOINT=" in run.stdout
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inference", "run.sh"]
