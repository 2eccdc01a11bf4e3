"""Several engines side by side: one process each, each with its own GPUs (or cores).

The documented way of vLLM for data parallelism offline. Each worker takes row after row from a common list
and appends it to its own file; the parent draws one progress line and merges by id at the end.
"""

import fcntl
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from emocaliber.records import Record, RecordError
from inference.backends.backend import EngineError
from inference.backends.vllm_engine import runs_on_cpu
from inference.runs.answering import (
    Progress,
    Stopper,
    answer_rows,
    check_failures,
    say,
)
from inference.runs.plan import Plan
from inference.runs.run_folder import RunFolder
from inference.runs.start_backend import start_backend

_BLOCK = 2**16
MOST_TAKERS = 255


class Handout:
    """The shared list of rows; `descriptor` is inherited by the processes that take from it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._last_taken = 0

    @classmethod
    def of(cls, n_rows: int) -> "Handout":
        """Make one of `n_rows` free rows."""
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
        os.truncate(descriptor, n_rows)
        return cls(descriptor)

    def take(self, taker: int) -> int | None:
        """Give `taker` (from 0) the number of a free row; None if there is none."""
        with self._locked():
            # From the beginning once more: rows before the last one taken may have been given back.
            row = self._next_free(self._last_taken) if self._last_taken else None
            row = self._next_free(0) if row is None else row
            if row is not None:
                os.pwrite(self.descriptor, bytes([taker + 1]), row)
                self._last_taken = row
            return row

    def _next_free(self, start: int) -> int | None:
        while block := os.pread(self.descriptor, _BLOCK, start):
            place = block.find(0)
            if place >= 0:
                return start + place
            start += len(block)
        return None

    def taken_by(self, taker: int) -> list[int]:
        """Give the rows that a process took."""
        return [row for row, owner in enumerate(self._owners()) if owner == taker + 1]

    def n_free(self) -> int:
        """Count the rows that nobody has taken."""
        return self._owners().count(0)

    def free(self, rows: Collection[int]) -> None:
        """Give rows back, to be taken again. Only for rows whose taker has ended."""
        with self._locked():
            for row in rows:
                os.pwrite(self.descriptor, b"\0", row)

    def rows_for(self, taker: int) -> Iterator[int]:
        """Take row after row, each when it is asked for, until none is free."""
        while (row := self.take(taker)) is not None:
            yield row

    def close(self) -> None:
        """Close the file; the others keep theirs."""
        os.close(self.descriptor)

    def _owners(self) -> bytes:
        size = os.fstat(self.descriptor).st_size
        return b"".join(os.pread(self.descriptor, _BLOCK, start) for start in range(0, size, _BLOCK))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN)


MOST_REPLACED = 3  # of a run; workers that keep dying have a cause that another one meets as well


def visible_gpus() -> list[str]:
    """Give the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    return [
        str(number) for number, _ in enumerate(line for line in listed.stdout.splitlines() if "GPU" in line)
    ]


def shares_of_gpus(n_workers: int, gpus_each: int) -> list[str]:
    """Give each worker's CUDA_VISIBLE_DEVICES. Raises RecordError if there are not enough GPUs."""
    gpus = visible_gpus()
    if len(gpus) < n_workers * gpus_each:
        raise RecordError(
            f"{n_workers} workers with {gpus_each} GPUs each need {n_workers * gpus_each}, {len(gpus)} are "
            "visible; lower --workers (N_GPU) or --tensor-parallel-size"
        )
    return [",".join(gpus[i * gpus_each : (i + 1) * gpus_each]) for i in range(n_workers)]


