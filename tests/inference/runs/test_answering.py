"""A run's closing lines, what nvidia-smi says meanwhile, rows that are asked again, and signals."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest

from inference.backends.backend import Answer, Refusal
from inference.runs.answering import GpuWatch, Stopper, answer_rows, closing_lines

DONE = {"rows_done": 3, "rows_done_before": 1}
RATES = {"rows_per_s": 1.5, "prompt_tokens_per_s": 120.4, "response_tokens_per_s": 60.5, "first_row_s": 9.25}


def lines(n_rows: int, n_responses: int, errors: dict[str, int], **attempt: Any) -> list[str]:
    return closing_lines({**DONE, **attempt}, n_rows, n_responses, errors)


def test_rows_by_their_outcome() -> None:
    assert lines(4, 4, {}) == ["4 rows: 4 with a response, 0 with an error; 3 done now, 1 before"]


def test_errors_are_counted_and_named_by_their_type() -> None:
    assert lines(4, 1, {"image_missing": 1, "image_bad": 2}) == [
        "4 rows: 1 with a response, 3 with an error (2 image_bad, 1 image_missing; see error.jsonl); "
        "3 done now, 1 before"
    ]


def test_rates_and_the_time_to_the_first_row() -> None:
    assert lines(4, 4, {}, **RATES)[1:] == [
        "1.5 rows/s, 120 prompt and 60 response tokens/s; first row after 9.25 s"
    ]


def test_what_the_confidences_cost_a_row() -> None:
    spent = {"likelihood": 900, "p_true": 400}
    assert lines(4, 4, {}, confidence_tokens=spent)[1:] == [
        "tokens a row beyond the response: 300 for likelihood, 133 for p_true"
    ]


def test_gpus_and_what_a_server_costs() -> None:
    gpus = {
        "0": {"utilisation_percent": 97.3, "memory_mib": 70000.0},
        "1": {"utilisation_percent": 0.0, "memory_mib": 3.0},
    }
    assert lines(4, 4, {}, gpus=gpus, cost=0.012, cost_per_1000_rows=4.0)[1:] == [
        "GPU 0: 97.3 % busy, 70000 MiB at most",
        "GPU 1: 0.0 % busy, 3 MiB at most",
        "cost 0.012, 4.0 per 1,000 rows",
    ]


class Backend:
    """Refuses the rows named in `refused` when they are asked for the first time."""

    def __init__(self, *refused: str) -> None:
        self.refused = list(refused)
        self.asked: list[str] = []

    def answers(self, records: Iterable[Any]) -> Generator[Answer | Refusal | None, None, None]:
        for record in records:
            self.asked.append(record["id"])
            yield None
            if record["id"] in self.refused:
                self.refused.remove(record["id"])
                yield Refusal(record["id"], "server_error", "busy")
            else:
                yield Answer(record["id"], "joy", "stop", None, None, None, images_sha256=["0"])


ROWS = [{"id": name} for name in "abc"]


def test_a_failure_that_is_not_the_rows_own_is_asked_once_more_at_the_end() -> None:
    written: list[Any] = []
    backend: Any = Backend("a", "c", "c")
    answer_rows(backend, ROWS, written.append)
    assert backend.asked == ["a", "b", "c", "a", "c"]
    answered = {"response": "joy", "finish_reason": "stop", "images_sha256": ["0"]}
    assert written == [
        {"id": "b", **answered},
        {"id": "a", **answered},
        {"id": "c", "error": {"type": "server_error", "message": "busy"}},
    ]


@pytest.mark.usefixtures("own_signals")
def test_a_signal_ends_it_after_the_row_that_came() -> None:
    stopper, written = Stopper(), list[Any]()
    stopper.gently = True

    def write(row: Any) -> None:
        written.append(row)
        os.kill(os.getpid(), signal.SIGTERM)

    backend: Any = Backend()
    answer_rows(backend, ROWS, write, stopper)
    assert (len(written), stopper.status) == (1, 143)


@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_before_and_a_second_time_a_signal_raises(number: int, raised: type[BaseException]) -> None:
    stopper = Stopper()
    with pytest.raises(raised):
        os.kill(os.getpid(), number)
    stopper = Stopper()
    stopper.gently = True
    os.kill(os.getpid(), number)
    assert stopper.signal == number
    with pytest.raises(raised):
        os.kill(os.getpid(), number)


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
