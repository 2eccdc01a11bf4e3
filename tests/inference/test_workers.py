"""The processes of a run, with cheap scripts in the place of engines: they end, fail, die and are stopped."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from emocaliber.records import RecordError, read_jsonl
from inference.runs import workers as module
from inference.runs.workers import MOST_REPLACED, Workers, shares_of_gpus, take_share_of_cores, visible_gpus

ROOT = Path(__file__).resolve().parents[2]
# What infer.py does as a worker, without an engine. `does` of a worker's number, its start and its n-th row
# says what happens when the row is in its hands and not yet written.
WORKER = """
import argparse, os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from inference.runs.workers import Handout, end_with_parent
from emocaliber.records import JsonlAppender

folder = Path({folder!r})
parser = argparse.ArgumentParser()
parser.add_argument("--worker", type=int)
parser.add_argument("--handout", type=int)
arguments = parser.parse_args()
end_with_parent()
with open(folder / "starts", "a") as file:
    file.write(f"{{arguments.worker}} {{os.getpid()}} {{os.environ.get('SHARE')}}\\n")
starts = [line.split()[0] for line in open(folder / "starts")].count(str(arguments.worker))

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def wait_for_starts(number):
    while len(open(folder / "starts").readlines()) < number:
        time.sleep(0.005)

def does(worker, start, n):
{does}

does(arguments.worker, starts, 0)
appender = JsonlAppender(folder / f"partial-{{arguments.worker}}.jsonl")
for n, row in enumerate(Handout(arguments.handout).rows_for(arguments.worker), start=1):
    with open(folder / "asked", "a") as file:
        file.write(f"r{{row}}\\n")
    does(arguments.worker, starts, n)
    appender.write({{"id": f"r{{row}}", **({{"error": {{}}}} if row % 10 == 9 else {{}})}})
    time.sleep(0.005)