def take_share_of_cores(worker: int, n_workers: int) -> None:
    """Bind this process to its share of the cores, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) >= n_workers:
            os.sched_setaffinity(0, cores[worker::n_workers])


def end_with_parent() -> None:
    """End this worker when its parent has: the parent holds the other end of standard input."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class Workers:
    """The processes of a run, started with its own command line; those that die are replaced."""

    def __init__(
        self,
        script: Path,
        arguments: Sequence[str],
        environments: Sequence[Mapping[str, str]],
        parts: Sequence[Path],
        row_ids: Sequence[str],
        lock: int,
    ) -> None:
        """Start a worker for each environment.

        `parts`: the file that each appends its rows to. `row_ids`: the rows to hand out, in the order in
        which a worker finds them. `lock` keeps the folder taken until the last worker has ended.
        """
        self._command = [sys.executable, str(script), *arguments]
        self._environments = list(environments)
        self._parts = list(parts)
        self._row_ids = list(row_ids)
        self._lock = lock
        self._seen = [0] * len(parts)
        self._done: set[str] = set()
        self._handout = Handout.of(len(row_ids))
        self._n_replaced = 0
        self._processes = [self._start(number) for number in range(len(environments))]

    def _start(self, number: int) -> "subprocess.Popen[bytes]":
        handed_out = self._handout.descriptor
        return subprocess.Popen(
            [*self._command, "--worker", str(number), "--handout", str(handed_out)],
            stdin=subprocess.PIPE,
            pass_fds=[self._lock, handed_out],
            env={**os.environ, **self._environments[number]},
        )

    def wait(
        self, on_rows: Callable[[int, int], None], stopped: Callable[[], bool], say: Callable[[str], None]
    ) -> list[int]:
        """Wait until all rows are done or the workers cannot go on; gives the exit statuses that ended it.

        `on_rows` is told how many rows came, and how many of these with an error. When `stopped`, every
        worker gets SIGTERM: SIGINT is ignored by what a shell has started in the background. The rows in the
        hands of a worker that dies are handed out again, and it is replaced, `MOST_REPLACED` times in all.
        """
        told = is_clocked = False
        failed: list[int] = []
        living = dict(enumerate(self._processes))
        while living:
            if stopped() and not told:
                told = True
                for process in living.values():
                    process.terminate()
            if not is_clocked and self._handout.n_free() < len(self._row_ids):
                is_clocked = True
                on_rows(0, 0)  # the first engine is ready
            ended = {number: process for number, process in living.items() if process.poll() is not None}
            self._report(on_rows)
            if not told and len(self._done) == len(self._row_ids):
                told = True  # who is still loading has nothing to do
                for process in living.values():
                    process.terminate()
            for number, process in ended.items():
                del living[number]
                if process.returncode and not told:
                    failed.append(process.returncode)
                    if self._ask_again_after(number, process.returncode, say):
                        living[number] = self._start(number)
            time.sleep(0.2)
        return failed if self._handout.n_free() else []

    def _ask_again_after(self, number: int, status: int, say: Callable[[str], None]) -> bool:
        """Hand out again what a dead worker had taken; tells whether to put another in its place.

        One that fails by itself before its first row cannot load the engine, and no other could.
        """
        left = [row for row in self._handout.taken_by(number) if self._row_ids[row] not in self._done]
        self._handout.free(left)
        names = ", ".join(self._row_ids[row] for row in left[:3])
        say(
            f"worker {number} ended with {_shown(status)}; {len(left)} rows in its hands are asked again"
            + (f" ({names}{', ...' if len(left) > 3 else ''})" if left else "")
        )
        can_work = status < 0 or self._seen[number] > 0
        is_replaced = can_work and self._n_replaced < MOST_REPLACED and self._handout.n_free() > 0
        self._n_replaced += is_replaced
        return is_replaced

    def _report(self, on_rows: Callable[[int, int], None]) -> None:
        n_rows = n_failed = 0
        for number, part in enumerate(self._parts):
            if part.exists():
                with open(part, "rb") as file:
                    file.seek(self._seen[number])
                    block = file.read()
                block = block[: block.rfind(b"\n") + 1]
                self._seen[number] += len(block)
                for line in block.splitlines():
                    row = json.loads(line)
                    self._done.add(row["id"])
                    n_rows += 1
                    n_failed += "error" in row
        if n_rows:
            on_rows(n_rows, n_failed)


def _shown(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def work(plan: Plan, folder: RunFolder, stopper: Stopper) -> int:
    """Be one of several workers: take row after row of those that are not done."""
    end_with_parent()
    arguments = plan.arguments
    done = folder.read_gathered()
    pending = [row for row in plan.records if row["id"] not in done]
    handout = Handout(arguments.handout)
    if runs_on_cpu():
        take_share_of_cores(arguments.worker, arguments.workers)
    # In its hands at the start no worker has more than its share, so that none idles at the end.
    share = max(1, len(pending) // arguments.workers)
    arguments.batch_size = max(1, min(arguments.batch_size, share * 4 // 5))
    backend = start_backend(plan)
    stopper.gently = True
    rows = (pending[number] for number in handout.rows_for(arguments.worker))
    with folder.appender(arguments.worker) as appender:
        answer_rows(backend, rows, plan.image_root, appender.write, stopper)
    return 0 if stopper.signal is None else stopper.status


def run_workers(
    plan: Plan,
    folder: RunFolder,
    pending: Sequence[Record],
    environments: Sequence[Mapping[str, str]],
    lock: int,
    argv: Sequence[str],
    stopper: Stopper,
    progress: Progress,
) -> None:
    """Answer the pending rows with several engines. Raises EngineError if they cannot go on."""
    stopper.gently = True
    most = plan.arguments.max_failures
    workers = Workers(
        Path(sys.argv[0]).resolve(),
        argv,
        environments,
        [folder.part(number) for number in range(len(environments))],
        [row["id"] for row in pending],
        lock,
    )
    failed = workers.wait(
        progress.update,
        lambda: stopper.signal is not None or (most is not None and progress.n_failed > most),
        say,
    )
    if stopper.signal is None:
        check_failures(progress, most)
        if failed:
            raise EngineError(
                f"{len(failed)} workers have died, the last with {failed[-1]}; no more are started"
            )
