"""tests/run.sh runs every check whatever the others say; continuous integration runs what it has time for."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STYLE = ["ruff format", "ruff check", "mypy", "shellcheck", "shfmt"]
CHECKS = [*STYLE, "chromium", "pytest"]
PYTEST = "python -m pytest -q --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 20"


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
        script = (
            '#!/bin/bash\ncall="${0##*/} $*${HYPOTHESIS_PROFILE:+ with $HYPOTHESIS_PROFILE examples}"\n'
            'echo "$call" >>"$CALLS"\n[[ "$call" != *"${HANG:-no such call}"* ]] || sleep 60\n'
            '[[ "$call" != *"$FAIL"* ]]\n'
        )
        (tmp_path / "bin" / tool).write_text(script, encoding="utf-8")
        (tmp_path / "bin" / tool).chmod(0o755)
    return tmp_path


def run(
    tree: Path, *arguments: str, script: str = "tests/run.sh", fail: str = "no such call", **more: str
) -> tuple[int, list[str], list[str]]:
    """Exit status, lines of output without the times, and the tools' calls."""
    kept = {name: value for name, value in os.environ.items() if name != "HYPOTHESIS_PROFILE"}
    variables = {**kept, "CALLS": str(tree / "calls.txt"), "FAIL": fail, **more}
    command = ["bash", str(tree / script), *arguments]
    done = subprocess.run(command, env=variables, cwd="/", capture_output=True, text=True, timeout=50)
    output = [line for line in done.stdout.splitlines() if not line.startswith("   ")]
    return done.returncode, output, (tree / "calls.txt").read_text().splitlines()


def test_everything_runs_and_pytest_has_the_last_word(tree: Path) -> None:
    status, output, calls = run(tree, "-k", "one or two")
    assert status == 0
    assert output == [f"== {check}" for check in CHECKS]
    shell_files = "./.ci/run ./room/entry.sh ./setup_env.sh ./tests/install_browser.sh ./tests/run.sh"
    assert calls == [
        "python -m ruff format --check .",
        "python -m ruff check .",
        "python -m mypy",
        f"shellcheck {shell_files}",
        f"shfmt -i 2 -d {shell_files}",
        "chromium is there",
        f"{PYTEST} -m not slow -k one or two",
    ]


def test_all_adds_the_slow_tests_and_examples(tree: Path) -> None:
    status, output, calls = run(tree, "--all", "-x")
    assert status == 0
    assert output == [f"== {check}" for check in CHECKS]
    assert calls[-1] == f"{PYTEST} -x with all examples"


def test_the_slow_tests_run_alone(tree: Path) -> None:
    status, output, calls = run(tree, "--slow", "-x")
    assert status == 0
    assert output == ["== chromium", "== pytest"]
    assert calls == ["chromium is there", f"{PYTEST} -m slow -x with all examples"]


@pytest.mark.parametrize("fail", CHECKS)
def test_one_failure_fails_the_run_and_stops_nothing(tree: Path, fail: str) -> None:
    status, output, calls = run(tree, fail=fail)
    assert status == 1
    assert len(calls) == len(CHECKS)
    told = [line for line in output if line.startswith("error: ")]
    assert told == (
        [] if fail == "pytest" else [f"error: failed before pytest: {fail}"]
    )  # pytest tells itself


def test_continuous_integration_runs_the_every_day_suite_and_then_the_slow_tests(tree: Path) -> None:
    status, _, calls = run(tree, script=".ci/run")
    assert status == 0
    assert [call for call in calls if "pytest" in call] == [
        f"{PYTEST} -m not slow",
        f"{PYTEST} -m slow with all examples",
    ]


@pytest.mark.parametrize("fail", ["mypy", "-m not slow", "-m slow"])
def test_continuous_integration_fails_for_either_and_runs_both(tree: Path, fail: str) -> None:
    status, _, calls = run(tree, script=".ci/run", fail=fail)
    assert status == 1
    assert len([call for call in calls if "pytest" in call]) == 2


@pytest.mark.parametrize(("fail", "expected"), [("no such call", 0), ("-m not slow", 1)])
def test_without_time_left_no_slow_test_starts_and_that_alone_is_no_failure(
    tree: Path, fail: str, expected: int
) -> None:
    status, output, calls = run(tree, script=".ci/run", fail=fail, LAST_START_S="0")
    assert status == expected
    assert output[-1].startswith("out of time: no slow test started, as the every-day suite took ")
    assert len([call for call in calls if "pytest" in call]) == 1


def test_a_slow_test_that_hangs_is_told_and_fails(tree: Path) -> None:
    status, output, _ = run(tree, script=".ci/run", HANG="-m slow", END_S="4")
    assert status == 1
    assert output[-1].startswith("error: a slow test still ran after ")


def run_with_end(folder: Path, end_s: float, *arguments: str) -> list[str]:
    """What pytest prints of a file of `train` and another one; no test starts after `end_s`."""
    tests = folder / "tests"
    (tests / "train").mkdir(parents=True)
    shutil.copy(ROOT / "tests/conftest.py", tests)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib -p no:cacheprovider\n")
    (tests / "train" / "test_long.py").write_text(
        "def test_until_the_end(request):\n"
        "    request.config.pluginmanager.get_plugin('until-end').end_s = 0\n"
    )
    (tests / "test_after.py").write_text("def test_a():\n    pass\n\ndef test_b():\n    pass\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *arguments, "tests"],
        cwd=folder,
        env={**os.environ, "EMOCALIBER_TESTS_END": str(end_s)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.splitlines()


def test_what_takes_long_starts_first_and_no_test_after_the_end(tmp_path: Path) -> None:
    output = run_with_end(tmp_path, time.time() + 3600, "-n", "0")
    assert "out of time: 2 tests did not start, of tests/test_after.py" in output
    assert output[-1].startswith("1 passed in ")


def test_the_end_counts_in_several_processes_too(tmp_path: Path) -> None:
    output = run_with_end(tmp_path, time.time() - 1, "-n", "1", "--dist", "loadfile")
    assert "out of time: 3 tests did not start, of tests/test_after.py, tests/train/test_long.py" in output
