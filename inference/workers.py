"""Several engines side by side: one process each, each with its own GPUs (or cores) and share of the rows.

The documented way of vLLM for data parallelism offline. Worker i of N answers every Nth row and appends it to
its own file; the parent draws one progress line and merges by id at the end.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from emocaliber.records import RecordError


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
    """The processes of a run, started with its own command line."""

    def __init__(
        self,
        script: Path,
        arguments: Sequence[str],
        environments: Sequence[Mapping[str, str]],
        parts: Sequence[Path],
        lock: int,
    ) -> None:
        """Start a worker for each environment; `lock` keeps the folder taken until the last one has ended."""
        self._parts = list(parts)
        self._seen = [0] * len(parts)
        self._processes = [
            subprocess.Popen(
                [sys.executable, str(script), *arguments, "--worker", str(number)],
                stdin=subprocess.PIPE,
                pass_fds=[lock],
                env={**os.environ, **environment},
            )
            for number, environment in enumerate(environments)
        ]

    def wait(self, on_rows: Callable[[int], None], stopped: Callable[[], bool]) -> dict[int, int]:
        """Wait for all workers, telling `on_rows` how many rows came; gives the exit status of failed ones.

        When `stopped`, every worker is told to end as by Ctrl-C.
        """
        told = False
        while any(process.poll() is None for process in self._processes):
            if stopped() and not told:
                told = True
                for process in self._processes:
                    if process.poll() is None:
                        process.send_signal(signal.SIGINT)
            self._report(on_rows)
            time.sleep(0.2)
        self._report(on_rows)
        return {i: process.returncode for i, process in enumerate(self._processes) if process.returncode}

    def _report(self, on_rows: Callable[[int], None]) -> None:
        new = 0
        for number, part in enumerate(self._parts):
            if part.exists():
                with open(part, "rb") as file:
                    file.seek(self._seen[number])
                    block = file.read()
                new += block.count(b"\n")
                self._seen[number] += block.rfind(b"\n") + 1
        if new:
            on_rows(new)
