"""Every command and script says at once how it is used, and nothing runs what lies in the user's folder."""

import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("data", "inference", "train")
HEAVY = {"torch", "transformers", "vllm", "swift", "verl", "ray", "sklearn", "scipy", "pandas", "matplotlib"}
HOSTILE = ("emocaliber.py", "argparse.py", "json.py", "numpy.py")
"""Files of a user's folder that would run in place of ours, were that folder on sys.path."""

# The commands of the rooms, and the programs in their folders that scripts start.
COMMANDS = sorted(
    file.relative_to(ROOT).as_posix()
    for room in ROOMS
    for file in (ROOT / room).rglob("*.py")
    if '\nif __name__ == "__main__":' in file.read_text(encoding="utf-8")
)
ENTRY_POINTS = sorted(
    file.relative_to(ROOT).as_posix() for room in ROOMS for file in (ROOT / room).glob("*.sh")
)
SHELL_FILES = sorted(
    file.relative_to(ROOT).as_posix()
    for folder in (ROOT, *(ROOT / part for part in (*ROOMS, "tests")))
    for file in (folder.glob("*.sh") if folder == ROOT else folder.rglob("*.sh"))
)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder to start commands in, whose files end whoever imports them."""
    for name in HOSTILE:
        (tmp_path / name).write_text(f"raise SystemExit('{name} of the current folder ran')\n")
    return tmp_path


def run_help(command: str, folder: Path) -> tuple[subprocess.CompletedProcess[str], float]:
    """`python COMMAND --help` in a folder that is not the repository, and its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # importtime lists every module that was imported, on stderr.
    arguments = [sys.executable, "-X", "importtime", str(ROOT / command), "--help"]
    run = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return run, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_quick_and_imports_nothing_heavy(command: str, hostile: Path) -> None:
    run, seconds = run_help(command, hostile)
    if seconds >= 1:  # the first run may have compiled the modules
        run, seconds = run_help(command, hostile)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.startswith("usage: ")
    imported = {
        name.split(".")[0] for name in re.findall(r"^import time:.*\|\s*(\S+)$", run.stderr, re.MULTILINE)
    }
    assert "argparse" in imported, "importtime's format has changed: this test no longer sees the imports"
    assert imported & HEAVY == set()
    assert seconds < 1
    assert {path.name for path in hostile.iterdir()} == set(HOSTILE)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_one_error_and_exit_2(command: str, tmp_path: Path) -> None:
    arguments = [sys.executable, str(ROOT / command), "--no-such-option"]
    run = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith("error: ")
    assert run.stderr.endswith("; see --help\n")
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("file", SHELL_FILES)
def test_a_script_says_how_it_is_used_without_an_environment(file: str, flag: str, tmp_path: Path) -> None:
    alone = tmp_path / file
    alone.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / file, alone)
    before = sorted(tmp_path.rglob("*"))
    run = subprocess.run(
        ["bash", str(alone), flag],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert Path(file).name in run.stdout
    assert "set -" not in run.stdout and "#!" not in run.stdout
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("file", ENTRY_POINTS)
def test_an_entry_point_is_strict_and_brings_its_environment(file: str) -> None:
    source = (ROOT / file).read_text(encoding="utf-8")
    assert source.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in source
    assert re.search(r'^source "\S*setup_env\.sh"$', source, re.MULTILINE)
    assert '"$@"' in source, "extra arguments have to pass through"


def test_the_published_entry_points_are_there() -> None:
    assert {"inference/infer.py", "inference/evaluate.py", "data/build_mini.py"} <= set(COMMANDS)
    assert "inference/infer_and_eval_example.sh" in ENTRY_POINTS
    assert {f"train/step{stage}_example.sh" for stage in (1, 2, 3)} <= set(ENTRY_POINTS)


def starts_in_the_users_folder(script: str) -> list[str]:
    """The lines that have Python put the current folder first on sys.path, before `cd "$ROOT"`.

    `python FILE` does not; `-m`, `-c` and `-` do, unless `-I` stands before them.
    """
    before_cd = re.split(r'^ *cd "\$ROOT"', script, flags=re.MULTILINE)[0]
    start = re.compile(r'^(?!\s*#).*(?:\bpython[\d.]*|PYTHON|python)"? +(?!-I)(?:-\w+ +)*-[mc]? ')
    return [line.strip() for line in before_cd.splitlines() if start.search(line)]


@pytest.mark.parametrize("file", [*SHELL_FILES, ".ci/run"])
def test_no_script_has_python_import_from_the_users_folder(file: str) -> None:
    assert starts_in_the_users_folder((ROOT / file).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("script", "n_found"),
    [
        ('exec "$EMOCALIBER_PYTHON" -m emocaliber.supervise "$0"', 1),
        ("python -m verl.trainer", 1),
        ("python3.11 -c 'import numpy'", 1),
        ("python -u -m train.preflight.begin", 1),
        ("python - <<'PYTHON'", 1),
        ('cd "$ROOT"\npython -m mypy', 0),
        ("#   python -m pip install", 0),
        ('"$EMOCALIBER_PYTHON" "$ROOT/emocaliber/supervise.py" "$0"', 0),
        ('"$env_dir/bin/python" -I -m pip install', 0),
        ('python "$ROOT/inference/infer.py" --checkpoint x -m', 0),
    ],
)
def test_a_start_in_the_users_folder_is_found(script: str, n_found: int) -> None:
    assert len(starts_in_the_users_folder(script)) == n_found