"""


class Job:
    """Workers of a script over some rows, and what was heard of them."""

    def __init__(self, folder: Path, does: str, n_rows: int, n_workers: int = 2) -> None:
        self.folder = folder
        script = folder / "worker.py"
        lines = "".join(f"    {line}\n" for line in does.splitlines())
        script.write_text(WORKER.format(root=str(ROOT), folder=str(folder), does=lines))
        self.said: list[str] = []
        self.n_rows = self.n_failed = 0
        environments: list[Mapping[str, str]] = [{"SHARE": f"gpu{number}"} for number in range(n_workers)]
        parts = [folder / f"partial-{number}.jsonl" for number in range(n_workers)]
        self.lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
        self.ids = [f"r{number}" for number in range(n_rows)]
        self.workers = Workers(script, [], environments, parts, self.ids, self.lock)

    def wait(self, stopped: Callable[[], bool] = lambda: False) -> list[int]:
        return self.workers.wait(self._count, stopped, self.said.append)

    def _count(self, n_rows: int, n_failed: int) -> None:
        self.n_rows += n_rows
        self.n_failed += n_failed

    def written(self) -> list[str]:
        return [row["id"] for part in self.folder.glob("partial*") for _, row in read_jsonl(part)]

    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().split()

    def starts(self) -> list[list[str]]:
        return [line.split() for line in (self.folder / "starts").read_text().splitlines()]


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    def make(does: str, n_rows: int, n_workers: int = 2) -> Job:
        return Job(tmp_path, does, n_rows, n_workers)

    return make


def test_all_rows_are_done_once_and_counted(job: Callable[..., Job]) -> None:
    running = job("pass", 60)
    assert running.wait() == []
    assert sorted(running.written()) == sorted(running.asked()) == sorted(running.ids)
    assert (running.n_rows, running.n_failed) == (60, 6)
    assert sorted(start[::2] for start in running.starts()) == [["0", "gpu0"], ["1", "gpu1"]]
    assert running.said == []


def test_one_that_is_killed_is_replaced_and_only_the_row_in_its_hands_asked_again(
    job: Callable[..., Job],
) -> None:
    # Else the other one could do all rows before its replacement has started.
    does = "worker == 0 and start == 1 and n == 5 and die()\nworker == 1 and n == 20 and wait_for_starts(3)"
    running = job(does, 60)
    assert running.wait() == []
    assert sorted(running.written()) == sorted(running.ids)
    (again,) = [row for row in set(running.asked()) if running.asked().count(row) > 1]
    assert running.said == [f"worker 0 ended with signal 9; 1 rows in its hands are asked again ({again})"]
    assert running.n_rows == 60
    assert sorted(start[::2] for start in running.starts()) == [["0", "gpu0"], ["0", "gpu0"], ["1", "gpu1"]]


def test_one_that_is_killed_while_it_loads_is_replaced(job: Callable[..., Job]) -> None:
    running = job("worker == 1 and start == 1 and die()\nworker == 0 and time.sleep(0.1)", 30)
    assert running.wait() == []
    assert sorted(running.written()) == sorted(running.asked()) == sorted(running.ids)
    assert running.said == ["worker 1 ended with signal 9; 0 rows in its hands are asked again"]
    assert len(running.starts()) == 3


def test_one_that_fails_before_its_first_row_is_not_replaced_and_the_other_does_all(
    job: Callable[..., Job],
) -> None:
    running = job("worker == 0 and sys.exit(1)", 30)
    assert running.wait() == []
    assert sorted(running.written()) == sorted(running.ids)
    assert running.said == ["worker 0 ended with exit status 1; 0 rows in its hands are asked again"]
    assert len(running.starts()) == 2


def test_one_that_fails_after_its_first_row_is_replaced(job: Callable[..., Job]) -> None:
    running = job("start == 1 and n == 4 and sys.exit(1)", 40, 1)
    assert running.wait() == []
    assert sorted(running.written()) == sorted(running.ids)
    assert running.said == ["worker 0 ended with exit status 1; 1 rows in its hands are asked again (r3)"]


def test_when_all_fail_to_load_the_run_has_failed(job: Callable[..., Job]) -> None:
    running = job("sys.exit(7)", 30)
    assert running.wait() == [7, 7]
    assert (running.n_rows, len(running.starts())) == (0, 2)


def test_workers_that_keep_dying_are_given_up(job: Callable[..., Job]) -> None:
    running = job("n == 3 and die()", 1000)
    assert running.wait() == [-9] * (2 + MOST_REPLACED)
    assert len(running.starts()) == 2 + MOST_REPLACED
    # Two rows each, and none of them was asked twice; the third of each is still to do.
    assert sorted(running.written()) == sorted(set(running.written()))
    assert running.n_rows == len(running.written()) == 2 * (2 + MOST_REPLACED)
    assert len(running.said) == 2 + MOST_REPLACED


def test_one_that_dies_for_good_leaves_its_rows_to_the_others(job: Callable[..., Job]) -> None:
    """The living one takes rows that were given back, also those before its own."""
    does = "worker == 0 and (die() if n == 1 else None)\nworker == 1 and time.sleep(0.02)"
    running = job(does, 200)
    assert running.wait() == []
    assert sorted(running.written()) == sorted(running.ids)
    assert [start[0] for start in running.starts()].count("0") == 1 + MOST_REPLACED


def test_stopped_ends_all_by_sigterm(job: Callable[..., Job]) -> None:
    running = job("n == 2 and time.sleep(600)", 30)
    started = time.monotonic()
    assert running.wait(lambda: running.n_rows == 2) == []
    assert time.monotonic() - started < 60
    assert all(process.returncode == -signal.SIGTERM for process in running.workers._processes)
    assert running.said == []
    assert len(running.written()) == 2


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    parent = tmp_path / "parent.py"
    parent.write_text(
        f"import sys\nsys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]\n"
        f"from pathlib import Path\nfrom test_workers import Job\n"
        f"Job(Path({str(tmp_path)!r}), 'n == 2 and time.sleep(600)', 30).wait()\n"
    )
    process = subprocess.Popen([sys.executable, str(parent)])
    starts = tmp_path / "starts"
    wait_until(lambda: starts.exists() and len(starts.read_text().split("\n")) == 3)
    pids = [int(line.split()[1]) for line in starts.read_text().splitlines()]
    assert all(map(lives, pids))
    process.kill()
    process.wait(timeout=60)
    wait_until(lambda: not any(map(lives, pids)))


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_line_that_is_still_being_written_is_counted_when_it_is_whole(tmp_path: Path) -> None:
    part = tmp_path / "partial-0.jsonl"
    watched = Workers.__new__(Workers)
    watched._parts, watched._seen, watched._done = [part], [0], set()
    heard: list[tuple[int, int]] = []
    for text in ('{"id": "a"}\n{"id"', ': "b", "error": {}}', "\n", ""):
        with open(part, "a") as file:
            file.write(text)
        watched._report(lambda *counts: heard.append(counts))
    assert heard == [(1, 0), (1, 1)]
    assert watched._done == {"a", "b"}


def test_gpus_are_shared_out_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-ab,5,7,9")
    assert visible_gpus() == ["3", "GPU-ab", "5", "7", "9"]
    assert shares_of_gpus(2, 2) == ["3,GPU-ab", "5,7"]
    with pytest.raises(RecordError) as caught:
        shares_of_gpus(3, 2)
    assert str(caught.value) == (
        "3 workers with 2 GPUs each need 6, 5 are visible; lower --workers (N_GPU) or --tensor-parallel-size"
    )


def test_gpus_are_counted_by_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho 'GPU 0: H100 (UUID: GPU-1)'\necho 'GPU 1: H100 (UUID: GPU-2)'\n")
    script.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("PATH", "/nowhere")
    assert visible_gpus() == []


@pytest.mark.parametrize(("n_workers", "expected"), [(1, [{0, 1, 4}]), (2, [{0, 4}, {1}]), (4, [None, None])])
def test_cores_are_shared_out_where_there_are_enough(
    n_workers: int, expected: list[set[int] | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for worker, cores in enumerate(expected):
        bound: list[set[int]] = []
        monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0, 1, 4})
        monkeypatch.setattr(module.os, "sched_setaffinity", lambda _, chosen: bound.append(set(chosen)))  # noqa: B023
        take_share_of_cores(worker, n_workers)
        assert bound == ([] if cores is None else [cores])
