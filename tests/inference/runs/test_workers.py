"""The list of rows that processes share, and the processes of a run, with scripts in the place of engines."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from emocaliber.records import RecordError, read_jsonl
from inference.backends.backend import EngineError, Takes
from inference.runs import workers as module
from inference.runs.answering import Progress, Run
from inference.runs.run_folder import RunFolder
from inference.runs.workers import (
    MOST_REPLACED,
    ROWS_FOR_TWO,
    Handout,
    Workers,
    answer_by_workers,
    number_of_workers,
    shares_of_gpus,
    take_share_of_cores,
    visible_gpus,
)

RACER = """
import sys
from inference.runs.workers import Handout
sys.stdin.read(1)
print(*Handout(int(sys.argv[1])).rows_for(int(sys.argv[2])))
"""
HOLDER = """
import sys, time
from inference.runs.workers import Handout
handout = Handout(int(sys.argv[1]))
with handout._locked():
    print("holds it", flush=True)
    time.sleep(600)
"""


def start(script: str, handout: Handout, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, str(handout.descriptor), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[handout.descriptor],
    )


def test_rows_come_in_order_and_each_once() -> None:
    handout = Handout.of(3)
    assert [handout.take(0), handout.take(1), handout.take(0), handout.take(1)] == [0, 1, 2, None]
    assert (handout.taken_by(0), handout.taken_by(1), handout.n_free()) == ([0, 2], [1], 0)


def test_none_to_hand_out() -> None:
    handout = Handout.of(0)
    assert (handout.take(0), handout.n_free(), handout.taken_by(0)) == (None, 0, [])


def test_the_last_number_of_a_taker_is_kept_apart_from_a_free_row() -> None:
    handout = Handout.of(2)
    assert handout.take(254) == 0
    assert (handout.taken_by(254), handout.n_free()) == ([0], 1)


def test_many_rows() -> None:
    handout = Handout.of(2**17 + 1)
    os.pwrite(handout.descriptor, b"\1" * 2**17, 0)
    assert (handout.n_free(), handout.take(3), handout.take(3)) == (1, 2**17, None)
    assert handout.taken_by(3) == [2**17]
    assert len(handout.taken_by(0)) == 2**17


def test_rows_given_back_are_taken_again_also_by_one_that_is_past_them() -> None:
    handout = Handout.of(5)
    assert [handout.take(0), handout.take(1), handout.take(1)] == [0, 1, 2]
    handout.free([0])
    assert (handout.n_free(), handout.taken_by(0)) == (3, [])
    assert list(handout.rows_for(1)) == [3, 4, 0]
    handout.free([2, 4])
    assert list(handout.rows_for(1)) == [2, 4]


def test_racing_processes_take_every_row_exactly_once() -> None:
    n_rows, n_racers = 3000, 4
    handout = Handout.of(n_rows)
    racers = [start(RACER, handout, number) for number in range(n_racers)]
    for racer in racers:  # all at once: each waits for this
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    taken = [[int(row) for row in racer.communicate(timeout=120)[0].split()] for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * n_racers
    assert sorted(row for rows in taken for row in rows) == list(range(n_rows))
    assert [handout.taken_by(number) for number in range(n_racers)] == taken


def test_a_killed_process_does_not_keep_the_lock() -> None:
    handout = Handout.of(1)
    holder = start(HOLDER, handout)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "holds it\n"
    with pytest.raises(BlockingIOError):
        fcntl.lockf(handout.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    holder.kill()
    assert holder.wait(timeout=60) == -signal.SIGKILL
    assert handout.take(0) == 0


def test_the_others_keep_it_when_one_has_closed_its_own() -> None:
    handout = Handout.of(1)
    other = Handout(os.dup(handout.descriptor))
    handout.close()
    assert other.take(0) == 0


# What infer.py does as a worker, without an engine. `does` of a worker's number, its start and its n-th row
# says what happens when the row is in its hands and not yet written.
WORKER = """
import argparse, os, signal, sys, time
from pathlib import Path
from inference.runs.workers import Handout, end_with_parent
from emocaliber.records import JsonlAppender

