"""infer.py --ray on a Ray cluster of this machine: two engines, interrupted, continued, an engine killed."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

Row = dict[str, Any]
Run = subprocess.CompletedProcess[str]

N_ROWS = 60
SETTINGS = ("--min-pixels", 3136, "--max-pixels", 12544, "--max-new-tokens", 160)
ON_RAY = ("--ray", "local", "--workers", 2, "--batch-size", 4)
LONGEST_START_S = 300


@pytest.fixture(scope="module")
def data(
    tmp_path_factory: pytest.TempPathFactory,
    draw: Callable[[int, int, int], Image.Image],
    make_row: Callable[..., Row],
    write_rows: Callable[..., Path],
) -> Path:
    """Rows whose fields differ, the last without its image."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for number in range(N_ROWS - 1):
        draw(number, 112, 112).save(folder / f"{number}.png")
        rows.append(make_row(f"row-{number}", f"{number}.png", **({"split": number} if number % 2 else {})))
    return write_rows(folder / "test.jsonl", [*rows, make_row("gone", "gone.png")])


@pytest.fixture(scope="module")
def expected(
    data: Path, checkpoint: Path, infer: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory
) -> bytes:
    """What the same rows give without Ray."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    run = infer("--checkpoint", checkpoint, "--data", data, "--output-dir", folder, *SETTINGS)
    assert run.returncode == 0, run.stderr[-3000:]
    return (folder / "predictions.jsonl").read_bytes()


@pytest.fixture
def command(
    data: Path, checkpoint: Path, infer_command: Callable[..., list[str]], tmp_path: Path
) -> list[str]:
    what = ("--checkpoint", checkpoint, "--data", data, "--output-dir", tmp_path / "run")
    return infer_command(*what, *SETTINGS, *ON_RAY)


class Running:
    """A run on Ray, and the processes that it has started."""

    def __init__(self, command: list[str], partial: Path) -> None:
        self.partial = partial
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.started: dict[psutil.Process, str] = {}

    def wait_for_rows(self, n_rows: int) -> None:
        """Wait until so many rows are on disk."""
        deadline = time.monotonic() + LONGEST_START_S
        while n_lines(self.partial) < n_rows:
            assert self.process.poll() is None, self.process.communicate()[1][-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.started |= {process: " ".join(process.cmdline()) for process in children}

    def engines(self) -> list[psutil.Process]:
        """Give the processes of the engines."""
        return [process for process, command in self.started.items() if "EngineActor" in command]

    def end(self) -> tuple[int, str]:
        """Wait for the end; gives the exit status and what was said. Nothing of Ray may be left."""
        _, stderr = self.process.communicate(timeout=LONGEST_START_S)
        assert any("raylet" in command for command in self.started.values())
        _, alive = psutil.wait_procs(list(self.started), timeout=10)
        assert not alive
        return self.process.returncode, stderr


def n_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_two_engines_give_what_one_gives_without_ray(
    command: list[str], expected: bytes, tmp_path: Path
) -> None:
    running = Running(command, tmp_path / "run" / "partial.jsonl")
    running.wait_for_rows(1)
    assert len(running.engines()) == 2
    status, stderr = running.end()
    assert status == 0, stderr[-3000:]
    assert (tmp_path / "run" / "predictions.jsonl").read_bytes() == expected
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        ".lock",
        "error.jsonl",
        "merged.jsonl",
        "predictions.jsonl",
        "run.json",
    }
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["result"] == {"rows": N_ROWS, "responses": N_ROWS - 1, "errors": {"image_missing": 1}}
    assert run["attempts"][0]["ray_nodes"] == 1


def test_interrupted_and_continued_with_an_engine_killed(
    command: list[str],
    expected: bytes,
    read_rows: Callable[[Path], list[Row]],
    write_rows: Callable[..., Path],
    tmp_path: Path,
) -> None:
    partial = tmp_path / "run" / "partial.jsonl"
    running = Running(command, partial)
    running.wait_for_rows(4)
    interrupted_at = time.monotonic()
    running.process.send_signal(signal.SIGINT)
    status, stderr = running.end()
    assert time.monotonic() - interrupted_at < 10
    n_first = n_lines(partial)
    assert (status, 4 <= n_first < N_ROWS) == (130, True)
    said = f"interrupted: {n_first} of {N_ROWS} rows are on disk; the same command continues"
    assert stderr.rstrip().splitlines()[-1] == said
    # A mark on what is finished: a row that is computed again would lose it.
    marked = [{**row, "finish_reason": "marked"} for row in read_rows(partial)]
    write_rows(partial, marked)

    running = Running(command, partial)
    running.wait_for_rows(n_first + 1)
    running.engines()[0].kill()
    status, stderr = running.end()
    assert status == 0, stderr[-3000:]
    rows = read_rows(tmp_path / "run" / "predictions.jsonl")
    kept = {row["id"] for row in marked}
    assert {row["id"] for row in rows if row.get("finish_reason") == "marked"} == kept
    wanted = [json.loads(line) for line in expected.splitlines()]
    for row in (*rows, *wanted):
        row.pop("finish_reason", None)
    assert rows == wanted


def test_what_cannot_run_ends_with_one_line(
    data: Path, checkpoint: Path, infer: Callable[..., Run], tmp_path: Path
) -> None:
    what = ("--checkpoint", checkpoint, "--data", data, *SETTINGS)
    run = infer(*what, "--output-dir", tmp_path / "none", "--ray", "127.0.0.1:1")
    assert run.returncode == 2
    assert run.stderr.startswith("error: --ray 127.0.0.1:1: no such cluster")
    assert run.stderr.count("\n") == 1
    assert not (tmp_path / "none").exists()
