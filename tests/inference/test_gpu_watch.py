"""What is made of the lines of nvidia-smi, which a script of that name on PATH prints here."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from inference.runs.answering import GpuWatch


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put one on PATH that prints a text and goes on until it is ended; gives the file that says it did."""

    def put(text: str) -> Path:
        printed = tmp_path / "printed"
        script = tmp_path / "nvidia-smi"
        script.write_text(
            f"#!/bin/sh\necho \"$@\" > {tmp_path}/asked\nprintf '{text}'\ntouch {printed}\nexec sleep 600\n"
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        return printed

    return put


def watched(printed: Path) -> dict[str, dict[str, float]]:
    watch = GpuWatch()
    deadline = time.monotonic() + 60
    while not printed.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    started = time.monotonic()
    seen = watch.close()
    assert time.monotonic() - started < 30  # it does not wait for what it watches with
    return seen


def test_it_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    """nvidia-smi prints every second, and meets a pipe that nobody holds any more."""
    script = tmp_path / "nvidia-smi"
    script.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nwhile echo 0, 1, 1; do sleep 0.1; done\n")
    script.chmod(0o755)
    watching = "import time\nfrom inference.runs.answering import GpuWatch\nGpuWatch()\ntime.sleep(600)"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    process = subprocess.Popen([sys.executable, "-c", watching], env=environment)
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    watcher = psutil.Process(int((tmp_path / "pid").read_text()))
    process.kill()
    process.wait()
    psutil.wait_procs([watcher], timeout=30)
    assert not watcher.is_running() or watcher.status() == psutil.STATUS_ZOMBIE


def test_the_mean_utilisation_and_the_most_memory_of_each_gpu(
    nvidia_smi: Callable[[str], Path], tmp_path: Path
) -> None:
    printed = nvidia_smi(r"0, 90, 1000\n1, 0, 5\n0, 95, 3000\n1, 1, 5\n0, 100, 2000\n1, 1, 4\n")
    assert watched(printed) == {
        "0": {"utilisation_percent": 95.0, "memory_mib": 3000.0},
        "1": {"utilisation_percent": 0.7, "memory_mib": 5.0},
    }
    assert (tmp_path / "asked").read_text() == (
        "--query-gpu=index,utilization.gpu,memory.used --format=csv,noheader,nounits -l 1\n"
    )


def test_lines_that_are_cut_off_or_hold_no_number_are_left_out(nvidia_smi: Callable[[str], Path]) -> None:
    printed = nvidia_smi(r"0, 50, 100\n1, [N/A], [N/A]\nUnable to determine the device handle\n0, 7")
    assert watched(printed) == {"0": {"utilisation_percent": 50.0, "memory_mib": 100.0}}


def test_one_that_has_ended_by_itself_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    watch = GpuWatch()
    time.sleep(0.3)
    assert watch.close() == {}


def test_without_nvidia_smi_it_sees_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert GpuWatch().close() == {}