folder = Path({folder!r})
parser = argparse.ArgumentParser()
parser.add_argument("--workers", type=int)
parser.add_argument("--worker", type=int)
parser.add_argument("--handout", type=int)
arguments = parser.parse_args()
end_with_parent()
with open(folder / "starts", "a") as file:
    file.write(f"{{arguments.worker}} {{os.getpid()}} {{os.environ.get('CUDA_VISIBLE_DEVICES')}}\\n")
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

    def __init__(
        self, folder: Path, does: str, n_rows: int, n_workers: int = 2, max_failures: int | None = None
    ) -> None:
        self.folder = folder
        script = folder / "worker.py"
        lines = "".join(f"    {line}\n" for line in does.splitlines())
        script.write_text(WORKER.format(folder=str(folder), does=lines))
        sys.argv[0] = str(script)
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(f"gpu{number}" for number in range(n_workers))
        arguments = {"workers": n_workers, "tensor_parallel_size": 1, "max_failures": max_failures}
        plan: Any = SimpleNamespace(arguments=SimpleNamespace(**arguments, command_line=[]))
        self.stopper: Any = SimpleNamespace(signal=None, gently=False)
        run_folder = RunFolder(folder)
        run_folder.open({"attempts": [{}]}, overwrite=False)
        self.run = Run(plan, run_folder, self.stopper, Progress(n_rows, 0))
        self.rows = [{"id": f"r{number}"} for number in range(n_rows)]
        self.ids = [row["id"] for row in self.rows]
        self.workers = Workers(self.run, self.rows)

    def wait(self) -> list[int]:
        return self.workers.wait()

    @property
    def n_rows(self) -> int:
        n_counted: int = self.run.progress._bar.n if self.run.progress._bar else 0
        return n_counted

    def written(self) -> list[str]:
        return [row["id"] for part in self.folder.glob("partial*") for _, row in read_jsonl(part)]

    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().split()

    def starts(self) -> list[list[str]]:
        return [line.split() for line in (self.folder / "starts").read_text().splitlines()]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    heard: list[str] = []
    monkeypatch.setattr(module, "say", heard.append)
    return heard


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> Callable[..., Job]:
    monkeypatch.setattr(module, "runs_on_cpu", lambda: False)
    monkeypatch.setattr(sys, "argv", ["", *sys.argv[1:]])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def make(does: str, n_rows: int, n_workers: int = 2, **options: Any) -> Job:
        return Job(tmp_path, does, n_rows, n_workers, **options)

    return make


def test_all_rows_are_done_once_and_counted(job: Callable[..., Job], said: list[str]) -> None:
    running = job("pass", 60)
    assert running.wait() == []
    assert sorted(running.written()) == sorted(running.asked()) == sorted(running.ids)
    assert (running.n_rows, running.run.progress.n_failed) == (60, 6)
    assert sorted(start[::2] for start in running.starts()) == [["0", "gpu0"], ["1", "gpu1"]]
    assert said == []


def test_one_that_is_killed_is_replaced_and_only_the_row_in_its_hands_asked_again(
    job: Callable[..., Job], said: list[str]
) -> None:
    # Else the other one could do all rows before its replacement has started.
    does = "worker == 0 and start == 1 and n == 5 and die()\nworker == 1 and n == 20 and wait_for_starts(3)"
    running = job(does, 60)
    assert running.wait() == []
    assert sorted(running.written()) == sorted(running.ids)
    (again,) = [row for row in set(running.asked()) if running.asked().count(row) > 1]
    assert said == [f"worker 0 ended with signal 9; 1 rows in its hands are asked again ({again})"]
    assert running.n_rows == 60
    assert sorted(start[::2] for start in running.starts()) == [["0", "gpu0"], ["0", "gpu0"], ["1", "gpu1"]]


def test_one_that_is_killed_while_it_loads_is_replaced(job: Callable[..., Job], said: list[str]) -> None:
    running = job("worker == 1 and start == 1 and die()\nworker == 0 and time.sleep(0.1)", 30)
    assert running.wait() == []
    assert sorted(running.written()) == sorted(running.asked()) == sorted(running.ids)
    assert said == ["worker 1 ended with signal 9; 0 rows in its hands are asked again"]
    assert len(running.starts()) == 3


def test_one_that_fails_before_its_first_row_is_not_replaced_and_the_other_does_all(
    job: Callable[..., Job], said: list[str]
) -> None:
    # Slow, so that it is seen to end before the other one has done all.
    does = "worker == 0 and sys.exit(1)\nn == 1 and wait_for_starts(2)\nn and time.sleep(0.05)"
    running = job(does, 30)
    assert running.wait() == []
    assert sorted(running.written()) == sorted(running.ids)
    assert said == ["worker 0 ended with exit status 1; 0 rows in its hands are asked again"]
    assert len(running.starts()) == 2


def test_one_that_fails_after_its_first_row_is_replaced(job: Callable[..., Job], said: list[str]) -> None:
    running = job("start == 1 and n == 4 and sys.exit(1)", 40, 1)
    assert running.wait() == []
    assert sorted(running.written()) == sorted(running.ids)
    assert said == ["worker 0 ended with exit status 1; 1 rows in its hands are asked again (r3)"]


def test_when_all_fail_to_load_the_run_has_failed(job: Callable[..., Job]) -> None:
    running = job("sys.exit(7)", 30)
    assert running.wait() == [7, 7]
    assert (running.n_rows, len(running.starts())) == (0, 2)


