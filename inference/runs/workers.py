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
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from emocaliber.records import Record, RecordError
from inference.backends.backend import EngineError
from inference.backends.vllm_engine import is_small, physical_cores, runs_on_cpu
from inference.runs.answering import Run, Stopper, answer_rows, say
from inference.runs.plan import Plan
from inference.runs.run_folder import RunFolder

MOST_REPLACED = 3  # of a run; workers that keep dying have a cause that another one meets as well

# Two engines on the CPU pay off from here on: each takes half a minute of a core to start, and so many bytes.
ROWS_FOR_TWO = 256
MEMORY_OF_ONE = 4 * 2**30


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
            for start in (self._last_taken, 0):
                place = self._owners(start).find(0)
                if place >= 0:
                    self._last_taken = start + place
                    os.pwrite(self.descriptor, bytes([taker + 1]), self._last_taken)
                    return self._last_taken
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

    def _owners(self, start: int = 0) -> bytes:
        return os.pread(self.descriptor, os.fstat(self.descriptor).st_size, start)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN)


def number_of_workers(plan: Plan, n_rows: int) -> int:
    """Give how many engines answer so many rows: as asked, else 2 where that is sooner done without a GPU."""
    asked: int | None = plan.arguments.workers
    if asked is not None:
        return max(1, min(asked, n_rows))
    for_two = plan.takes.workers and not plan.arguments.ray and runs_on_cpu() and n_rows >= ROWS_FOR_TWO
    if for_two and is_small(plan.checkpoint.weights_bytes) and physical_cores() >= 2:
        return 2 if free_memory() >= 2 * MEMORY_OF_ONE else 1
    return 1


def free_memory() -> int:
    """Give the bytes that this process may still use: the machine's, or what is left of its container's."""
    import psutil

    free: int = psutil.virtual_memory().available
    try:
        most, used = (
            int(Path("/sys/fs/cgroup", f"memory.{name}").read_text()) for name in ("max", "current")
        )
        return min(free, most - used)
    except (OSError, ValueError):  # no control group, or one without a limit ("max")
        return free


def visible_gpus() -> list[str]:
    """Give the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number in range(sum("GPU" in line for line in listed.stdout.splitlines()))]


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

    def __init__(self, run: Run, pending: Sequence[Record]) -> None:
        """Start them for the pending rows."""
        arguments = run.plan.arguments
        n_workers: int = arguments.workers
        self._run = run
        self._command = [
            str(Path(sys.argv[0]).resolve()),
            *arguments.command_line,
            "--workers",
            str(n_workers),
        ]
        self._gpus: list[str] = []
        if not runs_on_cpu():
            self._gpus = shares_of_gpus(n_workers, arguments.tensor_parallel_size)
        self._parts = [run.folder.part(number) for number in range(n_workers)]
        self._row_ids = [row["id"] for row in pending]  # in the order in which a worker finds them
        self._seen = [0] * n_workers
        self._done: set[str] = set()
        self._handout = Handout.of(len(pending))
        self._n_replaced = 0
        self._living = {number: self._start(number) for number in range(n_workers)}

    def _start(self, number: int) -> "subprocess.Popen[bytes]":
        handed_out = self._handout.descriptor
        gpus = {"CUDA_VISIBLE_DEVICES": self._gpus[number]} if self._gpus else {}
        return subprocess.Popen(
            [sys.executable, *self._command, "--worker", str(number), "--handout", str(handed_out)],
            stdin=subprocess.PIPE,
            pass_fds=[self._run.folder.lock, handed_out],
            env={**os.environ, **gpus},
        )

    def wait(self) -> list[int]:
        """Wait until all rows are done or the workers cannot go on; gives the exit statuses that ended it.

        The rows in the hands of a worker that dies are handed out again, and it is replaced, `MOST_REPLACED`
        times in all. Raises EngineError for too many errors; no worker is left then either.
        """
        is_ending = is_clocked = False
        failed: list[int] = []
        try:
            while self._living:
                if not is_clocked and self._handout.n_free() < len(self._row_ids):
                    is_clocked = True
                    self._run.count(0, 0)  # the first engine is ready
                ended = {number: one for number, one in self._living.items() if one.poll() is not None}
                self._count_rows()
                # Who is still loading when all rows are done has nothing to do.
                if not is_ending and (self._run.is_stopped or len(self._done) == len(self._row_ids)):
                    is_ending = True
                    self._terminate()
                for number, process in ended.items():
                    del self._living[number]
                    if process.returncode and not is_ending:
                        failed.append(process.returncode)
                        if self._ask_again_after(number, process.returncode):
                            self._living[number] = self._start(number)
                time.sleep(0.2)
        finally:
            self._terminate()
            for process in self._living.values():
                process.wait()
        return failed if self._handout.n_free() else []

    def _terminate(self) -> None:
        # Not SIGINT: what a shell has started in the background ignores it.
        for process in self._living.values():
            process.terminate()

    def _ask_again_after(self, number: int, status: int) -> bool:
        """Hand out again what a dead worker had taken; tells whether to put another in its place.

        One that fails by itself before its first row cannot load the engine, and no other could.
        """
        left = [row for row in self._handout.taken_by(number) if self._row_ids[row] not in self._done]
        self._handout.free(left)
        names = ", ".join(self._row_ids[row] for row in left[:3])
        ended = f"signal {-status}" if status < 0 else f"exit status {status}"
        say(
            f"worker {number} ended with {ended}; {len(left)} rows in its hands are asked again"
            + (f" ({names}{', ...' if len(left) > 3 else ''})" if left else "")
        )
        can_work = status < 0 or self._seen[number] > 0
        is_replaced = can_work and self._n_replaced < MOST_REPLACED and self._handout.n_free() > 0
        self._n_replaced += is_replaced
        return is_replaced

    def _count_rows(self) -> None:
        """Count the rows that have come since the last time."""
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
            self._run.count(n_rows, n_failed)


def answer_by_workers(run: Run, pending: Sequence[Record]) -> None:
    """Answer the pending rows with several engines of this machine."""
    run.stopper.gently = True
    failed = Workers(run, pending).wait()
    if failed and not run.is_stopped:
        raise EngineError(f"{len(failed)} workers have died, the last with {failed[-1]}; no more are started")


def work(plan: Plan, folder: RunFolder, stopper: Stopper) -> int:
    """Be one of several workers: take row after row of those that are not done. Gives the exit status."""
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
    backend = plan.start_backend()
    stopper.gently = True
    rows = (pending[number] for number in handout.rows_for(arguments.worker))
    with folder.appender(arguments.worker) as appender:
        answer_rows(backend, rows, appender.write, stopper)
    return 0 if stopper.signal is None else stopper.status
