"""tests/run.sh runs every check whatever the others say, and fails if one fails."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHECKS = ["ruff format", "ruff check", "mypy", "shellcheck", "shfmt", "chromium", "pytest"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository whose tools only write down how they were called, and fail when $FAIL is in the call."""
    for folder in ("tests", ".ci", "bin", "room", ".venv"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "tests/run.sh", tmp_path / "tests")
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci")
    script = 'echo "chromium is there" >>"$CALLS"\n[[ chromium != "$FAIL" ]]\n'
    (tmp_path / "tests/install_browser.sh").write_text(script, encoding="utf-8")
    for file in ("room/entry.sh", ".venv/not_ours.sh"):
        (tmp_path / file).write_text("", encoding="utf-8")
    (tmp_path / "setup_env.sh").write_text(f'PATH="{tmp_path}/bin:$PATH"\n', encoding="utf-8")
    for tool in ("python", "shellcheck", "shfmt"):
        script = '#!/bin/bash\ncall="${0##*/} $*"\necho "$call" >>"$CALLS"\n[[ "$call" != *"$FAIL"* ]]\n'
        (tmp_path / "bin" / tool).write_text(script, encoding="utf-8")
        (tmp_path / "bin" / tool).chmod(0o755)
    return tmp_path


def run(
    tree: Path, fail: str, *arguments: str, script: str = "tests/run.sh"
) -> tuple[int, list[str], list[str]]:
    """Exit status, lines of output and the tools' calls."""
    variables = {**os.environ, "CALLS": str(tree / "calls.txt"), "FAIL": fail}
    command = ["bash", str(tree / script), *arguments]
    done = subprocess.run(command, env=variables, cwd="/", capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines(), (tree / "calls.txt").read_text().splitlines()


def test_everything_runs_and_pytest_has_the_last_word(tree: Path) -> None:
    status, output, calls = run(tree, "no such call", "-k", "one or two")
    assert status == 0
    assert output == [f"== {check}" for check in CHECKS]
    shell_files = "./.ci/run ./room/entry.sh ./setup_env.sh ./tests/install_browser.sh ./tests/run.sh"
    assert calls == [
        "python -m ruff format --check .",
        "python -m ruff check .",
        "python -m mypy --strict emocaliber",
        f"shellcheck {shell_files}",
        f"shfmt -i 2 -d {shell_files}",
        "chromium is there",
        "python -m pytest -q --numprocesses 2 --dist loadfile --durations 20 -k one or two",
    ]


@pytest.mark.parametrize("fail", CHECKS)
def test_one_failure_fails_the_run_and_stops_nothing(tree: Path, fail: str) -> None:
    status, output, calls = run(tree, fail)
    assert status == 1
    assert len(calls) == len(CHECKS)
    told = [line for line in output if line.startswith("error: ")]
    assert len(told) == (fail != "pytest")  # pytest tells itself
    assert all(fail in line for line in told)


def test_continuous_integration_runs_the_same(tree: Path) -> None:
    assert run(tree, "no such call", script=".ci/run")[0] == 0
    assert run(tree, "mypy", script=".ci/run")[0] == 1