def test_workers_that_keep_dying_are_given_up(job: Callable[..., Job], said: list[str]) -> None:
    running = job("n == 3 and die()", 1000)
    assert running.wait() == [-9] * (2 + MOST_REPLACED)
    assert len(running.starts()) == 2 + MOST_REPLACED
    # Two rows each, and none of them was asked twice; the third of each is still to do.
    assert sorted(running.written()) == sorted(set(running.written()))
    assert running.n_rows == len(running.written()) == 2 * (2 + MOST_REPLACED)
    assert len(said) == 2 + MOST_REPLACED


def test_one_that_dies_for_good_leaves_its_rows_to_the_others(job: Callable[..., Job]) -> None:
    """The living one takes rows that were given back, also those before its own."""
    does = (
        f"worker == 0 and n == 1 and die()\nworker == 1 and n == 100 and wait_for_starts({2 + MOST_REPLACED})"
    )
    running = job(does, 200)
    assert running.wait() == []
    assert sorted(running.written()) == sorted(running.ids)
    assert [start[0] for start in running.starts()].count("0") == 1 + MOST_REPLACED


def test_a_stopped_run_ends_all_by_sigterm(job: Callable[..., Job], said: list[str]) -> None:
    running = job("n == 2 and time.sleep(600)", 30)
    processes = list(running.workers._living.values())
    count = running.run.progress.update

    def counting(n: int, n_failed: int = 0) -> None:
        count(n, n_failed)
        running.stopper.signal = signal.SIGTERM if running.n_rows == 2 else None

    running.run.progress.update = counting  # type: ignore[method-assign]
    assert running.wait() == []
    assert all(process.returncode == -signal.SIGTERM for process in processes)
    assert (said, len(running.written())) == ([], 2)


def test_too_many_errors_end_the_run_and_its_workers(job: Callable[..., Job]) -> None:
    running = job("n == 15 and time.sleep(600)", 60, max_failures=0)
    processes = list(running.workers._living.values())
    with pytest.raises(EngineError, match=r"rows have an error, more than --max-failures 0; see"):
        running.wait()
    assert all(process.returncode == -signal.SIGTERM for process in processes)


def test_workers_that_all_failed_are_an_engine_error(job: Callable[..., Job]) -> None:
    running = job("sys.exit(7)", 30)
    running.wait()
    with pytest.raises(EngineError, match="2 workers have died, the last with 7; no more are started"):
        answer_by_workers(running.run, running.rows)
    assert running.stopper.gently


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    parent = tmp_path / "parent.py"
    parent.write_text(
        "from pathlib import Path\nimport test_workers as tests\n"
        "tests.module.runs_on_cpu = lambda: False\n"
        f"tests.Job(Path({str(tmp_path)!r}), 'n == 2 and time.sleep(600)', 30).wait()\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen([sys.executable, str(parent)], env={**os.environ, "PYTHONPATH": path})
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
    heard: list[tuple[int, int]] = []
    watched: Any = Workers.__new__(Workers)
    watched._parts, watched._seen, watched._done = [part], [0], set()
    watched._run = SimpleNamespace(count=lambda *counts: heard.append(counts))
    for text in ('{"id": "a"}\n{"id"', ': "b", "error": {}}', "\n", ""):
        with open(part, "a") as file:
            file.write(text)
        watched._count_rows()
    assert heard == [(1, 0), (1, 1)]
    assert watched._done == {"a", "b"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 2),
        ({"n_rows": ROWS_FOR_TWO - 1}, 1),
        ({"asked": 1}, 1),
        ({"asked": 3}, 3),
        ({"asked": 3, "n_rows": 2}, 2),
        ({"weights_bytes": 2**30}, 1),
        ({"weights_bytes": None}, 1),
        ({"cores": 1}, 1),
        ({"free": 7 * 2**30}, 1),
        ({"ray": "local"}, 1),
        ({"on_cpu": False}, 1),
        ({"takes": Takes()}, 1),
    ],
)
def test_two_engines_without_being_asked_where_that_is_sooner_done(
    changes: dict[str, Any], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = {"asked": None, "n_rows": ROWS_FOR_TWO, "weights_bytes": 5_000_000, "cores": 2, "free": 8 * 2**30}
    at |= {"ray": None, "on_cpu": True, "takes": Takes(workers=True), **changes}
    monkeypatch.setattr(module, "runs_on_cpu", lambda: at["on_cpu"])
    monkeypatch.setattr(module, "physical_cores", lambda: at["cores"])
    monkeypatch.setattr(module, "free_memory", lambda: at["free"])
    plan: Any = SimpleNamespace(
        arguments=SimpleNamespace(workers=at["asked"], ray=at["ray"]),
        checkpoint=SimpleNamespace(weights_bytes=at["weights_bytes"]),
        takes=at["takes"],
    )
    assert number_of_workers(plan, at["n_rows"]) == expected


def test_the_memory_of_this_machine_is_known() -> None:
    assert 2**26 < module.free_memory() < 2**50


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
