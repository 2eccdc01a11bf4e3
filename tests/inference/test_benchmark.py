"""The benchmark of inference: one engine with real vLLM, and the command of its workers with none."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from inference import benchmark as module
from inference.backends.backend import EngineError


@pytest.mark.slow
def test_it_compares_on_one_engine(
    root: Path,
    checkpoint: Path,
    draw: Callable[[int, int, int], Image.Image],
    make_row: Callable[..., Any],
    write_rows: Callable[..., Path],
    tmp_path: Path,
) -> None:
    draw(1, 112, 112).save(tmp_path / "a.png")
    data = write_rows(tmp_path / "test.jsonl", [make_row(f"r{number}", "a.png") for number in range(14)])
    command = [sys.executable, str(root / "inference" / "benchmark.py"), "infer", "--rows", "12"]
    command += ["--checkpoint", str(checkpoint), "--data", str(data), "--max-new-tokens", "60"]
    command += ["--min-pixels", "3136", "--max-pixels", "12544", "--worker-rows", "0"]
    run = subprocess.run(
        [*command, "--json", str(tmp_path / "numbers.json")], capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr[-3000:]
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    rates = [way["rows_per_s"] for way in numbers["ways"].values()]
    assert (len(rates), numbers["rows"]) == (3, 12)
    assert min(rates) > 0
    assert f"(c) is {numbers['gain']} times (a)" in run.stdout


def test_workers_are_timed_by_what_their_runs_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        output = Path(command[command.index("--output-dir") + 1])
        n_workers = int(command[command.index("--workers") + 1])
        output.mkdir()
        (output / "run.json").write_text(json.dumps({"attempts": [{"rows_per_s": 10.0 * n_workers}]}))
        return subprocess.CompletedProcess(command, int("--fail" in command), "", "it broke\n")

    monkeypatch.setattr(module.subprocess, "run", run)
    assert module.workers(["--data", "d"], tmp_path) == {"1": 10.0, "2": 20.0}
    (tmp_path / "other").mkdir()
    with pytest.raises(EngineError, match=r"infer\.py with 1 workers failed: it broke"):
        module.workers(["--fail"], tmp_path / "other")
